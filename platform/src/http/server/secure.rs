//! The handshake of TLS, and the stream of a connection with or without it.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::request::arrival::Arrival;
use crate::http::request::peer::Peer;
use crate::tls::{ClientCertificate, Tls};

/// The type of the first record of TLS: a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The shortest time between two log lines about failed handshakes: whoever likes can make them fail.
const REPORT_FAILURES_EVERY: Duration = Duration::from_secs(1);

/// What the first byte of a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Tls,
    Http,
}

impl Speaks {
    /// A method of HTTP begins with a letter. What is neither gets the alert of TLS.
    pub(crate) fn of(first: u8) -> Self {
        if first != HANDSHAKE_RECORD && first.is_ascii_alphabetic() { Self::Http } else { Self::Tls }
    }
}

/// What handshakes need. Clones share the same state.
#[derive(Clone)]
pub(crate) struct Handshakes {
    tls: Arc<Tls>,
    timeout: Duration,
    write_timeout: Duration,
    failures: Arc<Mutex<Failures>>,
}

#[derive(Default)]
struct Failures {
    reported: Option<Instant>,
    /// Those since then.
    unreported: u64,
}

impl Handshakes {
    pub(crate) fn new(tls: Arc<Tls>, timeout: Duration, write_timeout: Duration) -> Self {
        Self { tls, timeout, write_timeout, failures: Arc::default() }
    }

    /// Makes the handshake within its time. What it learns of the client is noted at the peer.
    pub(crate) async fn accept<S>(&self, stream: S, peer: &Peer) -> io::Result<Transport<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = TlsAcceptor::from(self.tls.config()).accept(Counted { stream, written: 0 });
        let accepted = tokio::time::timeout(self.timeout, accepted).await;
        let accepted = accepted.unwrap_or_else(|_| {
            Err(io::Error::new(ErrorKind::TimedOut, "no handshake within server.tls.handshake_timeout"))
        });
        let accepted = accepted.and_then(|stream| {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[CertificateDer<'_>]>::first);
            let certificate = match shown.map(ClientCertificate::new) {
                Some(None) => return Err(io::Error::other("the certificate of the client cannot be read")),
                shown => shown.flatten(),
            };
            peer.arrived(Arrival::Tls(certificate));
            Ok(stream)
        });
        match accepted {
            Ok(stream) => {
                let write_timeout = self.write_timeout;
                Ok(Transport::Tls(Box::new(Secured { stream, write_timeout, stalled: None })))
            }
            Err(error) => {
                self.report(&error, peer);
                Err(error)
            }
        }
    }

    fn report(&self, error: &io::Error, peer: &Peer) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.reported.is_some_and(|reported| reported.elapsed() < REPORT_FAILURES_EVERY) {
            failures.unreported += 1;
            return;
        }
        failures.reported = Some(Instant::now());
        let more = std::mem::take(&mut failures.unreported);
        drop(failures);
        tracing::info!(target: "server", peer = peer.as_str(), %error, more, "TLS handshake failed");
    }
}

/// The stream of a connection.
pub enum Transport<S> {
    /// As it is.
    Plain(S),
    /// With TLS.
    Tls(Box<Secured<S>>),
}

/// A stream with TLS, whose flushes have a deadline: what is written to it is kept in memory when the client reads
/// nothing, so it is the flush that waits.
pub struct Secured<S> {
    stream: TlsStream<Counted<S>>,
    write_timeout: Duration,
    stalled: Option<Stalled>,
}

/// A time in which the client has read nothing.
struct Stalled {
    timer: Pin<Box<Sleep>>,
    /// What had been written when it began.
    written: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    /// Makes an error of a flush that has been pending for too long without progress.
    fn time<T>(&mut self, task: &mut Task<'_>, flushed: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if flushed.is_ready() {
            self.stalled = None;
            return flushed;
        }
        let written = self.stream.get_ref().0.written;
        let limit = self.write_timeout;
        let new = || Stalled { timer: Box::pin(tokio::time::sleep(limit)), written };
        let stalled = match &mut self.stalled {
            Some(stalled) if stalled.written == written => stalled,
            other => other.insert(new()),
        };
        stalled.timer.as_mut().poll(task).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(task, buffer),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_read(task, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(task, bytes),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(task, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(task, pieces),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write_vectored(task, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(secured) => secured.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(task),
            Self::Tls(secured) => {
                let flushed = Pin::new(&mut secured.stream).poll_flush(task);
                secured.time(task, flushed)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Tls(secured) => {
                let shut_down = Pin::new(&mut secured.stream).poll_shutdown(task);
                secured.time(task, shut_down)
            }
        }
    }
}

/// A stream that counts what is written to it.
struct Counted<S> {
    stream: S,
    written: u64,
}

impl<S> Counted<S> {
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = written {
            self.written = self.written.wrapping_add(length as u64);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(task, pieces);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::{TlsConnector, client};

    use super::*;

    const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

    /// A connection over a pipe that holds 4 KiB.
    async fn connected() -> (Transport<DuplexStream>, client::TlsStream<DuplexStream>) {
        crate::connector::install_tls_provider();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let private = PrivateKeyDer::from_pem_slice(key.signing_key.serialize_pem().as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (near, far) = tokio::io::duplex(4_096);
        let name = ServerName::try_from("localhost").unwrap();
        let accepting = TlsAcceptor::from(Arc::new(server)).accept(Counted { stream: near, written: 0 });
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, far);
        let (stream, client) = tokio::try_join!(accepting, connecting).unwrap();
        (Transport::Tls(Box::new(Secured { stream, write_timeout: WRITE_TIMEOUT, stalled: None })), client)
    }

    /// What waits for ever fails the test.
    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(WRITE_TIMEOUT * 100, work).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_to_a_client_that_reads_nothing_ends() {
        let (mut server, _client) = connected().await;
        // All of it fits into the memory of rustls: no write waits.
        let begun = tokio::time::Instant::now();
        server.write_all(&vec![0; 40_000]).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let error = in_time(server.flush()).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::TimedOut, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_connection_whose_client_reads_nothing_ends() {
        let (mut server, _client) = connected().await;
        server.write_all(&vec![0; 40_000]).await.unwrap();
        assert_eq!(in_time(server.shutdown()).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_gets_all() {
        let (mut server, mut client) = connected().await;
        let begun = tokio::time::Instant::now();
        server.write_all(&vec![0; 40_000]).await.unwrap();
        let reading = async {
            let mut left = 40_000;
            while left > 0 {
                tokio::time::sleep(WRITE_TIMEOUT / 2).await;
                // A record has 16 KiB, so that this reads from the pipe each time.
                left -= client.read(&mut vec![0; 16_384]).await?;
            }
            Ok(())
        };
        in_time(async { tokio::try_join!(server.flush(), reading) }).await.unwrap();
        assert!(begun.elapsed() > WRITE_TIMEOUT, "it was not slow");
    }

    #[test]
    fn the_first_byte_tells_tls_from_http() {
        assert_eq!([b'G', b'p'].map(Speaks::of), [Speaks::Http; 2]);
        assert_eq!([22, 0, 128, 255].map(Speaks::of), [Speaks::Tls; 4]);
    }
}

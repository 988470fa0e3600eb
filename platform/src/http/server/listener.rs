//! Accepts connections, up to a limit.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum_server::{AddrListener, Address};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::http::request::arrival::{Arrival, ToHttps};
use crate::http::request::peer::Peer;

/// The shortest time between two log lines that say that all permits are in use: at the limit, that state begins and
/// ends all the time.
const REPORT_FULL_EVERY: Duration = Duration::from_mins(1);

/// How many connections a closed socket leaves at most: as many as may wait in it.
const MOST_LAST: usize = 1_024;

/// A listener that limits the number of open connections: each one holds a permit.
pub struct LimitedListener {
    pub(crate) listener: TcpListener,
    /// One for HTTP, until no more connections are accepted.
    pub(crate) redirect: Mutex<Option<Arc<Redirect>>>,
    /// What has waited in it then.
    pub(crate) last: Mutex<VecDeque<(std::net::TcpStream, SocketAddr, Arc<ToHttps>)>>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) reported_full: Mutex<Option<Instant>>,
    pub(crate) failing: AtomicBool,
    pub(crate) accepts_none: CancellationToken,
    pub(crate) has_stopped: CancellationToken,
}

/// A listener for HTTP, whose requests are sent to HTTPS.
pub(crate) struct Redirect {
    pub(crate) listener: TcpListener,
    pub(crate) to: Arc<ToHttps>,
}

/// A connection, and where its requests are sent when it is for HTTP.
type Accepted = (TcpStream, SocketAddr, Option<Arc<ToHttps>>);

/// axum-server passes only this "address" of a connection to the service that handles its requests.
impl Address for Peer {
    type Stream = Socket;
    type Listener = LimitedListener;
}

impl AddrListener<Socket, Peer> for LimitedListener {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(Socket, Peer)> {
        let accepting = async {
            let permit = self.permit().await?;
            Ok::<_, io::Error>((permit, self.accept_any().await))
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = self.accepts_none.cancelled() => self.accept_last().await?,
            accepted = accepting => accepted?,
        };
        // axum-server tries again after 50 ms. Only the first failure in a row is logged.
        match &accepted {
            Ok(_) => self.failing.store(false, Ordering::Relaxed),
            Err(_) if self.failing.swap(true, Ordering::Relaxed) => {}
            Err(error) => tracing::error!(target: "server", %error, "cannot accept connections"),
        }
        let (stream, address, redirect) = accepted?;
        // Nagle's algorithm would only delay responses: each one is written at once.
        stream.set_nodelay(true)?;
        let peer = Peer::new(address);
        if let Some(to) = redirect {
            peer.arrived(Arrival::ToRedirect(to));
        }
        let open = OpenConnection::count(&self.open);
        Ok((Socket { stream, peer: peer.clone(), _permit: permit, _open: open }, peer))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer::new)
    }
}

impl LimitedListener {
    /// Waits for a connection at any port.
    async fn accept_any(&self) -> io::Result<Accepted> {
        let redirect = self.redirect.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(redirect) = redirect else {
            let (stream, address) = self.listener.accept().await?;
            return Ok((stream, address, None));
        };
        let (accepted, to) = tokio::select! {
            accepted = self.listener.accept() => (accepted, None),
            accepted = redirect.listener.accept() => (accepted, Some(Arc::clone(&redirect.to))),
        };
        accepted.map(|(stream, address)| (stream, address, to))
    }

    /// Takes what has waited in the socket of the redirect, one after the other; then there are no more connections.
    async fn accept_last(&self) -> io::Result<(OwnedSemaphorePermit, io::Result<Accepted>)> {
        self.close_redirect();
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last().is_empty() {
            self.has_stopped.cancel();
            return std::future::pending().await;
        }
        let permit = self.permit().await?;
        let Some((stream, address, to)) = last().pop_front() else { return std::future::pending().await };
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        Ok((permit, stream.map(|stream| (stream, address, Some(to)))))
    }

    /// Closes the socket of the redirect, and keeps what waits in it. The workers have one each, and the kernel deals the
    /// connections out: those in a socket that is open and accepted from by nobody would hang, and be reset at its end. What
    /// comes between the last look and the close is lost.
    fn close_redirect(&self) {
        let redirect = self.redirect.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nobody else has it: the call that waited for it has ended.
        let Some(Redirect { listener, to }) = redirect.and_then(Arc::into_inner) else { return };
        let Ok(listener) = listener.into_std() else { return };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        while last.len() < MOST_LAST {
            match listener.accept() {
                Ok((stream, address)) => last.push_back((stream, address, Arc::clone(&to))),
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                // Nothing waits.
                Err(_) => break,
            }
        }
    }

    /// Waits for the permit of one more connection.
    async fn permit(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        self.report_full();
        Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)
    }

    fn report_full(&self) {
        let mut reported = self.reported_full.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_none_or(|reported| reported.elapsed() >= REPORT_FULL_EVERY) {
            *reported = Some(Instant::now());
            tracing::warn!(target: "server", "the limit http.max_connections is reached: new connections wait");
        }
    }
}

/// Counts a connection as open until it is dropped.
struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        metrics::gauge!("http_server_open_connections").increment(1);
        Self(Arc::clone(open))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        metrics::gauge!("http_server_open_connections").decrement(1);
    }
}

/// A TCP stream that holds the permit of its connection.
pub struct Socket {
    stream: TcpStream,
    pub(crate) peer: Peer,
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

impl Socket {
    /// Waits for the first byte, and leaves it to be read.
    pub(crate) async fn first_byte(&self) -> io::Result<u8> {
        let mut byte = [0];
        match self.stream.peek(&mut byte).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(task, pieces)
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

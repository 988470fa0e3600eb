//! Sets up an accepted connection: reads until the protocol is known, then wraps the stream for deadlines and error
//! bodies.
//!
//! Generic over the stream, so that it works on top of TLS too.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::watch;

use super::refusal::{Refuse, WithErrorBodies};
use super::timed::{Deadlines, Timed};
use crate::http::middleware::Stack;
use crate::http::request::peer::Peer;
use crate::http::settings::Settings;
use crate::shutdown::Shutdown;

/// A connection as hyper sees it.
pub type Connection<S> = WithErrorBodies<S>;

/// How long a connection that has sent nothing is kept when a drain begins: its first bytes may be on the way. Browsers
/// open connections before they need them. To wait `first_byte_timeout` for those would delay every shutdown.
const DRAIN_FIRST_BYTE_GRACE: Duration = Duration::from_millis(100);

/// How long a handshake of TLS may go on when a drain begins: the client has begun to talk, and takes two round trips at
/// most. As long as other clients that have sent a half have (`timed.rs`).
const DRAIN_HANDSHAKE_GRACE: Duration = Duration::from_secs(2);

/// The size of the buffer in which the protocol is recognised. Most request heads fit into it, and the HTTP/2 preface
/// always does.
const SNIFF_BUFFER: usize = 1024;

/// The HTTP/2 preface (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The configuration that all connections share.
#[derive(Clone)]
pub(crate) struct ConnectionConfig {
    first_byte_timeout: Duration,
    deadlines: Deadlines,
    draining: watch::Receiver<bool>,
    refuse: Refuse,
    max_header_size: usize,
}

impl ConnectionConfig {
    pub(crate) fn new(stack: Arc<Stack>, settings: &Settings, shutdown: &Shutdown) -> Self {
        let draining = shutdown.subscribe();
        Self {
            first_byte_timeout: settings.first_byte_timeout.get(),
            deadlines: Deadlines::new(settings, draining.clone(), shutdown.deadline()),
            draining,
            refuse: Arc::new(move |peer, status, date| stack.refuse(peer, status, date)),
            max_header_size: settings.max_header_size.as_usize(),
        }
    }

    /// Waits for what a client sends first.
    pub(crate) async fn first_byte<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let timed = async {
            tokio::time::timeout(self.first_byte_timeout, work).await.map_err(|_| ErrorKind::TimedOut)?
        };
        until_drained(self.draining.clone(), DRAIN_FIRST_BYTE_GRACE, timed).await
    }

    /// Waits for a handshake, which has a deadline of its own.
    pub(crate) async fn handshake<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        until_drained(self.draining.clone(), DRAIN_HANDSHAKE_GRACE, work).await
    }

    /// Waits until the first bytes show the protocol of the client. With hyper alone, a connection that sends nothing,
    /// or only a part of the HTTP/2 preface, would stay open for ever (hyper#3756).
    pub(crate) async fn connect<S>(self, mut stream: S, peer: Peer) -> io::Result<Connection<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut read_ahead = BytesMut::with_capacity(SNIFF_BUFFER);
        let http2 = self.first_byte(speaks_http2(&mut stream, &mut read_ahead)).await?;
        let timed = Timed::new(stream, peer, self.deadlines, http2, read_ahead);
        Ok(WithErrorBodies::new(timed, self.refuse, self.max_header_size))
    }
}

/// Waits for the work until this time after the beginning of a drain.
async fn until_drained<T>(
    mut draining: watch::Receiver<bool>,
    grace: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let grace_is_over = async {
        // An error means that the server has been dropped.
        let _ = draining.wait_for(|started| *started).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        done = work => done,
        () = grace_is_over => Err(ErrorKind::ConnectionAborted.into()),
    }
}

/// Reads until the bytes are the complete HTTP/2 preface, or cannot become it.
async fn speaks_http2(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> io::Result<bool> {
    loop {
        if stream.read_buf(read).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let known = read.len().min(PREFACE.len());
        if read[..known] != PREFACE[..known] {
            return Ok(false);
        }
        if known == PREFACE.len() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let mut stream = stream_of(pieces);
        let mut read = BytesMut::with_capacity(SNIFF_BUFFER);
        let http2 = speaks_http2(&mut stream, &mut read).await.unwrap();
        (http2, read.to_vec())
    }

    /// A stream that gives one piece at each read.
    fn stream_of(pieces: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, io::Error>(BytesMut::from(*piece))).collect();
        tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn the_preface_is_recognised_in_any_pieces_and_no_byte_is_lost() {
        for split in 1..PREFACE.len() {
            let (start, end) = PREFACE.split_at(split);
            assert_eq!(sniffed(&[start, end]).await, (true, PREFACE.to_vec()), "{split}");
        }
        for head in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.1", b"PUT / HTTP/1.1\r\n\r\n"] {
            assert_eq!(sniffed(&[head]).await, (false, head.to_vec()));
        }
        assert_eq!(sniffed(&[b"P", b"UT /"]).await, (false, b"PUT /".to_vec()));
    }
}

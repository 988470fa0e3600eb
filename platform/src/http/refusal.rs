//! Error bodies for requests that hyper rejects.
//!
//! hyper replies to what is not HTTP, and to a request head that is too large, with a bare status, before there is a
//! request that any middleware could see. This stream stands between hyper and the socket, knows such a response by
//! the fact that no request is in flight, and sends the error body of the server in its place.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use axum::http::{HeaderValue, StatusCode};
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::Peer;
use super::timed::Timed;

/// Makes the whole response, as bytes of HTTP/1.1, from the status and the `date` that hyper sent.
pub(super) type Refuse = Arc<dyn Fn(Peer, StatusCode, Option<HeaderValue>) -> Bytes + Send + Sync>;

/// A stream whose bare refusals get a body.
pub struct WithErrorBodies<S> {
    inner: Timed<S>,
    refuse: Refuse,
    /// What is left to send of our response.
    unsent: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WithErrorBodies<S> {
    pub(super) fn new(inner: Timed<S>, refuse: Refuse) -> Self {
        Self { inner, refuse, unsent: Bytes::new() }
    }

    fn poll_unsent(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let length = ready!(Pin::new(&mut self.inner).poll_write(task, &self.unsent))?;
            self.unsent.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

/// Status and date of a response head that hyper wrote by itself.
fn bare_refusal(head: &[u8]) -> Option<(StatusCode, Option<HeaderValue>)> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok()?;
    let date = rest.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"date: "));
    Some((status, date.and_then(|date| HeaderValue::from_bytes(date.trim_ascii_end()).ok())))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WithErrorBodies<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(task, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WithErrorBodies<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.inner.is_idle()
            && let Some((status, date)) = bare_refusal(bytes)
        {
            let peer = self.inner.peer().clone();
            // What the client still sends has to be read away before the end.
            peer.set_unread_body(true);
            self.unsent = (self.refuse)(peer, status, date);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A response without a body; hyper's own refusals come like this too.
        if let [only] = pieces {
            return self.poll_write(task, only);
        }
        Pin::new(&mut self.inner).poll_write_vectored(task, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(task))?;
        Pin::new(&mut self.inner).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(task))?;
        Pin::new(&mut self.inner).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_bare_head_is_read_and_nothing_else_is_taken_for_one() {
        let (status, date) =
            bare_refusal(b"HTTP/1.1 431 Too Large\r\ndate: Sat, 21 Nov 2026 15:00:00 GMT\r\n\r\n").unwrap();
        assert_eq!((status.as_u16(), date.unwrap().as_bytes()), (431, &b"Sat, 21 Nov 2026 15:00:00 GMT"[..]));
        assert_eq!(bare_refusal(b"HTTP/1.0 400 Bad Request\r\n"), Some((StatusCode::BAD_REQUEST, None)));
        // The first frame of HTTP/2, and pieces.
        for other in [&b"\0\0\x12\x04\0\0\0\0\0"[..], b"HTTP/1.1 4", b"HTTP/1.1 abc", b""] {
            assert_eq!(bare_refusal(other), None, "{other:?}");
        }
    }
}

//! Error bodies for requests that hyper rejects.
//!
//! hyper itself responds to bytes that are not HTTP, and to a request head that is too large. Its response has no body,
//! and no middleware sees such a request. This stream is between hyper and the socket. It recognises such a response by
//! the fact that no request is in flight, and sends the server's own error response instead.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use axum::http::{HeaderValue, StatusCode};
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::Peer;
use super::timed::Timed;

/// Makes the complete response, as bytes of HTTP/1.1, from the status and the `date` of the response of hyper.
pub(super) type Refuse = Arc<dyn Fn(Peer, StatusCode, Option<HeaderValue>) -> Bytes + Send + Sync>;

/// A stream that replaces a response of hyper itself by one with an error body.
pub struct WithErrorBodies<S> {
    inner: Timed<S>,
    refuse: Refuse,
    /// The rest of the error response that is still to be sent.
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

/// Status and date of a response head that hyper itself wrote.
fn parse_head(head: &[u8]) -> Option<(StatusCode, Option<HeaderValue>)> {
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
            && let Some((status, date)) = parse_head(bytes)
        {
            let peer = self.inner.peer().clone();
            // What the client still sends has to be read before the connection is closed.
            peer.set_unread_body(true);
            self.unsent = (self.refuse)(peer, status, date);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A response without a body is one slice. So is a response of hyper itself.
        if let [slice] = slices {
            return self.poll_write(task, slice);
        }
        Pin::new(&mut self.inner).poll_write_vectored(task, slices)
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
    fn a_response_head_is_parsed_and_other_bytes_are_not() {
        let (status, date) =
            parse_head(b"HTTP/1.1 431 Too Large\r\ndate: Sat, 21 Nov 2026 15:00:00 GMT\r\n\r\n").unwrap();
        assert_eq!((status.as_u16(), date.unwrap().as_bytes()), (431, &b"Sat, 21 Nov 2026 15:00:00 GMT"[..]));
        assert_eq!(parse_head(b"HTTP/1.0 400 Bad Request\r\n"), Some((StatusCode::BAD_REQUEST, None)));
        // The first frame of HTTP/2, and incomplete heads.
        for other in [&b"\0\0\x12\x04\0\0\0\0\0"[..], b"HTTP/1.1 4", b"HTTP/1.1 abc", b""] {
            assert_eq!(parse_head(other), None, "{other:?}");
        }
    }
}

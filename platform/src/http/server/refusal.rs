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

use super::timed::Timed;
use crate::http::request::peer::Peer;

/// Makes the complete response, as bytes of HTTP/1.1, from the status and the `date` of the response of hyper.
pub(crate) type Refuse = Arc<dyn Fn(Peer, StatusCode, Option<HeaderValue>) -> Bytes + Send + Sync>;

/// A stream that replaces a response of hyper itself by one with an error body.
pub struct WithErrorBodies<S> {
    inner: Timed<S>,
    refuse: Refuse,
    /// The rest of the error response that is still to be sent.
    unsent: Bytes,
    request_line: RequestLine,
}

/// How long the first line of a request head is, as far as it has come. hyper does not say whether it was that line which
/// was too long.
struct RequestLine {
    limit: usize,
    length: usize,
    has_ended: bool,
    /// The requests before it.
    after: u64,
}

impl RequestLine {
    /// Looks at what has been read while the next request head is expected.
    fn read(&mut self, bytes: &[u8], after: u64) {
        if self.after != after {
            (self.length, self.has_ended, self.after) = (0, false, after);
        }
        if self.has_ended {
            return;
        }
        // Empty lines in front of it are ignored (RFC 9112, section 2.2).
        let empty = bytes.iter().take_while(|byte| self.length == 0 && matches!(byte, b'\r' | b'\n')).count();
        let bytes = &bytes[empty..];
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.length += end.unwrap_or(bytes.len());
        self.has_ended = end.is_some();
    }

    fn is_too_long(&self) -> bool {
        self.length >= self.limit
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WithErrorBodies<S> {
    /// `max_head` is the most that hyper reads of a request head.
    pub(crate) fn new(inner: Timed<S>, refuse: Refuse, max_head: usize) -> Self {
        let request_line = RequestLine { limit: max_head, length: 0, has_ended: false, after: 0 };
        Self { inner, refuse, unsent: Bytes::new(), request_line }
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
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(task, buffer))?;
        if self.inner.is_idle() {
            let after = self.inner.peer().begun();
            self.request_line.read(&buffer.filled()[before..], after);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WithErrorBodies<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.inner.is_idle()
            && let Some((status, date)) = parse_head(bytes)
        {
            let peer = self.inner.peer().clone();
            let status = match status {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if self.request_line.is_too_long() => {
                    StatusCode::URI_TOO_LONG
                }
                status => status,
            };
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

    #[test]
    fn the_length_of_the_first_line_is_counted_in_any_pieces() {
        let head = b"\r\nGET /abc HTTP/1.1\r\nHost: a\r\nX: much longer than the line above\r\n";
        for split in 0..head.len() {
            for (limit, too_long) in [(18, true), (19, false)] {
                let mut line = RequestLine { limit, length: 0, has_ended: false, after: 0 };
                line.read(&head[..split], 3);
                line.read(&head[split..], 3);
                assert_eq!((line.length, line.is_too_long()), (18, too_long), "{split}");
                // The head after the next response.
                line.read(b"GET", 4);
                assert_eq!(line.length, 3);
            }
        }
    }
}

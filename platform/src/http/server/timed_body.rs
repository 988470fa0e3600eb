//! A response body over HTTP/2 that knows how long its client takes nothing of it.
//!
//! A client need not open the window of a stream. hyper then asks for no more of the body, and keeps it as long as the
//! connection lives; and one that answers pings lives for ever. `timed.rs` closes the connection when a body has waited for
//! too long. What hyper has taken is out of reach, so it is given small pieces.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::request::peer::{Peer, Waiting};

/// The largest piece: a frame of HTTP/2 has no more by default (RFC 9113, section 6.5.2).
const PIECE: usize = 16_384;

pub(super) struct TimedBody {
    inner: Body,
    /// What is left of the last frame.
    rest: Bytes,
    /// `None` while the handler has to give something.
    waiting: Option<Waiting>,
    peer: Peer,
}

impl TimedBody {
    pub(super) fn new(inner: Body, peer: Peer) -> Self {
        Self { inner, rest: Bytes::new(), waiting: Some(peer.wait()), peer }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waiting = None;
        let mut data = std::mem::take(&mut self.rest);
        if data.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(task)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(frame) => data = frame,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.rest = data.split_off(data.len().min(PIECE));
        self.waiting = Some(self.peer.wait());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

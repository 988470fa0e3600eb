//! A wrapper of the request body that enforces a maximum size and a minimum data rate.
//!
//! The size is counted while the body is read. A compressed body is wrapped twice: once as it is received, and once
//! after decompression. So 500 kB of gzip cannot become a gigabyte of memory. The minimum rate is the rule of Kestrel
//! (`MinRequestBodyDataRate`: 240 bytes/s after a grace of 5 s). A timeout for the gap between two frames would not
//! help: a client that sends one byte at a time never exceeds it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::error::{Error, Kind};
use crate::http::request::context::Context;
use crate::http::request::peer::Peer;

/// The minimum data rate of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinDataRate {
    /// How long the body may be slower.
    pub(crate) grace: Duration,
    /// Bytes per second after that; 0 means no minimum.
    pub(crate) bytes_per_second: u64,
}

/// A body that fails as soon as it is too large or too slow. The error is also kept in the context of the request,
/// because not every extractor reports why it could not read the body.
pub(crate) struct BoundedBody {
    inner: Body,
    context: Context,
    /// Notified at the end of the body. Only the body as it is received has one.
    peer: Option<Peer>,
    /// How many bytes have been read.
    read: u64,
    limit: u64,
    min_rate: Option<MinDataRate>,
    /// When the server first had to wait for the body.
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl BoundedBody {
    pub(crate) fn new(inner: Body, limit: u64, min_rate: Option<MinDataRate>, context: Context) -> Self {
        let min_rate = min_rate.filter(|min| min.bytes_per_second > 0);
        Self { inner, context, peer: None, read: 0, limit, min_rate, since: None, sleep: None }
    }

    /// Notifies this peer when the body has been read to its end.
    pub(crate) fn notify(mut self, peer: Option<Peer>) -> Self {
        self.peer = peer;
        self
    }

    fn end(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.set_unread_body(false);
        }
    }

    fn fail(&self, error: Error) -> axum::Error {
        let reported = axum::Error::new(std::io::Error::other(error.reason()));
        self.context.body_failed(error);
        reported
    }

    /// Ready when the body is too slow. Otherwise wakes the task at the time when it would be.
    fn poll_too_slow(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let Some(MinDataRate { grace, bytes_per_second }) = self.min_rate else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        let at_min_rate = Duration::from_millis(self.read.saturating_mul(1_000) / bytes_per_second);
        let deadline = since + grace + at_min_rate;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(task)
    }
}

/// The error for a body over the limit.
pub(crate) fn too_large(limit: u64) -> Error {
    Error::new(Kind::PayloadTooLarge)
        .with_message(format!("The body is larger than the limit of {limit} bytes"))
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(task) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.read = self.read.saturating_add(length as u64);
                if self.read > self.limit {
                    return Poll::Ready(Some(Err(self.fail(too_large(self.limit)))));
                }
                if self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(source))) => {
                if let Some(peer) = &self.peer {
                    peer.set_broken_body();
                }
                let error = Error::bad_request("Malformed Request Body").with_source(source.to_string());
                Poll::Ready(Some(Err(self.fail(error))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending if self.poll_too_slow(task).is_ready() => {
                let error = Error::new(Kind::RequestTimeout).with_message("The body came too slowly");
                Poll::Ready(Some(Err(self.fail(error))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

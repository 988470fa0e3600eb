//! The request body on its way in: its size and its pace are bounded here.
//!
//! The size is counted where it is read: around a compressed body this wrapper stands twice, once on the wire
//! and once inside the decompression, so that 500 kB of gzip cannot become a gigabyte of memory. The pace is
//! Kestrel's rule (`MinRequestBodyDataRate`: 240 bytes/s after 5 s of grace), because a time limit for the gap
//! between two pieces is kept by a client that sends one byte per gap.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::context::Context;
use super::peer::Peer;
use crate::error::{Error, Kind};

/// How slow a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long it may stay below the rate.
    pub(super) grace: Duration,
    /// Bytes per second after that; 0 for no minimum.
    pub(super) min_rate: u64,
}

/// A body that ends with an error as soon as it is too large or too slow. The error is noted in the request's
/// context, because not every extractor tells why it could not read.
pub(super) struct BoundedBody {
    inner: Body,
    context: Context,
    /// Whose body it is, on the wire.
    peer: Option<Peer>,
    read: u64,
    limit: u64,
    pace: Option<Pace>,
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl BoundedBody {
    pub(super) fn new(inner: Body, limit: u64, pace: Option<Pace>, context: Context) -> Self {
        let pace = pace.filter(|pace| pace.min_rate > 0);
        Self { inner, context, peer: None, read: 0, limit, pace, since: None, sleep: None }
    }

    /// Tells this peer when the body has been read to its end.
    pub(super) fn of(mut self, peer: Option<Peer>) -> Self {
        self.peer = peer;
        self
    }

    fn ended(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.set_unread_body(false);
        }
    }

    fn fail(&self, error: Error) -> axum::Error {
        let told = axum::Error::new(std::io::Error::other(error.reason()));
        self.context.body_failed(error);
        told
    }

    /// Ready when the body has been too slow; else wakes the task at the time at which it would be.
    fn poll_too_slow(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let Some(Pace { grace, min_rate }) = self.pace else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        let earned = Duration::from_millis(self.read.saturating_mul(1_000) / min_rate);
        let deadline = since + grace + earned;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(task)
    }
}

/// The answer to a body over the limit.
pub(super) fn too_large(limit: u64) -> Error {
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
                    self.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(source))) => {
                let error = Error::bad_request("Malformed Request Body").with_source(source.to_string());
                Poll::Ready(Some(Err(self.fail(error))))
            }
            Poll::Ready(None) => {
                self.ended();
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

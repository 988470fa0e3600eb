//! The body of a request that is forwarded. It is read when an attempt first needs it, so that an attempt that has sent
//! nothing of it can be repeated.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::hop_by_hop;

/// While the client is waited for, the upstream cannot be too slow.
const WAITS_FOR_CLIENT: u64 = u64::MAX;

/// What all attempts share.
pub(super) struct Upload {
    /// The number of the attempt that may take the body, and the body.
    body: Mutex<(u32, Option<Body>)>,
    size: SizeHint,
    is_empty: bool,
    failed: AtomicBool,
    began: Instant,
    /// When something was last sent, in milliseconds since `began`, or [`WAITS_FOR_CLIENT`].
    progress: AtomicU64,
}

impl Upload {
    pub(super) fn new(body: Body) -> Arc<Self> {
        let (size, is_empty) = (body.size_hint(), body.is_end_stream());
        Arc::new(Self {
            body: Mutex::new((0, Some(body))),
            size,
            is_empty,
            failed: AtomicBool::new(false),
            began: Instant::now(),
            progress: AtomicU64::new(0),
        })
    }

    /// The body for this attempt. An earlier attempt can no longer take it.
    pub(super) fn for_attempt(self: &Arc<Self>, number: u32) -> Body {
        self.lock().0 = number;
        self.touch();
        if self.is_empty {
            return Body::empty();
        }
        Body::new(Sent { upload: Arc::clone(self), number, body: None })
    }

    /// Whether no attempt has sent anything of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.is_empty || self.lock().1.is_some()
    }

    /// Whether it has ended before it was complete: that is the fault of the client.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Ends when the upstream has taken nothing, and sent nothing, for this time.
    pub(super) async fn silence(&self, limit: Duration) {
        while !self.is_silent_for(limit) {
            let last = match self.progress.load(Ordering::Acquire) {
                WAITS_FOR_CLIENT => Instant::now(),
                millis => self.began + Duration::from_millis(millis),
            };
            tokio::time::sleep_until(last + limit).await;
        }
    }

    /// Whether the upstream has taken nothing, and sent nothing, for this time.
    pub(super) fn is_silent_for(&self, time: Duration) -> bool {
        let last = self.progress.load(Ordering::Acquire);
        last != WAITS_FOR_CLIENT && self.began.elapsed() >= Duration::from_millis(last) + time
    }

    /// The upstream has taken or sent something.
    pub(super) fn touch(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or_default();
        self.progress.store(millis, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u32, Option<Body>)> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of one attempt.
struct Sent {
    upload: Arc<Upload>,
    number: u32,
    body: Option<Body>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.body.is_none() {
            let mut shared = self.upload.lock();
            let body = if shared.0 == self.number { shared.1.take() } else { None };
            drop(shared);
            self.body = body;
        }
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            let error = std::io::Error::other("the body belongs to another attempt");
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        };
        this.upload.progress.store(WAITS_FOR_CLIENT, Ordering::Release);
        let frame = ready!(Pin::new(body).poll_frame(task));
        this.upload.touch();
        if matches!(frame, Some(Err(_))) {
            this.upload.failed.store(true, Ordering::Release);
        }
        Poll::Ready(frame.map(|frame| frame.map(hop_by_hop::without_forbidden_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| self.upload.size, HttpBody::size_hint)
    }
}

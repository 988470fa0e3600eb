//! The request that a thread works for at the moment: its id is on every record that is made meanwhile.
//!
//! It is no span of `tracing`, which costs every request that makes no record as much as its routing. Here a request
//! costs two exchanges of a pointer each time its future is polled.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Labels>>> = const { RefCell::new(None) };
}

/// What the records of a request carry.
pub trait Labels: Send + Sync {
    /// The id of the request.
    fn request_id(&self) -> &str;
    /// The id of its trace.
    fn trace_id(&self) -> Option<&str>;
}

/// The thread works for the request in the slot until it is dropped; then it works for the one before again.
struct Entered<'a>(&'a mut Option<Arc<dyn Labels>>);

impl<'a> Entered<'a> {
    fn new(slot: &'a mut Option<Arc<dyn Labels>>) -> Self {
        exchange(slot);
        Self(slot)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        exchange(self.0);
    }
}

fn exchange(slot: &mut Option<Arc<dyn Labels>>) {
    // At the end of a thread there is none any more.
    let _ = CURRENT.try_with(|current| std::mem::swap(&mut *current.borrow_mut(), slot));
}

/// Calls the function, whose records carry these labels.
pub fn enter<T>(labels: Arc<dyn Labels>, function: impl FnOnce() -> T) -> T {
    let mut slot = Some(labels);
    let _entered = Entered::new(&mut slot);
    function()
}

/// A future whose records carry the labels of a request, on whichever threads it runs.
pub struct Within<F> {
    labels: Option<Arc<dyn Labels>>,
    future: F,
}

impl<F> Within<F> {
    /// The future with these labels.
    pub fn new(labels: Arc<dyn Labels>, future: F) -> Self {
        Self { labels: Some(labels), future }
    }
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<F::Output> {
        let Self { labels, future } = &mut *self;
        let _entered = Entered::new(labels);
        Pin::new(future).poll(task)
    }
}

/// The labels of the request that this thread works for.
pub(super) fn current() -> Option<Arc<dyn Labels>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

//! A limit of time around a handler.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

/// The output of the future, or `None` when its time is over. Most handlers are ready at once, and a timer costs as
/// much as the routing of a request: only a handler that waits gets one.
pub(super) async fn until<F: Future + Unpin>(deadline: Instant, mut future: F) -> Option<F::Output> {
    match poll_fn(|task| Poll::Ready(Pin::new(&mut future).poll(task))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout_at(deadline.into(), future).await.ok(),
    }
}

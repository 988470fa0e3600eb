//! Keeps the large futures that few requests need away from all others.

use std::future::Future;
use std::pin::Pin;

/// Boxes a large future behind a call that is not inlined.
///
/// A box alone is not enough: its content is made on the stack of the caller first. With compression and decompression
/// that was 35 KiB, and every request walked over them.
#[inline(never)]
pub(super) fn box_cold_future<'a, F: Future + Send + 'a>(
    make: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'a>> {
    Box::pin(make())
}

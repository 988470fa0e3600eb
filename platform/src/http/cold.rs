//! Keeps large futures that few requests need off the stack of all other requests.

use std::future::Future;
use std::pin::Pin;

/// Makes and boxes a large future in a function that is not inlined.
///
/// `Box::pin` alone is not enough: the future is made on the stack of the caller first. For compression and
/// decompression that was 35 KiB, in every request.
#[inline(never)]
pub(super) fn box_cold_future<'a, F: Future + Send + 'a>(
    make: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'a>> {
    Box::pin(make())
}

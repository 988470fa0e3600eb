//! What is done with all documents of a store: a copy in another store ([`copy`]), a new shape ([`migrate`]). It knows no
//! engine.

mod copy;
mod ends;
mod migrate;
mod progress;
mod store_lease;
mod summary;
mod walk;

pub use copy::{Row, copy};
pub use ends::Ends;
pub(crate) use migrate::missing;
pub use migrate::{LEASE, Migrated, migrate};
pub use progress::{OnStandardError, Progress, Watch};
pub use summary::Summary;

use std::time::Duration;

use crate::error::{Kind, Result};

/// The most documents that are read or written at a time.
const CHUNK: usize = 512;
/// The size of the documents that are read or written at a time: what any engine does within `store.timeout`.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// How often a call is tried while a store does not respond, and the pause before the second time; each later one is
/// twice as long. Some 15 s and the timeouts: a failover.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// Executes a call that can be repeated, again while the store does not respond.
async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> Result<T> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(error) if error.kind() == Kind::Unavailable => {}
            result => return result,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    call().await
}

//! A lock that somebody holds: what it tells its holder, and the error of a lost one. It knows no engine.

use std::error::Error as StdError;
use std::fmt;

use futures_util::future::BoxFuture;

use crate::error::{Error, Result};

/// What an engine gives for a lock that is held. Dropping it releases the lock, without waiting for that.
pub(super) trait Hold: Send + Sync {
    /// Whether the lock is still held.
    fn is_valid(&self) -> bool;

    /// Completes when the lock is no longer held for sure.
    fn lost(&self) -> BoxFuture<'static, ()>;

    /// The mark of the lock; `None` when it has none yet.
    fn mark(&self) -> BoxFuture<'_, Result<Option<i64>>>;

    /// Sets the mark of the lock, on the disk. [`LeaseLost`] when the lock is not held any more.
    fn set_mark(&self, mark: i64) -> BoxFuture<'_, Result<()>>;

    /// Releases this lock, and never one that somebody has acquired since. [`LeaseLost`] when it had been lost before.
    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// A lock that is held, until it is released, dropped or lost. Dropping it releases it too, also by a panic.
#[must_use = "dropping a lease releases its lock at once"]
pub struct Lease {
    name: String,
    token: u64,
    hold: Box<dyn Hold>,
}

impl Lease {
    pub(super) fn new(name: &str, token: u64, hold: Box<dyn Hold>) -> Self {
        Self { name: name.to_owned(), token, hold }
    }

    /// The name of the lock.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number that is higher for each next holder of this lock, in all processes. A store that refuses a write with a
    /// lower one than it has seen keeps out a holder that was paused and does not know that its lock is lost.
    pub fn fencing_token(&self) -> u64 {
        self.token
    }

    /// Whether the lock is held now. Once `false`, it never becomes `true` again.
    pub fn is_valid(&self) -> bool {
        self.hold.is_valid()
    }

    /// Completes when the lock is lost: before another one can acquire it, as long as this process is not paused. It does
    /// not complete while the lock is held.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        self.hold.lost()
    }

    /// The mark of the lock: a number that the lock keeps for its next holders, such as the last thing that was done under
    /// it. `None` when none was set yet. A mark stays for ever: use it for names that the code has, not for those of
    /// callers.
    ///
    /// # Errors
    ///
    /// 503 when the folder or the lock server does not respond.
    pub async fn mark(&self) -> Result<Option<i64>> {
        self.hold.mark().await
    }

    /// Sets the mark of the lock.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`] when the lock was lost before: then the mark is not set. 503 as for [`Lease::mark`].
    pub async fn set_mark(&self, mark: i64) -> Result<()> {
        self.hold.set_mark(mark).await
    }

    /// Releases the lock and waits until others can acquire it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`] when the lock was lost before: then another one may have held it meanwhile. 503 when the lock server
    /// does not respond: then the lock ends with its time to live.
    pub async fn release(self) -> Result<()> {
        self.hold.release().await
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, token, .. } = self;
        f.debug_struct("Lease").field("name", name).field("token", token).finish_non_exhaustive()
    }
}

/// The cause of the error of work that was cut because its lock was lost, and of a waiter that lost its place. To callers
/// it is 503 with `Retry-After`: nothing is wrong with their request, and it may be sent again.
#[derive(Debug)]
pub struct LeaseLost {
    name: String,
}

impl LeaseLost {
    #[track_caller]
    pub(super) fn error(name: impl Into<String>) -> Error {
        Error::unavailable(Self { name: name.into() })
    }

    /// Whether this is the cause of an error.
    pub fn caused(error: &Error) -> bool {
        error.source().is_some_and(<dyn StdError>::is::<Self>)
    }
}

impl fmt::Display for LeaseLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lock {:?} was lost", self.name)
    }
}

impl StdError for LeaseLost {}

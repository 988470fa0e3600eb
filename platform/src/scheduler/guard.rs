//! One run of a job in all processes.
//!
//! A lock keeps two processes from running the job at the same time. It does not keep them from running it one after the
//! other for the same time: a short run is over before another process wakes. So the mark of the lock says which time was
//! run last. It is set before the run: a process that is killed in the middle of it leaves a run that is not repeated.

use jiff::{SignedDuration, Timestamp};

use crate::error::Result;
use crate::lock::{Lease, LockManager, Wait};

/// A mark that is so much in the future was set by a clock that was wrong.
const FUTURE: SignedDuration = SignedDuration::from_mins(1);

/// Lets one process run a job.
pub(super) struct Guard {
    /// The name of the lock.
    lock: String,
    locks: LockManager,
    /// The name of this process in the log.
    owner: String,
}

/// Who runs the job this time.
pub(super) enum Claim {
    /// This process, with the time that was run before.
    Given(Lease, Option<Timestamp>),
    /// Another one, or it has already.
    OfAnother,
}

impl Guard {
    pub(super) fn new(job: &str, locks: LockManager) -> Self {
        Self { lock: format!("job {job}"), locks, owner: format!("{:016x}", fastrand::u64(..)) }
    }

    /// The name of this process in the log: random, since processes in containers have the same numbers.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Claims the run of a time.
    pub(super) async fn claim(&self, tick: Timestamp, now: Timestamp) -> Result<Claim> {
        let Some(lease) = self.locks.acquire(&self.lock, Wait::No).await? else {
            return Ok(Claim::OfAnother);
        };
        let mark = lease.mark().await?;
        let before = mark.and_then(|mark| Timestamp::from_millisecond(mark).ok());
        if before.is_some_and(|before| before >= tick && before <= now + FUTURE) {
            lease.release().await?;
            return Ok(Claim::OfAnother);
        }
        lease.set_mark(tick.as_millisecond()).await?;
        Ok(Claim::Given(lease, before.filter(|before| *before < tick)))
    }
}

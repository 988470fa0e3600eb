//! One run of a job in all processes.
//!
//! A lock keeps two processes from running the job at the same time. It does not keep them from running it one after the
//! other for the same time: a short run is over before another process wakes. So the mark of the lock says which time was
//! run last. It is set before the run: a process that is killed in the middle of it leaves a run that is not repeated. It is
//! never lowered, whatever a clock shows: where clocks differ, the one that is ahead decides.
//!
//! Where late runs are skipped, a lock that is held says enough: somebody runs the job. Where they are made up for, the holder
//! may be at an older time, and only the mark says whose a time is.

use jiff::Timestamp;

use crate::error::Result;
use crate::lock::{Lease, LockManager, Wait};

/// Lets one process run a job.
pub(super) struct SingleRun {
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
    /// Another one has run it, or this later time.
    OfAnother(Timestamp),
}

impl SingleRun {
    pub(super) fn new(job: &str, locks: LockManager) -> Self {
        Self { lock: format!("job {job}"), locks, owner: format!("{:016x}", fastrand::u64(..)) }
    }

    /// The name of this process in the log: random, since processes in containers have the same numbers.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Waits for the lock of the job.
    pub(super) async fn lock(&self, wait: Wait) -> Result<Option<Lease>> {
        self.locks.acquire(&self.lock, wait).await
    }

    /// The time that was run last. Waits for the end of a run.
    pub(super) async fn ran_last(&self) -> Result<Option<Timestamp>> {
        let Some(lease) = self.lock(Wait::Forever).await? else { return Ok(None) };
        let mark = mark_of(&lease).await?;
        lease.release().await?;
        Ok(mark)
    }

    /// Claims the run of a time, with the lock of the job.
    pub(super) async fn claim(&self, lease: Lease, tick: Timestamp) -> Result<Claim> {
        let before = mark_of(&lease).await?;
        if let Some(mark) = before.filter(|mark| *mark >= tick) {
            lease.release().await?;
            return Ok(Claim::OfAnother(mark));
        }
        lease.set_mark(tick.as_millisecond()).await?;
        Ok(Claim::Given(lease, before))
    }
}

async fn mark_of(lease: &Lease) -> Result<Option<Timestamp>> {
    let mark = lease.mark().await?;
    Ok(mark.and_then(|mark| Timestamp::from_millisecond(mark).ok()))
}

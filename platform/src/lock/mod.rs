//! Locks by name, between the processes of one machine (lock files) or of several (etcd).
//!
//! A lock keeps two workers from doing the same work at the same time. It cannot keep a paused process from going on later:
//! where that would damage data, the store has to check the fencing token (docs/LOCKS.md).

#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod lease;
mod queue;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result, StartError};

pub use lease::{Lease, LeaseLost};
pub use settings::{EtcdSettings, Settings, TlsSettings};

/// The longest name of a lock, in bytes. Names may come from callers, and each one is a key in the lock server.
pub const MAX_NAME_LEN: usize = 1_024;

/// How long [`LockManager::acquire`] waits for a lock that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// This long at most.
    UpTo(Duration),
    /// Until the lock is free. Drop the future to give up.
    Forever,
}

/// What an engine implements.
#[async_trait]
trait Engine: Send + Sync {
    /// A lease; `None` when the lock is held for as long as the caller waits.
    async fn acquire(&self, name: &str, wait: Wait) -> Result<Option<Lease>>;

    /// Whether locks can be acquired now.
    async fn ping(&self) -> Result<()>;

    /// Finishes the releases that are still on their way.
    async fn close(&self);
}

/// Acquires locks. Cheap to clone; an extractor.
#[derive(Clone)]
pub struct LockManager(Arc<dyn Engine>);

/// Opens the engine that the settings name. It connects to nothing and creates nothing yet, so a lock server that is down
/// stops no start. `name` is that of the server.
pub fn open(settings: &Settings, name: &str) -> Result<LockManager, StartError> {
    settings.check()?;
    #[cfg(feature = "etcd")]
    if settings.server {
        return Ok(LockManager(Arc::new(etcd::EtcdLocks::open(settings, name)?)));
    }
    #[cfg(not(feature = "etcd"))]
    let _ = name;
    Ok(LockManager(Arc::new(file::FileLocks::new(settings))))
}

impl LockManager {
    /// Acquires the lock of this name, any text of up to [`MAX_NAME_LEN`] bytes. `None` when somebody else holds it, in this
    /// process or another one, for as long as the caller waits.
    ///
    /// # Errors
    ///
    /// 503 when the folder of the lock files cannot be used or the lock server does not respond, within `lock.timeout`.
    /// [`LeaseLost`], also 503, when the place in the queue was lost while this waited. 400 for a name that is too long.
    pub async fn acquire(&self, name: &str, wait: Wait) -> Result<Option<Lease>> {
        if name.len() > MAX_NAME_LEN {
            return Err(Error::bad_request("Lock Name Too Long"));
        }
        let acquired = self.0.acquire(name, wait).await;
        let outcome = match &acquired {
            Ok(Some(_)) => "acquired",
            Ok(None) => "held by another",
            Err(_) => "failed",
        };
        metrics::counter!("lock_acquisitions_total", "outcome" => outcome).increment(1);
        acquired
    }

    /// Runs `body` while it holds the lock, and releases it then. `None` when somebody else holds the lock for as long as
    /// this waits; then `body` does not run.
    ///
    /// # Errors
    ///
    /// Those of [`LockManager::acquire`] and of `body`. [`LeaseLost`] when the lock was lost: then `body` was dropped where
    /// it waited, and what it has done by then stays done.
    pub async fn with_lock<T, F>(&self, name: &str, wait: Wait, body: F) -> Result<Option<T>>
    where
        F: AsyncFnOnce(&Lease) -> Result<T>,
    {
        let Some(lease) = self.acquire(name, wait).await? else { return Ok(None) };
        let outcome = tokio::select! {
            // Of the two the loss goes first: what ends after it is not protected any more.
            biased;
            () = lease.lost() => return Err(LeaseLost::error(name)),
            outcome = body(&lease) => outcome,
        };
        match lease.release().await {
            Err(error) if LeaseLost::caused(&error) => Err(error),
            // A release that fails is nothing to the caller: the work is done, and the lock ends by itself.
            _ => outcome.map(Some),
        }
    }

    /// Whether locks can be acquired now.
    pub async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    /// Finishes the releases that are still on their way.
    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

//! Locks in etcd, for several machines.
//!
//! A lock is a queue of keys, `NAME/LEASE`: the oldest one holds it. Each acquisition has a lease of its own, and is
//! released by revoking that: etcd's `Unlock` deletes by name, and a repeated one can delete the key of the next holder
//! (etcd#22082). The token is the revision in which the key was created.
//!
//! To enter the queue, and to look who is first, is one transaction; who has to wait then calls etcd's `Lock`. It answers
//! success also to a waiter whose lease has died meanwhile (etcd#11456), so the key is read back.

mod lease;
mod server;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Compare, CompareOp, GetOptions, LockOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use self::lease::{EtcdLease, Held};
use self::server::{Failure, Server};
use super::lease::{Lease, LeaseLost};
use super::settings::Settings;
use super::{Engine, Wait};
use crate::error::{Result, StartError};

/// The locks below one prefix.
pub(super) struct EtcdLocks {
    server: Arc<Server>,
    prefix: String,
    time_to_live: Duration,
    /// The releases that are on their way.
    releases: TaskTracker,
}

impl EtcdLocks {
    /// Reads the settings and connects to nothing yet. `name` is that of the server.
    pub(super) fn open(settings: &Settings, name: &str) -> Result<Self, StartError> {
        let prefix = match settings.etcd.prefix.as_str() {
            "" => format!("{name}/locks/"),
            prefix => prefix.to_owned(),
        };
        Ok(Self {
            server: Arc::new(Server::open(settings)?),
            prefix,
            time_to_live: settings.etcd.time_to_live.get(),
            releases: TaskTracker::new(),
        })
    }

    /// Enters the queue of a lock.
    async fn enter(&self, name: &str, deadline: Instant) -> Result<Place, Failure> {
        let lock = self.lock(name);
        let lease = EtcdLease::grant(&self.server, &self.releases, name, self.time_to_live, deadline).await?;
        let key = format!("{lock}/{:x}", lease.id());
        // Whether it is made now, or has been by a call whose answer was lost, is one.
        let put = TxnOp::put(key.as_str(), "", Some(PutOptions::new().with_lease(lease.id())));
        let is_new = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let first = TxnOp::get(format!("{lock}/"), Some(first()));
        let txn = Txn::new().when([is_new]).and_then([put, first.clone()]).or_else([first]);
        let response = self.server.call(deadline, |mut etcd| {
            let txn = txn.clone();
            async move { etcd.txn(txn).await }
        });
        let response = response.await?;
        let token = response.op_responses().into_iter().rev().find_map(|response| match response {
            TxnOpResponse::Get(found) => {
                found.kvs().first().filter(|first| first.key() == key.as_bytes()).map(token)
            }
            _ => None,
        });
        Ok(Place { lock, key, lease, token })
    }

    /// Whether there is a queue.
    async fn is_held(&self, name: &str, deadline: Instant) -> Result<bool, Failure> {
        let (queue, options) = (format!("{}/", self.lock(name)), first().with_keys_only());
        let keys = self.server.call(deadline, |mut etcd| {
            let (queue, options) = (queue.clone(), options.clone());
            async move { etcd.get(queue, Some(options)).await }
        });
        Ok(!keys.await?.kvs().is_empty())
    }

    /// Waits until a place is the first one, and returns its token.
    async fn wait(&self, place: &Place, name: &str) -> Result<u64> {
        loop {
            let connection = self
                .server
                .connection(Instant::now() + self.server.timeout())
                .await
                .map_err(|failure| failure.into_error(name))?;
            let options = LockOptions::new().with_lease(place.lease.id());
            let mut etcd = connection.client.clone();
            tokio::select! {
                locked = etcd.lock(place.lock.as_str(), Some(options)) => {
                    self.server.note(&connection, locked).map_err(|failure| failure.into_error(name))?;
                    break;
                }
                // The answer would come, if at all, through a connection that others have found dead. The place is kept.
                () = self.server.replaced(&connection) => {}
            }
        }
        let read = self.server.call(Instant::now() + self.server.timeout(), |mut etcd| {
            let key = place.key.clone();
            async move { etcd.get(key, None).await }
        });
        let read = read.await;
        match read.map_err(|failure| failure.into_error(name))?.kvs().first() {
            Some(key) => Ok(token(key)),
            None => Err(LeaseLost::error(name)),
        }
    }

    /// The name of a lock in etcd. It has no slash below the prefix: the queue of `a` would have the keys of `a/b` in it.
    fn lock(&self, name: &str) -> String {
        format!("{}{}", self.prefix, name.replace('%', "%25").replace('/', "%2F"))
    }
}

/// A place in the queue of a lock.
struct Place {
    lock: String,
    key: String,
    lease: EtcdLease,
    /// Present when it is the first one.
    token: Option<u64>,
}

impl Place {
    fn into_lease(self, name: &str, token: u64) -> Result<Option<Lease>> {
        if !self.lease.is_valid() {
            return Err(LeaseLost::error(name));
        }
        // No lock has that name, and no key of a queue: their percent signs are escaped.
        let held = Held { lease: self.lease, key: self.key, mark: format!("{}%mark", self.lock) };
        Ok(Some(Lease::new(name, token, Box::new(held))))
    }
}

/// The oldest key.
fn first() -> GetOptions {
    GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1)
}

fn token(key: &etcd_client::KeyValue) -> u64 {
    // Revisions are positive.
    key.create_revision().unsigned_abs()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[async_trait]
impl Engine for EtcdLocks {
    async fn acquire(&self, name: &str, wait: Wait) -> Result<Option<Lease>> {
        let start = Instant::now();
        let respond_by = start + self.server.timeout();
        let entered = async {
            // A look costs the server nothing; a lease is written to the disks of the cluster.
            if wait == Wait::No && self.is_held(name, respond_by).await? {
                return Ok(None);
            }
            self.enter(name, respond_by).await.map(Some)
        };
        let Some(place) = entered.await.map_err(|failure: Failure| failure.into_error(name))? else {
            return Ok(None);
        };
        if let Some(token) = place.token {
            return place.into_lease(name, token);
        }
        let deadline = match wait {
            Wait::No => return Ok(None),
            Wait::UpTo(time) => start.checked_add(time),
            Wait::Forever => None,
        };
        // Where this returns, or is dropped, without a lease, the place is dropped and leaves the queue.
        let token = tokio::select! {
            token = self.wait(&place, name) => token?,
            () = place.lease.lost() => return Err(LeaseLost::error(name)),
            () = until(deadline) => return Ok(None),
        };
        place.into_lease(name, token)
    }

    async fn ping(&self) -> Result<()> {
        self.is_held("", Instant::now() + self.server.timeout())
            .await
            .map_err(|failure| failure.into_error(""))?;
        Ok(())
    }

    async fn close(&self) {
        self.releases.close();
        if timeout(self.server.timeout(), self.releases.wait()).await.is_err() {
            let left = self.releases.len();
            tracing::warn!(target: "server", left, "locks could not be released; they end with their time to live");
        }
    }
}

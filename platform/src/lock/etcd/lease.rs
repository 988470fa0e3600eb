//! A lease of etcd: who has it renews it, and knows when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use super::super::lease::{Hold, LeaseLost};
use super::server::{Failure, Server};
use crate::error::{Error, Result};

/// A lease that is renewed until it is dropped, and is revoked then.
pub(super) struct EtcdLease {
    id: i64,
    /// The name of the lock.
    name: String,
    server: Arc<Server>,
    validity: Validity,
    keeper: AbortHandle,
    time_to_live: Duration,
    is_revoked: bool,
    /// Where what is left to do at a drop is done.
    releases: TaskTracker,
    runtime: Handle,
}

impl EtcdLease {
    /// Asks etcd for a lease of this time, and begins to renew it.
    pub(super) async fn grant(
        server: &Arc<Server>,
        releases: &TaskTracker,
        name: &str,
        time_to_live: Duration,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        // etcd counts whole seconds.
        let seconds = i64::try_from(time_to_live.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let grant = |mut etcd: etcd_client::Client| async move {
            let sent = Instant::now();
            etcd.lease_grant(seconds, None).await.map(|granted| (sent, granted))
        };
        let (sent, granted) = server.call(deadline, grant).await?;
        // It may be longer than asked for.
        let time_to_live = Duration::from_secs(granted.ttl().unsigned_abs());
        let validity = Validity::new(sent, time_to_live);
        let (server, runtime) = (Arc::clone(server), Handle::current());
        let keeper =
            keep(Arc::clone(&server), granted.id(), name.to_owned(), validity.clone(), time_to_live, sent);
        let keeper = runtime.spawn(keeper).abort_handle();
        let (name, releases) = (name.to_owned(), releases.clone());
        let id = granted.id();
        Ok(Self { id, name, server, validity, keeper, time_to_live, is_revoked: false, releases, runtime })
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    pub(super) fn is_valid(&self) -> bool {
        self.validity.is_valid()
    }

    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let validity = self.validity.clone();
        async move { validity.lost().await }
    }
}

impl EtcdLease {
    /// Revokes the lease.
    async fn release(mut self) -> Result<()> {
        self.keeper.abort();
        let was_valid = self.is_valid();
        let deadline = Instant::now() + self.server.timeout();
        let sent = AtomicU32::new(0);
        let revoked = revoke(&self.server, self.id, deadline, &sent).await;
        let revoked = match revoked {
            // It was there when the release began. The answer to an earlier attempt was lost: that one has revoked it.
            Err(Failure::LeaseLost) if was_valid && sent.load(Ordering::Relaxed) > 1 => Ok(()),
            revoked => revoked,
        };
        // After a failure the drop goes on trying.
        self.is_revoked = !matches!(revoked, Err(Failure::Unavailable(_)));
        revoked.map_err(|failure| failure.into_error(&self.name))?;
        if was_valid { Ok(()) } else { Err(LeaseLost::error(&self.name)) }
    }

    /// Calls etcd, for no longer than the timeout.
    async fn call<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + self.server.timeout();
        self.server.call(deadline, call).await.map_err(|failure| failure.into_error(&self.name))
    }
}

/// A lock that is held, by the first key of its queue.
pub(super) struct Held {
    pub(super) lease: EtcdLease,
    /// The key of this lease in the queue of the lock.
    pub(super) key: String,
    /// The key of the mark.
    pub(super) mark: String,
}

impl Hold for Held {
    fn is_valid(&self) -> bool {
        self.lease.is_valid()
    }

    fn lost(&self) -> BoxFuture<'static, ()> {
        self.lease.lost().boxed()
    }

    fn mark(&self) -> BoxFuture<'_, Result<Option<i64>>> {
        async move {
            let found =
                self.lease.call(|mut etcd| async move { etcd.get(self.mark.as_str(), None).await }).await?;
            let Some(found) = found.kvs().first() else { return Ok(None) };
            let mark = found.value_str().ok().and_then(|text| text.parse().ok());
            mark.map(Some).ok_or_else(|| Error::unavailable(format!("{} holds no mark", self.mark)))
        }
        .boxed()
    }

    fn set_mark(&self, mark: i64) -> BoxFuture<'_, Result<()>> {
        async move {
            let is_held = Compare::create_revision(self.key.as_str(), CompareOp::NotEqual, 0);
            let put = TxnOp::put(self.mark.as_str(), mark.to_string(), None);
            let txn = Txn::new().when([is_held]).and_then([put]);
            let set = self.lease.call(|mut etcd| {
                let txn = txn.clone();
                async move { etcd.txn(txn).await }
            });
            if set.await?.succeeded() { Ok(()) } else { Err(LeaseLost::error(&self.lease.name)) }
        }
        .boxed()
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.lease.release().boxed()
    }
}

impl Drop for EtcdLease {
    fn drop(&mut self) {
        self.keeper.abort();
        if self.is_revoked {
            return;
        }
        // Nobody renews it: it ends by itself after this time.
        let (server, id, end) = (Arc::clone(&self.server), self.id, Instant::now() + self.time_to_live);
        let revoke = async move {
            while Instant::now() < end {
                let deadline = end.min(Instant::now() + server.timeout());
                match revoke(&server, id, deadline, &AtomicU32::new(0)).await {
                    Err(Failure::Unavailable(_)) => sleep(pause(server.timeout())).await,
                    Ok(()) | Err(Failure::LeaseLost) => break,
                }
            }
        };
        self.releases.spawn_on(revoke, &self.runtime);
    }
}

/// Revokes a lease, and counts how often that is `sent`.
async fn revoke(server: &Server, id: i64, deadline: Instant, sent: &AtomicU32) -> Result<(), Failure> {
    let revoke = |mut etcd: Client| {
        sent.fetch_add(1, Ordering::Relaxed);
        async move { etcd.lease_revoke(id).await }
    };
    server.call(deadline, revoke).await.map(drop)
}

/// Renews a lease at each third of its time, until it is lost.
async fn keep(
    server: Arc<Server>,
    id: i64,
    name: String,
    validity: Validity,
    time_to_live: Duration,
    mut renewed: Instant,
) {
    sleep_until(renewed + time_to_live / 3).await;
    while let Some(end) = validity.end() {
        let renew = |mut etcd: etcd_client::Client| async move {
            let sent = Instant::now();
            etcd.lease_keep_alive(id).await.map(|_| sent)
        };
        match server.call(end.min(Instant::now() + server.timeout()), renew).await {
            Ok(sent) if validity.extend(sent, time_to_live) => {
                renewed = sent;
                sleep_until(renewed + time_to_live / 3).await;
            }
            Ok(_) | Err(Failure::LeaseLost) => break,
            Err(Failure::Unavailable(_)) => sleep(pause(time_to_live)).await,
        }
    }
    validity.end_now();
    tracing::warn!(target: "server", lock = name, "a lock was lost");
}

/// How long to wait after a failure.
fn pause(time: Duration) -> Duration {
    (time / 20).clamp(Duration::from_millis(100), Duration::from_secs(1))
}

/// Until when a lease is surely not over: nine tenths of its time after the last renewal that was answered was sent. The rest
/// is for those who learn of the loss. `None` when it is lost, and then for ever.
#[derive(Clone)]
struct Validity(watch::Sender<Option<Instant>>);

impl Validity {
    fn new(sent: Instant, time_to_live: Duration) -> Self {
        Self(watch::Sender::new(Some(sent + time_to_live * 9 / 10)))
    }

    /// When the lease ends, unless it is renewed; `None` when it has ended.
    fn end(&self) -> Option<Instant> {
        self.0.borrow().filter(|end| Instant::now() < *end)
    }

    fn is_valid(&self) -> bool {
        self.end().is_some()
    }

    /// Takes note of a renewal that was sent then. `false` when it came too late.
    fn extend(&self, sent: Instant, time_to_live: Duration) -> bool {
        self.0.send_if_modified(|end| {
            let in_time = end.is_some_and(|end| Instant::now() < end);
            *end = in_time.then(|| sent + time_to_live * 9 / 10);
            in_time
        })
    }

    fn end_now(&self) {
        self.0.send_replace(None);
    }

    async fn lost(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let end = *changes.borrow_and_update();
            let Some(end) = end.filter(|end| Instant::now() < *end) else { return };
            tokio::select! {
                () = sleep_until(end) => {}
                // There is no error while `self` holds the sender.
                _ = changes.changed() => {}
            }
        }
    }
}

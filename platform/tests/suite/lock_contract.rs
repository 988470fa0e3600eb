//! The contract of the locks: one list of tests, run for each engine. A new engine adds one line to `contract!`.
//!
//! The tests of an engine with a server are ignored: `make test-all` starts the server and runs them.

pub mod child;
mod file;
#[cfg(feature = "etcd")]
pub mod on_etcd;
mod on_faketime;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use platform::error::{Error, Kind};
use platform::lock::{self, Lease, LockManager, MAX_NAME_LEN, Wait};
use platform::testing::PATIENCE;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An engine, with locks of its own for one test.
pub struct TestLocks {
    pub settings: Value,
    folder: TempDir,
    /// How long a lock stays when its holder is killed.
    pub time_to_live: Duration,
}

impl TestLocks {
    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The folder does not exist yet.
        let settings = settings(folder.path().join("locks").to_str().unwrap());
        Self { settings, folder, time_to_live: Duration::ZERO }
    }

    #[cfg(feature = "etcd")]
    pub fn etcd() -> Self {
        Self::at_etcd(&on_etcd::server())
    }

    /// An etcd at this address, with keys named as the folder.
    #[cfg(feature = "etcd")]
    fn at_etcd(endpoint: &str) -> Self {
        let mut locks = Self::file();
        locks.settings["server"] = json!(true);
        locks.settings["etcd"]["endpoints"] = json!([endpoint]);
        locks.settings["etcd"]["prefix"] = json!(format!("{}/", locks.folder.path().display()));
        locks.time_to_live = Duration::from_secs(2);
        locks
    }

    /// The locks as another process would open them: nothing is shared with others that are open.
    fn open(&self) -> LockManager {
        open(&self.settings)
    }
}

fn settings(dir: &str) -> Value {
    json!({
        "server": false, "host": "localhost", "port": 2379, "dir": dir, "timeout": "3s",
        "etcd": {
            "endpoints": [], "user": "", "password": "", "prefix": "", "time_to_live": "2s",
            "tls": {"enabled": false, "ca": "", "certificate": "", "key": ""},
        },
    })
}

fn open(settings: &Value) -> LockManager {
    lock::open(&serde_json::from_value(settings.clone()).unwrap(), "test").unwrap()
}

/// The lease of a lock that must be free, or become free in time.
async fn take(locks: &LockManager, name: &str) -> Lease {
    locks.acquire(name, Wait::UpTo(PATIENCE)).await.unwrap().expect("the lock is not free in time")
}

/// Whether somebody else holds a lock.
async fn is_held(locks: &LockManager, name: &str) -> bool {
    match locks.acquire(name, Wait::No).await.unwrap() {
        Some(lease) => {
            // A drop would not wait until the lock is free again.
            lease.release().await.unwrap();
            false
        }
        None => true,
    }
}

async fn only_one_task_at_a_time_holds_a_lock(locks: TestLocks) {
    let (processes, counter) = ([locks.open(), locks.open(), locks.open()], Arc::new(AtomicU64::new(0)));
    let tasks = (0..24).map(|number| {
        let (locks, counter) = (processes[number % processes.len()].clone(), Arc::clone(&counter));
        tokio::spawn(async move {
            for _ in 0..4 {
                let lease = take(&locks, "counter").await;
                // Read, let others run, write: what another task adds meanwhile is lost.
                let value = counter.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                counter.store(value + 1, Ordering::SeqCst);
                lease.release().await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(counter.load(Ordering::SeqCst), 24 * 4);
}

async fn a_race_for_a_lock_has_one_winner(locks: TestLocks) {
    let (holders, wins) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..6).map(|_| {
        let (locks, holders, wins) = (locks.open(), Arc::clone(&holders), Arc::clone(&wins));
        tokio::spawn(async move {
            // Without a pause: many try at the very moment at which the holder releases it.
            while wins.load(Ordering::SeqCst) < 200 {
                let Some(lease) = locks.acquire("a", Wait::No).await.unwrap() else { continue };
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                wins.fetch_add(1, Ordering::SeqCst);
                lease.release().await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn a_mark_is_kept_for_the_next_holders(locks: TestLocks) {
    let (one, other) = (locks.open(), locks.open());
    let lease = take(&one, "job a/b").await;
    assert_eq!(lease.mark().await.unwrap(), None);
    for mark in [5, i64::MAX, i64::MIN, -1, 7] {
        lease.set_mark(mark).await.unwrap();
        assert_eq!(lease.mark().await.unwrap(), Some(mark));
    }
    lease.release().await.unwrap();
    let next = take(&other, "job a/b").await;
    assert_eq!(next.mark().await.unwrap(), Some(7));
    // Each name has its own.
    let lease = take(&one, "job a").await;
    assert_eq!(lease.mark().await.unwrap(), None);
}

async fn a_held_lock_is_none_at_once_for_who_does_not_wait(locks: TestLocks) {
    let (one, other) = (locks.open(), locks.open());
    let lease = take(&one, "a").await;
    assert!(lease.is_valid() && lease.name() == "a");
    let start = Instant::now();
    assert!(is_held(&one, "a").await && is_held(&other, "a").await);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // The controls: another name is free, and so is this one afterwards.
    assert!(!is_held(&other, "b").await);
    lease.release().await.unwrap();
    assert!(!is_held(&other, "a").await);
}

async fn a_waiter_gets_the_lock_when_it_is_free_or_nothing_after_its_time(locks: TestLocks) {
    let (one, other) = (locks.open(), locks.open());
    for waiting in [&one, &other] {
        let lease = take(&one, "a").await;
        let start = Instant::now();
        let time = Duration::from_millis(300);
        assert!(waiting.acquire("a", Wait::UpTo(time)).await.unwrap().is_none());
        assert!((time..time + Duration::from_secs(2)).contains(&start.elapsed()), "{:?}", start.elapsed());
        let waiters = [Wait::Forever, Wait::UpTo(PATIENCE)].map(|wait| {
            let waiting = waiting.clone();
            tokio::spawn(async move {
                let lease = waiting.acquire("a", wait).await.unwrap().unwrap();
                lease.release().await.unwrap();
            })
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        lease.release().await.unwrap();
        for waiter in waiters {
            waiter.await.unwrap();
        }
    }
}

async fn a_token_is_higher_than_all_before_it_of_its_name(locks: TestLocks) {
    let mut last = 0;
    for _ in 0..5 {
        // Another process each time, and each way to end a lease.
        let opened = locks.open();
        for name in ["a", "a", "b", "a"] {
            let lease = take(&opened, name).await;
            if name == "a" {
                assert!(lease.fencing_token() > last, "{} after {last}", lease.fencing_token());
                last = lease.fencing_token();
            }
            if last % 2 == 0 {
                lease.release().await.unwrap();
            }
        }
    }
}

async fn a_lease_ends_by_release_by_drop_and_by_a_panic(locks: TestLocks) {
    let (one, other) = (locks.open(), locks.open());
    take(&one, "a").await.release().await.unwrap();
    assert!(!is_held(&other, "a").await);
    drop(take(&one, "a").await);
    take(&other, "a").await.release().await.unwrap();
    let panicking = tokio::spawn({
        let one = one.clone();
        async move {
            let _lease = take(&one, "a").await;
            panic!("as a test does");
        }
    });
    assert!(panicking.await.unwrap_err().is_panic());
    take(&other, "a").await.release().await.unwrap();
}

async fn names_are_any_text_and_none_is_another_one(locks: TestLocks) {
    let (one, other) = (locks.open(), locks.open());
    let (longest, too_long) = ("x".repeat(MAX_NAME_LEN), "x".repeat(MAX_NAME_LEN + 1));
    let names = [
        "", "a", "A", "a/", "a/b", "/a", "a%2Fb", "%", "..", "../a", ".token", "a.lock", "a\0", "é",
        "e\u{301}", "a b", "a\n", "~", &longest,
    ];
    let mut leases = Vec::new();
    for name in names {
        leases.push(take(&one, name).await);
    }
    for name in names {
        assert!(is_held(&other, name).await, "{name:?}");
    }
    drop(leases);
    for name in names {
        take(&other, name).await.release().await.unwrap();
    }
    let error = one.acquire(&too_long, Wait::No).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::BadRequest, "Lock Name Too Long"));
}

async fn a_waiter_that_gives_up_leaves_nothing(mut locks: TestLocks) {
    // What is left to expire is there for longer than `take` waits.
    locks.settings["etcd"]["time_to_live"] = json!("5m");
    let (one, other) = (locks.open(), locks.open());
    let lease = take(&one, "a").await;
    for waiting in [&one, &other] {
        let waiter = waiting.acquire("a", Wait::Forever);
        assert!(tokio::time::timeout(Duration::from_millis(200), waiter).await.is_err());
    }
    lease.release().await.unwrap();
    take(&other, "a").await.release().await.unwrap();
    take(&one, "a").await.release().await.unwrap();
}

async fn work_under_a_lock_runs_alone_and_releases_it_however_it_ends(locks: TestLocks) {
    let (one, other) = (locks.open(), locks.open());
    let answer = one.with_lock("a", Wait::No, async |lease| {
        assert!(is_held(&other, "a").await);
        let inner = other.with_lock("a", Wait::No, async |_| -> Result<(), Error> { panic!("it runs") });
        assert!(inner.await?.is_none());
        Ok(lease.fencing_token())
    });
    assert!(answer.await.unwrap().unwrap() > 0);
    assert!(!is_held(&other, "a").await);
    let failed = one.with_lock("a", Wait::No, async |_| Err::<(), _>(Error::conflict("No Luck")));
    assert_eq!(failed.await.unwrap_err().reason(), "No Luck");
    assert!(!is_held(&other, "a").await);
    // As a handler whose client has gone away.
    let endless = one.with_lock("a", Wait::No, async |_| std::future::pending::<Result<(), Error>>().await);
    assert!(tokio::time::timeout(Duration::from_millis(200), endless).await.is_err());
    take(&other, "a").await.release().await.unwrap();
}

async fn the_lock_of_a_killed_process_is_free(locks: TestLocks) {
    let opened = locks.open();
    let mut child = child::Child::start(&locks.settings, "hold");
    let token = child.read_line().parse::<u64>().unwrap();
    assert!(is_held(&opened, "a").await);
    child.kill();
    let start = Instant::now();
    let lease = take(&opened, "a").await;
    // etcd looks for dead leases twice a second, and takes its time while it starts to.
    let limit = locks.time_to_live + Duration::from_secs(if locks.time_to_live.is_zero() { 1 } else { 3 });
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
    assert!(lease.fencing_token() > token);
}

async fn processes_exclude_each_other_and_their_tokens_grow(locks: TestLocks) {
    let file = locks.folder.path().join("tokens");
    let action = format!("count {}", file.display());
    let mut children: Vec<_> = (0..4).map(|_| child::Child::start(&locks.settings, &action)).collect();
    for child in &mut children {
        child.wait();
    }
    let text = std::fs::read_to_string(file).unwrap();
    let tokens: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    // Each wrote the file anew, with what it had read before and its own token.
    assert_eq!(tokens.len(), 4 * child::COUNT, "{text}");
    assert!(tokens.is_sorted_by(|one, next| one < next), "{text}");
}

macro_rules! engine {
    ($module:ident, $engine:ident, $attribute:meta: $($case:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[$attribute]
                async fn $case() {
                    super::super::$case(super::super::TestLocks::$engine()).await;
                }
            )*
        }
    };
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod contract {
            engine!(file, file, cfg(all()): $($case)*);
            #[cfg(feature = "etcd")]
            engine!(on_etcd, etcd, ignore = "needs etcd: make test-all": $($case)*);
        }
    };
}

contract! {
    only_one_task_at_a_time_holds_a_lock
    a_race_for_a_lock_has_one_winner
    a_held_lock_is_none_at_once_for_who_does_not_wait
    a_waiter_gets_the_lock_when_it_is_free_or_nothing_after_its_time
    a_mark_is_kept_for_the_next_holders
    a_token_is_higher_than_all_before_it_of_its_name
    a_lease_ends_by_release_by_drop_and_by_a_panic
    names_are_any_text_and_none_is_another_one
    a_waiter_that_gives_up_leaves_nothing
    work_under_a_lock_runs_alone_and_releases_it_however_it_ends
    the_lock_of_a_killed_process_is_free
    processes_exclude_each_other_and_their_tokens_grow
}

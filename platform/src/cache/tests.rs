//! The cache as its callers see it, on the engine in memory and on engines that fail.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn memory() -> Cache {
    let settings = serde_json::json!({
        "url": "memory:", "timeout": "100ms", "redis": {"prefix": "", "ca": ""},
        "memory": {"max_entries": 1_000, "max_bytes": "1MiB"},
    });
    open(&serde_json::from_value(settings).unwrap(), "test").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_value_is_kept_for_its_time_and_can_be_forgotten_before() {
    let cache = memory();
    assert_eq!(cache.get::<String>("a").await, None);
    cache.set("a", &"one", Duration::from_secs(10)).await.unwrap();
    cache.set("b", &"two", MINUTE).await.unwrap();
    assert_eq!(cache.get::<String>("a").await.as_deref(), Some("one"));
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(cache.get::<String>("a").await.as_deref(), Some("one"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(cache.get::<String>("a").await, None);
    cache.delete("b").await.unwrap();
    assert_eq!(cache.get::<String>("b").await, None);
    // What is of another type is not there.
    cache.set("c", &"text", MINUTE).await.unwrap();
    assert_eq!(cache.get::<u64>("c").await, None);
}

#[tokio::test(start_paused = true)]
async fn of_many_callers_one_computes_and_all_get_its_value() {
    let (cache, computed) = (memory(), AtomicUsize::new(0));
    let ask = || {
        cache.get_or_compute("a", MINUTE, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(computed.fetch_add(1, Ordering::SeqCst) + 1)
        })
    };
    let values = futures_util::future::join_all((0..100).map(|_| ask())).await;
    assert!(values.into_iter().all(|value| value.unwrap() == 1));
    assert_eq!(ask().await.unwrap(), 1);
    // Another time, another value: nothing of the computation is left.
    tokio::time::advance(MINUTE).await;
    assert_eq!(ask().await.unwrap(), 2);
    assert!(cache.0.computing.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_and_a_caller_that_goes_away_leave_the_computation_to_the_next() {
    let cache = memory();
    let failed = cache.get_or_compute::<u64, _>("a", MINUTE, async || Err(Error::not_found("No Such Thing")));
    assert_eq!(failed.await.unwrap_err().reason(), "No Such Thing");
    let endless = cache.get_or_compute::<u64, _>("a", MINUTE, async || std::future::pending().await);
    assert!(tokio::time::timeout(Duration::from_secs(1), endless).await.is_err());
    assert!(cache.0.computing.lock().unwrap().is_empty());
    assert_eq!(cache.get_or_compute("a", MINUTE, async || Ok(1)).await.unwrap(), 1);
}

/// An engine that counts its calls, and fails or does not respond.
struct Broken {
    calls: Arc<AtomicUsize>,
    hangs: bool,
}

#[async_trait]
impl Engine for Broken {
    async fn get(&self, _: &str) -> Result<Option<Bytes>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hangs { std::future::pending().await } else { Err(Error::unavailable("refused")) }
    }

    async fn set(&self, key: &str, _: Bytes, _: Duration) -> Result<()> {
        self.get(key).await.map(drop)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.get(key).await.map(drop)
    }

    async fn ping(&self) -> Result<()> {
        self.get("").await.map(drop)
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_a_request_its_time_once_and_never_its_response() {
    for hangs in [false, true] {
        let calls = Arc::new(AtomicUsize::new(0));
        let cache =
            Cache::new(Box::new(Broken { calls: Arc::clone(&calls), hangs }), Duration::from_millis(100));
        let start = Instant::now();
        // A look and a write, and 20 requests more.
        for number in 0..20 {
            let value = cache.get_or_compute("a", MINUTE, async || Ok(number)).await.unwrap();
            assert_eq!(value, number);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1, "hangs: {hangs}");
        assert!(start.elapsed() <= Duration::from_millis(100), "{:?}", start.elapsed());
        // After a while it is asked again.
        tokio::time::advance(RETRY_AFTER).await;
        cache.get_bytes("a").await;
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert!(cache.ping().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_look_has_failed_does_not_wait_for_a_write_too() {
    let calls = Arc::new(AtomicUsize::new(0));
    let broken = Broken { calls: Arc::clone(&calls), hangs: true };
    let cache = Cache::new(Box::new(broken), Duration::from_millis(100));
    // When it has computed, the engine may be asked again.
    let slow = async || {
        tokio::time::sleep(RETRY_AFTER).await;
        Ok(7)
    };
    let start = Instant::now();
    assert_eq!(cache.get_or_compute("a", MINUTE, slow).await.unwrap(), 7);
    assert_eq!(start.elapsed(), Duration::from_millis(100) + RETRY_AFTER);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // The control: a write of its own does ask it.
    cache.set("a", &7, MINUTE).await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_not_carried_out_is_an_error_and_each_one_is_tried() {
    for hangs in [false, true] {
        let calls = Arc::new(AtomicUsize::new(0));
        let broken = Broken { calls: Arc::clone(&calls), hangs };
        let cache = Cache::new(Box::new(broken), Duration::from_millis(100));
        assert_eq!(cache.get::<u64>("a").await, None);
        for error in [cache.delete("a").await, cache.set("a", &1, MINUTE).await] {
            assert_eq!(error.unwrap_err().kind(), crate::error::Kind::Unavailable);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        // The control: a look-up is not tried.
        assert_eq!(cache.get::<u64>("a").await, None);
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        // Writes do not put it off.
        tokio::time::advance(RETRY_AFTER / 2).await;
        cache.delete("a").await.unwrap_err();
        tokio::time::advance(RETRY_AFTER / 2).await;
        assert_eq!(cache.get::<u64>("a").await, None);
        assert_eq!(calls.load(Ordering::SeqCst), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_engine_is_down_many_callers_still_share_one_computation() {
    let broken = Broken { calls: Arc::default(), hangs: true };
    let (cache, computed) = (Cache::new(Box::new(broken), Duration::from_millis(100)), AtomicUsize::new(0));
    let ask = || {
        cache.get_or_compute("a", MINUTE, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(computed.fetch_add(1, Ordering::SeqCst))
        })
    };
    let start = Instant::now();
    futures_util::future::join_all((0..50).map(|_| ask())).await;
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_write_is_not_kept_after_it() {
    // The control: without one it is kept.
    for written in ["nothing", "deleted", "set"] {
        let (cache, stored) = (memory(), AtomicUsize::new(1));
        let ask = || {
            cache.get_or_compute("a", MINUTE, async || {
                let read = stored.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(read)
            })
        };
        let write = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            stored.store(2, Ordering::SeqCst);
            match written {
                "deleted" => cache.delete("a").await.unwrap(),
                "set" => cache.set("a", &2, MINUTE).await.unwrap(),
                _ => {}
            }
            // It begins while the first one is in progress.
            ask().await.unwrap()
        };
        let (early, late) = tokio::join!(ask(), write);
        let fresh = if written == "nothing" { 1 } else { 2 };
        assert_eq!((early.unwrap(), late), (1, fresh), "{written}");
        assert_eq!(cache.get("a").await, Some(fresh), "{written}");
        assert!(cache.0.computing.lock().unwrap().is_empty());
    }
}

/// The engine in memory, whose writes take a second.
struct Slow(memory::MemoryCache);

#[async_trait]
impl Engine for Slow {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.set(key, value, time_to_live).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_deleted_while_its_value_is_being_kept_is_forgotten() {
    let settings = serde_json::json!({"max_entries": 1_000, "max_bytes": "1MiB"});
    let engine = memory::MemoryCache::new(&serde_json::from_value(settings).unwrap());
    let cache = Cache::new(Box::new(Slow(engine)), Duration::from_secs(2));
    let delete = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cache.delete("a").await.unwrap();
    };
    let (computed, ()) = tokio::join!(cache.get_or_compute("a", MINUTE, async || Ok(1)), delete);
    assert_eq!((computed.unwrap(), cache.get::<i32>("a").await), (1, None));
    // The control.
    assert_eq!(cache.get_or_compute("a", MINUTE, async || Ok(2)).await.unwrap(), 2);
    assert_eq!(cache.get("a").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_to_be_kept_for_ever_is_kept() {
    let cache = memory();
    cache.set("a", &1, Duration::MAX).await.unwrap();
    assert_eq!(cache.get("a").await, Some(1));
}

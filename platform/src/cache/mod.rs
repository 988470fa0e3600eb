//! A cache in front of what is slow: values with a time to live, and one computation of a value at a time.
//!
//! No look-up fails a request: where the engine is down, slow or full, the cache is empty, and the log says so once for each
//! outage. Who sets or deletes a key learns when that was not carried out, since the old value may be there still.

mod memory;
#[cfg(feature = "redis")]
mod redis;
mod settings;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::error::{Error, Result, StartError};

pub use settings::{MemorySettings, RedisSettings, Settings};

/// How long no value is looked up after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest time to live, 10 years. Redis refuses an end that its 64 bits do not hold, which would be taken for an outage.
const LONGEST: Duration = Duration::from_hours(24 * 3_652);

/// What an engine implements. Only [`Cache`] calls it, within its time.
#[async_trait]
trait Engine: Send + Sync {
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;
    async fn set(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()>;
    async fn delete(&self, key: &str) -> Result<()>;
    async fn ping(&self) -> Result<()>;
}

/// The cache; cheap to clone. An extractor.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    engine: Box<dyn Engine>,
    timeout: Duration,
    /// From when on values are looked up again after a failure.
    retry_at: Mutex<Option<Instant>>,
    /// The values that are being computed.
    computing: Mutex<HashMap<String, Arc<Computed>>>,
}

/// A value that one caller computes, as JSON, and others wait for.
#[derive(Default)]
struct Computed {
    value: OnceCell<Bytes>,
    /// Locked while the engine is given the value: who writes or deletes the key meanwhile comes after that.
    keeping: tokio::sync::Mutex<()>,
}

/// Opens the cache that the settings name. Nothing is connected to yet, so an engine that is down stops no start. `name` is
/// that of the server.
pub fn open(settings: &Settings, name: &str) -> Result<Cache, StartError> {
    #[cfg(not(feature = "redis"))]
    let _ = name;
    let engine: Box<dyn Engine> = match settings::Engine::of(&settings.url)? {
        settings::Engine::Memory => Box::new(memory::MemoryCache::new(&settings.memory)),
        #[cfg(feature = "redis")]
        settings::Engine::Redis(url) => Box::new(redis::RedisCache::open(&url, settings, name)?),
    };
    Ok(Cache::new(engine, settings.timeout.get()))
}

impl Cache {
    fn new(engine: Box<dyn Engine>, timeout: Duration) -> Self {
        let (retry_at, computing) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { engine, timeout, retry_at, computing }))
    }

    /// The value of a key; `None` when there is none, when it is not a `T`, or when the cache fails.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_slice(&self.get_bytes(key).await?).ok()
    }

    /// Keeps a value for this time at most, and for 10 years at most.
    ///
    /// # Errors
    ///
    /// As [`Cache::set_bytes`], and 500 when the value is none of JSON.
    pub async fn set<T: Serialize + Sync>(&self, key: &str, value: &T, time_to_live: Duration) -> Result<()> {
        let json = serde_json::to_vec(value).map_err(Error::internal)?;
        self.set_bytes(key, json.into(), time_to_live).await
    }

    /// The bytes of a key, as [`Cache::set_bytes`] has kept them.
    pub async fn get_bytes(&self, key: &str) -> Option<Bytes> {
        self.look_up(key).await.flatten()
    }

    /// What the engine has of a key; `None` when it fails.
    async fn look_up(&self, key: &str) -> Option<Option<Bytes>> {
        let is_left_alone = self.retry_at().is_some_and(|retry_at| Instant::now() < retry_at);
        let found = if is_left_alone { None } else { self.within_time(self.0.engine.get(key)).await.ok() };
        let outcome = match &found {
            Some(Some(_)) => "hit",
            Some(None) => "miss",
            None => "failed",
        };
        metrics::counter!("cache_lookups_total", "outcome" => outcome).increment(1);
        found
    }

    /// Keeps bytes for this time at most, and for 10 years at most. A computation of the key that is in progress in this
    /// process keeps nothing.
    ///
    /// # Errors
    ///
    /// As [`Cache::delete`].
    pub async fn set_bytes(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        self.forget_computation(key).await;
        self.keep(key, value, time_to_live).await
    }

    async fn keep(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        self.within_time(self.0.engine.set(key, value, time_to_live.min(LONGEST))).await
    }

    /// Forgets a key. A computation of the key that is in progress in this process may have read what is old now: who asked
    /// before gets its value, but it is not kept, and who asks from now on computes again. One in another process keeps what
    /// it has read, for the time to live.
    ///
    /// # Errors
    ///
    /// 503 when Redis does not respond, or fails: the old value may be there for the rest of its time to live. It can be
    /// repeated. In memory it does not fail.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.forget_computation(key).await;
        self.within_time(self.0.engine.delete(key)).await
    }

    /// From here on, what is being computed for the key is not kept.
    async fn forget_computation(&self, key: &str) {
        let computed = self.computing().remove(key);
        if let Some(computed) = computed {
            drop(computed.keeping.lock().await);
        }
    }

    /// The value of a key, or what `compute` gives, which is then kept. Of all callers in this process that ask for the key
    /// meanwhile, one computes, and the others get its value. An error is that of the caller who computed; the next one
    /// tries again.
    pub async fn get_or_compute<T, F>(&self, key: &str, time_to_live: Duration, compute: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Sync,
        F: AsyncFnOnce() -> Result<T>,
    {
        let found = self.look_up(key).await;
        // A call waits for an engine that fails once, however long it computes.
        let works = found.is_some();
        if let Some(value) = found.flatten().and_then(|json| serde_json::from_slice(&json).ok()) {
            return Ok(value);
        }
        let computation = Computation::join(self, key);
        let json = computation.computed.value.get_or_try_init(async || {
            let json = Bytes::from(serde_json::to_vec(&compute().await?).map_err(Error::internal)?);
            let _keeping = computation.computed.keeping.lock().await;
            if works && computation.counts() {
                // There was no old value: one that is not kept is computed again.
                let _ = self.keep(key, json.clone(), time_to_live).await;
            }
            Ok::<_, Error>(json)
        });
        serde_json::from_slice(json.await?).map_err(Error::internal)
    }

    /// Whether the engine works now.
    pub async fn ping(&self) -> Result<()> {
        match tokio::time::timeout(self.0.timeout, self.0.engine.ping()).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable("the cache did not respond in time")),
        }
    }

    /// What the engine does, unless it takes too long or fails.
    async fn within_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let result = tokio::time::timeout(self.0.timeout, call).await;
        let result = result
            .unwrap_or_else(|_| Err(Error::unavailable(format!("no response within {:?}", self.0.timeout))));
        match &result {
            Ok(_) => {
                if self.retry_at().take().is_some() {
                    tracing::info!("the cache works again");
                }
            }
            Err(error) => {
                let (mut retry_at, now) = (self.retry_at(), Instant::now());
                if retry_at.is_none() {
                    tracing::error!(error = error.cause(), "the cache fails: requests go on without it");
                }
                // Writes that fail put off no look-up.
                if retry_at.is_none_or(|retry_at| retry_at <= now) {
                    *retry_at = Some(now + RETRY_AFTER);
                }
            }
        }
        result
    }

    fn retry_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.retry_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn computing(&self) -> MutexGuard<'_, HashMap<String, Arc<Computed>>> {
        self.0.computing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of one caller in the computation of a value.
struct Computation<'a> {
    cache: &'a Cache,
    key: &'a str,
    computed: Arc<Computed>,
}

impl<'a> Computation<'a> {
    fn join(cache: &'a Cache, key: &'a str) -> Self {
        let computed = Arc::clone(cache.computing().entry(key.to_owned()).or_default());
        Self { cache, key, computed }
    }

    /// Whether the key has not been written or deleted since this computation began.
    fn counts(&self) -> bool {
        self.is_in(&self.cache.computing())
    }

    fn is_in(&self, all: &HashMap<String, Arc<Computed>>) -> bool {
        all.get(self.key).is_some_and(|computed| Arc::ptr_eq(computed, &self.computed))
    }
}

impl Drop for Computation<'_> {
    /// A finished computation, and one whose last caller has gone away, is forgotten: the value is in the cache.
    fn drop(&mut self) {
        let mut all = self.cache.computing();
        let is_last = Arc::strong_count(&self.computed) == 2;
        if self.is_in(&all) && (is_last || self.computed.value.initialized()) {
            all.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests;

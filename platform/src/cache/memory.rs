//! The cache in the memory of this process: bounded by entries and bytes, each entry with an end.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::Engine;
use super::settings::MemorySettings;
use crate::error::Result;

/// What an entry costs besides its key and value, in bytes: about what `quick_cache` keeps for it.
const OVERHEAD: u64 = 96;

/// Entries in a map that drops those that were not used for the longest time.
pub(super) struct MemoryCache(Cache<String, Entry, Weight>);

#[derive(Clone)]
struct Entry {
    value: Bytes,
    ends: Instant,
}

/// The weight of an entry is its size, and no less than an even share of all: so both bounds hold.
#[derive(Clone)]
struct Weight {
    share: u64,
}

impl Weighter<String, Entry> for Weight {
    fn weight(&self, key: &String, entry: &Entry) -> u64 {
        (key.len() as u64 + entry.value.len() as u64 + OVERHEAD).max(self.share)
    }
}

impl MemoryCache {
    pub(super) fn new(settings: &MemorySettings) -> Self {
        let (entries, bytes) = (settings.max_entries.get(), settings.max_bytes.get());
        let share = bytes.div_ceil(entries).max(1);
        Self(Cache::with_weighter(settings.max_entries.as_usize(), bytes, Weight { share }))
    }
}

#[async_trait]
impl Engine for MemoryCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let Some(entry) = self.0.get(key) else { return Ok(None) };
        if entry.ends > Instant::now() {
            return Ok(Some(entry.value));
        }
        self.0.remove(key);
        Ok(None)
    }

    async fn set(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        if let Some(ends) = Instant::now().checked_add(time_to_live) {
            self.0.insert(key.to_owned(), Entry { value, ends });
        }
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.remove(key);
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: u64, bytes: &str) -> MemoryCache {
        let settings = serde_json::json!({"max_entries": entries, "max_bytes": bytes});
        MemoryCache::new(&serde_json::from_value(settings).unwrap())
    }

    async fn kept(cache: &MemoryCache, entries: usize, size: usize) -> usize {
        for number in 0..entries {
            cache.set(&number.to_string(), vec![0; size].into(), Duration::from_mins(1)).await.unwrap();
        }
        let mut kept = 0;
        for number in 0..entries {
            kept += usize::from(cache.get(&number.to_string()).await.unwrap().is_some());
        }
        kept
    }

    #[tokio::test]
    async fn neither_entries_nor_bytes_grow_beyond_their_bounds() {
        let few = kept(&cache(100, "1MiB"), 1_000, 10).await;
        assert!((1..=100).contains(&few), "{few}");
        let small = kept(&cache(1_000_000, "1MiB"), 1_000, 10_000).await;
        assert!((1..=104).contains(&small), "{small}");
        // The control: what fits is kept.
        assert_eq!(kept(&cache(1_000, "1MiB"), 100, 10).await, 100);
    }
}

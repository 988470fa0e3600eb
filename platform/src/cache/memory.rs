//! The cache in the memory of this process: bounded by entries and bytes, each entry with an end.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::time::Instant;

use super::Engine;
use super::settings::MemorySettings;
use crate::error::Result;

/// What an entry costs besides its key and value, in bytes: about what `quick_cache` keeps for it.
const OVERHEAD: u64 = 96;

/// An entry above this part of the bytes is not kept, in percent: what `quick_cache` sets aside for entries that are used
/// again.
const LARGEST: u64 = 97;

/// The bytes are divided among the shards, and no entry is larger than its shard. One shard, and not the default of four for
/// each core: so the largest entry does not depend on the machine. Readers share its lock, and a write holds it only to
/// change the map.
const SHARDS: usize = 1;

/// Entries in a map that drops those that were not used for the longest time.
pub(super) struct MemoryCache(Cache<String, Entry, Weight>);

#[derive(Clone)]
struct Entry {
    value: Bytes,
    ends: Instant,
}

/// The weight of an entry is its size, and no less than an even share of all: so both bounds hold. An only entry has as much
/// as one may have.
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
        let share = bytes.div_ceil(entries).clamp(1, bytes / 100 * LARGEST);
        let mut options = OptionsBuilder::new();
        options
            .shards(SHARDS)
            .estimated_items_capacity(settings.max_entries.as_usize())
            .weight_capacity(bytes);
        // It fails only without a capacity.
        let options = options.build().expect("both capacities are set");
        let (hash, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(Cache::with_options(options, Weight { share }, hash, lifecycle))
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

    #[tokio::test]
    async fn the_largest_entry_depends_on_the_bytes_only_and_an_only_one_is_kept() {
        // The sizes are those of the manual.
        for (entries, bytes, size, fits) in [
            (10_000, "64MiB", 65_000_000, true),
            (10_000, "64MiB", 65_200_000, false),
            (10_000, "64KiB", 63_000, true),
            (1, "64KiB", 10, true),
            (1, "64KiB", 63_000, true),
            (2, "64KiB", 10, true),
        ] {
            let kept = kept(&cache(entries, bytes), 1, size).await;
            assert_eq!(kept, usize::from(fits), "{entries} {bytes} {size}");
        }
        // The control: of two there is one.
        assert_eq!(kept(&cache(1, "64KiB"), 2, 10).await, 1);
    }
}

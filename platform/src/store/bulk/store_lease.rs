//! A lease in the store itself, so that one process at a time does a work. It needs no lock server; clocks that differ by
//! more than the time of the lease let two in, so the work must bear that.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::dao::new_id;
use super::super::{Dao, DocumentStore, Entity, Expected};
use super::patiently;
use crate::error::{Error, Kind, Result};

#[derive(Debug, Deserialize, Serialize)]
struct Record {
    holder: String,
    /// Milliseconds since 1970-01-01 UTC.
    expires: u64,
}

impl Entity for Record {
    const COLLECTION: &'static str = "platform_leases";
}

/// The lease, held in the store.
pub(super) struct StoreLease {
    records: Dao<Record>,
    name: &'static str,
    holder: String,
    time: Duration,
    version: u64,
    renewed: Instant,
}

/// How an attempt to take a lease ends.
pub(super) enum Taken {
    Lease(StoreLease),
    /// Another holder has it for so long.
    Held(Duration),
}

impl StoreLease {
    /// Takes the lease of this name if nobody holds it, for this time.
    pub(super) async fn take(
        store: &Arc<dyn DocumentStore>,
        name: &'static str,
        time: Duration,
    ) -> Result<Taken> {
        let records = Dao::<Record>::new(Arc::clone(store));
        let holder = new_id();
        let wanted = Record { holder: holder.clone(), expires: now() + milliseconds(time) };
        let renewed = Instant::now();
        let lease = |version| {
            Taken::Lease(Self {
                records: records.clone(),
                name,
                holder: holder.clone(),
                time,
                version,
                renewed,
            })
        };
        loop {
            match records.insert_with_id(name, &wanted).await {
                Ok(version) => return Ok(lease(version)),
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
            // The holder may have deleted it in between.
            let Some(held) = records.get(name).await? else { continue };
            let left = held.value.expires.saturating_sub(now());
            if left > 0 {
                return Ok(Taken::Held(Duration::from_millis(left)));
            }
            match records.replace(name, Expected::Version(held.version), &wanted).await {
                Ok(Some(version)) => return Ok(lease(version)),
                Ok(None) => {}
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Extends the lease, when a third of its time has passed. `Conflict` when another process has taken it.
    pub(super) async fn renew(&mut self) -> Result<()> {
        if self.renewed.elapsed() < self.time / 3 {
            return Ok(());
        }
        let renewed = Instant::now();
        let wanted = Record { holder: self.holder.clone(), expires: now() + milliseconds(self.time) };
        let lost = || Error::conflict("Lease Lost");
        let written =
            patiently(|| self.records.replace(self.name, Expected::Version(self.version), &wanted)).await;
        self.version = match written {
            Ok(written) => written.ok_or_else(lost)?,
            Err(error) if error.kind() == Kind::Conflict => {
                // An attempt that seemed to fail may have been executed.
                let held = patiently(|| self.records.get(self.name)).await?;
                held.filter(|held| held.value.holder == self.holder).ok_or_else(lost)?.version
            }
            Err(error) => return Err(error),
        };
        self.renewed = renewed;
        Ok(())
    }

    /// Gives the lease back. If that fails, it ends by itself.
    pub(super) async fn end(self) {
        let _ = self.records.delete(self.name, Expected::Version(self.version)).await;
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(store: &Arc<dyn DocumentStore>, time: Duration) -> StoreLease {
        match StoreLease::take(store, "work", time).await.unwrap() {
            Taken::Lease(lease) => lease,
            Taken::Held(left) => panic!("held for {left:?}"),
        }
    }

    /// The version of a record that was deleted is not that of the next one.
    #[tokio::test]
    async fn who_has_lost_the_lease_learns_it_also_when_the_next_holder_has_given_it_back() {
        let store: Arc<dyn DocumentStore> = Arc::new(super::super::super::memory::MemoryStore::default());
        let mut first = taken(&store, Duration::ZERO).await;
        taken(&store, Duration::ZERO).await.end().await;
        let _third = taken(&store, Duration::from_mins(1)).await;
        assert_eq!(first.renew().await.unwrap_err().reason(), "Lease Lost");
    }
}

//! How often something may be tried, counted in the store: one limit for all processes and machines.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): one number for each key, the time at which all attempts so far are
//! paid for. A key is kept as a hash, so that the store lists neither accounts nor addresses.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::hidden_id;
use super::settings::{Attempts, Throttles as ThrottleSettings};
use crate::clock::{Clock, millis};
use crate::error::{Error, Kind, Result};
use crate::network::Network;
use crate::store::{Dao, DocumentStore, Entity, Expected, Filter, Patch, field};

/// How often a new key is tried again: another process may make it, or the sweep may delete it, each between two looks.
const ATTEMPTS: u32 = 10;

/// What is counted in the store: log-ins, and whatever else has a key. Cheap to clone. An extractor.
#[derive(Clone)]
pub struct Throttles {
    buckets: Dao<Bucket>,
    clock: Clock,
    account_and_network: Limit,
    network: Limit,
    account: Limit,
}

/// How many attempts there may be at once, and how long each takes to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    burst: u32,
    every: Duration,
}

/// What is counted: a purpose, and for whom. It is kept as a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// The document of one key.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Bucket {
    /// The theoretical arrival time, in milliseconds since 1970: when all attempts so far are paid for.
    tat: i64,
}

impl Entity for Bucket {
    const COLLECTION: &'static str = "platform_throttles";
    const INDEXES: &'static [&'static str] = &["tat"];
}

impl Limit {
    /// As many attempts at once, and after that one in this time. At least one, and one in a millisecond at most.
    pub const fn new(burst: u32, every: Duration) -> Self {
        let burst = if burst == 0 { 1 } else { burst };
        let every = if every.as_millis() == 0 { Duration::from_millis(1) } else { every };
        Self { burst, every }
    }

    /// The tat after one more attempt; the time to wait where there is none left.
    fn after(self, tat: i64, now: i64) -> Result<i64, Duration> {
        let every = millis(self.every);
        let full = every.saturating_mul(self.burst.into());
        // Later than all attempts together: the limit was larger, or a clock was wrong. It must not last.
        let next = tat.clamp(now, now.saturating_add(full)).saturating_add(every);
        let wait = next.saturating_sub(now).saturating_sub(full);
        u64::try_from(wait)
            .ok()
            .filter(|wait| *wait > 0)
            .map_or(Ok(next), |wait| Err(Duration::from_millis(wait)))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at once, one in {:?}", self.burst, self.every)
    }
}

impl From<Attempts> for Limit {
    fn from(attempts: Attempts) -> Self {
        Self::new(u32::try_from(attempts.burst.get()).unwrap_or(u32::MAX), attempts.every.get())
    }
}

impl Key {
    /// The key of these parts. Their borders count: `["a", "bc"]` is another key than `["ab", "c"]`.
    pub fn new(purpose: &'static str, parts: &[&str]) -> Self {
        Self(hidden_id(&[&[purpose], parts].concat()))
    }

    /// The key of a client: its network, an address of IPv4 or 64 bits of IPv6.
    pub fn of_client(purpose: &'static str, client: Option<IpAddr>) -> Self {
        Self::new(purpose, &[&network(client)])
    }
}

impl Throttles {
    /// The throttles of this store.
    pub fn new(store: Arc<dyn DocumentStore>, clock: Clock, log_ins: &ThrottleSettings) -> Self {
        Self {
            buckets: Dao::new(store),
            clock,
            account_and_network: log_ins.account_and_network.into(),
            network: log_ins.network.into(),
            account: log_ins.account.into(),
        }
    }

    /// Counts one attempt.
    ///
    /// # Errors
    ///
    /// 429 with `Retry-After` where none is left; it is not counted then. 503 where the store does not respond: an attempt that
    /// cannot be counted is refused.
    pub async fn take(&self, key: &Key, limit: Limit) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let taken = self.buckets.modify(&key.0, |bucket| {
                bucket.tat =
                    limit.after(bucket.tat, self.clock.millis()).map_err(Error::too_many_requests)?;
                Ok(())
            });
            if taken.await.map_err(contended)?.is_some() {
                return Ok(());
            }
            let now = self.clock.millis();
            let tat = limit.after(now, now).map_err(Error::too_many_requests)?;
            match self.buckets.insert_with_id(&key.0, &Bucket { tat }).await {
                Ok(_) => return Ok(()),
                // Another one has made it.
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::unavailable("a throttle is made and deleted all the time"))
    }

    /// Forgets all attempts of a key.
    pub async fn forget(&self, key: &Key) -> Result<()> {
        // It stays until the sweep: of many at once, each would else make it anew for the next to delete.
        let all_paid = Patch::new().set("tat", 0);
        self.buckets.update(&key.0, Expected::Any, all_paid).await.map(drop)
    }

    /// Counts one attempt to log in, before the password is looked at (`auth.throttles`).
    ///
    /// `account` is the name that was typed, whether there is such an account or not: so the answer tells nothing of it. `client`
    /// is the address of the client. `device` is the id of a device on which the owner of this account has logged in, which the
    /// caller has verified: it has attempts of its own, so nobody else can use them up. All devices of an account together have
    /// as many as all networks.
    ///
    /// # Errors
    ///
    /// As [`Throttles::take`] has them.
    pub async fn log_in(&self, account: &str, client: Option<IpAddr>, device: Option<&str>) -> Result<()> {
        let (account, network) = (&normalised(account), &network(client));
        let own = (own_key(account, network, device), self.account_and_network);
        if device.is_some() {
            self.take(&own.0, own.1).await?;
            // All devices together too: whoever once knew the password may have made many, which outlive it.
            return self.take(&Key::new("log-in devices", &[account]), self.account).await;
        }
        let limits = [
            own,
            (Key::new("log-in network", &[network]), self.network),
            (Key::new("log-in account", &[account]), self.account),
        ];
        // An attempt that one of them refuses must use up none of the others: else one network would use up the attempts of an
        // account for all, and an account under attack those of a network. So all are asked first.
        let ids = limits.iter().map(|(key, _)| key.0.clone()).collect();
        let (found, now) = (self.buckets.get_all(Filter::Ids(ids)).await?, self.clock.millis());
        let waits = limits.iter().filter_map(|(key, limit)| {
            let bucket = found.iter().find(|bucket| bucket.id == key.0)?;
            limit.after(bucket.value.tat, now).err()
        });
        if let Some(wait) = waits.max() {
            return Err(Error::too_many_requests(wait));
        }
        // Attempts that come together may still use up one of the others; the narrowest is first, so that is little.
        for (key, limit) in &limits {
            self.take(key, *limit).await?;
        }
        Ok(())
    }

    /// Forgets the attempts of who has logged in: those for this account from this network, or from this device. Those of the
    /// account and of the network stay, which others may have made.
    pub async fn log_in_succeeded(
        &self,
        account: &str,
        client: Option<IpAddr>,
        device: Option<&str>,
    ) -> Result<()> {
        self.forget(&own_key(&normalised(account), &network(client), device)).await
    }

    /// Deletes what no longer limits anything, and returns how much that was.
    pub async fn sweep(&self) -> Result<u64> {
        self.buckets.delete_all(field("tat").lte(self.clock.millis())).await
    }
}

/// Who adds spaces or capital letters to a name tries the same account.
fn normalised(account: &str) -> String {
    account.trim().to_lowercase()
}

/// Requests that came through no socket have no address: they are one network.
fn network(client: Option<IpAddr>) -> String {
    client.map(|client| Network::of(client).to_string()).unwrap_or_default()
}

fn own_key(account: &str, network: &str, device: Option<&str>) -> Key {
    match device {
        Some(device) => Key::new("log-in device", &[account, device]),
        None => Key::new("log-in", &[account, network]),
    }
}

/// Too many write the same document for the store to count one more attempt now: no fault of the request.
fn contended(error: Error) -> Error {
    if error.kind() == Kind::Conflict { Error::unavailable(error) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_back_one_by_one_and_none_is_saved_beyond_the_burst() {
        let limit = Limit::new(3, Duration::from_secs(10));
        let mut tat = 0;
        for _ in 0..3 {
            tat = limit.after(tat, 1_000_000).unwrap();
        }
        assert_eq!(limit.after(tat, 1_000_000), Err(Duration::from_secs(10)));
        assert_eq!(limit.after(tat, 1_009_999), Err(Duration::from_millis(1)));
        tat = limit.after(tat, 1_010_000).unwrap();
        assert!(limit.after(tat, 1_010_000).is_err());
    }

    #[test]
    fn a_time_far_ahead_locks_nobody_out_for_longer_than_a_used_up_limit() {
        // The clock of a machine was a year ahead, or the limit was a larger one.
        let limit = Limit::new(3, Duration::from_secs(10));
        assert_eq!(limit.after(1_000_000 + 31_536_000_000, 1_000_000), Err(Duration::from_secs(10)));
        assert!(Limit::new(0, Duration::ZERO).after(0, 0).is_ok());
        assert!(Limit::new(u32::MAX, Duration::MAX).after(i64::MAX, i64::MAX).is_ok());
    }

    #[test]
    fn the_borders_of_the_parts_of_a_key_count() {
        assert_ne!(Key::new("p", &["a", "bc"]), Key::new("p", &["ab", "c"]));
        assert_ne!(Key::new("p", &["a"]), Key::new("pa", &[]));
        assert!(!Key::new("p", &["ada@example.org"]).0.contains("ada"));
    }
}

//! How many requests one client may send (`http.rate_limit`, `Route::rate_limit`): a token bucket for each address (GCRA, by `governor`).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use quick_cache::unsync::Cache;

use crate::error::{Error, Result};
use crate::http::routing::limits::Rate;
use crate::network::Network;

/// The buckets of all clients.
pub(crate) struct RateLimit<C: Clock = MonotonicClock> {
    limiter: RateLimiter<Network, Buckets, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

/// The most recent clients. The table of `governor` itself grows with each new address. A client that is dropped out of
/// this one starts with a full bucket; one that goes on sending stays.
struct Buckets(Mutex<Cache<Network, u64>>);

impl StateStore for Buckets {
    type Key = Network;

    fn measure_and_replace<T, F, E>(&self, key: &Network, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (decision, state) = decide(buckets.get(key).copied().map(Nanos::from))?;
        buckets.insert(*key, state.as_u64());
        Ok(decision)
    }
}

impl RateLimit {
    /// Nothing where the limit is off: 0 requests a minute.
    pub(crate) fn new(rate: Rate, clients: usize) -> Option<Self> {
        let (per_minute, burst) = (NonZeroU32::new(rate.per_minute)?, NonZeroU32::new(rate.burst)?);
        Some(Self::with_clock(per_minute, burst, clients, MonotonicClock))
    }
}

impl<C: Clock + Clone> RateLimit<C> {
    fn with_clock(per_minute: NonZeroU32, burst: NonZeroU32, clients: usize, clock: C) -> Self {
        let quota = Quota::per_minute(per_minute).allow_burst(burst);
        let buckets = Buckets(Mutex::new(Cache::new(clients)));
        Self { limiter: RateLimiter::new(quota, buckets, clock.clone()), clock }
    }

    /// 429 with `Retry-After` for a client that has used up its requests.
    pub(crate) fn check(&self, client: IpAddr) -> Result<()> {
        self.limiter.check_key(&Network::of(client)).map_err(|refused| {
            Error::too_many_requests(refused.wait_time_from(self.clock.now()).max(Duration::from_secs(1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limit(clients: usize) -> (RateLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let number = |number| NonZeroU32::new(number).unwrap();
        (RateLimit::with_clock(number(60), number(3), clients, clock.clone()), clock)
    }

    fn allowed(limit: &RateLimit<FakeRelativeClock>, client: &str) -> usize {
        (0..10).take_while(|_| limit.check(client.parse().unwrap()).is_ok()).count()
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate_and_others_have_theirs() {
        let (limit, clock) = limit(100);
        assert_eq!(allowed(&limit, "192.0.2.1"), 3);
        let refused = limit.check("192.0.2.1".parse().unwrap()).unwrap_err();
        assert_eq!((refused.status(), refused.headers()), (429, &[("retry-after", "1".to_owned())][..]));
        clock.advance(Duration::from_secs(2));
        assert_eq!(allowed(&limit, "192.0.2.1"), 2);
        assert_eq!(allowed(&limit, "192.0.2.2"), 3);
    }

    #[test]
    fn ipv6_counts_by_its_network_and_mapped_ipv4_as_ipv4() {
        let (limit, _) = limit(100);
        assert_eq!(allowed(&limit, "2001:db8:0:1::1"), 3);
        assert_eq!(allowed(&limit, "2001:db8:0:1:ffff::2"), 0);
        assert_eq!(allowed(&limit, "2001:db8:0:2::1"), 3);
        assert_eq!(allowed(&limit, "::ffff:192.0.2.1"), 3);
        assert_eq!(allowed(&limit, "192.0.2.1"), 0);
    }

    #[test]
    fn the_table_is_bounded_and_a_client_that_goes_on_stays_in_it() {
        let (limit, _) = limit(100);
        let busy = "192.0.2.1".parse().unwrap();
        (0..4).for_each(|_| drop(limit.check(busy)));
        for number in 0..10_000_u32 {
            drop(limit.check(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()));
            assert!(limit.check(busy).is_err(), "after {number} others");
        }
        let clients = limit.limiter.into_state_store().0.into_inner().unwrap().len();
        assert!(clients <= 100, "{clients}");
    }
}

//! Limits that are counted in the store, on every engine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use platform::auth::{Key, Limit, Throttles};
use platform::clock::Clock;
use platform::error::{Error, Kind};
use platform::store::DocumentStore;
use serde_json::json;
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_mins(1);

fn throttles(store: &Arc<dyn DocumentStore>) -> (Throttles, Clock) {
    let clock = Clock::starting_at("2026-12-01T00:00:00Z".parse().unwrap());
    let settings = json!({
        "account_and_network": {"burst": 3, "every": "1m"},
        "network": {"burst": 6, "every": "1m"},
        "account": {"burst": 5, "every": "1m"},
    });
    let settings = serde_json::from_value(settings).unwrap();
    (Throttles::new(Arc::clone(store), clock.clone(), &settings), clock)
}

/// How many attempts to log in are let in, until one is refused.
async fn let_in(throttles: &Throttles, account: &str, client: &str, device: Option<&str>) -> usize {
    let client: Option<IpAddr> = client.parse().ok();
    for count in 0..100 {
        if let Err(refused) = throttles.log_in(account, client, device).await {
            assert_is_429(&refused);
            return count;
        }
    }
    panic!("no end of attempts");
}

fn assert_is_429(refused: &Error) {
    assert_eq!(refused.kind(), Kind::TooManyRequests);
    let wait: u64 = refused.headers()[0].1.parse().unwrap();
    assert!((1..=60).contains(&wait), "{:?}", refused.headers());
}

pub(super) async fn of_attempts_at_once_exactly_the_burst_is_let_in(store: Arc<dyn DocumentStore>) {
    let (key, limit) = (Key::new("test", &["ada"]), Limit::new(7, MINUTE));
    let mut attempts = JoinSet::new();
    for _ in 0..50 {
        // Each as a process of its own: they share the store alone.
        let ((throttles, _), key) = (throttles(&store), key.clone());
        attempts.spawn(async move { throttles.take(&key, limit).await });
    }
    let results = attempts.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 7);
    results.iter().filter_map(|result| result.as_ref().err()).for_each(assert_is_429);
}

pub(super) async fn attempts_come_back_with_time_and_at_once_when_they_are_forgotten(
    store: Arc<dyn DocumentStore>,
) {
    let (throttles, clock) = throttles(&store);
    assert_eq!(let_in(&throttles, "ada", "192.0.2.1", None).await, 3);
    clock.move_by(jiff::SignedDuration::from_mins(2));
    // Spaces and capital letters make no other account.
    assert_eq!(let_in(&throttles, " Ada ", "192.0.2.1", None).await, 2);
    throttles.log_in_succeeded("ada", "192.0.2.1".parse().ok(), None).await.unwrap();
    // Two are left of the account: 3 + 2 of 5, and 2 came back.
    assert_eq!(let_in(&throttles, "ada", "192.0.2.1", None).await, 2);
}

pub(super) async fn an_attempt_that_is_refused_uses_up_no_other_limit(store: Arc<dyn DocumentStore>) {
    let (throttles, _) = throttles(&store);
    // One network has 3 of the 5 attempts of the account, however often it tries.
    for _ in 0..5 {
        let_in(&throttles, "ada", "192.0.2.1", None).await;
    }
    assert_eq!(let_in(&throttles, "ada", "192.0.2.2", None).await, 2);
    // The account is used up, and takes nothing from a network that tries it all the same.
    for _ in 0..5 {
        assert_eq!(let_in(&throttles, "ada", "192.0.2.3", None).await, 0);
    }
    assert_eq!(let_in(&throttles, "bob", "192.0.2.3", None).await, 3);
    assert_eq!(let_in(&throttles, "cid", "192.0.2.3", None).await, 3);
    assert_eq!(let_in(&throttles, "dan", "192.0.2.3", None).await, 0);
}

pub(super) async fn the_owners_device_gets_in_while_others_use_up_the_account(store: Arc<dyn DocumentStore>) {
    let (throttles, clock) = throttles(&store);
    for network in 0..4 {
        let_in(&throttles, "ada", &format!("2001:db8:0:{network}::1"), None).await;
    }
    // The control: without the device, the owner is locked out.
    assert_eq!(let_in(&throttles, "ada", "192.0.2.9", None).await, 0);
    assert_eq!(let_in(&throttles, "ada", "192.0.2.9", Some("laptop")).await, 3);
    // All devices together have no more than the account has: 5.
    assert_eq!(let_in(&throttles, "ada", "192.0.2.9", Some("phone")).await, 2);
    throttles.log_in_succeeded("ada", None, Some("laptop")).await.unwrap();
    clock.move_by(jiff::SignedDuration::from_mins(3));
    assert_eq!(let_in(&throttles, "ada", "192.0.2.9", Some("laptop")).await, 3);
}

pub(super) async fn a_sweep_deletes_what_limits_nothing_and_leaves_the_rest(store: Arc<dyn DocumentStore>) {
    let (throttles, clock) = throttles(&store);
    let (old, new, limit) = (Key::new("test", &["old"]), Key::new("test", &["new"]), Limit::new(1, MINUTE));
    throttles.take(&old, limit).await.unwrap();
    clock.move_by(jiff::SignedDuration::from_mins(1));
    throttles.take(&new, limit).await.unwrap();
    assert_eq!(throttles.sweep().await.unwrap(), 1);
    assert_is_429(&throttles.take(&new, limit).await.unwrap_err());
    throttles.take(&old, limit).await.unwrap();
}

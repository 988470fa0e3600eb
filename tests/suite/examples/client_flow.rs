//! The flow of a call to another service.

use std::time::{Duration, Instant};

use super::fake_upstream::FakeUpstream;
use crate::support::app_with;

const URL: &str = "SERVER__UPSTREAMS__CLIENT_FLOW__URL";

#[tokio::test]
async fn what_the_upstream_says_is_passed_on_after_as_many_attempts_as_it_takes() {
    let upstream = FakeUpstream::start(&["503\n", "503\n", "200\nhello\n"]).await;
    let app = app_with(&[(URL, &upstream.url())]).await;
    let started = Instant::now();
    let response = app.get("/client").await;
    assert_eq!((response.status.as_u16(), &response.json()["response"]), (200, &"hello".into()));
    assert_eq!(upstream.count(), 3);
    // Half a second after each of the first two.
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(app.log()[0].contains(" out_n=1 ") && app.log()[0].contains(" out_retries=2"), "{:?}", app.log());
}

#[tokio::test]
async fn a_dead_upstream_is_a_500_after_five_attempts() {
    let upstream = FakeUpstream::start(&["503\n"]).await;
    let app = app_with(&[(URL, &upstream.url())]).await;
    let started = Instant::now();
    let response = app.get("/client").await;
    assert_eq!(response.status_line(), "500 Internal Server Error");
    assert_eq!(response.json()["message"], "Internal Server Error");
    assert_eq!(upstream.count(), 5);
    assert!(started.elapsed() >= Duration::from_secs(2));
}

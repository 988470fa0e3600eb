//! The weather, from an upstream that the test plays.

use serde_json::json;

use super::fake_upstream::FakeUpstream;
use crate::support::app_with;

const URL: &str = "SERVER__UPSTREAMS__WEATHER_REPORT__URL";

#[tokio::test]
async fn some_fields_of_the_upstream_are_passed_on() {
    let body =
        r#"{"elevation": 38, "current": {"temperature_2m": 7.5, "wind_speed_10m": 12.1, "time": "now"}}"#;
    let upstream = FakeUpstream::start(&[&format!("200\n{body}")]).await;
    let app = app_with(&[(URL, &upstream.url())]).await;
    let response = app.get("/weather").await;
    assert_eq!(response.json(), json!({"place": "Berlin, DE", "degrees": 7.5, "wind": 12.1}));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn an_upstream_that_responds_with_something_else_is_a_bad_gateway() {
    for other in ["200\n{}", "200\n<html>", "404\n"] {
        let upstream = FakeUpstream::start(&[other]).await;
        let app = app_with(&[(URL, &upstream.url())]).await;
        assert_eq!(app.get("/weather").await.status_line(), "502 Bad Gateway", "{other}");
    }
}

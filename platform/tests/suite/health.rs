//! `/ping`, `/live` and `/ready`.

use axum::body::Body;
use axum::http::Request;
use platform::App;
use platform::error::StartError;
use platform::http::{Routes, health};
use platform::services::Services;
use platform::testing::{NoSettings, SERVICE, TestApp, TestResponse};
use serde_json::json;

async fn app(environment: &[(&str, &str)]) -> TestApp {
    TestApp::with_routes(health::routes(), environment).await
}

async fn ready_with(app: &TestApp, token: &str) -> TestResponse {
    let request = Request::get("/ready").header("authorization", format!("Bearer {token}"));
    app.send(request.body(Body::empty()).unwrap()).await
}

/// A store in a folder that is gone: it was there at the start.
async fn app_without_its_store(environment: &[(&str, &str)]) -> TestApp {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file:{}", folder.path().join("store").display());
    let environment = [&[("SERVER__STORE__URL", url.as_str())], environment].concat();
    app(&environment).await
}

#[tokio::test]
async fn a_server_whose_store_responds_is_ready_and_says_no_more() {
    let app = app(&[]).await;
    let response = app.get("/ready").await;
    assert_eq!((response.status.as_u16(), response.json()), (200, json!({"status": "ready"})));
    assert_eq!(response.headers["cache-control"], "no-store");
    for path in ["/ping", "/live"] {
        assert_eq!(app.get(path).await.status.as_u16(), 200);
    }
    assert!(app.log().is_empty(), "{:?}", app.log());
}

#[tokio::test]
async fn a_required_component_that_does_not_respond_is_503_and_an_other_is_not() {
    let app = app_without_its_store(&[]).await;
    let response = app.get("/ready").await;
    assert_eq!((response.status.as_u16(), response.json()), (503, json!({"status": "not ready"})));
    assert_eq!(response.headers["retry-after"], "1");
    // It is alive: to start it again would not help.
    assert_eq!(app.get("/live").await.status.as_u16(), 200);
    let without = app_without_its_store(&[("SERVER__HEALTH__REQUIRED", "[cache, locks]")]).await;
    assert_eq!(without.get("/ready").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_failure_has_a_line_in_the_log_with_its_cause() {
    let app = app_without_its_store(&[]).await;
    assert_eq!(app.get("/ready").await.status, 503);
    let log = app.log();
    let line = log.iter().find(|line| line.contains(" path=/ready ")).expect("a line");
    assert!(line.contains(" status=503 ") && line.contains(" store="), "{line}");
    assert_eq!(app.get("/ping").await.status, 200);
    assert!(!app.log().iter().any(|line| line.contains(" path=/ping ")));
}

#[tokio::test]
async fn the_operator_sees_the_components_and_nobody_else_does() {
    let app = app_without_its_store(&[("SERVER__HEALTH__TOKEN", "s3cret")]).await;
    let seen = ready_with(&app, "s3cret").await.json();
    assert_eq!(seen["components"]["cache"], json!({"responds": true, "required": false}));
    assert_eq!(seen["components"]["store"]["responds"], json!(false));
    assert!(seen["components"]["store"]["cause"].as_str().unwrap().contains("No such file"), "{seen}");
    for token in ["", "s3cre", "s3cret2", "S3cret"] {
        assert_eq!(ready_with(&app, token).await.json(), json!({"status": "not ready"}), "{token}");
    }
    // Without a token, nobody is the operator.
    assert_eq!(
        ready_with(&app_without_its_store(&[]).await, "").await.json(),
        json!({"status": "not ready"})
    );
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_at_once_and_still_responds() {
    let app = app(&[]).await;
    app.drain();
    let response = app.get("/ready").await;
    assert_eq!((response.status.as_u16(), response.json()), (503, json!({"status": "draining"})));
    assert_eq!(app.get("/ping").await.status.as_u16(), 200);
}

#[cfg(all(feature = "etcd", feature = "mongodb", feature = "redis"))]
#[tokio::test]
async fn components_are_asked_at_the_same_time_and_not_for_long() {
    // It accepts connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (store, cache) = (format!("mongodb://{address}/test"), format!("redis://{address}"));
    let (locks, port) = (address.ip().to_string(), address.port().to_string());
    let app = app(&[
        ("SERVER__STORE__URL", &store),
        ("SERVER__CACHE__URL", &cache),
        ("SERVER__CACHE__TIMEOUT", "10s"),
        ("SERVER__LOCK__SERVER", "true"),
        ("SERVER__LOCK__HOST", &locks),
        ("SERVER__LOCK__PORT", &port),
        ("SERVER__HEALTH__REQUIRED", "[store, cache, locks]"),
        ("SERVER__HEALTH__TIMEOUT", "700ms"),
        ("SERVER__HEALTH__TOKEN", "s3cret"),
    ])
    .await;
    let start = std::time::Instant::now();
    let seen = ready_with(&app, "s3cret").await;
    let time = start.elapsed();
    assert_eq!(seen.status.as_u16(), 503);
    for component in ["store", "cache", "locks"] {
        assert_eq!(seen.json()["components"][component]["responds"], json!(false), "{component}");
    }
    // One after the other they take 2.1 s.
    assert!(time < std::time::Duration::from_secs(2), "{time:?}: {}", seen.json());
}

#[tokio::test]
async fn a_component_that_there_is_not_is_an_error_at_the_start() {
    let app =
        App::new(async |services, _| Ok::<Services, StartError>(services), |_: &NoSettings| Routes::new());
    let variables = [("SERVER__STORE__URL", "memory:"), ("SERVER__HEALTH__REQUIRED", "[store, database]")];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let error = app.into_router(&SERVICE, variables).await.unwrap_err();
    assert_eq!(error.exit_code, 2);
    assert_eq!(
        error.to_string(),
        "health.required: there is no component 'database', only store, cache, locks"
    );
}

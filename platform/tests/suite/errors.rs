//! Every error is JSON of one shape, with a fixed reason phrase.

use std::future::Ready;
use std::pin::Pin;
use std::result::Result as StdResult;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use platform::error::{Error, Result};
use platform::http::{Cors, Json, Path, Route, Routes};
use platform::services::Services;
use serde_json::json;

use crate::handlers::echo;
use platform::testing::TestApp;

const NUMBERS: &str = r#"{"additionalProperties": {"type": "number"}}"#;

async fn broken() -> Result<()> {
    Err(Error::internal("the disk password is hunter2"))
}

async fn panics() {
    panic!("hunter2")
}

/// A handler that panics before it returns a future.
#[derive(Clone)]
struct PanicsAtOnce;

impl<S> Handler<(), S> for PanicsAtOnce {
    type Future = Ready<Response>;

    fn call(self, _: Request, _: S) -> Self::Future {
        panic!("hunter2")
    }
}

/// A body that declares its length and then fails, or panics.
struct FailingBody {
    panics: bool,
}

impl HttpBody for FailingBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<StdResult<Frame<Bytes>, &'static str>>> {
        assert!(!self.panics, "hunter2");
        Poll::Ready(Some(Err("the disk is gone")))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(5)
    }
}

async fn slow() {
    tokio::time::sleep(Duration::from_hours(1)).await;
}

async fn status(Path(status): Path<u16>) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

async fn plain_text(Path(status): Path<u16>) -> (StatusCode, &'static str) {
    (StatusCode::from_u16(status).unwrap(), "the moon is full")
}

async fn count(axum::extract::Path(count): axum::extract::Path<u32>) -> Json<u32> {
    Json(count)
}

async fn patient() -> &'static str {
    tokio::task::yield_now().await;
    "done"
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/broken").get(broken))
        .route(Route::at("/panics").get(panics).post(PanicsAtOnce))
        .route(Route::at("/panics/{with}").get(panics).post(PanicsAtOnce))
        .route(Route::at("/panicking-body").get(async || Body::new(FailingBody { panics: true })))
        .route(
            Route::at("/failing-body")
                .get(async || Body::new(FailingBody { panics: false }))
                .cors(Cors::any()),
        )
        .route(Route::at("/slow").get(slow).timeout(Duration::from_millis(20)))
        .route(Route::at("/patient").get(patient).timeout(Duration::MAX))
        .route(Route::at("/count/{count}").get(count))
        .route(Route::at("/status/{status}").get(status))
        .route(Route::at("/text/{status}").get(plain_text))
        .route(Route::at("/echo").post(echo))
        .route(Route::at("/checked").post(echo).schema("any", "{}"))
        .route(Route::at("/numbers").post(echo).schema("numbers", NUMBERS))
}

async fn app() -> TestApp {
    TestApp::with_routes(routes(), &[]).await
}

#[tokio::test]
async fn a_time_limit_beyond_what_the_clock_can_count_is_none() {
    assert_eq!(app().await.get("/patient").await.text(), "done");
}

#[tokio::test]
async fn an_unknown_path_is_404_unknown_endpoint_in_json() {
    let response =
        app().await.call(Method::GET, "/nowhere?a=1", &[("x-request-id", "abc")], Body::empty()).await;
    assert_eq!(response.status_line(), "404 Unknown Endpoint");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let expected = json!({
        "status": 404, "code": 404, "message": "Unknown Endpoint",
        "method": "GET", "uri": "/nowhere", "request_id": "abc",
    });
    assert_eq!(response.json(), expected);
}

#[tokio::test]
async fn a_client_that_asks_for_problem_json_gets_the_names_of_rfc_9457() {
    let app = app().await;
    for (accept, expected) in [
        ("text/html, Application/Problem+JSON;q=0.5", "application/problem+json"),
        ("application/problem+json;q=0, */*", "application/json"),
        ("*/*", "application/json"),
    ] {
        let response = app.call(Method::GET, "/nowhere", &[("accept", accept)], Body::empty()).await;
        assert_eq!(response.header("content-type"), Some(expected), "{accept}");
    }
    let headers = [("accept", "application/problem+json")];
    let response = app.call(Method::GET, "/nowhere", &headers, Body::empty()).await;
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let body = response.json();
    assert_eq!(body["title"], "Unknown Endpoint");
    assert_eq!(body["status"], 404);
    assert_eq!(body["instance"], "/nowhere");
}

#[tokio::test]
async fn the_cause_of_a_500_is_in_the_log_and_not_in_the_response() {
    let app = app().await;
    let response = app.get("/broken").await;
    assert_eq!(response.status_line(), "500 Internal Server Error");
    assert!(!response.text().contains("hunter2"));
    assert!(app.log().last().unwrap().contains("hunter2"), "{:?}", app.log());
}

#[tokio::test]
async fn debug_puts_the_trace_into_the_body() {
    let app = TestApp::with_routes(routes(), &[("SERVER__SERVER__DEBUG", "on")]).await;
    let trace = app.get("/broken").await.json()["trace"].as_str().unwrap().to_owned();
    assert!(trace.contains("hunter2") && trace.contains("errors.rs:"), "{trace}");
}

#[tokio::test]
async fn a_panic_is_a_500_in_json_and_the_next_request_works() {
    let app = app().await;
    for (method, path) in [
        (Method::GET, "/panics"),
        (Method::POST, "/panics"),
        (Method::GET, "/panics/1"),
        (Method::POST, "/panics/1"),
        (Method::GET, "/panicking-body"),
    ] {
        let response = app.call(method, path, &[], Body::empty()).await;
        assert_eq!(response.status_line(), "500 Internal Server Error");
        assert_eq!(response.json()["code"], 500);
        assert!(!response.text().contains("hunter2"));
        assert!(app.log().last().unwrap().contains("panic: hunter2"), "{:?}", app.log());
    }
    assert_eq!(app.log().len(), 5, "{:?}", app.log());
    assert_eq!(app.get("/count/1").await.status, 200);
}

#[tokio::test]
async fn a_body_that_fails_before_it_is_sent_is_a_500_that_another_origin_can_read() {
    let app = app().await;
    let response = app.get("/failing-body").await;
    assert_eq!(response.status_line(), "500 Internal Server Error");
    assert_eq!(response.json()["code"], 500);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert!(response.header("x-request-id").is_some());
    assert!(app.log().last().unwrap().contains("the disk is gone"), "{:?}", app.log());
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_503() {
    let app = app().await;
    let response = app.get("/slow").await;
    assert_eq!(response.status_line(), "503 Request Timed Out");
    assert_eq!(response.json()["message"], "Request Timed Out");
}

#[tokio::test]
async fn a_rejection_by_an_extractor_of_axum_is_json_too() {
    let app = app().await;
    let response = app.get("/count/many").await;
    assert_eq!(response.status_line(), "400 Bad Request");
    assert_eq!(response.json()["uri"], "/count/many");
    let message = response.json()["message"].to_string();
    assert!(message.contains("Cannot parse `many`"), "{message}");
    let line = app.log().pop().unwrap();
    assert!(line.contains("Cannot parse `many`"), "{line}");
}

#[tokio::test]
async fn the_text_of_a_4xx_is_the_message_and_that_of_a_5xx_only_the_logged_cause() {
    let app = app().await;
    let refused = app.get("/text/422").await;
    assert_eq!(refused.status_line(), "422 Unprocessable Entity");
    assert_eq!(refused.json()["message"], "the moon is full");
    let failed = app.get("/text/500").await;
    assert_eq!(failed.json()["message"], "Internal Server Error");
    let line = app.log().pop().unwrap();
    assert!(line.contains("the moon is full"), "{line}");
}

#[tokio::test]
async fn an_error_status_without_a_body_is_kept_and_gets_the_error_body() {
    for (status, line) in [
        (401, "401 Unauthorized"),
        (404, "404 Not Found"),
        (429, "429 Too Many Requests"),
        (502, "502 Bad Gateway"),
    ] {
        let response = app().await.get(&format!("/status/{status}")).await;
        assert_eq!(response.status_line(), line);
        assert_eq!((&response.json()["status"], &response.json()["code"]), (&json!(status), &json!(status)));
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400_invalid_json_body() {
    let app = app().await;
    let deep = "[".repeat(100_000);
    for body in ["it is not json", "", "{\"a\":}", "{'a': True}", "[1] trailing", "NaN", &deep] {
        let response = app.post("/echo", body).await;
        assert_eq!(response.status_line(), "400 Invalid JSON body", "{body:.20}");
        assert_eq!(response.json()["message"], "Invalid JSON body");
        assert!(response.json()["errors"][0]["message"].is_string());
    }
    let response = app.call(Method::POST, "/echo", &[], vec![b'"', 0xff, b'"']).await;
    assert_eq!(response.status_line(), "400 Invalid JSON body");
}

#[tokio::test]
async fn true_false_and_null_are_json() {
    // The original parsed bodies as Python literals: these three were a 500.
    let app = app().await;
    let body = json!({"a": true, "b": false, "c": null, "d": [1.5, 18_446_744_073_709_551_615_u64, -1]});
    let response = app.post("/echo", &body).await;
    assert_eq!(response.json(), body);
}

#[tokio::test]
async fn a_decimal_is_the_nearest_double_and_a_byte_order_mark_is_no_part_of_the_body() {
    let app = app().await;
    let response = app.post("/echo", "{\"value\": 3.14159265358979323846}").await;
    assert_eq!((response.status.as_u16(), response.json()), (200, json!({"value": std::f64::consts::PI})));
    for path in ["/echo", "/checked"] {
        let response = app.post(path, "\u{feff}{\"a\": 1}").await;
        assert_eq!((response.status.as_u16(), response.json()), (200, json!({"a": 1})), "{path}");
    }
}

#[tokio::test]
async fn an_integer_that_would_change_is_refused() {
    let response = app().await.post("/echo", "{\"n\": 123456789012345678901234567890}").await;
    assert_eq!(response.status_line(), "400 Invalid JSON body");
    let message = response.json()["errors"][0]["message"].to_string();
    assert!(message.contains("send it as a string"), "{message}");
}

#[tokio::test]
async fn a_duplicate_key_is_refused_with_and_without_a_schema() {
    let app = app().await;
    for path in ["/echo", "/checked"] {
        let response = app.post(path, "{\"a\": 1, \"a\": 2}").await;
        assert_eq!(response.status_line(), "400 Invalid JSON body", "{path}");
        let message = response.json()["errors"][0]["message"].to_string();
        assert!(message.contains("duplicate field `a`"), "{message}");
        assert_eq!(app.post(path, "{\"a\": 1, \"b\": {\"a\": 2}}").await.status, 200);
    }
}

#[tokio::test]
async fn the_log_names_the_refused_fields_and_not_their_values() {
    let app = app().await;
    app.post("/numbers", r#"{"a": 1, "b": "hunter2", "c": "hunter2", "d": "hunter2", "e": "hunter2"}"#).await;
    let line = app.log().pop().unwrap();
    assert!(line.contains(r#"error="JSON Schema validation failed: /b, /c, /d and 1 more""#), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
    app.post("/echo", "{\"a\": 1,}").await;
    let line = app.log().pop().unwrap();
    assert!(line.contains(r#"error="Invalid JSON body: trailing comma at line 1 column 9""#), "{line}");
}

#[tokio::test]
async fn a_request_with_two_hosts_or_with_another_host_in_its_target_is_400() {
    // RFC 9112, section 3.2. A request without `Host` is tested over a socket, in `connections.rs`: `TestApp` adds the
    // header where it is missing.
    let request = axum::http::Request::get("/count/1").header("host", "a").header("host", "b");
    let response = app().await.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status_line(), "400 Invalid Host Header");
    let request = axum::http::Request::get("http://evil/count/1").header("host", "good");
    let response = app().await.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status_line(), "400 Invalid Host Header");
}

#[tokio::test]
async fn too_many_headers_are_431_in_json() {
    let app = TestApp::with_routes(routes(), &[("SERVER__HTTP__MAX_HEADERS", "8")]).await;
    let mut request = axum::http::Request::get("/count/1");
    for number in 0..9 {
        request = request.header(format!("x-{number}"), "1");
    }
    let response = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status_line(), "431 Request Header Fields Too Large");
    assert_eq!(response.json()["code"], 431);
}

//! Each request gets exactly one log line, whatever happens to it.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Method, Request};
use axum::response::IntoResponse;
use futures_util::stream;
use platform::http::{Context, Route, Routes};
use platform::services::Services;

use platform::testing::{TestApp, until};

async fn adds_fields(context: Context) {
    context.log("task_id", "t 1");
    context.log("items", "a\nb=c");
    context.log("count", 3);
}

async fn streamed() -> Body {
    Body::from_stream(stream::iter(["ab", "cd"].map(Ok::<_, std::io::Error>)))
}

async fn declared() -> impl IntoResponse {
    ([(CONTENT_LENGTH, "4")], streamed().await)
}

async fn slow() {
    tokio::time::sleep(Duration::from_hours(1)).await;
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/fields/{id}").get(adds_fields))
        .route(Route::at("/streamed").get(streamed))
        .route(Route::at("/declared").get(declared))
        .route(Route::at("/slow").get(slow))
}

async fn app() -> TestApp {
    TestApp::with_routes(routes(), &[]).await
}

#[tokio::test]
async fn the_line_has_the_request_the_response_and_the_fields_that_the_handler_added() {
    let app = app().await;
    app.call(Method::GET, "/fields/7?secret=1", &[("x-request-id", "r1")], Body::empty()).await;
    let [line] = &app.log()[..] else { panic!("{:?}", app.log()) };
    for part in [
        "level=info",
        "logger=server.access",
        "request_id=r1",
        "method=GET",
        "route=/fields/{id}",
        "path=/fields/7",
        "status=200",
        "bytes=0",
        "duration_ms=",
        "task_id=\"t 1\"",
        "count=3",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains("secret"), "a query may contain secrets: {line}");
    assert!(!line.contains(" b=c"), "a value must not look like a field: {line}");
}

#[tokio::test]
async fn the_level_follows_the_status() {
    let app = app().await;
    app.get("/nowhere").await;
    let line = app.log().pop().unwrap();
    assert!(line.contains("level=warn") && line.contains("error=\"Unknown Endpoint\""), "{line}");
}

#[tokio::test]
async fn a_streamed_response_is_logged_at_its_end_with_its_bytes() {
    let app = app().await;
    assert_eq!(app.get("/streamed").await.body, "abcd");
    let [line] = &app.log()[..] else { panic!("{:?}", app.log()) };
    assert!(line.contains("bytes=4") && !line.contains("aborted"), "{line}");
}

#[tokio::test]
async fn a_body_of_a_declared_length_that_was_sent_is_not_aborted() {
    // hyper stops polling the body at its last byte, and never sees its end.
    let app = app().await;
    let address = app.listen().await.0;
    let body = reqwest::get(format!("http://{address}/declared")).await.unwrap().text().await.unwrap();
    assert_eq!(body, "abcd");
    let log = wait_for_line(&app).await;
    assert!(log.contains("bytes=4") && !log.contains("aborted"), "{log}");
}

/// The client may have the response before its line is written.
async fn wait_for_line(app: &TestApp) -> String {
    until(|| !app.log().is_empty()).await;
    app.log().pop().unwrap()
}

/// The future is copied several times on its way to hyper. When it contained the request, it had 3,250 bytes.
#[tokio::test]
async fn the_future_of_a_response_is_small() {
    let app = app().await;
    let future = app.stack().respond(None, Request::default());
    assert!(size_of_val(&future) <= 1_024, "{}", size_of_val(&future));
}

#[tokio::test]
async fn a_request_whose_client_goes_away_is_logged_as_499() {
    let app = app().await;
    let request = Request::get("/slow").header("host", "localhost").body(Body::empty()).unwrap();
    let future = app.stack().respond(None, request);
    assert!(tokio::time::timeout(Duration::from_millis(20), future).await.is_err());
    let [line] = &app.log()[..] else { panic!("{:?}", app.log()) };
    assert!(line.contains("status=499") && line.contains("aborted=true"), "{line}");
}

#[tokio::test]
async fn a_stream_that_is_not_read_to_its_end_is_logged_as_aborted() {
    let app = app().await;
    let request = Request::get("/streamed").header("host", "localhost").body(Body::empty()).unwrap();
    drop(app.stack().respond(None, request).await);
    let [line] = &app.log()[..] else { panic!("{:?}", app.log()) };
    assert!(line.contains("status=200") && line.contains("aborted=true"), "{line}");
}

#[tokio::test]
async fn a_path_cannot_start_a_second_log_line_or_control_a_terminal() {
    let app = app().await;
    for path in ["/a%0D%0Alevel=error", "/a%1b[31m", "/a%00", "/a=b%22", "/%ff%fe"] {
        app.get(path).await;
    }
    let log = app.log();
    assert_eq!(log.len(), 5);
    assert!(log.iter().all(|line| !line.chars().any(char::is_control)), "{log:?}");
}

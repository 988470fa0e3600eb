//! What a call takes from the request that is being handled, and from the configuration.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Method;
use platform::connector::{Cause, Upstream};
use platform::error::Result;
use platform::http::{ConnectorTo, Route, Routes};
use platform::services::Services;
use platform::testing::TestApp;

use super::script::{Act, Scripted, ok, status};
use super::{Backend, app_with};

async fn relay(backend: ConnectorTo<Backend>) -> Result<String> {
    let response = backend.get("/x").send().await?;
    Ok(String::from_utf8_lossy(response.bytes()).into_owned())
}

fn routes() -> Routes<Services> {
    let short = Route::at("/short").get(relay).timeout(Duration::from_secs(1));
    Routes::new().upstream::<Backend>().route(Route::at("/relay").get(relay)).route(short)
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_call_carries_the_id_the_trace_and_the_time_of_the_request() {
    let upstream = Scripted::start(&[ok("fine")]).await;
    let app = app_with(&upstream.url(), &[], routes()).await;
    let headers = [
        ("x-request-id", "abc-1"),
        ("traceparent", TRACE),
        ("tracestate", "a=b"),
        ("authorization", "Bearer of-the-caller"),
        ("cookie", "session=1"),
    ];
    let response = app.call(Method::GET, "/relay", &headers, Body::empty()).await;
    assert_eq!((response.status.as_u16(), &response.body[..]), (200, &b"fine"[..]));
    app.get("/short").await;
    let heads = upstream.heads();
    for line in
        ["x-request-id: abc-1", &format!("traceparent: {TRACE}"), "tracestate: a=b", "user-agent: test"]
    {
        assert!(heads[0].contains(&format!("\r\n{line}\r\n")), "{}", heads[0]);
    }
    // What is for this service only is not passed on.
    assert!(!heads[0].contains("of-the-caller") && !heads[0].contains("cookie"), "{}", heads[0]);
    // A request without a trace begins one with its own id.
    let begun = |head: &str| {
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        assert_eq!(value("traceparent: ")[3..35], value("x-request-id: "), "{head}");
        assert!(!head.contains("tracestate"), "{head}");
    };
    begun(&heads[1]);
    let time = |head: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix("x-request-timeout-ms: "));
        line.unwrap().parse::<u64>().unwrap()
    };
    // The attempt timeout, and what is left of the request's own time.
    assert!((2_000..=3_000).contains(&time(&heads[0])), "{}", heads[0]);
    assert!((1..=1_000).contains(&time(&heads[1])), "{}", heads[1]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-zzzzzzzzzzzzzzzz-01";
    app.call(Method::GET, "/relay", &[("traceparent", trace)], Body::empty()).await;
    begun(&upstream.heads()[2]);
    // What the caller waits for is less than all of them.
    app.call(Method::GET, "/relay", &[("x-request-timeout-ms", "900")], Body::empty()).await;
    assert!((1..=900).contains(&time(&upstream.heads()[3])), "{}", upstream.heads()[3]);
}

#[tokio::test]
async fn a_call_ends_before_the_time_of_the_request_and_its_handler_still_responds() {
    let upstream = Scripted::start(&[Act::Stall(vec![])]).await;
    let app = app_with(&upstream.url(), &[], routes()).await;
    let response = app.get("/short").await;
    // The control is in the status: the middleware would say 503.
    assert_eq!(response.status_line(), "504 Gateway Timeout");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn the_line_of_the_request_counts_its_calls() {
    let upstream = Scripted::start(&[status(503), status(503), ok("fine")]).await;
    let app = app_with(&upstream.url(), &[], routes()).await;
    app.get("/relay").await;
    app.get("/nowhere").await;
    let lines = app.log();
    assert!(lines[0].contains(" out_n=1 out_ms=") && lines[0].contains(" out_retries=2"), "{}", lines[0]);
    assert!(!lines[1].contains("out_"), "{}", lines[1]);
}

#[tokio::test]
async fn the_path_is_appended_to_that_of_the_upstream_and_cannot_leave_it() {
    let upstream = Scripted::start(&[ok("fine")]).await;
    let app = app_with(&format!("{}/v1/", upstream.url()), &[], Routes::new()).await;
    let connector = app.services().connector("backend").unwrap();
    connector.get("/users").segment("a/..b?c#d").query("q", "a&b").send().await.unwrap();
    connector.get("/users?a=b").send().await.unwrap();
    let heads = upstream.heads();
    assert!(heads[0].starts_with("get /v1/users/a%2f..b%3fc%23d?q=a%26b http/1.1\r\n"), "{}", heads[0]);
    assert!(heads[1].starts_with("get /v1/users?a=b http/1.1\r\n"), "{}", heads[1]);
    for path in
        ["", "users", "/../admin", "/%2e%2e/admin", "/a/..\\../../admin", "/..%2fadmin", "http://other/"]
    {
        let error = connector.get(path).send().await.unwrap_err();
        assert_eq!(error.cause(), Cause::InvalidCall, "{path}");
    }
    for elsewhere in ["..", ".", ".\t.", "\n..", ".\r", "\t", "../admin", "a/..", "..\\admin", "..;x"] {
        let error = connector.get("/users").segment(elsewhere).send().await.unwrap_err();
        assert_eq!(error.cause(), Cause::InvalidCall, "{elsewhere:?}");
    }
    let error = connector.get("/users").header("x", "a\r\nb: c").send().await.unwrap_err();
    assert_eq!(error.cause(), Cause::InvalidCall);
    assert_eq!(upstream.count(), 2);
}

struct Missing;

impl Upstream for Missing {
    const NAME: &'static str = "missing";
}

#[tokio::test]
async fn an_upstream_that_the_configuration_does_not_have_is_an_error() {
    let app = app_with("http://h", &[], Routes::new()).await;
    let error = app.services().connector(Missing::NAME).err().unwrap();
    let message = "upstreams.missing: is missing in the configuration; there are: backend";
    assert_eq!((error.to_string().as_str(), error.exit_code), (message, 2));
    // With `Routes::upstream` the app does not open.
    let opened = tokio::spawn(TestApp::with_routes(Routes::new().upstream::<Missing>(), &[])).await;
    assert!(opened.is_err());
}

#[tokio::test]
async fn a_url_of_a_user_reaches_public_addresses_only() {
    let upstream = Scripted::start(&[ok("secret")]).await;
    let app = app_with(&upstream.url(), &[], Routes::new()).await;
    let public = app.services().public_connector();
    let port = upstream.port;
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0:{port}/"),
        "file:///etc/passwd".to_owned(),
        "no url".to_owned(),
    ] {
        let error = public.get(&url).send().await.unwrap_err();
        assert_eq!(error.cause(), Cause::NotPublic, "{url}: {error}");
        let error = platform::error::Error::from(error);
        assert_eq!((error.status(), error.reason()), (400, "Address Not Allowed"));
    }
    assert_eq!(upstream.count(), 0);
    // The control: the way to the configured upstream.
    app.services().connector("backend").unwrap().get("/").send().await.unwrap();
}

#[tokio::test]
async fn upstreams_are_checked_at_once_each_within_its_time() {
    let upstream = Scripted::start(&[Act::Stall(vec![])]).await;
    let app = app_with(&upstream.url(), &[], Routes::new()).await;
    let started = Instant::now();
    let checked = app.services().check_upstreams().await;
    // Less than `health.timeout` would be a cause of its own, and the attempts of a call take longer.
    assert!(started.elapsed() < Duration::from_secs(5));
    let up: Vec<_> = checked.iter().map(|(name, result)| (name.as_str(), result.is_ok())).collect();
    assert_eq!(up, [("backend", false)]);
}

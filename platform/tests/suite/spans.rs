//! Spans of requests, as a collector receives them: OTLP in protobuf over HTTP.
//!
//! The messages are read by the bytes of their fields, as <https://protobuf.dev/programming-guides/encoding/> and
//! `opentelemetry/proto/trace/v1/trace.proto` have them, so that no code is shared with what writes them.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::{get, post};
use bytes::Bytes;
use platform::error::{Error, Result};
use platform::http::{ConnectorTo, Path, Route, Routes};
use platform::services::Services;
use platform::testing::{TestApp, until};

struct Called;

impl platform::connector::Upstream for Called {
    const NAME: &'static str = "called";
}

/// A collector, which is also the service that is called.
struct Collector {
    port: u16,
    /// The spans that were received, joined, and the headers of the last request with some.
    spans: Arc<Mutex<Vec<u8>>>,
    headers: Arc<Mutex<HeaderMap>>,
    /// The `traceparent` of the last call.
    called: Arc<Mutex<String>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans: Arc<Mutex<Vec<u8>>> = Arc::default();
        let headers: Arc<Mutex<HeaderMap>> = Arc::default();
        let called: Arc<Mutex<String>> = Arc::default();
        let (kept, of, seen) = (Arc::clone(&spans), Arc::clone(&headers), Arc::clone(&called));
        let take = async move |headers: HeaderMap, body: Bytes| {
            of.lock().unwrap().clone_from(&headers);
            kept.lock().unwrap().extend_from_slice(&body);
            StatusCode::OK
        };
        let call = async move |request: Request| {
            let parent = request.headers()["traceparent"].to_str().unwrap().to_owned();
            *seen.lock().unwrap() = parent;
        };
        let router = axum::Router::new().route("/v1/traces", post(take)).route("/called", get(call));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, spans, headers, called }
    }

    /// Whether some span has these bytes.
    fn has(&self, bytes: &[u8]) -> bool {
        let spans = self.spans.lock().unwrap();
        spans.windows(bytes.len()).any(|window| window == bytes)
    }

    fn is_empty(&self) -> bool {
        self.spans.lock().unwrap().is_empty()
    }
}

/// A field of a message with this number, whose value has a length.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

/// An attribute with a text, as field 9 of a span.
fn attribute(key: &str, value: &str) -> Vec<u8> {
    let value = field(2, &field(1, value.as_bytes()));
    field(9, &[field(1, key.as_bytes()), value].concat())
}

const TRACE: [u8; 16] = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
const CALLER: [u8; 8] = 0xb7ad_6b71_6920_3331_u64.to_be_bytes();

fn traceparent(flags: &str) -> String {
    format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}")
}

fn routes() -> Routes<Services> {
    let relay = async |called: ConnectorTo<Called>| -> Result<()> {
        called.get("/called").send().await.map_err(Error::from)?;
        Ok(())
    };
    let fail = async || -> Result<()> { Err(Error::internal("on purpose")) };
    Routes::new()
        .upstream::<Called>()
        .route(Route::at("/relay").get(relay))
        .route(Route::at("/things/{id}").get(async |Path(id): Path<String>| id))
        .route(Route::at("/fail").get(fail))
        .route(Route::at("/quiet").get(async || "").unlogged())
}

async fn app(port: u16, settings: &[(&str, &str)]) -> TestApp {
    let endpoint = format!("http://127.0.0.1:{port}/v1/traces");
    let upstream = format!("http://127.0.0.1:{port}");
    let own = [
        ("SERVER__TRACES__ENDPOINT", endpoint.as_str()),
        ("SERVER__TRACES__DELAY", "5ms"),
        ("SERVER__UPSTREAMS__CALLED__URL", upstream.as_str()),
    ];
    TestApp::with_routes(routes(), &[&own, settings].concat()).await
}

async fn get_in(app: &TestApp, path: &str, traceparent: &str) {
    app.call(Method::GET, path, &[("traceparent", traceparent)], Body::empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_below_that_of_its_caller_and_above_that_of_what_it_calls() {
    let collector = Collector::start().await;
    let app = app(collector.port, &[("SERVER__TRACES__HEADERS", "x-api-key=hunter2")]).await;
    get_in(&app, "/relay", &traceparent("01")).await;
    let passed = collector.called.lock().unwrap().clone();
    let (trace, span) = (&passed[3..35], u64::from_str_radix(&passed[36..52], 16).unwrap());
    assert_eq!((trace, &passed[52..]), ("0af7651916cd43dd8448eb211c80319c", "-01"));
    until(|| collector.has(&field(5, b"GET /relay"))).await;
    // Trace and span; the parent; kind 2, a server.
    assert!(collector.has(&[field(1, &TRACE), field(2, &span.to_be_bytes())].concat()));
    assert!(collector.has(&field(4, &CALLER)));
    assert!(collector.has(&[field(5, b"GET /relay"), vec![6 << 3, 2]].concat()));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/relay"),
        ("url.path", "/relay"),
        ("url.scheme", "http"),
    ] {
        assert!(collector.has(&attribute(key, value)), "{key}");
    }
    // The resource.
    assert!(collector.has(b"service.name") && collector.has(b"test"));
    assert_eq!(collector.headers.lock().unwrap()["x-api-key"], "hunter2");
    let line = app.log().pop().unwrap();
    assert!(line.contains("trace_id=0af7651916cd43dd8448eb211c80319c"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_has_the_template_and_an_error_is_one_of_the_server_only() {
    let collector = Collector::start().await;
    let app = app(collector.port, &[]).await;
    let error = attribute("error.type", "500");
    app.get("/things/7").await;
    app.get("/nowhere").await;
    until(|| collector.has(&attribute("url.path", "/things/7")) && collector.has(&field(5, b"GET"))).await;
    assert!(
        collector.has(&field(5, b"GET /things/{id}")) && collector.has(&attribute("url.path", "/nowhere"))
    );
    assert!(!collector.has(&error) && !collector.has(b"error.type"));
    app.get("/fail").await;
    until(|| collector.has(&field(5, b"GET /fail"))).await;
    assert!(collector.has(&error));
    // A request without a trace begins one, and its line names it.
    let line = app.log().pop().unwrap();
    let id = line.split("trace_id=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(collector.has(&field(1, &u128::from_str_radix(id, 16).unwrap().to_be_bytes())), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_caller_does_not_record_is_not_recorded_here() {
    let collector = Collector::start().await;
    let app = app(collector.port, &[("SERVER__TRACES__SAMPLE_PERCENT", "0")]).await;
    app.get("/things/own").await;
    get_in(&app, "/things/unsampled", &traceparent("00")).await;
    get_in(&app, "/quiet", &traceparent("01")).await;
    get_in(&app, "/relay", &traceparent("00")).await;
    assert!(collector.called.lock().unwrap().ends_with("-00"));
    // The control, and the last one: spans arrive in their order.
    get_in(&app, "/things/sampled", &traceparent("01")).await;
    until(|| !collector.is_empty()).await;
    assert!(collector.has(&attribute("url.path", "/things/sampled")));
    for path in ["/things/own", "/things/unsampled", "/quiet", "/relay"] {
        assert!(!collector.has(&attribute("url.path", path)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_decides_only_where_the_settings_let_it() {
    let collector = Collector::start().await;
    let settings = [("SERVER__TRACES__SAMPLE_PERCENT", "0"), ("SERVER__TRACES__CALLER_DECIDES", "false")];
    let forced = app(collector.port, &settings).await;
    get_in(&forced, "/relay", &traceparent("01")).await;
    // It stays in the trace of its caller.
    let passed = collector.called.lock().unwrap().clone();
    assert!(passed.starts_with(&traceparent("")[..36]) && passed.ends_with("-00"), "{passed}");
    forced.close().await;
    assert!(collector.is_empty());
    let settings = [("SERVER__TRACES__CALLER_DECIDES", "false")];
    let all = app(collector.port, &settings).await;
    get_in(&all, "/things/7", &traceparent("00")).await;
    all.close().await;
    assert!(collector.has(&field(1, &TRACE)) && collector.has(&field(4, &CALLER)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_at_the_end() {
    let collector = Collector::start().await;
    let app = app(collector.port, &[("SERVER__TRACES__DELAY", "60s")]).await;
    app.get("/things/last").await;
    assert!(collector.is_empty());
    app.close().await;
    assert!(collector.has(&attribute("url.path", "/things/last")));
}

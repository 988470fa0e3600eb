//! What axum users bring works here as it does on an axum router: extractors, layers, streams.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Multipart, OriginalUri};
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use platform::http::{Context, Route, Routes};
use platform::services::Services;
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimitLayer;

use platform::testing::{Connection, TestApp, client, until};

async fn app(routes: Routes<Services>) -> TestApp {
    TestApp::with_routes(routes, &[]).await
}

#[tokio::test]
async fn the_original_uri_has_its_query_on_every_path() {
    async fn whole(OriginalUri(uri): OriginalUri) -> String {
        uri.to_string()
    }
    let routes = Routes::new().route(Route::at("/plain").get(whole)).route(Route::at("/of/{id}").get(whole));
    let app = app(routes).await;
    for path in ["/plain?a=1&b", "/plain/?a", "/of/1?a=1"] {
        assert_eq!(app.get(path).await.body, path);
    }
}

#[tokio::test]
async fn a_body_of_axum_s_extractors_has_the_limit_of_the_route_alone() {
    async fn size(body: Bytes) -> String {
        body.len().to_string()
    }
    async fn upload(mut form: Multipart) -> String {
        let mut sizes = Vec::new();
        while let Some(field) = form.next_field().await.unwrap() {
            sizes.push(field.bytes().await.unwrap().len().to_string());
        }
        sizes.join(" ")
    }
    const LIMIT: u64 = 12 << 20;
    let routes = Routes::new()
        .route(Route::at("/bytes").post(size).body_limit(LIMIT))
        .route(Route::at("/upload").post(upload).body_limit(LIMIT));
    let app = app(routes).await;
    let large = "x".repeat(10 << 20);
    assert_eq!(app.post("/bytes", &large).await.body, (10 << 20).to_string());
    let too_large = app.post("/bytes", "x".repeat(13 << 20)).await;
    assert_eq!(too_large.status_line(), "413 Payload Too Large");
    let form = format!("--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{large}\r\n--b--\r\n");
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    let answer = app.call(Method::POST, "/upload", &kind, form).await;
    assert_eq!(answer.body, (10 << 20).to_string());
}

#[tokio::test]
async fn connect_info_tells_the_address_of_the_client() {
    async fn who(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
        peer.to_string()
    }
    let server = app(Routes::new().route(Route::at("/who").get(who).connect_info())).await.listen().await.0;
    client(move || {
        let mut connection = Connection::open(server);
        let own = connection.local_address().to_string();
        let answer = connection.send("GET /who HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&own), "{own}: {answer}");
    })
    .await;
}

#[tokio::test]
async fn a_response_whose_body_stalls_is_not_waited_for() {
    for declared in [None, Some("5")] {
        let stalling = async move || {
            let first = stream::iter([Ok::<_, Infallible>(Bytes::from("ab"))]);
            let body = Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()));
            let mut response = Response::new(body);
            if let Some(length) = declared {
                let body = std::mem::take(response.body_mut());
                *response.body_mut() = Body::new(Sized(body, 5));
                response.headers_mut().insert("content-length", length.parse().unwrap());
            }
            response
        };
        let server = app(Routes::new().route(Route::at("/stalls").get(stalling))).await.listen().await.0;
        client(move || {
            let mut connection = Connection::open(server);
            let head = connection.send("GET /stalls HTTP/1.1\r\nHost: a\r\n\r\n").read_head();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let piece: &[u8] = if declared.is_some() { b"ab" } else { b"2\r\nab\r\n" };
            assert_eq!(connection.read_exactly(piece.len()), piece);
        })
        .await;
    }
}

/// A stream that says its length, as a proxied response does.
struct Sized(Body, u64);

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        task: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(task)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

/// Counts the requests that are in its handler at one time, and keeps each until a permit is given.
#[derive(Clone)]
struct Crowd {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    leave: Arc<Semaphore>,
}

impl Crowd {
    fn new() -> Self {
        Self { inside: Arc::default(), most: Arc::default(), leave: Arc::new(Semaphore::new(0)) }
    }

    async fn enter(self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.leave.acquire().await.unwrap().forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// The most requests that were inside at one time when ten are sent together. None leaves before so many are.
    async fn most_of_ten(self, app: &TestApp, expected: usize) -> usize {
        let all = (0..10).map(|_| app.get("/crowd"));
        let leave = async {
            until(|| self.inside.load(Ordering::SeqCst) >= expected).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.leave.add_permits(10);
        };
        futures_util::future::join(futures_util::future::join_all(all), leave).await;
        self.most.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_layer_of_a_route_keeps_its_state_between_requests() {
    use axum::handler::Handler as _;
    let limit = ConcurrencyLimitLayer::new(1);
    let crowd = Crowd::new();
    let handler = {
        let crowd = crowd.clone();
        move || crowd.clone().enter()
    };
    let app_one = app(Routes::new().route(Route::at("/crowd").get(handler).layer(limit.clone()))).await;
    assert_eq!(crowd.most_of_ten(&app_one, 1).await, 1);
    // The control: axum builds a layer of a handler anew for each request. It cannot miss it: it waits until all are inside.
    let crowd = Crowd::new();
    let handler = {
        let crowd = crowd.clone();
        move || crowd.clone().enter()
    };
    let app_ten = app(Routes::new().route(Route::at("/crowd").get(handler.layer(limit)))).await;
    assert_eq!(crowd.most_of_ten(&app_ten, 10).await, 10);
}

#[tokio::test]
async fn the_log_and_the_context_name_the_client_behind_a_trusted_proxy_only() {
    async fn who(context: Context) -> String {
        format!("{} {}", context.client().unwrap(), context.peer().unwrap().ip())
    }
    for (proxies, client_address) in [("[127.0.0.0/8]", "203.0.113.7"), ("[10.0.0.0/8]", "127.0.0.1")] {
        let settings = [("SERVER__HTTP__TRUSTED_PROXIES", proxies)];
        let app = TestApp::with_routes(Routes::new().route(Route::at("/who").get(who)), &settings).await;
        let server = app.listen().await.0;
        client(move || {
            let request = "GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 203.0.113.7\r\n\r\n";
            let response = Connection::open(server).send(request).read_response();
            assert!(response.ends_with(&format!("{client_address} 127.0.0.1")), "{response}");
        })
        .await;
        let line = app.log().pop().unwrap();
        assert!(line.contains(&format!(" peer={client_address}")), "{line}");
    }
}

//! What a forwarded request and its response carry on, and what they do not, over both versions of HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Version};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use platform::error::Result;
use platform::http::{ConnectorTo, Route, Routes};
use platform::testing::TestApp;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::forward::{OK, Raw, exchange, proxy, read_request, routes};
use super::script::{Act, Scripted};
use super::{Backend, app_with};

#[tokio::test]
async fn what_a_layer_of_the_app_sets_stays_and_what_looks_like_it_goes() {
    let name_user = async |mut request: Request, next: Next| {
        for name in ["x-user", "x-forwarded-user"] {
            request.headers_mut().insert(name, HeaderValue::from_static("ada"));
        }
        next.run(request).await
    };
    let upstream = Raw::start(&[OK]).await;
    let app = app_with(&upstream.url(), &[], routes().layer(from_fn(name_user))).await;
    let server = app.listen().await.0;
    let request = "GET /proxy/a HTTP/1.1\r\nConnection: x-user, x-hop, X-Forwarded-User\r\nX-Hop: 1\r\nX_User: eve\r\n\
                   X_Forwarded_For: 127.0.0.1\r\nX_Real_IP: 127.0.0.1\r\nX-Forwarded_Host: evil\r\n\
                   X_Request_Timeout_Ms: 1\r\nX_Other: 1\r\n\r\n";
    exchange(server, request).await;
    let got = upstream.requests().pop().unwrap();
    for line in ["x-user: ada", "x-forwarded-user: ada", "x_other: 1"] {
        assert!(got.contains(&format!("\r\n{line}\r\n")), "{line} in {got}");
    }
    for name in ["x-hop", "x_user", "x_forwarded", "x_real", "x_request", "x-forwarded_host", "eve", "evil"] {
        assert!(!got.contains(name), "{name} in {got}");
    }
}

#[tokio::test]
async fn a_response_that_is_damaged_is_502_and_no_200() {
    let ok = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
    for (response, status) in [
        (ok("content-length: 5"), 502),
        (ok("transfer-encoding: gzip, chunked") + "1\r\na\r\n0\r\n\r\n", 502),
        (ok("transfer-encoding: chunked, chunked") + "1\r\na\r\n0\r\n\r\n", 502),
        (ok("transfer-encoding: gzip") + "a", 502),
        (ok("content-length: 2, 3") + "ok", 502),
        // RFC 9110, section 8.6: the same length several times is one.
        (ok("content-length: 2, 2") + "ok", 200),
        (ok("content-length: 2\r\ncontent-length: 2") + "ok", 200),
    ] {
        let upstream = Scripted::start(&[Act::Send(response.clone().into_bytes())]).await;
        let (_app, server) = proxy(&upstream.url(), &[]).await;
        let got = exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{response}: {got}");
        if status == 200 {
            assert!(got.contains("\r\ncontent-length: 2\r\n") && got.ends_with("\r\n\r\nok"), "{got}");
        }
    }
    // Nothing says how long this one is, so its head has gone out: the client can tell that it is not complete.
    let chunked = ok("transfer-encoding: chunked").into_bytes();
    let upstream = Scripted::start(&[Act::Send(chunked)]).await;
    let (_app, server) = proxy(&upstream.url(), &[]).await;
    let got = exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\n"), "{got}");
    assert!(!got.ends_with("0\r\n\r\n"), "{got}");
}

/// Status, headers, body and trailers of a response over HTTP/2.
async fn over_http2(server: SocketAddr, method: &str, path: &str) -> (u16, HeaderMap, String, HeaderMap) {
    let stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(format!("http://a{path}")).version(Version::HTTP_2);
    let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    (head.status.as_u16(), head.headers, body, trailers)
}

async fn pass(backend: ConnectorTo<Backend>, request: Request) -> Result<Response> {
    backend.forward(request, "/own").await
}

#[tokio::test]
async fn a_response_of_http_1_is_one_of_http_2() {
    let upstream = Raw::start(&[
        "HTTP/1.1 200 OK\r\ntrailer: x-sum, connection, content-length\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\
         connection: close\r\ncontent-length: 9\r\nx-sum: 7\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
        OK,
        "HTTP/1.1 200 OK\r\ntrailer: x-sum, connection\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\
         connection: close\r\nx-sum: 7\r\n\r\n",
    ])
    .await;
    let get = Route::at("/own/{*path}").get(pass).as_sent();
    let app = app_with(&upstream.url(), &[], routes().merge(Routes::new().route(get))).await;
    let server = app.listen().await.0;
    let (status, _, body, trailers) = over_http2(server, "GET", "/proxy/a").await;
    assert_eq!((status, &*body), (200, "a"));
    assert_eq!(trailers, HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]));
    let (status, headers, body, _) = over_http2(server, "GET", "/proxy/a").await;
    assert_eq!((status, &*body, headers.contains_key("content-length")), (204, "", false), "{headers:?}");
    // A handler of GET is asked, so the upstream sends a body.
    let (status, headers, body, _) = over_http2(server, "HEAD", "/own/a").await;
    assert_eq!((status, &*body, &headers["content-length"]), (200, "", &HeaderValue::from_static("2")));
    let response = exchange(server, "GET /proxy/a HTTP/1.1\r\nTE: trailers\r\n\r\n").await;
    assert!(response.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn an_upstream_may_think_for_longer_than_a_call_and_send_many_headers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_app, server) = proxy(&url, &[("ATTEMPT_TIMEOUT", "50ms")]).await;
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        read_request(&mut stream).await.unwrap();
        let head = "x: y\r\n".repeat(150);
        for text in [&format!("HTTP/1.1 200 OK\r\n{head}transfer-encoding: chunked\r\n\r\n"), "0\r\n\r\n"] {
            // Long polling, and then events: longer is as good.
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    let response = exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("0\r\n\r\n"), "{response}");
    assert_eq!(response.matches("\r\nx: y").count(), 150, "{response}");
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_trace_that_is_broken_is_not_continued_in_any_header() {
    let upstream = Raw::start(&[OK]).await;
    let (_app, server) = proxy(&upstream.url(), &[]).await;
    for (lines, continued) in [
        (format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"), true),
        (format!("traceparent: {PARENT}-extra\r\ntracestate: a=1\r\n"), false),
        (format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\n"), false),
        ("tracestate: a=1\r\n".to_owned(), false),
    ] {
        exchange(server, format!("GET /proxy/a HTTP/1.1\r\n{lines}\r\n")).await;
        let got = upstream.requests().pop().unwrap();
        assert_eq!(got.matches("\r\ntraceparent: 00-").count(), 1, "{got}");
        let found = [&PARENT[..35], "tracestate"].map(|text| got.contains(text));
        assert_eq!(found, [continued; 2], "{lines}: {got}");
    }
}

#[tokio::test]
async fn a_forwarding_route_may_be_in_a_group_and_its_upstream_must_be_configured() {
    let upstream = Raw::start(&[OK]).await;
    let app =
        app_with(&upstream.url(), &[("FORWARD__KEEP_HOST", "true")], Routes::new().nest("/in", routes()))
            .await;
    let server = app.listen().await.0;
    exchange(server, "GET /in/proxy/a HTTP/1.1\r\n\r\n").await;
    over_http2(server, "GET", "/in/proxy").await;
    let got = upstream.requests();
    assert!(
        got[0].starts_with("GET /v1/a HTTP/1.1\r\n") && got[1].starts_with("GET /v1/ HTTP/1.1\r\n"),
        "{got:?}"
    );
    assert!(got[0].contains("\r\nx-forwarded-prefix: /in/proxy\r\n"), "{got:?}");
    assert!(got[0].contains("\r\nhost: front.example\r\n") && got[1].contains("\r\nhost: a\r\n"), "{got:?}");
    let opened = tokio::spawn(TestApp::with_routes(routes(), &[])).await;
    assert!(opened.is_err());
}

#[tokio::test]
async fn a_handler_forwards_only_what_has_come_as_it_was_sent() {
    let upstream = Raw::start(&[OK]).await;
    let routes = |route: Route<_>| Routes::new().upstream::<Backend>().route(route);
    for (route, status) in
        [(Route::at("/own/{*path}").any(pass), 500), (Route::at("/own/{*path}").any(pass).as_sent(), 200)]
    {
        let app = app_with(&upstream.url(), &[], routes(route)).await;
        assert_eq!(app.get("/own/a").await.status, status);
    }
}

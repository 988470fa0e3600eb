//! HTTP/1.1 and HTTP/2 have the same rules and limits: each request is sent over both, through a socket.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue, Request, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use platform::http::{Route, Routes};
use platform::services::Services;
use platform::testing::{Connection, TestApp, client};

use crate::handlers::length;

fn routes() -> Routes<Services> {
    let cookie = async |headers: HeaderMap| {
        let lines: Vec<_> =
            headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
        lines.join("\n")
    };
    Routes::new()
        .route(Route::at("/form").post(async || "done"))
        .route(Route::at("/cookie").get(cookie))
        .route(Route::at("/length").post(length))
        .merge(platform::http::health::routes())
}

/// Method, scheme and authority, path, other headers.
type Sent = (&'static str, &'static str, String, Vec<(&'static str, String)>);

fn sent(method: &'static str, path: &str, headers: &[(&'static str, &str)]) -> Sent {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    (method, "http://good.example", path.to_owned(), headers)
}

/// The status over HTTP/1.1: with the host in `Host`, and with the whole URL in the request line.
fn over_http1(server: SocketAddr, sent: &Sent, whole: bool) -> u16 {
    let (method, origin, path, headers) = sent;
    let host = origin.split_once("://").unwrap().1;
    let named = headers.iter().any(|(name, _)| *name == "host");
    let mut head = if whole {
        format!("{method} {origin}{path} HTTP/1.1\r\n")
    } else {
        format!("{method} {path} HTTP/1.1\r\n")
    };
    if !named {
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        head.extend(["Host: ", host, "\r\n"]);
    }
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let mut connection = Connection::open(server);
    connection.try_send(head + "\r\n");
    connection.read_response()[9..12].parse().unwrap()
}

async fn over_http2(server: SocketAddr, (method, origin, path, headers): &Sent) -> (u16, String) {
    let stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request =
        Request::builder().method(*method).uri(format!("{origin}{path}")).version(Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(Body::new(body), 1 << 20).await.unwrap();
    (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_request_has_the_same_status_over_both() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let server = app.listen().await.0;
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    let large = "x".repeat(20_000);
    let many: Vec<(&str, &str)> = (0..70).map(|_| ("x", "y")).collect();
    let mut wrong = Vec::new();
    for (expected, request) in [
        // Cross-site requests (the first is the control).
        (200, sent("POST", "/form", &[])),
        (200, sent("POST", "/form", &[("origin", "http://good.example")])),
        (200, sent("POST", "/form", &[("origin", "https://good.example")])),
        (200, sent("POST", "/form", &[("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")])),
        (403, sent("POST", "/form", &[("origin", "http://evil.example")])),
        (403, sent("POST", "/form", &[("origin", "http://good.example:81")])),
        (403, sent("POST", "/form", &[("origin", "null")])),
        // Too long.
        (404, sent("GET", &path(30_000), &[])),
        (414, sent("GET", &path(33_000), &[])),
        (414, sent("GET", &path(40_000), &[])),
        (414, sent("GET", &path(60_000), &[])),
        (414, sent("POST", &("/length?".to_owned() + &"q".repeat(40_000)), &[])),
        (431, sent("GET", &path(20_000), &[("x", &large)])),
        (431, sent("GET", "/ping", &[("x", &large), ("z", &large)])),
        (200, sent("GET", "/ping", &[("x", &large)])),
        (431, sent("GET", "/ping", &many)),
        // Hosts.
        (200, sent("GET", "/ping", &[("host", "Good.Example")])),
        (200, sent("GET", "/ping", &[("host", "good.example:80")])),
        (404, sent("GET", "/nowhere", &[])),
        (405, sent("PUT", "/length", &[])),
    ] {
        let (two, _) = over_http2(server, &request).await;
        let one = {
            let request = request.clone();
            client(move || [false, true].map(|whole| over_http1(server, &request, whole))).await
        };
        if [one[0], one[1], two] != [expected; 3] {
            let (method, _, path, headers) = &request;
            wrong.push(format!("{method} {path:.20} {headers:.60?}: {one:?} and {two}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_host_other_than_that_of_the_target_is_refused_over_both() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let server = app.listen().await.0;
    for (host, expected) in
        [("good.example", 200), ("evil.example", 400), ("good.example:81", 400), ("", 400), ("a/b", 400)]
    {
        let request = sent("GET", "/ping", &[("host", host)]);
        assert_eq!(over_http2(server, &request).await.0, expected, "{host:?}");
        let one = client(move || over_http1(server, &request, true)).await;
        assert_eq!(one, expected, "{host:?}");
    }
    // Two, and none.
    let request = sent("GET", "/ping", &[("host", "good.example"), ("host", "good.example")]);
    assert_eq!(over_http2(server, &request).await.0, 400);
    let mut bare = Request::get("/ping").version(Version::HTTP_2).body(Body::empty()).unwrap();
    assert_eq!(app.stack().respond(None, bare).await.status(), 400);
    bare = Request::get("/ping").version(Version::HTTP_2).header("host", "a").body(Body::empty()).unwrap();
    assert_eq!(app.stack().respond(None, bare).await.status(), 200);
}

#[tokio::test]
async fn the_user_in_a_target_is_no_host() {
    let environment = [("SERVER__HTTP__ALLOWED_HOSTS", "[good.example]")];
    let app = TestApp::with_routes(routes(), &environment).await;
    let server = app.listen().await.0;
    let ask = async |target: &'static str, host: &'static str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client(move || Connection::open(server).send(head).read_response()[9..12].parse::<u16>().unwrap())
            .await
    };
    assert_eq!(ask("http://user:pw@good.example/cookie", "good.example").await, 200);
    assert_eq!(ask("http://user@good.example:80/cookie", "good.example").await, 200);
    assert_eq!(ask("http://good.example/cookie", "user@good.example").await, 400);
    // What looks like an allowed host is a user.
    assert_eq!(ask("http://good.example:x@evil.example/cookie", "evil.example").await, 421);
    assert_eq!(ask("http://good.example@evil.example/cookie", "good.example").await, 400);
    // RFC 9113, section 8.3.1: in HTTP/2 there is none.
    let mut request = sent("GET", "/cookie", &[]);
    request.1 = "http://user@good.example";
    let stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://user@good.example/cookie").body(Body::empty()).unwrap();
    match sender.send_request(request).await {
        Ok(response) => assert_eq!(response.status(), 400),
        Err(error) => assert!(error.to_string().contains("stream"), "{error}"),
    }
}

#[tokio::test]
async fn cookies_that_http_2_has_split_are_one_line_for_the_handler() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let server = app.listen().await.0;
    let pairs: Vec<String> = (0..70).map(|number| format!("name{number}=value")).collect();
    let split: Vec<(&str, &str)> = pairs.iter().map(|pair| ("cookie", pair.as_str())).collect();
    let (status, seen) = over_http2(server, &sent("GET", "/cookie", &split)).await;
    assert_eq!((status, seen), (200, pairs.join("; ")));
    // One, and none, are as they were.
    let (_, seen) = over_http2(server, &sent("GET", "/cookie", &[("cookie", "a=b; c=d")])).await;
    assert_eq!(seen, "a=b; c=d");
    let (_, seen) = over_http2(server, &sent("GET", "/cookie", &[])).await;
    assert_eq!(seen, "");
    // RFC 9113, section 8.2.3, is about HTTP/2 only: what HTTP/1.1 says in two lines stays so.
    let mut request = Request::get("/cookie").header(COOKIE, "a=b").body(Body::empty()).unwrap();
    request.headers_mut().append(COOKIE, HeaderValue::from_static("c=d"));
    assert_eq!(app.send(request).await.body, "a=b\nc=d");
}

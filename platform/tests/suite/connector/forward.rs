//! Requests that are forwarded, between a client and an upstream that both write raw bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use platform::http::{Route, Routes, WebSocketUpgrade};
use platform::services::Services;
use platform::testing::{Connection, TestApp, client, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::{Backend, app_with};

pub fn routes() -> Routes<Services> {
    Routes::new().route(Route::forward::<Backend>("/proxy"))
}

/// An upstream that gives these responses one after the other, each to one request, on any connection. An empty one closes
/// the connection instead.
pub struct Raw {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    pub async fn start(responses: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let responses: Vec<String> = responses.iter().map(ToString::to_string).collect();
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, responses) = (Arc::clone(&kept), responses.clone());
                tokio::spawn(async move {
                    while let Some(request) = read_request(&mut stream).await {
                        let response = {
                            let mut kept = kept.lock().unwrap();
                            kept.push(request);
                            responses[(kept.len() - 1).min(responses.len() - 1)].clone()
                        };
                        if response.is_empty() || stream.write_all(response.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, requests }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A request with its body, by the framing that its head has.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut end = None;
    loop {
        bytes.push(stream.read_u8().await.ok()?);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if end.is_none() && text.ends_with("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            end = Some(if text.contains("transfer-encoding: chunked") {
                usize::MAX
            } else {
                bytes.len() + length
            });
        }
        // With trailers or without.
        let chunked_end = end == Some(usize::MAX) && text.contains("\r\n0\r\n") && text.ends_with("\r\n\r\n");
        if chunked_end || end == Some(bytes.len()) {
            return Some(text);
        }
    }
}

pub async fn proxy(url: &str, settings: &[(&str, &str)]) -> (TestApp, SocketAddr) {
    let app = app_with(url, settings, routes()).await;
    let address = app.listen().await.0;
    (app, address)
}

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends a request, and reads to the end of the connection.
pub async fn exchange(server: SocketAddr, request: impl Into<String>) -> String {
    let request = request.into();
    let sent = request.replacen("\r\n", "\r\nHost: front.example\r\nConnection: close\r\n", 1);
    tokio::task::spawn_blocking(move || Connection::open(server).send(sent).read_to_end()).await.unwrap()
}

#[tokio::test]
async fn path_and_query_are_passed_byte_for_byte_below_the_url_of_the_upstream() {
    let upstream = Raw::start(&[OK]).await;
    let (_app, server) = proxy(&upstream.url(), &[]).await;
    for rest in ["/a", "/a%2Fb//c/./d/?x=%20&y='|&z=a+b?", "/%C3%A4;v=1?", "/?a=../..", "/a?%2e%2e/"] {
        let response = exchange(server, format!("GET /proxy{rest} HTTP/1.1\r\n\r\n")).await;
        assert!(
            response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok"),
            "{response}"
        );
        let request = upstream.requests().pop().unwrap();
        assert!(request.starts_with(&format!("GET /v1{rest} HTTP/1.1\r\n")), "{request}");
    }
    for (root, rest) in [("", "/"), ("?x=/a", "/?x=/a"), ("/", "/")] {
        exchange(server, format!("GET /proxy{root} HTTP/1.1\r\n\r\n")).await;
        let request = upstream.requests().pop().unwrap();
        assert!(request.starts_with(&format!("GET /v1{rest} HTTP/1.1\r\n")), "{request}");
    }
    let sent = upstream.requests().len();
    for path in ["/../admin", "/a/%2e%2E/b", "/..%2fadmin", "/..;x/admin", "/a/..\\b"] {
        let response = exchange(server, format!("GET /proxy{path} HTTP/1.1\r\n\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{path}: {response}");
    }
    let response = exchange(server, "TRACE /proxy/a HTTP/1.1\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
    assert_eq!(upstream.requests().len(), sent);
}

#[tokio::test]
async fn the_upstream_gets_the_headers_of_the_request_without_those_of_the_connection() {
    let upstream = Raw::start(&[OK]).await;
    let (_app, server) = proxy(&upstream.url(), &[]).await;
    let request = "GET /proxy/a HTTP/1.1\r\nConnection: X-Hop, Upgrade, Keep-Alive, Via, X-Forwarded-For, X-Forwarded-Host\r\nX-Hop: 1\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\n\
                   Authorization: Bearer t\r\nCookie: a=1\r\nAccept-Encoding: gzip\r\nX-Request-Id: abc\r\n\
                   X-Forwarded-For: 1.1.1.1\r\ntracestate: a=1\r\ntracestate: b=2\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                   X-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=1.1.1.1\r\n\
                   X-Real-IP: 1.1.1.1\r\n\r\n";
    exchange(server, request).await;
    let got = upstream.requests().pop().unwrap();
    for line in [
        format!("host: 127.0.0.1:{}", upstream.port),
        "authorization: Bearer t".to_owned(),
        "cookie: a=1".to_owned(),
        "accept-encoding: gzip".to_owned(),
        "x-request-id: abc".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        "x-forwarded-prefix: /proxy".to_owned(),
        "x-forwarded-host: front.example".to_owned(),
        "via: 1.1 server".to_owned(),
        "tracestate: a=1, b=2".to_owned(),
    ] {
        assert!(got.contains(&format!("\r\n{line}\r\n")), "{line} in {got}");
    }
    for name in [
        "connection",
        "x-hop",
        "upgrade",
        "http2-settings",
        "te",
        "proxy-",
        "x-forwarded-prefix: /evil",
        "forwarded",
        "x-real-ip",
    ] {
        assert!(!got.contains(&format!("\r\n{name}")), "{name} in {got}");
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_says_about_its_client_is_kept_and_added_to() {
    let upstream = Raw::start(&[OK]).await;
    let variables = [
        ("SERVER__UPSTREAMS__BACKEND__URL", &*upstream.url()),
        ("SERVER__HTTP__TRUSTED_PROXIES", "[127.0.0.1]"),
    ];
    let app = TestApp::with_routes(routes(), &variables).await;
    let server = app.listen().await.0;
    let request = "GET /proxy/a HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\
                   X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Prefix: /shop/\r\n\r\n";
    exchange(server, request).await;
    let got = upstream.requests().pop().unwrap();
    for line in [
        "x-forwarded-for: 192.0.2.1, 192.0.2.2, 127.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example",
        "x-forwarded-prefix: /shop/proxy",
    ] {
        assert!(got.contains(&format!("\r\n{line}\r\n")), "{line} in {got}");
    }
}

#[tokio::test]
async fn a_response_comes_back_as_it_was_made() {
    let html = "<p>not here</p>".repeat(200);
    let not_found = format!(
        "HTTP/1.1 404 Gone Fishing\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{html}",
        html.len()
    );
    let big = "x".repeat(5_000);
    let plain = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5000\r\n\r\n{big}");
    let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}");
    for (method, response, has, has_not) in [
        // No reader of the encoding, and no compression by this server.
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
            &["content-encoding: gzip", "content-length: 3", "\r\n\r\nabc"][..],
            &["etag"][..],
        ),
        ("GET", &plain, &["content-length: 5000", "xxxx"], &["etag", "content-encoding", "vary"]),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2; Path=/\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
            content-length: 0\r\n\r\n",
            &["set-cookie: a=1", "set-cookie: b=2; Path=/", "content-length: 0"],
            &["x-hop", "keep-alive"],
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
            &["content-length: 1234"],
            &["content-length: 0"],
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\n", &["x-a: 1"], &["content-length"]),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
            &["304 Not Modified", "etag: \"a\""],
            &["content-length"],
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\n",
            &["204 No Content"],
            &["content-length", "transfer-encoding"],
        ),
        ("GET", &hints, &["\r\n\r\nok"], &["Early Hints"]),
        ("GET", &not_found, &["404 Gone Fishing", "text/html", &html], &["request_id\""]),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            &["transfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"],
            &["content-length"],
        ),
        (
            "GET",
            "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
            &["503 Busy", "retry-after: 7"],
            &["message"],
        ),
    ] {
        let upstream = Raw::start(&[response]).await;
        let (_app, server) = proxy(&upstream.url(), &[]).await;
        let got =
            exchange(server, format!("{method} /proxy/a HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n")).await;
        for text in has {
            assert!(got.contains(text), "{text} in {got}, for {response}");
        }
        for text in has_not {
            assert!(!got.contains(text), "{text} in {got}, for {response}");
        }
        assert!(got.contains("x-request-id: ") && got.matches("HTTP/1.1 ").count() == 1, "{got}");
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_body_is_passed_as_it_was_sent() {
    let upstream = Raw::start(&[OK]).await;
    let (_app, server) = proxy(&upstream.url(), &[]).await;
    // It is no gzip: whoever decoded it would fail.
    for request in [
        "POST /proxy/a HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        "POST /proxy/a HTTP/1.1\r\nContent-Encoding: unheard-of\r\nContent-Length: 3\r\n\r\nabc",
        "POST /proxy/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /proxy/a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "GET /proxy/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /proxy/a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let response = exchange(server, request).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        let (got, sent) = (upstream.requests().pop().unwrap(), request.to_lowercase());
        assert_eq!(got.split_once("\r\n\r\n").unwrap().1, sent.split_once("\r\n\r\n").unwrap().1, "{got}");
        for line in sent.lines().skip(1).take_while(|line| !line.is_empty()) {
            assert!(got.contains(line), "{line} in {got}");
        }
    }
    client(move || {
        let mut connection = Connection::open(server);
        connection
            .send("PUT /proxy/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        assert!(connection.read_head().starts_with("HTTP/1.1 100 Continue"));
        assert!(connection.send("ab").read_response().starts_with("HTTP/1.1 200 OK"));
    })
    .await;
    assert!(!upstream.requests().pop().unwrap().contains("expect"));
}

#[tokio::test]
async fn bodies_are_passed_on_while_they_arrive() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_app, server) = proxy(&url, &[]).await;
    // Each side waits for what the other has just sent: whoever kept a piece back would stop both.
    let upstream = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        read_until(&mut stream, "one\r\n").await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n")
            .await
            .unwrap();
        read_until(&mut stream, "two\r\n0\r\n\r\n").await;
        stream.write_all(b"4\r\nfive\r\n0\r\n\r\n").await.unwrap();
        stream
    });
    client(move || {
        let mut connection = Connection::open(server);
        connection
            .send("POST /proxy/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        assert!(connection.read_head().starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(connection.read_exactly(9), b"4\r\nfour\r\n");
        connection.send("3\r\ntwo\r\n0\r\n\r\n");
        assert_eq!(connection.read_exactly(14), b"4\r\nfive\r\n0\r\n\r\n");
    })
    .await;
    upstream.await.unwrap();
}

#[tokio::test]
async fn a_response_that_its_client_does_not_read_keeps_the_upstream_from_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = [("CONCURRENCY", "1"), ("ATTEMPT_TIMEOUT", "2s")];
    let (_app, server) = proxy(&url, &settings).await;
    // More than all buffers on the way hold.
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
                let _ = stream.write_all(head).await;
                let _ = stream.write_all(&vec![b'x'; 100_000_000]).await;
            });
        }
    });
    let get = "GET /proxy/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client(move || {
        let mut stuck = Connection::open(server);
        assert!(stuck.send(get).read_head().starts_with("HTTP/1.1 200"));
        // Its place is kept for a while: it may be slow.
        let refused = Connection::open(server).send(get).read_head();
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        let start = std::time::Instant::now();
        while Connection::open(server).send(get).read_head().starts_with("HTTP/1.1 503") {
            assert!(start.elapsed() < platform::testing::PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // What the first one has not read is still there for it.
        assert_eq!(stuck.read(1 << 20), 1 << 20);
    })
    .await;
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let upstream = Raw::start(&[
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n",
    ])
    .await;
    let (_app, server) = proxy(&upstream.url(), &[]).await;
    let request = "POST /proxy/a HTTP/1.1\r\nTE: trailers\r\nTrailer: x-check\r\nTransfer-Encoding: chunked\r\n\r\n\
                   1\r\nb\r\n0\r\nx-check: 8\r\n\r\n";
    let response = exchange(server, request).await;
    assert!(response.ends_with("\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n"), "{response}");
    let got = upstream.requests().pop().unwrap();
    assert!(got.ends_with("\r\n1\r\nb\r\n0\r\nx-check: 8\r\n\r\n"), "{got}");
}

#[tokio::test]
async fn a_response_without_a_body_is_not_logged_as_aborted() {
    let upstream = Raw::start(&[
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
    ])
    .await;
    let (app, server) = proxy(&upstream.url(), &[]).await;
    for _ in 0..3 {
        exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
    }
    until(|| app.log().iter().filter(|line| line.contains("route=/proxy/")).count() == 3).await;
    assert!(!app.log().iter().any(|line| line.contains("aborted")), "{:?}", app.log());
}

async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        all.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn a_websocket_passes() {
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                let _ = socket.send(message).await;
            }
        })
    };
    let upstream = TestApp::with_routes(Routes::new().route(Route::at("/echo").get(echo)), &[]).await;
    let (address, drain, _) = upstream.listen().await;
    let (app, server) = proxy(&format!("http://{address}"), &[]).await;
    let (mut socket, response) =
        tokio_tungstenite::connect_async(format!("ws://{server}/proxy/echo")).await.unwrap();
    assert!(!response.headers().contains_key("content-length"), "{response:?}");
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    assert_eq!(drain.connections(), 1);
    drop(socket);
    // The other side is told, and the line of the request is written.
    until(|| drain.connections() == 0).await;
    until(|| app.log().iter().any(|line| line.contains("status=101"))).await;
}

//! A connection that is closed after a response is one whose response says so (RFC 9112, section 9.6): a client that is not
//! told sends its next request into a closed connection.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use platform::http::{Route, Routes};
use platform::services::Services;
use platform::testing::{Connection, TestApp, TestPair, client};

use crate::handlers::{echo, length};

const LARGE: usize = 300_000;
const NEXT: &str = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";

fn routes() -> Routes<Services> {
    let panics = async |_: Request| -> &'static str { panic!("as the test wants it") };
    let waits = async |_: Request| std::future::pending::<&'static str>().await;
    let swallows = async |body: axum::body::Body| {
        let read = axum::body::to_bytes(body, usize::MAX).await;
        if read.is_ok() { "whole" } else { "broken" }
    };
    Routes::new()
        .route(Route::at("/length").post(length).body_limit(1 << 20))
        .route(Route::at("/small").post(length).body_limit(1_000))
        .route(Route::at("/echo").post(echo))
        .route(Route::at("/ignores").post(async || "ignored").get(async || "got"))
        .route(Route::at("/panics").post(panics))
        // No other route: on a busy machine, to read a large body may take as long.
        .route(Route::at("/waits").post(waits).timeout(Duration::from_millis(300)))
        .route(Route::at("/swallows").post(swallows).body_limit(1 << 20))
        .merge(platform::http::health::routes())
}

/// A request: a line, headers, and a body.
type Vector = (&'static str, &'static str, Vec<u8>);

fn chunked(body: &[u8]) -> Vec<u8> {
    let pieces = body
        .chunks(1_000)
        .map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    pieces.flatten().chain(*b"0\r\n\r\n").collect()
}

/// Each with the status of its response.
fn vectors() -> Vec<(u16, Vector)> {
    let large = vec![b'x'; LARGE];
    let mut vectors = vec![
        (404, ("POST /nowhere", "Content-Length: 300000\r\n", large.clone())),
        (404, ("POST /nowhere", "Transfer-Encoding: chunked\r\n", chunked(&large))),
        (404, ("GET /nowhere", "Content-Length: 300000\r\n", large.clone())),
        (405, ("PUT /length", "Content-Length: 300000\r\n", large.clone())),
        (204, ("OPTIONS /length", "Content-Length: 300000\r\n", large.clone())),
        (413, ("POST /small", "Content-Length: 300000\r\n", large.clone())),
        (413, ("POST /small", "Transfer-Encoding: chunked\r\n", chunked(&large))),
        (415, ("POST /length", "Content-Encoding: rot13\r\nContent-Length: 300000\r\n", large.clone())),
        (400, ("POST /length", "Content-Encoding: gzip\r\nContent-Length: 300000\r\n", large.clone())),
        (400, ("POST /length", "Host: b\r\nContent-Length: 300000\r\n", large.clone())),
        (200, ("POST /ignores", "Content-Length: 300000\r\n", large.clone())),
        (200, ("GET /ignores", "Content-Length: 300000\r\n", large.clone())),
        (200, ("HEAD /ignores", "Content-Length: 300000\r\n", large.clone())),
        (500, ("POST /panics", "Content-Length: 300000\r\n", large.clone())),
        (503, ("POST /waits", "Content-Length: 300000\r\n", large.clone())),
        // Nobody can tell where the next request begins, also where the handler does not mind.
        (400, ("POST /length", "Transfer-Encoding: chunked\r\n", b"2\r\nab\r\nx\r\n".to_vec())),
        (200, ("POST /swallows", "Transfer-Encoding: chunked\r\n", b"2\r\nab\r\nx\r\n".to_vec())),
        // The client waits with the body, and never sends it.
        (404, ("POST /nowhere", "Expect: 100-continue\r\nContent-Length: 300000\r\n", Vec::new())),
        (413, ("POST /small", "Expect: 100-continue\r\nContent-Length: 300000\r\n", Vec::new())),
    ];
    let many = format!("{}Content-Length: 300000\r\n", "X: y\r\n".repeat(70)).leak();
    vectors.push((431, ("POST /length", many, large.clone())));
    // Controls: what is read, or is short enough to be read at once, closes nothing.
    vectors.push((200, ("POST /length", "Content-Length: 300000\r\n", large.clone())));
    vectors.push((200, ("POST /swallows", "Transfer-Encoding: chunked\r\n", chunked(&large))));
    vectors
}

/// What is wrong with the connection after the response to this request.
fn wrong(connection: &mut Connection, (line, headers, body): &Vector) -> Result<u16, String> {
    connection.send(format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    connection.try_send(body);
    let is_head = line.starts_with("HEAD");
    let response = if is_head { connection.try_read_head() } else { connection.try_read_response() };
    let response = response.map_err(|error| format!("{line} {headers:.40}: no response: {error}"))?;
    let head = response.split("\r\n\r\n").next().unwrap_or_default().to_lowercase();
    let status = head[9..12].parse().unwrap();
    if head.contains("\r\nconnection: close") {
        let rest = connection.read_to_end();
        return if rest.is_empty() {
            Ok(status)
        } else {
            Err(format!("{line} {headers:.40}: sent {rest:?}"))
        };
    }
    let next = connection.try_send(NEXT).then(|| connection.try_read_response());
    let served = next.is_some_and(|response| response.is_ok_and(|response| response.contains(" 200 ")));
    if served { Ok(status) } else { Err(format!("{line} {headers:.40}: closed, and {head}")) }
}

fn all_wrong(open: impl Fn() -> Connection) -> Vec<String> {
    let mut all = Vec::new();
    for (expected, vector) in vectors() {
        match wrong(&mut open(), &vector) {
            Ok(status) if status == expected => {}
            Ok(status) => all.push(format!("{} {:.40}: {status}, expected {expected}", vector.0, vector.1)),
            Err(wrong) => all.push(wrong),
        }
    }
    all
}

#[tokio::test]
async fn a_response_says_so_when_its_connection_is_closed() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let server = app.listen().await.0;
    let wrong = client(move || all_wrong(|| Connection::open(server))).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn also_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let pair = TestPair::for_this_machine();
    pair.write(folder.path());
    let path = |name: &str| folder.path().join("keys").join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("public-key.pem"), path("private-key.pem"));
    let settings = [
        ("SERVER__SERVER__TLS__CERTIFICATE", certificate.as_str()),
        ("SERVER__SERVER__TLS__KEY", key.as_str()),
    ];
    let app = TestApp::with_routes(routes(), &settings).await;
    let server = app.listen_secure().await.0;
    let trusting = pair.client();
    let wrong = client(move || all_wrong(|| Connection::secure(server, &trusting))).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_body_that_has_come_is_read_and_its_connection_stays() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let server = app.listen().await.0;
    client(move || {
        let mut connection = Connection::open(server);
        for path in ["/nowhere", "/ignores", "/panics"] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd");
            let response = connection.send(request).read_response();
            assert!(!response.to_lowercase().contains("connection: close"), "{path}: {response}");
        }
        assert!(connection.send(NEXT).read_response().contains(" 200 "));
    })
    .await;
}

/// The control: axum alone closes such a connection without a word. It cannot miss it: hyper reads once more of a body that
/// nobody wants, which is less than this one.
#[tokio::test]
async fn the_check_finds_a_server_that_closes_without_a_word() {
    let router =
        Router::new().route("/length", axum::routing::post(async |body: Bytes| body.len().to_string()));
    let router = router.route("/ping", axum::routing::get(async || "pong"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let large = vec![b'x'; LARGE];
    let wrong = client(move || {
        let request = ("POST /nowhere", "Content-Length: 300000\r\n", large);
        wrong(&mut Connection::open(server), &request)
    })
    .await;
    assert!(wrong.is_err(), "{wrong:?}");
}

//! HTTPS over a real socket: what is spoken, deadlines, hostile clients, certificates of clients, and the drain.

mod client_certificates;
mod deadlines;
mod files;
mod handshakes;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use platform::http::server::Drain;
use platform::http::{Context, Route, Routes, WebSocketUpgrade};
use platform::services::Services;
use platform::testing::{Connection, PATIENCE, TestApp, TestClient, TestPair, client};
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::handlers::length;

const GET: &str = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server with HTTPS.
struct Server {
    app: TestApp,
    address: SocketAddr,
    drain: Drain,
    serving: JoinHandle<std::io::Result<()>>,
    /// Trusts it.
    client: TestClient,
    pair: TestPair,
    folder: TempDir,
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/length").post(length))
        .route(Route::at("/large").get(async || "x".repeat(64 << 20)))
        .route(
            Route::at("/secure")
                .get(async |context: Context| axum::response::Html(context.is_secure().to_string())),
        )
        .route(Route::at("/who").get(async |context: Context| {
            context.client_certificate().map_or("nobody".to_owned(), |shown| shown.subject().to_owned())
        }))
        .route(Route::at("/socket").get(async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.recv().await {
                    if socket.send(message).await.is_err() {
                        break;
                    }
                }
            })
        }))
        .merge(platform::http::health::routes())
}

async fn start(settings: &[(&str, &str)]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let pair = TestPair::for_this_machine();
    pair.write(folder.path());
    start_in(folder, pair, settings).await
}

/// With the files of a folder.
async fn start_in(folder: TempDir, pair: TestPair, settings: &[(&str, &str)]) -> Server {
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("keys/public-key.pem"), path("keys/private-key.pem"));
    let own = [
        ("SERVER__SERVER__TLS__CERTIFICATE", certificate.as_str()),
        ("SERVER__SERVER__TLS__KEY", key.as_str()),
    ];
    let app = TestApp::with_routes(routes(), &[&own[..], settings].concat()).await;
    let (address, drain, serving) = app.listen_secure().await;
    Server { app, address, drain, serving, client: pair.client(), pair, folder }
}

#[tokio::test]
async fn both_versions_of_tls_and_both_of_http_are_spoken() {
    let server = start(&[]).await;
    let (address, pair) = (server.address, server.pair.clone());
    client(move || {
        for version in [&TLS12, &TLS13] {
            for (offered, chosen) in [
                (&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])),
                (&[b"h2", b"http/1.1"], Some(b"h2")),
                (&[], None),
            ] {
                let mut client = TestClient::with_versions(&[&pair], None, &[version]);
                client.config().alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
                let mut connection = Connection::secure(address, &client);
                let tls = connection.tls().unwrap();
                assert_eq!((tls.protocol_version(), tls.alpn_protocol()), (Some(version.version), chosen));
                if chosen == Some(b"h2") {
                    // The preface and an empty SETTINGS frame; the response is a SETTINGS frame.
                    connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
                    assert_eq!(connection.read_exactly(4)[3], 4);
                } else {
                    let response = connection.send(GET).read_response();
                    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
                }
            }
        }
        // A client that speaks neither of the offered protocols is refused.
        let mut other = pair.client();
        other.config().alpn_protocols = vec![b"ftp".to_vec()];
        assert!(Connection::try_secure(address, &other).is_err());
    })
    .await;
}

#[tokio::test]
async fn a_client_of_somebody_else_speaks_http_2() {
    let server = start(&[]).await;
    let certificate = reqwest::Certificate::from_pem(server.pair.certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).build().unwrap();
    let url = format!("https://{}/length", server.address);
    let response = client.post(url).body("x".repeat(100_000)).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(response.text().await.unwrap(), "100000");
}

#[tokio::test]
async fn a_browser_is_told_to_use_https_only_over_https() {
    let server = start(&[("SERVER__HTTP__TRUSTED_PROXIES", "[127.0.0.1]")]).await;
    let (address, client_of) = (server.address, server.client.clone());
    let (plain, _drain, _serving) = server.app.listen().await;
    client(move || {
        let get = |more: &str| format!("GET /secure HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        let with_hsts = |response: &str| {
            let upgrade = response.contains(";upgrade-insecure-requests");
            assert_eq!(response.contains("\r\nstrict-transport-security: max-age="), upgrade, "{response}");
            assert!(response.contains("\r\ncontent-security-policy: default-src"), "{response}");
            assert_eq!(response.ends_with("\r\n\r\ntrue"), upgrade, "{response}");
            upgrade
        };
        assert!(with_hsts(&Connection::secure(address, &client_of).send(get("")).read_response()));
        assert!(!with_hsts(&Connection::open(plain).send(get("")).read_response()));
        // A trusted proxy tells what its client has used.
        let proto = |scheme: &str| get(&format!("X-Forwarded-Proto: {scheme}\r\n"));
        assert!(with_hsts(&Connection::open(plain).send(proto("https")).read_response()));
        assert!(!with_hsts(&Connection::open(plain).send(proto("http")).read_response()));
        // What no handler has seen.
        let refused = Connection::secure(address, &client_of).send("garbage\r\n\r\n").read_response();
        assert!(refused.contains("\r\nstrict-transport-security: "), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn malformed_requests_get_the_error_body_and_one_log_line() {
    let server = start(&[]).await;
    let (address, client_of) = (server.address, server.client.clone());
    client(move || {
        let many = format!("GET /ping HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1_000));
        for (request, status) in [
            ("garbage\r\n\r\n", "400 Malformed Request"),
            ("GET /ping HTTP/9.9\r\n\r\n", "400 Malformed Request"),
            (&many, "431 Request Header Fields Too Large"),
        ] {
            let mut connection = Connection::secure(address, &client_of);
            let response = connection.send(request).read_response();
            assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:.40}: {response}");
            let body: serde_json::Value =
                serde_json::from_str(response.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert!(status.starts_with(&body["code"].to_string()) && body["uri"] == "-", "{body}");
            assert_eq!(connection.read_to_end(), "");
        }
    })
    .await;
    let log = server.app.log();
    assert_eq!(log.len(), 3, "{log:#?}");
    assert!(log.iter().all(|line| line.contains(" method=- ") && line.contains("level=warn")), "{log:#?}");
}

#[tokio::test]
async fn plain_http_at_the_port_of_https_is_told_so() {
    let server = start(&[]).await;
    let (address, get) = (server.address, Method::GET);
    client(move || {
        let request = "GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let response = Connection::open(address).send(request).read_response();
        assert!(response.starts_with("HTTP/1.1 400 HTTPS Required\r\n"), "{response}");
        assert!(
            response.contains("begins with https://") && !response.contains("strict-transport"),
            "{response}"
        );
    })
    .await;
    let log = server.app.log();
    assert!(log.len() == 1 && log[0].contains(" path=/who ") && log[0].contains(" status=400 "), "{log:#?}");
    // The control: the same request without a connection of its own.
    assert_eq!(server.app.call(get, "/who", &[], Body::empty()).await.status, 200);
}

#[tokio::test]
async fn a_web_socket_over_tls_is_closed_with_1001_at_a_drain() {
    let server = start(&[]).await;
    let (address, client_of) = (server.address, server.client.clone());
    let mut connection = client(move || {
        let mut connection = Connection::secure(address, &client_of);
        connection.send(
            "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert!(connection.read_head().starts_with("HTTP/1.1 101 "));
        // A text of four bytes, masked with zeros (RFC 6455, section 5.2), and its echo.
        connection.send([0x81, 0x84, 0, 0, 0, 0]).send("ping");
        assert_eq!(connection.read_exactly(6), b"\x81\x04ping");
        connection
    })
    .await;
    server.drain.start(PATIENCE);
    let end = client(move || {
        let close = connection.read_exactly(4);
        connection.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
        connection.read_to_end();
        close
    })
    .await;
    assert_eq!((end[0], &end[2..]), (0x88, &1001_u16.to_be_bytes()[..]));
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_waits_for_no_idle_client() {
    let hours = [("SERVER__HTTP__HEADER_TIMEOUT", "1h"), ("SERVER__SERVER__TLS__HANDSHAKE_TIMEOUT", "10m")];
    let server = start(&[&hours[..], &[("SERVER__HTTP__FIRST_BYTE_TIMEOUT", "1h")]].concat()).await;
    let (address, client_of) = (server.address, server.client.clone());
    let (mut in_flight, mut others) = client(move || {
        let mut in_flight = Connection::secure(address, &client_of);
        in_flight.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
        assert!(in_flight.is_quiet_for(Duration::from_millis(100)));
        let mut used = Connection::secure(address, &client_of);
        assert!(used.send(GET).read_response().starts_with("HTTP/1.1 200 OK"));
        let unused = Connection::secure(address, &client_of);
        let silent = Connection::open(address);
        let mut half = Connection::open(address);
        half.send(&handshakes::HELLO[..20]);
        (in_flight, [used, unused, silent, half])
    })
    .await;
    platform::testing::until(|| server.drain.connections() == 5).await;
    server.drain.start(Duration::from_hours(1));
    let response = client(move || {
        for other in &mut others {
            other.read_to_end();
        }
        in_flight.send("cd").read_response()
    })
    .await;
    assert!(response.starts_with("HTTP/1.1 200 OK") && response.ends_with("\r\n\r\n4"), "{response}");
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap().unwrap();
}

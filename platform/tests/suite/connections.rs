//! Connections over a real socket: slow, silent and malformed requests, limits, and the drain.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Version};
use platform::http::{Route, Routes};
use platform::services::Services;

use crate::handlers::{echo, length};
use platform::testing::{Connection, PATIENCE, TestApp, client, until};

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/length").post(length))
        .route(Route::at("/echo").post(echo))
        .merge(platform::http::health::routes())
}

async fn start() -> SocketAddr {
    TestApp::with_routes(routes(), &[]).await.listen().await.0
}

/// A server with short deadlines.
async fn start_with_short_deadlines() -> SocketAddr {
    let settings = [
        ("SERVER__HTTP__FIRST_BYTE_TIMEOUT", "200ms"),
        ("SERVER__HTTP__HEADER_TIMEOUT", "300ms"),
        ("SERVER__HTTP__BODY_GRACE", "300ms"),
        ("SERVER__HTTP__BODY_MIN_RATE", "1000"),
    ];
    TestApp::with_routes(routes(), &settings).await.listen().await.0
}

const GET: &str = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_connection_that_sends_no_complete_request_head_is_closed() {
    let server = start_with_short_deadlines().await;
    client(move || {
        for start in ["", "PRI * HTTP/2", "GET /ping HTT", "GET /ping HTTP/1.1\r\nHost: local"] {
            let mut connection = Connection::open(server);
            connection.send(start).read_to_end();
        }
        // The control: a complete request gets a response, and the connection stays open for the next one.
        let mut connection = Connection::open(server);
        for _ in 0..2 {
            let response = connection.send(GET).read_response();
            assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
        }
        connection.read_to_end();
    })
    .await;
}

#[tokio::test]
async fn a_body_that_stalls_or_trickles_is_408_and_closes_the_connection() {
    let server = start_with_short_deadlines().await;
    client(move || {
        let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
        let check = |response: String| {
            assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
            assert!(
                response.contains("connection: close") && response.contains("The body came too slowly"),
                "{response}"
            );
        };
        let mut stalled = Connection::open(server);
        check(stalled.send(head).send("{").read_to_end());
        // One byte at a time never exceeds a time limit on the gap between two pieces. The minimum rate ends it.
        let mut trickling = Connection::open(server);
        trickling.send(head);
        while trickling.is_quiet_for(Duration::from_millis(20)) && trickling.try_send(" ") {}
        check(trickling.read_to_end());
    })
    .await;
}

#[tokio::test]
async fn a_slow_body_that_keeps_the_rate_is_read() {
    let server = start_with_short_deadlines().await;
    client(move || {
        let body = "x".repeat(900);
        let length = body.len();
        let head = format!("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut connection = Connection::open(server);
        connection.send(head);
        for piece in body.as_bytes().chunks(300) {
            assert!(connection.is_quiet_for(Duration::from_millis(50)));
            connection.send(piece);
        }
        assert!(connection.read_response().starts_with("HTTP/1.1 200 OK"));
    })
    .await;
}

#[tokio::test]
async fn the_reason_phrase_is_on_the_status_line() {
    let server = start().await;
    client(move || {
        let mut connection = Connection::open(server);
        let response = connection.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").read_response();
        assert!(response.starts_with("HTTP/1.1 404 Unknown Endpoint\r\n"), "{response}");
        let body = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nnot json";
        let response = connection.send(body).read_response();
        assert!(response.starts_with("HTTP/1.1 400 Invalid JSON body\r\n"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_violates_http_is_refused() {
    let server = start().await;
    client(move || {
        for (request, status) in [
            ("GET /ping HTTP/1.1\r\n\r\n".to_owned(), "400 Invalid Host Header"),
            ("GET http://evil/ping HTTP/1.1\r\nHost: good\r\n\r\n".to_owned(), "400 Invalid Host Header"),
            ("GET /ping HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), "400 Invalid Host Header"),
            ("GET /ping HTTP/1.1\r\nHost: a b/c@d\r\n\r\n".to_owned(), "400 Invalid Host Header"),
            ("GET /ping HTTP/1.0\r\n\r\n".to_owned(), "200 OK"),
            ("GET /ping HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n".to_owned(), "200 OK"),
            (
                "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
                    .to_owned(),
                "501 Transfer Coding Not Implemented",
            ),
            (
                "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n".to_owned(),
                "200 OK",
            ),
            ("GET http://Good/ping HTTP/1.1\r\nHost: gOOD\r\n\r\n".to_owned(), "200 OK"),
        ] {
            let mut connection = Connection::open(server);
            let response = connection.send(&request).read_response();
            // The response to an HTTP/1.0 client has that version.
            let rest = response.trim_start_matches("HTTP/1.0 ").trim_start_matches("HTTP/1.1 ");
            assert!(rest.starts_with(status), "{request:.40}: {response}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_hyper_rejects_by_itself_gets_the_error_body_and_one_log_line() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let server = app.listen().await.0;
    client(move || {
        let oversize = format!("GET /ping HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(4_000_000));
        let many = format!("GET /ping HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1_000));
        let pipelined = format!("{GET}garbage\r\n\r\n");
        for (request, statuses) in [
            ("garbage\r\n\r\n", &["400 Malformed Request"][..]),
            ("GET /ping HTTP/9.9\r\n\r\n", &["400 Malformed Request"]),
            ("\u{16}\u{3}\u{1}\u{2} a TLS client\r\n\r\n", &["400 Malformed Request"]),
            (&pipelined, &["200 OK", "400 Malformed Request"]),
            (&oversize, &["431 Request Header Fields Too Large"]),
            (&many, &["431 Request Header Fields Too Large"]),
        ] {
            let mut connection = Connection::open(server);
            // The server does not read all of the large request; the response comes nevertheless.
            connection.try_send(request);
            for status in statuses {
                let response = connection.read_response();
                assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:.40}: {response}");
                let (head, body) = response.split_once("\r\n\r\n").unwrap();
                assert!(head.contains("\r\nx-request-id: ") && head.contains("\r\ndate: "), "{head}");
                if !status.starts_with("200") {
                    let body: serde_json::Value = serde_json::from_str(body).unwrap();
                    assert_eq!(body["code"], body["status"]);
                    assert!(status.starts_with(&body["code"].to_string()), "{body}");
                    assert_eq!(body["uri"], "-");
                    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
                }
            }
            assert_eq!(connection.read_to_end(), "");
        }
    })
    .await;
    let log = app.log();
    assert_eq!(log.len(), 6, "{log:#?}");
    for line in &log {
        assert!(line.contains(" method=- ") && line.contains(" path=- "), "{line}");
        assert!(line.contains(" peer=127.0.0.1:"), "{line}");
        assert!(line.contains("level=warn"), "{line}");
    }
}

#[tokio::test]
async fn the_headers_of_http_2_have_the_same_limit() {
    let app = TestApp::with_routes(routes(), &[("SERVER__HTTP__MAX_HEADER_SIZE", "8KiB")]).await;
    for (size, status) in [(8_000, 200), (8_200, 431)] {
        let request = Request::get("/ping").version(Version::HTTP_2).header("x", "x".repeat(size));
        let response = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status, status);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_disconnected() {
    const SIZE: usize = 64 << 20;
    let routes = Routes::new().route(Route::at("/large").get(async || "x".repeat(SIZE)));
    let settings = [("SERVER__HTTP__WRITE_TIMEOUT", "1s"), ("SERVER__HTTP__ETAG", "false")];
    let (server, drain, _serving) = TestApp::with_routes(routes, &settings).await.listen().await;
    let request = "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let stuck = client(move || {
        // The control: a client that reads slowly gets all of it, even when that takes longer than the timeout.
        let mut slow = Connection::open(server);
        slow.send(request);
        for _ in 0..5 {
            assert_eq!(slow.read(1 << 20), 1 << 20);
            std::thread::sleep(Duration::from_millis(250));
        }
        assert!(slow.read_to_end().len() + (5 << 20) > SIZE);
        let mut stuck = Connection::open(server);
        stuck.send(request);
        stuck
    })
    .await;
    until(|| drain.connections() == 0).await;
    drop(stuck);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_a_permit() {
    let settings = [("SERVER__HTTP__MAX_CONNECTIONS", "1")];
    let server = TestApp::with_routes(routes(), &settings).await.listen().await.0;
    client(move || {
        let mut first = Connection::open(server);
        assert!(first.send(GET).read_response().starts_with("HTTP/1.1 200 OK"));
        let mut second = Connection::open(server);
        assert!(second.send(GET).is_quiet_for(Duration::from_millis(300)));
        drop(first);
        assert!(second.read_response().starts_with("HTTP/1.1 200 OK"));
    })
    .await;
}

#[tokio::test]
async fn http_2_works_without_tls() {
    let server = start().await;
    client(move || {
        let mut connection = Connection::open(server);
        // The preface and an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5); the response is a SETTINGS frame.
        connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert!(!connection.is_quiet_for(Duration::from_secs(10)));
    })
    .await;
}

#[tokio::test]
async fn a_request_in_flight_is_finished_while_new_connections_are_refused() {
    let (server, drain, serving) = TestApp::with_routes(routes(), &[]).await.listen().await;
    let mut connection = client(move || {
        let mut connection = Connection::open(server);
        connection.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
        // In flight: the server waits for the rest of the body.
        assert!(connection.is_quiet_for(Duration::from_millis(100)));
        connection
    })
    .await;
    drain.start(Duration::from_hours(1));
    let response = client(move || {
        let start = std::time::Instant::now();
        while std::net::TcpStream::connect(server).is_ok() {
            assert!(start.elapsed() < PATIENCE, "still accepting");
        }
        connection.send("cd").read_response()
    })
    .await;
    assert!(response.starts_with("HTTP/1.1 200 OK") && response.ends_with("\r\n\r\n4"), "{response}");
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_at_the_deadline() {
    let (server, drain, serving) = TestApp::with_routes(routes(), &[]).await.listen().await;
    let connection = client(move || {
        let mut connection = Connection::open(server);
        connection.send("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
        assert!(connection.is_quiet_for(Duration::from_millis(100)));
        connection
    })
    .await;
    drain.start(Duration::from_millis(100));
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    drop(connection);
}

#[tokio::test]
async fn a_connection_that_has_sent_nothing_does_not_delay_the_drain() {
    let settings = [("SERVER__HTTP__FIRST_BYTE_TIMEOUT", "1h")];
    let (server, drain, serving) = TestApp::with_routes(routes(), &settings).await.listen().await;
    let mut silent = client(move || Connection::open(server)).await;
    until(|| drain.connections() > 0).await;
    drain.start(Duration::from_hours(1));
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    client(move || silent.read_to_end()).await;
}

#[tokio::test]
async fn half_a_request_head_and_a_silent_http_2_client_do_not_delay_the_drain() {
    let settings = [("SERVER__HTTP__HEADER_TIMEOUT", "1h")];
    let (server, drain, serving) = TestApp::with_routes(routes(), &settings).await.listen().await;
    let mut connections = client(move || {
        let mut half = Connection::open(server);
        half.send("GET /ping HTTP/1.1\r\nHo");
        let mut second_half = Connection::open(server);
        assert!(second_half.send(GET).read_response().starts_with("HTTP/1.1 200 OK"));
        second_half.send("GET /ping HT");
        let mut preface = Connection::open(server);
        preface.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        [half, second_half, preface]
    })
    .await;
    until(|| drain.connections() == 3).await;
    drain.start(Duration::from_hours(1));
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    client(move || connections.each_mut().map(Connection::read_to_end)).await;
}

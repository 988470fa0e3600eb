//! How connections end: no response and no log line is lost, and no connection stays open for ever.

use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http_body::{Frame, SizeHint};
use platform::http::server::Drain;
use platform::http::{Route, Routes};
use platform::services::Services;

use crate::handlers::length;
use platform::testing::{Connection, PATIENCE, TestApp, client, until};

const LARGE: usize = 3 << 20;

async fn later() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn slow() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn never() {
    std::future::pending::<()>().await;
}

/// Sends the response head, and nothing after it.
async fn silent() -> Body {
    Body::from_stream(stream::pending::<Result<&str, std::io::Error>>())
}

/// A body of known length whose bytes come one by one.
struct SlowBytes {
    left: u64,
    pause: Pin<Box<tokio::time::Sleep>>,
}

const PIECES: u64 = 10;
const PAUSE: Duration = Duration::from_millis(100);

async fn pieces() -> Body {
    Body::new(SlowBytes { left: PIECES, pause: Box::pin(tokio::time::sleep(PAUSE)) })
}

impl http_body::Body for SlowBytes {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.pause.as_mut().poll(task));
        self.left -= 1;
        self.pause.as_mut().reset(tokio::time::Instant::now() + PAUSE);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/later").get(later).post(later))
        .route(Route::at("/slow").get(slow))
        .route(Route::at("/never").get(never))
        .route(Route::at("/silent").get(silent))
        .route(Route::at("/pieces").get(pieces))
        .route(Route::at("/large").get(async || "x".repeat(LARGE)).post(async || "x".repeat(LARGE)))
        .route(Route::at("/length").post(length))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

async fn serve(settings: &[(&str, &str)]) -> (TestApp, SocketAddr, Drain) {
    let app = TestApp::with_routes(routes(), settings).await;
    let (server, drain, _) = app.listen().await;
    (app, server, drain)
}

#[tokio::test]
async fn a_connection_whose_request_outlasted_the_header_timeout_is_still_closed_when_idle() {
    let (_, server, _) = serve(&[("SERVER__HTTP__HEADER_TIMEOUT", "300ms")]).await;
    client(move || {
        let mut connection = Connection::open(server);
        // The timer of the connection fires while the handler runs: it must not end anything then.
        assert!(connection.send(get("/slow")).read_response().starts_with("HTTP/1.1 200 OK"));
        // The control: it is not closed at once.
        assert!(connection.is_quiet_for(Duration::from_millis(50)));
        assert_eq!(connection.read_to_end(), "");
    })
    .await;
}

#[tokio::test]
async fn a_connection_whose_client_read_slowly_is_closed_when_idle() {
    // More than the buffers of both sockets hold, so that the last flush waits for the client.
    const HUGE: usize = 64 << 20;
    let routes = Routes::new().route(Route::at("/huge").get(async || "x".repeat(HUGE)));
    let settings = [("SERVER__HTTP__HEADER_TIMEOUT", "300ms"), ("SERVER__HTTP__ETAG", "false")];
    let (server, _, _) = TestApp::with_routes(routes, &settings).await.listen().await;
    client(move || {
        let mut connection = Connection::open(server);
        connection.send(get("/huge")).read_head();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(connection.read(HUGE), HUGE);
        assert_eq!(connection.read_to_end(), "");
    })
    .await;
}

#[tokio::test]
async fn a_response_that_takes_longer_than_the_header_timeout_is_not_cut() {
    // Without `ETag`: the test is about the connection alone.
    let settings = [("SERVER__HTTP__HEADER_TIMEOUT", "300ms"), ("SERVER__HTTP__ETAG", "false")];
    let (_, server, _) = serve(&settings).await;
    client(move || {
        let mut connection = Connection::open(server);
        let response = connection.send(get("/pieces")).read_to_end();
        assert!(response.ends_with("\r\n\r\nxxxxxxxxxx"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_response_and_a_log_line() {
    let (app, server, _) = serve(&[]).await;
    client(move || {
        for _ in 0..25 {
            for request in
                [&get("/later"), "POST /later HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"]
            {
                let response = Connection::open(server).send(request).close_sending_side().read_to_end();
                assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
            }
        }
    })
    .await;
    let log = app.log();
    assert_eq!(log.iter().filter(|line| line.contains("status=200")).count(), 50, "{log:#?}");
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_is_disconnected_when_nothing_is_written() {
    let (app, server, drain) = serve(&[("SERVER__HTTP__WRITE_TIMEOUT", "200ms")]).await;
    let waiting = client(move || {
        for path in ["/never", "/silent"] {
            Connection::open(server).send(get(path));
        }
        // The control: a client that has not closed its side stays connected while it waits for its response.
        let mut waiting = Connection::open(server);
        waiting.send(get("/never"));
        waiting
    })
    .await;
    until(|| app.log().len() == 2 && drain.connections() == 1).await;
    let log = app.log();
    assert!(log.iter().any(|line| line.contains("path=/never") && line.contains("status=499")), "{log:#?}");
    assert!(
        log.iter().any(|line| line.contains("path=/silent") && line.contains("aborted=true")),
        "{log:#?}"
    );
    drop(waiting);
}

#[tokio::test]
async fn a_response_arrives_completely_although_the_request_body_was_not_read() {
    let (_, server, _) = serve(&[]).await;
    client(move || {
        let mut connection = Connection::open(server);
        connection.send("POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n");
        connection.try_send("y".repeat(300_000));
        let response = connection.read_to_end();
        assert!(response.ends_with('x') && response.len() > LARGE, "{} bytes", response.len());
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_cut_at_the_deadline_is_logged_before_the_server_ends() {
    const STUCK: usize = 100;
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let never = async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>().await;
    };
    let routes = Routes::new().route(Route::at("/never").get(never));
    let app = TestApp::with_routes(routes, &[]).await;
    let (server, drain, serving) = app.listen().await;
    let connections = client(move || {
        let open = |_| {
            let mut connection = Connection::open(server);
            connection.send(get("/never"));
            connection
        };
        (0..STUCK).map(open).collect::<Vec<_>>()
    })
    .await;
    until(|| begun.load(Ordering::Relaxed) == STUCK).await;
    drain.start(Duration::from_millis(50));
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    assert_eq!(app.log().len(), STUCK);
    drop(connections);
}

/// An HTTP/2 client that acknowledges pings. It opens its flow-control windows only in `open_windows`.
struct Http2(Connection);

impl Http2 {
    const PING: u8 = 6;
    const GO_AWAY: u8 = 7;

    /// Sends GET for `path` (RFC 9113, section 4.1; RFC 7541, appendix A for the indexes of the header fields).
    fn get(server: SocketAddr, path: &str) -> Self {
        let mut connection = Connection::open(server);
        connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let mut block = vec![0x82, 0x86, 0x01, 1, b'a', 0x04, u8::try_from(path.len()).unwrap()];
        block.extend_from_slice(path.as_bytes());
        connection.send([0, 0, u8::try_from(block.len()).unwrap(), 1, 0x05, 0, 0, 0, 1]).send(&block);
        Self(connection)
    }

    /// The next frame: type, flags and payload. A ping is acknowledged.
    fn frame(&mut self) -> (u8, u8, Vec<u8>) {
        let head = self.0.read_exactly(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.0.read_exactly(usize::try_from(length).unwrap());
        if head[3] == Self::PING && head[4] & 1 == 0 {
            self.0.send([0, 0, 8, Self::PING, 1, 0, 0, 0, 0]).send(&payload);
        }
        (head[3], head[4], payload)
    }

    /// Opens the flow-control windows of the stream and of the connection.
    fn open_windows(&mut self, by: u32) {
        for stream in [0, 1] {
            self.0.send([0, 0, 4, 8, 0, 0, 0, 0, stream]).send(by.to_be_bytes());
        }
    }

    /// Reads the rest of the response body. Returns its size, including the bytes received before.
    fn read_body(&mut self, mut so_far: usize) -> usize {
        loop {
            let (kind, flags, payload) = self.frame();
            if kind == 0 {
                so_far += payload.len();
                if flags & 1 == 1 {
                    return so_far;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_http_2_response_to_a_slow_client_is_not_cut_by_the_drain() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let (server, drain, serving) = app.listen().await;
    let (mut client2, so_far) = client(move || {
        let mut client = Http2::get(server, "/large");
        let mut so_far = 0;
        // The first window of a connection (RFC 9113, section 6.9.2).
        while so_far < 65_535 {
            let (kind, _, payload) = client.frame();
            so_far += if kind == 0 { payload.len() } else { 0 };
        }
        (client, so_far)
    })
    .await;
    drain.start(Duration::from_hours(1));
    client(move || {
        while client2.frame().0 != Http2::GO_AWAY {}
        // Acknowledges the ping that came with it. Then it is silent for longer than `LINGER_TIMEOUT`.
        while !client2.0.is_quiet_for(Duration::from_millis(2_500)) {
            client2.frame();
        }
        client2.open_windows(1 << 30);
        assert_eq!(client2.read_body(so_far), LARGE);
    })
    .await;
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

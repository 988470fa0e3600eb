//! Connections that a handler has taken over: WebSockets and other tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use platform::App;
use platform::http::{Route, Routes};
use platform::services::Services;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use platform::testing::{Connection, NoSettings, PATIENCE, SERVICE, TestApp, client, until};

/// Sends back each byte that comes through the tunnel.
async fn tunnel(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            stream.write_all(&piece[..length]).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    response.header("connection", "upgrade").header("upgrade", "echo").body(Body::empty()).unwrap()
}

fn routes() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/tunnel").get(tunnel))
        .route(Route::at("/anybody").get(tunnel).cross_site("a test"))
        .merge(platform::http::health::routes())
}

const UPGRADE: &str =
    "GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

fn open_tunnel(server: SocketAddr) -> Connection {
    let mut connection = Connection::open(server);
    let head = connection.send(UPGRADE).read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    connection
}

#[tokio::test]
async fn a_tunnel_outlives_the_deadlines_of_requests_while_it_talks() {
    let settings = [("SERVER__HTTP__HEADER_TIMEOUT", "200ms")];
    let server = TestApp::with_routes(routes(), &settings).await.listen().await.0;
    client(move || {
        let mut connection = open_tunnel(server);
        for _ in 0..3 {
            assert!(connection.is_quiet_for(Duration::from_millis(300)));
            assert_eq!(connection.send("ping").read_exactly(4), b"ping");
        }
        // The control: a connection without a request under way is closed. It cannot miss it: it waits for that.
        let mut idle = Connection::open(server);
        idle.send("GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n").read_response();
        assert!(!idle.is_quiet_for(Duration::from_secs(10)));
    })
    .await;
}

#[tokio::test]
async fn what_a_tunnel_carries_is_never_taken_for_a_response() {
    let server = TestApp::with_routes(routes(), &[]).await.listen().await.0;
    client(move || {
        let mut connection = open_tunnel(server);
        let text = "HTTP/1.1 400 Bad Request\r\n\r\n";
        let back = connection.send(text).read_exactly(text.len());
        assert_eq!(String::from_utf8_lossy(&back), text);
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_is_counted_in_a_drain_and_has_until_the_deadline() {
    let (server, drain, serving) = TestApp::with_routes(routes(), &[]).await.listen().await;
    let mut connection = client(move || open_tunnel(server)).await;
    drain.start(Duration::from_secs(4));
    let mut connection = client(move || {
        // Longer than an idle connection is kept in a drain.
        assert!(connection.is_quiet_for(Duration::from_millis(2_500)));
        assert_eq!(connection.send("ping").read_exactly(4), b"ping");
        connection
    })
    .await;
    assert_eq!(drain.connections(), 1);
    assert_eq!(client(move || connection.read_to_end()).await, "");
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    assert_eq!(drain.connections(), 0);
}

#[tokio::test]
async fn a_tunnel_has_one_line_and_that_at_its_end() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let (server, drain, _serving) = app.listen().await;
    let connection = client(move || {
        let mut connection = open_tunnel(server);
        assert!(connection.is_quiet_for(Duration::from_millis(200)));
        connection
    })
    .await;
    assert_eq!(app.log(), [""; 0]);
    drop(connection);
    until(|| drain.connections() == 0).await;
    let log = app.log();
    assert_eq!(log.len(), 1, "{log:#?}");
    assert!(log[0].contains(" path=/tunnel ") && log[0].contains(" status=101 "), "{log:#?}");
    let duration = log[0].split(" duration_ms=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(duration.parse::<f64>().unwrap() >= 200.0, "{log:#?}");
}

#[tokio::test]
async fn an_upgrade_from_a_page_of_another_site_is_no_safe_method() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let upgrade = async |path: &str, origin: &str| {
        let headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("origin", origin)];
        app.call(Method::GET, path, &headers, Body::empty()).await.status
    };
    assert_eq!(upgrade("/tunnel", "https://evil.example").await, 403);
    assert_ne!(upgrade("/tunnel", "http://localhost").await, 403);
    // The control: a route that says why it is open.
    assert_ne!(upgrade("/anybody", "https://evil.example").await, 403);
}

#[tokio::test]
async fn a_tunnel_that_nobody_reads_has_its_line_at_the_deadline() {
    async fn silent(mut request: Request) -> Response {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let _stream = upgrade.await.unwrap();
            std::future::pending::<()>().await;
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "upgrade").header("upgrade", "echo").body(Body::empty()).unwrap()
    }
    let app = TestApp::with_routes(Routes::new().route(Route::at("/tunnel").get(silent)), &[]).await;
    let (server, drain, serving) = app.listen().await;
    let _connection = client(move || open_tunnel(server)).await;
    assert_eq!(app.log(), [""; 0]);
    drain.start(Duration::from_millis(200));
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    assert_eq!(app.log().len(), 1, "{:#?}", app.log());
}

/// The halves of a tunnel in two tasks: one writes all the time, the other sends a mark for each byte of the client.
async fn split(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        let received = Arc::new(AtomicBool::new(false));
        let reader = Arc::clone(&received);
        tokio::spawn(async move {
            let mut byte = [0];
            while let Ok(1) = read.read(&mut byte).await {
                reader.store(true, Ordering::SeqCst);
            }
        });
        loop {
            let mark = if received.load(Ordering::SeqCst) { b"!" } else { b"." };
            if write.write_all(mark).await.is_err() || write.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    response.header("connection", "upgrade").header("upgrade", "echo").body(Body::empty()).unwrap()
}

async fn open_split(settings: &[(&str, &str)]) -> Connection {
    let routes = Routes::new().route(Route::at("/tunnel").get(split));
    let server = TestApp::with_routes(routes, settings).await.listen().await.0;
    client(move || open_tunnel(server)).await
}

#[tokio::test]
async fn what_only_the_server_writes_keeps_a_tunnel_open_too() {
    let mut connection = open_split(&[("SERVER__HTTP__UPGRADE_IDLE_TIMEOUT", "1s")]).await;
    // They take a second and a half.
    client(move || assert_eq!(connection.read_exactly(75), [b'.'; 75])).await;
}

#[tokio::test]
async fn a_writer_that_flushes_does_not_take_the_wakeup_of_the_reader() {
    let mut connection = open_split(&[]).await;
    client(move || {
        connection.read_exactly(5);
        connection.send("x");
        // As many marks as are on the way, and some more.
        assert!(connection.read_exactly(50).contains(&b'!'));
    })
    .await;
}

#[tokio::test]
async fn a_connect_tunnel_is_an_upgrade() {
    async fn connect(request: Request, next: Next) -> Response {
        if request.method() != Method::CONNECT {
            return next.run(request).await;
        }
        let mut response = tunnel(request).await;
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().clear();
        response
    }
    let settings = [("SERVER__HTTP__HEADER_TIMEOUT", "200ms")];
    let of_app = |_: &NoSettings| routes();
    let app = App::new(async |services: Services, _| Ok(services), of_app).layer(from_fn(connect));
    let app = TestApp::start(&SERVICE, app, &settings).await;
    let (server, drain, _serving) = app.listen().await;
    client(move || {
        let mut connection = Connection::open(server);
        let head =
            connection.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n").read_head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(connection.is_quiet_for(Duration::from_millis(500)));
        let text = "HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(connection.send(text).read_exactly(text.len()), text.as_bytes());
    })
    .await;
    until(|| drain.connections() == 0).await;
    assert_eq!(app.log().len(), 1, "{:#?}", app.log());
}

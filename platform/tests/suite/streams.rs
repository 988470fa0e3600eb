//! Long responses: WebSockets, server-sent events, downloads; and what ends them at a drain.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws;
use axum::http::{Request, Version};
use axum::middleware::{Next, from_fn};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use platform::App;
use platform::http::{Route, Routes, WebSocketUpgrade};
use platform::services::Services;
use platform::shutdown::Shutdown;
use platform::testing::{NoSettings, PATIENCE, SERVICE, TestApp, until};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Sends every message back.
async fn echo(upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// Counts once in 10 ms until the server drains, and says goodbye.
async fn count(shutdown: Shutdown) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold(0_u64, |tick| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((Ok(Event::default().data(tick.to_string())), tick + 1))
    });
    let end = async move { shutdown.begun().await };
    let goodbye = stream::once(async { Ok(Event::default().event("end").data("goodbye")) });
    Sse::new(ticks.take_until(Box::pin(end)).chain(goodbye)).keep_alive(KeepAlive::default())
}

const PIECE: usize = 64 << 10;
const DOWNLOAD: usize = 200 << 20;

/// 200 MB in pieces, and how much of it has been made so far.
fn download() -> (Body, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let pieces = (0..DOWNLOAD / PIECE).map(move |_| {
        count.fetch_add(PIECE, Ordering::SeqCst);
        Ok::<_, Infallible>(Bytes::from(vec![7_u8; PIECE]))
    });
    (Body::from_stream(stream::iter(pieces)), made)
}

fn routes() -> Routes<Services> {
    Routes::new().route(Route::at("/echo").get(echo)).route(Route::at("/count").get(count))
}

async fn open(server: SocketAddr) -> WebSocketStream<TcpStream> {
    open_at(server, "/echo").await
}

async fn open_at(server: SocketAddr, path: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(server).await.unwrap();
    tokio_tungstenite::client_async(format!("ws://{server}{path}"), stream).await.unwrap().0
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Result<Message, Error>> {
    tokio::time::timeout(PATIENCE, socket.next()).await.unwrap()
}

#[tokio::test]
async fn a_websocket_lives_past_every_timeout_while_it_talks_and_is_closed_with_1001_at_a_drain() {
    let settings = [
        ("SERVER__HTTP__HEADER_TIMEOUT", "500ms"),
        ("SERVER__HTTP__REQUEST_TIMEOUT", "500ms"),
        ("SERVER__HTTP__WRITE_TIMEOUT", "500ms"),
        ("SERVER__HTTP__UPGRADE_IDLE_TIMEOUT", "1s"),
    ];
    let app = TestApp::with_routes(routes(), &settings).await;
    let (server, drain, serving) = app.listen().await;
    let mut socket = open(server).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("hello"));
    }
    drain.start(Duration::from_hours(1));
    let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("not closed") };
    assert_eq!(u16::from(frame.code), 1001);
    assert!(next(&mut socket).await.is_none());
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    let log = app.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains(" path=/echo ") && log[0].contains(" status=101 "), "{log:?}");
}

#[tokio::test]
async fn a_websocket_is_a_stream_and_a_sink_whose_ends_can_be_apart() {
    let upper = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |socket| {
            let (sink, stream) = socket.split();
            let upper = stream.map_ok(|message| match message {
                ws::Message::Text(text) => ws::Message::text(text.to_uppercase()),
                other => other,
            });
            // In a task of its own: what ends it is the drain.
            drop(tokio::spawn(upper.forward(sink)).await);
        })
    };
    let routes: Routes<Services> = Routes::new().route(Route::at("/echo").get(upper));
    let (server, drain, serving) = TestApp::with_routes(routes, &[]).await.listen().await;
    let mut socket = open(server).await;
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text(text.to_uppercase()));
    }
    drain.start(Duration::from_hours(1));
    let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("not closed") };
    assert_eq!(u16::from(frame.code), 1001);
    assert!(next(&mut socket).await.is_none());
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_handler_that_goes_on_after_the_drain_has_begun_gets_nothing_more_and_cannot_send() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&seen);
    let handler = async move |upgrade: WebSocketUpgrade| {
        let to = Arc::clone(&to);
        upgrade.on_upgrade(async move |mut socket| {
            while socket.recv().await.is_some() {}
            let again = socket.recv().await.is_none();
            let refused = socket.send(ws::Message::text("late")).await.is_err();
            to.lock().unwrap().push((again, refused));
        })
    };
    let routes: Routes<Services> = Routes::new().route(Route::at("/echo").get(handler));
    let (server, drain, _serving) = TestApp::with_routes(routes, &[]).await.listen().await;
    let mut socket = open(server).await;
    drain.start(Duration::from_hours(1));
    let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("not closed") };
    assert_eq!(u16::from(frame.code), 1001);
    until(|| *seen.lock().unwrap() == [(true, true)]).await;
}

#[tokio::test]
async fn a_websocket_that_is_silent_on_both_sides_is_cut_and_its_permit_is_free_again() {
    let settings = [("SERVER__HTTP__UPGRADE_IDLE_TIMEOUT", "200ms"), ("SERVER__HTTP__MAX_CONNECTIONS", "1")];
    let app = TestApp::with_routes(routes(), &settings).await;
    let (server, drain, _serving) = app.listen().await;
    let mut silent = open(server).await;
    assert!(next(&mut silent).await.unwrap().is_err());
    until(|| drain.connections() == 0).await;
    open(server).await;
}

/// A handler that only waits for something else, as one that only pushes does, and what tells that it was dropped.
fn wait_for_ever(upgrade: WebSocketUpgrade, dropped: Arc<AtomicUsize>) -> axum::response::Response {
    struct OnDrop(Arc<AtomicUsize>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    upgrade.on_upgrade(async move |_socket| {
        let _guard = OnDrop(dropped);
        std::future::pending::<()>().await;
    })
}

async fn with_a_handler_that_waits(settings: &[(&str, &str)]) -> (TestApp, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let handler = async move |upgrade: WebSocketUpgrade| wait_for_ever(upgrade, Arc::clone(&counter));
    (TestApp::with_routes(Routes::new().route(Route::at("/echo").get(handler)), settings).await, dropped)
}

#[tokio::test]
async fn a_handler_that_does_not_read_is_closed_with_1001_and_dropped_at_the_deadline() {
    let (app, dropped) = with_a_handler_that_waits(&[]).await;
    let (server, drain, serving) = app.listen().await;
    let mut socket = open(server).await;
    drain.start(Duration::from_millis(500));
    let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("not closed") };
    assert_eq!((u16::from(frame.code), dropped.load(Ordering::SeqCst)), (1001, 0));
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    assert_eq!((dropped.load(Ordering::SeqCst), drain.connections(), app.log().len()), (1, 0, 1));
}

#[tokio::test]
async fn a_handler_that_neither_reads_nor_sends_is_dropped_after_the_idle_time() {
    let (app, dropped) = with_a_handler_that_waits(&[("SERVER__HTTP__UPGRADE_IDLE_TIMEOUT", "200ms")]).await;
    let (server, drain, _serving) = app.listen().await;
    drop(open(server).await);
    until(|| drain.connections() == 0).await;
    assert_eq!((dropped.load(Ordering::SeqCst), app.log().len()), (1, 1));
}

#[tokio::test]
async fn a_handler_that_only_sends_outlives_the_idle_time() {
    let push = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while socket.send(ws::Message::text("tick")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    let routes: Routes<Services> = Routes::new().route(Route::at("/echo").get(push));
    let app = TestApp::with_routes(routes, &[("SERVER__HTTP__UPGRADE_IDLE_TIMEOUT", "1s")]).await;
    let mut socket = open(app.listen().await.0).await;
    for _ in 0..30 {
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("tick"));
    }
}

#[tokio::test]
async fn a_websocket_passes_layers_and_mounted_routers_and_axum_s_own_is_cut_at_the_deadline() {
    async fn own_echo(upgrade: ws::WebSocketUpgrade) -> axum::response::Response {
        upgrade.on_upgrade(async |mut socket: ws::WebSocket| {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    }
    async fn pass(request: axum::extract::Request, next: Next) -> axum::response::Response {
        next.run(request).await
    }
    let mounted = axum::Router::new().route("/echo", axum::routing::any(own_echo));
    let routes = |_: &NoSettings| {
        let layered = Route::at("/layered/{id}").get(echo).layer(from_fn(pass));
        Routes::new().route(layered).mount("/mounted", mounted)
    };
    let app = App::new(async |services: Services, _| Ok(services), routes).layer(from_fn(pass));
    let app = TestApp::start(&SERVICE, app, &[]).await;
    let (server, drain, serving) = app.listen().await;
    let mut sockets = [open_at(server, "/layered/1").await, open_at(server, "/mounted/echo").await];
    for socket in &mut sockets {
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(socket).await.unwrap().unwrap(), Message::text("hello"));
    }
    assert_eq!(drain.connections(), 2);
    drain.start(Duration::from_millis(500));
    let [layered, own] = &mut sockets;
    assert!(matches!(next(layered).await, Some(Ok(Message::Close(Some(_))))));
    // Nobody has told it: axum's own WebSocket ends without a close frame.
    assert!(next(own).await.unwrap().is_err());
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    let mut log = app.log();
    log.sort_unstable_by_key(|line| line.contains("/mounted"));
    assert!(log[0].contains(" route=/layered/{id} ") && log[0].contains(" status=101 "), "{log:?}");
    assert!(log[1].contains(" route=/mounted/* ") && log[1].contains(" status=101 "), "{log:?}");
}

#[tokio::test]
async fn server_sent_events_end_with_a_goodbye_when_the_server_drains() {
    let (server, drain, serving) = TestApp::with_routes(routes(), &[]).await.listen().await;
    let mut response = reqwest::get(format!("http://{server}/count")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    // The first event comes long before the last one: nothing holds it back.
    let first = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
    assert!(first.starts_with(b"data: 0\n\n"), "{first:?}");
    drain.start(Duration::from_hours(1));
    let mut text = String::new();
    while let Some(chunk) = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap() {
        text.push_str(str::from_utf8(&chunk).unwrap());
    }
    assert!(text.ends_with("event: end\ndata: goodbye\n\n"), "{text}");
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

/// Reads a download to its end; the most bytes of it that were in memory between the handler and here.
async fn most_in_memory(whole_at_once: bool) -> usize {
    let (body, made) = download();
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = async move || {
        let body = body.lock().unwrap().take().unwrap();
        if whole_at_once { Body::from(body.collect().await.unwrap().to_bytes()) } else { body }
    };
    let routes = Routes::new().route(Route::at("/download").get(handler));
    let server = TestApp::with_routes(routes, &[]).await.listen().await.0;
    let mut response = reqwest::get(format!("http://{server}/download")).await.unwrap();
    let (mut read, mut most) = (0, 0);
    while let Some(chunk) = response.chunk().await.unwrap() {
        most = most.max(made.load(Ordering::SeqCst) - read);
        read += chunk.len();
    }
    assert_eq!(read, DOWNLOAD);
    most
}

#[tokio::test]
async fn a_streamed_response_of_200_mb_takes_bounded_memory() {
    // What the buffers of hyper and of both sockets hold.
    let most = most_in_memory(false).await;
    assert!(most < 20 << 20, "{} MB", most >> 20);
    // The control: a response that is collected first. It cannot miss it: all of it is made before the first piece is read.
    assert_eq!(most_in_memory(true).await, DOWNLOAD);
}

/// A client of HTTP/2 that grants each response so many bytes until it reads, and the end of its connection.
async fn http2_with_window(server: SocketAddr, window: u32) -> (http2::SendRequest<Body>, JoinHandle<()>) {
    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let mut client = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.initial_stream_window_size(window).handshake(stream).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

#[tokio::test]
async fn over_http_2_a_client_that_takes_nothing_is_cut_and_one_whose_handler_waits_is_not() {
    let go_on = Arc::new(Notify::new());
    let gate = Arc::clone(&go_on);
    let waits = move || {
        let gate = Arc::clone(&gate);
        let first = stream::once(async { Ok::<_, Infallible>("first") });
        Body::from_stream(first.chain(stream::once(async move {
            gate.notified().await;
            Ok("second")
        })))
    };
    let routes = Routes::new()
        .route(Route::at("/small").get(async || "small"))
        .route(Route::at("/large").get(async || "x".repeat(1 << 20)))
        .route(Route::at("/endless").get(async || download().0))
        .route(Route::at("/waits").get(async move || waits()));
    let app = TestApp::with_routes(routes, &[("SERVER__HTTP__WRITE_TIMEOUT", "200ms")]).await;
    let server = app.listen().await.0;
    let get = |path: &str| {
        let request = Request::get(format!("http://localhost{path}")).version(Version::HTTP_2);
        request.body(Body::empty()).unwrap()
    };
    // Asked before the others, so that its time would be over before theirs.
    let (mut patient, _connection) = http2_with_window(server, 65_535).await;
    let mut waiting = patient.send_request(get("/waits")).await.unwrap().into_body();
    assert_eq!(waiting.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    for (window, path) in [(0, "/small"), (0, "/large"), (1_000, "/large"), (65_535, "/endless")] {
        let (mut client, connection) = http2_with_window(server, window).await;
        let response = client.send_request(get(path)).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, connection).await;
        assert!(ended.is_ok(), "{path} with a window of {window} bytes");
        drop(response);
    }
    until(|| app.log().iter().any(|line| line.contains(" path=/endless ") && line.contains(" aborted=true")))
        .await;
    go_on.notify_one();
    assert_eq!(waiting.frame().await.unwrap().unwrap().into_data().unwrap(), "second");
}

#[tokio::test]
async fn over_http_2_a_response_in_one_piece_comes_whole_through_any_window() {
    let text: String =
        (0..100_000).map(|number| char::from(b'a' + u8::try_from(number % 26).unwrap())).collect();
    let sent = text.clone();
    let routes = Routes::new().route(Route::at("/").get(move || std::future::ready(sent.clone())));
    let app = TestApp::with_routes(routes, &[]).await;
    let server = app.listen().await.0;
    for window in [1_000, 16_384, 100_000] {
        let (mut client, _connection) = http2_with_window(server, window).await;
        let request = Request::get("http://localhost/").version(Version::HTTP_2).body(Body::empty());
        let response = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-length"], "100000");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body == text, "a window of {window} bytes");
    }
}

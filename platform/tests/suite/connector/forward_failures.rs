//! Requests that are forwarded to an upstream that fails, or by a client that does.

use std::time::{Duration, Instant};

use platform::http::{Route, Routes};
use platform::testing::{Connection, PATIENCE, TestApp, client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::forward::{OK, Raw, exchange, proxy, read_request, routes};
use super::{Backend, app_with};

#[tokio::test]
async fn only_what_is_idempotent_and_has_sent_nothing_is_repeated() {
    let put = "PUT /proxy/a HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";
    for (request, responses, status, attempts) in [
        ("GET /proxy/a HTTP/1.1\r\n\r\n", &["", "", OK][..], 200, 3),
        ("DELETE /proxy/a HTTP/1.1\r\n\r\n", &["", OK], 200, 2),
        ("GET /proxy/a HTTP/1.1\r\n\r\n", &[""], 502, 3),
        ("POST /proxy/a HTTP/1.1\r\n\r\n", &["", OK], 502, 1),
        (put, &["", OK], 502, 1),
        (
            "GET /proxy/a HTTP/1.1\r\n\r\n",
            &["HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"],
            502,
            3,
        ),
        ("GET /proxy/a HTTP/1.1\r\n\r\n", &["HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", OK], 503, 1),
        // It switches to what it was not asked for.
        (
            "POST /proxy/a HTTP/1.1\r\n\r\n",
            &["HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"],
            502,
            1,
        ),
    ] {
        let upstream = Raw::start(responses).await;
        let (_app, server) = proxy(&upstream.url(), &[]).await;
        let response = exchange(server, request).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
        assert_eq!(upstream.requests().len(), attempts, "{request}");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_respond_is_502_503_or_504() {
    let unbound = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (app, server) = proxy(&format!("http://{unbound}"), &[("BREAKER__MIN_CALLS", "3")]).await;
    let get = "GET /proxy/a?token=hunter2 HTTP/1.1\r\n\r\n";
    let response = exchange(server, get).await;
    assert!(response.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{response}");
    // The three attempts have opened the breaker.
    let response = exchange(server, get).await;
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("retry-after: "), "{response}");
    assert!(!app.log().join("\n").contains("hunter2"), "{:#?}", app.log());

    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (_app, server) = proxy(&url, &[("FORWARD__IDLE_TIMEOUT", "200ms")]).await;
    let response = exchange(server, get).await;
    assert!(response.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{response}");

    let (_app, server) = proxy(&url, &[("CONCURRENCY", "1"), ("FORWARD__IDLE_TIMEOUT", "5m")]).await;
    client(move || {
        let mut first = Connection::open(server);
        first.send("GET /proxy/a HTTP/1.1\r\nHost: a\r\n\r\n");
        // It holds the only permit, as soon as it has arrived.
        let refused = |connection: &mut Connection| {
            connection.send("GET /proxy/a HTTP/1.1\r\nHost: a\r\n\r\n");
            !connection.is_quiet_for(Duration::from_millis(500))
        };
        let mut other = Connection::open(server);
        while !refused(&mut other) {
            std::mem::swap(&mut first, &mut other);
            other = Connection::open(server);
        }
        let response = other.read_response();
        assert!(
            response.starts_with("HTTP/1.1 503 ") && response.contains("retry-after: 1\r\n"),
            "{response}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_falls_silent_in_its_body_is_cut_and_so_is_the_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_app, server) = proxy(&url, &[("FORWARD__IDLE_TIMEOUT", "1s")]).await;
    let upstream = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        read_request(&mut stream).await.unwrap();
        // Slow, but never silent for long.
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(b"1\r\nx\r\n").await.unwrap();
        }
        // Until this server closes its side.
        stream.read_u8().await.unwrap_err()
    });
    let response = exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains("1\r\nx\r\n"), "{response}");
    // The client can tell that it is not complete.
    assert!(!response.contains("0\r\n\r\n"), "{response}");
    upstream.await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_request_to_the_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let variables = [
        ("SERVER__UPSTREAMS__BACKEND__URL", &*url),
        ("SERVER__UPSTREAMS__BACKEND__FORWARD__IDLE_TIMEOUT", "5m"),
        ("SERVER__HTTP__WRITE_TIMEOUT", "100ms"),
    ];
    let app = TestApp::with_routes(routes(), &variables).await;
    let server = app.listen().await.0;
    let (arrived, has_arrived) = std::sync::mpsc::channel();
    let upstream = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        read_request(&mut stream).await.unwrap();
        arrived.send(()).unwrap();
        stream.read_u8().await.unwrap_err()
    });
    client(move || {
        let mut connection = Connection::open(server);
        connection.send("GET /proxy/a HTTP/1.1\r\nHost: a\r\n\r\n");
        // Until it is with the upstream.
        has_arrived.recv_timeout(PATIENCE).unwrap();
    })
    .await;
    // It waits for an end of its connection.
    upstream.await.unwrap();
}

#[tokio::test]
async fn a_client_that_breaks_off_its_body_is_no_failure_of_the_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = [
        ("SERVER__UPSTREAMS__BACKEND__URL", &*url),
        ("SERVER__UPSTREAMS__BACKEND__BREAKER__MIN_CALLS", "1"),
        ("SERVER__UPSTREAMS__BACKEND__FORWARD__IDLE_TIMEOUT", "1s"),
        ("SERVER__HTTP__BODY_GRACE", "2s"),
        ("SERVER__HTTP__BODY_MIN_RATE", "1000"),
    ];
    let app = TestApp::with_routes(routes(), &settings).await;
    let server = app.listen().await.0;
    let upstream = tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            tokio::spawn(async move {
                if read_request(&mut stream).await.is_some() {
                    let _ = stream.write_all(OK.as_bytes()).await;
                }
            });
        }
    });
    // It stalls for longer than the upstream may: that time is not the upstream's.
    let response = exchange(server, "POST /proxy/a HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc").await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    // The breaker, which one failure would open, is closed.
    let response = exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    upstream.abort();
}

#[tokio::test]
async fn a_url_that_answers_500_does_not_close_the_way_to_the_others() {
    for (status, then) in [(500, 200), (501, 200), (502, 503), (503, 503), (504, 503)] {
        let failing = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        let upstream = Raw::start(&[&failing, OK]).await;
        let (_app, server) = proxy(&upstream.url(), &[("BREAKER__MIN_CALLS", "1")]).await;
        for expected in [status, then] {
            let response = exchange(server, "GET /proxy/a HTTP/1.1\r\n\r\n").await;
            assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")), "{status}: {response}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_opens_the_breaker_and_a_caller_in_a_hurry_does_not() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let settings =
        |attempt| [("BREAKER__MIN_CALLS", "1"), ("BREAKER__OPEN_FOR", "10m"), ("ATTEMPT_TIMEOUT", attempt)];
    let ask =
        async |server, head: &str| exchange(server, format!("GET /proxy/a HTTP/1.1\r\n{head}\r\n")).await;
    let is_open = |app: &TestApp| app.log().iter().any(|line| line.contains("failed too often"));
    let (app, server) = proxy(&format!("http://{address}"), &settings("1m")).await;
    for _ in 0..3 {
        let response = ask(server, "X-Request-Timeout-Ms: 50\r\n").await;
        assert!(response.starts_with("HTTP/1.1 50"), "{response}");
    }
    assert!(!is_open(&app), "{:?}", app.log());
    // The time of the route is over long before `forward.idle_timeout` is.
    let route = Route::forward::<Backend>("/proxy").timeout(Duration::from_secs(2));
    let routes = Routes::new().route(route);
    let app = app_with(&format!("http://{address}"), &settings("500ms"), routes).await;
    let server = app.listen().await.0;
    let start = Instant::now();
    while !is_open(&app) {
        assert!(start.elapsed() < PATIENCE, "{:?}", app.log());
        ask(server, "").await;
    }
    // A connection has less time than a response: here it waits for TLS.
    let (app, server) = proxy(&format!("https://{address}"), &settings("500ms")).await;
    let response = ask(server, "").await;
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert!(app.log().iter().any(|line| line.contains("timed out: ")), "{:?}", app.log());
    ask(server, "").await;
    assert!(is_open(&app), "{:?}", app.log());
}

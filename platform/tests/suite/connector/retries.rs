//! What is repeated, how often, and when an upstream is left alone.

use std::time::{Duration, Instant};

use platform::connector::Cause;
use platform::error::Error;
use tokio::net::TcpListener;

use super::script::{Act, Scripted, ok, response, status};
use super::{app_with, start};

const BROKEN: &[u8] = b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhalf";

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_until_it_succeeds() {
    for trouble in [
        status(503),
        status(502),
        status(504),
        status(429),
        Act::Reset,
        Act::Send(vec![]),
        Act::Send(BROKEN.to_vec()),
        Act::Send(b"nonsense\r\n\r\n".to_vec()),
    ] {
        let (upstream, connector) = start(&[trouble.clone(), trouble.clone(), ok("fine")], &[]).await;
        let response = connector.get("/x").send().await;
        assert_eq!(&response.unwrap().bytes()[..], b"fine", "{trouble:?}");
        assert_eq!(upstream.count(), 3, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_status_that_stays_is_not_tried_again() {
    for code in [301, 304, 400, 401, 404, 409, 500, 501] {
        let (upstream, connector) = start(&[response(code, "location: /elsewhere\r\n", "")], &[]).await;
        let error = connector.get("/x").send().await.unwrap_err();
        assert_eq!((error.status(), upstream.count()), (Some(code), 1));
        assert_eq!(Error::from(error).status(), 502);
        let response = connector.get("/x").any_status().send().await.unwrap();
        assert_eq!(response.status().as_u16(), code);
    }
}

#[tokio::test]
async fn only_what_can_be_repeated_is_repeated() {
    for trouble in [status(503), Act::Reset] {
        let (upstream, connector) = start(&[trouble], &[]).await;
        connector.post("/x").body("a").send().await.unwrap_err();
        assert_eq!(upstream.count(), 1);
        connector.post("/x").body("a").idempotency_key("7").send().await.unwrap_err();
        assert_eq!(upstream.count(), 1 + 3);
        connector.put("/x").body("a").send().await.unwrap_err();
        connector.delete("/x").send().await.unwrap_err();
        assert_eq!(upstream.count(), 1 + 3 + 3 + 3);
    }
}

#[tokio::test]
async fn the_last_failure_is_the_error_and_any_status_shows_its_response() {
    let (upstream, connector) = start(&[status(502), response(503, "retry-after: 0\r\n", "why")], &[]).await;
    let error = connector.get("/x").send().await.unwrap_err();
    assert_eq!(error.cause(), Cause::Status { status: 503, retry_after: Some(Duration::ZERO) });
    assert_eq!((Error::from(error).status(), upstream.count()), (503, 3));
    let response = connector.get("/x").any_status().send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.bytes()[..]), (503, &b"why"[..]));
    assert_eq!(upstream.count(), 6);
}

#[tokio::test]
async fn a_closed_port_is_refused_and_tried_again() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let app = app_with(&url, &[], platform::http::Routes::new()).await;
    let error = app.services().connector("backend").unwrap().get("/").send().await.unwrap_err();
    assert_eq!(error.cause(), Cause::Refused, "{error}");
    assert_eq!(Error::from(error).status(), 502);
}

#[tokio::test]
async fn a_silent_upstream_costs_the_attempt_timeout_and_then_the_timeout() {
    for silent in [Act::Stall(vec![]), Act::Stall(BROKEN.to_vec()), Act::Drip(Duration::from_millis(20))] {
        // Long enough for the second attempt on a machine that is busy.
        let settings = [("ATTEMPT_TIMEOUT", "1s"), ("TIMEOUT", "20s")];
        let (upstream, connector) = start(&[silent.clone(), ok("fine")], &settings).await;
        assert_eq!(&connector.get("/x").send().await.unwrap().bytes()[..], b"fine");
        assert_eq!(upstream.count(), 2);
        let settings = [("ATTEMPT_TIMEOUT", "20s"), ("TIMEOUT", "1s")];
        let (upstream, connector) = start(std::slice::from_ref(&silent), &settings).await;
        let started = Instant::now();
        let error = connector.get("/x").send().await.unwrap_err();
        assert_eq!(error.cause(), Cause::TimedOut { by_request: false });
        assert_eq!((Error::from(error).status(), upstream.count()), (504, 1));
        assert!(started.elapsed() >= Duration::from_secs(1) && started.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_where_the_timeout_allows_it() {
    for code in [429, 503] {
        let (_upstream, connector) =
            start(&[response(code, "retry-after: 1\r\n", ""), ok("fine")], &[]).await;
        let started = Instant::now();
        assert_eq!(&connector.get("/x").send().await.unwrap().bytes()[..], b"fine");
        assert!(started.elapsed() >= Duration::from_secs(1));
        // Too long, as seconds and as a date: it fails at once, and the caller is told.
        for wait in ["3600", "Tue, 31 Dec 2999 23:59:59 GMT", "18446744073709551615"] {
            let head = format!("retry-after: {wait}\r\n");
            let (upstream, connector) = start(&[response(code, &head, "")], &[]).await;
            let started = Instant::now();
            let error = connector.get("/x").send().await.unwrap_err();
            assert!(started.elapsed() < Duration::from_secs(3) && upstream.count() == 1, "{wait}");
            assert!(error.retry_after().unwrap() >= Duration::from_hours(1));
            let error = Error::from(error);
            assert_eq!((error.status(), error.headers()[0].0), (503, "retry-after"));
        }
    }
}

#[tokio::test]
async fn a_dead_upstream_gets_a_fifth_more_requests_at_most() {
    let settings = [("RETRY_RESERVE", "5"), ("BREAKER__MIN_CALLS", "1000000"), ("ATTEMPTS", "10")];
    let (upstream, connector) = start(&[status(503)], &settings).await;
    for _ in 0..100 {
        connector.get("/x").send().await.unwrap_err();
    }
    assert!((100 + 20..=100 + 20 + 5).contains(&upstream.count()), "{}", upstream.count());
    // The control: a budget of its own for each attempt.
    let settings = [("RETRY_PERCENT", "900"), ("BREAKER__MIN_CALLS", "1000000"), ("ATTEMPTS", "10")];
    let (upstream, connector) = start(&[status(503)], &settings).await;
    for _ in 0..10 {
        connector.get("/x").send().await.unwrap_err();
    }
    assert_eq!(upstream.count(), 100);
}

#[tokio::test]
async fn the_breaker_opens_lets_one_probe_through_and_closes() {
    let settings = [
        ("ATTEMPTS", "1"),
        ("BREAKER__MIN_CALLS", "4"),
        // Long enough for the call after the one that opens it, on a machine that is busy.
        ("BREAKER__OPEN_FOR", "2s"),
        ("ATTEMPT_TIMEOUT", "5s"),
    ];
    let head = b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n".to_vec();
    let script = [status(500), status(500), status(500), status(500), Act::Stall(head), ok("fine")];
    let (upstream, connector) = start(&script, &settings).await;
    for _ in 0..4 {
        assert_eq!(connector.get("/x").send().await.unwrap_err().status(), Some(500));
    }
    let error = connector.get("/x").send().await.unwrap_err();
    assert!(matches!(error.cause(), Cause::BreakerOpen { .. }), "{error}");
    assert_eq!((Error::from(error).status(), upstream.count()), (503, 4));
    tokio::time::sleep(Duration::from_millis(2_010)).await;
    // The probe hangs: the others are not let through.
    let probe = tokio::spawn(connector.get("/x").send());
    while upstream.count() < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..10 {
        let error = connector.get("/x").send().await.unwrap_err();
        assert!(matches!(error.cause(), Cause::BreakerOpen { .. }), "{error}");
    }
    assert_eq!(upstream.count(), 5);
    // Its caller goes away: the next call is the probe, and closes the breaker.
    probe.abort();
    assert!(probe.await.is_err());
    for _ in 0..3 {
        assert_eq!(&connector.get("/x").send().await.unwrap().bytes()[..], b"fine");
    }
    assert_eq!(upstream.count(), 8);
}

#[tokio::test]
async fn a_call_too_many_fails_at_once() {
    let upstream = Scripted::start(&[Act::Stall(vec![])]).await;
    let app = app_with(&upstream.url(), &[("CONCURRENCY", "2")], platform::http::Routes::new()).await;
    let connector = app.services().connector("backend").unwrap();
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(connector.get("/x").send())).collect();
    while upstream.count() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = connector.get("/x").send().await.unwrap_err();
    assert_eq!(error.cause(), Cause::Overloaded);
    let error = Error::from(error);
    assert_eq!((error.status(), error.headers()), (503, &[("retry-after", "1".to_owned())][..]));
    assert_eq!(upstream.count(), 2);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

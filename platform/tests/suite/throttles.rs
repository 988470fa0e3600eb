//! `Route::throttle`: one limit for all processes that share a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use platform::App;
use platform::auth::Limit;
use platform::clock::Clock;
use platform::http::{Route, Routes};
use platform::services::Services;
use platform::testing::{Connection, NoSettings, SERVICE, TestApp};

/// Three at once, and one a minute.
const LIMIT: Limit = Limit::new(3, Duration::from_mins(1));

fn routes(handled: &Arc<AtomicUsize>) -> Routes<Services> {
    let counting = || {
        let handled = Arc::clone(handled);
        async move || {
            handled.fetch_add(1, Ordering::SeqCst);
            ""
        }
    };
    Routes::new()
        .route(Route::at("/shared/{id}").get(counting()).throttle(LIMIT))
        .route(Route::at("/own/{id}").get(counting()).rate_limit(1, 3))
}

async fn start(handled: &Arc<AtomicUsize>, clock: &Clock, environment: &[(&str, &str)]) -> TestApp {
    let routes = routes(handled);
    let app = App::new(async |services, _| Ok(services), move |_: &NoSettings| routes).clock(clock.clone());
    TestApp::start(&SERVICE, app, environment).await
}

fn clock() -> Clock {
    Clock::starting_at("2026-12-01T00:00:00Z".parse().unwrap())
}

/// How many of 8 requests are let in by this server. The others get 429 and are told when to come again.
async fn let_in(
    app: &TestApp,
    path: &'static str,
    forwarded: impl Fn(usize) -> String + Send + 'static,
) -> usize {
    let address = app.listen().await.0;
    let send = move |number| {
        let head = format!("GET {path}{number} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        let head = format!("{head}x-forwarded-for: {}\r\n\r\n", forwarded(number));
        let response = Connection::open(address).send(head).read_to_end();
        let is_let_in = response.starts_with("HTTP/1.1 200 ");
        let wait = response.lines().find_map(|line| line.strip_prefix("retry-after: "));
        assert_eq!(response.starts_with("HTTP/1.1 429 "), !is_let_in, "{response}");
        assert_eq!(
            wait.is_some_and(|wait| (1..=60).contains(&wait.parse().unwrap())),
            !is_let_in,
            "{response}"
        );
        is_let_in
    };
    tokio::task::spawn_blocking(move || (0..8).filter(|number| send(*number)).count()).await.unwrap()
}

fn other(number: usize) -> String {
    format!("192.0.2.{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_hold_one_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.sqlite").display());
    let (handled, clock, mut apps) = (Arc::default(), clock(), Vec::new());
    for _ in 0..4 {
        apps.push(start(&handled, &clock, &[("SERVER__STORE__URL", &store)]).await);
    }
    let total = async |path| {
        let mut total = 0;
        for app in &apps {
            total += let_in(app, path, other).await;
        }
        assert_eq!(handled.swap(0, Ordering::SeqCst), total);
        total
    };
    // All paths of the route are one.
    assert_eq!(total("/shared/").await, 3);
    clock.move_by(SignedDuration::from_mins(2));
    assert_eq!(total("/shared/").await, 2);
    // The control: a limit in memory lets four times as many in.
    assert_eq!(total("/own/").await, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_x_forwarded_for_changes_no_bucket() {
    let app = start(&Arc::default(), &clock(), &[]).await;
    assert_eq!(let_in(&app, "/shared/", other).await, 3);
    // The control: a trusted proxy is believed.
    let app = start(&Arc::default(), &clock(), &[("SERVER__HTTP__TRUSTED_PROXIES", "[127.0.0.1]")]).await;
    assert_eq!(let_in(&app, "/shared/", other).await, 8);
    // The 64 bits of a network are one client.
    assert_eq!(let_in(&app, "/shared/", |number| format!("2001:db8::{number}")).await, 3);
}

#[tokio::test]
async fn while_the_store_is_down_nobody_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.sqlite").display());
    let handled = Arc::default();
    let app = start(&handled, &clock(), &[("SERVER__STORE__URL", &store)]).await;
    app.services().close().await;
    assert_eq!(app.get("/shared/1").await.status, 503);
    assert_eq!(handled.load(Ordering::SeqCst), 0);
    // The control: the server responds.
    assert_eq!(app.get("/own/1").await.status, 200);
}

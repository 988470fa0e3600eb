//! What a request has to pass first: allowed hosts, the rate of its client, and the requests at a time.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use platform::http::{Route, Routes};
use platform::services::Services;
use platform::testing::{Connection, TestApp, client, until};
use tokio::sync::Semaphore;

fn routes() -> Routes<Services> {
    Routes::new().route(Route::at("/work").get(async || "done")).merge(platform::http::health::routes())
}

const PROBES: [&str; 3] = ["/live", "/ready", "/ping"];

#[tokio::test]
async fn another_host_is_misdirected_but_for_the_probes() {
    let hosts = [("SERVER__HTTP__ALLOWED_HOSTS", "[example.org, '*.example.com']")];
    let app = TestApp::with_routes(routes(), &hosts).await;
    let ask = async |host: &str, path: &str| app.call(Method::GET, path, &[("host", host)], "").await;
    for host in ["example.org", "Example.org:5000", "a.example.com"] {
        assert_eq!(ask(host, "/work").await.status, 200, "{host}");
    }
    for host in ["example.com", "evil.example", "10.0.0.1:5000", ""] {
        let response = ask(host, "/work").await;
        assert_eq!(response.status_line(), "421 Misdirected Request", "{host}");
        assert_eq!(response.json()["code"], 421);
        assert_eq!(ask(host, "/nowhere").await.status, 421, "{host}");
        for probe in PROBES {
            assert_eq!(ask(host, probe).await.status, 200, "{host} {probe}");
        }
    }
    // The control: without the setting, any name will do.
    let any = TestApp::with_routes(routes(), &[]).await;
    assert_eq!(any.call(Method::GET, "/work", &[("host", "evil.example")], "").await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_too_much_is_429_but_for_the_probes() {
    let limit = [
        ("SERVER__HTTP__RATE_LIMIT", "1"),
        ("SERVER__HTTP__RATE_LIMIT_BURST", "2"),
        ("SERVER__HTTP__TRUSTED_PROXIES", "[127.0.0.1]"),
    ];
    let app = TestApp::with_routes(routes(), &limit).await;
    let server = app.listen().await.0;
    client(move || {
        let mut connection = Connection::open(server);
        let mut ask = |path: &str, client: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
            connection.send(head).read_response()
        };
        for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            for _ in 0..2 {
                assert!(ask("/work", client).starts_with("HTTP/1.1 200 "));
            }
            let response = ask("/work", client);
            assert!(response.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{response}");
            let wait = response.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            assert!((1..=60).contains(&wait.unwrap().parse().unwrap()), "{response}");
            assert!(response.contains(r#""code":429"#), "{response}");
            for probe in PROBES {
                assert!(ask(probe, client).starts_with("HTTP/1.1 200 "));
            }
        }
        assert!(ask("/work", "2001:db8::2").starts_with("HTTP/1.1 429 "));
    })
    .await;
}

/// At this many times its capacity, a server does as much as it can, and refuses the rest at once.
async fn overloaded(times: usize) {
    const CAPACITY: usize = 4;
    let (entered, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (inside, go) = (Arc::clone(&entered), Arc::clone(&release));
    let work = async move |State(_): State<Services>| {
        inside.add_permits(1);
        go.acquire().await.unwrap().forget();
        "done"
    };
    let routes = routes().route(Route::at("/slow").get(work));
    let settings = [("SERVER__HTTP__MAX_IN_FLIGHT", CAPACITY.to_string())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let app = TestApp::with_routes(routes, &settings).await;
    let server = app.listen().await.0;
    for round in 1..=2 {
        let sent: Vec<_> = (0..CAPACITY)
            .map(|_| {
                tokio::task::spawn_blocking(move || {
                    let head = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
                    Connection::open(server).send(head).read_response()
                })
            })
            .collect();
        until(|| entered.available_permits() == CAPACITY * round).await;
        for _ in 0..CAPACITY * (times - 1) {
            let response = app.get("/slow").await;
            assert_eq!(response.status_line(), "503 Too Many Requests In Flight");
            assert_eq!(response.header("retry-after"), Some("1"));
            assert_eq!(response.json()["code"], 503);
        }
        for probe in PROBES {
            assert_eq!(app.get(probe).await.status, 200, "{probe}");
        }
        // No handler was called for what was refused.
        assert_eq!(entered.available_permits(), CAPACITY * round);
        release.add_permits(CAPACITY);
        for one in sent {
            assert!(one.await.unwrap().starts_with("HTTP/1.1 200 "));
        }
    }
}

#[tokio::test]
async fn at_twice_the_capacity_the_rest_is_refused_at_once() {
    overloaded(2).await;
}

#[tokio::test]
async fn at_five_times_the_capacity_the_rest_is_refused_at_once() {
    overloaded(5).await;
}

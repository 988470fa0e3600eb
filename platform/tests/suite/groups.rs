//! Groups of routes below a path, with settings of their own and a fallback; and the limits of one route.

use std::time::Duration;

use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use platform::error::Error;
use platform::http::{Cors, Limits, Path, Route, Routes};
use platform::services::Services;
use platform::testing::{Connection, TestApp, client};

use crate::handlers::length;

async fn mark(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-group", HeaderValue::from_static("v1"));
    response
}

async fn wait() -> &'static str {
    tokio::time::sleep(Duration::from_hours(1)).await;
    "never"
}

fn group() -> Routes<Services> {
    Routes::new()
        .route(Route::at("/").get(async || "root"))
        .route(Route::at("/items/{id}").get(async |Path(id): Path<String>| id))
        .route(Route::at("/of/{user}").get(async |Path(all): Path<(String, String)>| format!("{all:?}")))
        .route(Route::at("/length").post(length))
        .route(Route::at("/large").post(length).body_limit(1_000))
        .route(Route::at("/wait").get(wait))
        .route(Route::at("/other").get(async || "other").cors(Cors::origins([])))
        .fallback(async || Error::not_found("No Such Path In V1"))
        .cors(Cors::any())
        .limits(Limits::default().body_limit(10).timeout(Duration::from_millis(50)))
        .layer(from_fn(mark))
}

fn routes() -> Routes<Services> {
    Routes::new()
        .nest("/v1", group())
        .nest("/tenants/{tenant}/", group())
        .route(Route::at("/plain").get(async || "plain").post(length))
}

#[tokio::test]
async fn nested_routes_are_found_below_their_path_with_all_parameters() {
    let app = TestApp::with_routes(routes(), &[]).await;
    for (path, body) in [
        ("/v1", "root"),
        ("/v1/", "root"),
        ("/v1/items/7", "7"),
        ("/v1/items/7/", "7"),
        ("/tenants/a", "root"),
        ("/tenants/a/of/b", r#"("a", "b")"#),
        ("/plain", "plain"),
    ] {
        let response = app.get(path).await;
        assert_eq!(
            (response.status.as_u16(), String::from_utf8_lossy(&response.body).as_ref()),
            (200, body),
            "{path}"
        );
    }
    assert!(app.log()[2].contains(" route=/v1/items/{id} "), "{:?}", app.log());
    // The control: they are not found anywhere else.
    assert_eq!(app.get("/items/7").await.status_line(), "404 Unknown Endpoint");
}

#[tokio::test]
async fn a_group_has_its_cors_limits_and_layers_and_a_route_its_own() {
    let app = TestApp::with_routes(routes(), &[]).await;
    let origin = [("origin", "https://a.example")];
    let allowed = async |path| {
        let response = app.call(Method::GET, path, &origin, "").await;
        response.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(allowed("/v1").await.as_deref(), Some("*"));
    assert_eq!((allowed("/v1/other").await, allowed("/plain").await), (None, None));
    for (path, status) in [("/v1/length", 413), ("/v1/large", 200), ("/plain", 200)] {
        assert_eq!(app.post(path, "x".repeat(11)).await.status, status, "{path}");
    }
    assert_eq!(app.get("/v1/wait").await.status_line(), "503 Request Timed Out");
    for (path, group) in [("/v1", Some("v1")), ("/v1/nowhere", Some("v1")), ("/plain", None)] {
        assert_eq!(app.get(path).await.header("x-group"), group, "{path}");
    }
}

#[tokio::test]
async fn a_fallback_responds_where_no_other_route_of_its_group_matches() {
    let routes = routes().fallback(async |method: Method| format!("all: {method}"));
    let app = TestApp::with_routes(routes, &[]).await;
    for path in ["/v1/nowhere", "/v1/items/7/8", "/v1/items", "/tenants/a/nowhere"] {
        assert_eq!(app.get(path).await.status_line(), "404 No Such Path In V1", "{path}");
    }
    for path in ["/nowhere", "/", "/v2/items", "/tenants"] {
        let response = app.call(Method::DELETE, path, &[], "").await;
        assert_eq!((response.status.as_u16(), &response.body[..]), (200, &b"all: DELETE"[..]), "{path}");
    }
    // A path that exists keeps its own answers.
    assert_eq!(app.call(Method::DELETE, "/v1/items/7", &[], "").await.status, 405);
    assert_eq!(app.call(Method::DELETE, "/plain", &[], "").await.status, 405);
}

#[tokio::test]
async fn a_route_has_a_rate_limit_and_a_minimum_rate_of_its_own() {
    let routes: Routes<Services> = Routes::new()
        .route(Route::at("/rare").get(async || "rare").rate_limit(1, 2))
        .route(Route::at("/often").get(async || "often"))
        .route(Route::at("/slow").post(length).body_min_rate(0))
        .route(Route::at("/fast").post(length).body_min_rate(1_000_000));
    let settings = [("SERVER__HTTP__BODY_GRACE", "0s"), ("SERVER__HTTP__BODY_MIN_RATE", "100000")];
    let server = TestApp::with_routes(routes, &settings).await.listen().await.0;
    client(move || {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut connection = Connection::open(server);
        for (path, status) in
            [("/rare", 200), ("/rare", 200), ("/rare", 429), ("/often", 200), ("/rare", 429)]
        {
            let response = connection.send(get(path)).read_response();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {response}");
        }
        let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1");
        let (mut slow, mut fast) = (Connection::open(server), Connection::open(server));
        slow.send(post("/slow"));
        // The control: with a minimum, a body that stops for this long is refused. Nothing more is sent until it is.
        let refused = fast.send(post("/fast")).read_to_end();
        assert!(refused.starts_with("HTTP/1.1 408 "), "{refused}");
        assert!(slow.send("2").read_response().starts_with("HTTP/1.1 200 "));
    })
    .await;
}

#[tokio::test]
async fn a_handler_has_no_longer_than_its_caller_waits() {
    let routes: Routes<Services> = Routes::new()
        .route(Route::at("/wait").get(wait))
        .route(Route::at("/short").get(wait).timeout(Duration::from_millis(20)))
        .route(Route::at("/other").get(async || "other"));
    let app = TestApp::with_routes(routes, &[("SERVER__HTTP__REQUEST_TIMEOUT", "1h")]).await;
    let ask = async |path: &str, waits: &'static str| {
        app.call(Method::GET, path, &[("x-request-timeout-ms", waits)], "").await
    };
    // Without the header this would take an hour.
    assert_eq!(ask("/wait", "20").await.status_line(), "503 Request Timed Out");
    // The route's own limit is shorter.
    assert_eq!(ask("/short", "3600000").await.status_line(), "503 Request Timed Out");
    assert_eq!(ask("/other", "3600000").await.status, 200);
    for wrong in ["", "-1", "1.5", "+1", "1s", "99999999999999999999"] {
        let response = ask("/other", wrong).await;
        assert_eq!(response.status_line(), "400 Invalid Request Timeout", "{wrong}");
        assert!(response.json()["message"].as_str().unwrap().contains("X-Request-Timeout-Ms"));
    }
}

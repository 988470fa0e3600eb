//! tower layers around a route, a group and everything; routers of axum's mounted below a path; limits of a method.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, OriginalUri, Path, Request};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{FutureExt as _, stream};
use http_body_util::BodyExt as _;
use platform::App;
use platform::http::{Context, Cors, Json, Limits, Route, Routes};
use platform::services::Services;
use platform::testing::{NoSettings, SERVICE, TestApp};
use serde_json::{Value, json};
use tower::limit::ConcurrencyLimitLayer;
use tower::{BoxError, ServiceExt as _, service_fn};

use crate::handlers::{echo, length};

/// A layer that adds a header to each response, and the values of all that were there before it.
fn stamp(
    stamp: &'static str,
) -> tower::util::MapResponseLayer<impl Fn(Response) -> Response + Clone + Send + Sync + 'static> {
    tower::util::MapResponseLayer::new(move |mut response: Response| {
        response.headers_mut().append("x-stamp", HeaderValue::from_static(stamp));
        response
    })
}

fn stamps(headers: &axum::http::HeaderMap) -> Vec<&str> {
    headers.get_all("x-stamp").iter().map(|value| value.to_str().unwrap()).collect()
}

fn all_layers() -> App<NoSettings, Services> {
    let routes = |_: &NoSettings| {
        let group = Routes::new()
            .route(Route::at("/one").get(async || "one").layer(stamp("route")).layer(stamp("later")))
            .route(Route::at("/two/{id}").get(async || "two"))
            .layer(stamp("group"));
        Routes::new().merge(group).route(Route::at("/three").get(async || "three"))
    };
    App::new(async |services, _| Ok(services), routes).layer(stamp("all")).layer(stamp("outermost"))
}

#[tokio::test]
async fn each_layer_is_around_what_it_was_put_around_and_a_later_one_outside() {
    let app = TestApp::start(&SERVICE, all_layers(), &[]).await;
    for (path, expected) in [
        ("/one", &["route", "later", "group", "all", "outermost"][..]),
        ("/two/1", &["group", "all", "outermost"]),
        ("/three", &["all", "outermost"]),
        ("/nowhere", &["all", "outermost"]),
    ] {
        let response = app.get(path).await;
        assert_eq!(stamps(&response.headers), expected, "{path}");
        assert!(response.header("x-request-id").is_some());
    }
    // What no handler sees passes the layers around everything too, and stays what it was.
    let refused = app.delete("/three").await;
    assert_eq!(refused.status_line(), "405 Method Not Allowed");
    assert_eq!((refused.header("allow"), stamps(&refused.headers).len()), (Some("GET, HEAD, OPTIONS"), 2));
    assert_eq!(app.log().len(), 5);
}

#[tokio::test]
async fn a_layer_around_a_group_counts_the_requests_of_all_its_routes() {
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let enter = {
        let (inside, most) = (Arc::clone(&inside), Arc::clone(&most));
        move || async move {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let routes: Routes<Services> = Routes::new()
        .route(Route::at("/a").get(enter.clone()))
        .route(Route::at("/b/{id}").get(enter))
        .layer(ConcurrencyLimitLayer::new(1));
    let app = TestApp::with_routes(routes, &[]).await;
    let all = (0..6).map(|at| app.get(if at % 2 == 0 { "/a" } else { "/b/1" }));
    futures_util::future::join_all(all).await;
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_layer_of_a_route_sees_its_parameters_and_may_send_the_request_twice() {
    let checked = from_fn(async |path: MatchedPath, Path(id): Path<String>, request: Request, next: Next| {
        let mut first = Request::new(Body::empty());
        *first.extensions_mut() = request.extensions().clone();
        let first = next.clone().run(first).await;
        let mut second = next.run(request).await;
        let seen = format!("{} {id} {} {}", path.as_str(), first.status(), second.status());
        second.headers_mut().insert("x-seen", HeaderValue::try_from(seen).unwrap());
        second
    });
    let routes: Routes<Services> =
        Routes::new().route(Route::at("/t/{id}").get(async |Path(id): Path<String>| id).layer(checked));
    let app = TestApp::with_routes(routes, &[]).await;
    let response = app.get("/t/7").await;
    assert_eq!((response.header("x-seen"), &response.body[..]), (Some("/t/{id} 7 200 OK 200 OK"), &b"7"[..]));
}

#[tokio::test]
async fn a_layer_around_everything_gets_bounded_bodies_of_refused_requests_too() {
    let read = Arc::new(AtomicUsize::new(0));
    let reading = Arc::clone(&read);
    let buffering = from_fn(move |request: Request, next: Next| {
        let read = Arc::clone(&reading);
        async move {
            let (parts, mut body) = request.into_parts();
            while let Some(Ok(frame)) = body.frame().await {
                read.fetch_add(frame.data_ref().map_or(0, bytes::Bytes::len), Ordering::SeqCst);
            }
            next.run(Request::from_parts(parts, Body::empty())).await
        }
    });
    let routes = |_: &NoSettings| Routes::new().route(Route::at("/x").post(length));
    let app = App::new(async |services: Services, _| Ok(services), routes).layer(buffering);
    let app = TestApp::start(&SERVICE, app, &[("SERVER__HTTP__BODY_LIMIT", "1KiB")]).await;
    let chunks = || Body::from_stream(stream::iter((0..100).map(|_| Ok::<_, io::Error>(vec![b'a'; 500]))));
    for (method, path) in [(Method::POST, "/none"), (Method::PUT, "/x"), (Method::POST, "/x")] {
        let refused = method == Method::PUT || path == "/none";
        read.store(0, Ordering::SeqCst);
        let response = app.call(method, path, &[], chunks()).await;
        // The last one is admitted: the layer itself gives its handler an empty body.
        assert_eq!(response.status.is_client_error(), refused, "{path}");
        assert!(read.load(Ordering::SeqCst) <= 1_024, "{path}: {read:?}");
    }
    // The control: what is within the limit is read whole.
    read.store(0, Ordering::SeqCst);
    assert_eq!(app.post("/none", "a".repeat(1_000)).await.status, 404);
    assert_eq!(read.load(Ordering::SeqCst), 1_000);
}

#[tokio::test]
async fn a_response_to_head_has_the_tag_of_its_content_or_none() {
    let routes: Routes<Services> = Routes::new()
        .mount("/docs", docs())
        .route(Route::at("/any").any(async || "any"))
        .route(Route::at("/get").get(async || "get"));
    let app = TestApp::with_routes(routes, &[]).await;
    for (path, length, tagged) in
        [("/docs", Some("5"), false), ("/any", Some("3"), true), ("/get", Some("3"), true)]
    {
        let get = app.get(path).await;
        assert!(get.header("etag").is_some(), "{path}");
        let head = app.call(Method::HEAD, path, &[], "").await;
        assert_eq!(head.header("content-length"), length, "{path}");
        // The body of a mounted router is gone, and with it its tag; never that of an empty body.
        assert_eq!(head.header("etag"), get.header("etag").filter(|_| tagged), "{path}");
    }
    let stream = async || Body::from_stream(stream::iter([Ok::<_, io::Error>("a")]));
    let routes: Routes<Services> = Routes::new().mount("/docs", Router::new().route("/", get(stream)));
    let head = TestApp::with_routes(routes, &[]).await.call(Method::HEAD, "/docs", &[], "").await;
    assert_eq!(head.header("content-length"), None);
}

#[tokio::test]
async fn a_mounted_route_may_have_limits_of_its_own() {
    let routes: Routes<Services> = Routes::new().route(Route::mount("/docs", docs()).body_limit(100));
    let app = TestApp::with_routes(routes, &[("SERVER__HTTP__BODY_LIMIT", "10B")]).await;
    assert_eq!(app.post("/docs/large", "more than ten").await.body, "13");
    assert_eq!(app.post("/docs/large", "a".repeat(101)).await.status, 413);
}

#[tokio::test]
async fn a_layer_that_fails_is_503_and_one_that_refuses_answers_itself() {
    let failing = tower::layer::layer_fn(|_| {
        service_fn(async |_: Request| Err::<Response, BoxError>("overloaded".into()))
    });
    let refusing = tower::layer::layer_fn(|inner: platform::http::HandlerService| {
        service_fn(move |request: Request| {
            if request.headers().contains_key("authorization") {
                inner.oneshot(request).map(|response| Ok::<_, BoxError>(response.unwrap())).boxed()
            } else {
                async { Ok(StatusCode::UNAUTHORIZED.into_response()) }.boxed()
            }
        })
    });
    let routes: Routes<Services> =
        Routes::new().route(Route::at("/failing").get(async || "never").layer(failing)).route(
            Route::at("/guarded")
                .get(async |context: Context| context.request_id().len().to_string())
                .layer(refusing),
        );
    let app = TestApp::with_routes(routes, &[]).await;
    let failed = app.get("/failing").await;
    assert_eq!(failed.status_line(), "503 Service Unavailable");
    assert_eq!(failed.header("retry-after"), Some("1"));
    assert!(app.log()[0].contains("overloaded"), "{:?}", app.log());
    let refused = app.get("/guarded").await;
    assert_eq!((refused.status_line().as_str(), &refused.json()["code"]), ("401 Unauthorized", &json!(401)));
    let passed = app.call(Method::GET, "/guarded", &[("authorization", "x")], "").await;
    assert_eq!((passed.status.as_u16(), &passed.body[..]), (200, &b"32"[..]));
}

fn docs() -> Router {
    Router::new()
        .route("/", get(async || "index"))
        .route(
            "/page/{name}",
            get(async |OriginalUri(uri): OriginalUri, request: Request| format!("{uri} {}", request.uri())),
        )
        .route("/any", any(async |method: Method| method.to_string()))
        .route("/large", any(async |body: bytes::Bytes| body.len().to_string()))
        .route("/slow", get(async || tokio::time::sleep(Duration::from_mins(1)).await))
        .fallback(async || (StatusCode::NOT_FOUND, [("content-type", "text/plain")], "no such page"))
}

#[tokio::test]
async fn a_mounted_router_gets_every_method_below_its_prefix_and_keeps_its_own_errors() {
    let settings = [("SERVER__HTTP__BODY_LIMIT", "10B"), ("SERVER__HTTP__REQUEST_TIMEOUT", "200ms")];
    let routes: Routes<Services> =
        Routes::new().mount("/docs", docs()).route(Route::at("/x").get(async || "x"));
    let app = TestApp::with_routes(routes, &settings).await;
    for path in ["/docs", "/docs/"] {
        assert_eq!(app.get(path).await.body, "index", "{path}");
    }
    assert_eq!(app.get("/docs/page/a?b=1").await.body, "/docs/page/a?b=1 /page/a?b=1");
    for method in [Method::PUT, Method::OPTIONS, Method::from_bytes(b"PURGE").unwrap()] {
        assert_eq!(app.call(method.clone(), "/docs/any", &[], "").await.body, method.as_str());
    }
    let head = app.call(Method::HEAD, "/docs/page/a", &[], "").await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("20"), 0));
    let missing = app.get("/docs/none").await;
    assert_eq!((missing.status.as_u16(), &missing.body[..]), (404, &b"no such page"[..]));
    assert_eq!(missing.header("content-type"), Some("text/plain"));
    // What holds for every route holds here too.
    assert!(missing.header("x-request-id").is_some() && missing.header("x-content-type-options").is_some());
    let large = app.post("/docs/large", "more than ten").await;
    assert_eq!((large.status.as_u16(), &large.json()["code"]), (413, &json!(413)));
    assert_eq!(app.get("/docs/slow").await.status_line(), "503 Request Timed Out");
    let log = app.log();
    assert!(log[0].contains(" route=/docs/* ") && log[0].contains(" path=/docs "), "{log:?}");
    assert_eq!(log.len(), 10);
    // The control: beside the prefix it is as it was.
    assert_eq!(app.get("/docsx").await.status_line(), "404 Unknown Endpoint");
    assert_eq!(app.get("/x").await.body, "x");
}

#[tokio::test]
async fn a_router_mounted_at_the_root_gets_what_no_route_takes() {
    let routes: Routes<Services> = Routes::new().mount("/", docs()).route(Route::at("/x").get(async || "x"));
    let app = TestApp::with_routes(routes, &[]).await;
    assert_eq!(app.get("/x").await.body, "x");
    assert_eq!(app.get("/").await.body, "index");
    assert_eq!(app.get("/any").await.body, "GET");
}

#[tokio::test]
async fn any_takes_the_methods_that_have_no_handler_of_their_own() {
    async fn method(method: Method) -> String {
        method.to_string()
    }
    let routes: Routes<Services> = Routes::new()
        .route(Route::at("/any").any(method).post(async || "own"))
        .route(Route::at("/open").any(method).cors(Cors::any()));
    let app = TestApp::with_routes(routes, &[]).await;
    assert_eq!(app.get("/any").await.body, "GET");
    assert_eq!(app.post("/any", "").await.body, "own");
    assert_eq!(app.call(Method::OPTIONS, "/any", &[], "").await.body, "OPTIONS");
    // A preflight is answered for the handler.
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
    let answered = app.call(Method::OPTIONS, "/open", &preflight, "").await;
    assert_eq!((answered.status.as_u16(), answered.header("access-control-allow-origin")), (204, Some("*")));
    assert!(answered.header("access-control-allow-methods").unwrap().contains("PUT"));
}

#[tokio::test]
async fn a_method_may_have_limits_of_its_own() {
    const TEXT: &str = r#"{"type": "object"}"#;
    let route = Route::at("/m")
        .post(echo)
        .put(length)
        .body_limit(10)
        .limits(Method::POST, Limits::default().body_limit(100).schema("object", TEXT));
    let app = TestApp::with_routes(Routes::new().route(route), &[]).await;
    assert_eq!(app.post("/m", json!({"a": "more than ten"})).await.status, 200);
    assert_eq!(app.post("/m", "[]").await.status_line(), "400 JSON Schema validation failed");
    assert_eq!(app.put("/m", "more than ten").await.status, 413);
    assert_eq!(app.put("/m", "[]").await.status, 200);
}

#[tokio::test]
async fn one_function_gives_error_bodies_the_form_of_a_company() {
    let routes = |_: &NoSettings| Routes::new().route(Route::at("/json").post(async |_: Json<Value>| ()));
    let app = App::new(async |services: Services, _| Ok(services), routes).error_body(|error| {
        json!({"fault": {"number": error.status, "text": error.message, "fields": error.errors.len()}})
    });
    let app = TestApp::start(&SERVICE, app, &[]).await;
    let wrong = app.post("/json", "x").await;
    assert_eq!(wrong.status_line(), "400 Invalid JSON body");
    assert_eq!(wrong.json(), json!({"fault": {"number": 400, "text": "Invalid JSON body", "fields": 1}}));
    let unknown = app.get("/nowhere").await;
    assert_eq!(unknown.json()["fault"]["number"], 404);
    // A client that asks for RFC 9457 gets that.
    let problem =
        app.call(Method::GET, "/nowhere", &[("accept", "application/problem+json")], Body::empty()).await;
    assert_eq!(problem.json()["title"], "Unknown Endpoint");
}

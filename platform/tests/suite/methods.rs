//! Methods, `OPTIONS`, CORS, cookies, trailing slashes.

use axum::Router;
use axum::body::Body;
use axum::extract::RawPathParams;
use axum::http::{HeaderMap, Method};
use platform::http::{Cors, Json, NoContent, Path, Route, Routes, State};
use platform::services::Services;

use platform::testing::TestApp;

async fn hello() -> Json<&'static str> {
    Json("hello")
}

async fn empty() {}

async fn credentials(headers: HeaderMap) -> String {
    let sent = ["cookie", "authorization"].into_iter().filter_map(|name| headers.get(name));
    sent.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn routes() -> Routes<Services> {
    let listed = Cors::origins(["https://app.example".parse().unwrap()]).with_credentials();
    Routes::new()
        .route(Route::at("/closed").get(hello).post(hello))
        .route(Route::at("/open").get(hello).cors(Cors::any()))
        .route(Route::at("/listed").get(hello).put(hello).post(hello).cors(listed))
        .route(Route::at("/empty").get(empty).delete(async || NoContent))
        .route(Route::at("/empty/{id}").get(empty).delete(async || NoContent))
        .route(
            Route::at("/cookies")
                .post(credentials)
                .put(credentials)
                .delete(credentials)
                .cors(Cors::any())
                .get(credentials),
        )
        .route(
            Route::at("/foreign").post(credentials).cross_site("the identity provider sends its form here"),
        )
        .mount("/mounted", Router::new().route("/", axum::routing::post(credentials)))
}

async fn app() -> TestApp {
    TestApp::with_routes(routes(), &[]).await
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_405_with_allow() {
    let response = app().await.delete("/closed").await;
    assert_eq!(response.status_line(), "405 Method Not Allowed");
    assert_eq!(response.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
    assert_eq!(response.json()["code"], 405);
    let response =
        app().await.call(Method::from_bytes(b"BREW").unwrap(), "/closed", &[], Body::empty()).await;
    assert_eq!(response.status_line(), "405 Method Not Allowed");
}

#[tokio::test]
async fn options_is_204_with_allow_and_no_body() {
    let response = app().await.call(Method::OPTIONS, "/closed", &[], Body::empty()).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
    assert!(response.body.is_empty());
    assert_eq!(response.header("content-length"), None);
}

#[tokio::test]
async fn options_of_the_server_itself_is_204() {
    let app = app().await;
    assert_eq!(app.call(Method::OPTIONS, "*", &[], Body::empty()).await.status, 204);
    assert_eq!(app.call(Method::GET, "*", &[], Body::empty()).await.status, 404);
}

#[tokio::test]
async fn options_of_an_unknown_path_is_404() {
    let response = app().await.call(Method::OPTIONS, "/nowhere", &[], Body::empty()).await;
    assert_eq!(response.status_line(), "404 Unknown Endpoint");
}

const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", "https://app.example"),
    ("access-control-request-method", "PUT"),
    ("access-control-request-headers", "x-token"),
];

#[tokio::test]
async fn a_route_without_cors_has_no_cors_headers() {
    let app = app().await;
    for method in [Method::OPTIONS, Method::GET] {
        let response = app.call(method, "/closed", &PREFLIGHT, Body::empty()).await;
        let cors = response.headers.keys().any(|name| name.as_str().starts_with("access-control"));
        assert!(!cors, "{:?}", response.headers);
    }
}

#[tokio::test]
async fn a_route_open_to_all_sites_accepts_preflights_and_requests() {
    let app = app().await;
    let preflight = app.call(Method::OPTIONS, "/open", &PREFLIGHT, Body::empty()).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
    // `*` would not allow `Authorization` (Fetch standard, "CORS-preflight fetch", step 6).
    assert_eq!(preflight.header("access-control-allow-headers"), Some("x-token"));
    let response = app.get("/open").await;
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    // A page of another origin must be able to read an error as well.
    let response = app.delete("/open").await;
    assert_eq!(response.status, 405);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_listed_origin_is_echoed_and_another_is_not() {
    let app = app().await;
    let response = app.call(Method::OPTIONS, "/listed", &PREFLIGHT, Body::empty()).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(response.header("access-control-allow-headers"), Some("x-token"));
    assert_eq!(response.header("vary"), Some("origin"));
    for origin in ["https://evil.example", "https://app.example.evil.example", "null"] {
        let response = app.call(Method::GET, "/listed", &[("origin", origin)], Body::empty()).await;
        assert_eq!(response.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(response.header("vary"), Some("origin"));
    }
}

#[tokio::test]
async fn a_form_on_another_site_reaches_no_route_but_one_that_says_why() {
    let app = app().await;
    let form = [("content-type", "text/plain"), ("sec-fetch-site", "cross-site"), ("cookie", "session=1")];
    for (method, path) in [(Method::POST, "/closed"), (Method::PUT, "/listed"), (Method::POST, "/mounted")] {
        let response = app.call(method, path, &form, "{}").await;
        assert_eq!(response.status_line(), "403 Cross-Site Request Refused", "{path}");
    }
    let response = app.call(Method::POST, "/foreign", &form, "{}").await;
    assert_eq!((response.status.as_u16(), response.text()), (200, "session=1"));
    // The controls: a page of the same origin, a link on another site, and what is no browser.
    let same_origin = [("sec-fetch-site", "same-origin"), ("cookie", "session=1")];
    assert_eq!(app.call(Method::POST, "/closed", &same_origin, "{}").await.status, 200);
    assert_eq!(app.call(Method::GET, "/closed", &form, "").await.status, 200);
    assert_eq!(app.call(Method::POST, "/closed", &[("cookie", "session=1")], "{}").await.status, 200);
}

#[tokio::test]
async fn cors_without_credentials_lets_a_page_in_without_them() {
    let app = app().await;
    let from = |site| {
        let authorization = ("authorization", "Basic YTpi");
        [("origin", "https://evil.example"), ("sec-fetch-site", site), ("cookie", "session=1"), authorization]
    };
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let response = app.call(method, "/cookies", &from("cross-site"), "").await;
        assert_eq!((response.status.as_u16(), response.text()), (200, ""));
    }
    // The controls: a page of the same origin, and a link.
    for (method, site) in [(Method::POST, "same-origin"), (Method::GET, "cross-site")] {
        assert_eq!(app.call(method, "/cookies", &from(site), "").await.text(), "session=1 Basic YTpi");
    }
    // A token that a script sends is no credential of the browser.
    let token = [("origin", "https://evil.example"), ("authorization", "Bearer t")];
    assert_eq!(app.call(Method::POST, "/cookies", &token, "").await.text(), "Bearer t");
}

#[tokio::test]
async fn cors_accepts_cookies_from_a_listed_origin_only() {
    let app = app().await;
    for (origin, status) in [("https://app.example", 200), ("https://evil.example", 403)] {
        let form = [("origin", origin), ("sec-fetch-site", "cross-site"), ("cookie", "session=1")];
        assert_eq!(app.call(Method::POST, "/listed", &form, "{}").await.status, status, "{origin}");
        assert_eq!(app.call(Method::POST, "/closed", &form, "{}").await.status, 403, "{origin}");
    }
}

#[tokio::test]
async fn the_content_length_does_not_depend_on_path_parameters() {
    let app = app().await;
    for path in ["/empty", "/empty/1"] {
        // hyper adds the header where it is missing, except to a 204.
        assert_eq!(app.get(path).await.header("content-length"), None, "{path}");
        let response = app.delete(path).await;
        assert_eq!((response.status.as_u16(), response.header("content-length")), (204, None), "{path}");
        let response = app.call(Method::HEAD, path, &[], Body::empty()).await;
        assert_eq!(response.header("content-length"), Some("0"), "{path}");
    }
}

#[tokio::test]
async fn a_trailing_slash_is_accepted() {
    let app = app().await;
    assert_eq!(app.get("/closed/").await.status, 200);
    assert_eq!(app.get("/closed//").await.status, 404);
    let response = app.delete("/closed/").await;
    assert_eq!(response.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let app = app().await;
    let get = app.get("/closed").await;
    let head = app.call(Method::HEAD, "/closed", &[], Body::empty()).await;
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), Some("7"));
    for name in ["etag", "content-type", "vary"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_ping_succeeds_and_is_not_logged() {
    let app = TestApp::with_routes(platform::http::health::routes(), &[]).await;
    assert_eq!(app.get("/ping").await.status, 200);
    assert_eq!(app.log(), [""; 0]);
    app.get("/nowhere").await;
    assert_eq!(app.log().len(), 1);
}

#[tokio::test]
async fn every_method_reaches_its_own_handler() {
    async fn method_name(method: Method) -> String {
        method.to_string()
    }
    let route = Route::at("/m")
        .get(method_name)
        .post(method_name)
        .put(method_name)
        .patch(method_name)
        .delete(method_name);
    let app = TestApp::with_routes(Routes::new().route(route), &[]).await;
    assert_eq!(app.get("/m").await.body, "GET");
    assert_eq!(app.post("/m", "").await.body, "POST");
    assert_eq!(app.put("/m", "").await.body, "PUT");
    assert_eq!(app.patch("/m", "").await.body, "PATCH");
    assert_eq!(app.delete("/m").await.body, "DELETE");
}

#[tokio::test]
async fn a_handler_gets_the_state_and_the_parameters_of_its_path() {
    async fn state_only(State(services): State<Services>) -> String {
        format!("{} in {}", services.name(), services.env())
    }
    async fn state_and_path(State(services): State<Services>, Path((a, b)): Path<(String, u8)>) -> String {
        format!("{} {a} {b}", services.name())
    }
    // Extractors of axum that read the extensions of its router.
    async fn optional(id: Option<Path<String>>, all: RawPathParams) -> String {
        format!("{} of {}", id.map_or("none".to_owned(), |Path(id)| id), all.iter().count())
    }
    let routes = Routes::new()
        .route(Route::at("/tasks").get(async || "other").post(state_only))
        .route(Route::at("/tasks/{a}/{b}").post(state_and_path))
        .route(Route::at("/files/{a}/{*b}").post(state_and_path))
        .route(Route::at("/optional").post(optional))
        .route(Route::at("/optional/{id}").post(optional));
    let app =
        TestApp::with_routes(routes, &[("SERVER__SERVER__NAME", "here"), ("SERVER__SERVER__ENV", "tests")])
            .await;
    for (path, expected) in [
        ("/tasks", "here in tests"),
        ("/tasks/", "here in tests"),
        ("/tasks/x%20y/7", "here x y 7"),
        ("/tasks/x/7/", "here x 7"),
        ("/files/x/7", "here x 7"),
        ("/optional", "none of 0"),
        ("/optional/1/", "1 of 1"),
    ] {
        assert_eq!(app.post(path, "").await.body, expected, "{path}");
    }
}

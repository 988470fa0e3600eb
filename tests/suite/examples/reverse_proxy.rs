//! Requests that are passed on, to an upstream that the test plays. What all is passed on is tested in the platform.

use axum::Router;
use axum::extract::Request;
use axum::http::Method;

use crate::support::app_with;

const URL: &str = "SERVER__UPSTREAMS__REVERSE_PROXY__URL";

#[tokio::test]
async fn a_request_of_any_method_reaches_the_upstream_with_its_body() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    let tell = async |request: Request| {
        let line = format!("{} {}", request.method(), request.uri());
        let body = axum::body::to_bytes(request.into_body(), 100).await.unwrap();
        format!("{line} {}", String::from_utf8_lossy(&body))
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(tell)).await });
    let app = app_with(&[(URL, &url)]).await;
    for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let response = app.call(method.clone(), "/proxy/a/b?c=%20d", &[], "body").await;
        let expected = format!("{method} /base/a/b?c=%20d body");
        assert_eq!((response.status.as_u16(), &*response.body), (200, expected.as_bytes()));
    }
    for root in ["/proxy", "/proxy/"] {
        assert_eq!(app.get(root).await.text(), "GET /base/ ");
    }
    assert_eq!(app.get("/proxy/a/../b").await.status, 400);
}

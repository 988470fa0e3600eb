//! The CORS example: open to every site, preflight included.

use axum::body::Body;
use axum::http::Method;

use crate::support::app;

#[tokio::test]
async fn the_route_is_open_to_every_site() {
    let app = app().await;
    let origin = ("origin", "https://anywhere.example");
    for method in [Method::GET, Method::POST] {
        let response = app.call(method, "/cors", &[origin], Body::empty()).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    }
    let headers = [origin, ("access-control-request-method", "POST")];
    let response = app.call(Method::OPTIONS, "/cors", &headers, Body::empty()).await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-methods"), Some("GET, POST, HEAD, OPTIONS"));
}

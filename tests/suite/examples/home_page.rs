//! The home page: HTML that lists the routes, with a stylesheet that can be cached for ever.

use crate::support::app;

#[tokio::test]
async fn the_page_lists_the_routes_and_names_the_version_of_its_stylesheet() {
    let app = app().await;
    let page = app.get("/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let html = page.text();
    assert!(html.contains("/ping"), "{html}");
    let link = html.split("href=\"").find(|part| part.starts_with("/static/home_page.css?v=")).unwrap();
    let url = link.split('"').next().unwrap();
    let style = app.get(url).await;
    assert_eq!(style.status, 200);
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(style.header("cache-control"), Some("public, max-age=31536000, immutable"));
}

//! The blog: one writes, all read.

use axum::http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::accounts::Site;
use crate::accounts::on_chromium::Browser;

async fn site() -> Site {
    Site::of(server::app::app(), &[]).await
}

/// Writes an entry in a browser that its author uses.
pub async fn publish(browser: &mut Browser, home: &str) {
    let entry = [("title", "First words"), ("text", "Some *text* <script>alert(1)</script>")];
    browser.go(&format!("{home}/blog/compose")).await;
    browser.submit("/blog/compose", &entry, "/blog/entries/first-words").await;
    assert_eq!(browser.value("document.querySelector('article em').innerText").await, json!("text"));
    assert_eq!(browser.value("document.querySelectorAll('article script').length").await, json!(0));
}

#[tokio::test]
async fn the_first_account_writes_and_changes_entries_and_others_read_them() {
    let site = site().await;
    let (ada, bob) = (site.register("ada@shop.example").await, site.register("bob@shop.example").await);
    let entry = json!({"title": "Hello, World", "text": "*One*"});
    for (cookie, status) in [("", 401), (&*bob, 403), (&*ada, 201), (&*ada, 201)] {
        // An entry has the second of its time.
        site.pass(SignedDuration::from_secs(1));
        assert_eq!(site.send("/blog/compose", cookie, entry.clone()).await.status, status);
    }
    let page = site.page("/blog/entries/hello-world", "").await;
    assert!(page.text().contains("<em>One</em>") && !page.text().contains("Change it"), "{}", page.text());
    let page = site.page("/blog/entries/hello-world", &ada).await;
    let id = page.text().split("?id=").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let changed = json!({"id": id, "title": "Hello again", "text": "two"});
    let changed = site.send("/blog/compose", &ada, changed).await;
    assert_eq!(changed.header("location"), Some("/blog/entries/hello-world"));
    let listed = site.app.get("/blog").await.json();
    let titles: Vec<&Value> = listed.as_array().unwrap().iter().map(|entry| &entry["title"]).collect();
    assert_eq!(titles, [&json!("Hello, World"), &json!("Hello again")]);
    assert_eq!(site.app.get("/blog/archive").await.json(), listed);
    assert_eq!(site.app.get("/blog/entries/hello-world-2").await.status, 200);
    let empty = site.send("/blog/compose", &ada, json!({"title": " ", "text": "x"})).await;
    assert_eq!((empty.status.as_u16(), &empty.json()["errors"][0]["pointer"]), (422, &json!("/title")));
}

#[tokio::test]
async fn a_feed_is_xml_whatever_a_title_holds() {
    let site = site().await;
    let session = site.register("ada@shop.example").await;
    let entry = json!({"title": "a\u{8}b\u{ffff}", "text": "x\u{1}<script>alert(1)</script>[a](javascript:alert(1))"});
    assert!(site.send("/blog/compose", &session, entry).await.status.as_u16() < 500);
    let feed = site.app.call(Method::GET, "/blog/feed", &[], "").await;
    let is_xml = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    assert!(feed.text().chars().all(is_xml), "{:?}", feed.text());
    assert!(!feed.text().contains("javascript:") && !feed.text().contains("<script"), "{}", feed.text());
}

//! A record in the cache.

use crate::support::app;

#[tokio::test]
async fn a_record_is_kept_and_a_missing_one_is_404_with_the_message_of_the_tutorial() {
    let app = app().await;
    let missing = app.get("/cache/a%20b").await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["message"]),
        (404, &"Missing record for key: a b".into())
    );
    assert_eq!(app.post("/cache/a%20b", "any \u{0} bytes").await.status, 204);
    let record = app.get("/cache/a%20b").await;
    assert_eq!((record.status.as_u16(), &record.body[..]), (200, &b"any \0 bytes"[..]));
    assert_eq!(record.header("content-type"), Some("application/octet-stream"));
}

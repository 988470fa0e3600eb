//! A document under a name of the caller's.

use serde_json::json;

use crate::support::app;

#[tokio::test]
async fn a_document_is_inserted_replaced_and_read_back() {
    let app = app().await;
    assert_eq!(app.get("/documents/catalog").await.json()["message"], "Missing document: catalog");
    for content in [json!({"bands": [1, 2]}), json!("a text"), json!(null)] {
        assert_eq!(app.post("/documents/catalog", &content).await.status, 204);
        assert_eq!(app.get("/documents/catalog").await.json(), content);
    }
    assert_eq!(app.post("/documents/catalog", "no json").await.status, 400);
}

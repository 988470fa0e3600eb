//! Resources: the responses and messages of the original boilerplate.

use serde_json::json;

use crate::support::{PROGRAM, app};

#[tokio::test]
async fn a_resource_can_be_created_read_changed_and_deleted() {
    let app = app().await;
    assert_eq!(app.get("/resources").await.json(), json!([]));
    let resource = json!({"id": "r1", "name": "one", "value": {"a": [1, null]}});
    let created = app.post("/resources", &resource).await;
    assert_eq!(created.status, 200);
    assert!(created.body.is_empty());
    assert_eq!(app.get("/resources/r1").await.json(), resource);
    assert_eq!(app.patch("/resources/r1", json!({"value": null})).await.status, 200);
    let changed = json!({"id": "r1", "name": "one", "value": null});
    assert_eq!(app.get("/resources").await.json(), json!([changed]));
    assert_eq!(app.delete("/resources/r1").await.status, 200);
    assert_eq!(app.get("/resources").await.json(), json!([]));
}

#[tokio::test]
async fn an_id_that_exists_is_409_and_one_that_does_not_404() {
    let app = app().await;
    let resource = json!({"id": "r1", "name": "one", "value": 1});
    app.post("/resources", &resource).await;
    let again = app.post("/resources", &resource).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.json()["message"], "Resource with ID r1 already exists.");
    for response in [
        app.get("/resources/r2").await,
        app.patch("/resources/r2", json!({"name": "x"})).await,
        app.delete("/resources/r2").await,
    ] {
        assert_eq!(response.status, 404);
        assert_eq!(response.json()["message"], "There is no resource with id r2.");
        assert_eq!(response.json()["status"], 404);
    }
}

#[tokio::test]
async fn a_missing_id_or_field_is_named() {
    let app = app().await;
    let response = app.patch("/resources", json!({"name": "x"})).await;
    assert_eq!(response.status_line(), "400 Resource ID is compulsory for this service.");
    let response = app.delete("/resources").await;
    assert_eq!(response.status_line(), "400 No resource ID specified for deletion.");
    app.post("/resources", json!({"id": "r1", "name": "one", "value": 1})).await;
    let response = app.patch("/resources/r1", json!({})).await;
    assert_eq!(response.status_line(), "400 Tried to update resource with an empty patch body.");
    let response = app.post("/resources", json!({"id": "r3"})).await;
    assert_eq!(response.status, 400);
    assert!(response.json()["errors"][0]["message"].as_str().unwrap().contains("`name`"));
}

#[tokio::test]
async fn an_id_that_is_a_query_is_refused() {
    // The original passed it to MongoDB, where it matches everything.
    let app = app().await;
    let response = app.post("/resources", json!({"id": {"$ne": null}, "name": "n", "value": 1})).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.json()["errors"][0]["pointer"], "/id");
    assert_eq!(app.get("/resources").await.json(), json!([]));
}

#[tokio::test]
async fn hostile_ids_are_kept_as_they_are() {
    let app = app().await;
    for (id, path) in
        [("../x", "..%2Fx"), ("a/b", "a%2Fb"), ("\u{1}", "%01"), ("Ä", "%C3%84"), ("a b", "a%20b")]
    {
        let resource = json!({"id": id, "name": "n", "value": 1});
        assert_eq!(app.post("/resources", &resource).await.status, 200, "{id}");
        assert_eq!(app.get(&format!("/resources/{path}")).await.json(), resource);
    }
}

#[tokio::test]
async fn an_id_with_nul_is_refused_and_names_no_resource() {
    let app = app().await;
    let response = app.post("/resources", json!({"id": "a\0", "name": "n", "value": 1})).await;
    assert_eq!(response.status_line(), "400 Id With NUL");
    assert_eq!(response.json()["errors"][0]["pointer"], "/id");
    assert_eq!(app.get("/resources/a%00").await.status, 404);
    let response = app.post("/resources", json!({"id": "a", "name": "n", "value": ["\0"]})).await;
    assert_eq!(response.json()["errors"][0]["pointer"], "/value/0");
}

/// JSON in a string in JSON, `levels` times; each level is an object of one key, inside `brackets` arrays. With the
/// escapes `\u005c` and `\u0022` a level adds only a few bytes for each quote.
fn nested_in_strings(levels: usize, key: &str, brackets: usize) -> String {
    (0..levels).fold("1".to_owned(), |inner, _| {
        let text = inner.replace('\\', "\\u005c").replace('"', "\\u0022");
        format!(r#"{}{{"{key}":"{text}"}}{}"#, "[".repeat(brackets), "]".repeat(brackets))
    })
}

#[tokio::test]
async fn json_in_strings_in_json_does_not_end_the_process() {
    let mut server = PROGRAM.start(&["--db_url", "memory:"]);
    let client = reqwest::Client::new();
    let post = async |key: &str| {
        // 90 arrays, which is not too deep for a store. Interpreted, they would be 3,600 levels.
        let value = nested_in_strings(40, key, 90);
        assert!(value.len() < 64_000, "{}", value.len());
        let body = format!(r#"{{"id":"r1","name":"n","value":{value}}}"#);
        client.post(server.url("/resources")).body(body).send().await
    };
    let refused = post("$serde_json::private::RawValue").await.unwrap();
    assert_eq!(refused.status(), 400);
    let kept = post("any other key").await.unwrap();
    assert_eq!(kept.status(), 200);
    assert!(!server.has_ended());
}

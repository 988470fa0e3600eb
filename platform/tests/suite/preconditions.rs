//! Conditional requests: the version of a stored value as `ETag`, `If-Match`, `If-None-Match`.

use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use platform::error::{Error, Result};
use platform::http::{Changed, Created, Json, NoContent, Path, Precondition, Route, Routes, Versioned};
use platform::services::Services;
use platform::store::{Dao, Entity};
use platform::testing::{TestApp, TestResponse};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Note {
    text: String,
}

impl Entity for Note {
    const COLLECTION: &'static str = "notes";
}

fn none() -> Error {
    Error::not_found("No Such Note")
}

async fn read(notes: Dao<Note>, Path(id): Path<String>) -> Result<Versioned<Note>> {
    Ok(notes.get(&id).await?.ok_or_else(none)?.into())
}

async fn put(
    notes: Dao<Note>,
    Path(id): Path<String>,
    precondition: Precondition,
    Json(note): Json<Note>,
) -> Result<Response> {
    if precondition.is_create_only() {
        precondition.apply(notes.insert_with_id(&id, &note).await)?;
        return Ok(Created::at(format!("/notes/{id}")).into_response());
    }
    let replaced = notes.replace(&id, precondition.expected(), &note).await;
    Ok(Changed::to(precondition.apply(replaced)?.ok_or_else(none)?).into_response())
}

async fn remove(notes: Dao<Note>, Path(id): Path<String>, precondition: Precondition) -> Result<NoContent> {
    if precondition.apply(notes.delete(&id, precondition.expected()).await)? {
        Ok(NoContent)
    } else {
        Err(none())
    }
}

async fn app() -> TestApp {
    let route: Route<Services> = Route::at("/notes/{id}").get(read).put(put).delete(remove);
    TestApp::with_routes(Routes::new().route(route), &[]).await
}

async fn send(app: &TestApp, method: Method, header: (&str, &str), text: &str) -> TestResponse {
    app.call(method, "/notes/a", &[header], format!(r#"{{"text": "{text}"}}"#)).await
}

/// The `ETag` of the note.
async fn tag(app: &TestApp) -> String {
    app.get("/notes/a").await.header("etag").unwrap().to_owned()
}

#[tokio::test]
async fn a_change_of_what_somebody_else_has_changed_is_412_and_changes_nothing() {
    let app = app().await;
    let created = send(&app, Method::PUT, ("if-none-match", "*"), "one").await;
    assert_eq!((created.status.as_u16(), created.header("location")), (201, Some("/notes/a")));
    let seen = tag(&app).await;
    // Somebody else is faster.
    let changed = send(&app, Method::PUT, ("if-match", &seen), "two").await;
    assert_eq!((changed.status.as_u16(), changed.header("etag")), (204, Some(&*tag(&app).await)));
    for method in [Method::PUT, Method::DELETE] {
        let refused = send(&app, method.clone(), ("if-match", &seen), "three").await;
        assert_eq!(refused.status_line(), "412 Precondition Failed", "{method}");
        assert_eq!(refused.json()["message"], "It has another version now");
    }
    assert_eq!(app.get("/notes/a").await.json()["text"], "two");
    // The control: without the condition, the last one wins.
    assert_eq!(send(&app, Method::PUT, ("x", "y"), "three").await.status, 204);
    assert_eq!(app.get("/notes/a").await.json()["text"], "three");
    assert_eq!(send(&app, Method::DELETE, ("if-match", &tag(&app).await), "").await.status, 204);
}

#[tokio::test]
async fn create_only_does_not_replace_and_a_missing_value_is_404_with_any_condition() {
    let app = app().await;
    assert_eq!(send(&app, Method::PUT, ("if-match", "\"1\""), "one").await.status, 404);
    assert_eq!(send(&app, Method::PUT, ("if-match", "*"), "one").await.status, 404);
    assert_eq!(send(&app, Method::PUT, ("if-none-match", "*"), "one").await.status, 201);
    let again = send(&app, Method::PUT, ("if-none-match", "*"), "two").await;
    assert_eq!(again.status_line(), "412 Precondition Failed");
    assert_eq!(again.json()["message"], "It exists already");
    assert_eq!(send(&app, Method::PUT, ("if-match", "*"), "two").await.status, 204);
}

#[tokio::test]
async fn the_version_makes_a_304_and_its_weak_form_is_taken_back() {
    let app = app().await;
    let long = "x".repeat(2_000);
    send(&app, Method::PUT, ("if-none-match", "*"), &long).await;
    let compressed = app.call(Method::GET, "/notes/a", &[("accept-encoding", "gzip")], "").await;
    let (tag, weak) = (tag(&app).await, compressed.header("etag").unwrap());
    assert_eq!(weak, format!("W/{tag}"));
    for tag in [weak, &tag] {
        let fresh = app.call(Method::GET, "/notes/a", &[("if-none-match", tag)], "").await;
        assert_eq!((fresh.status.as_u16(), fresh.body.len()), (304, 0), "{tag}");
    }
    let changed = send(&app, Method::PUT, ("if-match", weak), "short").await;
    let stale = app.call(Method::GET, "/notes/a", &[("if-none-match", &tag)], "").await;
    assert_eq!((changed.status.as_u16(), stale.status.as_u16()), (204, 200));
    assert_eq!(stale.header("etag"), changed.header("etag"));
    // A tag of the former note is not one of the note that is created under its id.
    assert_eq!(send(&app, Method::DELETE, ("x", "y"), "").await.status, 204);
    send(&app, Method::PUT, ("if-none-match", "*"), "other").await;
    for former in [&tag, stale.header("etag").unwrap()] {
        let read = app.call(Method::GET, "/notes/a", &[("if-none-match", former)], "").await;
        assert_eq!((read.status.as_u16(), read.json()["text"].as_str()), (200, Some("other")));
        assert_eq!(send(&app, Method::PUT, ("if-match", former), "short").await.status, 412);
    }
}

#[tokio::test]
async fn of_two_writers_with_the_same_version_one_wins() {
    let app = app().await;
    send(&app, Method::PUT, ("if-none-match", "*"), "one").await;
    let tag = tag(&app).await;
    let writers = (0..20).map(|_| send(&app, Method::PUT, ("if-match", &tag), "two"));
    let statuses: Vec<u16> = futures_util::future::join_all(writers)
        .await
        .iter()
        .map(|response| response.status.as_u16())
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 19, "{statuses:?}");
}

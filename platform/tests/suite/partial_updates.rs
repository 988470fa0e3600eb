//! PATCH: `MergePatch` and `Edit`.

use axum::http::Method;
use platform::error::{Error, Result};
use platform::http::{Changed, Created, Json, MergePatch, Path, Precondition, Route, Routes, Versioned};
use platform::services::Services;
use platform::store::{Dao, Edit, Entity, Expected, Patch};
use platform::testing::{TestApp, TestResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Ticket {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<u64>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    place: Value,
}

impl Entity for Ticket {
    const COLLECTION: &'static str = "tickets";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketEdits {
    #[serde(default)]
    owner: Edit<String>,
    #[serde(default)]
    due: Edit<u64>,
}

const SCHEMA: &str = r#"{"required": ["title"], "properties": {"due": {"maximum": 100}}}"#;

fn routes() -> Routes<Services> {
    let tickets = Route::at("/tickets").post(create).schema("ticket.json", SCHEMA);
    let ticket = Route::at("/tickets/{id}").get(read).patch(merge).schema("ticket.json", SCHEMA);
    let edits = Route::at("/tickets/{id}/edits").patch(edit).post(edit_value);
    Routes::new().entity::<Ticket>().route(tickets).route(ticket).route(edits)
}

async fn create(tickets: Dao<Ticket>, Json(ticket): Json<Ticket>) -> Result<Created> {
    Ok(Created::at(format!("/tickets/{}", tickets.insert(&ticket).await?)))
}

async fn read(tickets: Dao<Ticket>, Path(id): Path<String>) -> Result<Versioned<Ticket>> {
    Ok(tickets.get(&id).await?.ok_or_else(none)?.into())
}

async fn merge(
    tickets: Dao<Ticket>,
    Path(id): Path<String>,
    precondition: Precondition,
    patch: MergePatch<Ticket>,
) -> Result<Changed> {
    let changed = tickets.modify_if(&id, precondition.expected(), |ticket| patch.apply(ticket)).await;
    Ok(Changed::to(precondition.apply(changed)?.ok_or_else(none)?.version))
}

async fn edit(
    tickets: Dao<Ticket>,
    Path(id): Path<String>,
    Json(edits): Json<TicketEdits>,
) -> Result<Changed> {
    let patch = Patch::new().edit("owner", edits.owner).edit("due", edits.due);
    Ok(Changed::to(tickets.update(&id, Expected::Any, patch).await?.ok_or_else(none)?.version))
}

async fn edit_value(
    tickets: Dao<Ticket>,
    Path(id): Path<String>,
    Json(edits): Json<TicketEdits>,
) -> Result<Changed> {
    let edited = tickets.modify_if(&id, Expected::Any, |ticket| {
        edits.owner.clone().apply(&mut ticket.owner);
        edits.due.apply(&mut ticket.due);
        Ok(())
    });
    Ok(Changed::to(edited.await?.ok_or_else(none)?.version))
}

fn none() -> Error {
    Error::not_found("No Such Ticket")
}

/// The app, and the path of a ticket.
async fn app_with_a_ticket() -> (TestApp, String) {
    let app = TestApp::with_routes(routes(), &[]).await;
    let ticket = json!({"title": "t", "owner": "ada", "due": 7, "place": {"room": 1, "floor": 2}});
    let created = app.post("/tickets", ticket).await;
    let path = created.header("location").unwrap().to_owned();
    (app, path)
}

fn errors(response: &TestResponse) -> Value {
    assert_eq!(response.status, 400);
    response.json()["errors"].clone()
}

#[tokio::test]
async fn a_merge_patch_keeps_removes_and_sets() {
    let (app, ticket) = app_with_a_ticket().await;
    let patch = json!({"owner": null, "due": 8, "place": {"room": 3, "floor": null}});
    let changed = app.patch(&ticket, patch).await;
    let now = app.get(&ticket).await;
    assert_eq!((changed.status.as_u16(), changed.header("etag")), (204, now.header("etag")));
    assert_eq!(app.get(&ticket).await.json(), json!({"title": "t", "due": 8, "place": {"room": 3}}));
}

#[tokio::test]
async fn a_merge_patch_whose_result_is_wrong_changes_nothing_and_names_the_field() {
    let (app, ticket) = app_with_a_ticket().await;
    let before = app.get(&ticket).await;
    for (patch, pointer) in [
        (json!({"due": 101}), "/due"),
        (json!({"due": "soon"}), "/due"),
        (json!({"owner": 1}), "/owner"),
        (json!({"colour": "red"}), "/colour"),
        (json!({"title": null}), "/title"),
        (json!("title"), ""),
        (json!(null), ""),
        (json!([]), ""),
    ] {
        assert_eq!(errors(&app.patch(&ticket, &patch).await)[0]["pointer"], pointer, "{patch}");
    }
    assert_eq!(app.get(&ticket).await.header("etag"), before.header("etag"));
    assert_eq!(app.patch("/tickets/none", "{}").await.status, 404);
}

#[tokio::test]
async fn a_merge_patch_of_another_version_is_412() {
    let (app, ticket) = app_with_a_ticket().await;
    let send = async |tag: &str| {
        app.call(Method::PATCH, &ticket, &[("if-match", tag)], r#"{"due": 1}"#).await.status
    };
    let tag = app.get(&ticket).await.header("etag").unwrap().to_owned();
    assert_eq!(send("\"9\"").await, 412);
    assert_eq!(send(&tag).await, 204);
    assert_eq!(send(&tag).await, 412);
}

#[tokio::test]
async fn an_edit_tells_what_was_not_sent_from_null() {
    for method in [Method::PATCH, Method::POST] {
        let (app, ticket) = app_with_a_ticket().await;
        let edits = format!("{ticket}/edits");
        let send = async |body: Value| app.call(method.clone(), &edits, &[], body.to_string()).await;
        assert_eq!(send(json!({"due": null})).await.status, 204);
        let read = app.get(&ticket).await.json();
        assert_eq!((&read["owner"], read.get("due")), (&json!("ada"), None), "{method}");
        assert_eq!(send(json!({"owner": "bob", "due": 9})).await.status, 204);
        let read = app.get(&ticket).await.json();
        assert_eq!((&read["owner"], &read["due"]), (&json!("bob"), &json!(9)), "{method}");
        assert_eq!(errors(&send(json!({"due": "soon"})).await)[0]["pointer"], "/due");
    }
}

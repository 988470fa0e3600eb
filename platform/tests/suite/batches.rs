//! A batch in a handler: `docs/ADD_A_RESOURCE.md` has the same.

use platform::App;
use platform::error::{Error, Result};
use platform::http::{Created, Json, Path, Route, Routes};
use platform::services::Services;
use platform::store::{Batch, Dao, Entity, Filter, RefusedStep};
use platform::testing::{NoSettings, SERVICE, TestApp};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Deserialize, Serialize)]
struct List {
    name: String,
}

impl Entity for List {
    const COLLECTION: &'static str = "lists";
}

#[derive(Deserialize, Serialize)]
struct Item {
    text: String,
}

impl Entity for Item {
    const COLLECTION: &'static str = "items";
}

/// Who did what.
#[derive(Deserialize, Serialize)]
struct Audit {
    created: String,
}

impl Entity for Audit {
    const COLLECTION: &'static str = "audit";
}

async fn add(
    (lists, items, audit): (Dao<List>, Dao<Item>, Dao<Audit>),
    mut batch: Batch,
    Path(list): Path<String>,
    Json(item): Json<Item>,
) -> Result<Created> {
    batch.require(&lists, &list)?;
    let id = batch.insert(&items, &item)?;
    batch.insert(&audit, &Audit { created: id.clone() })?;
    batch.commit().await.map_err(|error| match RefusedStep::of(&error) {
        Some(step) if step.collection == List::COLLECTION => Error::not_found("No Such List"),
        _ => error,
    })?;
    Ok(Created::at(format!("/lists/{list}/items/{id}")))
}

#[tokio::test]
async fn an_item_is_stored_with_its_audit_entry_and_only_in_a_list_that_exists() {
    let routes = |_: &NoSettings| {
        Routes::<Services>::new()
            .entity::<List>()
            .entity::<Item>()
            .entity::<Audit>()
            .route(Route::at("/lists/{list}/items").post(add))
    };
    let app = App::new(async |services, _| Ok(services), routes).needs_batches();
    let app = TestApp::start(&SERVICE, app, &[]).await;
    let services = app.services();
    let (lists, items, audit): (Dao<List>, Dao<Item>, Dao<Audit>) =
        (services.dao(), services.dao(), services.dao());
    let list = lists.insert(&List { name: "shopping".to_owned() }).await.unwrap();
    let refused = app.post("/lists/none/items", &json!({"text": "milk"})).await;
    assert_eq!((refused.status.as_u16(), refused.reason.as_deref()), (404, Some("No Such List")));
    assert_eq!(items.count(Filter::all()).await.unwrap() + audit.count(Filter::all()).await.unwrap(), 0);
    let created = app.post(&format!("/lists/{list}/items"), &json!({"text": "milk"})).await;
    assert_eq!(created.status, 201);
    let entry = audit.get_first(Filter::all()).await.unwrap().unwrap();
    assert_eq!(items.get(&entry.value.created).await.unwrap().unwrap().value.text, "milk");
    assert!(created.header("location").unwrap().ends_with(&entry.value.created));
}

//! `/resources`: create, read, change and delete, with the messages of the original boilerplate.
//!
//! The caller chooses the id. It must be a string: the original passed any JSON to its database, where the id
//! `{"$ne": null}` matches every document.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::AppState;
use platform::error::{Error, Kind, Result};
use platform::http::{Json, PageRequest, Paged, Path, Precondition, Route, Routes, Versioned};
use platform::store::{Dao, Entity, Filter, Patch, Stored};

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new()
        .entity::<Content>()
        .route(Route::at("/resources").get(list).post(create).patch(change_none).delete(remove_none))
        .route(Route::at("/resources/{id}").get(read).patch(change).delete(remove))
}

/// A resource as the caller sees it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    id: String,
    name: Value,
    value: Value,
}

/// A resource as it is stored, under its id.
#[derive(Debug, Deserialize, Serialize)]
struct Content {
    name: Value,
    value: Value,
}

/// The fields of a resource that change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    #[serde(default, deserialize_with = "given")]
    name: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
}

/// A field that is present; `null` counts as a value.
fn given<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(field).map(Some)
}

impl Entity for Content {
    const COLLECTION: &'static str = "resources";
}

impl From<Stored<Content>> for Resource {
    fn from(stored: Stored<Content>) -> Self {
        Self { id: stored.id, name: stored.value.name, value: stored.value.value }
    }
}

async fn list(resources: Dao<Content>, page: PageRequest) -> Result<Paged<Vec<Resource>>> {
    let found = resources.get_page_after(Filter::all(), page.after.as_deref(), page.limit).await?;
    Ok(page.respond(found.next, found.items.into_iter().map(Resource::from).collect()))
}

async fn create(resources: Dao<Content>, Json(resource): Json<Resource>) -> Result<()> {
    let Resource { id, name, value } = resource;
    let made = resources.insert_with_id(&id, &Content { name, value }).await;
    made.map_err(|error| match error.kind() {
        Kind::Conflict => Error::conflict("Resource Already Exists")
            .with_message(format!("Resource with ID {id} already exists.")),
        _ => error,
    })?;
    Ok(())
}

async fn read(resources: Dao<Content>, Path(id): Path<String>) -> Result<Versioned<Resource>> {
    let found = resources.get(&id).await?.ok_or_else(|| no_such_resource(&id))?;
    Ok(Versioned::new(found.version, found.into()))
}

async fn change(
    resources: Dao<Content>,
    Path(id): Path<String>,
    precondition: Precondition,
    Json(changes): Json<Changes>,
) -> Result<()> {
    let given = [("name", changes.name), ("value", changes.value)];
    if given.iter().all(|(_, value)| value.is_none()) {
        return Err(Error::bad_request("Tried to update resource with an empty patch body."));
    }
    let fields = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let patch = fields.fold(Patch::new(), |patch, (name, value)| patch.set(name, value));
    let updated = resources.update(&id, precondition.expected(), patch).await;
    precondition.apply(updated)?.ok_or_else(|| no_such_resource(&id))?;
    Ok(())
}

async fn remove(resources: Dao<Content>, Path(id): Path<String>, precondition: Precondition) -> Result<()> {
    let removed = resources.delete(&id, precondition.expected()).await;
    if precondition.apply(removed)? { Ok(()) } else { Err(no_such_resource(&id)) }
}

async fn change_none() -> Error {
    Error::bad_request("Resource ID is compulsory for this service.")
}

async fn remove_none() -> Error {
    Error::bad_request("No resource ID specified for deletion.")
}

fn no_such_resource(id: &str) -> Error {
    Error::not_found("No Such Resource").with_message(format!("There is no resource with id {id}."))
}

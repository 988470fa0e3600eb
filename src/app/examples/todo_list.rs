//! `/tasks`: a to-do list. It is a small slice: one file.
//!
//! Also: data/tasks schema/todo-list-v1.0.json

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::app::AppState;
use axum::response::{IntoResponse as _, Response};
use platform::error::{Error, Result};
use platform::http::{
    Changed, Created, Json, MergePatch, NoContent, PageRequest, Paged, Path, Precondition, Route, Routes,
    Versioned, segment,
};
use platform::store::{Dao, Entity, Filter};

const SCHEMA: &str = include_str!("../../../schema/todo-list-v1.0.json");

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new()
        .entity::<Task>()
        .route(Route::at("/tasks").get(list).post(create).schema("todo-list-v1.0.json", SCHEMA))
        .route(
            Route::at("/tasks/{id}")
                .get(read)
                .put(update)
                .patch(change)
                .delete(remove)
                .schema("todo-list-v1.0.json", SCHEMA),
        )
}

/// A thing to do. A field that was not sent is not stored.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Task {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<bool>,
    /// Seconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_date: Option<Number>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Priority {
    Urgent,
    High,
    Normal,
    Low,
    None,
}

impl Entity for Task {
    const COLLECTION: &'static str = "tasks";
}

async fn list(tasks: Dao<Task>, page: PageRequest) -> Result<Paged<BTreeMap<String, Task>>> {
    let found = tasks.get_page_after(Filter::all(), page.after.as_deref(), page.limit).await?;
    let by_id = found.items.into_iter().map(|task| (task.id, task.value)).collect();
    Ok(page.respond(found.next, by_id))
}

async fn create(tasks: Dao<Task>, Json(task): Json<Task>) -> Result<Created> {
    let id = tasks.insert(&task).await?;
    Ok(Created::at(format!("/tasks/{id}")))
}

async fn read(tasks: Dao<Task>, Path(id): Path<String>) -> Result<Versioned<Task>> {
    let task = tasks.get(&id).await?.ok_or_else(|| no_such_task(&id))?;
    Ok(task.into())
}

/// Replaces a task, with `If-Match` only in the version that the caller has seen; `If-None-Match: *` creates one.
async fn update(
    tasks: Dao<Task>,
    Path(id): Path<String>,
    precondition: Precondition,
    Json(task): Json<Task>,
) -> Result<Response> {
    if precondition.is_create_only() {
        precondition.apply(tasks.insert_with_id(&id, &task).await)?;
        return Ok(Created::at(format!("/tasks/{}", segment(&id))).into_response());
    }
    let replaced = tasks.replace(&id, precondition.expected(), &task).await;
    let version = precondition.apply(replaced)?.ok_or_else(|| no_such_task(&id))?;
    Ok(Changed::to(version).into_response())
}

/// Changes the fields that are sent, with `If-Match` only in the version that the caller has seen; null removes a field.
async fn change(
    tasks: Dao<Task>,
    Path(id): Path<String>,
    precondition: Precondition,
    patch: MergePatch<Task>,
) -> Result<Changed> {
    let changed = tasks.modify_if(&id, precondition.expected(), |task| patch.apply(task)).await;
    let task = precondition.apply(changed)?.ok_or_else(|| no_such_task(&id))?;
    Ok(Changed::to(task.version))
}

async fn remove(tasks: Dao<Task>, Path(id): Path<String>, precondition: Precondition) -> Result<NoContent> {
    let removed = tasks.delete(&id, precondition.expected()).await;
    if precondition.apply(removed)? { Ok(NoContent) } else { Err(no_such_task(&id)) }
}

fn no_such_task(id: &str) -> Error {
    Error::not_found("No Such Task").with_message(format!("There is no task with id '{id}'"))
}

//! `/documents/{name}`: any JSON under a name of the caller's, as the tutorial's handler keeps it in MongoDB.

use platform::error::{Error, Result};
use platform::http::{Json, NoContent, Path, Route, Routes};
use platform::store::{Dao, Entity, Filter};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::AppState;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().entity::<Document>().route(Route::at("/documents/{name}").get(read).post(replace_or_insert))
}

#[derive(Debug, Deserialize, Serialize)]
struct Document {
    content: Value,
}

impl Entity for Document {
    const COLLECTION: &'static str = "documents";
}

async fn read(documents: Dao<Document>, Path(name): Path<String>) -> Result<Json<Value>> {
    let missing = || Error::not_found("Missing Document").with_message(format!("Missing document: {name}"));
    let document = documents.get(&name).await?.ok_or_else(missing)?;
    Ok(Json(document.value.content))
}

async fn replace_or_insert(
    documents: Dao<Document>,
    Path(name): Path<String>,
    Json(content): Json<Value>,
) -> Result<NoContent> {
    documents.upsert(Filter::id(name), &Document { content }).await?;
    Ok(NoContent)
}

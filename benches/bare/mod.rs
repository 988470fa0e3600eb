//! The server for comparison: bare axum, with the same routes and the same documents.
//!
//! It has these four routes and nothing else: no request id, no log, no limits.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

/// The entry that both servers store and respond with.
pub const ENTRY: &str = include_str!("entry.json");
/// Its id in the bare server. It is as long as the ids that the real server generates.
pub const ID: &str = "0198a2b4c6d87e0f8123456789abcdef";

type Entries = Arc<RwLock<BTreeMap<String, Value>>>;

/// The routes, with one entry under [`ID`].
pub fn router() -> serde_json::Result<Router> {
    let entries = BTreeMap::from([(ID.to_owned(), serde_json::from_str(ENTRY)?)]);
    Ok(Router::new()
        .route("/ping", get(async || ()))
        .route("/cors", get(async || ()))
        .route("/addresses", axum::routing::post(create))
        .route("/addresses/{id}", get(read))
        .with_state(Arc::new(RwLock::new(entries))))
}

async fn read(State(entries): State<Entries>, Path(id): Path<String>) -> Response {
    match entries.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
        Some(entry) => Json(entry).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn create(State(entries): State<Entries>, Json(entry): Json<Value>) -> impl IntoResponse {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let location = format!("/addresses/{id}");
    entries.write().unwrap_or_else(PoisonError::into_inner).insert(id, entry);
    (StatusCode::CREATED, [(LOCATION, location)])
}

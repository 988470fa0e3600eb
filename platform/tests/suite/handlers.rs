//! Handlers of routes that only the tests have.

use platform::http::{Json, RawBody};
use serde_json::Value;

/// Answers with the JSON that it got.
pub async fn echo(Json(body): Json<Value>) -> Json<Value> {
    Json(body)
}

/// Answers with the number of bytes that it got.
pub async fn length(RawBody(body): RawBody) -> Json<usize> {
    Json(body.len())
}

//! Handlers of routes that only the tests have.

use platform::http::{Json, RawBody};
use serde_json::Value;

/// Responds with the JSON of the request body.
pub async fn echo(Json(body): Json<Value>) -> Json<Value> {
    Json(body)
}

/// Responds with the number of bytes in the request body.
pub async fn length(RawBody(body): RawBody) -> Json<usize> {
    Json(body.len())
}

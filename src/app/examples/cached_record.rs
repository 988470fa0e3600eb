//! `/cache/{key}`: a record in the cache, as the tutorial's handler keeps one in Redis.

use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use platform::cache::Cache;
use platform::error::{Error, Result};
use platform::http::{NoContent, Path, RawBody, Route, Routes};

use crate::app::AppState;

/// How long a record is kept at most.
const TIME_TO_LIVE: Duration = Duration::from_hours(1);

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new().route(Route::at("/cache/{key}").get(read).post(keep))
}

async fn read(cache: Cache, Path(key): Path<String>) -> Result<impl IntoResponse> {
    let missing =
        || Error::not_found("Missing Record").with_message(format!("Missing record for key: {key}"));
    let record = cache.get_bytes(&key).await.ok_or_else(missing)?;
    // Whoever wrote it chose what it is: a browser must not take it for a page.
    Ok(([(CONTENT_TYPE, "application/octet-stream")], record))
}

async fn keep(cache: Cache, Path(key): Path<String>, RawBody(record): RawBody) -> Result<NoContent> {
    cache.set_bytes(&key, record, TIME_TO_LIVE).await?;
    Ok(NoContent)
}

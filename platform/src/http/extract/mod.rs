//! The extractors of the platform: a JSON body, the bytes of a body, a `Dao<T>`, a `Batch`, the cache, the locks.

pub(super) mod connector_to;
mod forward;
pub(super) mod merge_patch;
pub(super) mod paging;
pub(super) mod parameters;
pub(super) mod precondition;
pub(super) mod respond;
#[cfg(feature = "ws")]
pub(super) mod websocket;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::cache::Cache;
use crate::error::{Error, FieldError, Result};
use crate::http::request::context;
use crate::json;
use crate::lock::LockManager;
use crate::services::Services;
use crate::store::{Batch, Dao, Entity};

/// As an argument: the request body, parsed as JSON and checked against the schema of the route. The content type is
/// ignored, because `curl -d` sends the type of a form. As a return value: a JSON response.
///
/// # Errors
///
/// 400 `Invalid JSON body` for a body that is not JSON or not a `T`, 400 `JSON Schema validation failed` with all field
/// errors, 408 and 413 for a body that is too slow or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// The bytes of the request body. A body that is too slow or too large is 408 or 413.
#[derive(Clone, Debug)]
pub struct RawBody(pub Bytes);

const INVALID: &str = "Invalid JSON body";

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, document) = document(request).await?;
        if let Some(schema) = context::of(&parts)?.schema() {
            schema.check(&document)?;
        }
        serde_path_to_error::deserialize(document).map(Self).map_err(|error| type_error(&error))
    }
}

impl<S: Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        read(&parts, body).await.map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for Cache
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).cache().clone())
    }
}

impl<S: Sync> FromRequestParts<S> for LockManager
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).locks().clone())
    }
}

impl<T: Entity, S: Sync> FromRequestParts<S> for Dao<T>
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).dao())
    }
}

impl<S: Sync> FromRequestParts<S> for Batch
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).batch())
    }
}

/// The head of the request, and its body as a document.
pub(crate) async fn document(request: Request) -> Result<(Parts, Value)> {
    let (parts, body) = request.into_parts();
    let bytes = read(&parts, body).await?;
    let document = json::parse_exact(&bytes).map_err(|json::Invalid { pointer, message }| {
        invalid(pointer, message.clone()).with_source(message)
    })?;
    Ok((parts, document))
}

async fn read(parts: &Parts, body: Body) -> Result<Bytes> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(source) => {
            let failure = context::of(parts)?.take_body_failure();
            Err(failure.unwrap_or_else(|| Error::bad_request("Malformed Request Body").with_source(source)))
        }
    }
}

pub(crate) fn type_error(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    invalid(pointer_of(error.path()), error.inner().to_string())
}

/// The JSON pointer of a path.
pub(crate) fn pointer_of(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            // It displays as `[0]`, which is no segment of a pointer.
            Segment::Seq { index } => json::push_segment(&mut pointer, &index.to_string()),
            segment => json::push_segment(&mut pointer, &segment.to_string()),
        }
    }
    pointer
}

pub(crate) fn invalid(pointer: String, message: String) -> Error {
    Error::bad_request(INVALID).with_errors(vec![FieldError { pointer, message }])
}

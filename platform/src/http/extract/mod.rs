//! The extractors of the platform: a JSON body, the bytes of a body, a `Dao<T>`, a `Batch`, the cache, the locks.

#[cfg(feature = "auth")]
pub(super) mod caller;
pub(super) mod connector_to;
#[cfg(feature = "auth")]
pub(super) mod cookies;
pub(super) mod format;
mod forward;
#[cfg(feature = "oidc")]
pub(super) mod jwt;
pub(super) mod merge_patch;
mod message;
#[cfg(feature = "auth")]
pub(super) mod mine;
pub(super) mod paging;
pub(super) mod parameters;
pub(super) mod precondition;
pub(super) mod respond;
#[cfg(feature = "auth")]
pub(super) mod session;
#[cfg(feature = "auth")]
mod throttle;
#[cfg(feature = "ws")]
pub(super) mod websocket;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[cfg(feature = "auth")]
use crate::auth::{ApiTokens, Links, Passwords, Throttles};
use crate::cache::Cache;
use crate::error::{Error, FieldError, Result};
use crate::http::request::context::{self, Context};
use crate::json;
use crate::lock::LockManager;
use crate::mail::Mailer;
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
        fitting(context::of(&parts)?, document).map(Self)
    }
}

impl<S: Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        read(&parts, body).await.map(Self)
    }
}

/// Extractors that are a part of the services.
macro_rules! parts_of_services {
    ($($(#[$gate:meta])? $part:ty = $get:expr;)*) => {$(
        $(#[$gate])?
        impl<S: Sync> FromRequestParts<S> for $part
        where
            Services: FromRef<S>,
        {
            type Rejection = Error;

            async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
                let get: fn(&Services) -> Self = $get;
                Ok(get(&Services::from_ref(state)))
            }
        }
    )*};
}

parts_of_services! {
    Batch = Services::batch;
    Cache = |services| services.cache().clone();
    LockManager = |services| services.locks().clone();
    Mailer = |services| services.mailer().clone();
    #[cfg(feature = "auth")]
    ApiTokens = Services::api_tokens;
    #[cfg(feature = "auth")]
    Links = Services::links;
    #[cfg(feature = "auth")]
    Passwords = |services| services.passwords().clone();
    #[cfg(feature = "auth")]
    Throttles = Services::throttles;
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

/// The head of the request, and its body as a document.
async fn document(request: Request) -> Result<(Parts, Value)> {
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

/// The document as a value of this type, which fits the schema of the route.
fn fitting<T: DeserializeOwned>(context: &Context, document: Value) -> Result<T> {
    let checked = context.schema().map_or(Ok(()), |schema| schema.check(&document));
    let typed = checked.and_then(|()| {
        serde_path_to_error::deserialize(document).map_err(|error| {
            let FieldError { pointer, message } = message::of_serde(&error);
            invalid(pointer, message)
        })
    });
    typed.map_err(|error| context.misfit(error))
}

fn invalid(pointer: String, message: String) -> Error {
    Error::bad_request(INVALID).with_errors(vec![FieldError { pointer, message }])
}

//! Forms of pages and JSON by the same handler: what a browser sends and reads, and what a program does.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::parameters::from_pairs;
use super::{Json, RawBody};
use crate::error::{Error, Result};

/// What the client reads: a browser asks for `text/html` by name (`Accept`), and programs do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A page.
    Html,
    /// JSON, or nothing.
    Json,
}

impl Format {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let is_html = lines.any(|line| {
            let mut types = line.split(',').filter_map(|range| range.split(';').next());
            types.any(|name| name.trim().eq_ignore_ascii_case("text/html"))
        });
        if is_html { Self::Html } else { Self::Json }
    }

    /// The one for a browser or the one for a program. Neither is kept by a cache: both depend on who asks.
    pub fn pick(self, page: impl IntoResponse, json: impl IntoResponse) -> Response {
        let mut response = match self {
            Self::Html => page.into_response(),
            Self::Json => json.into_response(),
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The response to what could not be done: for a browser the page with the form as it was filled in, which is made of the
    /// error, with the status of the error; for a program the error. An error of 5xx has no page.
    pub fn refuse<P: IntoResponse>(self, error: Error, page: impl FnOnce(&Error) -> P) -> Result<Response> {
        if self == Self::Json || error.status() >= 500 {
            return Err(error);
        }
        let status = StatusCode::from_u16(error.status()).map_err(Error::internal)?;
        let page = (status, page(&error));
        Ok(self.pick(page, ()))
    }
}

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(Self::of(&parts.headers))
    }
}

/// The fields of a form that a page has sent, or of a JSON object. A body that begins with a brace is JSON, because
/// `curl -d` sends the type of a form.
///
/// # Errors
///
/// 400 `Invalid Form` that names the field, those of [`Json`], and 415 for a body of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form =
            content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        let (parts, body) = request.into_parts();
        let RawBody(bytes) = RawBody::from_request(Request::from_parts(parts.clone(), body), state).await?;
        if is_form && !bytes.trim_ascii_start().starts_with(b"{") {
            let invalid = |wrong| Error::bad_request("Invalid Form").with_errors(vec![wrong]);
            return from_pairs(&bytes).map(Self).map_err(invalid);
        }
        let request = Request::from_parts(parts, bytes.into());
        Json::from_request(request, state).await.map(|Json(value)| Self(value))
    }
}

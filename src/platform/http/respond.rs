//! What a handler gives back: JSON, a place, nothing, a page, or an error; and the one shape of an error body.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Collected};
use hyper::ext::ReasonPhrase;
use serde::Serialize;

use super::extract::Json;
use crate::platform::error::{Error, FieldError};

/// 201 with the place of what was made.
pub struct Created(String);

impl Created {
    /// The path of the new thing.
    pub fn at(location: impl Into<String>) -> Self {
        Self(location.into())
    }
}

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        match HeaderValue::try_from(self.0) {
            Ok(location) => (StatusCode::CREATED, [(LOCATION, location)]).into_response(),
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

/// 204: done, and there is nothing to say.
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        // serde_json begins with 128 bytes: most answers would be copied several times until they fit.
        let mut body = Vec::with_capacity(1_024);
        if let Err(error) = serde_json::to_writer(&mut body, &self.0) {
            return Error::internal(error).into_response();
        }
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// A page made by an askama template.
pub struct Html<T>(pub T);

impl<T: Template> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        match self.0.render() {
            Ok(page) => axum::response::Html(page).into_response(),
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

/// An error on its way to the middleware, which alone knows what its body must say of the request.
#[derive(Clone)]
pub(super) struct Refusal(pub(super) Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(Refusal(Arc::new(self)));
        response
    }
}

/// What an error body says of the request it answers.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    pub(super) request_id: &'a str,
    /// The client asked for `application/problem+json`.
    pub(super) problem: bool,
    /// `--debug`: the body tells the trace.
    pub(super) debug: bool,
}

/// The body of every error. `code` and `status` are the same number: each of the two originals' clients reads
/// one of them.
#[derive(Serialize)]
struct ErrorBody<'a> {
    status: u16,
    code: u16,
    message: &'a str,
    method: &'a str,
    uri: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

/// The same under the names of RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    method: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
}

/// Writes the error into the answer: body, content type and reason phrase. The other headers stay.
pub(super) fn write_error(response: &mut Response, error: &Error, asked: &Asked<'_>) {
    let trace = asked.debug.then(|| error.trace());
    let (status, errors) = (error.status(), error.errors());
    let (method, uri, request_id) = (asked.method, asked.uri, asked.request_id);
    let (content_type, body) = if asked.problem {
        let problem = Problem {
            r#type: "about:blank",
            title: error.reason(),
            status,
            detail: error.message(),
            instance: uri,
            method,
            request_id,
            errors,
            trace,
        };
        ("application/problem+json", serde_json::to_vec(&problem))
    } else {
        let message = error.message();
        let body = ErrorBody { status, code: status, message, method, uri, request_id, errors, trace };
        ("application/json", serde_json::to_vec(&body))
    };
    // Strings and numbers only: this cannot fail, and an empty body is better than a panic if it ever does.
    *response.body_mut() = Body::from(body.unwrap_or_default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(reason) = ReasonPhrase::try_from(error.reason().as_bytes()) {
        response.extensions_mut().insert(reason);
    }
}

/// An answer whose body is at hand, as HTTP/1.1 puts it on the wire: for what hyper does not let through.
pub(super) fn to_bytes(response: Response) -> Bytes {
    let (parts, body) = response.into_parts();
    let body =
        body.collect().now_or_never().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    let reason = parts.extensions.get::<ReasonPhrase>().map_or(&b""[..], |reason| reason.as_bytes());
    let mut bytes = format!("HTTP/1.1 {} ", parts.status.as_u16()).into_bytes();
    bytes.extend_from_slice(reason);
    for (name, value) in &parts.headers {
        for piece in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            bytes.extend_from_slice(piece);
        }
    }
    bytes.extend_from_slice(format!("\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes.into()
}

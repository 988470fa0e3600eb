//! What a handler returns: JSON, the location of a created resource, no content, or a page.

use askama::Template;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::Json;
use crate::error::Error;

/// 201 with the `Location` of the created resource, and, where the client is to see it at once, with the resource.
#[derive(Clone, Debug)]
pub struct Created<T = ()> {
    location: String,
    content: T,
}

/// A text as one segment of a path, for `Location` and for links: what is not a letter, a digit or one of `-._~` is escaped.
/// An id that a client has chosen may have anything.
pub fn segment(text: &str) -> String {
    const OTHERS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, OTHERS).to_string()
}

impl Created {
    /// The path of the new resource. The response has no content. An id that a client has chosen goes through [`segment`].
    pub fn at(location: impl Into<String>) -> Self {
        Self { location: location.into(), content: () }
    }
}

impl<T: Serialize> Created<Json<T>> {
    /// The path of the new resource, and the resource as JSON.
    pub fn with(location: impl Into<String>, value: T) -> Self {
        Self { location: location.into(), content: Json(value) }
    }
}

impl<T: IntoResponse> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        match HeaderValue::try_from(self.location) {
            Ok(location) => (StatusCode::CREATED, [(LOCATION, location)], self.content).into_response(),
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

/// 204: the request succeeded, and the response has no content.
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        // serde_json starts with 128 bytes, so most bodies would be reallocated several times while they grow.
        let mut body = Vec::with_capacity(1_024);
        if let Err(error) = serde_json::to_writer(&mut body, &self.0) {
            return Error::internal(error).into_response();
        }
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// An HTML page rendered from an askama template.
pub struct Html<T>(pub T);

impl<T: Template> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        match self.0.render() {
            Ok(page) => axum::response::Html(page).into_response(),
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

//! The body of every error response: the JSON shape of the platform, its RFC 9457 form, or the app's own form. It does
//! not matter whether a handler, an extractor, the middleware or hyper made the error.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, FieldError, Kind};
use crate::http::request::info::RequestInfo;

/// The longest text of an error response that is used as its message: 16 KiB.
const MAX_MESSAGE: usize = 16 << 10;

/// Turns the body of every error response into a JSON form of the app's own. The status does not change.
pub type ErrorFormat = fn(&ErrorBody<'_>) -> Value;

/// The body of an error response. `code` and `status` are the same number: clients of one original read the one,
/// clients of the other original the other.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody<'a> {
    /// The HTTP status code.
    pub status: u16,
    /// The same as `status`.
    pub code: u16,
    /// The message for the caller.
    pub message: &'a str,
    /// The fixed reason phrase.
    #[serde(skip)]
    pub reason: &'static str,
    /// The method of the request.
    pub method: &'a str,
    /// The path of the request, without its query.
    pub uri: &'a str,
    /// The id of the request.
    pub request_id: &'a str,
    /// The fields that were refused.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub errors: &'a [FieldError],
    /// The causes. Only with `--debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// The same fields under the names of RFC 9457.
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

/// An error in the extensions of a response. The middleware takes it out and writes the body, because only the
/// middleware knows the request.
#[derive(Clone)]
pub(crate) struct ErrorExtension(pub(super) Arc<Error>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers() {
            // An invalid header is left out, so that the error itself is sent.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::try_from(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response.extensions_mut().insert(ErrorExtension(Arc::new(self)));
        response
    }
}

/// How error bodies are written.
#[derive(Clone, Copy)]
pub(crate) struct ErrorStyle {
    /// `--debug`: the body has the trace.
    pub(crate) debug: bool,
    /// The app's own form, if it has one.
    pub(crate) format: Option<ErrorFormat>,
}

/// Writes the error into the response: body, content type, status and reason phrase. Other headers are kept.
pub(crate) fn write(response: &mut Response, error: &Error, request: &RequestInfo, style: ErrorStyle) {
    let trace = style.debug.then(|| error.trace());
    let (status, errors) = (error.status(), error.errors());
    let (method, uri, request_id) = (request.method.as_str(), request.path(), request.id.as_str());
    let (content_type, body) = if request.problem {
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
        let (message, reason) = (error.message(), error.reason());
        let body =
            ErrorBody { status, code: status, message, reason, method, uri, request_id, errors, trace };
        let body = match style.format {
            Some(format) => serde_json::to_vec(&format(&body)),
            None => serde_json::to_vec(&body),
        };
        ("application/json", body)
    };
    // Serialising strings and numbers does not fail. If it ever did, an empty body would be better than a panic.
    *response.body_mut() = Body::from(body.unwrap_or_default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(reason) = ReasonPhrase::try_from(error.reason().as_bytes()) {
        response.extensions_mut().insert(reason);
    }
}

/// Makes an error of an error response that does not come from [`Error`]: with its status, and its text as the message.
/// `None` when the handler wrote a body of its own, as JSON or as a page.
pub(crate) fn from_response(response: &mut Response) -> Option<Error> {
    if has_own_body(response) {
        None
    } else {
        Some(of_status(response.status(), plain_text(response.body_mut())))
    }
}

/// Whether the body is anything but empty or plain text. The extractors of axum write their errors as plain text.
fn has_own_body(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|content_type| !content_type.as_bytes().starts_with(b"text/plain"))
}

/// The text of a body that is complete in memory, as that of axum's extractors is. A stream is not waited for.
fn plain_text(body: &mut Body) -> Option<String> {
    let body = Limited::new(std::mem::take(body), MAX_MESSAGE);
    let bytes = body.collect().now_or_never()?.ok()?.to_bytes();
    String::from_utf8(bytes.into()).ok().filter(|text| !text.is_empty())
}

/// An error with this status. The text of a 4xx is the message for the caller; that of a 5xx goes only to the log.
pub(crate) fn of_status(status: StatusCode, text: Option<String>) -> Error {
    let phrase = status.canonical_reason().unwrap_or("Request Failed");
    let error = Error::new(Kind::from_status(status.as_u16())).with_reason(phrase);
    match text {
        Some(text) if status.is_client_error() => error.with_message(text),
        Some(text) => error.with_source(text),
        None => error,
    }
}

/// A response as bytes of HTTP/1.1, for requests that hyper rejects. Its body must be complete in memory.
pub(crate) fn to_bytes(response: Response) -> Bytes {
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

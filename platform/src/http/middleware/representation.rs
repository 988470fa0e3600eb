//! What a client gets of a complete response: its tag, 304 where it has it already, no body for HEAD.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use http_body::Body as _;

use super::compression;
use super::etag;
use crate::error::Error;
use crate::http::request::info::RequestInfo;
use crate::http::settings::Settings;

/// The largest body that is hashed for its `ETag`, 1 MiB; hashing holds it in memory twice.
const MAX_TAGGED: u64 = 1 << 20;

/// Adds the `ETag`, and turns the response into 304 when the client already has it. `PreconditionFailed` when the client wants
/// another one (`If-Match`, which goes first: RFC 9110, section 13.2.2).
pub(crate) fn tag(request: &RequestInfo, response: &mut Response, settings: &Settings) -> Result<(), Error> {
    let read = matches!(request.method, Method::GET | Method::HEAD);
    if !read || response.status() != StatusCode::OK {
        return Ok(());
    }
    let small = response.body().size_hint().exact().is_some_and(|size| size <= MAX_TAGGED);
    if small
        && !response.headers().contains_key(ETAG)
        && let Some(tag) = etag::of_body(response.body_mut()).map_err(Error::internal)?
    {
        response.headers_mut().insert(ETAG, tag);
    }
    let wanted = request.if_match.as_ref().zip(response.headers().get(ETAG));
    if wanted.is_some_and(|(if_match, tag)| !etag::matches(if_match, tag)) {
        return Err(Error::precondition_failed().with_message("It has another version now"));
    }
    let fresh = request.if_none_match.as_ref().zip(response.headers().get(ETAG));
    if fresh.is_some_and(|(if_none_match, tag)| etag::matches(if_none_match, tag)) {
        // RFC 9110, section 15.4.5: a 304 has the `Vary` and the tag of the response that it stands for.
        if settings.compression {
            let min_size = settings.compression_min_size.get();
            compression::describe(response, request.accept_encoding.as_ref(), min_size);
        }
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(CONTENT_TYPE);
    }
    Ok(())
}

/// Drops the body of a response to HEAD and keeps its length.
pub(crate) fn drop_body(response: &mut Response) {
    let body = std::mem::take(response.body_mut());
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = body.size_hint().exact().filter(|_| !bodiless)
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

//! Compresses an answer when the client accepts it and the body is worth it.
//!
//! tower-http's service does the work; it is entered only then, because as a layer around every request it
//! costs half a bare request (docs/PERFORMANCE.md).

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use http_body::Body as _;
use tower::{Service as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::Compression;

use super::cold::box_cold_future;
use super::etag;

/// The level of RFC 7932 that costs about as much as gzip's default; brotli's own default, 11, is for files
/// that are compressed once.
const LEVEL: i32 = 4;

/// Compresses the answer, or says in `Vary` that it would have been, had the client accepted it.
pub(super) async fn apply(response: &mut Response, accept: Option<&HeaderValue>, min_size: u64) {
    if !worth_it(response, min_size) {
        return;
    }
    match accept {
        Some(accept) => {
            *response = box_cold_future(|| compressed(std::mem::take(response), accept.clone())).await;
        }
        None => add_vary(response),
    }
}

async fn compressed(response: Response, accept: HeaderValue) -> Response {
    let status = response.status();
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, accept);
    let mut response = Some(response);
    let answer = service_fn(move |_| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let always =
        |_: StatusCode, _: axum::http::Version, _: &axum::http::HeaderMap, _: &axum::http::Extensions| true;
    let mut service =
        Compression::new(answer).quality(CompressionLevel::Precise(LEVEL)).compress_when(always);
    let Ok(response) = service.call(request).await;
    let mut response = response.map(Body::new);
    // tower-http answers 406 to a client that accepts nothing at all. The request has been carried out by now,
    // and RFC 9110, section 12.5.3 lets us send the body as it is.
    *response.status_mut() = status;
    let compressed = response.headers().contains_key(CONTENT_ENCODING);
    if let Some(weak) = response.headers().get(ETAG).filter(|_| compressed).and_then(etag::weak) {
        response.headers_mut().insert(ETAG, weak);
    }
    response
}

/// Says that the answer would be another one for a client that accepts other encodings.
pub(super) fn add_vary(response: &mut Response) {
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
}

/// Whether a client that accepts it gets this answer compressed.
pub(super) fn worth_it(response: &Response, min_size: u64) -> bool {
    let headers = response.headers();
    let size = response.body().size_hint();
    size.exact().is_none_or(|exact| exact > 0 && exact >= min_size)
        && headers.get(CONTENT_TYPE).is_some_and(compressible)
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !headers.get(CACHE_CONTROL).is_some_and(|value| contains(value, "no-transform"))
}

/// Text in the wide sense; event streams are left alone because compression holds their events back.
fn compressible(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (essence.starts_with("text/") && essence != "text/event-stream")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || ["application/json", "application/javascript", "application/xml", "application/wasm"]
            .contains(&essence.as_str())
}

fn contains(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains(word))
}

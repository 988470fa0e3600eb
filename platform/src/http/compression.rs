//! Compresses a response when the client accepts it and the body is large enough and compressible.
//!
//! The service of tower-http does it. It is called for such a response only: as a layer around every request it costs
//! half as much as a whole request of bare axum (docs/PERFORMANCE.md).

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

/// The level of brotli that costs about as much as the default of gzip. The default of brotli, 11, is meant for files
/// that are compressed once.
const LEVEL: i32 = 4;

/// Compresses the response. If the client does not accept it, only adds the `Vary` header.
pub(super) async fn apply(response: &mut Response, accept: Option<&HeaderValue>, min_size: u64) {
    if !is_compressible(response, min_size) {
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
    let inner = service_fn(move |_| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let always =
        |_: StatusCode, _: axum::http::Version, _: &axum::http::HeaderMap, _: &axum::http::Extensions| true;
    let mut service = Compression::new(inner).quality(CompressionLevel::Precise(LEVEL)).compress_when(always);
    let Ok(response) = service.call(request).await;
    let mut response = response.map(Body::new);
    // tower-http responds 406 to a client that accepts no encoding at all. But the request has been carried out, and
    // RFC 9110, section 12.5.3 allows the body without an encoding.
    *response.status_mut() = status;
    let compressed = response.headers().contains_key(CONTENT_ENCODING);
    if let Some(weak) = response.headers().get(ETAG).filter(|_| compressed).and_then(etag::weak) {
        response.headers_mut().insert(ETAG, weak);
    }
    response
}

/// Tells caches that the response depends on the encodings that the client accepts.
pub(super) fn add_vary(response: &mut Response) {
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
}

/// Whether this response is compressed for a client that accepts it.
pub(super) fn is_compressible(response: &Response, min_size: u64) -> bool {
    let headers = response.headers();
    let size = response.body().size_hint();
    size.exact().is_none_or(|exact| exact > 0 && exact >= min_size)
        && headers.get(CONTENT_TYPE).is_some_and(is_text)
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && !headers.get(CACHE_CONTROL).is_some_and(|value| contains(value, "no-transform"))
}

/// Whether the media type is some kind of text. An event stream is not compressed: the encoder would hold its events
/// back.
fn is_text(content_type: &HeaderValue) -> bool {
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

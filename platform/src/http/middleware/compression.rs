//! Compresses a response when the client accepts it and the body is large enough and compressible.
//!
//! The service of tower-http does it. It is called for such a response only: as a layer around every request it costs
//! half as much as a whole request of bare axum (docs/PERFORMANCE.md).

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use http_body::Body as _;
use tower::{Service as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::Compression;

use super::etag;

/// The level of brotli that costs about as much as the default of gzip. The default of brotli, 11, is meant for files
/// that are compressed once.
const LEVEL: i32 = 4;

/// Compresses the response. If the client does not accept it, only adds the `Vary` header.
pub(crate) async fn apply(response: &mut Response, accept: Option<&HeaderValue>, min_size: u64) {
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
    if compressed {
        weaken_tag(&mut response);
    }
    response
}

/// Gives the response the headers that it would have if it were compressed now, other than those of a body.
pub(crate) fn describe(response: &mut Response, accept: Option<&HeaderValue>, min_size: u64) {
    if !is_compressible(response, min_size) {
        return;
    }
    add_vary(response);
    if accept.is_some_and(chooses_compression) {
        weaken_tag(response);
    }
}

/// Two encodings of one content are not the same to the last byte.
fn weaken_tag(response: &mut Response) {
    if let Some(weak) = response.headers().get(ETAG).and_then(etag::weak) {
        response.headers_mut().insert(ETAG, weak);
    }
}

/// Whether tower-http compresses a response for a client that accepts these encodings (RFC 9110, section 12.5.3). A test
/// compares; to ask tower-http itself would set up an encoder.
fn chooses_compression(accept: &HeaderValue) -> bool {
    let Ok(accept) = accept.to_str() else { return false };
    let mut listed = Vec::new();
    for entry in accept.split(',') {
        let (coding, parameter) =
            entry.split_once(';').map_or((entry, None), |(coding, more)| (coding, Some(more)));
        let coding = coding.trim().to_ascii_lowercase();
        let coding = if coding == "x-gzip" { "gzip".to_owned() } else { coding };
        listed.extend(parameter.map_or(Some(1_000), weight).map(|weight| (coding, weight)));
    }
    let first = |coding: &str| listed.iter().find(|(name, _)| name == coding).map(|(_, weight)| *weight);
    let any = first("*");
    let weight_of = |coding: &str| match any {
        Some(any) => first(coding).or(Some(any)),
        None => listed.iter().filter(|(name, _)| name == coding).map(|(_, weight)| *weight).max(),
    };
    let best = ["gzip", "br", "zstd"].into_iter().filter_map(weight_of).max();
    best.is_some_and(|best| best > 0 && best >= weight_of("identity").unwrap_or(0))
}

/// The weight `q=0.123` in thousandths.
fn weight(parameter: &str) -> Option<u16> {
    let parameter = parameter.trim();
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !matches!(whole, "0" | "1")
        || fraction.len() > 3
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    format!("{whole}{fraction:0<3}").parse().ok().filter(|weight| *weight <= 1_000)
}

/// Tells caches that the response depends on the encodings that the client accepts.
fn add_vary(response: &mut Response) {
    response.headers_mut().append(VARY, HeaderValue::from_static("accept-encoding"));
}

/// Whether this response is compressed for a client that accepts it.
fn is_compressible(response: &Response, min_size: u64) -> bool {
    let headers = response.headers();
    // The body of a file is a stream, whose length is in the header.
    let declared = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    let size = response.body().size_hint().exact().or_else(declared);
    size.is_none_or(|exact| exact > 0 && exact >= min_size)
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

/// Makes and boxes a large future in a function that is not inlined.
///
/// `Box::pin` alone is not enough: the future is made on the stack of the caller first. For compression and
/// decompression that was 35 KiB, in every request.
#[inline(never)]
fn box_cold_future<'a, F: Future + Send + 'a>(
    make: impl FnOnce() -> F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send + 'a>> {
    Box::pin(make())
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    #[tokio::test]
    async fn what_is_chosen_is_what_tower_http_does() {
        let entries = [
            "gzip",
            "br;q=0.5",
            "zstd;q=0",
            "identity",
            "identity;q=0",
            "identity;q=0.4",
            "*",
            "*;q=0",
            "*;q=0.3",
            "deflate",
            "x-gzip;q=0.001",
            "gzip;q=2",
            "GZIP;Q=1.000",
            "gzip; q=0.5",
            "gzip;q=0.1234",
            "br ; q=1.",
            "",
            "gzip;q=0",
        ];
        let pairs = entries.iter().flat_map(|one| entries.iter().map(move |other| format!("{one}, {other}")));
        let three = entries.iter().map(|one| format!("{one},gzip;q=0.2,*;q=0.1,br;q=0"));
        for accept in pairs.chain(three).chain(entries.map(String::from)) {
            let accept = HeaderValue::try_from(accept).unwrap();
            let response = || {
                let mut response = Response::new(Body::from("some text"));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
                response.headers_mut().insert(ETAG, HeaderValue::from_static("\"x\""));
                response
            };
            let (mut sent, mut described) = (response(), response());
            apply(&mut sent, Some(&accept), 0).await;
            describe(&mut described, Some(&accept), 0);
            for name in [ETAG, VARY] {
                assert_eq!(described.headers().get(&name), sent.headers().get(&name), "{accept:?}");
            }
        }
    }
}

//! Forwards a request to an upstream: what it is told about the client, and what is left alone on its way back.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{FORWARDED, VIA};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::connector_to::ConnectorTo;
use crate::connector::Upstream;
use crate::error::{Error, Kind, Result};
use crate::http::request::context::Context;
use crate::http::request::request_headers::joined;
use crate::http::routing::endpoint::Relayed;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

impl<U: Upstream> ConnectorTo<U> {
    /// Forwards a request as it came (docs/CONNECTOR.md), with what of its path follows `prefix`. The route says
    /// [`as_sent`](crate::http::Route::as_sent), or the upstream would get compressed bodies decompressed.
    ///
    /// # Errors
    ///
    /// 400 for a path that leads upwards, 405 for TRACE, which would show the headers that are added here; 502, 503 and 504
    /// where the upstream gives no response.
    pub async fn forward(&self, request: Request, prefix: &str) -> Result<Response> {
        let context = request.extensions().get::<Context>().cloned();
        let context = context.ok_or_else(|| Error::internal("the request did not pass the middleware"))?;
        if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
            let others = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            return Err(Error::new(Kind::MethodNotAllowed).with_header("allow", others));
        }
        let path = below(request.uri().path_and_query(), prefix)?;
        let mut request: Request<Body> = request;
        describe_client(&context, &mut request);
        let mut response = (**self).forward(request, &path).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.extensions_mut().insert(Relayed);
        }
        Ok(response)
    }
}

/// The rest of the target after the prefix, byte for byte.
fn below(target: Option<&PathAndQuery>, prefix: &str) -> Result<PathAndQuery> {
    let prefix = prefix.trim_end_matches('/');
    let rest = target.and_then(|target| target.as_str().strip_prefix(prefix));
    let rest = rest.filter(|rest| rest.starts_with('/'));
    let rest = rest.ok_or_else(|| Error::internal(format!("the path does not begin with {prefix}/")))?;
    let path = rest.split_once('?').map_or(rest, |(path, _)| path);
    if leads_upwards(path) {
        return Err(Error::bad_request("Invalid Path"));
    }
    rest.parse().map_err(|_| Error::bad_request("Invalid Path"))
}

/// Whether some server would read `..` in this path: escaped, with `\` for `/`, or with a parameter (`..;x`).
fn leads_upwards(path: &str) -> bool {
    let plain: Cow<'_, [u8]> = percent_decode_str(path).into();
    let mut segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| segment.split(|byte| *byte == b';').next() == Some(b".."))
}

/// Says in the headers who the client is. What a client claims about itself is dropped; what a trusted proxy says about its
/// own client stays.
fn describe_client(context: &Context, request: &mut Request) {
    let version = if request.version() == Version::HTTP_2 { "2.0" } else { "1.1" };
    let headers = request.headers_mut();
    if !context.peer_is_trusted() {
        let claims = |name: &&HeaderName| {
            name.as_str().starts_with("x-forwarded-") || **name == FORWARDED || **name == X_REAL_IP
        };
        let claimed: Vec<HeaderName> = headers.keys().filter(claims).cloned().collect();
        for name in claimed {
            headers.remove(name);
        }
    }
    if let Some(peer) = context.peer() {
        append(headers, X_FORWARDED_FOR, &peer.ip().to_string());
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme(context)));
    }
    if let Some(host) = context.info().host().filter(|_| !headers.contains_key(X_FORWARDED_HOST)) {
        headers.insert(X_FORWARDED_HOST, host.value().clone());
    }
    append(headers, VIA, &format!("{version} server"));
}

/// How the client reached this server.
fn scheme(context: &Context) -> &'static str {
    if context.is_secure() { "https" } else { "http" }
}

/// Appends to a list in a header, as one line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value)
        && let Some(all) = joined(headers.get_all(&name).iter().chain([&value]), ", ")
    {
        headers.insert(name, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_upwards_is_recognised_in_every_spelling() {
        for path in [
            "/..",
            "/../x",
            "/a/..",
            "/a/../b",
            "/%2e%2E/x",
            "/.%2e",
            "/a%2f..%2fb",
            "/..%5cx",
            "/..\\x",
            "/..;x=1/y",
        ] {
            assert!(leads_upwards(path), "{path}");
        }
        for path in ["/", "/a/b", "/...", "/a..b", "/..a", "/%252e%252e", "/%", "/%2", "/a;..", "/%+2e"] {
            assert!(!leads_upwards(path), "{path}");
        }
    }

    #[test]
    fn the_rest_of_the_target_is_passed_byte_for_byte() {
        for rest in ["/a", "/", "/a//b/", "/a%2Fb?x=%20&y='|&z=a+b?", "/a?", "/a?../..", "/%C3%A4;v=1"] {
            let target = format!("/proxy{rest}").parse().unwrap();
            assert_eq!(below(Some(&target), "/proxy").unwrap().as_str(), rest);
            assert_eq!(below(Some(&target), "/proxy/").unwrap().as_str(), rest);
        }
        let other = "/proxyx".parse().unwrap();
        assert_eq!(below(Some(&other), "/proxy").unwrap_err().status(), 500);
    }
}

//! Forwards a request to an upstream: what it is told about the client, and what is left alone on its way back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRef, Request};
use axum::http::header::{HOST, VIA};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::response::Response;

use super::connector_to::ConnectorTo;
use crate::connector::{Upstream, leads_upwards};
use crate::error::{Error, Kind, Result};
use crate::http::request::context::Context;
use crate::http::request::request_headers::joined;
use crate::http::routing::endpoint::{Endpoint, Relayed};
use crate::http::routing::route::Route;
use crate::services::Services;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl<S: Clone + Send + Sync + 'static> Route<S>
where
    Services: FromRef<S>,
{
    /// Forwards every request at this path and below it to the upstream `U`, with what of its path follows this one
    /// (docs/CONNECTOR.md). The upstream has to be in the configuration, or the server does not start. A handler of your own that
    /// forwards calls [`ConnectorTo::forward`].
    pub fn forward<U: Upstream>(path: &str) -> Self {
        Self::forwarding(path, U::NAME, |paths, state, layers| {
            let paths: Vec<String> = paths.into_iter().take(1).collect();
            let prefix: Arc<str> = paths.concat().into();
            let handler = move |upstream: ConnectorTo<U>, request: Request| {
                let prefix = Arc::clone(&prefix);
                async move { upstream.forward(request, &prefix).await }
            };
            Endpoint::new(paths, handler, state, layers)
        })
    }
}

impl<U: Upstream> ConnectorTo<U> {
    /// Forwards a request as it came, with what of its path follows `prefix`; for a handler that first decides whether, or to
    /// which upstream. Else [`Route::forward`] does it. The route says [`as_sent`](Route::as_sent).
    ///
    /// # Errors
    ///
    /// 500 for a route that does not say it, where bodies would be decompressed and the client could claim to be another; 400 for
    /// a path that leads upwards, 405 for TRACE, which would show the headers that are added here; 502, 503 and 504 where the
    /// upstream gives no response.
    pub async fn forward(&self, request: Request, prefix: &str) -> Result<Response> {
        let context = request.extensions().get::<Context>().cloned();
        let context = context.ok_or_else(|| Error::internal("the request did not pass the middleware"))?;
        if !context.route().is_some_and(|route| route.as_sent) {
            return Err(Error::internal(
                "the route does not say as_sent, so its requests cannot be forwarded",
            ));
        }
        if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
            let others = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            return Err(Error::new(Kind::MethodNotAllowed).with_header("allow", others));
        }
        let path = below(request.uri().path_and_query(), prefix)?;
        let mut request: Request<Body> = request;
        describe_client(&context, prefix, &mut request);
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
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let rest = rest.ok_or_else(|| Error::internal(format!("the path does not begin with {prefix}/")))?;
    let path = rest.split_once('?').map_or(rest, |(path, _)| path);
    if leads_upwards(path) {
        return Err(Error::bad_request("Invalid Path"));
    }
    let slash = if path.is_empty() { "/" } else { "" };
    format!("{slash}{rest}").parse().map_err(|_| Error::bad_request("Invalid Path"))
}

/// Says in the headers who the client is, and what it has asked for. What a trusted proxy says about its own client stays.
fn describe_client(context: &Context, prefix: &str, request: &mut Request) {
    let version = if request.version() == Version::HTTP_2 { "2.0" } else { "1.1" };
    let headers = request.headers_mut();
    if let Some(peer) = context.peer() {
        append(headers, X_FORWARDED_FOR, &peer.ip().to_string());
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme(context)));
    }
    if let Some(host) = context.info().host() {
        // In HTTP/2 it has a place of its own.
        headers.insert(HOST, host.value().clone());
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.value().clone());
    }
    let before = headers.get(X_FORWARDED_PREFIX).and_then(|prefix| prefix.to_str().ok()).unwrap_or_default();
    let prefix = format!("{}{}", before.trim_end_matches('/'), prefix.trim_end_matches('/'));
    if !prefix.is_empty()
        && let Ok(prefix) = HeaderValue::try_from(prefix)
    {
        headers.insert(X_FORWARDED_PREFIX, prefix);
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
    fn the_rest_of_the_target_is_passed_byte_for_byte() {
        for rest in ["/a", "/", "/a//b/", "/a%2Fb?x=%20&y='|&z=a+b?", "/a?", "/a?../..", "/%C3%A4;v=1"] {
            let target = format!("/proxy{rest}").parse().unwrap();
            assert_eq!(below(Some(&target), "/proxy").unwrap().as_str(), rest);
            assert_eq!(below(Some(&target), "/proxy/").unwrap().as_str(), rest);
        }
        for (target, root) in [("/proxy", "/"), ("/proxy?x=/a", "/?x=/a"), ("/proxy/?", "/?")] {
            assert_eq!(below(Some(&target.parse().unwrap()), "/proxy").unwrap().as_str(), root);
        }
        let other = "/proxyx".parse().unwrap();
        assert_eq!(below(Some(&other), "/proxy").unwrap_err().status(), 500);
    }
}

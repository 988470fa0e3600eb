//! The one middleware: what happens to every request before and after its handler, top to bottom.
//!
//! It is one function and not a stack of layers: each layer costs a boxed future, and ten of them cost six
//! times the request they wrap (docs/PERFORMANCE.md). Stock parts are entered only by the requests that need
//! them. It knows no handler and no slice.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONNECTION, CONTENT_ENCODING,
    CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, ORIGIN,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};

use super::body::{self, BoundedBody, Pace};
use super::compression;
use super::context::{Context, REQUEST_ID};
use super::cross_site;
use super::decompression::Encoding;
use super::endpoint::Endpoint;
use super::etag;
use super::exchange::Exchange;
use super::peer::Peer;
use super::request_headers::RequestHeaders;
use super::respond::{self, Asked, Refusal};
use super::routes::{RouteInfo, RouteTable, Routes};
use super::settings::Settings;
use crate::platform::error::{Error, Kind, StartError};
use crate::platform::logging::Logging;

/// The largest answer that is hashed for its `ETag`; hashing holds it in memory twice.
const MAX_TAGGED: u64 = 1 << 20;

/// Everything that a request passes through.
pub struct Stack {
    table: RouteTable,
    logging: Logging,
    settings: Settings,
    fixed_headers: HeaderMap,
    debug: bool,
}

impl Stack {
    /// Builds the table and the fixed headers.
    pub fn new<S: Clone + Send + Sync + 'static>(
        routes: Routes<S>,
        state: &S,
        settings: &Settings,
        logging: Logging,
        debug: bool,
    ) -> Result<Self, StartError> {
        let table = routes.build(state)?;
        let fixed_headers = fixed_headers(settings)?;
        let settings = settings.clone();
        Ok(Self { table, logging, settings, fixed_headers, debug })
    }

    /// The table of all routes.
    pub fn routes(&self) -> &RouteTable {
        &self.table
    }

    /// Where the lines of requests go.
    pub(super) fn logging(&self) -> &Logging {
        &self.logging
    }

    /// Answers one request. What needs no waiting is done before there is a future: that is copied several times on its
    /// way, and is small when the request is not in it.
    pub fn answer(
        self: Arc<Self>,
        peer: Option<Peer>,
        mut request: Request,
    ) -> impl Future<Output = Response> + Send + use<> {
        let route = self.table.find(request.uri().path());
        let headers = RequestHeaders::of(request.headers());
        let context = Context::new(headers.request_id.first(), route, self);
        let mut exchange = Exchange::begin(&request, &headers, context.clone(), peer);
        if let Some(peer) = exchange.peer() {
            peer.set_unread(!request.body().is_end_stream());
        }
        let stack = exchange.context.stack();
        let checked = headers.check(&request, &stack.settings);
        let handled = match stack.admit(&exchange, checked, &mut request) {
            Ok(handler) => catch_unwind(AssertUnwindSafe(|| handler(request, context)))
                .map_err(|panic| panicked(&*panic).into_response()),
            Err(answer) => Err(answer),
        };
        async move {
            let stack = exchange.context.stack();
            let mut response = match handled {
                Ok(handled) => stack.run(&exchange, handled).await,
                Err(answer) => answer,
            };
            stack.finalize(&exchange, &mut response).await;
            if exchange.conclude(&response) { response } else { exchange.follow(response) }
        }
    }

    /// Makes the answer of a handler, or of nobody, the answer to this request.
    async fn finalize(&self, exchange: &Exchange, response: &mut Response) {
        self.complete(exchange, response);
        if self.settings.etag
            && let Err(error) = tag(exchange, response, &self.settings).await
        {
            *response = Error::internal(error).into_response();
            self.complete(exchange, response);
        }
        if self.settings.compression {
            let min_size = self.settings.compression_min_size.get();
            compression::apply(response, exchange.accept_encoding.as_ref(), min_size).await;
        }
        if exchange.method == Method::HEAD {
            drop_body(response);
        }
    }

    /// The answer to what hyper refuses before there is a request, as bytes of HTTP/1.1, and its line in the log.
    pub(super) fn refuse(
        self: &Arc<Self>,
        peer: Peer,
        status: StatusCode,
        date: Option<HeaderValue>,
    ) -> Bytes {
        let context = Context::new(None, None, Arc::clone(self));
        let (request, headers) = (Request::default(), RequestHeaders::default());
        let mut exchange = Exchange::begin(&request, &headers, context, Some(peer)).unreadable();
        let error = match status {
            // Which of the two bounds it was, hyper does not tell.
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let (size, count) = (self.settings.max_header_size.get(), self.settings.max_headers.get());
                let message = format!("The headers are larger than {size} bytes, or more than {count}");
                Error::new(Kind::HeadersTooLarge).with_message(message)
            }
            StatusCode::BAD_REQUEST => Error::bad_request("Malformed Request"),
            _ => foreign_error(status, None),
        };
        let mut response = error.into_response();
        self.complete(&exchange, &mut response);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(date) = date {
            response.headers_mut().insert(DATE, date);
        }
        exchange.conclude(&response);
        respond::to_bytes(response)
    }

    /// Finds the handler, and prepares the request for it; or answers at once what no handler has to see. `checked` is
    /// what was found of the headers.
    #[expect(clippy::result_large_err, reason = "both are the way of a request, and neither is rare")]
    fn admit<'a>(
        &self,
        exchange: &'a Exchange,
        checked: Result<(), Error>,
        request: &mut Request,
    ) -> Result<&'a Endpoint, Response> {
        checked.map_err(Error::into_response)?;
        let Some(route) = exchange.context.route() else {
            // RFC 9110, section 9.3.7: a question about the server and no path of it. Load balancers ask it.
            let whole = exchange.method == Method::OPTIONS && exchange.path() == "*";
            let unknown = || Error::not_found("Unknown Endpoint").into_response();
            return Err(if whole { StatusCode::NO_CONTENT.into_response() } else { unknown() });
        };
        if exchange.method == Method::OPTIONS {
            return Err(options(route, request));
        }
        let handled_as = if exchange.method == Method::HEAD { &Method::GET } else { &exchange.method };
        let Some(handler) = route.handler(handled_as) else {
            let error = Error::new(Kind::MethodNotAllowed);
            return Err(([(ALLOW, route.allow.clone())], error).into_response());
        };
        if route.cookies && cross_site::is_forged(&exchange.method, request.headers(), route.cors.as_ref()) {
            return Err(Error::new(Kind::Forbidden)
                .with_reason("Cross-Site Request Refused")
                .into_response());
        }
        // A handler answers HEAD as it answers GET; the body is dropped at the end, when its length is known.
        *request.method_mut() = handled_as.clone();
        if !request.body().is_end_stream()
            && let Some(refusal) = self.admit_body(exchange, route, request)
        {
            return Err(refusal);
        }
        Ok(handler)
    }

    /// Bounds the size and the pace of the body, and undoes its compression.
    fn admit_body(&self, exchange: &Exchange, route: &RouteInfo, request: &mut Request) -> Option<Response> {
        let limit = self.body_limit(route);
        let declared = request.body().size_hint().lower();
        if declared > limit {
            return Some(body::too_large(limit).into_response());
        }
        let encoding = match Encoding::of(request.headers()) {
            Ok(encoding) => encoding,
            Err(unsupported) => return Some(unsupported.into_response()),
        };
        let pace =
            Pace { grace: self.settings.body_grace.get(), min_rate: self.settings.body_min_rate.get() };
        let context = &exchange.context;
        let wire = std::mem::take(request.body_mut());
        let wire = BoundedBody::new(wire, limit, Some(pace), context.clone()).of(exchange.peer().cloned());
        *request.body_mut() = match encoding {
            None => Body::new(wire),
            Some(encoding) => {
                request.headers_mut().remove(CONTENT_ENCODING);
                request.headers_mut().remove(CONTENT_LENGTH);
                // Bounded again: 500 kB of gzip can be a gigabyte.
                let inside = encoding.undo(Body::new(wire));
                Body::new(BoundedBody::new(inside, limit, None, context.clone()))
            }
        };
        None
    }

    fn body_limit(&self, route: &RouteInfo) -> u64 {
        route.body_limit.unwrap_or_else(|| self.settings.body_limit.get())
    }

    /// Waits for the handler: within its time, and with a panic turned into an answer.
    async fn run(&self, exchange: &Exchange, handler: BoxFuture<'static, Response>) -> Response {
        let own = exchange.context.route().and_then(|route| route.timeout);
        let timeout = own.unwrap_or_else(|| self.settings.request_timeout.get());
        let handler = AssertUnwindSafe(handler).catch_unwind();
        match until(exchange.started + timeout, handler).await {
            Some(Ok(response)) => response,
            Some(Err(panic)) => panicked(&*panic).into_response(),
            None => Error::new(Kind::Unavailable)
                .with_reason("Request Timed Out")
                .with_source(format!("the handler took longer than {timeout:?}"))
                .into_response(),
        }
    }

    /// Gives an answer what every answer has.
    fn complete(&self, exchange: &Exchange, response: &mut Response) {
        self.settle_error(exchange, response);
        self.add_fixed_headers(exchange, response);
        if let Some(cors) = exchange.context.route().and_then(|route| route.cors.as_ref())
            && exchange.method != Method::OPTIONS
        {
            cors.answer(exchange.origin.as_ref(), response.headers_mut());
        }
    }

    /// Gives every error its body. An error that did not come from us (axum's extractors answer with plain
    /// text) gets one as well; one that a handler wrote itself, as JSON or as a page, is left as it is.
    fn settle_error(&self, exchange: &Exchange, response: &mut Response) {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        let refusal = response.extensions_mut().remove::<Refusal>();
        let error = match (exchange.context.take_body_failure(), refusal) {
            (Some(failure), _) => Arc::new(failure),
            (None, Some(Refusal(error))) => error,
            (None, None) if own_body(response) => return,
            (None, None) => Arc::new(foreign_error(status, plain_text(response.body_mut()))),
        };
        let asked = Asked {
            method: exchange.method.as_str(),
            uri: exchange.path(),
            request_id: exchange.context.request_id(),
            problem: exchange.problem,
            debug: self.debug,
        };
        respond::write_error(response, &error, &asked);
        if error.kind() == Kind::RequestTimeout {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.failed(error);
    }

    /// The security headers and the request id. The answer's own headers win.
    fn add_fixed_headers(&self, exchange: &Exchange, response: &mut Response) {
        // A copy of the whole map costs less than inserting its headers one by one.
        let mut headers = self.fixed_headers.clone();
        headers.insert(REQUEST_ID, exchange.context.request_id_header());
        let own = std::mem::replace(response.headers_mut(), headers);
        if !own.is_empty() {
            response.headers_mut().extend(own);
        }
    }
}

/// The headers of every answer. They are copied for each, so their texts are leaked, once per process: a static text
/// is copied without touching a counter.
fn fixed_headers(settings: &Settings) -> Result<HeaderMap, StartError> {
    let mut headers = HeaderMap::with_capacity(32);
    for (name, value) in settings.security_headers.iter().filter(|(_, value)| !value.as_str().is_empty()) {
        let wrong = |why: String| StartError::config(format!("http.security_headers.{name}: {why}"));
        let header = HeaderName::try_from(name).map_err(|error| wrong(error.to_string()))?;
        let header = HeaderName::from_static(String::from(header.as_str()).leak());
        let value = Bytes::from_static(String::from(value.as_str()).leak().as_bytes());
        headers
            .insert(header, HeaderValue::from_maybe_shared(value).map_err(|error| wrong(error.to_string()))?);
    }
    Ok(headers)
}

/// The answer to `OPTIONS`: with CORS headers for a preflight to a route that asks for them.
fn options(route: &RouteInfo, request: &Request) -> Response {
    let asked = request.headers();
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, route.allow.clone());
    if let Some(cors) = &route.cors {
        let origin = asked.get(ORIGIN);
        if origin.is_some() && asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            cors.preflight(origin, &route.allow, asked.get(ACCESS_CONTROL_REQUEST_HEADERS), headers);
        } else {
            cors.answer(origin, headers);
        }
    }
    response
}

/// Adds the `ETag`, and turns the answer into 304 when the client already has it.
async fn tag(exchange: &Exchange, response: &mut Response, settings: &Settings) -> Result<(), axum::Error> {
    let read = matches!(exchange.method, Method::GET | Method::HEAD);
    if !read || response.status() != StatusCode::OK {
        return Ok(());
    }
    let small = response.body().size_hint().exact().is_some_and(|size| size <= MAX_TAGGED);
    if small && !response.headers().contains_key(ETAG) {
        let tag = tag_of(response.body_mut()).await?;
        response.headers_mut().insert(ETAG, tag);
    }
    let fresh = exchange.if_none_match.as_ref().zip(response.headers().get(ETAG));
    if fresh.is_some_and(|(asked, tag)| etag::matches(asked, tag)) {
        // RFC 9110, section 15.4.5: a 304 has the `Vary` of the answer in whose place it stands.
        if settings.compression && compression::worth_it(response, settings.compression_min_size.get()) {
            compression::add_vary(response);
        }
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(CONTENT_TYPE);
    }
    Ok(())
}

/// The tag of a body, which stays what it was.
async fn tag_of(body: &mut Body) -> Result<HeaderValue, axum::Error> {
    if body.is_end_stream() {
        return Ok(etag::EMPTY);
    }
    let bytes = whole(std::mem::take(body)).await?;
    let tag = etag::of(&bytes);
    *body = Body::from(bytes);
    Ok(tag)
}

/// All of a body; nearly always that is one piece, for which `collect` takes longer than to hash it.
async fn whole(mut body: Body) -> Result<Bytes, axum::Error> {
    let first = match body.frame().await {
        Some(frame) => frame?.into_data().unwrap_or_default(),
        None => return Ok(Bytes::new()),
    };
    if body.is_end_stream() {
        return Ok(first);
    }
    let rest = body.collect().await?.to_bytes();
    Ok(if rest.is_empty() { first } else { [first, rest].concat().into() })
}

fn drop_body(response: &mut Response) {
    let body = std::mem::take(response.body_mut());
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let Some(length) = body.size_hint().exact().filter(|_| !bodiless) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// True for an error answer whose handler meant its body: anything but nothing and plain text.
fn own_body(response: &Response) -> bool {
    let text = response.headers().get(CONTENT_TYPE);
    text.is_some_and(|text| !text.as_bytes().starts_with(b"text/plain"))
}

/// More than this is no message: 16 KiB.
const MAX_MESSAGE: usize = 16 << 10;

/// The text of a body that is at hand, as those of axum's extractors are.
fn plain_text(body: &mut Body) -> Option<String> {
    let body = Limited::new(std::mem::take(body), MAX_MESSAGE);
    let bytes = body.collect().now_or_never()?.ok()?.to_bytes();
    String::from_utf8(bytes.into()).ok().filter(|text| !text.is_empty())
}

/// The status is kept: it is what the handler, or axum, meant. What it said of the request goes to the caller, what it
/// said of the server only to the log.
fn foreign_error(status: StatusCode, said: Option<String>) -> Error {
    let phrase = status.canonical_reason().unwrap_or("Request Failed");
    let kind = match status.as_u16() {
        400 => Kind::BadRequest,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        405 => Kind::MethodNotAllowed,
        408 => Kind::RequestTimeout,
        409 => Kind::Conflict,
        413 => Kind::PayloadTooLarge,
        415 => Kind::UnsupportedMediaType,
        431 => Kind::HeadersTooLarge,
        500 => Kind::Internal,
        503 => Kind::Unavailable,
        other => Kind::Other(other),
    };
    let error = Error::new(kind).with_reason(phrase);
    match said {
        Some(said) if status.is_client_error() => error.with_message(said),
        Some(said) => error.with_source(said),
        None => error,
    }
}

/// What the future gives, or nothing when its time is over. Most handlers are ready at once, and a timer costs as
/// much as the routing of a request: only a handler that waits gets one.
async fn until<F: Future + Unpin>(deadline: Instant, mut future: F) -> Option<F::Output> {
    match poll_fn(|task| Poll::Ready(Pin::new(&mut future).poll(task))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout_at(deadline.into(), future).await.ok(),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!("panic: {}", text.unwrap_or("of no known type")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[tokio::test]
    async fn a_body_of_several_pieces_is_read_whole_and_in_order() {
        for pieces in [&[][..], &["a"], &["", "a"], &["a", "b", "c"]] {
            let stream = futures_util::stream::iter(pieces.iter().copied().map(Ok::<_, io::Error>));
            assert_eq!(whole(Body::from_stream(stream)).await.unwrap(), pieces.concat(), "{pieces:?}");
        }
        let broken = [Ok("a"), Err(io::Error::other("the disk is gone"))];
        assert!(whole(Body::from_stream(futures_util::stream::iter(broken))).await.is_err());
    }
}

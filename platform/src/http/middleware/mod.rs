//! The one middleware: what happens to every request before and after its handler, top to bottom.
//!
//! It is one function and not a stack of layers: each layer costs a boxed future, and ten of them cost six
//! times the request they wrap (docs/PERFORMANCE.md). Stock parts are entered only by the requests that need
//! them. It knows no handler and no slice.

mod body;
mod compression;
mod cross_site;
mod decompression;
pub(super) mod error_body;
mod etag;
mod exchange;
mod fixed_headers;
mod gate;
mod rate_limit;
mod representation;

use std::any::Any;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONNECTION, CONTENT_ENCODING,
    CONTENT_LENGTH, DATE, ORIGIN, RANGE,
};
use axum::http::{Extensions, HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::Body as _;

use self::body::{BoundedBody, MinDataRate};
use self::cross_site::{Own, Verdict};
use self::decompression::Encoding;
use self::error_body::{ErrorExtension, ErrorFormat, ErrorStyle};
use self::exchange::Exchange;
use self::fixed_headers::FixedHeaders;
use self::gate::Gate;
use crate::error::{Error, Kind, StartError};
use crate::http::request::arrival::Arrival;
use crate::http::request::claims;
use crate::http::request::context::{Context, Core};
use crate::http::request::info::{Client, RequestInfo};
use crate::http::request::measures::Measures;
use crate::http::request::peer::Peer;
use crate::http::request::request_headers::{self, RequestHeaders};
use crate::http::routing::endpoint::Relayed;
use crate::http::routing::layer::{self, Inner, Layers};
use crate::http::routing::route::{MethodInfo, RouteInfo};
use crate::http::routing::routes::RouteTable;
use crate::http::settings::Settings;
use crate::logging::{Logging, Within};
use crate::setting::PublicUrl;
use crate::shutdown::Shutdown;
use crate::traces::Traces;

/// Everything that a request passes through.
pub struct Stack {
    core: Arc<Core>,
    logging: Logging,
    settings: Settings,
    fixed_headers: FixedHeaders,
    gate: Gate,
    public_url: PublicUrl,
    /// Around all endpoints and all refusals.
    layers: Layers,
    error_style: ErrorStyle,
}

/// What a [`Stack`] is made of, besides its settings.
pub(crate) struct Parts {
    pub(crate) table: RouteTable,
    pub(crate) layers: Layers,
    pub(crate) error_format: Option<ErrorFormat>,
    /// Whether requests are counted for `/metrics`.
    pub(crate) counts: bool,
    /// Where spans of requests are recorded.
    pub(crate) traces: Option<Arc<Traces>>,
    /// Where its users find it.
    pub(crate) public_url: PublicUrl,
}

impl Stack {
    /// Makes the fixed headers, and takes the rest as it is.
    pub(crate) fn new(
        parts: Parts,
        settings: &Settings,
        logging: Logging,
        debug: bool,
    ) -> Result<Self, StartError> {
        let Parts { table, layers, error_format, counts, traces, public_url } = parts;
        layers.build();
        let core = Core {
            measures: counts.then(|| Measures::new(&table)),
            traces,
            table,
            shutdown: Shutdown::default(),
            list_limit: settings.list_limit.get(),
            unprocessable_content: settings.unprocessable_content,
            request_timeout: settings.request_timeout.get(),
            upgrade_idle_timeout: settings.upgrade_idle_timeout.get(),
            trusted_proxies: settings.trusted_proxies.clone(),
        };
        let fixed_headers = FixedHeaders::new(settings)?;
        let (gate, settings) = (Gate::new(settings, &core.table), settings.clone());
        let core = Arc::new(core);
        let error_style = ErrorStyle { debug, format: error_format };
        Ok(Self { core, logging, settings, fixed_headers, gate, public_url, layers, error_style })
    }

    /// The table of all routes.
    pub fn routes(&self) -> &RouteTable {
        &self.core.table
    }

    /// What handlers wait for to learn that the server drains.
    pub fn shutdown(&self) -> &Shutdown {
        &self.core.shutdown
    }

    /// Responds to one request. What needs no waiting is done before there is a future: a future is copied several times
    /// on its way, and is small when the request is not in it.
    pub fn respond(
        self: Arc<Self>,
        peer: Option<Peer>,
        mut request: Request,
    ) -> impl Future<Output = Response> + Send + use<> {
        request_headers::join_cookies(&mut request);
        let route = self.core.table.find(request.uri().path());
        let headers = RequestHeaders::of(request.headers());
        let proxies = &self.settings.trusted_proxies;
        let client = peer.as_ref().map(|peer| Client::of(peer, proxies, request.headers()));
        let traces = self.core.traces.as_deref();
        let info = RequestInfo::new(&request, &headers, client.unwrap_or_default(), route, traces);
        let mut exchange = Exchange::begin(Context::new(info, &self.core), peer, self.logging.clone());
        if let Some(peer) = exchange.peer() {
            peer.set_unread_body(!request.body().is_end_stream());
        }
        // In HTTP/2, a request is one stream of the connection.
        let http1 = request.version() <= Version::HTTP_11;
        // RFC 9110, section 9.3.6.
        let tunnel = http1 && request.method() == Method::CONNECT;
        let checked = headers.check(&request, exchange.request().check_host(), &self.settings);
        let passed = checked.and_then(|()| self.gate.pass(&exchange.context, &self.settings));
        let (checked, pass) = match passed {
            Ok(pass) => (Ok(()), Some(pass)),
            Err(error) => (Err(error), None),
        };
        let admitted = self.admit(&exchange, checked, &mut request);
        let handled = self.call(&exchange, admitted, request);
        async move {
            let mut response = match handled {
                Ok(handled) => self.run(&exchange, handled).await,
                Err(response) => response,
            };
            drop(pass);
            self.finalize(&mut exchange, &mut response).await;
            if http1 {
                exchange.announce_close(&mut response).await;
            }
            let complete = exchange.record_response(&response);
            let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if upgraded || tunnel && response.status().is_success() {
                exchange.log_at_upgrade_end();
                response
            } else if complete {
                response
            } else {
                exchange.log_at_body_end(response)
            }
        }
    }

    /// Calls the handler, or gives the refusal; both through the layer around all, where there is one.
    #[expect(clippy::result_large_err, reason = "both variants are common, so boxing one would cost")]
    fn call(
        &self,
        exchange: &Exchange,
        admitted: Result<&MethodInfo, Response>,
        mut request: Request,
    ) -> Result<BoxFuture<'static, Response>, Response> {
        let context = &exchange.context;
        let handling = match (admitted, self.layers.is_empty()) {
            (Err(refusal), true) => return Err(refusal),
            (Ok(handler), true) => {
                let connect_info = context.route().is_some_and(|route| route.connect_info);
                let extend = |extensions: &mut Extensions| extend(extensions, context, connect_info);
                catch_unwind(AssertUnwindSafe(|| handler.endpoint.call(request, extend)))
            }
            (admitted, false) => {
                extend(request.extensions_mut(), context, true);
                if admitted.is_err() && !request.body().is_end_stream() {
                    // A layer may read the body of what is refused after it.
                    self.bound_body(exchange, None, self.settings.body_limit.get(), &mut request);
                }
                let context = context.clone();
                let inner: Inner = match admitted {
                    Ok(_) => Arc::new(move |request| {
                        let call = |handler: &MethodInfo| handler.endpoint.call(request, |_| ());
                        let none = || std::future::ready(Response::default()).boxed();
                        context.handler().map_or_else(none, call)
                    }),
                    Err(refusal) => layer::once(refusal),
                };
                catch_unwind(AssertUnwindSafe(|| self.layers.call(request, inner)))
            }
        };
        handling.map_err(|panic| panicked(&*panic).into_response())
    }

    /// Makes the response of a handler, or a refusal, the response to this request.
    async fn finalize(&self, exchange: &mut Exchange, response: &mut Response) {
        self.complete(exchange, response);
        if response.extensions().get::<Relayed>().is_some() {
            if exchange.request().method == Method::HEAD {
                // A handler of GET has asked the upstream for one.
                *response.body_mut() = Body::empty();
            }
            return;
        }
        // The handler of any method, or a mounted router, has already dropped the body of a response to HEAD.
        let is_head = exchange.request().method == Method::HEAD;
        let is_any = exchange.context.handler().is_some_and(MethodInfo::is_any);
        let dropped = is_head && is_any && response.body().is_end_stream();
        if !dropped && self.settings.etag {
            // The body may be code of the app.
            let request = exchange.request();
            let tagged =
                catch_unwind(AssertUnwindSafe(|| representation::tag(request, response, &self.settings)));
            let failure = match tagged {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(panic) => Some(panicked(&*panic)),
            };
            if let Some(error) = failure {
                *response = error.into_response();
                self.complete(exchange, response);
            }
        }
        if self.settings.compression {
            let min_size = self.settings.compression_min_size.get();
            compression::apply(response, exchange.request().accept_encoding.as_ref(), min_size).await;
        }
        if !dropped && is_head {
            representation::drop_body(response);
        }
    }

    /// The response to what hyper rejects before there is a request, as bytes of HTTP/1.1, and its line in the log.
    pub(crate) fn refuse(&self, peer: Peer, status: StatusCode, date: Option<HeaderValue>) -> Bytes {
        let info = RequestInfo::unreadable(Client::direct(&peer), self.core.traces.as_deref());
        let context = Context::new(info, &self.core);
        let mut exchange = Exchange::begin(context, Some(peer), self.logging.clone());
        let error = match status {
            // hyper does not say which limit was exceeded.
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let (size, count) = (self.settings.max_header_size.get(), self.settings.max_headers.get());
                let message = format!("The headers are larger than {size} bytes, or more than {count}");
                Error::new(Kind::HeadersTooLarge).with_message(message)
            }
            StatusCode::URI_TOO_LONG => request_headers::target_too_long(&self.settings),
            StatusCode::BAD_REQUEST => Error::bad_request("Malformed Request"),
            _ => error_body::of_status(status, None),
        };
        let mut response = error.into_response();
        self.complete(&mut exchange, &mut response);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(date) = date {
            response.headers_mut().insert(DATE, date);
        }
        exchange.record_response(&response);
        error_body::to_bytes(response)
    }

    /// Finds the handler, and prepares the request for it; or refuses at once what no handler has to see. `checked` is
    /// the result of the check of the headers.
    #[expect(clippy::result_large_err, reason = "both variants are common, so boxing one would cost")]
    fn admit<'a>(
        &self,
        exchange: &'a Exchange,
        checked: Result<(), Error>,
        request: &mut Request,
    ) -> Result<&'a MethodInfo, Response> {
        checked.map_err(Error::into_response)?;
        let (known, allowed) = (exchange.request(), &self.settings.allowed_hosts);
        let (method, host) = (&known.method, known.host());
        let refusal = |how: &Arrival| how.refusal(request, host, allowed);
        if let Some(refusal) = exchange.peer().and_then(Peer::arrival).and_then(refusal) {
            return Err(refusal);
        }
        let Some(route) = exchange.context.route() else {
            // RFC 9110, section 9.3.7: a question about the server as a whole. Load balancers send it.
            let whole_server = *method == Method::OPTIONS && known.path() == "*";
            let unknown = || Error::not_found("Unknown Endpoint").into_response();
            return Err(if whole_server { StatusCode::NO_CONTENT.into_response() } else { unknown() });
        };
        let Some(handler) = route.handler(known.handler_method()) else {
            if *method == Method::OPTIONS {
                return Err(options(route, request));
            }
            let error = Error::new(Kind::MethodNotAllowed);
            return Err(([(ALLOW, route.allow.clone())], error).into_response());
        };
        if *method == Method::OPTIONS && route.cors.is_some() {
            return Err(options(route, request));
        }
        let trusted = &self.settings.trusted_origins;
        let own = Own { host, public_url: &self.public_url, trusted };
        match cross_site::judge(method, &own, request.headers(), route.cors.as_ref()) {
            Verdict::WithoutCredentials => cross_site::remove_credentials(request.headers_mut()),
            Verdict::Refuse if route.cross_site.is_none() => {
                return Err(Error::new(Kind::Forbidden)
                    .with_reason("Cross-Site Request Refused")
                    .into_response());
            }
            Verdict::Pass | Verdict::Refuse => {}
        }
        if route.as_sent {
            claims::remove(request.headers_mut(), exchange.context.peer_is_trusted());
        }
        if *method == Method::HEAD && !handler.is_any() {
            // A handler responds to HEAD as to GET; the body is dropped at the end, when its length is known.
            *request.method_mut() = Method::GET;
            // Only GET knows ranges (RFC 9110, section 14.2).
            request.headers_mut().remove(RANGE);
        }
        if !request.body().is_end_stream()
            && let Some(refusal) = self.admit_body(exchange, handler, request)
        {
            return Err(refusal);
        }
        Ok(handler)
    }

    /// Bounds the size and the data rate of the body, and decompresses it.
    fn admit_body(
        &self,
        exchange: &Exchange,
        handler: &MethodInfo,
        request: &mut Request,
    ) -> Option<Response> {
        let limit = handler.body_limit.unwrap_or_else(|| self.settings.body_limit.get());
        let declared = request.body().size_hint().lower();
        if declared > limit {
            return Some(body::too_large(limit).into_response());
        }
        let as_sent = exchange.context.route().is_some_and(|route| route.as_sent);
        let encoding = match Encoding::of(request.headers()) {
            _ if as_sent => None,
            Ok(encoding) => encoding,
            Err(unsupported) => return Some(unsupported.into_response()),
        };
        // This is the limit; that of axum's own extractors, 2 MB, is lifted.
        DefaultBodyLimit::disable().apply(request);
        self.bound_body(exchange, handler.body_min_rate, limit, request);
        if let Some(encoding) = encoding {
            request.headers_mut().remove(CONTENT_ENCODING);
            request.headers_mut().remove(CONTENT_LENGTH);
            // Bounded again: 500 kB of gzip can be a gigabyte.
            let inside = encoding.decode(std::mem::take(request.body_mut()));
            *request.body_mut() = Body::new(BoundedBody::new(inside, limit, None, exchange.context.clone()));
        }
        None
    }

    /// Bounds the size and the data rate of a body as it is sent. `rate` is that of the route, where it has one.
    fn bound_body(&self, exchange: &Exchange, rate: Option<u64>, limit: u64, request: &mut Request) {
        let min_rate = MinDataRate {
            grace: self.settings.body_grace.get(),
            bytes_per_second: rate.unwrap_or_else(|| self.settings.body_min_rate.get()),
        };
        let wire = std::mem::take(request.body_mut());
        let wire = BoundedBody::new(wire, limit, Some(min_rate), exchange.context.clone());
        *request.body_mut() = Body::new(wire.notify(exchange.peer().cloned()));
    }

    /// Waits for the handler: within its time, and with a panic turned into a response.
    async fn run(&self, exchange: &Exchange, handling: BoxFuture<'static, Response>) -> Response {
        let deadline = exchange.context.deadline();
        let handling = Within::new(exchange.context.labels(), AssertUnwindSafe(handling).catch_unwind());
        match until(deadline, handling).await {
            Some(Ok(response)) => response,
            Some(Err(panic)) => panicked(&*panic).into_response(),
            None => Error::new(Kind::Unavailable)
                .with_reason("Request Timed Out")
                .with_source(format!(
                    "the handler took longer than {:?}",
                    deadline - exchange.request().started
                ))
                .into_response(),
        }
    }

    /// Adds what every response has: the body of an error, the fixed headers, CORS.
    fn complete(&self, exchange: &mut Exchange, response: &mut Response) {
        self.settle_error(exchange, response);
        let request = exchange.request();
        self.fixed_headers.add(request.client.secure, request.id.to_header(), response);
        if let Some(cors) = exchange.context.route().and_then(|route| route.cors.as_ref())
            && request.method != Method::OPTIONS
        {
            cors.add_headers(request.origin.as_ref(), response.headers_mut());
        }
    }

    /// Gives every error its body. An error that did not come from us (axum's extractors respond with plain
    /// text) gets one as well; one that a handler wrote itself, as JSON or as a page, is left as it is, and so are
    /// those of a mounted router.
    fn settle_error(&self, exchange: &mut Exchange, response: &mut Response) {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        let refusal = response.extensions_mut().remove::<ErrorExtension>();
        let mounted = exchange.context.route().is_some_and(|route| route.mounted)
            || response.extensions().get::<Relayed>().is_some();
        let error = match (exchange.context.take_body_failure(), refusal) {
            (Some(failure), _) => Arc::new(failure),
            (None, Some(ErrorExtension(error))) => error,
            (None, None) if mounted => return,
            (None, None) => match error_body::from_response(response) {
                Some(error) => Arc::new(error),
                None => return,
            },
        };
        error_body::write(response, &error, exchange.request(), self.error_style);
        if error.kind() == Kind::RequestTimeout {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.set_error(error);
    }
}

/// The response to `OPTIONS`: with CORS headers for a preflight to a route that asks for them.
fn options(route: &RouteInfo, request: &Request) -> Response {
    let sent = request.headers();
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, route.allow.clone());
    if let Some(cors) = &route.cors {
        let origin = sent.get(ORIGIN);
        if origin.is_some() && sent.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            cors.add_preflight_headers(
                origin,
                &route.allow,
                sent.get(ACCESS_CONTROL_REQUEST_HEADERS),
                headers,
            );
        } else {
            cors.add_headers(origin, headers);
        }
    }
    response
}

/// Adds what the extractors of this request need.
fn extend(extensions: &mut Extensions, context: &Context, connect_info: bool) {
    extensions.insert(context.clone());
    if let Some(peer) = context.peer().filter(|_| connect_info) {
        extensions.insert(ConnectInfo::<SocketAddr>(peer));
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!("panic: {}", text.unwrap_or("of no known type")))
}

/// The output of the future, or `None` when its time is over. Most handlers are ready at once, and a timer costs as
/// much as the routing of a request: only a handler that waits gets one.
async fn until<F: Future + Unpin>(deadline: Instant, mut future: F) -> Option<F::Output> {
    match poll_fn(|task| Poll::Ready(Pin::new(&mut future).poll(task))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout_at(deadline.into(), future).await.ok(),
    }
}

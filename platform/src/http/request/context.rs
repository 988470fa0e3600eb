//! What belongs to one request: its id, its route, its client, and what its handler adds to its line in the log.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};

use super::measures::{self, Measures};
use super::request_id::RequestId;
use super::trace::TraceParent;
use crate::connector::Tally;
use crate::error::Error;
use crate::http::routing::route::RouteInfo;
use crate::http::routing::routes::RouteTable;
use crate::http::settings::trusted_proxies::TrustedProxies;
use crate::logging::{Labels, Value, Within};
use crate::schema::Schema;
use crate::shutdown::Shutdown;
use crate::tls::ClientCertificate;
use crate::traces::{Ended, SpanContext, Traces};

/// Fields that handlers of one request may add; a bound on the length of a line.
const MAX_FIELDS: usize = 64;

/// A field that a handler adds to the line of its request.
pub type Field = (Cow<'static, str>, Value);

/// What all requests share of the server that they are sent to.
pub(crate) struct Core {
    pub(crate) table: RouteTable,
    pub(crate) shutdown: Shutdown,
    /// The most items in one response of a list, `http.list_limit`.
    pub(crate) list_limit: u64,
    /// How long a handler may take, `http.request_timeout`.
    pub(crate) request_timeout: Duration,
    /// How long an upgraded connection may be silent, `http.upgrade_idle_timeout`.
    pub(crate) upgrade_idle_timeout: Duration,
    /// The figures of requests, if they are counted.
    pub(crate) measures: Option<Measures>,
    /// Where spans of requests are recorded, if they are.
    pub(crate) traces: Option<Arc<Traces>>,
    /// The proxies that are believed, `http.trusted_proxies`.
    pub(crate) trusted_proxies: TrustedProxies,
}

/// The request at hand; cheap to clone. A handler that takes it as an argument can read the request id and add
/// fields to the one line that the log gets for the request.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    request_id: RequestId,
    /// What came, or where spans are recorded, what is passed on.
    trace: Option<TraceParent>,
    /// Its trace and its span, where spans are recorded.
    span_context: Option<SpanContext>,
    /// The index of its route in the table.
    route: Option<usize>,
    client: Client,
    core: Arc<Core>,
    started: Instant,
    /// Empty for most requests, which need no lock then.
    notes: OnceLock<Mutex<Notes>>,
    /// The calls of its handler to other services.
    tally: OnceLock<Arc<Tally>>,
}

impl Labels for Inner {
    fn request_id(&self) -> &str {
        self.request_id.as_str()
    }

    fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().map(TraceParent::id)
    }
}

/// Who sent a request, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// The other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    /// The client that a trusted proxy names.
    pub(crate) forwarded: Option<IpAddr>,
    /// It has used HTTPS, with this server or with a trusted proxy.
    pub(crate) secure: bool,
    /// The certificate that it has shown to this server.
    pub(crate) certificate: Option<ClientCertificate>,
}

#[derive(Default)]
struct Notes {
    fields: Vec<Field>,
    body_failure: Option<Error>,
}

impl Context {
    /// `request_id` and `trace_parent` are what the client sent.
    pub(crate) fn new(
        request_id: Option<&HeaderValue>,
        trace_parent: Option<&HeaderValue>,
        route: Option<usize>,
        client: Client,
        core: &Arc<Core>,
    ) -> Self {
        let request_id = RequestId::new(request_id);
        let (notes, tally) = (OnceLock::new(), OnceLock::new());
        let (core, started) = (Arc::clone(core), Instant::now());
        let received = trace_parent.and_then(TraceParent::read);
        let caller = received.as_ref().and_then(TraceParent::caller);
        let span_context = core.traces.as_ref().map(|traces| traces.begin(caller));
        let trace = span_context.and_then(TraceParent::at).or(received);
        Self(Arc::new(Inner { request_id, trace, span_context, route, client, core, started, notes, tally }))
    }

    /// A context without a server: no route, no client, a generated id. For tests of an extractor, which finds it in
    /// the extensions of its request.
    pub fn detached() -> Self {
        let core = Core {
            table: RouteTable::default(),
            shutdown: Shutdown::default(),
            list_limit: 1_000,
            request_timeout: Duration::from_secs(30),
            upgrade_idle_timeout: Duration::from_mins(5),
            measures: None,
            traces: None,
            trusted_proxies: TrustedProxies::default(),
        };
        Self::new(None, None, None, Client::default(), &Arc::new(core))
    }

    /// The id of the request: the client's `X-Request-Id` where that is well formed, else 32 hexadecimal digits.
    pub fn request_id(&self) -> &str {
        self.0.request_id.as_str()
    }

    /// The id of the trace that the request belongs to, from its header `traceparent`: 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace().map(TraceParent::id)
    }

    pub(crate) fn trace(&self) -> Option<&TraceParent> {
        self.0.trace.as_ref()
    }

    /// The future, whose records in the log carry the id of this request. Handlers have that by themselves; it is for what they
    /// spawn.
    pub fn within<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Within::new(self.labels(), Box::pin(future))
    }

    pub(crate) fn labels(&self) -> Arc<dyn Labels> {
        Arc::clone(&self.0) as Arc<dyn Labels>
    }

    pub(crate) fn request_id_header(&self) -> HeaderValue {
        self.0.request_id.to_header()
    }

    /// The route that was found; a handler always has one.
    pub fn route(&self) -> Option<&RouteInfo> {
        self.routes().get(self.0.route?)
    }

    /// The table of all routes.
    pub fn routes(&self) -> &RouteTable {
        &self.0.core.table
    }

    /// The other end of the connection: the client, or the last proxy before the server. Nothing for a request that
    /// came through no socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.client.peer
    }

    /// The address of the client: what a trusted proxy says in `X-Forwarded-For` (`http.trusted_proxies`), else the
    /// other end of the connection.
    pub fn client(&self) -> Option<IpAddr> {
        self.0.client.forwarded.or_else(|| Some(self.peer()?.ip()))
    }

    /// Whether the client has used HTTPS: with this server, or with a trusted proxy that says so in `X-Forwarded-Proto`
    /// (`http.trusted_proxies`).
    pub fn is_secure(&self) -> bool {
        self.0.client.secure
    }

    /// The certificate that the client has shown to this server, verified (`server.tls.clients`). Through a proxy it is
    /// that of the proxy.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.0.client.certificate.as_ref()
    }

    /// Whether the other end of the connection is a proxy of `http.trusted_proxies`.
    pub(crate) fn peer_is_trusted(&self) -> bool {
        self.peer().is_some_and(|peer| self.0.core.trusted_proxies.trusts(peer.ip()))
    }

    /// Tells when the server drains.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.core.shutdown
    }

    pub(crate) fn forwarded(&self) -> Option<IpAddr> {
        self.0.client.forwarded
    }

    pub(crate) fn list_limit(&self) -> u64 {
        self.0.core.list_limit
    }

    pub(crate) fn upgrade_idle_timeout(&self) -> Duration {
        self.0.core.upgrade_idle_timeout
    }

    /// When the request head was read.
    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// When the time of the handler of this method is over.
    pub(crate) fn deadline(&self, method: &Method) -> Instant {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let handler = self.route().and_then(|route| route.handler(method));
        let timeout = handler.and_then(|handler| handler.timeout);
        self.0.started + timeout.unwrap_or(self.0.core.request_timeout)
    }

    /// Counts the request as one that has begun.
    pub(crate) fn measure_begin(&self) {
        if let Some(measures) = &self.0.core.measures {
            measures.begin();
        }
    }

    /// Counts the request as one that has ended.
    pub(crate) fn measure_end(&self, method: &Method, status: u16) {
        if let Some(measures) = &self.0.core.measures {
            measures.end(self.0.route, method, status, self.0.started.elapsed());
        }
    }

    /// Records the span of the request, which has ended.
    pub(crate) fn record_span(&self, method: &Method, path: &str, status: u16) {
        let (Some(traces), Some(span_context)) = (&self.0.core.traces, self.0.span_context) else { return };
        traces.record(Ended {
            context: span_context,
            took: self.0.started.elapsed(),
            method: measures::method_name(method),
            route: self.route().map(|route| route.template.as_str()),
            path,
            scheme: if self.is_secure() { "https" } else { "http" },
            status,
            client: self.client().map(|address| address.to_string()),
            request_id: self.request_id(),
        });
    }

    /// Where the calls of this request to other services are counted.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(self.0.tally.get_or_init(Arc::default))
    }

    /// The counted calls, if the handler can have made any.
    pub(crate) fn existing_tally(&self) -> Option<&Tally> {
        self.0.tally.get().map(AsRef::as_ref)
    }

    /// The schema of this method's bodies.
    pub(crate) fn schema(&self, method: &Method) -> Option<&Schema> {
        self.route()?.handler(method)?.schema.as_ref()
    }

    /// Adds a field to the line of this request. Of more than 64 fields the rest is left out.
    pub fn log(&self, key: &'static str, value: impl Into<Value>) {
        let mut notes = self.notes();
        if notes.fields.len() < MAX_FIELDS {
            notes.fields.push((Cow::Borrowed(key), value.into()));
        }
    }

    /// Notes why a body could not be read, for extractors that do not tell. The first failure counts: it is the cause
    /// of the others.
    pub(crate) fn body_failed(&self, error: Error) {
        self.notes().body_failure.get_or_insert(error);
    }

    pub(crate) fn take_body_failure(&self) -> Option<Error> {
        self.existing_notes()?.body_failure.take()
    }

    pub(crate) fn take_fields(&self) -> Vec<Field> {
        self.existing_notes().map(|mut notes| std::mem::take(&mut notes.fields)).unwrap_or_default()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(self.0.notes.get_or_init(Mutex::default))
    }

    fn existing_notes(&self) -> Option<MutexGuard<'_, Notes>> {
        self.0.notes.get().map(lock)
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    // A panic while a field is added leaves nothing half done.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        of(parts).cloned()
    }
}

impl<S: Sync> FromRequestParts<S> for Shutdown {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(of(parts)?.shutdown().clone())
    }
}

/// The context of a request whose parts are at hand; every request that came through the middleware has one.
pub(crate) fn of(parts: &Parts) -> Result<&Context, Error> {
    parts
        .extensions
        .get::<Context>()
        .ok_or_else(|| Error::internal("the request did not pass the middleware"))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn an_extractor_can_be_tested_without_a_server() {
        let (mut parts, ()) = Request::new(()).into_parts();
        // The control: a request that has passed no middleware.
        assert!(Context::from_request_parts(&mut parts, &()).await.is_err());
        parts.extensions.insert(Context::detached());
        let context = Context::from_request_parts(&mut parts, &()).await.unwrap();
        assert_eq!(context.request_id().len(), 32);
        assert!(context.route().is_none() && context.client().is_none());
        assert!(!Shutdown::from_request_parts(&mut parts, &()).await.unwrap().has_begun());
    }
}

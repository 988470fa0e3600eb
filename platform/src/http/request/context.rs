//! What belongs to one request: its id, its route, its client, and what its handler adds to its line in the log.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::info::{Client, RequestInfo};
use super::measures::Measures;
use super::trace::TraceParent;
use crate::connector::{Tally, method_name};
use crate::error::{Error, Kind};
use crate::http::routing::route::{MethodInfo, RouteInfo};
use crate::http::routing::routes::RouteTable;
use crate::http::settings::trusted_proxies::TrustedProxies;
use crate::logging::{Labels, Value, Within};
use crate::schema::Schema;
use crate::shutdown::Shutdown;
use crate::tls::ClientCertificate;
use crate::traces::{Ended, Traces};

/// Fields that handlers of one request may add; a bound on the length of a line.
const MAX_FIELDS: usize = 64;

/// The time of a handler whose own is beyond what the clock can count.
const NO_DEADLINE: Duration = Duration::from_hours(24 * 365 * 30);

/// A field that a handler adds to the line of its request.
pub type Field = (Cow<'static, str>, Value);

/// What all requests share of the server that they are sent to.
pub(crate) struct Core {
    pub(crate) table: RouteTable,
    pub(crate) shutdown: Shutdown,
    /// The most items in one response of a list, `http.list_limit`.
    pub(crate) list_limit: u64,
    /// Whether a JSON body that does not fit is 422, `http.unprocessable_content`.
    pub(crate) unprocessable_content: bool,
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
    info: RequestInfo,
    core: Arc<Core>,
    /// Empty for most requests, which need no lock then.
    notes: OnceLock<Mutex<Notes>>,
    /// The calls of its handler to other services.
    tally: OnceLock<Arc<Tally>>,
}

impl Labels for Inner {
    fn request_id(&self) -> &str {
        self.info.id.as_str()
    }

    fn trace_id(&self) -> Option<&str> {
        self.info.trace.as_ref().map(TraceParent::id)
    }
}

#[derive(Default)]
struct Notes {
    fields: Vec<Field>,
    body_failure: Option<Error>,
}

impl Context {
    pub(crate) fn new(info: RequestInfo, core: &Arc<Core>) -> Self {
        let (notes, tally) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { info, core: Arc::clone(core), notes, tally }))
    }

    /// A context without a server: no route, no client, a generated id. For tests of an extractor, which finds it in
    /// the extensions of its request.
    pub fn detached() -> Self {
        let core = Core {
            table: RouteTable::default(),
            shutdown: Shutdown::default(),
            list_limit: 1_000,
            unprocessable_content: false,
            request_timeout: Duration::from_secs(30),
            upgrade_idle_timeout: Duration::from_mins(5),
            measures: None,
            traces: None,
            trusted_proxies: TrustedProxies::default(),
        };
        Self::new(RequestInfo::unreadable(Client::default(), None), &Arc::new(core))
    }

    /// The id of the request: the client's `X-Request-Id` where that is well formed, else 32 hexadecimal digits.
    pub fn request_id(&self) -> &str {
        self.0.info.id.as_str()
    }

    /// The id of the trace that the request belongs to, from its header `traceparent`: 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.0.trace_id()
    }

    /// What the request is.
    pub(crate) fn info(&self) -> &RequestInfo {
        &self.0.info
    }

    /// The future, whose records in the log carry the id of this request. Handlers have that by themselves; it is for what they
    /// spawn.
    pub fn within<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Within::new(self.labels(), Box::pin(future))
    }

    pub(crate) fn labels(&self) -> Arc<dyn Labels> {
        Arc::clone(&self.0) as Arc<dyn Labels>
    }

    /// The route that was found; a handler always has one.
    pub fn route(&self) -> Option<&RouteInfo> {
        self.routes().get(self.0.info.route?)
    }

    /// Its handler, with its limits.
    pub(crate) fn handler(&self) -> Option<&MethodInfo> {
        self.route()?.handler(self.0.info.handler_method())
    }

    /// The table of all routes.
    pub fn routes(&self) -> &RouteTable {
        &self.0.core.table
    }

    /// The other end of the connection: the client, or the last proxy before the server. Nothing for a request that
    /// came through no socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.info.client.peer
    }

    /// The address of the client: what a trusted proxy says in `X-Forwarded-For` (`http.trusted_proxies`), else the
    /// other end of the connection.
    pub fn client(&self) -> Option<IpAddr> {
        self.0.info.client.forwarded.or_else(|| Some(self.peer()?.ip()))
    }

    /// Whether the client has used HTTPS: with this server, or with a trusted proxy that says so in `X-Forwarded-Proto`
    /// (`http.trusted_proxies`).
    pub fn is_secure(&self) -> bool {
        self.0.info.client.secure
    }

    /// The certificate that the client has shown to this server, verified (`server.tls.clients`). Through a proxy it is
    /// that of the proxy.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.0.info.client.certificate.as_ref()
    }

    /// Whether the other end of the connection is a proxy of `http.trusted_proxies`.
    pub(crate) fn peer_is_trusted(&self) -> bool {
        self.peer().is_some_and(|peer| self.0.core.trusted_proxies.trusts(peer.ip()))
    }

    /// Tells when the server drains.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.core.shutdown
    }

    pub(crate) fn list_limit(&self) -> u64 {
        self.0.core.list_limit
    }

    pub(crate) fn upgrade_idle_timeout(&self) -> Duration {
        self.0.core.upgrade_idle_timeout
    }

    /// When the time of its handler is over, or that of its caller (`X-Request-Timeout-Ms`).
    pub(crate) fn deadline(&self) -> Instant {
        let own = self.handler().and_then(|handler| handler.timeout);
        let timeout = own.unwrap_or(self.0.core.request_timeout);
        let info = &self.0.info;
        let timeout = info.caller_waits.map_or(timeout, |waits| waits.min(timeout));
        info.started.checked_add(timeout).unwrap_or_else(|| info.started + NO_DEADLINE)
    }

    /// The error of a body that is JSON and not what the route takes, with the status that the settings name.
    pub(crate) fn misfit(&self, error: Error) -> Error {
        if self.0.core.unprocessable_content { error.with_kind(Kind::Unprocessable) } else { error }
    }

    /// Counts the request as one that has begun.
    pub(crate) fn measure_begin(&self) {
        if let Some(measures) = &self.0.core.measures {
            measures.begin();
        }
    }

    /// Counts the request as one that has ended.
    pub(crate) fn measure_end(&self, status: u16) {
        if let Some(measures) = &self.0.core.measures {
            let RequestInfo { route, method, started, .. } = &self.0.info;
            measures.end(*route, method, status, started.elapsed());
        }
    }

    /// Records the span of the request, which has ended.
    pub(crate) fn record_span(&self, status: u16) {
        let info = &self.0.info;
        let (Some(traces), Some(context)) = (&self.0.core.traces, info.span_context) else { return };
        traces.record(Ended {
            context,
            took: info.started.elapsed(),
            method: method_name(&info.method),
            route: self.route().map(|route| route.template.as_str()),
            path: info.path(),
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

    /// The schema of its body.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        self.handler()?.schema.as_ref()
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

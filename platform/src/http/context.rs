//! What belongs to one request: its id, its route, its client, and what its handler adds to its line in the log.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};

use super::request_id::RequestId;
use super::route::RouteInfo;
use super::routes::RouteTable;
use crate::error::Error;
use crate::logging::Value;
use crate::schema::Schema;
use crate::shutdown::Shutdown;

/// Fields that handlers of one request may add; a bound on the length of a line.
const MAX_FIELDS: usize = 64;

/// A field that a handler adds to the line of its request.
pub type Field = (Cow<'static, str>, Value);

/// What all requests share of the server that they are sent to.
pub(super) struct Core {
    pub(super) table: RouteTable,
    pub(super) shutdown: Shutdown,
    /// The most items in one response of a list, `http.list_limit`.
    pub(super) list_limit: u64,
    /// How long an upgraded connection may be silent, `http.upgrade_idle_timeout`.
    pub(super) upgrade_idle_timeout: Duration,
}

/// The request at hand; cheap to clone. A handler that takes it as an argument can read the request id and add
/// fields to the one line that the log gets for the request.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    request_id: RequestId,
    /// The index of its route in the table.
    route: Option<usize>,
    client: Client,
    core: Arc<Core>,
    /// Empty for most requests, which need no lock then.
    notes: OnceLock<Mutex<Notes>>,
}

/// Who sent a request, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Client {
    /// The other end of the connection.
    pub(super) peer: Option<SocketAddr>,
    /// The client that a trusted proxy names.
    pub(super) forwarded: Option<IpAddr>,
}

#[derive(Default)]
struct Notes {
    fields: Vec<Field>,
    body_failure: Option<Error>,
}

impl Context {
    /// `request_id` is what the client sent.
    pub(super) fn new(
        request_id: Option<&HeaderValue>,
        route: Option<usize>,
        client: Client,
        core: &Arc<Core>,
    ) -> Self {
        let request_id = RequestId::new(request_id);
        Self(Arc::new(Inner { request_id, route, client, core: Arc::clone(core), notes: OnceLock::new() }))
    }

    /// A context without a server: no route, no client, a generated id. For tests of an extractor, which finds it in
    /// the extensions of its request.
    pub fn detached() -> Self {
        let core = Core {
            table: RouteTable::default(),
            shutdown: Shutdown::default(),
            list_limit: 1_000,
            upgrade_idle_timeout: Duration::from_mins(5),
        };
        Self::new(None, None, Client::default(), &Arc::new(core))
    }

    /// The id of the request: the client's `X-Request-Id` where that is well formed, else 32 hexadecimal digits.
    pub fn request_id(&self) -> &str {
        self.0.request_id.as_str()
    }

    pub(super) fn request_id_header(&self) -> HeaderValue {
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

    /// Tells when the server drains.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.core.shutdown
    }

    pub(super) fn forwarded(&self) -> Option<IpAddr> {
        self.0.client.forwarded
    }

    pub(super) fn list_limit(&self) -> u64 {
        self.0.core.list_limit
    }

    #[cfg_attr(not(feature = "ws"), expect(dead_code, reason = "only WebSockets ask for it"))]
    pub(super) fn upgrade_idle_timeout(&self) -> Duration {
        self.0.core.upgrade_idle_timeout
    }

    /// The schema of this method's bodies.
    pub(super) fn schema(&self, method: &Method) -> Option<&Schema> {
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
    pub(super) fn body_failed(&self, error: Error) {
        self.notes().body_failure.get_or_insert(error);
    }

    pub(super) fn take_body_failure(&self) -> Option<Error> {
        self.existing_notes()?.body_failure.take()
    }

    pub(super) fn take_fields(&self) -> Vec<Field> {
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
pub(super) fn of(parts: &Parts) -> Result<&Context, Error> {
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

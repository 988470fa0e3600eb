//! What belongs to one request: its id, its route, and what its handler adds to its line in the log.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::middleware::Stack;
use super::routes::{RouteInfo, RouteTable};
use crate::platform::error::Error;
use crate::platform::logging::Value;

/// The header that carries the request id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a client; ids of the common tracing systems have at most 64 characters.
const MAX_REQUEST_ID: usize = 128;

/// Fields that handlers of one request may add; a bound on the length of a line.
const MAX_FIELDS: usize = 64;

/// A field that a handler adds to the line of its request.
pub type Field = (Cow<'static, str>, Value);

/// The request at hand; cheap to clone. A handler that takes it as an argument can read the request id and add
/// fields to the one line that the log gets for the request.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    request_id: RequestId,
    /// The place of its route in the table.
    route: Option<usize>,
    stack: Arc<Stack>,
    /// Nothing in most requests, which need no lock then.
    notes: OnceLock<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    fields: Vec<Field>,
    body_failure: Option<Error>,
}

impl Context {
    /// `asked_id` is what the client wants the request to be called.
    pub(super) fn new(asked_id: Option<&HeaderValue>, route: Option<usize>, stack: Arc<Stack>) -> Self {
        let asked_id = asked_id.filter(|id| well_formed(id)).cloned();
        let request_id = asked_id.map_or_else(RequestId::new, RequestId::Asked);
        Self(Arc::new(Inner { request_id, route, stack, notes: OnceLock::new() }))
    }

    /// The id of the request: the client's `X-Request-Id` when that is well formed, else 32 hexadecimal digits.
    pub fn request_id(&self) -> &str {
        // Well-formed ids are ASCII, ours and theirs.
        str::from_utf8(self.0.request_id.as_bytes()).unwrap_or_default()
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
        self.0.stack.routes()
    }

    /// What the request passes through.
    pub(super) fn stack(&self) -> &Stack {
        &self.0.stack
    }

    /// Adds a field to the line of this request. Of more than 64 the rest is left out.
    pub fn log(&self, key: &'static str, value: impl Into<Value>) {
        let mut notes = self.notes();
        if notes.fields.len() < MAX_FIELDS {
            notes.fields.push((Cow::Borrowed(key), value.into()));
        }
    }

    /// Remembers why a body could not be read, for handlers whose extractor does not tell.
    /// The first one counts: it is the cause of the others.
    pub(super) fn body_failed(&self, error: Error) {
        self.notes().body_failure.get_or_insert(error);
    }

    pub(super) fn take_body_failure(&self) -> Option<Error> {
        self.noted()?.body_failure.take()
    }

    pub(super) fn take_fields(&self) -> Vec<Field> {
        self.noted().map(|mut notes| std::mem::take(&mut notes.fields)).unwrap_or_default()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(self.0.notes.get_or_init(Mutex::default))
    }

    /// What was noted so far.
    fn noted(&self) -> Option<MutexGuard<'_, Notes>> {
        self.0.notes.get().map(lock)
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    // A panic while adding a field leaves nothing half done.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        of(parts).cloned()
    }
}

/// The context of a request whose parts are at hand; every request that came through the middleware has one.
pub(super) fn of(parts: &Parts) -> Result<&Context, Error> {
    parts
        .extensions
        .get::<Context>()
        .ok_or_else(|| Error::internal("the request did not pass the middleware"))
}

/// Letters, digits and the marks that request ids of other systems use; nothing that could end a log field.
fn well_formed(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+@".contains(byte);
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

/// The name of one request in answers and logs.
enum RequestId {
    /// The client's.
    Asked(HeaderValue),
    /// Ours: 32 hexadecimal digits, in no memory of their own until a header is made of them.
    Made([u8; 32]),
}

impl RequestId {
    fn new() -> Self {
        let mut digits = [0; 32];
        Uuid::from_u128(fastrand::u128(..)).simple().encode_lower(&mut digits);
        Self::Made(digits)
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Asked(id) => id.as_bytes(),
            Self::Made(id) => id,
        }
    }

    fn to_header(&self) -> HeaderValue {
        match self {
            Self::Asked(id) => id.clone(),
            Self::Made(id) => HeaderValue::from_bytes(id).unwrap_or(HeaderValue::from_static("none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_not_taken() {
        for bad in ["", "a b", "a\tb", "a\"b", "a=b", &"x".repeat(129)] {
            assert!(!well_formed(&HeaderValue::try_from(bad).unwrap()), "{bad:?}");
        }
        for good in [
            "a",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "1-67891233-abcdef012345678912345678",
            &"x".repeat(128),
        ] {
            assert!(well_formed(&HeaderValue::try_from(good).unwrap()), "{good:?}");
        }
    }

    #[test]
    fn ids_are_32_hexadecimal_digits_and_differ() {
        let [one, other] = [RequestId::new(), RequestId::new()].map(|id| id.to_header());
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.as_bytes().iter().all(u8::is_ascii_hexdigit), "{one:?}");
    }
}

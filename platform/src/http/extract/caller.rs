//! Who calls: a user with a session or with an API token.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{AUTHORIZATION, LOCATION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::format::Format;
use super::session::Sessions;
use crate::auth::{self, Account, ApiToken, Session};
use crate::error::{Error, Result};
use crate::http::request::context;
use crate::secret::Secret;
use crate::services::Services;
use crate::store::Stored;

/// The user who has sent the request. A handler that takes it is only called for one: others get 401, and a browser that
/// asks for a page is sent to [`Account::LOG_IN`]. `Option<Caller<U>>` lets everybody in, and `Caller<U, R>` only those whom
/// a [`Rule`] allows; for others it is 403.
///
/// It costs two reads by id, once for a request. A handler without it reads nothing.
///
/// # Errors
///
/// 503 when the store is not available: nobody becomes unknown by that.
pub struct Caller<U, R = Anyone>(Arc<Known<U>>, PhantomData<fn() -> R>);

/// A user, and how we know it is them.
pub struct Known<U> {
    /// The user as stored.
    pub user: Stored<U>,
    proof: Proof,
    /// What looks whether that still holds.
    services: Services,
    secret: Secret,
}

/// What has shown who calls.
enum Proof {
    /// A session, and whether its log-in is recent.
    Session(Session, bool),
    /// An API token.
    Token(ApiToken),
}

impl<U> Known<U> {
    /// The id of the user.
    pub fn id(&self) -> &str {
        &self.user.id
    }

    /// The session of the request; `None` for one with a token.
    pub fn session(&self) -> Option<&Session> {
        match &self.proof {
            Proof::Session(session, _) => Some(session),
            Proof::Token(_) => None,
        }
    }

    /// Whether they may do this: with a session everything, with a token what it was made for. That one may read (`read`) or
    /// change something (`write`) has been asked already.
    pub fn has_scope(&self, scope: &str) -> bool {
        match &self.proof {
            Proof::Session(..) => true,
            Proof::Token(token) => token.has_scope(scope),
        }
    }

    /// Whether a rule allows them: for a page that shows more to some.
    pub fn allows<R: Rule<U>>(&self) -> bool {
        R::allows(self)
    }

    /// Waits until the session or the token has ended, which is looked at every `auth.sessions.watch`: for a response that goes
    /// on, such as events. A store that is not available says nothing of it.
    pub async fn revoked(&self)
    where
        U: Account,
    {
        let (users, secret) = (self.services.dao::<U>(), self.secret.expose());
        loop {
            tokio::time::sleep(self.services.auth().sessions.watch.get()).await;
            let found = match self.proof {
                Proof::Session(..) => {
                    self.services.sessions().find(&users, secret).await.map(|it| it.is_some())
                }
                Proof::Token(_) => {
                    self.services.api_tokens().find(&users, secret).await.map(|it| it.is_some())
                }
            };
            if matches!(found, Ok(false)) {
                return;
            }
        }
    }

    /// Whether the user has logged in within `auth.sessions.recent`; never with a token.
    pub fn is_recent(&self) -> bool {
        matches!(self.proof, Proof::Session(_, true))
    }
}

impl<U, R> Caller<U, R> {
    /// Who it is, for what outlives the handler.
    #[cfg(feature = "ws")]
    pub(super) fn known(&self) -> Arc<Known<U>> {
        Arc::clone(&self.0)
    }
}

impl<U, R> Deref for Caller<U, R> {
    type Target = Known<U>;

    fn deref(&self) -> &Known<U> {
        &self.0
    }
}

/// Who may call. A rule is a type of the app, so that the signature of a handler says it, and `server routes` shows it.
pub trait Rule<U> {
    /// Whether this user may.
    fn allows(caller: &Known<U>) -> bool;

    /// What others get.
    fn refusal() -> Error {
        Error::forbidden("Not Allowed")
    }
}

/// Every user.
pub struct Anyone;

impl<U> Rule<U> for Anyone {
    fn allows(_: &Known<U>) -> bool {
        true
    }
}

/// A user who is here in person: with a session, and not by a token. For what a program must not do in somebody's name.
pub struct InPerson;

impl<U> Rule<U> for InPerson {
    fn allows(caller: &Known<U>) -> bool {
        caller.session().is_some()
    }
}

/// A user who has logged in within `auth.sessions.recent`, for what is dangerous: a device that was left open is not
/// enough. A browser that asks for a page is sent to [`Account::LOG_IN`].
pub struct Recent;

impl<U> Rule<U> for Recent {
    fn allows(caller: &Known<U>) -> bool {
        caller.is_recent()
    }

    fn refusal() -> Error {
        Error::forbidden(LOG_IN_AGAIN).with_message("This needs a log-in that is recent: log in again.")
    }
}

const LOG_IN_AGAIN: &str = "Log In Again";

/// Both rules.
impl<U, A: Rule<U>, B: Rule<U>> Rule<U> for (A, B) {
    fn allows(caller: &Known<U>) -> bool {
        A::allows(caller) && B::allows(caller)
    }

    fn refusal() -> Error {
        A::refusal()
    }
}

/// The response to a request of somebody who is not known, or not allowed.
pub enum Refused {
    /// 401, 403 or 503.
    Error(Error),
    /// A browser is sent to the page where one logs in, at this path.
    LogIn(String),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Error(error) => error.into_response(),
            Self::LogIn(path) => (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response(),
        }
    }
}

/// 401, or for a browser that asks for a page, the way to log in and back.
fn unknown<U: Account>(parts: &Parts, error: Error) -> Refused {
    if parts.method != Method::GET || Format::of(&parts.headers) != Format::Html {
        return Refused::Error(error);
    }
    let here = parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |uri| &uri.0);
    let next: String = form_urlencoded::byte_serialize(path_of(here).as_bytes()).collect();
    Refused::LogIn(format!("{}?next={next}", U::LOG_IN))
}

fn path_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// A path of this server that a client has named to come back to: `/tasks?page=2`. `None` for everything that a browser
/// would take for another site: `//evil.example`, `/\evil.example`, and what hides that behind characters that browsers
/// leave out.
pub fn own_path(next: &str) -> Option<&str> {
    let mut bytes = next.bytes();
    let begins = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (begins && is_plain && next.parse::<Uri>().is_ok_and(|uri| uri.authority().is_none())).then_some(next)
}

/// The API token of a request. Tokens of others are none of ours.
fn token(headers: &HeaderMap) -> Option<&str> {
    let sent = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = sent.split_once(' ')?;
    let is_ours = scheme.eq_ignore_ascii_case("bearer") && token.trim().starts_with(auth::PREFIX);
    is_ours.then(|| token.trim())
}

/// A token that may only read changes nothing, on no route. An upgrade is a GET, but it counts as a change, as in
/// `cross_site`: what is sent by it is not known. That to HTTP/2 (`h2c`), which curl asks for, is none.
fn check_scope(parts: &Parts, token: &ApiToken) -> Result<()> {
    let is_upgrade = parts.headers.get(UPGRADE).is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"));
    let scope = if parts.method.is_safe() && !is_upgrade { "read" } else { "write" };
    if token.has_scope(scope) {
        return Ok(());
    }
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    Err(Error::forbidden("Not Allowed")
        .with_message(format!("The token has not the scope {scope}."))
        .with_header("www-authenticate", challenge))
}

/// The user of the request, once for all extractors of it.
pub(super) async fn known<U: Account, S>(parts: &mut Parts, state: &S) -> Result<Option<Arc<Known<U>>>>
where
    Services: FromRef<S>,
{
    if let Some(known) = parts.extensions.get::<Arc<Known<U>>>() {
        return Ok(Some(Arc::clone(known)));
    }
    let services = Services::from_ref(state);
    let (context, users) = (context::of(parts)?, services.dao::<U>());
    let known = if let Some(sent) = token(&parts.headers) {
        let secret = Secret::new(sent);
        let (token, user) = services.api_tokens().find(&users, sent).await?.ok_or_else(|| {
            Error::unauthorized("Bearer error=\"invalid_token\"").with_reason("Token Not Valid")
        })?;
        check_scope(parts, &token)?;
        Known { user, proof: Proof::Token(token), services, secret }
    } else {
        let sessions = Sessions::of(&services, context, &parts.headers);
        let Some((session, user)) = sessions.find(&users).await? else { return Ok(None) };
        let is_recent = sessions.is_recent(&session);
        let secret = sessions.secret().cloned().unwrap_or_default();
        Known { user, proof: Proof::Session(session, is_recent), services, secret }
    };
    let known = Arc::new(known);
    context.log("user", known.user.id.clone());
    parts.extensions.insert(Arc::clone(&known));
    Ok(Some(known))
}

impl<U: Account, R: Rule<U>, S: Sync> FromRequestParts<S> for Caller<U, R>
where
    Services: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Some(known) = known::<U, S>(parts, state).await? else {
            let error = Error::unauthorized("Bearer").with_reason("Log-In Needed");
            return Err(unknown::<U>(parts, error));
        };
        if R::allows(&known) {
            return Ok(Self(known, PhantomData));
        }
        let refusal = R::refusal();
        if refusal.reason() == LOG_IN_AGAIN { Err(unknown::<U>(parts, refusal)) } else { Err(refusal.into()) }
    }
}

/// Nobody is known: `None`. One who is known and not allowed is refused.
impl<U: Account, R: Rule<U>, S: Sync> OptionalFromRequestParts<S> for Caller<U, R>
where
    Services: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Refused> {
        match known::<U, S>(parts, state).await? {
            Some(known) if R::allows(&known) => Ok(Some(Self(known, PhantomData))),
            Some(_) => Err(R::refusal().into()),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_this_server_is_a_way_back() {
        for path in ["/", "/tasks?page=2", "/a//b", "/%09/e", "/a%5Cb"] {
            assert_eq!(own_path(path), Some(path));
        }
        for path in [
            "",
            "tasks",
            "//e",
            "/\\e",
            "/\t/e",
            "\\/e",
            "https://e",
            "/a\nb",
            "/ a",
            "javascript:alert(1)",
            "/ü",
        ] {
            assert_eq!(own_path(path), None, "{path:?}");
        }
    }
}

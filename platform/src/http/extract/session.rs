//! Sessions of a handler: it begins and ends the one of its client, whose secret is in a cookie.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::{SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};

use crate::auth::{self, Account, Device, Session};
use crate::error::{Error, Result};
use crate::http::request::context::{self, Context};
use crate::http::request::cookie::CookieScope;
use crate::secret::Secret;
use crate::services::Services;
use crate::store::{Dao, Stored};

/// The name of the cookie, without its prefix.
const COOKIE: &str = "session";

/// The sessions of the users, and the one of this client.
pub struct Sessions {
    store: auth::Sessions,
    scope: CookieScope,
    /// What the client has sent.
    secret: Option<Secret>,
    device: Device,
}

/// A part of a response that gives the client its session, or takes it away: `(session, Redirect::to("/"))`.
#[derive(Clone, Debug)]
#[must_use = "the client has the session when this is a part of the response"]
pub struct SetSession(HeaderValue);

impl IntoResponseParts for SetSession {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        response.headers_mut().append(SET_COOKIE, self.0);
        Ok(response)
    }
}

impl Sessions {
    pub(super) fn of(services: &Services, context: &Context, headers: &HeaderMap) -> Self {
        let scope = CookieScope::of(context, services);
        let name = headers.get(USER_AGENT).and_then(|name| name.to_str().ok()).unwrap_or_default();
        Self {
            store: services.sessions(),
            scope,
            secret: scope.read(headers, COOKIE).map(Secret::new),
            device: Device {
                name: name.to_owned(),
                address: context.client().map(|address| address.to_string()),
            },
        }
    }

    /// Begins a session of a user who has just proved who they are, and ends the one that the client had: so nobody gets
    /// into an account by a session that they have planted.
    pub async fn begin<U: Account>(&self, user: &Stored<U>) -> Result<SetSession> {
        self.end_own().await?;
        let secret = self.store.begin(user, &self.device).await?;
        let longest = self.store.longest();
        self.scope.set(COOKIE, secret.expose(), Some(longest)).map(SetSession)
    }

    /// Ends the session of this client, if it has one.
    pub async fn end(&self) -> Result<SetSession> {
        self.end_own().await?;
        self.scope.remove(COOKIE).map(SetSession)
    }

    /// Ends the session of this id, if it is one of this user; false where it is not.
    pub async fn end_one<U: Account>(&self, user: &Stored<U>, id: &str) -> Result<bool> {
        self.store.end_one(user, id).await
    }

    /// Ends all sessions of a user, but the one of this id, and returns how many there were.
    pub async fn end_all<U: Account>(&self, user: &Stored<U>, but: Option<&str>) -> Result<u64> {
        self.store.end_all(user, but).await
    }

    /// The sessions of a user that have not ended, the one that was used last first.
    pub async fn list<U: Account>(&self, user: &Stored<U>) -> Result<Vec<Session>> {
        self.store.list(user).await
    }

    /// Whether the session is one of a log-in within `auth.sessions.recent`.
    pub(super) fn is_recent(&self, session: &Session) -> bool {
        self.store.is_recent(session)
    }

    /// What the client has sent.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// The session of this client, with its user.
    pub(super) async fn find<U: Account>(&self, users: &Dao<U>) -> Result<Option<(Session, Stored<U>)>> {
        match &self.secret {
            Some(secret) => self.store.find(users, secret.expose()).await,
            None => Ok(None),
        }
    }

    async fn end_own(&self) -> Result<()> {
        match &self.secret {
            Some(secret) => self.store.end(secret.expose()).await,
            None => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Sessions
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Ok(Self::of(&Services::from_ref(state), context::of(parts)?, &parts.headers))
    }
}

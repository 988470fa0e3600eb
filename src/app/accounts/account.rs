//! `/account`: what its user sees and does: the devices, the tokens, the end of the account.

use std::time::Duration;

use askama::Template;
#[cfg(feature = "oidc")]
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use platform::auth::{ApiToken, ApiTokens, Session};
use platform::error::{Error, Result};
use platform::http::{Caller, Form, InPerson, Json, NoContent, Recent, Sessions};
use platform::secret::Secret;
#[cfg(feature = "oidc")]
use platform::services::Services;
use platform::store::Expected;
use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use super::pages::{Errors, Frame, Pages};
use super::user::{self, Admin, User};

/// What tokens may be allowed to do. Add your own, and a rule for each (`Known::has_scope`).
const SCOPES: [&str; 2] = ["read", "write"];

const DAY: Duration = Duration::from_hours(24);

#[derive(Template)]
#[template(path = "accounts/account.html")]
struct AccountPage {
    frame: Frame,
    email: String,
    name: String,
    this: String,
    sessions: Vec<Session>,
    tokens: Vec<ApiToken>,
}

#[derive(Template)]
#[template(path = "accounts/token.html")]
struct TokenPage {
    frame: Frame,
    token: Option<String>,
    name: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "accounts/delete.html")]
struct DeletePage {
    frame: Frame,
    email: String,
    errors: Errors,
}

/// The account, as its user sees it.
#[derive(Serialize)]
struct Overview {
    id: String,
    email: String,
    name: String,
    sessions: Vec<Session>,
    tokens: Vec<ApiToken>,
}

/// What is ended or revoked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    id: String,
}

/// A new token: its name, what it may, and for how many days.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    days: Option<u16>,
}

/// The proof that it is the user who wants to go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deletion {
    password: Secret,
}

/// The account with its devices and tokens.
pub(super) async fn show(
    pages: Pages,
    caller: Caller<User, InPerson>,
    sessions: Sessions,
    tokens: ApiTokens,
) -> Result<Response> {
    let this = caller.session().map(|session| session.id.clone()).unwrap_or_default();
    let (sessions, tokens) = (sessions.list(&caller.user).await?, tokens.list(&caller.user).await?);
    let User { email, name, .. } = caller.user.value.clone();
    let overview = Overview {
        id: caller.id().to_owned(),
        email: email.clone(),
        name: name.clone(),
        sessions: sessions.clone(),
        tokens: tokens.clone(),
    };
    Ok(pages.pick(|frame| AccountPage { frame, email, name, this, sessions, tokens }, Json(overview)))
}

/// Ends one session: of a device that was lost.
pub(super) async fn end_session(
    pages: Pages,
    caller: Caller<User, InPerson>,
    sessions: Sessions,
    Form(Which { id }): Form<Which>,
) -> Result<Response> {
    if sessions.end_one(&caller.user, &id).await? {
        return Ok(pages.done((), "/account", NoContent));
    }
    Err(Error::not_found("No Such Session"))
}

/// Ends all sessions but this one.
pub(super) async fn end_other_sessions(
    pages: Pages,
    caller: Caller<User, InPerson>,
    sessions: Sessions,
) -> Result<Response> {
    sessions.end_all(&caller.user, caller.session().map(|session| session.id.as_str())).await?;
    Ok(pages.done((), "/account", NoContent))
}

/// The page with the form of a token.
pub(super) async fn token_form(pages: Pages, _: Caller<User, Recent>) -> Response {
    pages.show(|frame| TokenPage { frame, token: None, name: String::new(), errors: Errors::default() })
}

/// Makes a token, and shows it: this once.
pub(super) async fn new_token(
    pages: Pages,
    caller: Caller<User, Recent>,
    tokens: ApiTokens,
    Form(sent): Form<NewToken>,
) -> Result<Response> {
    let made = async {
        let name = user::name(&sent.name)?;
        if sent.scopes.is_empty()
            || sent.scopes.len() > SCOPES.len()
            || sent.scopes.iter().any(|scope| !SCOPES.contains(&scope.as_str()))
        {
            return Err(user::wrong("scopes", format!("is not one or more of {}", SCOPES.join(", "))));
        }
        if sent.days == Some(0) {
            return Err(user::wrong("days", "is 0: say nothing for a token that does not end"));
        }
        let life = sent.days.map(|days| DAY * u32::from(days));
        tokens.issue(&caller.user, &name, &sent.scopes, life).await
    };
    match made.await {
        Ok(token) => {
            let (shown, value) = (token.expose().to_owned(), Json(token.expose().to_owned()));
            let (name, errors) = (sent.name, Errors::default());
            let page = |frame| TokenPage { frame, token: Some(shown), name, errors };
            Ok(pages.pick(page, (StatusCode::CREATED, value)))
        }
        Err(error) => {
            pages.refuse(error, |frame, errors| TokenPage { frame, token: None, name: sent.name, errors })
        }
    }
}

/// Revokes a token.
pub(super) async fn revoke_token(
    pages: Pages,
    caller: Caller<User, InPerson>,
    tokens: ApiTokens,
    Form(Which { id }): Form<Which>,
) -> Result<Response> {
    if tokens.revoke(&caller.user, &id).await? {
        return Ok(pages.done((), "/account", NoContent));
    }
    Err(Error::not_found("No Such Token"))
}

/// The page with the form.
pub(super) async fn delete_form(pages: Pages, caller: Caller<User, InPerson>) -> Response {
    let email = caller.user.value.email.clone();
    pages.show(|frame| DeletePage { frame, email, errors: Errors::default() })
}

/// Deletes the account. Its sessions and tokens are nothing without it. Delete here too what else is kept of a user.
pub(super) async fn delete(
    pages: Pages,
    caller: Caller<User, InPerson>,
    credentials: Credentials,
    sessions: Sessions,
    tokens: ApiTokens,
    #[cfg(feature = "oidc")] State(services): State<Services>,
    Form(sent): Form<Deletion>,
) -> Result<Response> {
    let email = caller.user.value.email.clone();
    // Without it, the next who registers would be the first.
    let stays =
        || Error::conflict("The First Account Stays").with_message("The first account cannot be deleted.");
    let checked = match caller.allows::<Admin>() {
        true => Err(stays()),
        false => credentials.check(&email, &sent.password).await,
    };
    if let Err(error) = checked {
        return pages.refuse(error, |frame, errors| DeletePage { frame, email, errors });
    }
    credentials.users.delete(caller.id(), Expected::Any).await?;
    #[cfg(feature = "oidc")]
    super::provider::forget(&services, caller.id()).await?;
    sessions.end_all(&caller.user, None).await?;
    tokens.revoke_all(&caller.user).await?;
    Ok(pages.done(sessions.end().await?, "/register", NoContent))
}

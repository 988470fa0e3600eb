//! `/forgot`, `/reset` and `/account/password`: a new password, by a link in a mail or by the old one.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use platform::auth::{Link, Links};
use platform::error::{Kind, Result};
use platform::http::{Caller, Form, InPerson, NoContent, Query, Sessions};
use platform::secret::Secret;
use platform::store::{Batch, Dao, field};
use serde::Deserialize;

use super::credentials::Credentials;
use super::mails::Mails;
use super::pages::{Errors, Frame, Pages, no_link};
use super::register::{Registration, Token};
use super::user::User;

/// The purpose of its links.
const RESET: &str = "reset";

#[derive(Template)]
#[template(path = "accounts/forgot.html")]
struct ForgotPage {
    frame: Frame,
    email: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "accounts/reset.html")]
struct ResetPage {
    frame: Frame,
    token: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "accounts/password.html")]
struct PasswordPage {
    frame: Frame,
    email: String,
    errors: Errors,
}

/// The form behind the link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    token: Secret,
    password: Secret,
}

/// The form of somebody who knows the old one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    current: Secret,
    password: Secret,
}

/// `/forgot`: the page with the form.
pub(super) async fn forgot_form(pages: Pages) -> Response {
    pages.show(|frame| ForgotPage { frame, email: String::new(), errors: Errors::default() })
}

/// `/forgot`: sends the link. For an address that nobody has, nothing is sent, and whoever asks learns nothing of it.
pub(super) async fn forgot(
    pages: Pages,
    users: Dao<User>,
    links: Links,
    mails: Mails,
    mut batch: Batch,
    Form(sent): Form<Registration>,
) -> Result<Response> {
    let email = match mails.address(RESET, &sent.email).await {
        Ok(email) => email,
        Err(error) => {
            return pages.refuse(error, |frame, errors| ForgotPage { frame, email: sent.email, errors });
        }
    };
    let user = users.get_first(field("email").eq(email.as_str())).await?;
    let user = user.filter(|user| !user.value.disabled);
    // A link to nobody takes the same commit: the time of the response does not tell who has an account.
    let (subject, bound_to) =
        user.as_ref().map_or((String::new(), 0), |user| (user.id.clone(), user.value.auth_version));
    let link = Link { subject, bound_to };
    let secret = links.issue(&mut batch, RESET, &link)?;
    // The mail to nobody is written and dropped, and a second link takes its place in the commit.
    let mut nothing = batch.clone();
    if user.is_none() {
        links.issue(&mut batch, RESET, &link)?;
    }
    mails.reset(if user.is_some() { &mut batch } else { &mut nothing }, &email, &secret)?;
    batch.commit().await?;
    Ok(pages.done((), "/mail-sent", StatusCode::ACCEPTED))
}

/// `/reset`: the page that the link leads to. It spends nothing.
pub(super) async fn reset_form(
    pages: Pages,
    links: Links,
    Query(Token { token }): Query<Token>,
) -> Result<Response> {
    if links.look(RESET, &token).await?.is_none() {
        return Ok(pages.no_link());
    }
    Ok(pages.show(|frame| ResetPage { frame, token, errors: Errors::default() }))
}

/// `/reset`: stores the password and spends the link, in one commit, which ends all sessions. It begins none: the link may
/// have been read by others, and the password is known only to whoever has just chosen it.
pub(super) async fn reset(
    pages: Pages,
    links: Links,
    mails: Mails,
    credentials: Credentials,
    mut batch: Batch,
    Form(sent): Form<Reset>,
) -> Result<Response> {
    let done = async {
        let link = links.redeem(&mut batch, RESET, sent.token.expose()).await?.ok_or_else(no_link)?;
        let user = credentials.users.get(&link.subject).await?;
        // With another number, the password was changed since the link was asked for.
        let user = user.filter(|user| user.value.auth_version == link.bound_to && !user.value.disabled);
        credentials.renew(batch, user.ok_or_else(no_link)?, &sent.password, &mails).await
    };
    match done.await {
        Ok(_) => Ok(pages.done((), "/log-in", NoContent)),
        Err(error) => {
            let error = if error.kind() == Kind::NotFound { no_link() } else { error };
            let token = sent.token.expose().to_owned();
            pages.refuse(error, |frame, errors| ResetPage { frame, token, errors })
        }
    }
}

/// `/account/password`: the page with the form.
pub(super) async fn change_form(pages: Pages, caller: Caller<User, InPerson>) -> Response {
    let email = caller.user.value.email.clone();
    pages.show(|frame| PasswordPage { frame, email, errors: Errors::default() })
}

/// `/account/password`: stores the new password, which ends all sessions, and begins a session on this device.
pub(super) async fn change(
    pages: Pages,
    caller: Caller<User, InPerson>,
    credentials: Credentials,
    mails: Mails,
    sessions: Sessions,
    batch: Batch,
    Form(sent): Form<Change>,
) -> Result<Response> {
    let email = &caller.user.value.email;
    let done = async {
        let user = credentials.check(email, &sent.current).await?;
        credentials.renew(batch, user, &sent.password, &mails).await
    };
    match done.await {
        Ok(user) => Ok(pages.done(sessions.begin(&user).await?, "/account", NoContent)),
        Err(error) => {
            let email = email.clone();
            pages.refuse(error, |frame, errors| PasswordPage { frame, email, errors })
        }
    }
}

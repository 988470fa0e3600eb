//! `/register` and `/confirm`: an address, then the link in the mail to it, then a name and a password.
//!
//! The account is made when the address is confirmed, and not before: so nobody can prepare one with the address of
//! somebody else and a password of their own.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use platform::auth::{Link, Links};
use platform::error::{Error, Kind, Result};
use platform::http::{Form, Query, Sessions};
use platform::secret::Secret;
use platform::store::{Batch, Dao, Filter, field};
use serde::Deserialize;

use super::credentials::Credentials;
use super::mails::Mails;
use super::pages::{Errors, Frame, Pages, no_link};
use super::user::{self, User};

/// The purpose of its links.
const CONFIRM: &str = "confirm";

#[derive(Template)]
#[template(path = "accounts/register.html")]
struct RegisterPage {
    frame: Frame,
    email: String,
    errors: Errors,
}

#[derive(Template)]
#[template(path = "accounts/confirm.html")]
struct ConfirmPage {
    frame: Frame,
    token: String,
    name: String,
    errors: Errors,
}

/// The form of an address.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    pub(super) email: String,
}

/// The token of a link.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    pub(super) token: String,
}

/// The form behind the link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    token: Secret,
    name: String,
    password: Secret,
}

/// The page with the form.
pub(super) async fn form(pages: Pages) -> Response {
    pages.show(|frame| RegisterPage { frame, email: String::new(), errors: Errors::default() })
}

/// Sends the link. An address that has an account gets another mail, and whoever asks learns nothing of it.
pub(super) async fn send(
    pages: Pages,
    users: Dao<User>,
    links: Links,
    mails: Mails,
    mut batch: Batch,
    Form(sent): Form<Registration>,
) -> Result<Response> {
    let email = match mails.address(CONFIRM, &sent.email).await {
        Ok(email) => email,
        Err(error) => {
            return pages.refuse(error, |frame, errors| RegisterPage { frame, email: sent.email, errors });
        }
    };
    // In both cases one link and one mail, in one commit: neither the response nor its time tells which it was.
    let link = links.issue(&mut batch, CONFIRM, &Link { subject: email.clone(), bound_to: 0 })?;
    if users.exists(field("email").eq(email.as_str())).await? {
        mails.known(&mut batch, &email)?;
    } else {
        mails.confirm(&mut batch, &email, &link)?;
    }
    batch.commit().await?;
    Ok(pages.done((), "/mail-sent", StatusCode::ACCEPTED))
}

/// The page that the link leads to. It spends nothing: programs that check mails follow links too.
pub(super) async fn confirm_form(
    pages: Pages,
    links: Links,
    Query(Token { token }): Query<Token>,
) -> Result<Response> {
    if links.look(CONFIRM, &token).await?.is_none() {
        return Ok(pages.no_link());
    }
    let (name, errors) = (String::new(), Errors::default());
    Ok(pages.show(|frame| ConfirmPage { frame, token, name, errors }))
}

/// Makes the account, and begins a session.
pub(super) async fn confirm(
    pages: Pages,
    links: Links,
    credentials: Credentials,
    sessions: Sessions,
    batch: Batch,
    Form(sent): Form<Confirmation>,
) -> Result<Response> {
    let users = &credentials.users;
    let made = async {
        let link = links.look(CONFIRM, sent.token.expose()).await?.ok_or_else(no_link)?;
        let name = user::name(&sent.name)?;
        // Such a link is never spent: without this, it would make as many hashes as somebody likes.
        if users.exists(field("email").eq(link.subject.as_str())).await? {
            return Err(no_link());
        }
        let password = credentials.hash(&sent.password, &[&link.subject, &name]).await?;
        let user = User {
            email: link.subject,
            name,
            password: Some(password),
            auth_version: 1,
            first: (!users.exists(Filter::All).await?).then_some(true),
            disabled: false,
        };
        make(users, &links, batch, &sent.token, user).await
    };
    match made.await {
        Ok(id) => {
            let user = users.get(&id).await?.ok_or_else(no_link)?;
            let with = (sessions.begin(&user).await?, credentials.succeeded(&user.value.email).await?);
            Ok(pages.done(with, "/account", StatusCode::CREATED))
        }
        Err(error) => pages.refuse(error, |frame, errors| {
            let token = sent.token.expose().to_owned();
            ConfirmPage { frame, token, name: sent.name, errors }
        }),
    }
}

/// Spends the link and stores the user, in one commit. Returns the id.
async fn make(
    users: &Dao<User>,
    links: &Links,
    empty: Batch,
    token: &Secret,
    mut user: User,
) -> Result<String> {
    loop {
        let mut batch = empty.clone();
        links.redeem(&mut batch, CONFIRM, token.expose()).await?.ok_or_else(no_link)?;
        let id = batch.insert(users, &user)?;
        match batch.commit().await {
            Ok(_) => return Ok(id),
            // Somebody else has become the first since.
            Err(error) if error.kind() == Kind::Conflict && user.first.is_some() => user.first = None,
            // The link was used in another window, or another link to the same address.
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => return Err(no_link()),
            Err(error) => return Err::<_, Error>(error),
        }
    }
}

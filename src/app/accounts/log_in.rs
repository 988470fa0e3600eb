//! `/log-in` and `/log-out`.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
#[cfg(feature = "oidc")]
use platform::error::Error;
use platform::error::Result;
use platform::http::{Caller, Form, NoContent, Query, Sessions, own_path};
use platform::secret::Secret;
use platform::services::Services;
use serde::Deserialize;

use super::credentials::Credentials;
use super::pages::{Errors, Frame, Pages};
use super::user::User;

#[derive(Template)]
#[template(path = "accounts/log_in.html")]
struct LogInPage {
    frame: Frame,
    email: String,
    next: String,
    providers: Vec<String>,
    errors: Errors,
}

/// Where to go after it.
#[derive(Debug, Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    pub(super) next: String,
}

/// The form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIn {
    email: String,
    password: Secret,
    #[serde(default)]
    next: String,
}

/// The page with the form. It is for somebody who is logged in too: what is dangerous wants a log-in that is recent.
pub(super) async fn form(
    pages: Pages,
    caller: Option<Caller<User>>,
    State(services): State<Services>,
    Query(Next { next }): Query<Next>,
) -> Response {
    let email = caller.map(|caller| caller.user.value.email.clone()).unwrap_or_default();
    let (providers, errors) = (providers(&services), Errors::default());
    pages.show(|frame| LogInPage { frame, email, next, providers, errors })
}

/// Begins a session.
pub(super) async fn log_in(
    pages: Pages,
    credentials: Credentials,
    sessions: Sessions,
    State(services): State<Services>,
    Form(sent): Form<LogIn>,
) -> Result<Response> {
    match credentials.check(&sent.email, &sent.password).await {
        Ok(user) => {
            let with = (sessions.begin(&user).await?, credentials.succeeded(&user.value.email).await?);
            Ok(pages.done(with, own_path(&sent.next).unwrap_or("/account"), NoContent))
        }
        Err(error) => pages.refuse(error, |frame, errors| LogInPage {
            frame,
            email: sent.email,
            next: sent.next,
            providers: providers(&services),
            errors,
        }),
    }
}

/// The page after a log-in by a provider that has not come to its end.
#[cfg(feature = "oidc")]
pub(super) fn refuse(pages: Pages, services: &Services, next: String, error: Error) -> Result<Response> {
    let (email, providers) = (String::new(), providers(services));
    pages.refuse(error, |frame, errors| LogInPage { frame, email, next, providers, errors })
}

/// The names of those by whom one can log in.
fn providers(services: &Services) -> Vec<String> {
    services.provider_names().map(str::to_owned).collect()
}

/// Ends the session. Who has none is where they want to be.
pub(super) async fn log_out(pages: Pages, sessions: Sessions) -> Result<Response> {
    Ok(pages.done(sessions.end().await?, "/log-in", NoContent))
}

//! What all pages of accounts have in common: the frame around them, and the errors of a form.

use askama::Template;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, IntoResponseParts, Redirect, Response};
use platform::error::{Error, Result};
use platform::http::{Format, Html};
use platform::services::Services;

use crate::app::AppState;

/// What a page has of the service.
pub(super) struct Frame {
    /// The name of the service.
    pub(super) service: String,
    /// The URL of the stylesheet.
    pub(super) stylesheet: String,
}

/// What is wrong with a form: with the whole of it, or with its fields.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// What is said above the form.
    pub(super) whole: Option<String>,
    fields: Vec<(String, String)>,
}

impl Errors {
    /// What is wrong with a field.
    pub(super) fn at(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, message)| message.as_str())
    }
}

impl From<&Error> for Errors {
    fn from(error: &Error) -> Self {
        let fields = error.errors().iter();
        let fields = fields.map(|it| (it.pointer.trim_start_matches('/').to_owned(), it.message.clone()));
        let fields: Vec<_> = fields.collect();
        Self { whole: fields.is_empty().then(|| error.message().to_owned()), fields }
    }
}

/// Responses for browsers, and for programs, which get JSON.
pub(super) struct Pages {
    frame: Frame,
    format: Format,
}

impl Pages {
    /// A page.
    pub(super) fn show<P: Template>(self, page: impl FnOnce(Frame) -> P) -> Response {
        Format::Html.pick(Html(page(self.frame)), ())
    }

    /// A page for a browser, a value for a program.
    pub(super) fn pick<P: Template>(
        self,
        page: impl FnOnce(Frame) -> P,
        value: impl IntoResponse,
    ) -> Response {
        self.format.pick(Html(page(self.frame)), value)
    }

    /// What has been done: a browser goes on to a page (so that a reload does not send the form again), a program gets this
    /// response. Both get what belongs to it, such as the session.
    pub(super) fn done(
        &self,
        with: impl IntoResponseParts,
        next: &str,
        response: impl IntoResponse,
    ) -> Response {
        match self.format {
            Format::Html => self.format.pick((with, Redirect::to(next)), ()),
            Format::Json => self.format.pick((), (with, response)),
        }
    }

    /// What could not be done: the form again, as it was filled in, and what is wrong with it.
    pub(super) fn refuse<P: Template>(
        self,
        error: Error,
        page: impl FnOnce(Frame, Errors) -> P,
    ) -> Result<Response> {
        self.format.refuse(error, |error| Html(page(self.frame, error.into())))
    }

    /// A page that says that a link does not hold any more.
    pub(super) fn no_link(self) -> Response {
        let page = self.show(|frame| Notice { frame, title: "A link that does not hold", text: NO_LINK });
        (StatusCode::NOT_FOUND, page).into_response()
    }
}

impl FromRequestParts<AppState> for Pages {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let services = Services::from_ref(state);
        let stylesheet = services.assets().url("accounts.css");
        let frame = Frame { service: services.name().to_owned(), stylesheet };
        Ok(Self { frame, format: Format::from_request_parts(parts, state).await? })
    }
}

/// What is said of a link that is spent, too old, or none.
const NO_LINK: &str =
    "This link does not hold any more: it can be used once, and for a short time. Ask for a new one.";

/// The refusal of such a link.
pub(super) fn no_link() -> Error {
    Error::unprocessable("Link Not Valid").with_message(NO_LINK)
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "accounts/notice.html")]
pub(super) struct Notice {
    frame: Frame,
    title: &'static str,
    text: &'static str,
}

/// `/mail-sent`: where a browser is after it has asked for a mail.
pub(super) async fn mail_sent(pages: Pages) -> Response {
    let text = "We have sent a mail to this address. The link in it holds for a short time, and once.";
    pages.show(|frame| Notice { frame, title: "Look into your mailbox", text })
}

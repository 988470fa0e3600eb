//! The mails of accounts. Each is text and HTML (views/templates/accounts/mails/).

use std::net::IpAddr;
use std::time::Duration;

use askama::Template;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use platform::auth::{Key, Limit, Throttles};
use platform::error::{Error, Result};
use platform::http::Context;
use platform::mail::{Mail, Mailer};
use platform::secret::Secret;
use platform::services::Services;
use platform::store::Batch;

use super::user;
use crate::app::AppState;

/// The mails to one address: a person who waits for one asks again, and a mailbox is not flooded.
const TO_ONE: Limit = Limit::new(3, Duration::from_mins(5));

/// The mails that one client asks for, to all addresses.
const OF_ONE: Limit = Limit::new(20, Duration::from_mins(1));

/// Writes mails, and keeps them with what they are about.
pub(super) struct Mails {
    mailer: Mailer,
    throttles: Throttles,
    service: String,
    public_url: String,
    client: Option<IpAddr>,
}

/// What a mail says: the same in its text and in its HTML.
struct Words<'a> {
    title: &'a str,
    text: &'a str,
    /// What the link is called, and the link.
    link: (&'a str, String),
    end: &'a str,
}

#[derive(Template)]
#[template(path = "accounts/mails/mail.txt")]
struct Text<'a> {
    service: &'a str,
    words: &'a Words<'a>,
}

#[derive(Template)]
#[template(path = "accounts/mails/mail.html")]
struct HtmlText<'a> {
    service: &'a str,
    words: &'a Words<'a>,
}

impl Mails {
    /// The address that was sent, as it is stored, if a mail may go there: 422 for what is none, 429 where too many mails for
    /// this purpose go to it, or too many are asked for by this client. Purposes count apart: whoever registers an address
    /// again and again keeps its owner from no reset.
    pub(super) async fn address(&self, purpose: &str, sent: &str) -> Result<String> {
        let to = user::email(sent)?;
        self.throttles.take(&Key::of_client("mails", self.client), OF_ONE).await?;
        self.throttles.take(&Key::new("mail", &[purpose, &to]), TO_ONE).await?;
        Ok(to)
    }

    /// The link that confirms an address.
    pub(super) fn confirm(&self, batch: &mut Batch, to: &str, token: &Secret) -> Result<()> {
        let words = Words {
            title: "Confirm your address",
            text: "somebody, probably you, wants an account with this address.",
            link: ("Make the account", self.link("/confirm", token)),
            end: "If it was not you, do nothing: without the link there is no account.",
        };
        self.add(batch, to, &words)
    }

    /// To somebody who has an account and wants one.
    pub(super) fn known(&self, batch: &mut Batch, to: &str) -> Result<()> {
        let words = Words {
            title: "You have an account",
            text: "somebody, probably you, wants an account with this address. There is one already.",
            link: ("Log in, or choose a new password", format!("{}/log-in", self.public_url)),
            end: "If it was not you, do nothing: nobody has learned that there is an account.",
        };
        self.add(batch, to, &words)
    }

    /// The link that lets somebody choose a new password.
    pub(super) fn reset(&self, batch: &mut Batch, to: &str, token: &Secret) -> Result<()> {
        let words = Words {
            title: "Choose a new password",
            text: "somebody, probably you, has forgotten the password of the account with this address.",
            link: ("Choose a new password", self.link("/reset", token)),
            end: "If it was not you, do nothing: the password stays as it is.",
        };
        self.add(batch, to, &words)
    }

    /// Says that the password is another one now.
    pub(super) fn changed(&self, batch: &mut Batch, to: &str) -> Result<()> {
        let words = Words {
            title: "Your password has changed",
            text: "the account with this address has a new password, and all devices are logged out.",
            link: ("It was not me: choose another one", format!("{}/forgot", self.public_url)),
            end: "If it was you, there is nothing to do.",
        };
        self.add(batch, to, &words)
    }

    fn add(&self, batch: &mut Batch, to: &str, words: &Words<'_>) -> Result<()> {
        let service = self.service.as_str();
        let text = Text { service, words }.render().map_err(Error::internal)?;
        let html = HtmlText { service, words }.render().map_err(Error::internal)?;
        let mail = Mail::new(to, format!("{service}: {}", words.title), text)?.html(html);
        self.mailer.add(batch, &mail)
    }

    /// It begins with `server.public_url`, whatever host the request was sent to.
    fn link(&self, path: &str, token: &Secret) -> String {
        format!("{}{path}?token={}", self.public_url, token.expose())
    }
}

impl FromRequestParts<AppState> for Mails {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let services = Services::from_ref(state);
        Ok(Self {
            mailer: services.mailer().clone(),
            throttles: services.throttles(),
            service: services.name().to_owned(),
            public_url: services.public_url().to_owned(),
            client: Context::from_request_parts(parts, state).await?.client(),
        })
    }
}

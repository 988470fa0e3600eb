//! A mail, and its form of RFC 5322.

#[cfg(feature = "mail")]
use jiff::Timestamp;
use lettre::Address;
#[cfg(feature = "mail")]
use lettre::message::header::{HeaderName, HeaderValue};
#[cfg(feature = "mail")]
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};

use crate::error::{Error, FieldError, Result};

/// The most bytes of an address (RFC 5321, section 4.5.3.1.3: a path of 256 with its brackets).
const MAX_ADDRESS: usize = 254;

/// A mail to one person.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Mail {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) html: Option<String>,
}

impl Mail {
    /// A mail. `BadRequest`, with the field `/to`, for what is not one address, because an address comes from a user;
    /// `Internal` for a subject with control characters: it would add headers.
    pub fn new(to: &str, subject: impl Into<String>, text: impl Into<String>) -> Result<Self> {
        let subject = subject.into();
        check_address(to)?;
        if subject.chars().any(char::is_control) {
            return Err(Error::internal("the subject of a mail has control characters"));
        }
        Ok(Self { to: to.to_owned(), subject, text: text.into(), html: None })
    }

    /// The text as HTML too. Its reader shows one of the two.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.html = Some(html.into());
        self
    }

    /// The message of RFC 5322. The same id gives the same `Message-ID`: so who gets a mail twice can tell.
    #[cfg(feature = "mail")]
    pub(super) fn message(&self, id: &str, from: &Mailbox, now: Timestamp) -> Result<Message> {
        let to: Address = self.to.parse().map_err(Error::internal)?;
        // No vacation replies to it (RFC 3834, section 5).
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let builder = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(&self.subject)
            .date(now.into())
            .message_id(Some(format!("<{id}@{}>", from.email.domain())))
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()));
        let text = self.text.clone();
        let message = match &self.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text, html.clone())),
            None => builder.singlepart(SinglePart::plain(text)),
        };
        message.map_err(Error::internal)
    }
}

/// What has become of a mail. Those that were not sent have their reason.
#[derive(Debug)]
pub(super) enum Outcome {
    Sent,
    /// It is tried again.
    Later(String),
    /// It would be refused again.
    #[cfg_attr(not(feature = "mail"), expect(dead_code, reason = "a folder refuses none"))]
    Never(String),
    /// The server fails and not this mail: the others would fail too.
    ServerFailed(String),
}

/// Refuses what is not one address. The library of mails takes text in quotes too, in which there may be anything.
fn check_address(to: &str) -> Result<()> {
    let is_plain =
        to.len() <= MAX_ADDRESS && !to.chars().any(|c| c.is_control() || c.is_whitespace() || c == '"');
    if is_plain && to.parse::<Address>().is_ok() {
        return Ok(());
    }
    let (pointer, message) = ("/to".to_owned(), "is not a mail address".to_owned());
    Err(Error::bad_request("Invalid Mail Address").with_errors(vec![FieldError { pointer, message }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::error::Kind;

    #[test]
    fn what_would_add_headers_is_refused() {
        for to in [
            "ada@a.example\r\nBcc: eve@e.example",
            "ada@a.example\n",
            "\"ada\r\nBcc: e\"@a.example",
            "\"ada, eve\"@a.example",
            "ada@a.example, eve@e.example",
            "Ada <ada@a.example>",
            "ada@a.example\u{85}",
            "ada",
            "",
            &format!("{}@a.example", "a".repeat(250)),
        ] {
            let error = Mail::new(to, "x", "").unwrap_err();
            assert_eq!(
                (error.kind(), error.errors()[0].pointer.as_str()),
                (Kind::BadRequest, "/to"),
                "{to:?}"
            );
        }
        for subject in ["a\r\nBcc: eve@e.example", "a\nb", "a\0"] {
            assert_eq!(Mail::new("ada@a.example", subject, "").unwrap_err().kind(), Kind::Internal);
        }
        assert!(Mail::new("ada+shop@a.example", "Grüße", "").is_ok());
    }

    #[cfg(feature = "mail")]
    #[test]
    fn a_message_has_both_parts_and_the_id_of_its_document() {
        let mail = Mail::new("ada@a.example", "Grüße", "Text").unwrap().html("<p>Text");
        let from: Mailbox = "Shop <no-reply@shop.example>".parse().unwrap();
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let message = String::from_utf8(mail.message("1a", &from, now).unwrap().formatted()).unwrap();
        for part in [
            "From: Shop <no-reply@shop.example>\r\n",
            "To: ada@a.example\r\n",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n",
            "Message-ID: <1a@shop.example>\r\n",
            "Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: multipart/alternative",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
        ] {
            assert!(message.contains(part), "{part} {message}");
        }
    }
}

//! Mails by SMTP.

use std::time::Duration;

use axum::http::Uri;
use jiff::Timestamp;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::message::{Mail, Outcome};

/// How long the server may take for a mail. Some look at it before they answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server of mails. Each mail has a connection of its own: one that is kept is closed by the server at some time, and
/// the next mail fails (lettre#743).
#[derive(Debug)]
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// The URL as `lettre` takes it, where it is one: STARTTLS is required, but to this machine.
fn with_tls(url: &str) -> Option<String> {
    let parsed: Uri = url.parse().ok()?;
    let is_bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none();
    let host = parsed.host().filter(|host| !host.is_empty() && is_bare)?;
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let suffix = if url.starts_with("smtp:") && !is_here { "?tls=required" } else { "" };
    Some(format!("{}{suffix}", url.trim_end_matches('/')))
}

impl Smtp {
    /// Connects to nothing yet. Nothing for what is not the URL of a server.
    pub(super) fn open(url: &str, from: Mailbox) -> Option<Self> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&with_tls(url)?).ok()?;
        Some(Self { transport: builder.timeout(Some(TIMEOUT)).build(), from })
    }

    pub(super) async fn send(&self, id: &str, mail: &Mail, now: Timestamp) -> Outcome {
        let message = match mail.message(id, &self.from, now) {
            Ok(message) => message,
            Err(error) => return Outcome::Never(error.cause()),
        };
        // The timeout of the library is for the connection only.
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Outcome::Sent,
            Ok(Err(error)) => refusal(&error),
            Err(_) => Outcome::ServerFailed(format!("no response within {TIMEOUT:?}")),
        }
    }
}

/// What a failure means. Codes 53x refuse the server's own log-in, not this mail: a wrong password must not end them all.
fn refusal(error: &Error) -> Outcome {
    let why = error.to_string();
    match error.status().map(|code| code.to_string()) {
        Some(code) if code != "421" && !code.starts_with("53") => {
            if error.is_permanent() {
                Outcome::Never(why)
            } else {
                Outcome::Later(why)
            }
        }
        _ => Outcome::ServerFailed(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starttls_is_required_but_to_this_machine() {
        assert_eq!(with_tls("smtp://ada:p%40w@h:587").unwrap(), "smtp://ada:p%40w@h:587?tls=required");
        for open in ["smtp://localhost:25", "smtp://127.0.0.1:25", "smtp://[::1]:25", "smtps://h:465"] {
            assert_eq!(with_tls(open).unwrap(), open);
        }
        // The control: other hosts that only look like this machine.
        assert!(with_tls("smtp://localhost.example:25").unwrap().ends_with("?tls=required"));
        assert!(with_tls("smtp://localhost:x@h:25").unwrap().ends_with("?tls=required"));
        let from: Mailbox = "a@a.example".parse().unwrap();
        assert!(Smtp::open("smtps://ada:p%40w@h:465", from.clone()).is_some());
        for wrong in ["smtp://", "smtp://h/x", "smtp://h?tls=none", "smtp:h", "smtp://a:hunter2 @h"] {
            assert!(Smtp::open(wrong, from.clone()).is_none(), "{wrong}");
        }
    }
}

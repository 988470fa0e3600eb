//! The section `mail` of the configuration. `defaults/mail.yaml` explains each key.

use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::secret::MaskedUrl;
use crate::setting::Span;

const HOUR: u64 = 3_600_000;

/// The section `mail`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where mails go: `file:FOLDER`, `smtp://…` or `smtps://…`.
    pub url: MaskedUrl,
    /// The sender.
    pub from: String,
    /// How often the job looks for mails that are due.
    pub interval: Span<100, HOUR>,
}

impl Settings {
    /// The sender. The error is for `mail.from`.
    pub(crate) fn sender(&self) -> Result<Mailbox, StartError> {
        if self.url.expose().starts_with("smtp") && self.from.contains("@localhost") {
            return Err(StartError::config(
                "mail.from is an address of localhost: by SMTP it has to be one of yours",
            ));
        }
        self.from.parse().map_err(|error| {
            let why = format!("mail.from '{}': {error}; expected `Shop <no-reply@shop.example>`", self.from);
            StartError::config(why)
        })
    }
}

//! How a mail leaves the server.

use jiff::Timestamp;

use super::folder::Folder;
use super::message::{Mail, Outcome};
use super::settings::Settings;
#[cfg(feature = "mail")]
use super::smtp::Smtp;
use crate::error::StartError;

/// Where the mails of this server go.
#[derive(Debug)]
pub(crate) enum Transport {
    Folder(Folder),
    #[cfg(feature = "mail")]
    Smtp(Box<Smtp>),
}

impl Settings {
    /// Refuses a URL to which this build cannot send. The error is for `mail.url`.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        Transport::open(self).map(drop)
    }
}

impl Transport {
    /// Connects to nothing. The error is for `mail.url`; it says what could have been meant.
    pub(super) fn open(settings: &Settings) -> Result<Self, StartError> {
        let Settings { url, .. } = settings;
        let refused = |why: &str| Err(StartError::config(format!("mail.url '{url}': {why}")));
        match url.expose().split_once(':').unwrap_or_default() {
            ("file", folder) if !folder.is_empty() && !folder.starts_with("//") => {
                Ok(Self::Folder(Folder(folder.into())))
            }
            #[cfg(feature = "mail")]
            ("smtp" | "smtps", _) => match Smtp::open(url.expose(), settings.sender()?) {
                Some(smtp) => Ok(Self::Smtp(Box::new(smtp))),
                None => refused("expected smtp://USER:PASSWORD@HOST:587 or smtps://USER:PASSWORD@HOST:465"),
            },
            #[cfg(not(feature = "mail"))]
            ("smtp" | "smtps", _) => refused("SMTP is not in this build; `make run FEATURES=mail` has it"),
            _ => refused("expected file:FOLDER, such as file:var/mails, smtp://… or smtps://…"),
        }
    }

    #[cfg_attr(not(feature = "mail"), expect(unused_variables, reason = "a file needs no time"))]
    pub(super) async fn send(&self, id: &str, mail: &Mail, now: Timestamp) -> Outcome {
        match self {
            Self::Folder(folder) => {
                let (folder, id, mail) = (folder.clone(), id.to_owned(), mail.clone());
                match tokio::task::spawn_blocking(move || folder.write(&id, &mail)).await {
                    Ok(Ok(())) => Outcome::Sent,
                    Ok(Err(error)) => Outcome::ServerFailed(format!("cannot write the file: {error}")),
                    Err(panic) => Outcome::ServerFailed(panic.to_string()),
                }
            }
            #[cfg(feature = "mail")]
            Self::Smtp(smtp) => smtp.send(id, mail, now).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_folder_or_a_server_and_shows_no_password() {
        let check = |url: &str| {
            let text = serde_json::json!({"url": url, "from": "a@a.example", "interval": "1s"});
            serde_json::from_value::<Settings>(text).unwrap().check().map_err(|error| error.to_string())
        };
        assert_eq!(check("file:var/mails"), Ok(()));
        for wrong in ["", "file:", "file://h/x", "http://h", "sendmail:", "smtps//ada:hunter2@h"] {
            let why = check(wrong).unwrap_err();
            assert!(why.starts_with("mail.url '") && why.contains("expected file:FOLDER"), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
        let why = check("smtp://ada:hunter2@h/x").unwrap_err();
        assert!(why.starts_with("mail.url 'smtp://ada:***@h/x'") && !why.contains("hunter2"), "{why}");
    }
}

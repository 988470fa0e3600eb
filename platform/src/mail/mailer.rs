//! Keeps mails in the store, and sends what is due.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::message::{Mail, Outcome};
use super::settings::Settings;
use super::transport::Transport;
use crate::clock::Clock;
use crate::error::{Result, StartError};
use crate::store::query::{Direction, Sort, field};
use crate::store::{Batch, Dao, DocumentStore, Entity, Expected, Patch, Stored};

/// How many times a mail is tried, and the pauses between, each twice as long: some 3 hours. Servers that greylist take a
/// mail after some minutes (RFC 6647, section 5), and one that is down for an hour gets its mails soon after it.
const ATTEMPTS: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// How many mails are read from the store at a time.
const CHUNK: u64 = 100;

/// A mail in the store, until it is sent. One with `failed` and without `due` could not be sent: it stays.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KeptMail {
    /// The mail.
    #[serde(flatten)]
    pub mail: Mail,
    /// When it is tried next, in milliseconds since 1970; missing when it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<i64>,
    /// How many times its sending was begun.
    pub attempts: u32,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Entity for KeptMail {
    const COLLECTION: &'static str = "platform_mails";
    const INDEXES: &'static [&'static str] = &["due"];
}

/// Sends mails. Cheap to clone. An app that has one says so: [`Routes::mail`](crate::http::Routes::mail).
#[derive(Clone)]
pub struct Mailer(Arc<Inner>);

struct Inner {
    mails: Dao<KeptMail>,
    clock: Clock,
    transport: Transport,
    interval: Duration,
}

impl Mailer {
    /// Connects to nothing. The error, for a URL or a sender that is none, stops the start.
    pub(crate) fn open(
        settings: &Settings,
        store: &Arc<dyn DocumentStore>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let (mails, transport) = (Dao::new(Arc::clone(store)), Transport::open(settings)?);
        Ok(Self(Arc::new(Inner { mails, clock, transport, interval: settings.interval.get() })))
    }

    /// Puts a mail into a batch: it is sent if, and only if, the rest of the batch is written.
    pub fn add(&self, batch: &mut Batch, mail: &Mail) -> Result<()> {
        batch.insert(&self.0.mails, &self.kept(mail)).map(drop)
    }

    /// Keeps a mail, alone. It is sent soon, by the job.
    pub async fn send(&self, mail: &Mail) -> Result<()> {
        self.0.mails.insert(&self.kept(mail)).await.map(drop)
    }

    fn kept(&self, mail: &Mail) -> KeptMail {
        let due = Some(self.0.clock.millis());
        KeptMail { mail: mail.clone(), due, attempts: 0, failed: None }
    }

    /// Sends the mails that are due, the oldest first, and returns how many were sent. The job calls it, with the fencing
    /// token of its lock; a test calls it in place of the job. A server that does not take any ends it: the others are
    /// tried at the next run.
    pub async fn deliver_due(&self, token: Option<u64>) -> Result<u64> {
        let mails = token.map_or_else(|| self.0.mails.clone(), |token| self.0.mails.guarded(token));
        let mut sent = 0;
        loop {
            let due = field("due").lte(self.0.clock.millis());
            let oldest = Sort::by("due", Direction::Ascending);
            let chunk = mails.page_after(due, oldest, None, CHUNK).await?.items;
            if chunk.is_empty() {
                return Ok(sent);
            }
            for kept in chunk {
                match self.deliver(&mails, kept).await? {
                    Outcome::Sent => sent += 1,
                    Outcome::Later(_) | Outcome::Never(_) => {}
                    Outcome::ServerFailed(_) => return Ok(sent),
                }
            }
        }
    }

    /// Tries one mail. The attempt is noted before it: so a process that has lost the lock sends nothing, and a mail whose
    /// sending ends the process is not tried for ever.
    async fn deliver(&self, mails: &Dao<KeptMail>, kept: Stored<KeptMail>) -> Result<Outcome> {
        let Stored { id, version, value: KeptMail { mail, attempts, .. } } = kept;
        let (now, attempts) = (self.0.clock.now(), attempts + 1);
        let noted = Patch::new().set("attempts", attempts).set("failed", "interrupted");
        let noted = if attempts < ATTEMPTS {
            noted.set("due", (now + pause(attempts)).as_millisecond())
        } else {
            noted.unset("due")
        };
        if mails.update(&id, Expected::Version(version), noted).await?.is_none() {
            return Ok(Outcome::Later("somebody has deleted it".to_owned()));
        }
        let outcome = self.0.transport.send(&id, &mail, now).await;
        let (why, is_final) = match &outcome {
            Outcome::Sent => {
                mails.delete(&id, Expected::Any).await?;
                return Ok(outcome);
            }
            Outcome::Never(why) => (why, true),
            Outcome::Later(why) | Outcome::ServerFailed(why) => (why, attempts >= ATTEMPTS),
        };
        // Some servers say the address, which does not belong into a log.
        let why = why.replace(&mail.to, "(address)");
        let domain = mail.to.rsplit_once('@').map_or("", |(_, domain)| domain);
        let mut noted = Patch::new().set("failed", why.as_str());
        if is_final {
            tracing::error!(target: "server.mail", id, domain, attempts, cause = why, "a mail was not sent");
            noted = noted.unset("due");
        } else {
            tracing::warn!(target: "server.mail", id, domain, attempts, cause = why, "a mail is tried again");
        }
        mails.update(&id, Expected::Any, noted).await?;
        Ok(outcome)
    }

    /// How often the job runs.
    pub(crate) fn interval(&self) -> Duration {
        self.0.interval
    }

    /// The folder of the mails, where they are files.
    #[cfg_attr(not(feature = "mail"), expect(clippy::unnecessary_wraps, reason = "by SMTP there is none"))]
    pub(crate) fn folder(&self) -> Option<Folder> {
        match &self.0.transport {
            Transport::Folder(folder) => Some(folder.clone()),
            #[cfg(feature = "mail")]
            Transport::Smtp(_) => None,
        }
    }
}

/// The pause after an attempt.
fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(20)).min(LONGEST_PAUSE)
}

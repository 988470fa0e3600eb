//! Links in mails: whoever has one proves that the mail came to them, once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::{self, hidden_id};
use crate::clock::{Clock, millis};
use crate::error::Result;
use crate::secret::Secret;
use crate::store::{Batch, Dao, Entity, Expected, Stored, field};

/// A link, as it is kept: under the hash of its secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Kept {
    purpose: String,
    subject: String,
    bound_to: u64,
    /// Milliseconds since 1970-01-01 UTC.
    expires: i64,
}

impl Entity for Kept {
    const COLLECTION: &'static str = "platform_links";
    const INDEXES: &'static [&'static str] = &["expires", "subject"];
}

/// Whom a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The id of a user, or an address that has none yet.
    pub subject: String,
    /// The number that it was bound to, such as [`Account::auth_version`](super::Account::auth_version): where the user has
    /// another one now, the link is nothing.
    pub bound_to: u64,
}

/// The links that were sent. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    dao: Dao<Kept>,
    time: Duration,
    clock: Clock,
}

impl Links {
    pub(crate) fn new(dao: Dao<Kept>, time: Duration, clock: Clock) -> Self {
        Self { dao, time, clock }
    }

    /// Makes a link for a purpose, which holds for `auth.link_time`. It is kept with the mail that has it, by one batch.
    pub fn issue(&self, batch: &mut Batch, purpose: &str, link: &Link) -> Result<Secret> {
        let secret = random::secret()?;
        let kept = Kept {
            purpose: purpose.to_owned(),
            subject: link.subject.clone(),
            bound_to: link.bound_to,
            expires: self.clock.millis().saturating_add(millis(self.time)),
        };
        batch.insert_with_id(&self.dao, &hidden_id(&[secret.expose()]), &kept)?;
        Ok(secret)
    }

    /// Whom a link is for, without spending it: for the page that it leads to. Programs that read mails follow links too.
    pub async fn look(&self, purpose: &str, secret: &str) -> Result<Option<Link>> {
        Ok(self.find(purpose, secret).await?.map(|found| link(found.value)))
    }

    /// Spends a link, by the batch with what it was for: whom it is for, if it is one for this purpose, was not spent and
    /// holds still. Of two that spend it at the same time, one commits; the other is refused with `NotFound`.
    pub async fn redeem(&self, batch: &mut Batch, purpose: &str, secret: &str) -> Result<Option<Link>> {
        let Some(found) = self.find(purpose, secret).await? else { return Ok(None) };
        batch.delete(&self.dao, &found.id, Expected::Any)?;
        Ok(Some(link(found.value)))
    }

    /// Makes all links for somebody nothing.
    pub async fn revoke_all(&self, subject: &str) -> Result<u64> {
        self.dao.delete_all(field("subject").eq(subject)).await
    }

    /// Deletes what has ended, and returns how many there were.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        self.dao.delete_all(field("expires").lte(self.clock.millis())).await
    }

    async fn find(&self, purpose: &str, secret: &str) -> Result<Option<Stored<Kept>>> {
        let found = self.dao.get(&hidden_id(&[secret])).await?;
        Ok(found.filter(|found| found.value.purpose == purpose && self.clock.millis() < found.value.expires))
    }
}

fn link(kept: Kept) -> Link {
    Link { subject: kept.subject, bound_to: kept.bound_to }
}

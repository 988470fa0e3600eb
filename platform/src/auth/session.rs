//! Sessions: who has logged in, on which device, and until when.
//!
//! The client has 32 random bytes; the store has their hash as the id of a document. There is no bag of data in it: what
//! belongs to a user is in the user's own documents.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::account::{Account, Holder};
use super::random::{self, hidden_id};
use super::settings;
use crate::clock::{Clock, millis};
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::store::{Dao, Entity, Expected, Filter, Patch, Stored, field};

/// The most characters of the name of a device that are kept: browsers send some 120.
const MAX_DEVICE: usize = 200;

/// The most sessions in a list.
const MAX_LISTED: u64 = 1_000;

/// A session, as it is kept. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    holder: Holder,
    created: i64,
    seen: i64,
    /// When it ends if it is not used any more.
    expires: i64,
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl Entity for Kept {
    const COLLECTION: &'static str = "platform_sessions";
    const INDEXES: &'static [&'static str] = &["user", "expires"];
}

/// The device that a session is on: what it says of itself, and its address.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Its `User-Agent`.
    pub name: String,
    /// The address of the client.
    pub address: Option<String>,
}

/// A session, as its user may see it. It holds nothing with which somebody could log in.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// What [`Sessions::end_one`] is given.
    pub id: String,
    /// The device.
    pub device: String,
    /// The address of its log-in.
    pub address: Option<String>,
    /// When its user logged in.
    pub created: Timestamp,
    /// When it was used last; not more exact than `auth.sessions.touch`.
    pub seen: Timestamp,
}

/// The sessions of all users. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    dao: Dao<Kept>,
    settings: settings::Sessions,
    clock: Clock,
}

impl Sessions {
    pub(crate) fn new(dao: Dao<Kept>, settings: settings::Sessions, clock: Clock) -> Self {
        Self { dao, settings, clock }
    }

    /// Begins a session of a user who has proved who they are. The secret is for the client alone.
    pub async fn begin<U: Account>(&self, user: &Stored<U>, device: &Device) -> Result<Secret> {
        let secret = random::secret()?;
        let now = self.clock.millis();
        let kept = Kept {
            holder: Holder::new(user),
            created: now,
            seen: now,
            expires: self.end_of(now, now),
            device: device.name.chars().take(MAX_DEVICE).collect(),
            address: device.address.clone(),
        };
        self.dao.insert_with_id(&hidden_id(&[secret.expose()]), &kept).await?;
        Ok(secret)
    }

    /// The session of a secret and its user, if both are there and it has not ended. Its use is noted, now and then.
    pub async fn find<U: Account>(
        &self,
        users: &Dao<U>,
        secret: &str,
    ) -> Result<Option<(Session, Stored<U>)>> {
        let id = hidden_id(&[secret]);
        let Some(found) = self.dao.get(&id).await? else { return Ok(None) };
        let (kept, now) = (found.value, self.clock.millis());
        // The settings may have become shorter since.
        if now >= kept.expires.min(self.end_of(kept.created, kept.seen)) {
            return Ok(None);
        }
        let Some(user) = kept.holder.find(users).await? else { return Ok(None) };
        if now - kept.seen >= millis(self.settings.touch.get()) {
            let patch = Patch::new().set("seen", now).set("expires", self.end_of(kept.created, now));
            // One that has ended meanwhile stays away: an update makes no document.
            if self.dao.update(&id, Expected::Any, patch).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some((session(id, kept)?, user)))
    }

    /// Ends the session of a secret. One that has ended already is no error.
    pub async fn end(&self, secret: &str) -> Result<()> {
        self.dao.delete(&hidden_id(&[secret]), Expected::Any).await.map(drop)
    }

    /// Ends the session of this id, if it is one of this user; false where it is not.
    pub async fn end_one<U: Account>(&self, user: &Stored<U>, id: &str) -> Result<bool> {
        self.dao.delete_first(Filter::id(id).and(Holder::all_of(user))).await
    }

    /// Ends all sessions of a user, but the one of this id, and returns how many there were. A session that begins at the
    /// same time with a former password is ended by [`Account::auth_version`].
    pub async fn end_all<U: Account>(&self, user: &Stored<U>, but: Option<&str>) -> Result<u64> {
        let others = but.map_or(Filter::All, |but| !Filter::id(but));
        self.dao.delete_all(Holder::all_of(user).and(others)).await
    }

    /// The sessions of a user that have not ended, the one that was used last first.
    pub async fn list<U: Account>(&self, user: &Stored<U>) -> Result<Vec<Session>> {
        let holds = Holder::held_by(user).and(field("expires").gt(self.clock.millis()));
        let found = self.dao.get_page_after(holds, None, MAX_LISTED).await?;
        let sessions = found.items.into_iter().map(|found| session(found.id, found.value));
        let mut sessions = sessions.collect::<Result<Vec<_>>>()?;
        sessions.sort_by_key(|session| std::cmp::Reverse(session.seen));
        Ok(sessions)
    }

    /// Deletes what has ended, and returns how many there were.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        self.dao.delete_all(field("expires").lte(self.clock.millis())).await
    }

    /// How long a client keeps its secret at most.
    pub(crate) fn longest(&self) -> Duration {
        self.settings.absolute.get()
    }

    /// Whether the user of a session has logged in recently (`auth.sessions.recent`).
    pub(crate) fn is_recent(&self, session: &Session) -> bool {
        let since = self.clock.millis() - session.created.as_millisecond();
        since < millis(self.settings.recent.get())
    }

    fn end_of(&self, created: i64, seen: i64) -> i64 {
        let idle = seen.saturating_add(millis(self.settings.idle.get()));
        idle.min(created.saturating_add(millis(self.settings.absolute.get())))
    }
}

fn session(id: String, kept: Kept) -> Result<Session> {
    let time = |millis| Timestamp::from_millisecond(millis).map_err(Error::internal);
    Ok(Session {
        id,
        created: time(kept.created)?,
        seen: time(kept.seen)?,
        device: kept.device,
        address: kept.address,
    })
}

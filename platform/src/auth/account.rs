//! What the platform has to know of a user.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::store::{Dao, Entity, Filter, Stored, field};

/// A type of people who log in. The rest of it is the app's.
pub trait Account: Entity {
    /// The path of the page to which a browser is sent that has not logged in. It gets the way back as `?next=`.
    const LOG_IN: &'static str;

    /// A number that grows with a write that ends all sessions, tokens and links of the user: a new password, a new
    /// address. Each of them has the number of its time, and is nothing with another one: so there is no moment in which
    /// the password is new and an old session still holds.
    fn auth_version(&self) -> u64;

    /// Whether the user may log in. A session of one who may not is nothing, from the next request on.
    fn is_active(&self) -> bool {
        true
    }
}

/// Whose a session or a token is, as it is kept with it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Holder {
    user: String,
    /// The collection of the user: two types of people may have the same id.
    of: String,
    auth_version: u64,
}

impl Holder {
    /// This user, as they are now.
    pub(super) fn new<U: Account>(user: &Stored<U>) -> Self {
        let auth_version = user.value.auth_version();
        Self { user: user.id.clone(), of: U::COLLECTION.to_owned(), auth_version }
    }

    /// The user, if they are one of these, may log in, and have not ended all that they had then.
    pub(super) async fn find<U: Account>(&self, users: &Dao<U>) -> Result<Option<Stored<U>>> {
        if self.of != U::COLLECTION {
            return Ok(None);
        }
        let user = users.get(&self.user).await?;
        Ok(user.filter(|user| user.value.is_active() && user.value.auth_version() == self.auth_version))
    }

    /// What is this user's.
    pub(super) fn all_of<U: Account>(user: &Stored<U>) -> Filter {
        field("user").eq(user.id.as_str()).and(field("of").eq(U::COLLECTION))
    }

    /// What is this user's and was not ended by a newer [`Account::auth_version`].
    pub(super) fn held_by<U: Account>(user: &Stored<U>) -> Filter {
        Self::all_of(user).and(field("auth_version").eq(user.value.auth_version()))
    }
}

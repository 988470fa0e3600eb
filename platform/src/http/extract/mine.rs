//! Documents of the caller only.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::caller::{Anyone, Caller, Refused};
use crate::auth::Account;
use crate::error::{Error, Result};
use crate::services::Services;
use crate::store::{Chunk, Dao, Entity, Expected, Filter, Stored, field};

/// A type of documents each of which belongs to a user.
pub trait Owned: Entity {
    /// The path of the field with the id of its owner. It belongs into [`Entity::INDEXES`].
    const OWNER: &'static str;

    /// The id of its owner.
    fn owner(&self) -> &str;
}

/// The documents of type `T` of the user `U` who calls. One of somebody else is as if it were not there, and none can be
/// given away: so no handler has to think of it. A request of nobody is refused as by [`Caller`].
pub struct Mine<T, U> {
    documents: Dao<T>,
    caller: Caller<U>,
}

impl<T: Owned, U: Account> Mine<T, U> {
    /// The caller.
    pub fn caller(&self) -> &Caller<U> {
        &self.caller
    }

    /// The document of this id.
    pub async fn get(&self, id: &str) -> Result<Option<Stored<T>>> {
        Ok(self.documents.get(id).await?.filter(|found| self.owns(&found.value)))
    }

    /// Those that match, by id, as [`Dao::get_page_after`] has them.
    pub async fn page_after(&self, filter: Filter, after: Option<&str>, limit: u64) -> Result<Chunk<T>> {
        self.documents.get_page_after(self.owned().and(filter), after, limit).await
    }

    /// How many match.
    pub async fn count(&self, filter: Filter) -> Result<u64> {
        self.documents.count(self.owned().and(filter)).await
    }

    /// Stores a value under a new id, and returns the id. `Internal` for a value with another owner.
    pub async fn insert(&self, value: &T) -> Result<String> {
        self.check(value)?;
        self.documents.insert(value).await
    }

    /// Changes the document of this id as [`Dao::modify_if`] does. `Internal` when it has another owner then.
    pub async fn modify_if(
        &self,
        id: &str,
        expected: Expected,
        mut change: impl FnMut(&mut T) -> Result<()>,
    ) -> Result<Option<Stored<T>>> {
        if self.get(id).await?.is_none() {
            return Ok(None);
        }
        let change = |value: &mut T| {
            // It has been given to another one since.
            self.check(value)?;
            change(value)?;
            self.check(value)
        };
        self.documents.modify_if(id, expected, change).await
    }

    /// Deletes the document of this id; false when there is none. `Conflict` when it has another version than the expected
    /// one.
    pub async fn delete(&self, id: &str, expected: Expected) -> Result<bool> {
        let Some(found) = self.get(id).await? else { return Ok(false) };
        match expected {
            Expected::Any => self.documents.delete_first(Filter::id(id).and(self.owned())).await,
            expected => {
                expected.check(found.version)?;
                self.documents.delete(id, Expected::Version(found.version)).await
            }
        }
    }

    fn owned(&self) -> Filter {
        field(T::OWNER).eq(self.caller.id())
    }

    fn owns(&self, value: &T) -> bool {
        value.owner() == self.caller.id()
    }

    fn check(&self, value: &T) -> Result<()> {
        let wrong = || Error::internal(format!("a document of {} with another owner", T::COLLECTION));
        if self.owns(value) { Ok(()) } else { Err(wrong()) }
    }
}

impl<T: Owned, U: Account, S: Sync> FromRequestParts<S> for Mine<T, U>
where
    Services: FromRef<S>,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let caller = <Caller<U, Anyone> as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(Self { documents: Services::from_ref(state).dao(), caller })
    }
}

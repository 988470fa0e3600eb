//! What a slice sees of the store: typed values in, typed values out. It knows no engine and no HTTP.
//!
//! Everything that a caller can get wrong is checked here, once for all engines: ids, documents, paths, sizes. No engine is
//! given a text with NUL.

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::document;
use super::fields::Fields;
use super::query::{Filter, Page, Query, Sort};
use super::write::{Change, Expected, Patch, Write, Written};
use super::{Body, Collection, Document, DocumentStore};
use crate::error::{Error, Result};

/// How many documents [`Dao::stream`] reads at a time.
const STREAM_CHUNK: u64 = 256;

/// A type that is stored as one document.
pub trait Entity: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of its collection: 1 to 40 of `a-z 0-9 _`, beginning with a letter.
    const COLLECTION: &'static str;
    /// The paths that its queries filter or sort by.
    const INDEXES: &'static [&'static str] = &[];
}

/// A value with the id and version of its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The id of the document.
    pub id: String,
    /// 1 when it was made, and one more at each write.
    pub version: u64,
    /// The value itself.
    pub value: T,
}

/// One page of an answer, and the size of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The values of the page.
    pub items: Vec<Stored<T>>,
    /// How many there are on all pages; counted after the page was read, so a write may come between.
    pub total: u64,
}

/// A part of a walk through all values by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<T> {
    /// The values, by id.
    pub items: Vec<Stored<T>>,
    /// The id after which the next chunk begins; `None` when this is the last one.
    pub next: Option<String>,
}

/// What [`Dao::upsert`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// The id of the document.
    pub id: String,
    /// Its version now.
    pub version: u64,
    /// Whether it is new.
    pub created: bool,
}

/// An id that sorts by the time of its making: a `UUIDv7` (RFC 9562) as 32 lower-case hexadecimal digits.
pub fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
}

/// The documents of one entity. Making one costs a reference count.
///
/// "First" is by id, bytewise, which for ids of [`new_id`] is the oldest. Besides what is written at a method,
/// all fail with `BadRequest` for a filter, sort or patch that breaks a bound of `query`, with `Unavailable` when
/// the store cannot answer in time, and with `Internal` when a stored document is not a `T`.
pub struct Dao<T> {
    store: Arc<dyn DocumentStore>,
    entity: PhantomData<fn() -> T>,
}

impl<T> Clone for Dao<T> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), entity: PhantomData }
    }
}

impl<T: Entity> Dao<T> {
    const COLLECTION: &'static Collection = &Collection::new(T::COLLECTION, T::INDEXES);

    /// The entity's documents in this store.
    pub fn new(store: Arc<dyn DocumentStore>) -> Self {
        Self { store, entity: PhantomData }
    }

    /// The value of this id.
    pub async fn get(&self, id: &str) -> Result<Option<Stored<T>>> {
        if document::check_id(id).is_err() {
            return Ok(None);
        }
        self.store.get(Self::COLLECTION, id).await?.map(decode).transpose()
    }

    /// The first value that matches.
    pub async fn get_first(&self, filter: Filter) -> Result<Option<Stored<T>>> {
        let found = self.find(filter, Sort::by_id(), Page::first(1)).await?;
        Ok(found.into_iter().next())
    }

    /// All values that match, by id.
    pub async fn get_all(&self, filter: Filter) -> Result<Vec<Stored<T>>> {
        self.find(filter, Sort::by_id(), Page::all()).await
    }

    /// All values that match, in this order.
    pub async fn get_all_sorted(&self, filter: Filter, sort: Sort) -> Result<Vec<Stored<T>>> {
        self.find(filter, sort, Page::all()).await
    }

    /// One page of the values that match, and how many there are.
    pub async fn page(&self, filter: Filter, sort: Sort, page: Page) -> Result<Listing<T>> {
        let items = self.find(filter.clone(), sort, page).await?;
        Ok(Listing { items, total: self.count(filter).await? })
    }

    /// The values that match and whose id is greater than `after`, by id, at most `limit` of them. A walk that passes
    /// on `next` sees each value at most once, whatever is written meanwhile, and costs the same at every chunk, which
    /// an offset does not. A `limit` of 0 gives nothing, and no `next`.
    pub async fn get_page_after(&self, filter: Filter, after: Option<&str>, limit: u64) -> Result<Chunk<T>> {
        if limit == 0 {
            return Ok(Chunk { items: Vec::new(), next: None });
        }
        let filter = match after {
            Some(id) => Filter::And(vec![Filter::After(id.to_owned()), filter]),
            None => filter,
        };
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        // One more than is wanted tells whether there is a next chunk.
        let mut items = self.find(filter, Sort::by_id(), Page::first(limit.saturating_add(1))).await?;
        let more = items.len() > wanted;
        items.truncate(wanted);
        let next = if more { items.last().map(|last| last.id.clone()) } else { None };
        Ok(Chunk { items, next })
    }

    /// All values that match, by id, read in chunks, so that memory stays bounded. A value that is written
    /// meanwhile may or may not be seen; each is seen at most once.
    pub fn stream(&self, filter: Filter) -> impl Stream<Item = Result<Stored<T>>> + Send + 'static {
        let dao = self.clone();
        // Every id is greater than the empty text.
        stream::try_unfold(Some(String::new()), move |position| {
            let (dao, filter) = (dao.clone(), filter.clone());
            async move {
                let Some(after) = position else { return Ok::<_, Error>(None) };
                let chunk = dao.get_page_after(filter, Some(&after), STREAM_CHUNK).await?;
                Ok(Some((stream::iter(chunk.items).map(Ok), chunk.next)))
            }
        })
        .try_flatten()
    }

    /// How many match.
    pub async fn count(&self, filter: Filter) -> Result<u64> {
        self.store.count(Self::COLLECTION, checked(filter)?).await
    }

    /// Whether one matches.
    pub async fn exists(&self, filter: Filter) -> Result<bool> {
        let query = Query { filter: checked(filter)?, sort: Sort::by_id(), page: Page::first(1) };
        Ok(!self.store.find(Self::COLLECTION, query).await?.is_empty())
    }

    /// Stores a value under a new id, and returns the id. Like all that store a value, it fails with `BadRequest` for
    /// one that cannot be kept (`document::check`); the error has a JSON pointer for each wrong field.
    pub async fn insert(&self, value: &T) -> Result<String> {
        let id = new_id();
        self.insert_with_id(&id, value).await?;
        Ok(id)
    }

    /// Stores a value under an id of the caller's. `Conflict` when it is taken, `BadRequest` when it is empty,
    /// longer than [`document::MAX_ID`] bytes or contains NUL.
    pub async fn insert_with_id(&self, id: &str, value: &T) -> Result<()> {
        document::check_id(id)?;
        self.write(Write::Insert(vec![(id.to_owned(), encode(value)?)])).await.map(drop)
    }

    /// Stores all values, or none of them, and returns their ids in the same order.
    pub async fn insert_many(&self, values: &[T]) -> Result<Vec<String>> {
        let mut new = Vec::with_capacity(values.len());
        for value in values {
            new.push((new_id(), encode(value)?));
        }
        let ids = new.iter().map(|(id, _)| id.clone()).collect();
        if !new.is_empty() {
            self.write(Write::Insert(new)).await?;
        }
        Ok(ids)
    }

    /// Replaces the first value that matches, or stores this one where none does: under the id that the filter
    /// names when it is [`Filter::id`], else under a new one.
    pub async fn upsert(&self, filter: Filter, value: &T) -> Result<Upserted> {
        let id = match &filter {
            Filter::Ids(ids) if ids.len() == 1 => ids[0].clone(),
            _ => new_id(),
        };
        document::check_id(&id)?;
        let written = self.write(Write::Upsert { filter, id, body: encode(value)? }).await?;
        let document = written.document.ok_or_else(|| Error::internal("an upsert answered no document"))?;
        Ok(Upserted { id: document.id, version: document.version, created: written.created })
    }

    /// Replaces the value of this id and returns its new version; `None` when there is none. `Conflict` when it
    /// has another version than the expected one.
    pub async fn replace(&self, id: &str, expected: Expected, value: &T) -> Result<Option<u64>> {
        let change = Change::Replace(encode(value)?);
        let written = self.write(Write::Change { filter: Filter::id(id), expected, change }).await?;
        Ok(written.document.map(|document| document.version))
    }

    /// Changes some fields of the value of this id and returns it as it is now; `None` when there is none.
    /// `Conflict` when it has another version than the expected one.
    pub async fn update(&self, id: &str, expected: Expected, patch: Patch) -> Result<Option<Stored<T>>> {
        self.merge(Filter::id(id), expected, patch).await
    }

    /// Changes some fields of the first value that matches and returns it as it is now.
    pub async fn update_first(&self, filter: Filter, patch: Patch) -> Result<Option<Stored<T>>> {
        self.merge(filter, Expected::Any, patch).await
    }

    /// Deletes the value of this id; false when there is none. `Conflict` when it has another version than the
    /// expected one.
    pub async fn delete(&self, id: &str, expected: Expected) -> Result<bool> {
        let write = Write::Change { filter: Filter::id(id), expected, change: Change::Delete };
        Ok(self.write(write).await?.count > 0)
    }

    /// Deletes the first value that matches; false when none does.
    pub async fn delete_first(&self, filter: Filter) -> Result<bool> {
        let write = Write::Change { filter, expected: Expected::Any, change: Change::Delete };
        Ok(self.write(write).await?.count > 0)
    }

    /// Deletes all values that match, and returns how many.
    pub async fn delete_all(&self, filter: Filter) -> Result<u64> {
        Ok(self.write(Write::DeleteAll(filter)).await?.count)
    }

    /// Deletes the values of these ids (10,000 at most), and returns how many there were.
    pub async fn delete_with_ids<S: AsRef<str> + Sync>(&self, ids: &[S]) -> Result<u64> {
        self.delete_all(Filter::Ids(ids.iter().map(|id| id.as_ref().to_owned()).collect())).await
    }

    async fn find(&self, filter: Filter, sort: Sort, page: Page) -> Result<Vec<Stored<T>>> {
        let filter = checked(filter)?;
        sort.check()?;
        let found = self.store.find(Self::COLLECTION, Query { filter, sort, page }).await?;
        found.into_iter().map(decode).collect()
    }

    async fn merge(&self, filter: Filter, expected: Expected, patch: Patch) -> Result<Option<Stored<T>>> {
        patch.check()?;
        let written = self.write(Write::Change { filter, expected, change: Change::Merge(patch) }).await?;
        written.document.map(decode).transpose()
    }

    async fn write(&self, mut write: Write) -> Result<Written> {
        match &mut write {
            Write::Change { filter, .. } | Write::Upsert { filter, .. } | Write::DeleteAll(filter) => {
                *filter = checked(std::mem::replace(filter, Filter::All))?;
            }
            Write::Insert(_) => {}
        }
        self.store.write(Self::COLLECTION, write).await
    }
}

/// A filter within its bounds, as an engine is given it.
fn checked(filter: Filter) -> Result<Filter> {
    filter.check()?;
    Ok(filter.without_nul())
}

fn encode<T: Entity>(value: &T) -> Result<Arc<Body>> {
    match serde_json::to_value(value).map_err(Error::internal)? {
        Value::Object(body) => {
            document::check(&body)?;
            Ok(Arc::new(body))
        }
        _ => Err(Error::internal(format!("a document of {} is not an object", T::COLLECTION))),
    }
}

fn decode<T: Entity>(document: Document) -> Result<Stored<T>> {
    let value = T::deserialize(Fields(&document.body))
        .map_err(|cause| Error::internal(format!("{} {:?}: {cause}", T::COLLECTION, document.id)))?;
    Ok(Stored { id: document.id, version: document.version, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_of_their_making() {
        let ids: Vec<String> = (0..1000).map(|_| new_id()).collect();
        assert!(ids.is_sorted());
        assert!(
            ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        );
    }
}

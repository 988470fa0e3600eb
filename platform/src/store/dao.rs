//! What a slice uses of the store: it writes and reads typed values. It knows no engine and no HTTP.
//!
//! All arguments are checked here, once for every engine: ids, documents, paths, sizes. An engine is never given NUL.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::cursor::{self, Cursor};
use super::document;
use super::fields::{Fields, FieldsDeserializer};
use super::listing::{Chunk, Listing, Stored, Total, Upserted};
use super::migration::{Declared, Migration};
use super::patch::Patch;
use super::query::{self, Filter, Page, Query, Scalar, Sort};
use super::write::{Change, Expected, Write, WriteOutcome};
use super::{Collection, Document, DocumentStore, Token};
use crate::error::{Error, Result};

/// How many documents [`Dao::stream`] reads at a time.
const STREAM_CHUNK: u64 = 256;

/// The most paths of [`Dao::find_fields`]: with more, the whole document is as cheap.
pub const MAX_FIELDS: usize = 64;

/// How often [`Dao::modify`] tries again, and the unit of its pauses: some 10 s in all.
const MODIFY_ATTEMPTS: u32 = 500;
const MODIFY_PAUSE: Duration = Duration::from_millis(4);

/// A type that is stored as one document.
pub trait Entity: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of its collection: 1 to 40 of `a-z 0-9 _`, beginning with a letter.
    const COLLECTION: &'static str;
    /// The paths that its queries filter or sort by.
    const INDEXES: &'static [&'static str] = &[];
    /// The paths at which no two documents have the same value, such as `email`. Null, a missing field, an object and an
    /// array never clash. A path by which queries find documents is in `INDEXES` too.
    const UNIQUE: &'static [&'static str] = &[];
    /// The steps that bring its documents of former shapes into the present one, the oldest first.
    const MIGRATIONS: &'static [Migration] = &[];
}

/// A new id. Ids sort by the time at which they were made: a `UUIDv7` (RFC 9562) as 32 lower-case hexadecimal digits.
pub fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
}

/// The documents of one entity. A clone costs one reference count.
///
/// "First" means the least id, compared bytewise: with ids of [`new_id`], the oldest. Besides the errors that a method
/// names, all fail with `BadRequest` for a sort or a patch that `query` refuses, with `Unavailable` when the store does not
/// respond in time, and with `Internal` for a filter beyond a limit of `query`, and when a stored document is not a `T`.
pub struct Dao<T> {
    store: Arc<dyn DocumentStore>,
    token: Token,
    entity: PhantomData<fn() -> T>,
}

impl<T> Clone for Dao<T> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), token: self.token, entity: PhantomData }
    }
}

impl<T: Entity> Dao<T> {
    pub(crate) const COLLECTION: &'static Collection =
        &Collection::new(T::COLLECTION, T::INDEXES).unique(T::UNIQUE);
    pub(crate) const DECLARED: Declared =
        Declared { collection: Self::COLLECTION, migrations: T::MIGRATIONS };

    /// The entity's documents in this store.
    pub fn new(store: Arc<dyn DocumentStore>) -> Self {
        Self { store, token: None, entity: PhantomData }
    }

    /// The same documents, for the holder of a lock: every write carries the fencing token of its lease, a number that is
    /// higher for each new holder.
    ///
    /// A document keeps the highest token that has written it. A write to a document with a higher token changes nothing
    /// and fails with `Conflict`, reason `Stale`: another holder of the lock has written since, so this one has lost it.
    /// The check and the write are one atomic step. `delete_all`, `delete_with_ids` delete the documents without a higher
    /// token, and leave the others. An unguarded write is not checked, and the document keeps its token. A deleted
    /// document takes its token with it: a stale holder can create it again.
    ///
    /// Writes fail with `Internal` for a token above 2⁶³−1, the largest that every engine can keep.
    pub fn guarded(&self, token: u64) -> Self {
        Self { store: Arc::clone(&self.store), token: Some(token), entity: PhantomData }
    }

    /// The store of these documents.
    pub(super) fn store(&self) -> &Arc<dyn DocumentStore> {
        &self.store
    }

    /// The fencing token of every write.
    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// The value of this id.
    pub async fn get(&self, id: &str) -> Result<Option<Stored<T>>> {
        if document::check_id(id).is_err() {
            return Ok(None);
        }
        self.store.get(Self::COLLECTION, id).await?.map(|found| decode(Self::COLLECTION, found)).transpose()
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

    /// The values that match and whose id is greater than `after`, by id, at most `limit` of them (keyset pagination).
    ///
    /// Pass `next` as the next `after`: so each value is seen at most once, whatever is written meanwhile, and a late
    /// chunk costs no more than the first. With a `limit` of 0, there are no items and no `next`.
    pub async fn get_page_after(&self, filter: Filter, after: Option<&str>, limit: u64) -> Result<Chunk<T>> {
        if limit == 0 {
            return Ok(Chunk { items: Vec::new(), next: None });
        }
        // Checked before `after` is added: the limits are for the caller's part.
        let mut filter = checked(filter)?;
        if let Some(id) = after {
            filter = Filter::And(vec![Filter::After(id.to_owned()).without_nul(), filter]);
        }
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        // One more document than wanted: if it is there, there is a next chunk.
        let page = Page::first(limit.saturating_add(1));
        let mut items = self.find_checked(Query { filter, sort: Sort::by_id(), page }).await?;
        let more = items.len() > wanted;
        items.truncate(wanted);
        let next = if more { items.last().map(|last| last.id.clone()) } else { None };
        Ok(Chunk { items, next })
    }

    /// The values that match, in this order, at most `limit` of them, after those of an earlier page.
    ///
    /// Pass `next` as the next `cursor`. So each value is seen at most once, whatever is inserted and deleted meanwhile;
    /// one whose place in the order changes may be seen twice or not at all. A late page costs no more than the first one
    /// where the first path of the sort has an index and few documents have the same value there. `BadRequest` for a
    /// cursor that was not given by this method for this sort.
    pub async fn page_after(
        &self,
        filter: Filter,
        sort: Sort,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<Chunk<T>> {
        sort.check()?;
        let filter = checked(filter)?;
        let parts = match cursor {
            Some(cursor) => self.after(&sort, cursor).await?,
            None => vec![Filter::All],
        };
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut found: Vec<Document> = Vec::new();
        for part in parts {
            // One more document than wanted: if it is there, there is a next page.
            let missing = limit.saturating_add(1).saturating_sub(found.len() as u64);
            if limit == 0 || missing == 0 {
                break;
            }
            let filter = part.and(filter.clone());
            let query = Query { filter, sort: sort.clone(), page: Page::first(missing) };
            found.extend(self.store.find(Self::COLLECTION, query).await?);
        }
        let more = found.len() > wanted;
        found.truncate(wanted);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| Cursor::at(last, &sort).encode()).transpose()?;
        Ok(Chunk { items: Self::decode_all(found)?, next })
    }

    /// The documents after a cursor, in the parts of [`cursor::parts_after`].
    async fn after(&self, sort: &Sort, cursor: &str) -> Result<Vec<Filter>> {
        let cursor = Cursor::decode(cursor, sort)?;
        let values = match cursor.values {
            Some(values) => values,
            None if document::check_id(&cursor.id).is_err() => return Err(cursor::outdated()),
            None => match self.store.get(Self::COLLECTION, &cursor.id).await? {
                Some(document) => cursor::values(&document, sort),
                None => return Err(cursor::outdated()),
            },
        };
        let parts = cursor::parts_after(sort, &values, &cursor.id);
        Ok(parts.into_iter().map(Filter::without_nul).collect())
    }

    /// All values that match, by id, read in chunks, so that memory stays bounded. Each is seen at most once. A value
    /// that is written meanwhile may or may not be seen.
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
        self.store.count(Self::COLLECTION, checked(filter)?, None).await
    }

    /// How many match, counted no further than a bound: a count reads every document that matches.
    pub async fn count_up_to(&self, filter: Filter, bound: u64) -> Result<Total> {
        let count =
            self.store.count(Self::COLLECTION, checked(filter)?, Some(bound.saturating_add(1))).await?;
        Ok(if count > bound { Total::AtLeast(bound) } else { Total::Exactly(count) })
    }

    /// How many of the values that match have each value at a path: the most frequent first, then in the order of a sort,
    /// at most `limit` of them. Null and missing are one; values with an object or an array there are not counted.
    pub async fn count_by(&self, filter: Filter, path: &str, limit: u64) -> Result<Vec<(Scalar, u64)>> {
        query::check_path(path)?;
        self.store.count_by(Self::COLLECTION, checked(filter)?, path, limit).await
    }

    /// Some fields of the values that match, as a type that has only those. The other fields are not read from the server.
    /// `BadRequest` for a path that contains another, `Internal` for none or more than [`MAX_FIELDS`].
    pub async fn find_fields<P: DeserializeOwned>(
        &self,
        paths: &[&str],
        filter: Filter,
        sort: Sort,
        page: Page,
    ) -> Result<Vec<Stored<P>>> {
        if paths.is_empty() || paths.len() > MAX_FIELDS {
            let given = paths.len();
            return Err(Error::internal(format!(
                "{given} fields of a document: 1 to {MAX_FIELDS} can be read"
            )));
        }
        paths.iter().try_for_each(|path| query::check_path(path))?;
        query::check_disjoint(paths.iter().copied())?;
        sort.check()?;
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        let query = Query { filter: checked(filter)?, sort, page };
        let found = self.store.find_fields(Self::COLLECTION, query, &paths).await?;
        found.into_iter().map(|document| decode(Self::COLLECTION, document)).collect()
    }

    /// Whether one matches.
    pub async fn exists(&self, filter: Filter) -> Result<bool> {
        let query = Query { filter: checked(filter)?, sort: Sort::by_id(), page: Page::first(1) };
        Ok(!self.store.find(Self::COLLECTION, query).await?.is_empty())
    }

    /// Stores a value under a new id, and returns the id.
    ///
    /// Like every method that stores a value, it fails with `BadRequest` for a value with NUL or a reserved key, or one
    /// that is nested too deeply; the error has the JSON pointer of each such field. It fails with `Conflict`, reason
    /// `Value Exists`, when another document has the same value at a path of [`Entity::UNIQUE`]; the error has the JSON
    /// pointer of one such path.
    pub async fn insert(&self, value: &T) -> Result<String> {
        let id = new_id();
        self.insert_with_id(&id, value).await?;
        Ok(id)
    }

    /// Stores a value under this id, and returns its version. `Conflict` when a document has the id, `BadRequest` when it is
    /// empty, longer than [`document::MAX_ID`] bytes or contains NUL.
    pub async fn insert_with_id(&self, id: &str, value: &T) -> Result<u64> {
        document::check_id(id)?;
        let new = self.new_document(id, value)?;
        let version = new.version;
        self.write(Write::Insert(vec![new])).await.map(|_| version)
    }

    /// Stores all values, or none of them, and returns their ids in the same order.
    pub async fn insert_many(&self, values: &[T]) -> Result<Vec<String>> {
        let mut new = Vec::with_capacity(values.len());
        for value in values {
            new.push(self.new_document(&new_id(), value)?);
        }
        let ids = new.iter().map(|new| new.id.clone()).collect();
        if !new.is_empty() {
            self.write(Write::Insert(new)).await?;
        }
        Ok(ids)
    }

    /// Replaces the first value that matches. When none does, stores this one: under the id of the filter when that is
    /// [`Filter::id`], else under a new id.
    pub async fn upsert(&self, filter: Filter, value: &T) -> Result<Upserted> {
        let id = match &filter {
            Filter::Ids(ids) if ids.len() == 1 => ids[0].clone(),
            _ => new_id(),
        };
        document::check_id(&id)?;
        let outcome = self.write(Write::Upsert { filter, new: self.new_document(&id, value)? }).await?;
        let document = outcome.document.ok_or_else(|| Error::internal("an upsert returned no document"))?;
        Ok(Upserted { id: document.id, version: document.version, created: outcome.created })
    }

    /// Replaces the value of this id and returns its new version; `None` when there is none. `Conflict` when it
    /// has another version than the expected one.
    pub async fn replace(&self, id: &str, expected: Expected, value: &T) -> Result<Option<u64>> {
        let change = Change::Replace(encode(value)?);
        let outcome = self.write(Write::Change { filter: Filter::id(id), expected, change }).await?;
        Ok(outcome.document.map(|document| document.version))
    }

    /// Changes some fields of the value of this id and returns the changed value; `None` when there is none.
    /// `Conflict` when it has another version than the expected one.
    pub async fn update(&self, id: &str, expected: Expected, patch: Patch) -> Result<Option<Stored<T>>> {
        self.merge(Filter::id(id), expected, patch).await
    }

    /// Changes some fields of the first value that matches and returns the changed value; `None` when none matches.
    pub async fn update_first(&self, filter: Filter, patch: Patch) -> Result<Option<Stored<T>>> {
        self.merge(filter, Expected::Any, patch).await
    }

    /// Changes the value of this id by a function of what it is now, and returns what the function returns; `None` when
    /// there is none. Where another writer comes between, the function is called again with the newer value. Its error is
    /// returned, and nothing is written then. `Conflict` when that goes on for some seconds. A field of the document that `T`
    /// does not have is lost; [`Dao::update`] keeps it.
    pub async fn modify<R>(&self, id: &str, change: impl FnMut(&mut T) -> Result<R>) -> Result<Option<R>> {
        Ok(self.modify_from(id, &Expected::Any, change).await?.map(|(_, result)| result))
    }

    /// Changes the value of this id as [`Dao::modify`] does, and returns it as it is then; `None` when there is none.
    /// `Conflict` when it has another version than the expected one.
    pub async fn modify_if(
        &self,
        id: &str,
        expected: Expected,
        change: impl FnMut(&mut T) -> Result<()>,
    ) -> Result<Option<Stored<T>>> {
        Ok(self.modify_from(id, &expected, change).await?.map(|(stored, ())| stored))
    }

    async fn modify_from<R>(
        &self,
        id: &str,
        expected: &Expected,
        mut change: impl FnMut(&mut T) -> Result<R>,
    ) -> Result<Option<(Stored<T>, R)>> {
        let mut attempts = 0;
        loop {
            let Some(mut stored) = self.get(id).await? else { return Ok(None) };
            expected.check(stored.version)?;
            let result = change(&mut stored.value)?;
            match self.replace(id, Expected::Version(stored.version), &stored.value).await {
                Ok(Some(version)) => return Ok(Some((Stored { version, ..stored }, result))),
                Ok(None) => return Ok(None),
                Err(error)
                    if error.reason() == super::write::VERSION_CONFLICT && attempts < MODIFY_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
            // Writers that start together must not stay together.
            tokio::time::sleep(MODIFY_PAUSE.mul_f64(fastrand::f64()) * attempts.min(10)).await;
            attempts += 1;
        }
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

    /// Deletes the values of these ids (10,000 at most), and returns how many it deleted.
    pub async fn delete_with_ids<S: AsRef<str> + Sync>(&self, ids: &[S]) -> Result<u64> {
        self.delete_all(Filter::Ids(ids.iter().map(|id| id.as_ref().to_owned()).collect())).await
    }

    async fn find(&self, filter: Filter, sort: Sort, page: Page) -> Result<Vec<Stored<T>>> {
        sort.check()?;
        self.find_checked(Query { filter: checked(filter)?, sort, page }).await
    }

    async fn find_checked(&self, query: Query) -> Result<Vec<Stored<T>>> {
        let found = self.store.find(Self::COLLECTION, query).await?;
        Self::decode_all(found)
    }

    fn decode_all(found: Vec<Document>) -> Result<Vec<Stored<T>>> {
        found.into_iter().map(|document| decode(Self::COLLECTION, document)).collect()
    }

    async fn merge(&self, filter: Filter, expected: Expected, patch: Patch) -> Result<Option<Stored<T>>> {
        patch.check()?;
        let outcome = self.write(Write::Change { filter, expected, change: Change::Merge(patch) }).await?;
        outcome.document.map(|changed| decode(Self::COLLECTION, changed)).transpose()
    }

    fn new_document(&self, id: &str, value: &T) -> Result<Document> {
        Ok(Document::new(id.to_owned(), encode(value)?, self.token))
    }

    async fn write(&self, mut write: Write) -> Result<WriteOutcome> {
        match &mut write {
            Write::Change { filter, .. } | Write::Upsert { filter, .. } | Write::DeleteAll(filter) => {
                *filter = checked(std::mem::replace(filter, Filter::All))?;
            }
            Write::Insert(_) => {}
        }
        document::check_token(self.token)?;
        self.store.guarded_write(Self::COLLECTION, write, self.token).await
    }
}

/// A filter that an engine may be given: within the limits of `query`, and without NUL.
fn checked(filter: Filter) -> Result<Filter> {
    filter.check()?;
    Ok(filter.without_nul())
}

pub(super) fn encode<T: Entity>(value: &T) -> Result<Arc<Fields>> {
    match serde_json::to_value(value).map_err(Error::internal)? {
        Value::Object(fields) => {
            document::check(&fields)?;
            Ok(Arc::new(fields))
        }
        _ => Err(Error::internal(format!("a document of {} is not an object", T::COLLECTION))),
    }
}

/// What helps when documents lack a field that is new in their type.
const RECIPE: &str =
    "; a field that older documents lack needs #[serde(default)], or a migration (docs/STORES.md)";

fn decode<T: DeserializeOwned>(collection: &Collection, document: Document) -> Result<Stored<T>> {
    let value = T::deserialize(FieldsDeserializer(&document.fields)).map_err(|cause| {
        let cause = cause.to_string();
        let recipe = if cause.starts_with("missing field") { RECIPE } else { "" };
        Error::internal(format!("{} {:?}: {cause}{recipe}", collection.name(), document.id))
    })?;
    Ok(Stored { id: document.id, version: document.version, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_at_which_they_were_made() {
        let ids: Vec<String> = (0..1000).map(|_| new_id()).collect();
        assert!(ids.is_sorted());
        assert!(
            ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        );
    }
}

//! The writes. Each changes one document by compare-and-set, or uses `pending`.
//!
//! A change is atomic: the document is replaced only if no other write to it has come since it was read, else the
//! change begins again. "The first that matches" is the first one at that read. `DeleteAll` is MongoDB's `deleteMany`:
//! each document is deleted atomically, all of them together are not.

use std::slice;
use std::sync::Arc;

use mongodb::bson::{Bson, Document as Bdoc, doc};

use super::super::query::Filter;
use super::super::write::{Change, Expected, Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Token};
use super::convert::{Found, ID, PENDING, REVISION, TOKEN, encode};
use super::server::store_error;
use super::unique::{Broken, broken};
use super::{Inner, Stored, query};
use crate::error::Result;

/// What an attempt to create a document has done.
pub(super) enum Created {
    Yes,
    /// Another document has the id.
    IdTaken,
    /// Another document has the value at a unique path.
    ValueTaken(Broken),
    /// Another write came between.
    Again,
}

impl Created {
    /// What it has done when it has broken a unique index: nothing.
    pub(super) fn refused(broken: Broken) -> Self {
        if let Broken::Id = broken { Self::IdTaken } else { Self::ValueTaken(broken) }
    }
}

impl Inner {
    pub(super) async fn write(
        self: &Arc<Self>,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        let stored = self.prepared(collection).await?;
        match write {
            Write::Insert(mut new) => {
                match &mut new[..] {
                    [] => {}
                    [one] => self.insert(collection, &stored, one).await?,
                    many => self.insert_many(collection, &stored, many).await?,
                }
                Ok(WriteOutcome::inserted(&new))
            }
            Write::Change { filter, expected, change } => {
                self.change(collection, &stored, &filter, &expected, &change, token).await
            }
            Write::Upsert { filter, new } => self.upsert(collection, &stored, &filter, &new, token).await,
            Write::DeleteAll(filter) => {
                let mut condition = query::visible(&filter);
                if let Some(token) = token {
                    // Also where it is missing.
                    let token = i64::try_from(token).unwrap_or(i64::MAX);
                    condition.insert(TOKEN, doc! { "$not": { "$gt": token } });
                }
                let deleted = stored.delete_many(condition).await.map_err(store_error)?;
                Ok(WriteOutcome { count: deleted.deleted_count, ..WriteOutcome::default() })
            }
        }
    }

    async fn insert(
        self: &Arc<Self>,
        collection: &Collection,
        stored: &Stored,
        new: &Document,
    ) -> Result<()> {
        let one = slice::from_ref(new);
        loop {
            match create(collection, stored, new).await? {
                Created::IdTaken | Created::ValueTaken(_) if self.has_one_of(stored, one).await? => {
                    return Err(document_exists());
                }
                Created::ValueTaken(broken) => self.refuse_or_wait(stored, broken, one).await?,
                Created::IdTaken | Created::Again => {}
                Created::Yes => return Ok(()),
            }
        }
    }

    async fn change(
        &self,
        collection: &'static Collection,
        stored: &Stored,
        filter: &Filter,
        expected: &Expected,
        change: &Change,
        token: Token,
    ) -> Result<WriteOutcome> {
        loop {
            let Some(before) = self.first(collection, stored, filter).await? else {
                return Ok(WriteOutcome::default());
            };
            if let Some(after) = change.clone().apply(&before.document, expected, token)? {
                if self.replace(collection, stored, &before, &after).await? {
                    return Ok(WriteOutcome::of(after, false));
                }
            } else {
                let deleted = stored.delete_one(unchanged(&before)).await.map_err(store_error)?;
                if deleted.deleted_count > 0 {
                    return Ok(WriteOutcome::of(before.document, false));
                }
            }
        }
    }

    /// Replaces a document; false when it must be read again, since another write came between.
    async fn replace(
        &self,
        collection: &Collection,
        stored: &Stored,
        before: &Found,
        after: &Document,
    ) -> Result<bool> {
        let error = match stored.replace_one(unchanged(before), encode(after, None)?).await {
            Ok(replaced) => return Ok(replaced.matched_count > 0),
            Err(error) => error,
        };
        let Some(broken) = broken(collection, &error) else { return Err(store_error(error)) };
        self.refuse_or_wait(stored, broken, slice::from_ref(after)).await?;
        Ok(false)
    }

    async fn upsert(
        self: &Arc<Self>,
        collection: &'static Collection,
        stored: &Stored,
        filter: &Filter,
        new: &Document,
        token: Token,
    ) -> Result<WriteOutcome> {
        // MongoDB's index of the ids lets one of several upserts of an id create it.
        let by_id = matches!(filter, Filter::Ids(ids) if ids[..] == [new.id.as_str()]);
        loop {
            if let Some(before) = self.first(collection, stored, filter).await? {
                let after = before.document.next_version(Arc::clone(&new.fields), token)?;
                if self.replace(collection, stored, &before, &after).await? {
                    return Ok(WriteOutcome::of(after, false));
                }
                continue;
            }
            let created = if by_id {
                create(collection, stored, new).await?
            } else {
                self.create_if_none(collection, stored, filter, new).await?
            };
            match created {
                Created::Yes => return Ok(WriteOutcome::of(new.clone(), true)),
                refused @ (Created::IdTaken | Created::ValueTaken(_)) => {
                    let one = slice::from_ref(new);
                    if self.has_one_of(stored, one).await?
                        && self.first(collection, stored, filter).await?.is_none()
                    {
                        return Err(document_exists());
                    }
                    if let Created::ValueTaken(broken) = refused
                        && let Err(error) = self.refuse_or_wait(stored, broken, one).await
                        // The other document may be what the upsert has looked for, and came after that.
                        && self.first(collection, stored, filter).await?.is_none()
                    {
                        return Err(error);
                    }
                }
                Created::Again => {}
            }
        }
    }
}

/// Creates one document.
async fn create(collection: &Collection, stored: &Stored, new: &Document) -> Result<Created> {
    match stored.insert_one(encode(new, None)?).await {
        Ok(_) => Ok(Created::Yes),
        Err(error) => broken(collection, &error).map(Created::refused).ok_or_else(|| store_error(error)),
    }
}

/// The document as long as no other write changes it.
pub(super) fn unchanged(before: &Found) -> Bdoc {
    let revision = before.revision.map_or(Bson::Null, Bson::ObjectId);
    doc! { ID: &before.document.id, REVISION: revision, PENDING: Bson::Null }
}

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
use super::super::{Collection, Document, Fields};
use super::convert::{Found, ID, PENDING, REVISION, encode};
use super::server::{is_duplicate, store_error};
use super::{Inner, Stored, query};
use crate::error::Result;

/// What an attempt to create a document has done.
pub(super) enum Created {
    Yes,
    /// Another document has the id.
    IdTaken,
    /// Another write came between.
    Again,
}

impl Inner {
    pub(super) async fn write(
        self: &Arc<Self>,
        collection: &'static Collection,
        write: Write,
    ) -> Result<WriteOutcome> {
        let stored = self.prepared(collection).await?;
        match write {
            Write::Insert(new) => {
                let new: Vec<Document> =
                    new.into_iter().map(|(id, fields)| Document::first_version(id, fields)).collect();
                match &new[..] {
                    [] => {}
                    [one] => self.insert(&stored, one).await?,
                    many => self.insert_many(&stored, many).await?,
                }
                Ok(WriteOutcome::counted(new.len()))
            }
            Write::Change { filter, expected, change } => {
                self.change(collection, &stored, &filter, expected, &change).await
            }
            Write::Upsert { filter, id, fields } => {
                self.upsert(collection, &stored, &filter, &id, &fields).await
            }
            Write::DeleteAll(filter) => {
                let deleted = stored.delete_many(query::visible(&filter)).await.map_err(store_error)?;
                Ok(WriteOutcome { count: deleted.deleted_count, ..WriteOutcome::default() })
            }
        }
    }

    async fn insert(self: &Arc<Self>, stored: &Stored, new: &Document) -> Result<()> {
        loop {
            match create(stored, new).await? {
                Created::IdTaken if self.has_one_of(stored, slice::from_ref(new)).await? => {
                    return Err(document_exists());
                }
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
        expected: Expected,
        change: &Change,
    ) -> Result<WriteOutcome> {
        loop {
            let Some(before) = self.first(collection, stored, filter).await? else {
                return Ok(WriteOutcome::default());
            };
            if let Some(after) = change.clone().apply(&before.document, &expected)? {
                if replace(stored, &before, &after).await? {
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

    async fn upsert(
        self: &Arc<Self>,
        collection: &'static Collection,
        stored: &Stored,
        filter: &Filter,
        id: &str,
        fields: &Arc<Fields>,
    ) -> Result<WriteOutcome> {
        let new = Document::first_version(id.to_owned(), Arc::clone(fields));
        // MongoDB's index of the ids lets one of several upserts of an id create it.
        let by_id = matches!(filter, Filter::Ids(ids) if ids[..] == [id]);
        loop {
            if let Some(before) = self.first(collection, stored, filter).await? {
                let after = before.document.next_version(Arc::clone(fields));
                if replace(stored, &before, &after).await? {
                    return Ok(WriteOutcome::of(after, false));
                }
                continue;
            }
            let created = if by_id {
                create(stored, &new).await?
            } else {
                self.create_if_none(collection, stored, filter, &new).await?
            };
            match created {
                Created::Yes => return Ok(WriteOutcome::of(new, true)),
                Created::IdTaken => {
                    if self.has_one_of(stored, slice::from_ref(&new)).await?
                        && self.first(collection, stored, filter).await?.is_none()
                    {
                        return Err(document_exists());
                    }
                }
                Created::Again => {}
            }
        }
    }
}

/// Creates one document.
async fn create(stored: &Stored, new: &Document) -> Result<Created> {
    match stored.insert_one(encode(new, None)?).await {
        Ok(_) => Ok(Created::Yes),
        Err(error) if is_duplicate(&error) => Ok(Created::IdTaken),
        Err(error) => Err(store_error(error)),
    }
}

/// Replaces a document; false when another write came between.
async fn replace(stored: &Stored, before: &Found, after: &Document) -> Result<bool> {
    let replaced = stored.replace_one(unchanged(before), encode(after, None)?).await.map_err(store_error)?;
    Ok(replaced.matched_count > 0)
}

/// The document as long as no other write changes it.
fn unchanged(before: &Found) -> Bdoc {
    let revision = before.revision.map_or(Bson::Null, Bson::ObjectId);
    doc! { ID: &before.document.id, REVISION: revision, PENDING: Bson::Null }
}

//! The store in memory: the reference implementation of the others, and the fastest. Its documents end with the
//! process, and no other process sees them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;

use super::query::{Filter, Query, select};
use super::write::{Write, WriteOutcome, document_exists};
use super::{Collection, Document, DocumentStore};
use crate::error::Result;

/// The documents of one collection in the order of their ids.
type Documents = BTreeMap<String, Document>;

/// Documents in maps. The lock is never held across an await: every method completes at its first poll.
#[derive(Default)]
pub(super) struct MemoryStore {
    collections: RwLock<HashMap<&'static str, Documents>>,
}

impl MemoryStore {
    fn read<R>(&self, collection: &Collection, empty: R, read: impl FnOnce(&Documents) -> R) -> R {
        // A poisoned lock is used all the same: a panic leaves no map half changed, since `apply` changes it last.
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.get(collection.name()).map_or(empty, read)
    }
}

/// The documents that can match the filter, by id: found by its ids or by its least id, where it has such.
fn candidates<'a>(documents: &'a Documents, filter: &Filter) -> Box<dyn Iterator<Item = &'a Document> + 'a> {
    if let Some(ids) = filter.ids() {
        let mut ids: Vec<&String> = ids.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let found: Vec<&Document> = ids.into_iter().filter_map(|id| documents.get(id)).collect();
        return Box::new(found.into_iter());
    }
    let after = filter.after().map_or(Bound::Unbounded, Bound::Excluded);
    Box::new(documents.range::<str, _>((after, Bound::Unbounded)).map(|(_, document)| document))
}

fn first<'a>(documents: &'a Documents, filter: &Filter) -> Option<&'a Document> {
    candidates(documents, filter).find(|document| filter.matches(document))
}

fn apply(documents: &mut Documents, write: Write) -> Result<WriteOutcome> {
    match write {
        Write::Insert(new) => {
            let mut added = Documents::new();
            for (id, fields) in new {
                if documents.contains_key(&id) || added.contains_key(&id) {
                    return Err(document_exists());
                }
                added.insert(id.clone(), Document::first_version(id, fields));
            }
            let outcome = WriteOutcome::counted(added.len());
            // `append` would rebuild the whole map.
            documents.extend(added);
            Ok(outcome)
        }
        Write::Change { filter, expected, change } => {
            let Some(before) = first(documents, &filter) else { return Ok(WriteOutcome::default()) };
            if let Some(after) = change.apply(before, &expected)? {
                documents.insert(after.id.clone(), after.clone());
                Ok(WriteOutcome::of(after, false))
            } else {
                let id = before.id.clone();
                Ok(documents
                    .remove(&id)
                    .map_or_else(WriteOutcome::default, |deleted| WriteOutcome::of(deleted, false)))
            }
        }
        Write::Upsert { filter, id, fields } => {
            let (document, created) = match first(documents, &filter) {
                Some(before) => (before.next_version(fields), false),
                None if documents.contains_key(&id) => return Err(document_exists()),
                None => (Document::first_version(id, fields), true),
            };
            documents.insert(document.id.clone(), document.clone());
            Ok(WriteOutcome::of(document, created))
        }
        Write::DeleteAll(filter) => {
            let ids: Vec<String> = candidates(documents, &filter)
                .filter(|document| filter.matches(document))
                .map(|document| document.id.clone())
                .collect();
            for id in &ids {
                documents.remove(id);
            }
            Ok(WriteOutcome::counted(ids.len()))
        }
    }
}

#[async_trait]
impl DocumentStore for MemoryStore {
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        Ok(self.read(collection, None, |documents| documents.get(id).cloned()))
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        Ok(self.read(collection, Vec::new(), |documents| {
            select(candidates(documents, &query.filter), &query).into_iter().cloned().collect()
        }))
    }

    async fn count(&self, collection: &'static Collection, filter: Filter) -> Result<u64> {
        Ok(self.read(collection, 0, |documents| {
            candidates(documents, &filter).filter(|document| filter.matches(document)).count() as u64
        }))
    }

    async fn write(&self, collection: &'static Collection, write: Write) -> Result<WriteOutcome> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        apply(collections.entry(collection.name()).or_default(), write)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {}
}

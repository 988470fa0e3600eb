//! The store in memory: the reference implementation of the others, and the fastest. Its documents end with the
//! process, and no other process sees them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{Bound, Deref};
use std::slice;
use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;

use super::collections::of_collections;
use super::query::{Filter, Groups, Query, Scalar, select};
use super::step::no_such_document;
use super::unique::UniqueIndex;
use super::write::{Write, WriteOutcome, document_exists};
use super::{BatchOutcome, Collection, Document, DocumentStore, Step, Token};
use crate::error::Result;

/// The documents of one collection in the order of their ids. They are read as a map; what changes them keeps the index of
/// the unique paths.
#[derive(Default)]
struct Documents {
    by_id: BTreeMap<String, Document>,
    unique: UniqueIndex,
}

impl Deref for Documents {
    type Target = BTreeMap<String, Document>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl Documents {
    /// Indexes the unique paths of the collection, at its first use.
    fn declare(&mut self, collection: &Collection) -> Result<()> {
        self.unique.declare(collection, self.by_id.values())
    }

    /// `Conflict` when one of these documents may not be stored beside the others.
    fn check(&self, new: &[Document]) -> Result<()> {
        self.unique.check(new)
    }

    fn insert(&mut self, id: String, document: Document) {
        if !self.unique.is_empty() {
            if let Some(before) = self.by_id.get(&id) {
                self.unique.remove(before);
            }
            self.unique.add(&document);
        }
        self.by_id.insert(id, document);
    }

    fn remove(&mut self, id: &str) -> Option<Document> {
        let removed = self.by_id.remove(id);
        if let Some(document) = &removed {
            self.unique.remove(document);
        }
        removed
    }
}

/// Documents in maps. The lock is never held across an await: every method completes at its first poll.
#[derive(Default)]
pub(super) struct MemoryStore {
    collections: RwLock<HashMap<&'static str, Documents>>,
}

impl MemoryStore {
    fn read<R>(&self, collection: &Collection, empty: R, read: impl FnOnce(&Documents) -> R) -> R {
        // A poisoned lock is used all the same: a panic leaves no map half changed, since `apply` checks first and changes then.
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

fn apply(documents: &mut Documents, write: Write, token: Token) -> Result<WriteOutcome> {
    match write {
        Write::Insert(new) => {
            let mut ids = HashSet::new();
            if !new.iter().all(|new| !documents.contains_key(&new.id) && ids.insert(&new.id)) {
                return Err(document_exists());
            }
            documents.check(&new)?;
            for document in &new {
                documents.insert(document.id.clone(), document.clone());
            }
            Ok(WriteOutcome::inserted(&new))
        }
        Write::Change { filter, expected, change } => {
            let Some(before) = first(documents, &filter) else { return Ok(WriteOutcome::default()) };
            if let Some(after) = change.apply(before, &expected, token)? {
                documents.check(slice::from_ref(&after))?;
                documents.insert(after.id.clone(), after.clone());
                Ok(WriteOutcome::of(after, false))
            } else {
                let id = before.id.clone();
                Ok(documents
                    .remove(&id)
                    .map_or_else(WriteOutcome::default, |deleted| WriteOutcome::of(deleted, false)))
            }
        }
        Write::Upsert { filter, new } => {
            let (document, created) = match first(documents, &filter) {
                Some(before) => (before.next_version(new.fields, token)?, false),
                None if documents.contains_key(&new.id) => return Err(document_exists()),
                None => (new, true),
            };
            documents.check(slice::from_ref(&document))?;
            documents.insert(document.id.clone(), document.clone());
            Ok(WriteOutcome::of(document, created))
        }
        Write::DeleteAll(filter) => {
            let ids: Vec<String> = candidates(documents, &filter)
                .filter(|document| filter.matches(document) && document.next_token(token).is_ok())
                .map(|document| document.id.clone())
                .collect();
            for id in &ids {
                documents.remove(id);
            }
            Ok(WriteOutcome::counted(ids.len()))
        }
    }
}

/// Performs a step of a batch, and returns the version of its document after it.
fn perform(documents: &mut Documents, step: Step) -> Result<u64> {
    let (id, token) = (step.id.clone(), step.token);
    let document = match step.write() {
        Some(write) => apply(documents, write, token)?.document,
        None => documents.get(&id).cloned(),
    };
    document.map(|document| document.version).ok_or_else(no_such_document)
}

#[async_trait]
impl DocumentStore for MemoryStore {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        collections.entry(collection.name()).or_default().declare(collection)
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        Ok(self.read(collection, None, |documents| documents.get(id).cloned()))
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        Ok(self.read(collection, Vec::new(), |documents| {
            select(candidates(documents, &query.filter), &query).into_iter().cloned().collect()
        }))
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        let bound = bound.map_or(usize::MAX, |bound| usize::try_from(bound).unwrap_or(usize::MAX));
        Ok(self.read(collection, 0, |documents| {
            candidates(documents, &filter).filter(|document| filter.matches(document)).take(bound).count()
                as u64
        }))
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        let mut groups = Groups::default();
        self.read(collection, (), |documents| {
            for document in candidates(documents, &filter).filter(|document| filter.matches(document)) {
                groups.add(document, path);
            }
        });
        Ok(groups.first(limit))
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let documents = collections.entry(collection.name()).or_default();
        documents.declare(collection)?;
        apply(documents, write, token)
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        for step in &steps {
            collections.entry(step.collection.name()).or_default().declare(step.collection)?;
        }
        let (mut versions, mut undo) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for step in steps {
            let name = step.collection.name();
            let documents = collections.entry(name).or_default();
            undo.push((name, step.id.clone(), documents.get(&step.id).cloned()));
            match perform(documents, step) {
                Ok(version) => versions.push(version),
                Err(error) => {
                    // Backwards: so a value that one document has left to another one is free again when the first gets
                    // it back.
                    for (name, id, before) in undo.into_iter().rev() {
                        let documents = collections.entry(name).or_default();
                        match before {
                            Some(before) => documents.insert(id, before),
                            None => drop(documents.remove(&id)),
                        }
                    }
                    return Ok(BatchOutcome::Refused(versions.len(), error));
                }
            }
        }
        Ok(BatchOutcome::Committed(versions))
    }

    async fn collections(&self) -> Result<Vec<String>> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        Ok(of_collections(collections.keys().map(|name| (*name).to_owned())))
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let stored = collections.entry(collection.name()).or_default();
        stored.declare(collection)?;
        stored.check(&documents)?;
        for document in documents {
            stored.insert(document.id.clone(), document);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {}
}

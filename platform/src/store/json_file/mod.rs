//! The store in JSON files, one per document, which people can read and edit. It is slow: a query reads every file of
//! its collection.
//!
//! `DIR/<collection>/<name>.json` holds `{"id", "version", "body"}`, and `"token"` after a guarded write. The
//! writers of all processes lock `DIR/<collection>/.lock`; readers take no lock, since a file is always replaced as a
//! whole.
//!
//! A file that is no document, since it is broken or a copy, is left out of every query, and the log names it (`damaged`). A
//! call that names its id fails, but a deletion deletes it.
//!
//! A write of several documents is written to a `journal` first, so all of it happens or nothing, whenever the process is
//! killed. But a query may see a part of it: at the same time, and after a kill until the next start or the next write of
//! one of its collections. `sqlite` has no such limit.

mod damaged;
mod disk;
mod folder;
mod journal;
mod lock;
mod restore;
mod root;
#[cfg(test)]
mod simulated_disk;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::collections::of_collections;
use super::query::{Filter, Groups, Page, Query, Scalar, select};
use super::write::{Write, WriteOutcome, outcome_unknown};
use super::{BatchOutcome, Collection, Document, DocumentStore, Step, Token};
use crate::error::{Error, Result, StartError};
use folder::Folder;
use root::Root;

/// Documents in files below one folder.
pub(super) struct JsonFileStore {
    root: Root,
    timeout: Duration,
    /// The writers of this process wait here, first in, first out. The lock of the file has to be polled.
    writers: Arc<Mutex<()>>,
    /// The collections with unique paths whose documents are known not to clash.
    prepared: RwLock<HashSet<&'static Collection>>,
}

impl JsonFileStore {
    /// Creates the folder if it is missing, and removes the unfinished files of writers that were killed.
    pub(super) async fn open(root: PathBuf, timeout: Duration) -> Result<Self, StartError> {
        let name = format!("store folder {}", root.display());
        let deadline = Instant::now() + timeout;
        let opened = spawn_blocking(move || Root::open(root, deadline)).await.map_err(Error::internal);
        let root =
            opened.flatten().map_err(|error| StartError::failed(format!("{name}: {}", error.cause())))?;
        Ok(Self { root, timeout, writers: Arc::default(), prepared: RwLock::default() })
    }

    /// Checks the unique paths of a collection. Each process checks once: a file that a person changes so that it clashes
    /// is found at the next start.
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        if collection.unique_paths().is_empty()
            || self.prepared.read().unwrap_or_else(PoisonError::into_inner).contains(collection)
        {
            return Ok(());
        }
        self.change(move |root, deadline| root.check_stored(collection, deadline)).await?;
        self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
        Ok(())
    }

    /// Reads from a folder, after the collection has been prepared, for no longer than the timeout.
    async fn read<R: Send + 'static>(
        &self,
        collection: &'static Collection,
        read: impl FnOnce(Folder) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.prepare(collection).await?;
        // The thread ends at that time too, unless the disk does not respond.
        let folder = self.root.folder(collection).until(Instant::now() + self.timeout);
        let found = tokio::time::timeout(self.timeout, spawn_blocking(move || read(folder))).await;
        self.root.report_damaged();
        found
            .map_err(|_| Error::unavailable(format!("files were not read within {:?}", self.timeout)))?
            .map_err(Error::internal)?
    }

    /// Changes files while no other writer of this process can. It has to take the locks of the files before the time that it is
    /// given, a bit less than its caller waits. A thread that a slow disk holds up goes on without its caller.
    async fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(Root, Instant) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let begun = Instant::now();
        let (deadline, for_locks) = (begun + self.timeout, begun + self.timeout.mul_f32(0.9));
        let permit = tokio::time::timeout(self.timeout, Arc::clone(&self.writers).lock_owned())
            .await
            .map_err(|_| Error::unavailable(format!("no permit to write files within {:?}", self.timeout)))?;
        let root = self.root.clone();
        let changed = spawn_blocking(move || {
            // Held until the write has ended, also when its caller has been dropped.
            let _permit = permit;
            change(root, for_locks)
        });
        let changed = tokio::time::timeout_at(deadline.into(), changed).await;
        self.root.report_damaged();
        changed
            .map_err(|_| outcome_unknown(format!("files were not written within {:?}", self.timeout)))?
            .map_err(Error::internal)?
    }
}

#[async_trait]
impl DocumentStore for JsonFileStore {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        self.prepare(collection).await
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        let id = id.to_owned();
        self.read(collection, move |folder| folder.load(&id)).await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.read(collection, move |folder| {
            let Page { offset, limit } = query.page;
            let found = match limit {
                Some(limit) if query.sort.fields().is_empty() && query.filter.ids().is_none() => {
                    let count = usize::try_from(offset.saturating_add(limit)).unwrap_or(usize::MAX);
                    folder.first(&query.filter, count)?
                }
                _ => folder.scan(&query.filter)?,
            };
            Ok(select(found.into_iter(), &query))
        })
        .await
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        let count = self.read(collection, move |folder| Ok(folder.scan(&filter)?.len() as u64)).await?;
        Ok(bound.map_or(count, |bound| count.min(bound)))
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        let path = path.to_owned();
        self.read(collection, move |folder| {
            let mut groups = Groups::default();
            folder.scan(&filter)?.iter().for_each(|document| groups.add(document, &path));
            Ok(groups.first(limit))
        })
        .await
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        self.prepare(collection).await?;
        self.change(move |root, deadline| root.write(collection, write, token, deadline)).await
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        for step in &steps {
            self.prepare(step.collection).await?;
        }
        self.change(move |root, deadline| root.batch(steps, deadline)).await
    }

    async fn collections(&self) -> Result<Vec<String>> {
        let root = self.root.clone();
        let names = spawn_blocking(move || restore::folders(root.path())).await.map_err(Error::internal)?;
        names
            .map(of_collections)
            .map_err(|cause| Error::unavailable(format!("{}: {cause}", self.root.path().display())))
    }

    async fn check_readable(&self, collection: &'static Collection) -> Result<()> {
        self.read(collection, |folder| folder.check_readable()).await
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        self.prepare(collection).await?;
        self.change(move |root, deadline| root.restore(collection, &documents, deadline)).await
    }

    async fn ping(&self) -> Result<()> {
        tokio::fs::metadata(self.root.path()).await.map(drop).map_err(Error::unavailable)
    }

    async fn close(&self) {
        // A writer holds this lock until its write is on the disk.
        drop(self.writers.lock().await);
    }
}

#[cfg(test)]
mod tests;

//! The store in JSON files, one per document, which people can read and edit. It is slow: a query reads every file of
//! its collection.
//!
//! `DIR/<collection>/<name>.json` holds `{"id", "version", "body"}`. The writers of all processes lock
//! `DIR/<collection>/.lock`; readers take no lock, since a file is always replaced as a whole.
//!
//! A write of several documents is not atomic here: a query at the same time may see some of them, and a machine that
//! stops in the middle keeps those that were written. `sqlite` has neither limit.

mod disk;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::query::{Filter, Query, select};
use super::write::{Write, WriteOutcome};
use super::{Collection, Document, DocumentStore};
use crate::error::{Error, Result, StartError};
use folder::Folder;

/// Documents in files below one folder.
pub(super) struct JsonFileStore {
    root: Arc<PathBuf>,
    timeout: Duration,
    /// The writers of this process wait here, first in, first out. The lock of the file has to be polled.
    writers: Arc<Mutex<()>>,
}

impl JsonFileStore {
    /// Creates the folder if it is missing, and removes the unfinished files of writers that were killed.
    pub(super) async fn open(root: PathBuf, timeout: Duration) -> Result<Self, StartError> {
        let store = Self { root: Arc::new(root), timeout, writers: Arc::default() };
        let root = Arc::clone(&store.root);
        let opened = spawn_blocking(move || folder::prepare_root(&root)).await.map_err(std::io::Error::other);
        opened
            .flatten()
            .map_err(|cause| StartError::failed(format!("store folder {}: {cause}", store.root.display())))?;
        Ok(store)
    }

    async fn read<R: Send + 'static>(
        &self,
        collection: &'static Collection,
        read: impl FnOnce(Folder) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let folder = Folder::new(&self.root, collection);
        spawn_blocking(move || read(folder)).await.map_err(Error::internal)?
    }
}

#[async_trait]
impl DocumentStore for JsonFileStore {
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        let id = id.to_owned();
        self.read(collection, move |folder| folder.load(&id)).await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.read(collection, move |folder| Ok(select(folder.scan(&query.filter)?.into_iter(), &query))).await
    }

    async fn count(&self, collection: &'static Collection, filter: Filter) -> Result<u64> {
        self.read(collection, move |folder| Ok(folder.scan(&filter)?.len() as u64)).await
    }

    async fn write(&self, collection: &'static Collection, write: Write) -> Result<WriteOutcome> {
        let deadline = Instant::now() + self.timeout;
        let permit = tokio::time::timeout(self.timeout, Arc::clone(&self.writers).lock_owned())
            .await
            .map_err(|_| Error::unavailable(format!("no permit to write files within {:?}", self.timeout)))?;
        self.read(collection, move |folder| {
            // Held until the write has ended, also when its caller has been dropped.
            let _permit = permit;
            folder.write(write, deadline)
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        tokio::fs::metadata(&*self.root).await.map(drop).map_err(Error::unavailable)
    }

    async fn close(&self) {
        // A writer holds this lock until its write is on the disk.
        drop(self.writers.lock().await);
    }
}

#[cfg(test)]
mod tests;

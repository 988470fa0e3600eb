//! The root folder of a store: which locks a write takes, and what becomes of a journal that a killed process has left.
//! All of it blocks the thread.
//!
//! A write of one file locks its collection. A write that may change several files first locks the root, so that there is
//! one journal at a time, and then its collections, in the order of their names. Nobody waits for the root with the lock of a
//! collection in hand, so nobody waits in a circle.
//!
//! Who holds the lock of a collection and finds a journal that changes it knows that its writer is gone.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Access, access};

use super::super::step::{BatchOutcome, Effect, Step};
use super::super::unique::UniqueIndex;
use super::super::write::{Write, WriteOutcome};
use super::super::{Collection, Document, Token, damaged};
use super::damaged::Damaged;
use super::disk::{self, RealDisk};
use super::folder::Folder;
use super::journal::{JOURNAL, Journal};
use super::lock::{self, LOCK};
use crate::error::{Error, Result};
use crate::regular_file;

/// Opens the lock of a folder that is there already.
fn open_lock(folder: &Path) -> io::Result<File> {
    regular_file::open(File::options().read(true), &folder.join(LOCK))
}

/// Says that a folder cannot be written. It can be read, so the server starts: on a backup, for example.
fn warn_if_closed(folder: &Path) {
    if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        let (folder, error) = (folder.display(), io::Error::from(error));
        tracing::warn!(target: "server", "writes will fail, since this folder cannot be written: {folder}: {error}");
    }
}

/// The root folder.
#[derive(Clone)]
pub(super) struct Root {
    path: PathBuf,
    damaged: Arc<Damaged>,
}

impl Root {
    /// Creates the folder, completes the journal that a killed writer has left, and removes unfinished files.
    pub(super) fn open(path: PathBuf, deadline: Instant) -> Result<Self> {
        let failed = |error: io::Error| Error::unavailable(error);
        if !path.exists() {
            fs::create_dir_all(&path).map_err(|error| {
                Error::unavailable(format!("cannot make the folder {}: {error}", path.display()))
            })?;
            let path = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
            tracing::info!(target: "server", store = %path.display(), "a new store was created");
        }
        warn_if_closed(&path);
        let root = Self { path, damaged: Arc::default() };
        // A copy of the folder may be without the lock file.
        let lock =
            if root.path.join(JOURNAL).exists() { lock::open(&root.path) } else { open_lock(&root.path) };
        // If the lock is held, there is a writer.
        if let Ok(turn) = lock
            && turn.try_lock().is_ok()
        {
            root.complete_journal(deadline)?;
            disk::remove_leftovers(&root.path).map_err(failed)?;
        }
        for entry in fs::read_dir(&root.path).map_err(failed)? {
            let folder = entry.map_err(failed)?.path();
            if folder.is_dir() {
                warn_if_closed(&folder);
            }
            // A folder without a lock file is not a collection; one whose lock is held has an active writer.
            let Ok(lock) = open_lock(&folder) else { continue };
            if lock.try_lock().is_ok() {
                disk::remove_leftovers(&folder).map_err(failed)?;
            }
        }
        Ok(root)
    }

    /// Names the damaged files that were met in the log, each once.
    pub(super) fn report_damaged(&self) {
        self.damaged.report();
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self, collection: &'static Collection) -> Folder {
        Folder::new(&self.path, collection, Arc::clone(&self.damaged))
    }

    /// Fails when two documents of a collection have the same value at a unique path.
    pub(super) fn check_stored(&self, collection: &'static Collection, deadline: Instant) -> Result<()> {
        let folder = self.folder(collection);
        let _lock = self.lock(&folder, deadline)?;
        folder.check_stored()
    }

    /// Performs a write while no other writer of these documents can.
    pub(super) fn write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
        deadline: Instant,
    ) -> Result<WriteOutcome> {
        let folder = self.folder(collection);
        let several = match &write {
            Write::Insert(new) => new.len() > 1,
            Write::DeleteAll(_) => true,
            Write::Change { .. } | Write::Upsert { .. } => false,
        };
        let _turn = if several { Some(self.turn(deadline)?) } else { None };
        let _lock = self.lock(&folder, deadline)?;
        folder.write(write, token)
    }

    /// Stores documents as they are, all or none.
    pub(super) fn restore(
        &self,
        collection: &'static Collection,
        documents: &[Document],
        deadline: Instant,
    ) -> Result<()> {
        let folder = self.folder(collection);
        let _turn = self.turn(deadline)?;
        let _lock = folder.lock(deadline)?;
        folder.put(documents)
    }

    /// Performs the steps of a batch, or none.
    pub(super) fn batch(&self, steps: Vec<Step>, deadline: Instant) -> Result<BatchOutcome> {
        let _turn = self.turn(deadline)?;
        let folders: BTreeMap<&str, Folder> =
            steps.iter().map(|step| (step.collection.name(), self.folder(step.collection))).collect();
        let _locks = folders.values().map(|folder| folder.lock(deadline)).collect::<Result<Vec<File>>>()?;
        // The documents as they are after the steps so far, and the values at the unique paths.
        let mut now: HashMap<(&str, String), Option<Document>> = HashMap::new();
        let mut unique: HashMap<&str, UniqueIndex> = HashMap::new();
        for (name, folder) in &folders {
            unique.insert(name, folder.unique_index()?);
        }
        let mut journal = Journal::default();
        let mut versions = Vec::with_capacity(steps.len());
        for step in steps {
            let (name, id) = (step.collection.name(), step.id.clone());
            let folder = self.folder(step.collection);
            let key = (name, id);
            let before = match now.remove(&key) {
                Some(before) => before,
                None => folder.load(&key.1)?,
            };
            let (version, effect) = match step.effect(before.as_ref()) {
                Ok(done) => done,
                Err(error) => return Ok(BatchOutcome::Refused(versions.len(), error)),
            };
            let after = match effect {
                Effect::Nothing => {
                    versions.push(version);
                    now.insert(key, before);
                    continue;
                }
                Effect::Create(after) | Effect::Replace(after) => Some(after),
                Effect::Delete => None,
            };
            if let Some(index) = unique.get_mut(name)
                && let Err(error) = index.replace(before.as_ref(), after.as_ref())
            {
                return Ok(BatchOutcome::Refused(versions.len(), error));
            }
            match &after {
                Some(after) => folder.note_put(&mut journal, after)?,
                None => folder.note_removal(&mut journal, &key.1),
            }
            versions.push(version);
            now.insert(key, after);
        }
        journal.commit(&RealDisk, &self.path).map_err(|error| self.failed(&error))?;
        Ok(BatchOutcome::Committed(versions))
    }

    /// Waits for the lock of a collection, whose files are then as a whole write has left them.
    fn lock(&self, folder: &Folder, deadline: Instant) -> Result<File> {
        loop {
            let lock = folder.lock(deadline)?;
            match self.journal()? {
                Some(left) if left.changes(folder.name()) => {}
                _ => return Ok(lock),
            }
            drop(lock);
            self.turn(deadline)?;
        }
    }

    /// Waits for the lock of the root, and completes the journal that a killed process has left.
    fn turn(&self, deadline: Instant) -> Result<File> {
        let turn = lock::wait(lock::open(&self.path), &self.path, deadline)?;
        self.complete_journal(deadline)?;
        Ok(turn)
    }

    /// The caller holds the lock of the root.
    fn complete_journal(&self, deadline: Instant) -> Result<()> {
        let Some(left) = self.journal()? else { return Ok(()) };
        let locks = left.collections().map(|name| lock::collection(&self.path, name, deadline));
        let _locks = locks.collect::<Result<Vec<File>>>()?;
        left.complete(&RealDisk, &self.path).map_err(|error| self.failed(&error))?;
        tracing::warn!(target: "server", "a write of several files that a killed process had begun was completed");
        Ok(())
    }

    fn journal(&self) -> Result<Option<Journal>> {
        let path = self.path.join(JOURNAL);
        Journal::read(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(path.display(), error),
            _ => self.failed(&error),
        })
    }

    fn failed(&self, cause: &io::Error) -> Error {
        Error::unavailable(format!("{}: {cause}", self.path.display()))
    }
}

//! One collection as a folder of files: their names, reads and writes. All of it blocks the thread.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::query::Filter;
use super::super::write::{Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Fields, damaged};
use super::disk::{self, RealDisk};
use crate::error::{Error, Result};
use crate::json;

/// The file that the writers of all processes lock.
const LOCK: &str = ".lock";
/// The extension of every document's file.
const SUFFIX: &str = ".json";
/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(5);

/// The content of a file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    id: Cow<'a, str>,
    version: u64,
    body: Cow<'a, Fields>,
}

/// Creates the root folder of a store, and removes what killed writers have left in its collections.
pub(super) fn prepare_root(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for entry in fs::read_dir(root)? {
        let folder = entry?.path();
        // A folder without a lock file is not a collection; one whose lock is held has an active writer.
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            disk::remove_leftovers(&folder)?;
        }
    }
    Ok(())
}

/// The file name of a document: its id if that is a safe file name, else `~` and a hash of the id.
///
/// Safe is `[a-z0-9_-]{1,64}`: no separator, no dot, one letter case and one Unicode form. So two ids never share a
/// file, also on file systems that ignore case or normalise names. No safe id begins with `~`.
fn file_name(id: &str) -> String {
    let safe = (1..=64).contains(&id.len())
        && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if safe {
        return format!("{id}{SUFFIX}");
    }
    let mut name = String::from("~");
    for byte in Sha256::digest(id.as_bytes()) {
        // A write to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + SUFFIX
}

/// The folder of one collection.
pub(super) struct Folder {
    root: PathBuf,
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(root: &Path, collection: &Collection) -> Self {
        Self { root: root.to_owned(), path: root.join(collection.name()) }
    }

    /// The document of this id.
    pub(super) fn load(&self, id: &str) -> Result<Option<Document>> {
        self.read(&file_name(id))
    }

    /// The documents that match, in the order of their ids.
    pub(super) fn scan(&self, filter: &Filter) -> Result<Vec<Document>> {
        let names = match filter.ids() {
            Some(ids) => ids.iter().map(|id| file_name(id)).collect(),
            None => self.names()?,
        };
        let mut found = Vec::new();
        for name in names {
            // `None` when it was deleted after the folder was listed.
            found.extend(self.read(&name)?.filter(|document| filter.matches(document)));
        }
        found.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        found.dedup_by(|left, right| left.id == right.id);
        Ok(found)
    }

    /// Performs a write while no other writer can.
    pub(super) fn write(&self, write: Write, deadline: Instant) -> Result<WriteOutcome> {
        let _lock = self.lock(deadline)?;
        match write {
            Write::Insert(new) => {
                let new: Vec<Document> =
                    new.into_iter().map(|(id, fields)| Document::first_version(id, fields)).collect();
                self.insert(&new)?;
                Ok(WriteOutcome::counted(new.len()))
            }
            Write::Change { filter, expected, change } => {
                let Some(before) = self.scan(&filter)?.into_iter().next() else {
                    return Ok(WriteOutcome::default());
                };
                if let Some(after) = change.apply(&before, &expected)? {
                    self.put(std::slice::from_ref(&after))?;
                    Ok(WriteOutcome::of(after, false))
                } else {
                    self.remove(std::slice::from_ref(&before))?;
                    Ok(WriteOutcome::of(before, false))
                }
            }
            Write::Upsert { filter, id, fields } => {
                if let Some(before) = self.scan(&filter)?.into_iter().next() {
                    let after = before.next_version(fields);
                    self.put(std::slice::from_ref(&after))?;
                    Ok(WriteOutcome::of(after, false))
                } else {
                    let new = Document::first_version(id, fields);
                    self.insert(std::slice::from_ref(&new))?;
                    Ok(WriteOutcome::of(new, true))
                }
            }
            Write::DeleteAll(filter) => {
                let matching = self.scan(&filter)?;
                self.remove(&matching)?;
                Ok(WriteOutcome::counted(matching.len()))
            }
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("", &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| self.failed("", &error))?.file_name();
            match name.into_string() {
                Ok(name) if name.ends_with(SUFFIX) && !name.starts_with('.') => names.push(name),
                // The lock, a file not yet complete, files of editors and of macOS, or a person's notes.
                _ => {}
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Option<Document>> {
        let bytes = match fs::read(self.path.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(name, &error)),
        };
        let file = || self.path.join(name).display().to_string();
        // Some editors write a byte order mark.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let record = json::parse(text).map_err(|cause| damaged(file(), cause))?;
        let record: Record<'_> = serde_json::from_value(record).map_err(|cause| damaged(file(), cause))?;
        let expected = file_name(&record.id);
        if expected != name {
            return Err(damaged(
                file(),
                format!("a document with the id {:?} belongs into {expected}", record.id),
            ));
        }
        let (id, fields) = (record.id.into_owned(), Arc::new(record.body.into_owned()));
        Ok(Some(Document { id, version: record.version, fields }))
    }

    fn insert(&self, new: &[Document]) -> Result<()> {
        let mut names: Vec<String> = new.iter().map(|document| file_name(&document.id)).collect();
        for name in &names {
            match self.path.join(name).try_exists() {
                Ok(false) => {}
                Ok(true) => return Err(document_exists()),
                Err(error) => return Err(self.failed(name, &error)),
            }
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(document_exists());
        }
        self.put(new)
    }

    fn put(&self, documents: &[Document]) -> Result<()> {
        let mut files = Vec::with_capacity(documents.len());
        for document in documents {
            let record = Record {
                id: Cow::Borrowed(&document.id),
                version: document.version,
                body: Cow::Borrowed(&document.fields),
            };
            let mut bytes = serde_json::to_vec_pretty(&record).map_err(Error::internal)?;
            bytes.push(b'\n');
            files.push((file_name(&document.id), bytes));
        }
        disk::put(&RealDisk, &self.path, &files).map_err(|error| self.failed("", &error))
    }

    fn remove(&self, documents: &[Document]) -> Result<()> {
        let names: Vec<String> = documents.iter().map(|document| file_name(&document.id)).collect();
        disk::remove(&RealDisk, &self.path, &names).map_err(|error| self.failed("", &error))
    }

    /// Waits for the lock of the folder, and creates the folder if it is missing. Dropping the file ends the lock.
    fn lock(&self, deadline: Instant) -> Result<File> {
        let lock = self.lock_file().map_err(|error| self.failed(LOCK, &error))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(self.failed(LOCK, "another process holds the lock for too long"));
                }
                Err(TryLockError::Error(error)) => return Err(self.failed(LOCK, &error)),
            }
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        match options.open(self.path.join(LOCK)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.path)?;
                // Without this, the new folder could be gone after a power cut.
                disk::sync_folder(&self.root)?;
                options.open(self.path.join(LOCK))
            }
            opened => opened,
        }
    }

    fn failed(&self, name: &str, cause: impl std::fmt::Display) -> Error {
        Error::unavailable(format!("{}: {cause}", self.path.join(name).display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_file_name_is_safe_and_unique() {
        assert_eq!(file_name("0190a-b_c"), "0190a-b_c.json");
        let long = "x".repeat(300);
        let ids =
            ["../x", "a/b", "a\0b", "A", "a", "é", "e\u{301}", ".", "..", ".lock", "~a", "x.json", &long];
        let names: HashSet<String> = ids.iter().map(|id| file_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        for name in names {
            assert!(name.len() <= 70 && !name.starts_with('.'), "{name}");
            assert!(
                name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'~' | b'.')),
                "{name}"
            );
        }
    }
}

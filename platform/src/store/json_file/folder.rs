//! One collection as a folder of files: their names, reads and writes. All of it blocks the thread.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::super::query::Filter;
use super::super::unique::UniqueIndex;
use super::super::write::{Change, Expected, Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Fields, Token, damaged};
use super::damaged::{Damaged, Unread};
use super::disk::RealDisk;
use super::journal::Journal;
use super::lock;
use crate::error::{Error, Result};
use crate::{file_name, json, regular_file};

/// The extension of every document's file.
pub(super) const SUFFIX: &str = ".json";

/// The content of a file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    id: Cow<'a, str>,
    version: u64,
    /// Absent when no guarded write has come.
    #[serde(default, skip_serializing_if = "is_zero")]
    token: u64,
    body: Cow<'a, Fields>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(token: &u64) -> bool {
    *token == 0
}

/// The file name of a document.
fn file_name(id: &str) -> String {
    file_name::safe(id) + SUFFIX
}

/// A folder, a pipe or a circle of links in the place of a file. What the process may not read may be all files: that is no damage.
fn is_of_this_file(error: &std::io::Error) -> bool {
    regular_file::is_refusal(error) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// The folder of one collection.
pub(super) struct Folder {
    root: PathBuf,
    path: PathBuf,
    collection: &'static Collection,
    damaged: Arc<Damaged>,
    /// When reading many files ends.
    deadline: Option<Instant>,
}

impl Folder {
    pub(super) fn new(root: &Path, collection: &'static Collection, damaged: Arc<Damaged>) -> Self {
        Self {
            root: root.to_owned(),
            path: root.join(collection.name()),
            collection,
            damaged,
            deadline: None,
        }
    }

    /// The same folder, for a read whose caller has gone away at this time.
    pub(super) fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    fn check_time(&self) -> Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::unavailable("the time is over")),
            _ => Ok(()),
        }
    }

    /// The name of the collection.
    pub(super) fn name(&self) -> &'static str {
        self.collection.name()
    }

    /// The document of this id.
    pub(super) fn load(&self, id: &str) -> Result<Option<Document>> {
        Ok(self.read(&file_name(id))?)
    }

    /// The documents that match, in the order of their ids, without those whose files are damaged.
    pub(super) fn scan(&self, filter: &Filter) -> Result<Vec<Document>> {
        self.scan_with(filter, |name| self.read_or_leave(name))
    }

    /// The documents that match, for a write. A document that the filter names by its id is not left out.
    fn scan_to_write(&self, filter: &Filter) -> Result<Vec<Document>> {
        match filter.ids() {
            Some(_) => self.scan_with(filter, |name| Ok(self.read(name)?)),
            None => self.scan(filter),
        }
    }

    fn scan_with(
        &self,
        filter: &Filter,
        read: impl Fn(&str) -> Result<Option<Document>>,
    ) -> Result<Vec<Document>> {
        let names = match filter.ids() {
            Some(ids) => ids.iter().map(|id| file_name(id)).collect(),
            None => self.names()?,
        };
        let mut found = Vec::new();
        for name in names {
            self.check_time()?;
            // `None` when it was deleted after the folder was listed.
            found.extend(read(&name)?.filter(|document| filter.matches(document)));
        }
        found.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        found.dedup_by(|left, right| left.id == right.id);
        Ok(found)
    }

    /// Fails when a file is damaged.
    pub(super) fn check_readable(&self) -> Result<()> {
        self.names()?.iter().try_for_each(|name| {
            self.check_time()?;
            Ok(self.read(name).map(drop)?)
        })
    }

    /// Fails when two documents have the same value at a unique path. The caller holds the lock: without it, a value that
    /// moves from one document to another could be seen in both.
    pub(super) fn check_stored(&self) -> Result<()> {
        let stored = self.scan(&Filter::All)?;
        UniqueIndex::default().declare(self.collection, stored.iter())
    }

    /// The values at the unique paths. It reads all files, unless no path is unique.
    pub(super) fn unique_index(&self) -> Result<UniqueIndex> {
        let mut unique = UniqueIndex::new(self.collection.unique_paths());
        if !unique.is_empty() {
            self.scan(&Filter::All)?.iter().for_each(|stored| unique.add(stored));
        }
        Ok(unique)
    }

    /// `Conflict` when one of these documents, which are about to be written, has the value of another one at a unique
    /// path.
    fn check_unique(&self, new: &[Document]) -> Result<()> {
        // The former version of a document is in the index too: `check` compares with other ids only.
        self.unique_index()?.check(new)
    }

    /// The first documents, by id, that match, `count` at most. An id that is a file name is compared before its file is
    /// read, so a walk in chunks does not read all files for each of them.
    pub(super) fn first(&self, filter: &Filter, count: usize) -> Result<Vec<Document>> {
        let (hashed, mut safe): (Vec<_>, Vec<_>) =
            self.names()?.into_iter().partition(|name| name.starts_with('~'));
        if let Some(after) = filter.after() {
            safe.retain(|name| name.strip_suffix(SUFFIX).is_some_and(|id| id > after));
        }
        safe.sort_unstable_by(|left, right| left.strip_suffix(SUFFIX).cmp(&right.strip_suffix(SUFFIX)));
        let mut found = Vec::new();
        for name in safe {
            if found.len() == count {
                break;
            }
            self.check_time()?;
            found.extend(self.read_or_leave(&name)?.filter(|document| filter.matches(document)));
        }
        for name in hashed {
            self.check_time()?;
            found.extend(self.read_or_leave(&name)?.filter(|document| filter.matches(document)));
        }
        found.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        found.truncate(count);
        Ok(found)
    }

    /// Performs a write. The caller holds the lock, and that of the root where several files may change.
    pub(super) fn write(&self, write: Write, token: Token) -> Result<WriteOutcome> {
        match write {
            Write::Insert(new) => {
                self.insert(&new)?;
                Ok(WriteOutcome::inserted(&new))
            }
            Write::Change { filter, expected: Expected::Any, change: Change::Delete }
                if token.is_none() && self.remove_damaged(&filter)? =>
            {
                Ok(WriteOutcome::counted(1))
            }
            Write::Change { filter, expected, change } => {
                let Some(before) = self.scan_to_write(&filter)?.into_iter().next() else {
                    return Ok(WriteOutcome::default());
                };
                if let Some(after) = change.apply(&before, &expected, token)? {
                    self.check_unique(std::slice::from_ref(&after))?;
                    self.put(std::slice::from_ref(&after))?;
                    Ok(WriteOutcome::of(after, false))
                } else {
                    self.remove(std::slice::from_ref(&before))?;
                    Ok(WriteOutcome::of(before, false))
                }
            }
            Write::Upsert { filter, new } => {
                if let Some(before) = self.scan_to_write(&filter)?.into_iter().next() {
                    let after = before.next_version(new.fields, token)?;
                    self.check_unique(std::slice::from_ref(&after))?;
                    self.put(std::slice::from_ref(&after))?;
                    Ok(WriteOutcome::of(after, false))
                } else {
                    self.insert(std::slice::from_ref(&new))?;
                    Ok(WriteOutcome::of(new, true))
                }
            }
            Write::DeleteAll(filter) => {
                let mut matching = self.scan(&filter)?;
                matching.retain(|document| document.next_token(token).is_ok());
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

    /// Removes the damaged file of the one id that the filter names, if it is that. Neither the id in it nor its version is
    /// compared, so it is for a deletion of any version only. A copy, as `ada (1).json`, is under the name that it has.
    fn remove_damaged(&self, filter: &Filter) -> Result<bool> {
        let Filter::Ids(ids) = filter else { return Ok(false) };
        let [id] = &ids[..] else { return Ok(false) };
        let mut name = file_name(id);
        let literal = format!("{id}{SUFFIX}");
        // Compared with the names in the folder: the system may find a file also by a name in other letters.
        if name != literal && !id.contains('\\') && self.names()?.contains(&literal) {
            name = literal;
        }
        match self.read(&name) {
            Err(Unread::Damaged(_)) => {}
            Err(Unread::Failed(error)) => return Err(error),
            Ok(_) => return Ok(false),
        }
        let mut journal = Journal::default();
        journal.add(self.name(), name.clone(), None);
        self.commit(&journal)?;
        self.damaged.forget(&self.path.join(name));
        Ok(true)
    }

    /// The document of a file; `None`, and a note for the log, when the file is damaged.
    fn read_or_leave(&self, name: &str) -> Result<Option<Document>> {
        let path = self.path.join(name);
        match self.read(name) {
            Err(Unread::Damaged(error)) => {
                self.damaged.note(path, &error);
                Ok(None)
            }
            Err(Unread::Failed(error)) => Err(error),
            Ok(found) => {
                self.damaged.forget(&path);
                Ok(found)
            }
        }
    }

    fn read(&self, name: &str) -> std::result::Result<Option<Document>, Unread> {
        let path = self.path.join(name);
        let damaged = |cause: &dyn std::fmt::Display| Unread::Damaged(damaged(path.display(), cause));
        let bytes = match regular_file::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if is_of_this_file(&error) => return Err(damaged(&error)),
            Err(error) => return Err(Unread::Failed(self.failed(name, &error))),
        };
        // Some editors write a byte order mark.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let record = json::parse(text).map_err(|cause| damaged(&cause))?;
        let record: Record<'_> = serde_json::from_value(record).map_err(|cause| damaged(&cause))?;
        let expected = file_name(&record.id);
        if expected != name {
            return Err(damaged(&format!("a document with the id {:?} belongs into {expected}", record.id)));
        }
        let (id, fields) = (record.id.into_owned(), Arc::new(record.body.into_owned()));
        Ok(Some(Document { id, version: record.version, token: record.token, fields }))
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
        self.check_unique(new)?;
        self.put(new)
    }

    /// Creates or replaces documents. The caller holds the lock, and that of the root for several documents.
    pub(super) fn put(&self, documents: &[Document]) -> Result<()> {
        let mut journal = Journal::default();
        for document in documents {
            self.note_put(&mut journal, document)?;
        }
        self.commit(&journal)
    }

    fn remove(&self, documents: &[Document]) -> Result<()> {
        let mut journal = Journal::default();
        for document in documents {
            self.note_removal(&mut journal, &document.id);
        }
        self.commit(&journal)
    }

    /// Notes in a journal that a document is created or replaced.
    pub(super) fn note_put(&self, journal: &mut Journal, document: &Document) -> Result<()> {
        let record = Record {
            id: Cow::Borrowed(&document.id),
            version: document.version,
            token: document.token,
            body: Cow::Borrowed(&document.fields),
        };
        let text = serde_json::to_string_pretty(&record).map_err(Error::internal)?;
        journal.add(self.name(), file_name(&document.id), Some(text + "\n"));
        Ok(())
    }

    /// Notes in a journal that the document of this id is removed.
    pub(super) fn note_removal(&self, journal: &mut Journal, id: &str) {
        journal.add(self.name(), file_name(id), None);
    }

    fn commit(&self, journal: &Journal) -> Result<()> {
        journal.commit(&RealDisk, &self.root).map_err(|error| self.failed("", &error))
    }

    /// Waits for the lock of the folder, and creates the folder if it is missing.
    pub(super) fn lock(&self, deadline: Instant) -> Result<File> {
        lock::collection(&self.root, self.name(), deadline)
    }

    fn failed(&self, name: &str, cause: impl std::fmt::Display) -> Error {
        Error::unavailable(format!("{}: {cause}", self.path.join(name).display()))
    }
}

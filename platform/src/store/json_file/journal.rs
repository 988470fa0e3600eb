//! The journal: changes of several files that happen all or not at all, also when the process is killed or the power
//! is cut.
//!
//! 1. The journal is written, with the new content of every file. With its name on the disk, the changes are decided.
//! 2. Each file is written or removed.
//! 3. The journal is removed.
//!
//! What ends in between leaves the journal. Steps 2 and 3 can then be done again, by anyone who holds the locks: a file is
//! written as a whole, and one that is gone need not be removed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use crate::regular_file;

/// The name of the journal, in the root folder of the store.
pub(super) const JOURNAL: &str = ".journal";

/// The files that change, by collection and by name, with their new content; `None` when it is removed.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Journal(BTreeMap<String, BTreeMap<String, Option<String>>>);

impl Journal {
    /// The journal that a process has left, or that one uses now.
    pub(super) fn read(root: &Path) -> io::Result<Option<Self>> {
        match regular_file::read(&root.join(JOURNAL)) {
            Ok(bytes) => Self::decode(&bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A journal of these bytes.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let journal: Self = serde_json::from_slice(bytes)?;
        let names = journal.0.iter().flat_map(|(collection, files)| files.keys().chain([collection]));
        for name in names {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
                return Err(io::Error::new(ErrorKind::InvalidData, format!("{name:?} is no name of a file")));
            }
        }
        Ok(journal)
    }

    /// Adds a file that is created, replaced, or with `None` removed.
    pub(super) fn add(&mut self, collection: &str, file: String, content: Option<String>) {
        self.0.entry(collection.to_owned()).or_default().insert(file, content);
    }

    /// The collections whose files change, in the order of their names.
    pub(super) fn collections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether files of this collection change.
    pub(super) fn changes(&self, collection: &str) -> bool {
        self.0.contains_key(collection)
    }

    /// Performs the changes; when this returns, they are on the disk. A single file needs no journal. The caller holds
    /// the locks of the collections, and that of the root where there are several files.
    pub(super) fn commit<D: Disk>(&self, disk: &D, root: &Path) -> io::Result<()> {
        if self.0.values().map(BTreeMap::len).sum::<usize>() < 2 {
            return self.apply(disk, root);
        }
        disk::put(disk, root, &[(JOURNAL.to_owned(), serde_json::to_vec(self)?)])?;
        self.complete(disk, root)
    }

    /// Does what is left to do when the journal is on the disk. The caller holds the same locks.
    pub(super) fn complete<D: Disk>(&self, disk: &D, root: &Path) -> io::Result<()> {
        self.apply(disk, root)?;
        // It must not come back after a later write.
        disk::remove(disk, root, &[JOURNAL.to_owned()])
    }

    fn apply<D: Disk>(&self, disk: &D, root: &Path) -> io::Result<()> {
        for (collection, changed) in &self.0 {
            let folder = root.join(collection);
            let (mut files, mut removed) = (Vec::new(), Vec::new());
            for (name, content) in changed {
                match content {
                    Some(content) => files.push((name.clone(), content.clone().into_bytes())),
                    None => removed.push(name.clone()),
                }
            }
            if !files.is_empty() {
                disk::put(disk, &folder, &files)?;
            }
            disk::remove(disk, &folder, &removed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated_disk::SimulatedDisk;
    use super::*;

    const OLD: [(&str, &str); 3] = [("a/1.json", "old"), ("a/2.json", "old"), ("b/1.json", "old")];
    const NEW: [(&str, &str); 3] = [("a/1.json", "new"), ("b/1.json", "new"), ("b/2.json", "new")];

    /// Replaces two files, removes one and creates one.
    fn journal() -> Journal {
        let mut journal = Journal::default();
        journal.add("b", "1.json".to_owned(), Some("new".to_owned()));
        journal.add("a", "1.json".to_owned(), Some("new".to_owned()));
        journal.add("a", "2.json".to_owned(), None);
        journal.add("b", "2.json".to_owned(), Some("new".to_owned()));
        journal
    }

    fn documents(disk: &SimulatedDisk) -> Vec<(String, String)> {
        let files =
            disk.files().into_iter().filter(|(name, _)| Path::new(name).extension() == Some("json".as_ref()));
        files.map(|(name, content)| (name, String::from_utf8(content).unwrap())).collect()
    }

    /// Does what the next start does. Returns whether the power was not cut again.
    fn recover(disk: &SimulatedDisk) -> Result<bool, String> {
        let Some(bytes) = disk.files().remove(JOURNAL) else { return Ok(true) };
        let left = Journal::decode(&bytes).map_err(|error| format!("the journal is damaged: {error}"))?;
        Ok(left.complete(disk, Path::new("")).is_ok())
    }

    /// Cuts the power after each number of steps, and a second time in each recovery, and returns what is wrong then.
    fn power_cuts(
        new_disk: impl Fn() -> SimulatedDisk,
        commit: impl Fn(&SimulatedDisk) -> io::Result<()>,
    ) -> Result<usize, String> {
        let is = |disk: &SimulatedDisk, expected: &[(&str, &str)]| {
            documents(disk)
                .iter()
                .map(|(name, content)| (name.as_str(), content.as_str()))
                .eq(expected.iter().copied())
        };
        let mut seen = 0;
        for steps in 0..60 {
            let disk = new_disk();
            disk.fill(&OLD);
            disk.cut_after(steps);
            let committed = commit(&disk).is_ok();
            for found in disk.after_power_cut() {
                for again in 0..60 {
                    let disk = found.clone();
                    disk.cut_after(again);
                    let recovered = recover(&disk)?;
                    for after in if recovered { vec![disk] } else { disk.after_power_cut() } {
                        after.cut_after(usize::MAX);
                        recover(&after)?;
                        seen += 1;
                        if !is(&after, &NEW) && (committed || !is(&after, &OLD)) {
                            return Err(format!(
                                "{:?} after {steps} steps and {again} more",
                                documents(&after)
                            ));
                        }
                    }
                    if recovered {
                        break;
                    }
                }
            }
            if committed {
                return Ok(seen);
            }
        }
        Err("it never ends".to_owned())
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_all_files_old_or_all_new() {
        let seen = power_cuts(SimulatedDisk::default, |disk| journal().commit(disk, Path::new(""))).unwrap();
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn without_the_journal_or_without_a_sync_a_power_cut_leaves_some_old_and_some_new() {
        let unsafe_commit = |disk: &SimulatedDisk| journal().apply(disk, Path::new(""));
        power_cuts(SimulatedDisk::default, unsafe_commit).unwrap_err();
        let commit = |disk: &SimulatedDisk| journal().commit(disk, Path::new(""));
        power_cuts(SimulatedDisk::without_file_sync, commit).unwrap_err();
        power_cuts(SimulatedDisk::without_folder_sync, commit).unwrap_err();
    }

    #[test]
    fn a_journal_with_a_name_outside_its_folder_is_refused() {
        for name in ["../x.json", "", ".lock", "a\\b"] {
            let text = serde_json::json!({"items": {name: null}}).to_string();
            assert!(Journal::decode(text.as_bytes()).is_err(), "{name}");
        }
    }
}

//! Files that survive a power cut, by the right order of write, fsync and rename. It knows no documents.
//!
//! Without an fsync of the file before the rename, the file can be empty after a power cut; without an fsync of the
//! folder after it, the rename can be undone. The tests simulate a power cut after every step.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What the name of a file ends with until it is complete.
const UNFINISHED: &str = ".unfinished";

/// The operations on the disk. A trait, so that the tests can simulate a power cut.
pub(super) trait Disk {
    /// Creates or truncates a file, writes it, and syncs its content.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Renames a file, and so replaces the file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Syncs the names in a folder.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The real disk.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }
}

/// Syncs the names in a folder.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unfinished(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{UNFINISHED}"))
}

/// Creates or replaces files. A reader sees the old or the new content of each, never a part; when this returns, all
/// are on the disk. If one cannot be written, none is replaced.
pub(super) fn put<D: Disk>(disk: &D, folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let written = files.iter().try_for_each(|(name, content)| disk.write(&unfinished(folder, name), content));
    if let Err(error) = written {
        for (name, _) in files {
            // `error` is the one to return; the next start removes what is left.
            let _ = disk.remove(&unfinished(folder, name));
        }
        return Err(error);
    }
    for (name, _) in files {
        disk.rename(&unfinished(folder, name), &folder.join(name))?;
    }
    disk.sync_folder(folder)
}

/// Removes files; when this returns, they are gone from the disk.
pub(super) fn remove<D: Disk>(disk: &D, folder: &Path, names: &[String]) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    for name in names {
        match disk.remove(&folder.join(name)) {
            // A person has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    disk.sync_folder(folder)
}

/// Removes the files that were never completed. No writer may be active.
pub(super) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(UNFINISHED)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// A disk that loses what was not synced when the power is cut.
    #[derive(Default)]
    struct SimulatedDisk {
        state: RefCell<State>,
        /// The two wrong variants: the controls.
        skips_file_sync: bool,
        skips_folder_sync: bool,
    }

    #[derive(Default)]
    struct State {
        /// The content of each file, and whether it is on the disk.
        files: Vec<(Vec<u8>, bool)>,
        /// Names as programs see them, and as they are on the disk.
        names: BTreeMap<PathBuf, usize>,
        names_on_disk: BTreeMap<PathBuf, usize>,
        /// Steps before the power cut.
        steps_left: usize,
    }

    impl SimulatedDisk {
        fn step(&self) -> io::Result<std::cell::RefMut<'_, State>> {
            let mut state = self.state.borrow_mut();
            state.steps_left =
                state.steps_left.checked_sub(1).ok_or_else(|| io::Error::other("power cut"))?;
            Ok(state)
        }

        /// What a start after the power cut may find: at least, and at most.
        fn found(&self, name: &str) -> [Option<Vec<u8>>; 2] {
            let state = self.state.borrow();
            [&state.names_on_disk, &state.names].map(|names| {
                let (content, synced) = &state.files[*names.get(Path::new(name))?];
                Some(if *synced { content.clone() } else { Vec::new() })
            })
        }
    }

    impl Disk for SimulatedDisk {
        fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
            let mut state = self.step()?;
            state.files.push((content.to_vec(), false));
            let file = state.files.len() - 1;
            state.names.insert(path.to_owned(), file);
            drop(state);
            if !self.skips_file_sync {
                self.step()?.files[file].1 = true;
            }
            Ok(())
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            let mut state = self.step()?;
            let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), file);
            Ok(())
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step()?.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn sync_folder(&self, _: &Path) -> io::Result<()> {
            if !self.skips_folder_sync {
                let mut state = self.step()?;
                state.names_on_disk = state.names.clone();
            }
            Ok(())
        }
    }

    /// Replaces `old` by `new`, cuts the power after each number of steps, and returns what is wrong then.
    fn power_cuts(skips_file_sync: bool, skips_folder_sync: bool) -> Result<(), String> {
        let (old, new) = (b"old".to_vec(), b"new".to_vec());
        for steps in 0..10 {
            let disk = SimulatedDisk { skips_file_sync, skips_folder_sync, ..SimulatedDisk::default() };
            let file = Path::new("a.json").to_owned();
            let names = BTreeMap::from([(file, 0)]);
            *disk.state.borrow_mut() = State {
                files: vec![(old.clone(), true)],
                names: names.clone(),
                names_on_disk: names,
                steps_left: steps,
            };
            let returned_ok = put(&disk, Path::new(""), &[("a.json".to_owned(), new.clone())]).is_ok();
            for found in disk.found("a.json") {
                let Some(found) = found else { return Err(format!("gone after {steps} steps")) };
                if found != new && (returned_ok || found != old) {
                    return Err(format!("{found:?} after {steps} steps, returned ok: {returned_ok}"));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_power_cut_leaves_the_old_file_or_the_new_one() {
        power_cuts(false, false).unwrap();
    }

    #[test]
    fn without_either_sync_a_power_cut_loses_a_file() {
        assert!(power_cuts(true, false).unwrap_err().starts_with("[] after"));
        assert!(power_cuts(false, true).unwrap_err().contains("returned ok: true"));
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("a.json".to_owned(), vec![1]), ("no/such/folder".to_owned(), vec![2])];
        put(&RealDisk, folder.path(), &files).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

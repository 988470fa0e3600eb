//! Files that are there after a power cut: the order of write, fsync and rename. It knows no documents.
//!
//! A file that is renamed before its content is on the disk can come back empty, and a rename without an fsync
//! of the folder can come back undone; the tests cut the power after every step.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a file is called until it is whole.
const UNFINISHED: &str = ".unfinished";

/// The steps; a seam for the tests.
pub(super) trait Disk {
    /// Makes or empties a file, writes it, and brings its content to the disk.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Gives a file another name, in place of the file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Brings the names in a folder to the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The disk of this machine.
pub(super) struct OwnDisk;

impl Disk for OwnDisk {
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

/// Brings the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unfinished(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{UNFINISHED}"))
}

/// Makes or replaces files. Each is seen as it was or as it becomes, never in between; when this returns, they
/// are on the disk. When a new file cannot be written, none of the new ones stays.
pub(super) fn put<D: Disk>(disk: &D, folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let written = files.iter().try_for_each(|(name, content)| disk.write(&unfinished(folder, name), content));
    if let Err(error) = written {
        for (name, _) in files {
            // The error above is the one that counts; the next start removes what stays.
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
            // Somebody has removed it by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    disk.sync_folder(folder)
}

/// Removes the files that were never finished. No writer may be at work.
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

    /// A disk that forgets what was not synced when the power is cut.
    #[derive(Default)]
    struct Simulated {
        state: RefCell<State>,
        /// The known-bad variants.
        skips_file_sync: bool,
        skips_folder_sync: bool,
    }

    #[derive(Default)]
    struct State {
        /// What each file holds, and whether that is on the disk.
        files: Vec<(Vec<u8>, bool)>,
        /// Names as programs see them, and as they are on the disk.
        names: BTreeMap<PathBuf, usize>,
        names_on_disk: BTreeMap<PathBuf, usize>,
        /// Steps until the power is cut.
        steps_left: usize,
    }

    impl Simulated {
        fn step(&self) -> io::Result<std::cell::RefMut<'_, State>> {
            let mut state = self.state.borrow_mut();
            state.steps_left =
                state.steps_left.checked_sub(1).ok_or_else(|| io::Error::other("power cut"))?;
            Ok(state)
        }

        /// What may be found after the power cut: the least, and the most that the disk may have kept.
        fn found(&self, name: &str) -> [Option<Vec<u8>>; 2] {
            let state = self.state.borrow();
            [&state.names_on_disk, &state.names].map(|names| {
                let (content, synced) = &state.files[*names.get(Path::new(name))?];
                Some(if *synced { content.clone() } else { Vec::new() })
            })
        }
    }

    impl Disk for Simulated {
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

    /// Replaces `old` by `new`, cuts the power after each number of steps, and says what went wrong.
    fn power_cuts(skips_file_sync: bool, skips_folder_sync: bool) -> Result<(), String> {
        let (old, new) = (b"old".to_vec(), b"new".to_vec());
        for steps in 0..10 {
            let disk = Simulated { skips_file_sync, skips_folder_sync, ..Simulated::default() };
            let file = Path::new("a.json").to_owned();
            let names = BTreeMap::from([(file, 0)]);
            *disk.state.borrow_mut() = State {
                files: vec![(old.clone(), true)],
                names: names.clone(),
                names_on_disk: names,
                steps_left: steps,
            };
            let answered = put(&disk, Path::new(""), &[("a.json".to_owned(), new.clone())]).is_ok();
            for found in disk.found("a.json") {
                let Some(found) = found else { return Err(format!("gone after {steps} steps")) };
                if found != new && (answered || found != old) {
                    return Err(format!("{found:?} after {steps} steps, answered: {answered}"));
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
        assert!(power_cuts(false, true).unwrap_err().contains("answered: true"));
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("a.json".to_owned(), vec![1]), ("no/such/folder".to_owned(), vec![2])];
        put(&OwnDisk, folder.path(), &files).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

//! Files that survive a power cut, by the right order of write, fsync and rename. It knows no documents.
//!
//! Without an fsync of the file before the rename, the file can be empty after a power cut; without an fsync of the
//! folder after it, the rename can be undone. The tests simulate a power cut after every step.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{new_file, regular_file};

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
        let mut file = regular_file::open(new_file::options().write(true).create(true).truncate(true), path)?;
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
    use super::super::simulated_disk::SimulatedDisk;
    use super::*;

    /// Replaces a file, cuts the power after each number of steps, and returns what is wrong then.
    fn power_cuts(new_disk: fn() -> SimulatedDisk) -> Result<(), String> {
        for steps in 0..10 {
            let disk = new_disk();
            disk.fill(&[("a.json", "old")]);
            disk.cut_after(steps);
            let returned_ok = put(&disk, Path::new(""), &[("a.json".to_owned(), b"new".to_vec())]).is_ok();
            for found in disk.after_power_cut() {
                let Some(found) = found.files().remove("a.json") else {
                    return Err(format!("gone after {steps} steps"));
                };
                if found != b"new" && (returned_ok || found != b"old") {
                    return Err(format!("{found:?} after {steps} steps, returned ok: {returned_ok}"));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_power_cut_leaves_the_old_file_or_the_new_one() {
        power_cuts(SimulatedDisk::default).unwrap();
    }

    #[test]
    fn without_either_sync_a_power_cut_loses_a_file() {
        assert!(power_cuts(SimulatedDisk::without_file_sync).unwrap_err().starts_with("[] after"));
        assert!(power_cuts(SimulatedDisk::without_folder_sync).unwrap_err().contains("returned ok: true"));
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("a.json".to_owned(), vec![1]), ("no/such/folder".to_owned(), vec![2])];
        put(&RealDisk, folder.path(), &files).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

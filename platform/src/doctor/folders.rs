//! The folders that the server writes to: whether it can, and how much room there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::logging::LogFile;

/// Less free space than this is a failure: SQLite copies its write-ahead log, some MB, before it can shrink it, and a full
/// disk loses log lines.
const LEAST_SPACE: u64 = 64 << 20;

/// The nearest folder above a path that exists, or whatever else is there in its place.
pub(super) fn existing(path: &Path) -> &Path {
    let here = Path::new(".");
    let mut above = path.ancestors().map(|one| if one.as_os_str().is_empty() { here } else { one });
    above.find(|one| one.exists()).unwrap_or(here)
}

/// The folder in which a file is.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a file in the folder, writes to it, and deletes it.
pub(super) fn try_to_write(folder: &Path) -> io::Result<()> {
    with_file(folder, |file| file.write_all(b"doctor"))
}

/// Runs `use_it` on a new file in the folder, which is deleted then.
pub(super) fn with_file<T>(folder: &Path, use_it: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(format!(".doctor-{}", super::unique()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let result = use_it(&mut file);
    fs::remove_file(path)?;
    result
}

/// The folders of the documents, of the locks and of the log, as far as they are on this machine.
pub(super) fn used<A>(config: &Config<A>) -> Vec<PathBuf> {
    let store = config.store.url.path();
    let locks = (!config.lock.server).then(|| config.lock.dir.clone());
    let log = config.logging.file.enabled.then(|| config.logging.file.path.clone());
    let mut folders: Vec<PathBuf> = Vec::new();
    for path in [store, locks, log].into_iter().flatten() {
        let path = existing(&path);
        let folder = if path.is_dir() { path } else { folder_of(path) };
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders
}

/// Whether the log file, or a new one in its folder, can be written.
pub(super) fn log(settings: &LogFile) -> Finding {
    const SUBJECT: &str = "log file";
    if !settings.enabled {
        return Finding::ok(SUBJECT, "off (logging.file.enabled)");
    }
    let path = &settings.path;
    // A rotation makes another file in the folder.
    let folder = existing(folder_of(path));
    let outcome = try_to_write(folder).map_err(|error| format!("{}: {error}", folder.display()));
    let outcome = outcome.and_then(|()| {
        if !path.exists() {
            return Ok(());
        }
        let opened = OpenOptions::new().append(true).open(path);
        opened.map(drop).map_err(|error| format!("{}: {error}", path.display()))
    });
    match outcome {
        Ok(()) => Finding::ok(SUBJECT, format!("{} can be written", path.display())),
        Err(error) => Finding::failed(
            SUBJECT,
            format!("cannot write {}: {error}", path.display()),
            "let the user of the server write there, set logging.file.path, or logging.file.enabled: false",
        ),
    }
}

/// How much room the file systems of these folders have, for whom is not root.
pub(super) fn disk_space(folders: &[PathBuf]) -> Finding {
    const SUBJECT: &str = "disk space";
    let mut least: Option<(u64, &Path)> = None;
    for folder in folders {
        let space = match rustix::fs::statvfs(folder) {
            // A file system without a size, of the kernel for example.
            Ok(found) if found.f_blocks == 0 => continue,
            // Some have no bound on the number of files, and say 0.
            Ok(found) if found.f_files > 0 && found.f_favail == 0 => 0,
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => {
                let text = format!("{}: {error}", folder.display());
                return Finding::failed(SUBJECT, text, "mount it, or choose another folder");
            }
        };
        if least.is_none_or(|(other, _)| space < other) {
            least = Some((space, folder));
        }
    }
    let Some((space, folder)) = least else {
        return Finding::ok(SUBJECT, "nothing is written on this machine");
    };
    let text = format!("{} MiB are free for {}", space >> 20, folder.display());
    if space < LEAST_SPACE {
        let remedy = "delete what is not needed, give it a larger disk, or choose folders on another one";
        return Finding::failed(SUBJECT, text, remedy);
    }
    Finding::ok(SUBJECT, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_folder_that_exists_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing(&folder.path().join("a/b/c")), folder.path());
        assert_eq!(existing(Path::new("no-such-folder/a")), Path::new("."));
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(existing(&folder.path().join("a/b")), folder.path().join("a"));
    }

    #[test]
    fn what_was_written_is_deleted_and_a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        try_to_write(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        try_to_write(&file).unwrap_err();
    }
}

//! The files of the database, and the check that their paths still name them.
//!
//! A deleted file stays open: writes to it succeed and are lost when the process ends. That holds for the file, and for its
//! `-wal`, which has the latest commits. Without its `-shm`, another process would write at the same time. So the writer
//! checks the three paths before each transaction: three system calls, where the transaction itself needs an fsync.
//! SQLite deletes none of them while a connection is open.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use crate::error::{Error, Result};
use crate::new_file;

/// What SQLite appends to the name of the file: its log, and the memory that processes share.
const WAL: &str = "-wal";
const SHARED_MEMORY: &str = "-shm";

/// A path, and the identities of the files that belonged to it when the store was opened.
#[derive(Clone)]
pub(super) struct DatabaseFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: FileId,
    beside: [(&'static str, PathBuf, FileId); 2],
}

impl DatabaseFile {
    /// The files that the path names now. A connection has to be open, and to have read.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let file = FileId::of(&path)?;
        let real = path.canonicalize()?;
        let beside = |suffix| -> io::Result<_> {
            let path = with_suffix(&real, suffix);
            let file = FileId::of(&path)?;
            Ok((suffix, path, file))
        };
        let beside = [beside(WAL)?, beside(SHARED_MEMORY)?];
        Ok(Self(Arc::new(Inner { path, file, beside })))
    }

    /// The size of the log.
    pub(super) fn wal_size(&self) -> u64 {
        let [(_, wal, _), _] = &self.0.beside;
        wal.metadata().map_or(0, |found| found.len())
    }

    /// `Unavailable` when one of the paths names another file now, or none.
    pub(super) fn check(&self) -> Result<()> {
        match FileId::of(&self.0.path) {
            Ok(file) if file == self.0.file => {}
            Ok(_) => {
                let why = "its path names another file now; restart the server to use that one";
                return Err(Error::unavailable(why));
            }
            Err(error) => {
                let why = format!("it was deleted ({error}); it can be read until the server stops");
                return Err(Error::unavailable(why));
            }
        }
        for (suffix, path, opened) in &self.0.beside {
            let why = match FileId::of(path) {
                Ok(file) if file == *opened => continue,
                Ok(_) => "was replaced".to_owned(),
                Err(error) => format!("was deleted ({error})"),
            };
            return Err(Error::unavailable(format!(
                "its {suffix} {why}; stop the server with SIGTERM, not SIGKILL: so what was acknowledged is written to \
                 the file itself"
            )));
        }
        Ok(())
    }
}

/// The name of the file in messages.
impl fmt::Display for DatabaseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store file {}", self.0.path.display())
    }
}

/// Creates the file and its folder if they are missing: SQLite would create one that everybody may read. Fails, with what
/// is wrong, when this user may not write one of the files, or not make those that are missing. SQLite would open them for
/// reading, and fail at the first write. It opens no file that is there, since closing one drops all locks of the process
/// on it (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).
pub(super) fn make_ready(path: &Path) -> std::result::Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    let in_folder =
        |what: &str, error: &io::Error| format!("{what} the folder {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(|error| in_folder("cannot make", &error))?;
    let created = match new_file::options().write(true).create_new(true).open(path) {
        // A link to a file that is missing.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.exists() => {
            new_file::options().write(true).create(true).truncate(false).open(path)
        }
        created => created,
    };
    match created {
        Ok(_) => tracing::info!(target: "server", store = %absolute(path), "a new store was created"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(in_folder("cannot write to", &error)),
    }
    if path.is_dir() {
        return Err("it is a folder".to_owned());
    }
    // To open a pipe waits for its other end.
    if !path.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut all_there = true;
    for path in [real.clone(), with_suffix(&real, WAL), with_suffix(&real, SHARED_MEMORY)] {
        match access(&path, Access::WRITE_OK) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => all_there = false,
            Err(error) => return Err(cannot_write(&path, error.into())),
        }
    }
    let folder = real.parent().unwrap_or(folder);
    if !all_there {
        access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
            let error = io::Error::from(error);
            format!(
                "cannot write to the folder {}, where SQLite makes two more files: {error}",
                folder.display()
            )
        })?;
    }
    Ok(())
}

/// Says whose the file is: often it was left by a start as root.
fn cannot_write(path: &Path, error: io::Error) -> String {
    let owner = path.metadata().map_or_else(
        |_| String::new(),
        |found| format!("; it belongs to user {}: give it to the user of the server (chown)", found.uid()),
    );
    format!("cannot write {}: {error}{owner}", path.display())
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The identity of a file, whatever its name: its device and its inode.
#[derive(PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self(found.dev(), found.ino()))
    }
}

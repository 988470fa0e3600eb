//! The database file, and the check that its path still names it.
//!
//! A deleted file stays open: writes to it succeed and are lost when the process ends. So the writer checks the path
//! before each transaction. That is one system call, where the transaction itself needs an fsync.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A path, and the identity of the file that it named when the store was opened.
#[derive(Clone)]
pub(super) struct DatabaseFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: FileId,
}

impl DatabaseFile {
    /// The file that the path names now.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let file = FileId::of(&path)?;
        Ok(Self(Arc::new(Inner { path, file })))
    }

    /// `Unavailable` when the path names another file now, or none.
    pub(super) fn check(&self) -> Result<()> {
        match FileId::of(&self.0.path) {
            Ok(file) if file == self.0.file => Ok(()),
            Ok(_) => {
                Err(Error::unavailable("its path names another file now; restart the server to use that one"))
            }
            Err(error) => Err(Error::unavailable(format!(
                "it was deleted ({error}); it can be read until the server stops"
            ))),
        }
    }
}

/// The name of the file in messages.
impl fmt::Display for DatabaseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store file {}", self.0.path.display())
    }
}

/// The identity of a file, whatever its name.
#[derive(PartialEq, Eq)]
struct FileId {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    fn of(path: &std::path::Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    /// On other systems, an open file cannot be deleted.
    #[cfg(not(unix))]
    fn of(path: &std::path::Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|_| Self {})
    }
}

//! The file behind the store, and whether its path still names it.
//!
//! A file that is deleted stays open: writes go on, are acknowledged, and end with the process. So the writer looks
//! before each transaction, which is one call of the kernel beside an fsync.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A path, and the file that it named at the start.
#[derive(Clone)]
pub(super) struct Place(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: FileId,
}

impl Place {
    /// The file that is there now.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let file = FileId::of(&path)?;
        Ok(Self(Arc::new(Inner { path, file })))
    }

    /// Refuses when the path names another file by now, or none.
    pub(super) fn check(&self) -> Result<()> {
        match FileId::of(&self.0.path) {
            Ok(file) if file == self.0.file => Ok(()),
            Ok(_) => {
                Err(Error::unavailable("another file is in its place; start the server again to use it"))
            }
            Err(error) => {
                Err(Error::unavailable(format!("it is gone ({error}); what was in it can still be read")))
            }
        }
    }
}

/// As messages call it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store file {}", self.0.path.display())
    }
}

/// What tells a file from another one of the same name.
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

    /// Elsewhere a file that is open cannot be deleted.
    #[cfg(not(unix))]
    fn of(path: &std::path::Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|_| Self {})
    }
}

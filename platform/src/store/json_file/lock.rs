//! The locks that the writers of all processes take: a file `.lock` in the folder of each collection, and one in the root
//! folder of the store. All of it blocks the thread.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::disk;
use crate::error::{Error, Result};
use crate::{new_file, regular_file};

/// The name of the file that is locked.
pub(super) const LOCK: &str = ".lock";
/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(5);

/// Waits for the lock of a collection, and creates its folder if it is missing.
pub(super) fn collection(root: &Path, name: &str, deadline: Instant) -> Result<File> {
    let folder = root.join(name);
    let file = match open(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folder(root, &folder).and_then(|()| open(&folder))
        }
        opened => opened,
    };
    wait(file, &folder, deadline)
}

/// Opens the file that is locked for a folder.
pub(super) fn open(folder: &Path) -> io::Result<File> {
    regular_file::open(new_file::options().create(true).truncate(false).write(true), &folder.join(LOCK))
}

/// Creates the folder of a collection. Not the root, which was there at the start: where it is gone, with its disk for
/// example, a new and empty store would hide that.
fn create_folder(root: &Path, folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    // Without this, the new folder could be gone after a power cut.
    disk::sync_folder(root)
}

/// Waits for the lock of a folder. Dropping the file ends the lock.
pub(super) fn wait(file: io::Result<File>, folder: &Path, deadline: Instant) -> Result<File> {
    let failed = |cause: &dyn std::fmt::Display| {
        Error::unavailable(format!("{}: {cause}", folder.join(LOCK).display()))
    };
    let file = file.map_err(|error| failed(&error))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                return Err(failed(&"another process holds the lock for too long"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
}

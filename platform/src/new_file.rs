//! How the files are created that the server writes: documents, locks, log lines. They are not for every user of the machine.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;

/// The owner reads and writes, the group reads; less where the umask says so.
pub const MODE: u32 = 0o640;

/// Options that create a file with this mode.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(MODE);
    options
}

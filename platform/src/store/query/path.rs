//! Which texts are paths. Those of an index are checked at compile time, all others before an engine is called.

use crate::error::{Error, Result};

/// The most bytes of a path: enough for any name that people write.
pub const MAX_PATH: usize = 256;

/// Whether a text is a path. `const`, so that an index is checked at compile time.
pub(in super::super) const fn is_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PATH {
        return false;
    }
    let (mut at, mut begins) = (0, true);
    while at < bytes.len() {
        match bytes[at] {
            b'.' | b'$' if begins => return false,
            b'"' | b'\\' | 0..=0x1f | 0x7f => return false,
            byte => begins = byte == b'.',
        }
        at += 1;
    }
    !begins
}

/// `BadRequest` when a text is not a path.
pub(in super::super) fn check_path(path: &str) -> Result<()> {
    if is_path(path) { Ok(()) } else { Err(Error::bad_request("Invalid Field Path")) }
}

/// `BadRequest` when one of these paths contains another.
pub(in super::super) fn check_disjoint<'a>(paths: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut paths: Vec<Vec<&str>> = paths.map(|path| path.split('.').collect()).collect();
    // Sorted by segments, a path comes directly before the paths that it contains.
    paths.sort();
    if paths.windows(2).any(|pair| pair[1].starts_with(&pair[0])) {
        Err(Error::bad_request("Overlapping Field Paths"))
    } else {
        Ok(())
    }
}

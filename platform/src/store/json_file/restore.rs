//! What a copy between stores needs of a folder.

use std::fs;
use std::io;
use std::path::Path;

use super::folder::SUFFIX;
use super::lock::LOCK;

/// The names of the folders with a lock or with documents.
pub(super) fn folders(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() && is_collection(&entry.path())? {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_collection(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name == LOCK || name.ends_with(SUFFIX)) {
            return Ok(true);
        }
    }
    Ok(false)
}

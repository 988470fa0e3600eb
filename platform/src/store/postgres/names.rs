//! The SQL names of a collection: its table, its primary key, and the hash in the name of an index.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::super::Collection;

/// The table of a collection, as an SQL name.
pub(super) fn table(collection: &Collection) -> String {
    format!("\"{}\"", collection.name())
}

/// The constraint that a second document of an id would break.
pub(super) fn primary_key(collection: &Collection) -> String {
    format!("{}_pkey", collection.name())
}

/// The hash of a definition, as 16 hexadecimal digits.
pub(super) fn hash(definition: &str) -> String {
    let mut hash = String::new();
    for byte in Sha256::digest(definition).iter().take(8) {
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

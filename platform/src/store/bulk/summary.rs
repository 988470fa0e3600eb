//! The number and the hash of the documents of a collection: two stores that have the same of both hold the same.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::super::{Collection, Document, DocumentStore};
use super::progress::{Progress, Watch};
use super::walk::Walk;
use crate::error::{Error, Result};

/// What a collection holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many documents.
    pub count: u64,
    /// SHA-256 over ids, versions, fencing tokens and fields in the order of the ids, in hexadecimal digits.
    pub hash: String,
}

impl Summary {
    /// Reads all documents of a collection.
    pub(super) async fn of(
        store: &dyn DocumentStore,
        collection: &'static Collection,
        progress: &Progress,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let mut walk = Walk::new(store, collection);
        let (mut hash, mut count) = (Sha256::new(), 0);
        loop {
            let chunk = walk.next_chunk().await?;
            if chunk.is_empty() {
                break;
            }
            for document in &chunk {
                update(&mut hash, document)?;
            }
            count += chunk.len() as u64;
            watch.at(&Progress { done: count, ..progress.clone() });
        }
        let mut digits = String::new();
        for byte in hash.finalize() {
            // A write to a String cannot fail.
            let _ = write!(digits, "{byte:02x}");
        }
        Ok(Self { count, hash: digits })
    }
}

/// All that a document consists of: a new field has to be added here.
fn update(hash: &mut Sha256, document: &Document) -> Result<()> {
    let Document { id, version, token, fields } = document;
    // The text of the fields has their order, and tells -0.0 from 0 and 1 from 1.0.
    let fields = serde_json::to_vec(&**fields).map_err(Error::internal)?;
    for part in [id.as_bytes(), &version.to_be_bytes(), &token.to_be_bytes(), &fields] {
        // With its length, so that no text moves from one part into the next.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Ok(())
}

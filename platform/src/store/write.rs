//! The writes of a store, and what a change does to one document. It knows no engine.

use std::error::Error as StdError;
use std::sync::Arc;

use super::document::{Document, Token};
use super::fields::Fields;
use super::patch::Patch;
use super::query::Filter;
use crate::error::{Error, Kind, Result};

/// One atomic write. A write that stores fields fails with `Conflict`, reason `Value Exists`, when another document has
/// the same value at a unique path; an id that exists goes first.
#[derive(Clone, Debug)]
pub enum Write {
    /// Creates all of these documents, or none: `Conflict` when an id exists, or is there twice.
    Insert(Vec<Document>),
    /// Changes the first document, by id, that matches. `Conflict` when it has not the expected version.
    Change {
        /// Which documents match.
        filter: Filter,
        /// The version that the document must have.
        expected: Expected,
        /// How it changes.
        change: Change,
    },
    /// Replaces the fields of the first document, by id, that matches. When none does, creates this one: `Conflict` when its
    /// id exists.
    Upsert {
        /// Which documents match.
        filter: Filter,
        /// The new document.
        new: Document,
    },
    /// Deletes all documents that match.
    DeleteAll(Filter),
}

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOutcome {
    /// How many documents were created, changed or deleted.
    pub count: u64,
    /// After the insert of one, a change or an upsert: the document as it is now, or a deleted one as it was before.
    pub document: Option<Document>,
    /// After an upsert: whether the document is new.
    pub created: bool,
}

impl WriteOutcome {
    pub(super) fn counted(count: usize) -> Self {
        Self { count: count as u64, ..Self::default() }
    }

    pub(super) fn inserted(new: &[Document]) -> Self {
        let document = if let [one] = new { Some(one.clone()) } else { None };
        Self { count: new.len() as u64, document, created: false }
    }

    pub(super) fn of(document: Document, created: bool) -> Self {
        Self { count: 1, document: Some(document), created }
    }
}

/// The reason of a write that expects another version.
pub(super) const VERSION_CONFLICT: &str = "Version Conflict";

/// The version that a document must have to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any version.
    Any,
    /// This version; else the write fails with `Conflict`, reason `Version Conflict`.
    Version(u64),
    /// One of these versions; else it fails in the same way.
    OneOf(Vec<u64>),
}

impl Expected {
    /// `Conflict` when a document of this version must not be written.
    pub(crate) fn check(&self, version: u64) -> Result<()> {
        let met = match self {
            Self::Any => true,
            Self::Version(expected) => *expected == version,
            Self::OneOf(expected) => expected.contains(&version),
        };
        if met { Ok(()) } else { Err(Error::conflict(VERSION_CONFLICT)) }
    }
}

/// How a document changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// All fields are replaced.
    Replace(Arc<Fields>),
    /// Some fields are changed.
    Merge(Patch),
    /// It is deleted.
    Delete,
}

impl Change {
    /// The document after the change, one version up; `None` when it is deleted.
    pub(super) fn apply(
        self,
        document: &Document,
        expected: &Expected,
        token: Token,
    ) -> Result<Option<Document>> {
        // First: who has lost a lock must learn that, whatever the version is.
        document.next_token(token)?;
        expected.check(document.version)?;
        let fields = match self {
            Self::Delete => return Ok(None),
            Self::Replace(fields) => fields,
            Self::Merge(patch) => Arc::new(patch.apply(&document.fields)?),
        };
        document.next_version(fields, token).map(Some)
    }
}

/// The error of an insert or upsert whose id exists.
pub(super) fn document_exists() -> Error {
    Error::conflict("Document Exists")
}

/// The error of a write that has begun, and of which nobody knows how it ends. It has no `Retry-After`: to repeat it may write
/// twice.
#[track_caller]
pub(super) fn outcome_unknown(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::new(Kind::Unavailable)
        .with_source(cause)
        .with_message("It is not known whether this was carried out.")
}

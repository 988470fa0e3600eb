//! The steps of a batch, and what each does to its document. It knows no engine.

use super::Collection;
use super::document::{Document, Token};
use super::query::Filter;
use super::write::{Change, Expected, Write, document_exists};
use crate::error::{Error, Result};

/// One step of a batch: what it does with the document of one id.
#[derive(Clone, Debug)]
pub struct Step {
    /// The collection of the document.
    pub collection: &'static Collection,
    /// The id of the document.
    pub id: String,
    /// What is done.
    pub action: Action,
    /// The fencing token of the write.
    pub token: Token,
}

/// What a step does. Except for an insert, it is refused with `NotFound` when there is no document.
#[derive(Clone, Debug)]
pub enum Action {
    /// Creates this document: `Conflict` when it exists.
    Insert(Document),
    /// Changes the document. `Conflict` when it has not the expected version.
    Change(Expected, Change),
    /// The document must exist, and still exists when the batch is committed.
    Require,
}

/// What became of a batch.
#[derive(Debug)]
pub enum BatchOutcome {
    /// All steps were done. For each, the version of its document after the step; of a deleted one, the last.
    Committed(Vec<u64>),
    /// This step was refused, for this reason, and nothing was changed.
    Refused(usize, Error),
}

/// What a step does to a document.
pub(super) enum Effect {
    Nothing,
    Create(Document),
    Replace(Document),
    Delete,
}

impl Step {
    /// What the step does to its document as it is now, and the version after it.
    pub(super) fn effect(self, now: Option<&Document>) -> Result<(u64, Effect)> {
        match (self.action, now) {
            (Action::Insert(_), Some(_)) => Err(document_exists()),
            (Action::Insert(new), None) => Ok((new.version, Effect::Create(new))),
            (_, None) => Err(no_such_document()),
            (Action::Require, Some(now)) => Ok((now.version, Effect::Nothing)),
            (Action::Change(expected, change), Some(now)) => {
                Ok(match change.apply(now, &expected, self.token)? {
                    Some(after) => (after.version, Effect::Replace(after)),
                    None => (now.version, Effect::Delete),
                })
            }
        }
    }

    /// The write of this step; `None` when it writes nothing.
    pub(super) fn write(self) -> Option<Write> {
        match self.action {
            Action::Insert(new) => Some(Write::Insert(vec![new])),
            Action::Change(expected, change) => {
                Some(Write::Change { filter: Filter::id(self.id), expected, change })
            }
            Action::Require => None,
        }
    }
}

/// The error of a step whose document is missing.
pub(super) fn no_such_document() -> Error {
    Error::not_found("No Such Document")
}

//! What a type declares of the former shapes of its documents. It knows no engine.

use std::fmt;

use super::{Collection, Fields};
use crate::error::Result;

/// A step that brings documents of a former shape into the present one. `server store migrate` runs it once on all
/// documents of the collection, in the order in which an entity lists its steps.
///
/// The step must leave a document alone that has the present shape already: a run that was killed repeats some
/// documents, and the server may store new ones meanwhile. It fails for a document that it cannot change.
#[derive(Clone, Copy)]
pub struct Migration {
    name: &'static str,
    step: fn(Fields) -> Result<Fields>,
}

impl Migration {
    /// A step. Its name is recorded in the store: never change it, nor use it for another step of the collection.
    ///
    /// # Panics
    /// When the name is empty or longer than 100 bytes. In a `const`, that is a compile error.
    pub const fn new(name: &'static str, step: fn(Fields) -> Result<Fields>) -> Self {
        assert!(!name.is_empty() && name.len() <= 100, "the name of a migration has 1 to 100 bytes");
        Self { name, step }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The document in the new shape.
    pub(super) fn apply(&self, fields: Fields) -> Result<Fields> {
        (self.step)(fields)
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What an app declares of a type that it stores.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Its collection.
    pub collection: &'static Collection,
    /// The steps for its documents.
    pub migrations: &'static [Migration],
}

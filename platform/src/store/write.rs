//! The writes of a store, and what a change does to one document. It knows no engine.

use std::sync::Arc;

use serde_json::Value;

use super::document::{self, Document};
use super::fields::Fields;
use super::query::{self, Filter};
use crate::error::{Error, Result};

/// One atomic write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Creates all of these documents, or none: `Conflict` when an id exists, or is there twice.
    Insert(Vec<(String, Arc<Fields>)>),
    /// Changes the first document, by id, that matches. `Conflict` when it has not the expected version.
    Change {
        /// Which documents match.
        filter: Filter,
        /// The version that the document must have.
        expected: Expected,
        /// How it changes.
        change: Change,
    },
    /// Replaces the first document, by id, that matches. When none does, creates one with this id: `Conflict` when that
    /// id exists.
    Upsert {
        /// Which documents match.
        filter: Filter,
        /// The id of a new document.
        id: String,
        /// Its fields.
        fields: Arc<Fields>,
    },
    /// Deletes all documents that match.
    DeleteAll(Filter),
}

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOutcome {
    /// How many documents were created, changed or deleted.
    pub count: u64,
    /// After a change or an upsert: the document as it is now, or a deleted one as it was before.
    pub document: Option<Document>,
    /// After an upsert: whether the document is new.
    pub created: bool,
}

impl WriteOutcome {
    pub(super) fn counted(count: usize) -> Self {
        Self { count: count as u64, ..Self::default() }
    }

    pub(super) fn of(document: Document, created: bool) -> Self {
        Self { count: 1, document: Some(document), created }
    }
}

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
    fn check(&self, version: u64) -> Result<()> {
        let met = match self {
            Self::Any => true,
            Self::Version(expected) => *expected == version,
            Self::OneOf(expected) => expected.contains(&version),
        };
        if met { Ok(()) } else { Err(Error::conflict("Version Conflict")) }
    }
}

/// How a document changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// All fields are replaced.
    Replace(Arc<Fields>),
    /// Some fields are set and unset.
    Merge(Patch),
    /// It is deleted.
    Delete,
}

impl Change {
    /// The document after the change, one version up; `None` when it is deleted.
    pub(super) fn apply(self, document: &Document, expected: &Expected) -> Result<Option<Document>> {
        expected.check(document.version)?;
        let fields = match self {
            Self::Delete => return Ok(None),
            Self::Replace(fields) => fields,
            Self::Merge(patch) => Arc::new(patch.apply(&document.fields)?),
        };
        Ok(Some(document.next_version(fields)))
    }
}

/// The error of an insert or upsert whose id exists.
pub(super) fn document_exists() -> Error {
    Error::conflict("Document Exists")
}

/// Fields to set and to unset, each by its path (see [`query`]).
///
/// Setting a field creates the objects on its path that are missing. The other fields keep their order. Two patches are
/// refused: one with a path through a value that is no object, and one in which a path contains another.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    steps: Vec<(String, Option<Value>)>,
}

impl Patch {
    /// A patch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value at a path.
    pub fn set(mut self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.steps.push((path.into(), Some(value.into())));
        self
    }

    /// Removes the field at a path, if there is one.
    pub fn unset(mut self, path: impl Into<String>) -> Self {
        self.steps.push((path.into(), None));
        self
    }

    /// `BadRequest` when a path is invalid, when a path contains another, or when a value cannot be stored: that error
    /// has its JSON pointer.
    pub fn check(&self) -> Result<()> {
        let mut paths: Vec<Vec<&str>> = Vec::with_capacity(self.steps.len());
        for (path, value) in &self.steps {
            query::check_path(path)?;
            if let Some(value) = value {
                document::check_at(path, value)?;
            }
            paths.push(path.split('.').collect());
        }
        // Sorted by segments, a path comes directly before the paths that it contains.
        paths.sort();
        if paths.windows(2).any(|pair| pair[1].starts_with(&pair[0])) {
            Err(Error::bad_request("Overlapping Field Paths"))
        } else {
            Ok(())
        }
    }

    fn apply(self, fields: &Fields) -> Result<Fields> {
        let mut fields = fields.clone();
        for (path, value) in self.steps {
            let (parents, leaf) =
                path.rsplit_once('.').map_or((None, path.as_str()), |(up, leaf)| (Some(up), leaf));
            let mut object = Some(&mut fields);
            for segment in parents.into_iter().flat_map(|parents| parents.split('.')) {
                let Some(parent) = object else { break };
                object = match (parent.contains_key(segment), &value) {
                    (false, None) => None,
                    _ => match parent.entry(segment).or_insert_with(|| Value::Object(Fields::new())) {
                        Value::Object(child) => Some(child),
                        _ => return Err(Error::bad_request("Field Path Through A Value")),
                    },
                };
            }
            match (object, value) {
                (Some(object), Some(value)) => drop(object.insert(leaf.to_owned(), value)),
                // `remove` would move the last field to the position of this one.
                (Some(object), None) => drop(object.shift_remove(leaf)),
                (None, _) => {}
            }
        }
        document::check(&fields)?;
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        serde_json::from_value(value).unwrap()
    }

    fn patched(patch: Patch, value: Value) -> String {
        serde_json::to_string(&patch.apply(&fields(value)).unwrap()).unwrap()
    }

    #[test]
    fn a_patch_keeps_the_order_of_the_other_fields() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2, "z": 3}, "c": 3});
        let patch = Patch::new().set("a", 9).unset("b.x").set("d.e.f", "new").unset("nothing.here");
        assert_eq!(patched(patch, before), r#"{"a":9,"b":{"y":2,"z":3},"c":3,"d":{"e":{"f":"new"}}}"#);
    }

    #[test]
    fn a_path_through_a_value_is_refused() {
        let error = Patch::new().set("a.b", 1).apply(&fields(json!({"a": [1]}))).unwrap_err();
        assert_eq!(error.reason(), "Field Path Through A Value");
    }

    #[test]
    fn paths_that_contain_one_another_are_refused() {
        assert!(Patch::new().set("a", 1).unset("a.b").check().is_err());
        assert!(Patch::new().set("a.b", 1).set("a-x", 1).unset("a").check().is_err());
        assert!(Patch::new().set("a", 1).set("a", 2).check().is_err());
        assert!(Patch::new().set("a", 1).set("ab", 2).unset("b.a").check().is_ok());
        assert!(Patch::new().set("a..b", 1).check().is_err());
    }
}

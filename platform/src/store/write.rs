//! The writes of a store, and what one change does to one document. It touches no engine.

use std::sync::Arc;

use serde_json::Value;

use super::document::{self, Body, Document};
use super::query::{self, Filter};
use crate::error::{Error, Result};

/// One atomic write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Makes all of these documents, or none: `Conflict` when an id is taken, also by an earlier one of them.
    Insert(Vec<(String, Arc<Body>)>),
    /// Changes the first document, by id, that matches; `Conflict` when it has another version.
    Change {
        /// Which documents are meant.
        filter: Filter,
        /// The version that the document must have.
        expected: Expected,
        /// What becomes of it.
        change: Change,
    },
    /// Replaces the first document, by id, that matches; where there is none, makes one with this id
    /// (`Conflict` when it is taken).
    Upsert {
        /// Which documents are meant.
        filter: Filter,
        /// The id of the document that is made.
        id: String,
        /// Its fields.
        body: Arc<Body>,
    },
    /// Deletes all documents that match.
    DeleteAll(Filter),
}

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// How many documents were made, changed or deleted.
    pub count: u64,
    /// Of a change or an upsert: the document as it is now, or as it was before it was deleted.
    pub document: Option<Document>,
    /// Of an upsert: whether the document is new.
    pub created: bool,
}

impl Written {
    pub(super) fn counted(count: usize) -> Self {
        Self { count: count as u64, ..Self::default() }
    }

    pub(super) fn one(document: Document, created: bool) -> Self {
        Self { count: 1, document: Some(document), created }
    }
}

/// The version that a document must have for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// This one, else `Conflict` with the reason `Version Conflict`.
    Version(u64),
}

/// What becomes of a document.
#[derive(Clone, Debug)]
pub enum Change {
    /// All its fields are replaced.
    Replace(Arc<Body>),
    /// Some of its fields are set and unset.
    Merge(Patch),
    /// It is deleted.
    Delete,
}

impl Change {
    /// The document after the change, one version up; `None` when it is deleted.
    pub(super) fn apply(self, document: &Document, expected: Expected) -> Result<Option<Document>> {
        if let Expected::Version(version) = expected
            && version != document.version
        {
            return Err(Error::conflict("Version Conflict"));
        }
        let body = match self {
            Self::Delete => return Ok(None),
            Self::Replace(body) => body,
            Self::Merge(patch) => Arc::new(patch.apply(&document.body)?),
        };
        Ok(Some(Document { id: document.id.clone(), version: document.version + 1, body }))
    }
}

/// An insert or upsert of an id that is taken.
pub(super) fn taken() -> Error {
    Error::conflict("Document Exists")
}

/// Fields to set and to unset, each by its path (see [`query`]).
///
/// A set makes the objects on its way that are missing; the order of the other fields stays. A path that runs
/// through a value that is no object is refused, as two paths of which one contains the other.
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

    /// `BadRequest` when a path is none, when two of them meet, or when a value cannot be kept (its JSON pointer is in
    /// the error).
    pub fn check(&self) -> Result<()> {
        let mut paths: Vec<Vec<&str>> = Vec::with_capacity(self.steps.len());
        for (path, value) in &self.steps {
            query::check_path(path)?;
            if let Some(value) = value {
                document::check_at(path, value)?;
            }
            paths.push(path.split('.').collect());
        }
        // Sorted by segments, a path stands directly before the paths that it contains.
        paths.sort();
        if paths.windows(2).any(|pair| pair[1].starts_with(&pair[0])) {
            Err(Error::bad_request("Overlapping Field Paths"))
        } else {
            Ok(())
        }
    }

    fn apply(self, body: &Body) -> Result<Body> {
        let mut body = body.clone();
        for (path, value) in self.steps {
            let (parents, leaf) =
                path.rsplit_once('.').map_or((None, path.as_str()), |(up, leaf)| (Some(up), leaf));
            let mut object = Some(&mut body);
            for segment in parents.into_iter().flat_map(|parents| parents.split('.')) {
                let Some(parent) = object else { break };
                object = match (parent.contains_key(segment), &value) {
                    (false, None) => None,
                    _ => match parent.entry(segment).or_insert_with(|| Value::Object(Body::new())) {
                        Value::Object(child) => Some(child),
                        _ => return Err(Error::bad_request("Field Path Through A Value")),
                    },
                };
            }
            match (object, value) {
                (Some(object), Some(value)) => drop(object.insert(leaf.to_owned(), value)),
                // `remove` would put the last field in the place of this one.
                (Some(object), None) => drop(object.shift_remove(leaf)),
                (None, _) => {}
            }
        }
        document::check(&body)?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: Value) -> Body {
        serde_json::from_value(value).unwrap()
    }

    fn patched(patch: Patch, value: Value) -> String {
        serde_json::to_string(&patch.apply(&body(value)).unwrap()).unwrap()
    }

    #[test]
    fn a_patch_keeps_the_order_of_the_other_fields() {
        let before = json!({"a": 1, "b": {"x": 1, "y": 2, "z": 3}, "c": 3});
        let patch = Patch::new().set("a", 9).unset("b.x").set("d.e.f", "new").unset("nothing.here");
        assert_eq!(patched(patch, before), r#"{"a":9,"b":{"y":2,"z":3},"c":3,"d":{"e":{"f":"new"}}}"#);
    }

    #[test]
    fn a_path_through_a_value_is_refused() {
        let error = Patch::new().set("a.b", 1).apply(&body(json!({"a": [1]}))).unwrap_err();
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

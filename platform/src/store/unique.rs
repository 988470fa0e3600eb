//! Unique paths: no two documents of a collection may have the same value at such a path. What a clash is, and how it is
//! said; the engines find it, each in its own way.
//!
//! Equality is that of `query`. What equals no operand never clashes: null, a missing field, an object, an array.

use std::collections::{HashMap, HashSet};

#[cfg(any(feature = "mongodb", feature = "postgres"))]
use super::Fields;
use super::query::ValueKey;
use super::{Collection, Document};
use crate::error::{Error, FieldError, Result};
use crate::json;

/// The reason of a write whose value another document has.
const VALUE_EXISTS: &str = "Value Exists";

/// The error of a write whose value at a unique path another document has. It names the path, and never the value.
pub(super) fn value_exists(path: &str) -> Error {
    let mut pointer = String::new();
    for segment in path.split('.') {
        json::push_segment(&mut pointer, segment);
    }
    let message = "must be unique: another document has this value".to_owned();
    Error::conflict(VALUE_EXISTS).with_errors(vec![FieldError { pointer, message }])
}

/// The error of a write that breaks a unique index which this program does not declare: an older release declared it, or
/// a person created it.
#[cfg(any(feature = "mongodb", feature = "postgres", feature = "sqlite"))]
pub(super) fn value_exists_in(index: &str) -> Error {
    Error::conflict(VALUE_EXISTS).with_source(format!("the unique index {index:?}, which no UNIQUE declares"))
}

/// The error of a path that cannot be unique, because two stored documents have the same value there.
pub(super) fn stored_clash(collection: &Collection, path: &str, ids: [&str; 2]) -> Error {
    let (name, [one, other]) = (collection.name(), ids);
    Error::internal(format!(
        "the documents {one:?} and {other:?} of {name} have the same value at {path:?}, which is declared UNIQUE: change \
         or delete one of them"
    ))
}

/// The values of a document at the unique paths. An insert of several documents stores them in the order of their values: two
/// inserts that store the same values in different orders would wait for each other.
#[cfg(any(feature = "mongodb", feature = "postgres"))]
pub(super) fn values(collection: &Collection, fields: &Fields) -> Vec<Option<ValueKey>> {
    collection.unique_paths().iter().map(|path| ValueKey::at(fields, path)).collect()
}

/// Which document has which value, for the unique paths of a collection.
#[derive(Debug, Default)]
pub(super) struct UniqueIndex(Vec<(&'static str, HashMap<ValueKey, String>)>);

impl UniqueIndex {
    /// The index of paths that no document has.
    pub(super) fn new(paths: &'static [&'static str]) -> Self {
        Self(paths.iter().map(|path| (*path, HashMap::new())).collect())
    }

    /// Whether no path is unique.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the unique paths of a collection that are not in the index yet. Fails, and adds none, when two of these
    /// documents clash. They must be all that there are.
    pub(super) fn declare<'a>(
        &mut self,
        collection: &Collection,
        documents: impl Iterator<Item = &'a Document> + Clone,
    ) -> Result<()> {
        let mut declared = Vec::new();
        for path in collection.unique_paths() {
            if self.0.iter().any(|(known, _)| known == path) {
                continue;
            }
            let mut holders: HashMap<ValueKey, String> = HashMap::new();
            for document in documents.clone() {
                let Some(key) = ValueKey::at(&document.fields, path) else { continue };
                if let Some(other) = holders.insert(key, document.id.clone()) {
                    return Err(stored_clash(collection, path, [&other, &document.id]));
                }
            }
            declared.push((*path, holders));
        }
        self.0.append(&mut declared);
        Ok(())
    }

    /// `Conflict` when one of these documents has a value of another one, be it stored or one of these.
    pub(super) fn check(&self, new: &[Document]) -> Result<()> {
        for (path, holders) in &self.0 {
            let mut among = HashSet::new();
            for document in new {
                let Some(key) = ValueKey::at(&document.fields, path) else { continue };
                if holders.get(&key).is_some_and(|holder| *holder != document.id) || !among.insert(key) {
                    return Err(value_exists(path));
                }
            }
        }
        Ok(())
    }

    /// Follows a write of one document: `Conflict`, and no change, when what it is afterwards has a value of another one.
    pub(super) fn replace(&mut self, before: Option<&Document>, after: Option<&Document>) -> Result<()> {
        if let Some(after) = after {
            self.check(std::slice::from_ref(after))?;
        }
        if let Some(before) = before {
            self.remove(before);
        }
        if let Some(after) = after {
            self.add(after);
        }
        Ok(())
    }

    /// Adds a document that clashes with none.
    pub(super) fn add(&mut self, document: &Document) {
        for (path, holders) in &mut self.0 {
            if let Some(key) = ValueKey::at(&document.fields, path) {
                holders.insert(key, document.id.clone());
            }
        }
    }

    /// Removes a document.
    pub(super) fn remove(&mut self, document: &Document) {
        for (path, holders) in &mut self.0 {
            if let Some(key) = ValueKey::at(&document.fields, path)
                && holders.get(&key).is_some_and(|holder| *holder == document.id)
            {
                holders.remove(&key);
            }
        }
    }
}

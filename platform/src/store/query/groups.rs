//! Counting documents by a value.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use serde_json::Value;

use super::super::Document;
use super::scalar::Scalar;
use super::sort_key::{SortKey, lookup};
use super::value_key::whole;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::{
    error::{Error, Result},
    json,
};

/// How many documents have each value at a path. Equal values are one group, such as `1` and `1.0`, or null and a missing
/// field. Documents with an object or an array there are in no group.
#[derive(Default)]
pub(in super::super) struct Groups(BTreeMap<Key, u64>);

impl Groups {
    /// Counts one document.
    pub(in super::super) fn add(&mut self, document: &Document, path: &str) {
        self.add_value(lookup(&document.fields, path), 1);
    }

    /// Counts some documents with this value.
    pub(in super::super) fn add_value(&mut self, value: Option<&Value>, count: u64) {
        if let Some(value) = scalar(value) {
            *self.0.entry(Key(value)).or_default() += count;
        }
    }

    /// Counts some documents, with the JSON text of the value.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(in super::super) fn add_text(&mut self, text: Option<&str>, count: i64) -> Result<()> {
        let value = text.map(|text| json::parse(text.as_bytes())).transpose();
        let value = value.map_err(|cause| Error::internal(cause.to_string()))?;
        self.add_value(value.as_ref(), u64::try_from(count).map_err(Error::internal)?);
        Ok(())
    }

    /// The most frequent values first, then in the order of a sort, at most `limit` of them.
    pub(in super::super) fn first(self, limit: u64) -> Vec<(Scalar, u64)> {
        let mut groups: Vec<(Scalar, u64)> = self.0.into_iter().map(|(key, count)| (key.0, count)).collect();
        groups.sort_by_key(|(_, count)| Reverse(*count));
        groups.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        groups
    }
}

/// The value as a scalar, in the one form that all values equal to it have: an integer where it is one.
fn scalar(value: Option<&Value>) -> Option<Scalar> {
    Some(match value {
        None | Some(Value::Null) => Scalar::Null,
        Some(Value::Bool(value)) => Scalar::Bool(*value),
        Some(Value::String(text)) => Scalar::Text(text.clone()),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()?) {
            (Some(integer), _) => Scalar::Int(integer),
            (None, float) => whole(float).map_or(Scalar::Float(float), Scalar::Int),
        },
        Some(Value::Array(_) | Value::Object(_)) => return None,
    })
}

/// A scalar in the order of a sort.
struct Key(Scalar);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        SortKey::from(&self.0).order(&SortKey::from(&other.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

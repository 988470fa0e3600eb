//! A tree of configuration values, each with its origin, and the merging of two trees.
//!
//! This file does not know YAML, variables or flags; those are read into trees elsewhere.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::wording;
use crate::error::StartError;

/// Where a value came from; displayed as `FILE:LINE`, `environment NAME` or `flag --NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    source: Arc<str>,
    line: Option<usize>,
}

impl Origin {
    /// A file, without a line.
    pub(super) fn file(name: &str) -> Self {
        Self { source: wording::short(name, 200).into(), line: None }
    }

    pub(super) fn variable(name: &str) -> Self {
        Self { source: format!("environment {}", wording::short(name, 100)).into(), line: None }
    }

    pub(super) fn flag(name: &str) -> Self {
        Self { source: format!("flag {name}").into(), line: None }
    }

    pub(super) fn at(&self, line: usize) -> Self {
        Self { source: Arc::clone(&self.source), line: Some(line) }
    }

    /// An error about a value from here.
    pub(super) fn wrong(&self, message: impl fmt::Display) -> StartError {
        StartError::config(format!("{self}: {message}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// One value of the tree.
#[derive(Clone)]
pub(super) enum Value {
    /// A null, boolean, number or string.
    Scalar(Json),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(String, Node)>),
}

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Shows no value: a tree holds passwords in plain text.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node from {}", self.origin)
    }
}

impl Node {
    pub(super) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin }
    }

    pub(super) fn text(text: impl Into<String>, origin: Origin) -> Self {
        Self::new(Value::Scalar(Json::String(text.into())), origin)
    }

    /// A tree with only this leaf, at this path.
    pub(super) fn nested(path: &[String], leaf: Self) -> Self {
        path.iter().rev().fold(leaf, |below, key| {
            let origin = below.origin.clone();
            Self::new(Value::Map(vec![(key.clone(), below)]), origin)
        })
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Json::Null))
    }

    /// The value of this key of a map, or at this index of a list.
    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            Value::Scalar(_) => None,
        }
    }

    /// The value at this path.
    pub(super) fn find<S: AsRef<str>>(&self, path: &[S]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.child(key.as_ref()))
    }

    /// The value at this path, or else at the longest part of it that exists.
    pub(super) fn nearest(&self, path: &[String]) -> &Self {
        let below = path.split_first().and_then(|(key, rest)| self.child(key).map(|node| node.nearest(rest)));
        below.unwrap_or(self)
    }

    /// Merges another tree into this one: maps key by key; any other value, also a list, replaces the old value.
    pub(super) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(entries), Value::Map(others)) => {
                for (key, node) in others {
                    match entries.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, entry)) => entry.overlay(node),
                        None => entries.push((key, node)),
                    }
                }
            }
            // A section whose keys are all commented out changes nothing.
            (Value::Map(_), Value::Scalar(Json::Null)) => {}
            (_, value) => *self = Self::new(value, over.origin),
        }
    }

    /// Takes from another tree what this one leaves out: a key that is missing, or has no value.
    pub(super) fn fill(&mut self, from: Self) {
        match (&mut self.value, from.value) {
            (Value::Map(entries), Value::Map(others)) => {
                for (key, node) in others {
                    match entries.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, entry)) => entry.fill(node),
                        None => entries.push((key, node)),
                    }
                }
            }
            (Value::Scalar(Json::Null), value) => self.value = value,
            _ => {}
        }
    }

    /// Calls `visit` for each scalar with its path.
    pub(super) fn each_scalar<E>(
        &self,
        path: &mut Vec<String>,
        visit: &mut impl FnMut(&[String], &Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut below = |key: String, node: &Self| {
            path.push(key);
            let result = node.each_scalar(path, visit);
            path.pop();
            result
        };
        match &self.value {
            Value::Scalar(_) => visit(path, self),
            Value::List(items) => {
                items.iter().enumerate().try_for_each(|(at, node)| below(at.to_string(), node))
            }
            Value::Map(entries) => entries.iter().try_for_each(|(key, node)| below(key.clone(), node)),
        }
    }

    /// The values alone, for serde.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Scalar(scalar) => scalar.clone(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect())
            }
        }
    }

    /// Removes every scalar and keeps the keys and origins, so that no password stays in memory in plain text.
    pub(super) fn forget_values(&mut self) {
        match &mut self.value {
            Value::Scalar(scalar) => *scalar = Json::Null,
            Value::List(items) => items.clear(),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.forget_values()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;
    use serde_json::json;

    fn tree(name: &str, text: &str) -> Node {
        yaml::parse(text, &Origin::file(name)).unwrap()
    }

    #[test]
    fn maps_merge_key_by_key_and_lists_are_replaced() {
        let mut base = tree("base", "a: {x: 1, y: [1, 2]}\nb: text");
        base.overlay(tree("over", "a:\n  y: [3]\n  z: new"));
        assert_eq!(base.to_json(), json!({"a": {"x": 1, "y": [3], "z": "new"}, "b": "text"}));
        let origin = |path: &[&str]| base.find(path).unwrap().origin.to_string();
        assert_eq!(origin(&["a", "x"]), "base:1");
        assert_eq!(origin(&["a", "y"]), "over:2");
        assert_eq!(origin(&["a", "z"]), "over:3");
    }

    #[test]
    fn an_empty_section_changes_nothing_and_an_empty_value_does() {
        let mut base = tree("base", "a: {x: 1}\nb: 2");
        base.overlay(tree("over", "a:\nb:"));
        assert_eq!(base.to_json(), json!({"a": {"x": 1}, "b": null}));
    }

    #[test]
    fn a_forgotten_tree_holds_origins_and_no_values() {
        let mut base = tree("base", "a: {x: hunter2, y: [hunter2]}");
        base.forget_values();
        assert!(!base.to_json().to_string().contains("hunter2"));
        assert_eq!(base.find(&["a", "x"]).unwrap().origin.to_string(), "base:1");
    }

    #[test]
    fn the_debug_form_shows_no_value() {
        assert_eq!(format!("{:?}", tree("base", "hunter: hunter2")), "Node from base:1");
    }
}

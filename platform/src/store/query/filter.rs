//! Which documents are meant: the tree, its builder, its bounds, and what it means.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::Document;
use super::key::{Key, lookup};
use super::path::check_path;
use super::scalar::Scalar;
use crate::error::{Error, Result};

/// The deepest nesting of a filter; each level is a level of recursion here and of parentheses in SQL.
pub const MAX_DEPTH: usize = 32;
/// The most conditions in a filter: SQLite stops at an expression 1,000 levels deep, and a chain of n `AND`s
/// is n levels.
pub const MAX_NODES: usize = 256;
/// The most ids and values in a filter: SQLite stops at 32,766 parameters, PostgreSQL at 65,535.
pub const MAX_OPERANDS: usize = 10_000;
/// Which documents are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them.
    All,
    /// Those with one of these ids.
    Ids(Vec<String>),
    /// Those whose id is greater: the next page of a walk by id.
    After(String),
    /// Those whose field passes a test.
    Field(String, Test),
    /// Those that pass all of these; all documents when there are none.
    And(Vec<Filter>),
    /// Those that pass one of these; no document when there are none.
    Or(Vec<Filter>),
    /// Those that do not pass.
    Not(Box<Filter>),
}

/// What is asked of one field.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It equals one of these.
    In(Vec<Scalar>),
    /// It is less, or less or equal.
    Below(Scalar, Bound),
    /// It is greater, or greater or equal.
    Above(Scalar, Bound),
    /// It is there, be it null.
    Exists,
    /// It is a text with this beginning.
    StartsWith(String),
}

/// Whether a comparison includes the value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It does.
    Included,
    /// It does not.
    Excluded,
}

/// Begins a condition on the field at a path: `field("address.city").eq("Paris")`.
pub fn field(path: impl Into<String>) -> Field {
    Field(path.into())
}

/// A field that waits for its test.
#[derive(Clone, Debug)]
pub struct Field(String);

impl Field {
    /// The value equals this one.
    pub fn eq(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Test::In(vec![value.into()]))
    }

    /// The value does not equal this one, or there is none.
    pub fn ne(self, value: impl Into<Scalar>) -> Filter {
        !self.eq(value)
    }

    /// The value is less.
    pub fn lt(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Test::Below(value.into(), Bound::Excluded))
    }

    /// The value is less or equal.
    pub fn lte(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Test::Below(value.into(), Bound::Included))
    }

    /// The value is greater.
    pub fn gt(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Test::Above(value.into(), Bound::Excluded))
    }

    /// The value is greater or equal.
    pub fn gte(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Test::Above(value.into(), Bound::Included))
    }

    /// The value equals one of these.
    pub fn is_in<S: Into<Scalar>>(self, values: impl IntoIterator<Item = S>) -> Filter {
        Filter::Field(self.0, Test::In(values.into_iter().map(Into::into).collect()))
    }

    /// There is a value, be it null.
    pub fn exists(self) -> Filter {
        Filter::Field(self.0, Test::Exists)
    }

    /// The value is a text with this beginning, byte by byte.
    pub fn starts_with(self, prefix: impl Into<String>) -> Filter {
        Filter::Field(self.0, Test::StartsWith(prefix.into()))
    }
}

impl std::ops::Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        Self::Not(Box::new(self))
    }
}

impl Filter {
    /// All documents.
    pub fn all() -> Self {
        Self::All
    }

    /// The document of this id.
    pub fn id(id: impl Into<String>) -> Self {
        Self::Ids(vec![id.into()])
    }

    /// Both conditions.
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All => other,
            Self::And(mut all) => {
                all.push(other);
                Self::And(all)
            }
            one => Self::And(vec![one, other]),
        }
    }

    /// One of the two conditions.
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Or(mut any) => {
                any.push(other);
                Self::Or(any)
            }
            one => Self::Or(vec![one, other]),
        }
    }

    /// `BadRequest` when a path is none or a bound of this file is passed.
    pub fn check(&self) -> Result<()> {
        let (mut nodes, mut operands) = (0, 0);
        self.check_node(MAX_DEPTH, &mut nodes, &mut operands)?;
        if nodes > MAX_NODES || operands > MAX_OPERANDS {
            Err(Error::bad_request("Filter Too Large"))
        } else {
            Ok(())
        }
    }

    fn check_node(&self, depth: usize, nodes: &mut usize, operands: &mut usize) -> Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::bad_request("Filter Nested Too Deeply"));
        };
        *nodes += 1;
        match self {
            Self::All | Self::After(_) => Ok(()),
            Self::Ids(ids) => {
                *operands += ids.len();
                Ok(())
            }
            Self::Field(path, test) => {
                let values: &[Scalar] = match test {
                    Test::In(values) => values,
                    Test::Below(value, _) | Test::Above(value, _) => std::slice::from_ref(value),
                    Test::Exists | Test::StartsWith(_) => &[],
                };
                *operands += values.len();
                if values.iter().any(|value| matches!(value, Scalar::Float(number) if !number.is_finite())) {
                    return Err(Error::bad_request("Number Out Of Range"));
                }
                check_path(path)
            }
            Self::And(filters) | Self::Or(filters) => {
                filters.iter().try_for_each(|filter| filter.check_node(depth, nodes, operands))
            }
            Self::Not(filter) => filter.check_node(depth, nodes, operands),
        }
    }

    /// Whether a document passes: the meaning of a filter.
    pub(in super::super) fn matches(&self, document: &Document) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&document.id),
            Self::After(id) => document.id > *id,
            Self::Field(path, test) => test.holds(lookup(&document.body, path)),
            Self::And(filters) => filters.iter().all(|filter| filter.matches(document)),
            Self::Or(filters) => filters.iter().any(|filter| filter.matches(document)),
            Self::Not(filter) => !filter.matches(document),
        }
    }

    /// The ids to which this filter confines itself, where it does.
    pub(in super::super) fn ids(&self) -> Option<&[String]> {
        match self {
            Self::Ids(ids) => Some(ids),
            Self::And(filters) => filters.iter().find_map(Self::ids),
            _ => None,
        }
    }

    /// The id after which the documents of this filter lie, where it says so.
    pub(in super::super) fn after(&self) -> Option<&str> {
        match self {
            Self::After(id) => Some(id),
            Self::And(filters) => filters.iter().find_map(Self::after),
            _ => None,
        }
    }
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        let key = Key::of(value);
        match self {
            Self::In(values) => {
                values.iter().any(|other| key.compare(&Key::from(other)) == Some(Ordering::Equal))
            }
            Self::Below(other, bound) => match key.compare(&Key::from(other)) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => *bound == Bound::Included,
                _ => false,
            },
            Self::Above(other, bound) => match key.compare(&Key::from(other)) {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => *bound == Bound::Included,
                _ => false,
            },
            Self::Exists => value.is_some(),
            Self::StartsWith(prefix) => matches!(key, Key::Text(text) if text.starts_with(prefix.as_str())),
        }
    }
}

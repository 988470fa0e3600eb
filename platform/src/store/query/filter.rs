//! Filters: the tree, its builder, its limits, and what it means.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::Document;
use super::needle::Needle;
use super::path::check_path;
use super::scalar::Scalar;
use super::sort_key::{SortKey, Type, lookup};
use crate::error::{Error, Result};

/// The deepest nesting of a filter. Each level is a level of recursion here, and of parentheses in SQL.
pub const MAX_DEPTH: usize = 32;
/// The most conditions in a filter. SQLite's limit is an expression 1,000 levels deep, and n `AND`s are n levels.
pub const MAX_NODES: usize = 256;
/// The most ids and values in a filter. SQLite's limit is 32,766 parameters, PostgreSQL's 65,535.
pub const MAX_OPERANDS: usize = 10_000;

/// Which documents match.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All documents.
    All,
    /// Those with one of these ids.
    Ids(Vec<String>),
    /// Those whose id is greater than this one.
    After(String),
    /// Those with a field, at this path, for which the predicate is true.
    Field(String, Predicate),
    /// Those that match all of these; with none, all documents.
    And(Vec<Filter>),
    /// Those that match one of these; with none, no document.
    Or(Vec<Filter>),
    /// Those that do not match this one.
    Not(Box<Filter>),
}

/// A condition on the value of one field.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// It equals one of these.
    In(Vec<Scalar>),
    /// It is less, or less or equal.
    Below(Scalar, Bound),
    /// It is greater, or greater or equal.
    Above(Scalar, Bound),
    /// It exists, and may be null.
    Exists,
    /// It is a text with this prefix.
    StartsWith(String),
    /// It is a text with this one somewhere in it.
    Contains(Needle),
    /// It is an array with an element that equals this value.
    Has(Scalar),
    /// It is of one of these types; a missing field is null.
    Type(Vec<Type>),
}

/// Whether a comparison includes the operand itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Less or equal, greater or equal.
    Included,
    /// Less, greater.
    Excluded,
}

/// The field at a path, to make a filter of: `field("address.city").eq("Paris")`.
pub fn field(path: impl Into<String>) -> Field {
    Field(path.into())
}

/// A path without its predicate.
#[derive(Clone, Debug)]
pub struct Field(String);

impl Field {
    /// The value equals this one.
    pub fn eq(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Predicate::In(vec![value.into()]))
    }

    /// The value does not equal this one, or is missing.
    pub fn ne(self, value: impl Into<Scalar>) -> Filter {
        !self.eq(value)
    }

    /// The value is less.
    pub fn lt(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Predicate::Below(value.into(), Bound::Excluded))
    }

    /// The value is less or equal.
    pub fn lte(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Predicate::Below(value.into(), Bound::Included))
    }

    /// The value is greater.
    pub fn gt(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Predicate::Above(value.into(), Bound::Excluded))
    }

    /// The value is greater or equal.
    pub fn gte(self, value: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Predicate::Above(value.into(), Bound::Included))
    }

    /// The value equals one of these.
    pub fn is_in<S: Into<Scalar>>(self, values: impl IntoIterator<Item = S>) -> Filter {
        Filter::Field(self.0, Predicate::In(values.into_iter().map(Into::into).collect()))
    }

    /// The field exists, and may be null.
    pub fn exists(self) -> Filter {
        Filter::Field(self.0, Predicate::Exists)
    }

    /// The value is a text with this prefix, compared byte by byte.
    pub fn starts_with(self, prefix: impl Into<String>) -> Filter {
        Filter::Field(self.0, Predicate::StartsWith(prefix.into()))
    }

    /// The value is a text that contains this one. No index helps: it reads every document that the rest of the filter
    /// leaves.
    pub fn contains(self, text: impl Into<String>) -> Filter {
        Filter::Field(self.0, Predicate::Contains(Needle::exact(text)))
    }

    /// The value is a text that contains this one, in lower or upper case: see [`Needle::ignoring_case`].
    pub fn contains_ignoring_case(self, text: impl Into<String>) -> Filter {
        Filter::Field(self.0, Predicate::Contains(Needle::ignoring_case(text)))
    }

    /// The value is an array, and one of its elements equals this value. No index helps, see [`Field::contains`].
    pub fn has(self, element: impl Into<Scalar>) -> Filter {
        Filter::Field(self.0, Predicate::Has(element.into()))
    }

    /// The value is of one of these types; a missing field is null.
    pub fn is_of(self, types: impl IntoIterator<Item = Type>) -> Filter {
        Filter::Field(self.0, Predicate::Type(types.into_iter().collect()))
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

    /// `BadRequest` when a path is invalid, a needle is too long, or a number is not finite. `Internal` when a limit of this
    /// file is exceeded: its size is the work of the server's code, not of the client.
    pub fn check(&self) -> Result<()> {
        let (mut nodes, mut operands) = (0, 0);
        self.check_node(MAX_DEPTH, &mut nodes, &mut operands)?;
        if nodes > MAX_NODES || operands > MAX_OPERANDS {
            Err(Error::internal(format!(
                "a filter of {nodes} conditions with {operands} ids and values: at most {MAX_NODES} with {MAX_OPERANDS}; \
                 ask in several calls"
            )))
        } else {
            Ok(())
        }
    }

    fn check_node(&self, depth: usize, nodes: &mut usize, operands: &mut usize) -> Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::internal(format!("a filter of more than {MAX_DEPTH} levels")));
        };
        *nodes += 1;
        match self {
            Self::All | Self::After(_) => Ok(()),
            Self::Ids(ids) => {
                *operands += ids.len();
                Ok(())
            }
            Self::Field(path, predicate) => {
                let values: &[Scalar] = match predicate {
                    Predicate::In(values) => values,
                    Predicate::Below(value, _) | Predicate::Above(value, _) | Predicate::Has(value) => {
                        std::slice::from_ref(value)
                    }
                    Predicate::Exists
                    | Predicate::StartsWith(_)
                    | Predicate::Contains(_)
                    | Predicate::Type(_) => &[],
                };
                if let Predicate::Contains(needle) = predicate {
                    needle.check()?;
                }
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

    /// Whether a document matches. This defines what a filter means.
    pub(in super::super) fn matches(&self, document: &Document) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&document.id),
            Self::After(id) => document.id > *id,
            Self::Field(path, predicate) => predicate.holds(lookup(&document.fields, path)),
            Self::And(filters) => filters.iter().all(|filter| filter.matches(document)),
            Self::Or(filters) => filters.iter().any(|filter| filter.matches(document)),
            Self::Not(filter) => !filter.matches(document),
        }
    }

    /// The only ids that can match, if the filter names them.
    pub(in super::super) fn ids(&self) -> Option<&[String]> {
        match self {
            Self::Ids(ids) => Some(ids),
            Self::And(filters) => filters.iter().find_map(Self::ids),
            _ => None,
        }
    }

    /// Whether all documents that match have values of one type at a path.
    #[cfg(feature = "sqlite")]
    pub(in super::super) fn leaves_one_type(&self, path: &str) -> bool {
        match self {
            Self::Field(of, Predicate::Below(value, _) | Predicate::Above(value, _)) => {
                of == path && *value != Scalar::Null
            }
            Self::Field(of, Predicate::Type(types)) => of == path && types.len() == 1,
            Self::And(filters) => filters.iter().any(|filter| filter.leaves_one_type(path)),
            _ => false,
        }
    }

    /// An id that is less than every id that can match, if the filter names one.
    pub(in super::super) fn after(&self) -> Option<&str> {
        match self {
            Self::After(id) => Some(id),
            Self::And(filters) => filters.iter().find_map(Self::after),
            _ => None,
        }
    }
}

impl Predicate {
    fn holds(&self, value: Option<&Value>) -> bool {
        let key = SortKey::of(value);
        match self {
            Self::In(values) => {
                values.iter().any(|other| key.compare(&SortKey::from(other)) == Some(Ordering::Equal))
            }
            Self::Below(other, bound) => match key.compare(&SortKey::from(other)) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => *bound == Bound::Included,
                _ => false,
            },
            Self::Above(other, bound) => match key.compare(&SortKey::from(other)) {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => *bound == Bound::Included,
                _ => false,
            },
            Self::Exists => value.is_some(),
            Self::StartsWith(prefix) => {
                matches!(key, SortKey::Text(text) if text.starts_with(prefix.as_str()))
            }
            Self::Contains(needle) => matches!(key, SortKey::Text(text) if needle.is_in(text)),
            Self::Has(element) => {
                let element = SortKey::from(element);
                value.and_then(Value::as_array).is_some_and(|elements| {
                    let equal = |value| SortKey::of(Some(value)).compare(&element) == Some(Ordering::Equal);
                    elements.iter().any(equal)
                })
            }
            Self::Type(types) => types.contains(&key.type_of()),
        }
    }
}

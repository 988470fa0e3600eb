//! The questions that can be put to a store, and the one meaning they have. It reads no storage.
//!
//! A query is a small tree of types, never a text, so that nothing can be injected into it. Every engine must
//! answer as the functions of this file do:
//!
//! * A **path** is `city` or `address.city`: it goes through objects only. An array has no fields, so
//!   `tags.0` finds nothing in it. A segment is not empty, does not begin with `$`, and has no dot, quote,
//!   backslash or control character; a field with such a name can be stored, and cannot be asked for.
//! * A **comparison** holds only between values of one type: a number is never less than a text. An object
//!   or an array equals and precedes nothing. `eq(null)` holds where the field is null *or* missing;
//!   `exists` tells the two apart. `ne` is `not(eq)`, so it holds where the field is missing.
//! * **Numbers** are compared by their value, `1` equals `1.0`, and 64-bit integers and floats exactly. A
//!   stored integer above 2⁶³−1 counts as the nearest float. (SQLite reads a float of more than about 10⁶⁰
//!   or less than 10⁻⁶⁰ up to two units off in its last place, so that two neighbours there may be equal.)
//! * **Texts** are compared byte by byte in UTF-8: no letter case, no language, no Unicode form.
//! * A **sort** puts null and missing first, then numbers, texts, objects, arrays, `false`, `true` (MongoDB's
//!   order of types). Two objects tie, and two arrays. Ties, and a query without sort, are in the order of
//!   the id, bytewise.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{Body, Document};
use crate::platform::error::{Error, Result};

/// The deepest nesting of a filter; each level is a level of recursion here and of parentheses in SQL.
pub const MAX_DEPTH: usize = 32;
/// The most conditions in a filter: SQLite stops at an expression 1,000 levels deep, and a chain of n `AND`s
/// is n levels.
pub const MAX_NODES: usize = 256;
/// The most ids and values in a filter: SQLite stops at 32,766 parameters, PostgreSQL at 65,535.
pub const MAX_OPERANDS: usize = 10_000;
/// The most fields in a sort: MongoDB's limit.
pub const MAX_SORT: usize = 32;
/// The most bytes in a path: enough for names that people write.
pub const MAX_PATH: usize = 256;

/// A value that a field can be compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Null, or no field at all.
    Null,
    /// A truth value; `false` is less than `true`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; one that is not finite is refused.
    Float(f64),
    /// A text.
    Text(String),
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i32> for Scalar {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u32> for Scalar {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Scalar {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Scalar>> From<Option<T>> for Scalar {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl TryFrom<Value> for Scalar {
    type Error = Error;

    /// `BadRequest` for an object, an array and an integer above 2⁶³−1.
    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::Null => Ok(Self::Null),
            Value::Bool(value) => Ok(Self::Bool(value)),
            Value::Number(value) => match (value.as_i64(), value.as_u64(), value.as_f64()) {
                (Some(value), _, _) => Ok(Self::Int(value)),
                (None, None, Some(value)) => Ok(Self::Float(value)),
                _ => Err(Error::bad_request("Number Out Of Range")),
            },
            Value::String(value) => Ok(Self::Text(value)),
            Value::Array(_) | Value::Object(_) => Err(Error::bad_request("Not A Single Value")),
        }
    }
}

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
        match nodes > MAX_NODES || operands > MAX_OPERANDS {
            true => Err(Error::bad_request("Filter Too Large")),
            false => Ok(()),
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
    pub(super) fn matches(&self, document: &Document) -> bool {
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
    pub(super) fn ids(&self) -> Option<&[String]> {
        match self {
            Self::Ids(ids) => Some(ids),
            Self::And(filters) => filters.iter().find_map(Self::ids),
            _ => None,
        }
    }

    /// The id after which the documents of this filter lie, where it says so.
    pub(super) fn after(&self) -> Option<&str> {
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

/// The order of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sort(Vec<(String, Direction)>);

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Least first.
    Ascending,
    /// Greatest first; ties are still by ascending id.
    Descending,
}

impl Sort {
    /// By id alone.
    pub fn by_id() -> Self {
        Self::default()
    }

    /// By the value at a path, then by id.
    pub fn by(path: impl Into<String>, direction: Direction) -> Self {
        Self::default().then(path, direction)
    }

    /// And where that ties, by the value at another path.
    pub fn then(mut self, path: impl Into<String>, direction: Direction) -> Self {
        self.0.push((path.into(), direction));
        self
    }

    /// The paths, the first to count first.
    pub fn fields(&self) -> &[(String, Direction)] {
        &self.0
    }

    /// `BadRequest` when a path is none or there are more than [`MAX_SORT`].
    pub fn check(&self) -> Result<()> {
        match self.0.len() > MAX_SORT {
            true => Err(Error::bad_request("Sort Too Long")),
            false => self.0.iter().try_for_each(|(path, _)| check_path(path)),
        }
    }

    fn compare(&self, left: &Document, right: &Document) -> Ordering {
        let fields = self.0.iter().map(|(path, direction)| {
            let order = Key::of(lookup(&left.body, path)).order(&Key::of(lookup(&right.body, path)));
            if *direction == Direction::Descending { order.reverse() } else { order }
        });
        fields.fold(Ordering::Equal, Ordering::then).then_with(|| left.id.cmp(&right.id))
    }
}

/// Which part of an answer is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many documents are left out at its beginning.
    pub offset: u64,
    /// How many follow at most; `None` is all.
    pub limit: Option<u64>,
}

impl Page {
    /// The whole answer.
    pub fn all() -> Self {
        Self::default()
    }

    /// The first documents of the answer.
    pub fn first(limit: u64) -> Self {
        Self { offset: 0, limit: Some(limit) }
    }
}

/// All that a store is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which documents.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// Which part of them.
    pub page: Page,
}

/// The answer to a query from documents that come in the order of their ids: the meaning of a query.
pub(super) fn select<D: Borrow<Document>>(documents: impl Iterator<Item = D>, query: &Query) -> Vec<D> {
    let offset = usize::try_from(query.page.offset).unwrap_or(usize::MAX);
    let limit = query.page.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let matching = documents.filter(|document| query.filter.matches(document.borrow()));
    if query.sort.fields().is_empty() {
        return matching.skip(offset).take(limit).collect();
    }
    let mut sorted: Vec<D> = matching.collect();
    sorted.sort_by(|left, right| query.sort.compare(left.borrow(), right.borrow()));
    sorted.into_iter().skip(offset).take(limit).collect()
}

/// Whether a text is a path; `const`, so that an index can be checked while it is compiled.
pub(super) const fn is_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PATH {
        return false;
    }
    let (mut at, mut begins) = (0, true);
    while at < bytes.len() {
        match bytes[at] {
            b'.' | b'$' if begins => return false,
            b'"' | b'\\' | 0..=0x1f | 0x7f => return false,
            byte => begins = byte == b'.',
        }
        at += 1;
    }
    !begins
}

/// `BadRequest` when a text is no path.
pub(super) fn check_path(path: &str) -> Result<()> {
    match is_path(path) {
        true => Ok(()),
        false => Err(Error::bad_request("Invalid Field Path")),
    }
}

fn lookup<'a>(body: &'a Body, path: &str) -> Option<&'a Value> {
    let mut segments = path.split('.');
    let first = body.get(segments.next()?)?;
    segments.try_fold(first, |value, segment| value.as_object()?.get(segment))
}

/// What of a value counts in a comparison; the variants stand in the order of a sort.
enum Key<'a> {
    Nothing,
    Number(Cow<'a, Number>),
    Text(&'a str),
    Object,
    Array,
    Bool(bool),
}

impl<'a> Key<'a> {
    fn of(value: Option<&'a Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Nothing,
            Some(Value::Number(number)) => Self::Number(Cow::Borrowed(number)),
            Some(Value::String(text)) => Self::Text(text),
            Some(Value::Object(_)) => Self::Object,
            Some(Value::Array(_)) => Self::Array,
            Some(Value::Bool(value)) => Self::Bool(*value),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
            Self::Object => 3,
            Self::Array => 4,
            Self::Bool(_) => 5,
        }
    }

    /// The order of a sort.
    fn order(&self, other: &Key<'_>) -> Ordering {
        match (self, other) {
            (Self::Number(left), Key::Number(right)) => compare_numbers(left, right),
            (Self::Text(left), Key::Text(right)) => left.cmp(right),
            (Self::Bool(left), Key::Bool(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// The order of a filter: there is none between types. (No operand is an object or an array.)
    fn compare(&self, other: &Key<'_>) -> Option<Ordering> {
        (self.rank() == other.rank()).then(|| self.order(other))
    }
}

impl<'a> From<&'a Scalar> for Key<'a> {
    fn from(scalar: &'a Scalar) -> Self {
        match scalar {
            Scalar::Null => Self::Nothing,
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Int(value) => Self::Number(Cow::Owned(Number::from(*value))),
            // A number that is not finite has been refused.
            Scalar::Float(value) => {
                Number::from_f64(*value).map_or(Self::Nothing, |n| Self::Number(Cow::Owned(n)))
            }
            Scalar::Text(text) => Self::Text(text),
        }
    }
}

fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => compare_with_float(left, float(right)),
        (None, Some(right)) => compare_with_float(right, float(left)).reverse(),
        (None, None) => float(left).partial_cmp(&float(right)).unwrap_or(Ordering::Equal),
    }
}

/// Every number of `serde_json` is one, without its feature `arbitrary_precision`.
fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// Compares without rounding the integer, which a float holds exactly up to 2⁵³ only.
fn compare_with_float(integer: i64, float: f64) -> Ordering {
    /// 2⁶³: the first float above every `i64`.
    const ABOVE: f64 = 9_223_372_036_854_775_808.0;
    if float >= ABOVE {
        return Ordering::Less;
    }
    if float < -ABOVE {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "a whole float from -2^63 to below 2^63 is an i64")]
    let order = integer.cmp(&(whole as i64));
    order.then(whole.partial_cmp(&float).unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests;

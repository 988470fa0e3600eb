//! How two values compare, in a sort and in a filter.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::super::Fields;
use super::scalar::Scalar;

/// The value at a path.
pub(in super::super) fn lookup<'a>(fields: &'a Fields, path: &str) -> Option<&'a Value> {
    let mut segments = path.split('.');
    let first = fields.get(segments.next()?)?;
    segments.try_fold(first, |value, segment| value.as_object()?.get(segment))
}

/// Whether two values are equal: scalars as in a filter, arrays and objects when all that is in them is.
pub(in super::super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(key, value)| other.get(key).is_some_and(|other| equal(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => SortKey::of(Some(one)).compare(&SortKey::of(Some(other))) == Some(Ordering::Equal),
    }
}

/// The type of a value. The variants are in the order of a sort, and their numbers are its ranks in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// Null, or a missing field.
    Null,
    /// A number.
    Number,
    /// A text.
    Text,
    /// An object.
    Object,
    /// An array.
    Array,
    /// `false` or `true`.
    Bool,
}

impl Type {
    /// All types, in the order of a sort.
    pub const ALL: [Self; 6] = [Self::Null, Self::Number, Self::Text, Self::Object, Self::Array, Self::Bool];

    /// The type of a value.
    pub fn of(value: &Value) -> Self {
        SortKey::of(Some(value)).type_of()
    }
}

/// The part of a value that is compared.
pub(super) enum SortKey<'a> {
    Null,
    Number(Cow<'a, Number>),
    Text(&'a str),
    Object,
    Array,
    Bool(bool),
}

impl<'a> SortKey<'a> {
    pub(super) fn of(value: Option<&'a Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Null,
            Some(Value::Number(number)) => Self::Number(Cow::Borrowed(number)),
            Some(Value::String(text)) => Self::Text(text),
            Some(Value::Object(_)) => Self::Object,
            Some(Value::Array(_)) => Self::Array,
            Some(Value::Bool(value)) => Self::Bool(*value),
        }
    }

    pub(super) fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Number(_) => Type::Number,
            Self::Text(_) => Type::Text,
            Self::Object => Type::Object,
            Self::Array => Type::Array,
            Self::Bool(_) => Type::Bool,
        }
    }

    /// The order in a sort.
    pub(super) fn order(&self, other: &SortKey<'_>) -> Ordering {
        match (self, other) {
            (Self::Number(left), SortKey::Number(right)) => compare_numbers(left, right),
            (Self::Text(left), SortKey::Text(right)) => left.cmp(right),
            (Self::Bool(left), SortKey::Bool(right)) => left.cmp(right),
            _ => self.type_of().cmp(&other.type_of()),
        }
    }

    /// The order in a filter: `None` between types. (No operand is an object or an array.)
    pub(super) fn compare(&self, other: &SortKey<'_>) -> Option<Ordering> {
        (self.type_of() == other.type_of()).then(|| self.order(other))
    }
}

impl<'a> From<&'a Scalar> for SortKey<'a> {
    fn from(scalar: &'a Scalar) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Int(value) => Self::Number(Cow::Owned(Number::from(*value))),
            // Infinity and NaN were refused before.
            Scalar::Float(value) => {
                Number::from_f64(*value).map_or(Self::Null, |n| Self::Number(Cow::Owned(n)))
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

/// The nearest float. Every number of `serde_json` has one, without its feature `arbitrary_precision`.
fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// Compares without rounding the integer: floats hold integers exactly only up to 2⁵³.
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
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float without fraction, from -2^63 to below 2^63, is an i64"
    )]
    let order = integer.cmp(&(whole as i64));
    order.then(whole.partial_cmp(&float).unwrap_or(Ordering::Equal))
}

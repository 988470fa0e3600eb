//! The value of a field that a handler, an event or a span adds to a record.

use super::escape;

/// The value of a custom field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text of any content; it is escaped when it is written.
    Text(String),
    /// A whole number that may be below zero.
    Int(i64),
    /// A whole number.
    Uint(u64),
    /// Any other number; infinities and NaN are written as `null`.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Bytes, of a header for example; a byte that is not UTF-8 is written as `\xNN`.
impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Text(escape::lossy(bytes).into_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Uint(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Uint(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

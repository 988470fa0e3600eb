//! What a handler or a span adds to a record: a name and one of these.

use super::escape;

/// The value of an added field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text, of anybody: it is escaped when it is written.
    Text(String),
    /// A whole number that may be below zero.
    Int(i64),
    /// A whole number.
    Uint(u64),
    /// Any other number; what is not finite is written as `null`.
    Float(f64),
    /// Yes or no.
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

/// Bytes of a header or a body; what is not UTF-8 is shown as `\xNN`.
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
    fn from(answer: bool) -> Self {
        Self::Bool(answer)
    }
}

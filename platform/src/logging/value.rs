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

macro_rules! from_integers {
    ($variant:ident($wide:ty): $($integer:ty)*) => {$(
        impl From<$integer> for Value {
            fn from(number: $integer) -> Self {
                // No machine has a `usize` of more than 64 bits.
                Self::$variant(<$wide>::try_from(number).unwrap_or(<$wide>::MAX))
            }
        }
    )*};
}

from_integers!(Int(i64): i8 i16 i32 i64 isize);
from_integers!(Uint(u64): u8 u16 u32 u64 usize);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_keeps_its_value() {
        let signed: [Value; 6] =
            [i8::MIN.into(), i16::MIN.into(), i32::MIN.into(), i64::MIN.into(), (-1_isize).into(), 7.into()];
        let kept = [i8::MIN.into(), i16::MIN.into(), i32::MIN.into(), i64::MIN, -1, 7];
        assert_eq!(signed, kept.map(Value::Int));
        let unsigned: [Value; 5] =
            [u8::MAX.into(), u16::MAX.into(), u32::MAX.into(), u64::MAX.into(), 1_usize.into()];
        assert_eq!(
            unsigned,
            [u8::MAX.into(), u16::MAX.into(), u32::MAX.into(), u64::MAX, 1].map(Value::Uint)
        );
    }
}

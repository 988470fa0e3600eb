//! The operands of a filter: scalars only, so that an operand from a caller can never be a query.

use serde_json::Value;

use crate::error::{Error, Result};

/// A value that a field can be compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Null, or a missing field.
    Null,
    /// `false` is less than `true`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Any other number. Infinity and NaN are refused.
    Float(f64),
    /// A text.
    Text(String),
}

macro_rules! operands {
    ($($of:ty => $variant:ident),*) => {
        $(impl From<$of> for Scalar {
            fn from(value: $of) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

operands! {
    bool => Bool, i32 => Int, u32 => Int, i64 => Int, f64 => Float, &str => Text, &String => Text, String => Text
}

impl From<u64> for Scalar {
    /// A number above 2⁶³−1 becomes the nearest float, as a stored one does in a comparison (see [`query`](super)).
    fn from(value: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "the nearest float is meant")]
        i64::try_from(value).map_or(Self::Float(value as f64), Self::Int)
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

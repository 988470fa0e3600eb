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

impl From<u64> for Scalar {
    /// A number above 2⁶³−1 becomes the nearest float, as a stored one does in a comparison (see [`query`](super)).
    fn from(value: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "the nearest float is meant")]
        i64::try_from(value).map_or(Self::Float(value as f64), Self::Int)
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

impl From<&String> for Scalar {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
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

//! What a handler takes: a JSON body, the bytes of a body, a `Dao<T>`.

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::context;
use crate::platform::error::{Error, FieldError, Result};
use crate::platform::services::Services;
use crate::platform::store::{Dao, Entity};

/// A JSON body, read whatever its content type says (`curl -d` sends a form type) and checked against the
/// route's schema; as an answer, the value as JSON.
///
/// # Errors
///
/// 400 `Invalid JSON body` for what is not JSON or not of type `T`, 400 `JSON Schema validation failed` with
/// all field errors, 408 and 413 for a body that is too slow or too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// The bytes of a body, within the limits of the route. Use it in place of axum's `Bytes`, which has a limit
/// of its own.
#[derive(Clone, Debug)]
pub struct RawBody(pub Bytes);

const INVALID: &str = "Invalid JSON body";

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts, body).await?;
        if let Some(place) = inexact_number(&bytes) {
            let message =
                format!("the number at byte {place} has more digits than are kept; send it as a string");
            return Err(invalid(String::new(), message));
        }
        let schema = context::of(&parts)?.route().and_then(|route| route.schema.as_ref());
        let Some(schema) = schema else {
            let mut json = serde_json::Deserializer::from_slice(&bytes);
            let value = serde_path_to_error::deserialize(&mut json).map_err(|error| typed(&error))?;
            json.end().map_err(|error| invalid(String::new(), error.to_string()))?;
            return Ok(Self(value));
        };
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|error| invalid(String::new(), error.to_string()))?;
        schema.check(&document)?;
        serde_path_to_error::deserialize(document).map(Self).map_err(|error| typed(&error))
    }
}

impl<S: Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        read(&parts, body).await.map(Self)
    }
}

impl<T: Entity, S: Sync> FromRequestParts<S> for Dao<T>
where
    Services: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self> {
        Ok(Services::from_ref(state).dao())
    }
}

async fn read(parts: &Parts, body: Body) -> Result<Bytes> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(source) => {
            let failure = context::of(parts)?.take_body_failure();
            Err(failure.unwrap_or_else(|| Error::bad_request("Malformed Request Body").with_source(source)))
        }
    }
}

fn typed(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let mut pointer = String::new();
    for segment in error.path() {
        pointer.push('/');
        pointer.push_str(&segment.to_string().replace('~', "~0").replace('/', "~1"));
    }
    invalid(pointer, error.inner().to_string())
}

fn invalid(pointer: String, message: String) -> Error {
    Error::bad_request(INVALID).with_errors(vec![FieldError { pointer, message }])
}

/// An IEEE 754 double holds any number of up to 15 decimal digits exactly (`f64::DIGITS`), unless it is so close
/// to 0 that digits are lost.
const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// The place of the first number that would not come back as it was sent: an integer beyond 64 bits, or a
/// decimal with more digits than a double holds. What is stored must be what was sent, so it is refused.
fn inexact_number(json: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < json.len() && matches!(json[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                if !is_exact(&json[start..at]) {
                    return Some(start);
                }
            }
            _ => at += 1,
        }
    }
    None
}

fn is_exact(number: &[u8]) -> bool {
    // So short, only an exponent can bring it close to 0.
    if number.len() <= EXACT_DIGITS && !number.contains(&b'-') {
        return true;
    }
    // Not a number at all: the parser says so better.
    let Ok(text) = std::str::from_utf8(number) else { return true };
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return true;
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
    let Ok(value) = text.parse::<f64>() else { return true };
    if digits <= EXACT_DIGITS && (digits == 0 || !value.is_subnormal() && value.abs() > 0.0) {
        return true;
    }
    // Up to 17 digits may still be the shortest form of a double, as a program prints it.
    serde_json::Number::from_f64(value).is_some_and(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_would_change_is_found() {
        for changed in [
            "[1, 123456789012345678901234567890]",
            "{\"a\": 0.12345678901234567890123}",
            "-9223372036854775809000",
            "1.00000000000000000001",
            "1e-400",
            "-1.2345678901e-320",
        ] {
            assert!(inexact_number(changed.as_bytes()).is_some(), "{changed}");
        }
        assert_eq!(inexact_number(b"[1, 123456789012345678901234567890]"), Some(4));
    }

    #[test]
    fn a_number_that_comes_back_and_digits_in_a_string_are_left_alone() {
        for kept in [
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "1e300",
            "0.30000000000000004",
            "\"123456789012345678901234567890\"",
            "\"\\\"123456789012345678901234567890\"",
            "1.0000000000",
            "-1",
            "-0.0",
            "0e-999",
            "-1.5e-300",
            "-1e999",
            "5e-324",
            "\"unfinished",
            "\"\\",
        ] {
            assert_eq!(inexact_number(kept.as_bytes()), None, "{kept}");
        }
    }
}

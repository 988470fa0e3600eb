//! `Path<T>` and `Query<T>`: axum's extractors, with errors in the shape of the other extractors: what is wrong has the
//! name of its parameter.

use std::borrow::Cow;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, OptionalFromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::message;
use crate::error::{Error, FieldError, Result};
use crate::json;

/// The parameters of the path, by name into a struct or by position into a value or a tuple.
///
/// # Errors
///
/// 400 `Invalid Path` that names the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<T>(pub T);

/// The parameters of the query string, by name into a struct. One that may be missing is an `Option`, or has
/// `#[serde(default)]`; one that may be there several times is a `Vec`. Others are ignored, unless the struct has
/// `#[serde(deny_unknown_fields)]`.
///
/// # Errors
///
/// 400 `Invalid Query String` that names the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                let all = RawPathParams::from_request_parts(parts, state).await.ok();
                Err(path_error(rejection, all.as_ref()))
            }
        }
    }
}

/// For a handler of several routes: `None` where the path has no parameters.
impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> OptionalFromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>> {
        let all = RawPathParams::from_request_parts(parts, state).await.ok();
        if all.is_some_and(|all| all.iter().next().is_none()) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let query = parts.uri.query().unwrap_or_default();
        let parsed = from_pairs(query.as_bytes());
        parsed.map(Self).map_err(|FieldError { pointer, message }| invalid_query(pointer, message))
    }
}

/// The pairs of a query string or of a form as a value, or what is wrong with which of them.
pub(super) fn from_pairs<T: DeserializeOwned>(text: &[u8]) -> Result<T, FieldError> {
    let pairs = serde_html_form::Deserializer::new(form_urlencoded::parse(text));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let FieldError { pointer, message } = message::of_serde(&error);
        // serde_html_form says that it is a list, or an unsupported value.
        let named = |(name, _): &(Cow<'_, str>, _)| pointer.get(1..) == Some(name);
        let is_twice = form_urlencoded::parse(text).filter(named).nth(1).is_some();
        FieldError { message: if is_twice { TWICE.to_owned() } else { message }, pointer }
    })
}

/// What is wrong with a parameter that is there several times and may be there once.
pub(crate) const TWICE: &str = "is given more than once";

/// The error of a wrong query string; the pointer names the parameter, or is empty.
pub(crate) fn invalid_query(pointer: String, message: String) -> Error {
    Error::bad_request("Invalid Query String").with_errors(vec![FieldError { pointer, message }])
}

/// The error of a wrong path, from the parameters that it has.
fn path_error(rejection: PathRejection, all: Option<&RawPathParams>) -> Error {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return Error::internal(rejection);
    };
    let at = |index| {
        let name = all.and_then(|all| all.iter().nth(index)).map(|(name, _)| name.to_owned());
        name.unwrap_or_default()
    };
    let not_a = |value: &str, expected: &str| format!("'{value}' is not {}", json::type_name(expected));
    let (name, message) = match failed.kind() {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => {
            (key.clone(), not_a(value, expected_type))
        }
        ErrorKind::ParseErrorAtIndex { index, value, expected_type } => {
            (at(*index), not_a(value, expected_type))
        }
        ErrorKind::ParseError { value, expected_type } => (at(0), not_a(value, expected_type)),
        ErrorKind::InvalidUtf8InPathParam { key } => (key.clone(), "is not UTF-8".to_owned()),
        ErrorKind::DeserializeError { key, message, .. } => (key.clone(), message.clone()),
        ErrorKind::Message(message) => (String::new(), message.clone()),
        // The handler and its route do not agree.
        _ => return Error::internal(failed),
    };
    let mut pointer = String::new();
    if !name.is_empty() {
        json::push_segment(&mut pointer, &name);
    }
    Error::bad_request("Invalid Path").with_errors(vec![FieldError { pointer, message }])
}

//! Conditional requests on the version of a stored value: `ETag`, `If-Match` and `If-None-Match: *` (RFC 9110, sections
//! 8.8.3 and 13.1).
//!
//! The entity tag of a value is its version, `"3"`: a client that sends it back in `If-Match` changes the value only while
//! nobody else has. A compressed response has the weak form of the tag, `W/"3"`; it names the same version, so `If-Match`
//! takes it too.

use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Json;
use crate::error::{Error, Kind, Result};
use crate::store::{Expected, Stored};

/// The conditions of a request that changes a stored value. As an argument of a handler:
///
/// ```no_run
/// # use platform::error::{Error, Result};
/// # use platform::http::{Changed, Json, Path, Precondition};
/// # use platform::store::{Dao, Entity};
/// # #[derive(serde::Deserialize, serde::Serialize)] struct Task {}
/// # impl Entity for Task { const COLLECTION: &'static str = "tasks"; }
/// async fn update(
///     tasks: Dao<Task>,
///     Path(id): Path<String>,
///     precondition: Precondition,
///     Json(task): Json<Task>,
/// ) -> Result<Changed> {
///     let replaced = tasks.replace(&id, precondition.expected(), &task).await;
///     let version = precondition.apply(replaced)?.ok_or_else(|| Error::not_found("No Such Task"))?;
///     Ok(Changed::to(version))
/// }
/// ```
///
/// # Errors
///
/// 400 `Invalid Precondition` for a header that is no list of entity tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The versions of `If-Match`; none where it is not there, or is `*`.
    versions: Option<Vec<u64>>,
    /// `If-None-Match: *`.
    create_only: bool,
}

impl<S: Sync> FromRequestParts<S> for Precondition {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::of(&parts.headers)
    }
}

impl Precondition {
    fn of(headers: &HeaderMap) -> Result<Self> {
        let if_match = tags(headers, &IF_MATCH)?;
        let if_none_match = tags(headers, &IF_NONE_MATCH)?;
        Ok(Self {
            versions: if_match.filter(|tags| !tags.contains(&"*")).map(|tags| {
                // A tag that is no version of ours matches none.
                tags.iter().filter_map(|tag| tag.parse().ok()).collect()
            }),
            create_only: if_none_match.is_some_and(|tags| tags.contains(&"*")),
        })
    }

    /// The version that the value must have.
    pub fn expected(&self) -> Expected {
        match &self.versions {
            None => Expected::Any,
            Some(versions) => Expected::OneOf(versions.clone()),
        }
    }

    /// Whether the request is to create a value, and not to replace one (`If-None-Match: *`).
    pub fn is_create_only(&self) -> bool {
        self.create_only
    }

    /// The result of the write, with 412 `Precondition Failed` in place of the conflict that the condition has caused.
    pub fn apply<T>(&self, written: Result<T>) -> Result<T> {
        written.map_err(|error| match error.kind() {
            Kind::Conflict if self.versions.is_some() || self.create_only => {
                let message =
                    if self.create_only { "It exists already" } else { "It has another version now" };
                Error::precondition_failed().with_message(message)
            }
            _ => error,
        })
    }
}

/// The entity tags of a header, without their quotes; `*` stands for itself.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Vec<&'a str>>> {
    let mut tags = Vec::new();
    for line in headers.get_all(name) {
        let invalid = || {
            let message = format!("{name} is not a list of entity tags such as \"3\"");
            Error::bad_request("Invalid Precondition").with_message(message)
        };
        for tag in line.to_str().map_err(|_| invalid())?.split(',').map(str::trim) {
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            tags.push(if tag == "*" { tag } else { opaque.ok_or_else(invalid)? });
        }
    }
    Ok(if tags.is_empty() { None } else { Some(tags) })
}

/// The entity tag of a version.
fn tag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A value as JSON, with its version as `ETag`.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    version: u64,
    value: T,
}

impl<T> Versioned<T> {
    /// A value that is this version of what is stored.
    pub fn new(version: u64, value: T) -> Self {
        Self { version, value }
    }
}

impl<T> From<Stored<T>> for Versioned<T> {
    fn from(stored: Stored<T>) -> Self {
        Self::new(stored.version, stored.value)
    }
}

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.value).into_response();
        response.headers_mut().insert(ETAG, tag(self.version));
        response
    }
}

/// 204 after a change, with the new version as `ETag`.
#[derive(Clone, Copy, Debug)]
pub struct Changed(u64);

impl Changed {
    /// The version that the value has now.
    pub fn to(version: u64) -> Self {
        Self(version)
    }
}

impl IntoResponse for Changed {
    fn into_response(self) -> Response {
        (StatusCode::NO_CONTENT, [(ETAG, tag(self.0))]).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(HeaderName, &'static str)]) -> Result<Precondition> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        Precondition::of(&headers)
    }

    #[test]
    fn if_match_names_versions_and_a_star_names_any() {
        let versions = |lines: &[(HeaderName, &'static str)]| of(lines).unwrap().expected();
        assert_eq!(versions(&[]), Expected::Any);
        assert_eq!(versions(&[(IF_MATCH, "*")]), Expected::Any);
        assert_eq!(versions(&[(IF_MATCH, "\"3\"")]), Expected::OneOf(vec![3]));
        assert_eq!(versions(&[(IF_MATCH, "W/\"3\", \"4\"")]), Expected::OneOf(vec![3, 4]));
        assert_eq!(versions(&[(IF_MATCH, "\"3\""), (IF_MATCH, "\"4\"")]), Expected::OneOf(vec![3, 4]));
        assert_eq!(versions(&[(IF_MATCH, "\"another\"")]), Expected::OneOf(vec![]));
        assert!(of(&[(IF_NONE_MATCH, "*")]).unwrap().is_create_only());
        assert!(!of(&[(IF_NONE_MATCH, "\"3\"")]).unwrap().is_create_only());
        for wrong in ["3", "\"3", "\"3\" \"4\"x", ""] {
            assert_eq!(of(&[(IF_MATCH, wrong)]).unwrap_err().reason(), "Invalid Precondition", "{wrong}");
        }
    }

    #[test]
    fn only_a_conflict_of_a_conditional_request_is_412() {
        let conditional = of(&[(IF_MATCH, "\"3\"")]).unwrap();
        let kind = |precondition: &Precondition, error: Error| {
            precondition.apply::<()>(Err(error)).unwrap_err().kind()
        };
        assert_eq!(kind(&conditional, Error::conflict("Version Conflict")), Kind::PreconditionFailed);
        assert_eq!(kind(&conditional, Error::not_found("No Such Thing")), Kind::NotFound);
        assert_eq!(kind(&Precondition::default(), Error::conflict("Version Conflict")), Kind::Conflict);
    }
}

//! A value that is never printed: neither by `Debug`, nor in `server config`, nor in a log.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is shown in place of a secret.
pub const MASK: &str = "***";

/// A password, token or key. The only way to read it is [`Secret::expose`].
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; the call is easy to find in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { MASK })
    }
}

/// A URL with the password between `:` and `@` replaced, for logs and for `server config`.
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((user_info, host)) => match user_info.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:{MASK}@{host}{tail}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_as_three_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_url_keeps_all_but_its_password() {
        assert_eq!(mask_url("mongodb://ada:pw@h:27017/db"), "mongodb://ada:***@h:27017/db");
        assert_eq!(mask_url("mongodb://ada:p@w@h/db"), "mongodb://ada:***@h/db");
        assert_eq!(mask_url("sqlite:var/server.sqlite"), "sqlite:var/server.sqlite");
    }
}

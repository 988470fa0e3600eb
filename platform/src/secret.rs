//! A value that is never printed: not by `Debug`, not in `server config`, not in a log.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Shown instead of a secret.
pub const MASK: &str = "***";

/// A password, token or key. The only way to read it is [`Secret::expose`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. A reviewer can search for the name of this method.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this header `Authorization` has the value as its token (RFC 6750, section 2.1); never for an empty one. Hashes are
    /// compared: how long that takes tells nothing of the value.
    pub fn is_bearer(&self, authorization: Option<&str>) -> bool {
        let given =
            authorization.and_then(|value| value.strip_prefix("Bearer ")).filter(|_| !self.is_empty());
        given.is_some_and(|given| Sha256::digest(given.as_bytes()) == Sha256::digest(self.0.as_bytes()))
    }

    /// True when the value is empty: no secret is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Not derived, because the derived error quotes the value that it refuses: `password: 1234` would be in it.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in quotes")
            }
            fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("expected text in quotes"))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("expected text in quotes"))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom("expected text in quotes"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("expected text in quotes"))
            }
        }
        // `deserialize_any`, because with `deserialize_str` the format refuses a number itself, and quotes it.
        deserializer.deserialize_any(Text)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { MASK })
    }
}

/// A URL whose password is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct MaskedUrl(String);

impl MaskedUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MaskedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What follows the scheme of something local is a path: it may hold any character, and no password. After two
        // slashes, it may be the URL of a server with the wrong scheme.
        let is_local = ["sqlite:", "file:"].iter().any(|scheme| {
            self.0.strip_prefix(scheme).is_some_and(|rest| !rest.starts_with("//") || rest.starts_with("///"))
        });
        f.write_str(&if is_local { self.0.clone() } else { mask_url(&self.0) })
    }
}

impl fmt::Debug for MaskedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MaskedUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The URL with its secrets masked, for logs and for `server config`. Masked are the text between the first `:` and the
/// last `@`, because a password can hold any character, and the values of the query, because libpq and MongoDB accept
/// passwords there. A text that is not a URL may be one with a typing error, so it is masked in the same way.
pub fn mask_url(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let scheme = &url[..url.len() - rest.len()];
    let user = rest.rsplit_once('@').and_then(|(user_info, host)| Some((user_info.split_once(':')?.0, host)));
    let open = user.map_or_else(|| mask_port(scheme, rest), |(user, host)| format!("{user}:{MASK}@{host}"));
    match open.split_once('?') {
        Some((address, query)) if !scheme.is_empty() => {
            let masked = query.split('&').map(|pair| match pair.split_once('=') {
                Some((key, _)) => format!("{key}={MASK}"),
                None => pair.to_owned(),
            });
            format!("{scheme}{address}?{}", masked.collect::<Vec<_>>().join("&"))
        }
        _ => format!("{scheme}{open}"),
    }
}

/// The rest of a URL without a user. What stands for its port and is no number may be the password of a URL whose `@HOST`
/// was forgotten.
fn mask_port(scheme: &str, rest: &str) -> String {
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match authority.split_once(':') {
        Some((user, password))
            if !scheme.is_empty()
                && !user.starts_with('[')
                && !authority.contains(',')
                && !password.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            format!("{user}:{MASK}{path}")
        }
        _ => rest.to_owned(),
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
    fn a_secret_that_is_refused_is_not_quoted() {
        for value in [serde_json::json!(1234), serde_json::json!(-1234), serde_json::json!(1234.5)] {
            let error = serde_json::from_value::<Secret>(value).unwrap_err().to_string();
            assert_eq!(error, "expected text in quotes");
        }
        let secret: Secret = serde_json::from_value(serde_json::json!("1234")).unwrap();
        assert_eq!(secret.expose(), "1234");
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(mask_url("mongodb://ada:pw@h:27017/db"), "mongodb://ada:***@h:27017/db");
        assert_eq!(mask_url("mongodb://ada:p@w@h/db"), "mongodb://ada:***@h/db");
        assert_eq!(mask_url("mongodb://ada:p/w?@h/db"), "mongodb://ada:***@h/db");
        assert_eq!(mask_url("postgres://h/db?user=ada&password=pw"), "postgres://h/db?user=***&password=***");
        assert_eq!(mask_url("mongodb//ada:pw@h/db"), "mongodb//ada:***@h/db");
        assert_eq!(mask_url("mongodb://ada:hunter2"), "mongodb://ada:***");
        assert_eq!(mask_url("mongodb://ada:hunter2/db"), "mongodb://ada:***/db");
        for open in ["mongodb://h:27017/db", "mongodb://[::1]:1/db", "mongodb://a:1,b:2/db", "redis://h"] {
            assert_eq!(mask_url(open), open);
        }
        for open in ["sqlite:var/server.sqlite", "https://h/@ada", "memory:", "a@b", "what?a=b", "://"] {
            assert_eq!(mask_url(open), open);
        }
    }
}

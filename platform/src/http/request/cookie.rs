//! How cookies are named, read and written: over HTTPS with `Secure` and the prefix `__Host-`, over plain HTTP without.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use cookie::{Cookie, SameSite, time};

use super::context::Context;
use crate::error::{Error, Result};
use crate::services::Services;

/// The prefix with which browsers accept a cookie only over HTTPS, from the host itself, for all of its paths
/// (draft-ietf-httpbis-rfc6265bis, section 4.1.3.2).
const PREFIX: &str = "__Host-";

/// The most bytes of a cookie with its name and attributes, which every browser keeps (RFC 6265, section 6.1).
const MAX_BYTES: usize = 4_096;

/// For whom the cookies of a request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CookieScope {
    secure: bool,
}

impl CookieScope {
    /// HTTPS where `server.public_url` is, or where that is not set and the request has come by it.
    pub(crate) fn of(context: &Context, services: &Services) -> Self {
        Self { secure: services.public_url_is_secure().unwrap_or_else(|| context.is_secure()) }
    }

    /// The name under which a cookie is kept.
    pub(crate) fn name(self, base: &str) -> Cow<'_, str> {
        if self.secure { Cow::Owned(format!("{PREFIX}{base}")) } else { Cow::Borrowed(base) }
    }

    /// The value of a cookie, of the first one where there are several. Over HTTPS, only one with the prefix: the others may
    /// come from a sibling domain or from plain HTTP.
    pub(crate) fn read<'a>(self, headers: &'a HeaderMap, base: &str) -> Option<&'a str> {
        let name = self.name(base);
        let lines = headers.get_all(COOKIE).iter();
        let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        pairs
            .filter_map(|pair| Cookie::parse(std::str::from_utf8(pair).ok()?).ok())
            .find_map(|cookie| (cookie.name() == name).then(|| cookie.value_raw()).flatten())
    }

    /// The header `Set-Cookie`; without an age, the cookie ends with the browser. An error for a name or a value that no
    /// cookie has, or for more than 4,096 bytes.
    pub(crate) fn set(self, base: &str, value: &str, max_age: Option<Duration>) -> Result<HeaderValue> {
        let is_name = !base.is_empty() && base.bytes().all(is_token);
        if !is_name || !value.bytes().all(is_octet) {
            return Err(Error::internal(format!(
                "cookie {base:?}: its name or value has a character that none has"
            )));
        }
        let mut cookie = Cookie::build((self.name(base), value)).path("/").http_only(true);
        cookie = cookie.same_site(SameSite::Lax).secure(self.secure);
        if let Some(age) = max_age {
            cookie = cookie.max_age(time::Duration::try_from(age).map_err(Error::internal)?);
        }
        let text = cookie.build().to_string();
        if text.len() > MAX_BYTES {
            return Err(Error::internal(format!(
                "cookie {base}: {} bytes are more than {MAX_BYTES}",
                text.len()
            )));
        }
        HeaderValue::try_from(text).map_err(Error::internal)
    }

    /// The header `Set-Cookie` that removes a cookie.
    pub(crate) fn remove(self, base: &str) -> Result<HeaderValue> {
        self.set(base, "", Some(Duration::ZERO))
    }
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character of a value (RFC 6265, section 4.1.1).
fn is_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

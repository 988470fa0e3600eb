//! Cookies that only the server can make: signed ones, which their user can read, and encrypted ones.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponseParts, ResponseParts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::{Keys, TAG};
use crate::clock::Clock;
use crate::error::Result;
use crate::http::request::context;
use crate::http::request::cookie::CookieScope;
use crate::services::Services;

/// The format of a value. A later one has another number.
const VERSION: &str = "1";

/// How much the clocks of the machines may differ, in seconds.
const CLOCK_SKEW: i64 = 60;

const SIGNATURE: &str = "cookie signature v1";
const ENCRYPTION: &str = "cookie encryption v1";

/// Signed cookies, as Tornado's `set_signed_cookie`: the user can read a value, but not change it, nor move it to another
/// name. It needs keys, see [`Routes::needs_keys`](crate::http::Routes::needs_keys).
///
/// ```
/// use std::time::Duration;
///
/// use platform::error::Result;
/// use platform::http::{NoContent, SignedCookies};
///
/// async fn theme(mut cookies: SignedCookies) -> Result<(SignedCookies, NoContent)> {
///     const YEAR: Duration = Duration::from_hours(24 * 365);
///     let last = cookies.get("theme", YEAR).unwrap_or_default();
///     cookies.set("theme", if last == "dark" { "light" } else { "dark" }, YEAR)?;
///     Ok((cookies, NoContent))
/// }
/// ```
pub type SignedCookies = Cookies<Signed>;

/// Encrypted cookies: signed ones that their user cannot read.
pub type EncryptedCookies = Cookies<Encrypted>;

/// The cookies of a request, and what its response changes of them. A handler returns it with its response.
#[must_use = "the changes are made by returning it with the response"]
pub struct Cookies<P> {
    headers: HeaderMap,
    scope: CookieScope,
    keys: Keys,
    clock: Clock,
    /// The last change of each name.
    changes: Vec<(String, HeaderValue)>,
    protection: PhantomData<fn() -> P>,
}

/// How values are protected.
pub trait Protection {
    /// The value as it is sent. The context belongs to it.
    #[doc(hidden)]
    fn protect(keys: &Keys, context: &[u8], value: &[u8]) -> Result<Vec<u8>>;

    /// The value that was sent with this context by one who has a key.
    #[doc(hidden)]
    fn recover(keys: &Keys, context: &[u8], sent: &[u8]) -> Option<Vec<u8>>;
}

/// Values with a signature (HMAC-SHA-256).
pub enum Signed {}

/// Values that are encrypted (AES-256-GCM).
pub enum Encrypted {}

impl Protection for Signed {
    fn protect(keys: &Keys, context: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let tag = keys.sign(SIGNATURE, &[context, value].concat())?;
        Ok([value, &tag].concat())
    }

    fn recover(keys: &Keys, context: &[u8], sent: &[u8]) -> Option<Vec<u8>> {
        let (value, tag) = sent.split_last_chunk::<TAG>()?;
        keys.has_signed(SIGNATURE, &[context, value].concat(), tag).then(|| value.to_vec())
    }
}

impl Protection for Encrypted {
    fn protect(keys: &Keys, context: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        keys.encrypt(ENCRYPTION, context, value)
    }

    fn recover(keys: &Keys, context: &[u8], sent: &[u8]) -> Option<Vec<u8>> {
        keys.decrypt(ENCRYPTION, context, sent)
    }
}

impl<P: Protection> Cookies<P> {
    /// The value that the request has, unless it was set longer ago than this. One that was altered, or set under another
    /// name, is none.
    pub fn get(&self, name: &str, max_age: Duration) -> Option<String> {
        let sent = self.scope.read(&self.headers, name)?;
        open::<P>(&self.keys, name, sent, self.clock.now().as_second(), max_age)
    }

    /// Sets a cookie for this time.
    ///
    /// # Errors
    ///
    /// 500 for a name that is no token (RFC 6265), and for a cookie of more than 4,096 bytes.
    pub fn set(&mut self, name: &str, value: &str, age: Duration) -> Result<()> {
        let sent = seal::<P>(&self.keys, name, value, self.clock.now().as_second())?;
        self.change(name, self.scope.set(name, &sent, Some(age))?);
        Ok(())
    }

    /// Removes a cookie. Errors as [`Cookies::set`].
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.change(name, self.scope.remove(name)?);
        Ok(())
    }

    fn change(&mut self, name: &str, header: HeaderValue) {
        self.changes.retain(|(changed, _)| changed != name);
        self.changes.push((name.to_owned(), header));
    }
}

impl<P, S: Sync> FromRequestParts<S> for Cookies<P>
where
    Services: FromRef<S>,
{
    type Rejection = crate::error::Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let services = Services::from_ref(state);
        Ok(Self {
            headers: parts.headers.clone(),
            scope: CookieScope::of(context::of(parts)?, &services),
            keys: services.keys()?.clone(),
            clock: services.clock().clone(),
            changes: Vec::new(),
            protection: PhantomData,
        })
    }
}

impl<P> IntoResponseParts for Cookies<P> {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        for (_, header) in self.changes {
            response.headers_mut().append(SET_COOKIE, header);
        }
        Ok(response)
    }
}

/// What belongs to a value. A name has no spaces, and a time is digits: no two read the same.
fn bound(name: &str, time: i64) -> Vec<u8> {
    format!("{VERSION} {name} {time} ").into_bytes()
}

/// A value as it is sent: `1.TIME.BASE64URL`, with the time in seconds since 1970.
fn seal<P: Protection>(keys: &Keys, name: &str, value: &str, now: i64) -> Result<String> {
    let sent = P::protect(keys, &bound(name, now), value.as_bytes())?;
    Ok(format!("{VERSION}.{now}.{}", URL_SAFE_NO_PAD.encode(sent)))
}

fn open<P: Protection>(keys: &Keys, name: &str, sent: &str, now: i64, max_age: Duration) -> Option<String> {
    let (time, sent) = sent.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
    let time: i64 = time.parse().ok()?;
    let value = P::recover(keys, &bound(name, time), &URL_SAFE_NO_PAD.decode(sent).ok()?)?;
    // Only a time with a signature is looked at.
    let age = now.checked_sub(time)?;
    let is_young = u64::try_from(age).map_or(age >= -CLOCK_SKEW, |age| age <= max_age.as_secs());
    if is_young { String::from_utf8(value).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The control: a signature as that of cookie-rs, which leaves out what belongs to the value.
    enum Unbound {}

    impl Protection for Unbound {
        fn protect(keys: &Keys, _: &[u8], value: &[u8]) -> Result<Vec<u8>> {
            Signed::protect(keys, b"", value)
        }

        fn recover(keys: &Keys, _: &[u8], sent: &[u8]) -> Option<Vec<u8>> {
            Signed::recover(keys, b"", sent)
        }
    }

    /// Whether a value is read under another name, and with another time.
    fn is_moved<P: Protection>() -> (bool, bool) {
        const AGE: Duration = Duration::from_secs(100);
        let keys = Keys::of_test();
        let sent = seal::<P>(&keys, "theme", "ada", 1_000).unwrap();
        assert_eq!(open::<P>(&keys, "theme", &sent, 1_100, AGE).as_deref(), Some("ada"));
        assert_eq!(open::<P>(&keys, "theme", &sent, 1_101, AGE), None);
        let young = sent.replacen("1000", "1500", 1);
        let (user, later) =
            (open::<P>(&keys, "user", &sent, 1_000, AGE), open::<P>(&keys, "theme", &young, 1_500, AGE));
        (user.is_some(), later.is_some())
    }

    #[test]
    fn a_value_belongs_to_its_name_and_its_time() {
        assert_eq!(is_moved::<Signed>(), (false, false));
        assert_eq!(is_moved::<Encrypted>(), (false, false));
        assert_eq!(is_moved::<Unbound>(), (true, true), "the control");
    }

    #[test]
    fn an_encrypted_value_cannot_be_read_and_a_signed_one_can() {
        let keys = Keys::of_test();
        let bytes = |sent: String| URL_SAFE_NO_PAD.decode(sent.rsplit('.').next().unwrap()).unwrap();
        let holds = |bytes: Vec<u8>| bytes.windows(3).any(|window| window == b"ada");
        assert!(holds(bytes(seal::<Signed>(&keys, "user", "ada", 1).unwrap())));
        assert!(!holds(bytes(seal::<Encrypted>(&keys, "user", "ada", 1).unwrap())));
    }
}

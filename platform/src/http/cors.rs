//! Cross-origin resource sharing (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>), per route.
//!
//! A route that does not ask for it gets none of these headers, and so stays closed to other sites.

use std::time::Duration;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use axum::http::{HeaderMap, HeaderValue};

/// Who may call a route from a page of another origin.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    max_age: Duration,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    Listed(Vec<HeaderValue>),
}

/// How long a browser may remember a preflight; Chromium caps it at two hours.
const MAX_AGE: Duration = Duration::from_hours(2);

impl Cors {
    /// Any site may call the route; never with cookies.
    pub fn any() -> Self {
        Self { origins: Origins::Any, credentials: false, max_age: MAX_AGE }
    }

    /// Only pages of these origins (`https://app.example.com`, without a path) may call the route.
    pub fn origins(origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        let origins = Origins::Listed(origins.into_iter().collect());
        Self { origins, credentials: false, max_age: MAX_AGE }
    }

    /// Lets the listed origins send cookies, and keeps all others from changing something with them, as
    /// [`Route::cookies`](super::Route::cookies) does. Has no effect together with [`Cors::any`]: browsers refuse
    /// that.
    pub fn with_credentials(mut self) -> Self {
        self.credentials = matches!(self.origins, Origins::Listed(_));
        self
    }

    /// Whether the route takes cookies of pages of other origins.
    pub(super) fn takes_cookies(&self) -> bool {
        self.credentials
    }

    /// Whether pages of this origin may send cookies.
    pub(super) fn trusts(&self, origin: &HeaderValue) -> bool {
        self.credentials && matches!(&self.origins, Origins::Listed(origins) if origins.contains(origin))
    }

    /// Adds the headers of an ordinary answer.
    pub(super) fn answer(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.allow(origin, headers) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }

    /// Adds the headers of the answer to a preflight.
    pub(super) fn preflight(
        &self,
        origin: Option<&HeaderValue>,
        allow: &HeaderValue,
        asked_headers: Option<&HeaderValue>,
        headers: &mut HeaderMap,
    ) {
        if !self.allow(origin, headers) {
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
        // `*` covers neither `Authorization` nor, with credentials, anything; so what was asked for is repeated.
        let allowed = asked_headers.cloned().unwrap_or(HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
    }

    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        match &self.origins {
            Origins::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                true
            }
            Origins::Listed(origins) => {
                // The answer depends on who asks, also when the one who asks is refused.
                headers.append(VARY, HeaderValue::from_static("origin"));
                let Some(origin) = origin.filter(|origin| origins.contains(origin)) else { return false };
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                if self.credentials {
                    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                }
                true
            }
        }
    }
}

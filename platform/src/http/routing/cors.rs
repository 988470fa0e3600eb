//! Cross-origin resource sharing (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>), per route.
//!
//! A route without it gets none of these headers, so browsers do not let pages of other origins read its responses.

use std::time::Duration;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use axum::http::{HeaderMap, HeaderValue};

/// The rules for pages of other origins that call a route.
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

/// How long a browser may cache a preflight. Chromium does not cache one for longer than two hours.
const MAX_AGE: Duration = Duration::from_hours(2);

impl Cors {
    /// Pages of any origin may call the route, without credentials: cookies and Basic authorization of a request that changes
    /// something are dropped.
    pub fn any() -> Self {
        Self { origins: Origins::Any, credentials: false, max_age: MAX_AGE }
    }

    /// Only pages of these origins (`https://app.example.com`, without a path) may call the route.
    pub fn origins(origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        let origins = Origins::Listed(origins.into_iter().collect());
        Self { origins, credentials: false, max_age: MAX_AGE }
    }

    /// Lets pages of the listed origins send cookies. Has no effect on [`Cors::any`]: browsers reject that combination.
    pub fn with_credentials(mut self) -> Self {
        self.credentials = matches!(self.origins, Origins::Listed(_));
        self
    }

    /// Whether pages of this origin may send cookies.
    pub(crate) fn trusts(&self, origin: &HeaderValue) -> bool {
        self.credentials && self.allows(origin)
    }

    /// Whether pages of this origin may call the route.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::Listed(origins) => origins.contains(origin),
        }
    }

    /// Adds the headers of a response that is not one to a preflight.
    pub(crate) fn add_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.allow(origin, headers) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }

    /// Adds the headers of the response to a preflight.
    pub(crate) fn add_preflight_headers(
        &self,
        origin: Option<&HeaderValue>,
        allow: &HeaderValue,
        requested_headers: Option<&HeaderValue>,
        headers: &mut HeaderMap,
    ) {
        if !self.allow(origin, headers) {
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
        // `*` does not include `Authorization`, and means nothing with credentials. So the requested names are
        // repeated.
        let allowed = requested_headers.cloned().unwrap_or(HeaderValue::from_static("*"));
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
                // The response depends on the origin, even when the origin is not allowed.
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

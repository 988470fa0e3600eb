//! The headers of every response: the security headers of the configuration, by what the response is, and the request id.

use std::collections::BTreeMap;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use crate::error::StartError;
use crate::http::request::request_id::REQUEST_ID;
use crate::http::settings::{HeaderText, Settings};

/// The prepared headers.
pub(crate) struct FixedHeaders {
    /// For what a browser shows as a page.
    pages: Prepared,
    /// For everything else.
    others: Prepared,
}

struct Prepared {
    /// For clients that use HTTPS.
    secure: HeaderMap,
    /// For the others: without what makes a browser use HTTPS.
    plain: HeaderMap,
}

impl FixedHeaders {
    /// Prepares the headers of the settings.
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let pages = Prepared::new("security_headers", &settings.security_headers)?;
        Ok(Self { pages, others: Prepared::new("api_headers", &settings.api_headers)? })
    }

    /// Adds them and the request id. The response's own headers win. `secure` tells whether the client uses HTTPS.
    pub(crate) fn add(&self, secure: bool, request_id: HeaderValue, response: &mut Response) {
        let prepared = if is_page(response.headers()) { &self.pages } else { &self.others };
        // A clone of the whole map costs less than inserting its headers one by one.
        let mut headers = if secure { prepared.secure.clone() } else { prepared.plain.clone() };
        headers.insert(REQUEST_ID, request_id);
        let own = std::mem::replace(response.headers_mut(), headers);
        if !own.is_empty() {
            response.headers_mut().extend(own);
        }
    }
}

impl Prepared {
    /// The map is cloned for each response, so its texts are leaked, once per process: a static text is cloned without a
    /// reference count.
    fn new(section: &str, settings: &BTreeMap<String, HeaderText>) -> Result<Self, StartError> {
        let mut secure = HeaderMap::with_capacity(32);
        let mut plain = HeaderMap::with_capacity(32);
        for (name, value) in settings.iter().filter(|(_, value)| !value.as_str().is_empty()) {
            let wrong = |why: String| StartError::config(format!("http.{section}.{name}: {why}"));
            let header = HeaderName::try_from(name).map_err(|error| wrong(error.to_string()))?;
            let header = HeaderName::from_static(String::from(header.as_str()).leak());
            let fixed = |value: &str| {
                let value = Bytes::from_static(String::from(value).leak().as_bytes());
                HeaderValue::from_maybe_shared(value).map_err(|error| wrong(error.to_string()))
            };
            if let Some(value) = without_https(&header, value.as_str()) {
                plain.insert(header.clone(), fixed(&value)?);
            }
            secure.insert(header, fixed(value.as_str())?);
        }
        Ok(Self { secure, plain })
    }
}

/// Whether a browser shows the response as a document that can run scripts, which SVG can too.
fn is_page(headers: &HeaderMap) -> bool {
    let types = [&b"text/html"[..], b"application/xhtml+xml", b"image/svg+xml"];
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    types.iter().any(|page| {
        content_type.get(..page.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(page))
    })
}

/// The header as a client without HTTPS gets it: RFC 6797, section 7.2, forbids the first one there, and the directive of
/// the other would make a browser load the stylesheets of a page from a port that does not speak HTTPS.
fn without_https(name: &HeaderName, value: &str) -> Option<String> {
    if *name == STRICT_TRANSPORT_SECURITY {
        return None;
    }
    if *name != CONTENT_SECURITY_POLICY {
        return Some(value.to_owned());
    }
    let is_upgrade = |directive: &&str| directive.trim().eq_ignore_ascii_case("upgrade-insecure-requests");
    let left: Vec<_> = value.split(';').filter(|directive| !is_upgrade(directive)).collect();
    Some(left.join(";")).filter(|left| !left.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_browser_use_https_is_left_out_without_https() {
        let csp = |value| without_https(&CONTENT_SECURITY_POLICY, value);
        assert_eq!(
            csp("default-src 'self';upgrade-insecure-requests").as_deref(),
            Some("default-src 'self'")
        );
        assert_eq!(csp("a; Upgrade-Insecure-Requests ; b").as_deref(), Some("a; b"));
        assert_eq!(csp("upgrade-insecure-requests"), None);
        assert_eq!(without_https(&STRICT_TRANSPORT_SECURITY, "max-age=1"), None);
        let other = HeaderName::from_static("x-other");
        assert_eq!(
            without_https(&other, "upgrade-insecure-requests").as_deref(),
            Some("upgrade-insecure-requests")
        );
    }
}

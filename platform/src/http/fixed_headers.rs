//! The headers of every response: the security headers of the configuration, and the request id.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use super::request_id::REQUEST_ID;
use super::settings::Settings;
use crate::error::StartError;

/// The prepared headers.
pub(super) struct FixedHeaders(HeaderMap);

impl FixedHeaders {
    /// Prepares the headers of the settings. The map is cloned for each response, so its texts are leaked, once per
    /// process: a static text is cloned without a reference count.
    pub(super) fn new(settings: &Settings) -> Result<Self, StartError> {
        let mut headers = HeaderMap::with_capacity(32);
        for (name, value) in settings.security_headers.iter().filter(|(_, value)| !value.as_str().is_empty())
        {
            let wrong = |why: String| StartError::config(format!("http.security_headers.{name}: {why}"));
            let header = HeaderName::try_from(name).map_err(|error| wrong(error.to_string()))?;
            let header = HeaderName::from_static(String::from(header.as_str()).leak());
            let value = Bytes::from_static(String::from(value.as_str()).leak().as_bytes());
            let value = HeaderValue::from_maybe_shared(value).map_err(|error| wrong(error.to_string()))?;
            headers.insert(header, value);
        }
        Ok(Self(headers))
    }

    /// Adds them and the request id. The response's own headers win.
    pub(super) fn add(&self, request_id: HeaderValue, response: &mut Response) {
        // A clone of the whole map costs less than inserting its headers one by one.
        let mut headers = self.0.clone();
        headers.insert(REQUEST_ID, request_id);
        let own = std::mem::replace(response.headers_mut(), headers);
        if !own.is_empty() {
            response.headers_mut().extend(own);
        }
    }
}

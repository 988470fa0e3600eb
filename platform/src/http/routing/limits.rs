//! The limits of a route.

use std::time::Duration;

/// The limits of one method of a route, see [`Route::limits`](crate::http::Route::limits).
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub(super) schema: Option<(&'static str, &'static str)>,
    pub(super) body_limit: Option<u64>,
    pub(super) body_min_rate: Option<u64>,
    pub(super) timeout: Option<Duration>,
}

impl Limits {
    /// The JSON Schema (draft-07) that a body read by the [`Json`](crate::http::Json) extractor must meet.
    pub fn schema(mut self, name: &'static str, text: &'static str) -> Self {
        self.schema = Some((name, text));
        self
    }

    /// The largest body in bytes, instead of `http.body_limit`.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.body_limit = Some(bytes);
        self
    }

    /// The bytes a second that a body must reach after `http.body_grace`, instead of `http.body_min_rate`; 0 for no minimum.
    pub fn body_min_rate(mut self, bytes_per_second: u64) -> Self {
        self.body_min_rate = Some(bytes_per_second);
        self
    }

    /// How long a handler may take, instead of `http.request_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// These limits, and the others' where one is missing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            schema: self.schema.or(other.schema),
            body_limit: self.body_limit.or(other.body_limit),
            body_min_rate: self.body_min_rate.or(other.body_min_rate),
            timeout: self.timeout.or(other.timeout),
        }
    }
}

/// How many requests one client may send, see [`Route::rate_limit`](crate::http::Route::rate_limit).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_minute: u32,
    pub(crate) burst: u32,
}

//! Why a call failed. It tells the cases apart, and becomes 502, 503 or 504 where a handler does not decide otherwise.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::public_addresses::NotPublic;
use crate::error::{Error, Kind};

/// The failure of a call.
#[derive(Clone, Debug)]
pub struct CallError {
    upstream: Arc<str>,
    cause: Cause,
    /// For the log; without secrets.
    detail: String,
}

/// The case of a [`CallError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was no connection: an unknown host, a closed port, a certificate that is not trusted.
    Refused,
    /// The connection broke, or what came was no complete response.
    Broken,
    /// An attempt, or the call, took too long.
    TimedOut {
        /// The time limit of the request that is being handled was the shorter one.
        by_request: bool,
    },
    /// The breaker is open: nothing was sent.
    BreakerOpen {
        /// When it lets the next attempt through.
        retry_after: Duration,
    },
    /// Too many calls are under way: nothing was sent.
    Overloaded,
    /// A status other than 2xx. Redirects are not followed.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The body is larger than the limit.
    TooLarge,
    /// The body is not what was expected.
    InvalidBody,
    /// A URL of a user's leads to an address that is not public, or is no URL of a web page.
    NotPublic,
    /// The call itself is wrong: a fault of this service.
    InvalidCall,
}

impl Cause {
    /// A name for figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::TimedOut { .. } => "timed out",
            Self::BreakerOpen { .. } => "breaker open",
            Self::Overloaded => "overloaded",
            Self::Status { .. } => "bad status",
            Self::TooLarge => "too large",
            Self::InvalidBody => "invalid body",
            Self::NotPublic => "not public",
            Self::InvalidCall => "invalid call",
        }
    }
}

impl CallError {
    pub(super) fn new(upstream: &Arc<str>, cause: Cause, detail: impl Into<String>) -> Self {
        Self { upstream: Arc::clone(upstream), cause, detail: detail.into() }
    }

    /// What reqwest reports. Its URL is left out: it may hold secrets.
    pub(super) fn of(upstream: &Arc<str>, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut detail = error.to_string();
        let mut not_public = false;
        let mut next = error.source();
        while let Some(source) = next {
            not_public |= source.is::<NotPublic>();
            let text = source.to_string();
            if !detail.ends_with(&text) {
                detail.push_str(": ");
                detail.push_str(&text);
            }
            next = source.source();
        }
        let cause = match () {
            () if not_public => Cause::NotPublic,
            () if error.is_timeout() => Cause::TimedOut { by_request: false },
            () if error.is_connect() => Cause::Refused,
            () if error.is_builder() => Cause::InvalidCall,
            () => Cause::Broken,
        };
        Self::new(upstream, cause, detail)
    }

    /// Which case it is.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The name of the upstream.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// The status of the response, where that is the failure.
    pub fn status(&self) -> Option<u16> {
        match self.cause {
            Cause::Status { status, .. } => Some(status),
            _ => None,
        }
    }

    /// How long the upstream, or its breaker, asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.cause {
            Cause::Status { retry_after, .. } => retry_after,
            Cause::BreakerOpen { retry_after } => Some(retry_after),
            _ => None,
        }
    }

    /// Whether the same attempt may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self.cause {
            Cause::Refused | Cause::Broken | Cause::TimedOut { .. } => true,
            Cause::Status { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether it says that the upstream is in trouble; `None` when it says nothing about it.
    pub(super) fn counts(&self) -> Option<bool> {
        match self.cause {
            Cause::Refused | Cause::Broken | Cause::TimedOut { by_request: false } => Some(true),
            Cause::Status { status, .. } => Some(matches!(status, 500 | 502..=504)),
            Cause::TooLarge | Cause::InvalidBody => Some(false),
            _ => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upstream, cause, detail } = self;
        let what = match cause {
            Cause::Refused => "no connection",
            Cause::Broken => "no complete response",
            Cause::TimedOut { .. } => "timed out",
            Cause::BreakerOpen { .. } => "not tried, it has failed too often",
            Cause::Overloaded => "not tried, too many calls are under way",
            Cause::Status { status, .. } => return write!(f, "upstream {upstream}: responded with {status}"),
            Cause::TooLarge => "the response is too large",
            Cause::InvalidBody => "the response is not as expected",
            Cause::NotPublic => "the address is not public",
            Cause::InvalidCall => "the call is wrong",
        };
        write!(f, "upstream {upstream}: {what}")?;
        if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
    }
}

impl StdError for CallError {}

/// 504 for what took too long, 503 with `Retry-After` for what may work soon, 400 for the URL of a user, 500 for a call that
/// is wrong, else 502.
impl From<CallError> for Error {
    #[track_caller]
    fn from(error: CallError) -> Self {
        let unavailable = |wait: Option<Duration>, error| {
            let seconds = wait.map_or(1, |wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
            Self::new(Kind::Unavailable).with_source(error).with_header("retry-after", seconds.to_string())
        };
        match error.cause {
            Cause::TimedOut { .. } => {
                Self::new(Kind::Other(504)).with_reason("Gateway Timeout").with_source(error)
            }
            Cause::BreakerOpen { .. } | Cause::Overloaded | Cause::Status { status: 429 | 503, .. } => {
                unavailable(error.retry_after(), error)
            }
            Cause::NotPublic => Self::bad_request("Address Not Allowed").with_source(error),
            Cause::InvalidCall => Self::internal(error),
            _ => Self::new(Kind::Other(502)).with_reason("Bad Gateway").with_source(error),
        }
    }
}

//! The error type of the server. It has a public side, for the caller, and a private side, for the log.
//!
//! A handler returns `Result<T, Error>`. The kind decides the status; the message and the headers go to the caller; the
//! source goes only to the log. This file knows status codes and nothing else of HTTP, so that a service without HTTP
//! can use it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use serde::Serialize;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. Each has one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request is malformed or breaks a rule.
    BadRequest,
    /// 401: credentials are missing or invalid.
    Unauthorized,
    /// 403: the caller is not allowed to do this.
    Forbidden,
    /// 404: it does not exist.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the client sent its request too slowly.
    RequestTimeout,
    /// 409: it conflicts with what is stored.
    Conflict,
    /// 412: a condition of the request, such as `If-Match`, is false.
    PreconditionFailed,
    /// 413: the body is larger than the limit.
    PayloadTooLarge,
    /// 415: the server does not read this encoding of a body.
    UnsupportedMediaType,
    /// 422: well formed, but against a rule of the application.
    Unprocessable,
    /// 429: too many requests.
    TooManyRequests,
    /// 431: the request head is too large, or has too many headers.
    HeadersTooLarge,
    /// 500: a fault of the server. The caller is not told the cause.
    Internal,
    /// 503: a dependency, or the server itself, is not available now.
    Unavailable,
    /// Any other status from 400 to 599. Set its reason with `with_reason`.
    Other(u16),
}

impl Kind {
    /// The kind that has this status.
    pub fn from_status(status: u16) -> Self {
        match status {
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            409 => Self::Conflict,
            412 => Self::PreconditionFailed,
            413 => Self::PayloadTooLarge,
            415 => Self::UnsupportedMediaType,
            422 => Self::Unprocessable,
            429 => Self::TooManyRequests,
            431 => Self::HeadersTooLarge,
            500 => Self::Internal,
            503 => Self::Unavailable,
            other => Self::Other(other),
        }
    }

    /// The HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Unprocessable => 422,
            Self::TooManyRequests => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Other(status) => status,
        }
    }

    /// The default reason phrase and message.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::Conflict => "Conflict",
            Self::PreconditionFailed => "Precondition Failed",
            Self::PayloadTooLarge => "Payload Too Large",
            Self::UnsupportedMediaType => "Unsupported Media Type",
            Self::Unprocessable => "Unprocessable Content",
            Self::TooManyRequests => "Too Many Requests",
            Self::HeadersTooLarge => "Request Header Fields Too Large",
            Self::Internal => "Internal Server Error",
            Self::Unavailable => "Service Unavailable",
            Self::Other(_) => "Request Failed",
        }
    }
}

/// One wrong field of a request body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the value; empty for the document itself.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// When a caller of what is unavailable may try again, in seconds (RFC 9110, section 10.2.3): the server itself tries again
/// within a few.
const RETRY_AFTER: &str = "1";

/// An error with a public and a private side.
pub struct Error {
    kind: Kind,
    reason: &'static str,
    message: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    location: &'static Location<'static>,
}

impl Error {
    /// An error of this kind, with its default phrase as message.
    #[track_caller]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            reason: kind.phrase(),
            message: Cow::Borrowed(kind.phrase()),
            errors: Vec::new(),
            headers: Vec::new(),
            source: None,
            location: Location::caller(),
        }
    }

    /// 400 with a fixed message, which is also the reason phrase.
    #[track_caller]
    pub fn bad_request(message: &'static str) -> Self {
        Self::new(Kind::BadRequest).with_reason(message)
    }

    /// 401 with its challenge, which RFC 9110 (section 11.6.1) requires: `Bearer realm="api"`.
    #[track_caller]
    pub fn unauthorized(challenge: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized).with_header("www-authenticate", challenge)
    }

    /// 403 with a fixed message, which is also the reason phrase.
    #[track_caller]
    pub fn forbidden(message: &'static str) -> Self {
        Self::new(Kind::Forbidden).with_reason(message)
    }

    /// 404 with a fixed message, which is also the reason phrase.
    #[track_caller]
    pub fn not_found(message: &'static str) -> Self {
        Self::new(Kind::NotFound).with_reason(message)
    }

    /// 409 with a fixed message, which is also the reason phrase.
    #[track_caller]
    pub fn conflict(message: &'static str) -> Self {
        Self::new(Kind::Conflict).with_reason(message)
    }

    /// 412: a condition of the request is false, such as the version in `If-Match`.
    #[track_caller]
    pub fn precondition_failed() -> Self {
        Self::new(Kind::PreconditionFailed)
    }

    /// 422 with a fixed message, which is also the reason phrase. Add the fields by [`Self::with_errors`].
    #[track_caller]
    pub fn unprocessable(message: &'static str) -> Self {
        Self::new(Kind::Unprocessable).with_reason(message)
    }

    /// 429 with `Retry-After`: when the caller may try again, in whole seconds, rounded up.
    #[track_caller]
    pub fn too_many_requests(retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0));
        Self::new(Kind::TooManyRequests).with_header("retry-after", seconds.to_string())
    }

    /// 500. The cause goes only to the log.
    #[track_caller]
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Internal).with_source(source)
    }

    /// 503 with `Retry-After`: a dependency is not available. The cause goes only to the log.
    #[track_caller]
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Unavailable).with_source(source).with_header("retry-after", RETRY_AFTER)
    }

    /// An error of what a dependency has said: [`Self::unavailable`], or of another kind with this cause.
    #[cfg(any(feature = "mongodb", feature = "postgres", feature = "sqlite"))]
    #[track_caller]
    pub(crate) fn of_dependency(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match kind {
            Kind::Unavailable => Self::unavailable(source),
            kind => Self::new(kind).with_source(source),
        }
    }

    /// Sets the kind, and so the status; reason and message stay.
    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the HTTP/1.1 reason phrase, and the message to the same text. It is `'static`, so that it can never hold
    /// text of the caller.
    pub fn with_reason(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self.message = Cow::Borrowed(reason);
        self
    }

    /// Sets the message in the body of the response. It may quote the caller.
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// Sets the fields that are wrong.
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds a header to the response. Several of one name are all sent. A name or value that HTTP does not allow is
    /// left out.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the cause, which goes only to the log.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts a context before the cause, such as the name of a file. An error without a cause stays as it is.
    pub fn with_context(self, context: impl fmt::Display) -> Self {
        match self.cause() {
            cause if cause.is_empty() => self,
            cause => self.with_source(format!("{context}: {cause}")),
        }
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP status code.
    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// The fixed HTTP/1.1 reason phrase.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The fields that are wrong.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The headers of the response, in the order in which they were added.
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// The causes on one line, outermost first, for the log. Empty when there is no source.
    pub fn cause(&self) -> String {
        let mut text = String::new();
        let mut next = self.source();
        while let Some(source) = next {
            let cause = source.to_string();
            // Many errors include the text of their source.
            if !text.ends_with(&cause) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&cause);
            }
            next = source.source();
        }
        text
    }

    /// The message, the line of code, and each cause on its own line: what `--debug` shows.
    pub fn trace(&self) -> String {
        let mut text = format!("{}\n  at {}", self.message, self.location);
        let mut next = self.source();
        while let Some(source) = next {
            text.push_str("\n  caused by: ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.trace())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Why the server did not start: a message of one line, and the exit code of the process.
#[derive(Debug)]
pub struct StartError {
    /// 2: the command line or the configuration is wrong; 1: anything else.
    pub exit_code: u8,
    message: String,
}

impl StartError {
    /// The configuration or the command line is wrong (exit code 2).
    pub fn config(message: impl Into<String>) -> Self {
        Self { exit_code: 2, message: message.into() }
    }

    /// The configuration is right, but something else failed (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit_code: 1, message: message.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for StartError {}

/// An error while the app is initialised: its message and its causes.
impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        match error.cause() {
            cause if cause.is_empty() => Self::failed(error.message()),
            cause => Self::failed(format!("{error}: {cause}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_never_contains_the_cause() {
        let error = Error::internal("password=hunter2");
        assert_eq!(error.message(), "Internal Server Error");
        assert_eq!(error.cause(), "password=hunter2");
        assert!(error.trace().contains("caused by: password=hunter2"));
    }

    #[test]
    fn a_kind_is_the_one_of_its_status() {
        for status in 400..600 {
            assert_eq!(Kind::from_status(status).status(), status);
        }
        assert_eq!(Kind::from_status(422), Kind::Unprocessable);
        assert_eq!(Kind::from_status(418), Kind::Other(418));
    }

    #[test]
    fn an_error_carries_the_headers_that_its_status_needs() {
        let error = Error::unauthorized("Bearer").with_header("www-authenticate", "Basic");
        assert_eq!((error.status(), error.reason()), (401, "Unauthorized"));
        let expected = [("www-authenticate", "Bearer".to_owned()), ("www-authenticate", "Basic".to_owned())];
        assert_eq!(error.headers(), expected);
        for (wait, seconds) in [(0, "0"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            let error = Error::too_many_requests(Duration::from_millis(wait));
            assert_eq!((error.status(), error.headers()), (429, &[("retry-after", seconds.to_owned())][..]));
        }
        assert_eq!(Error::precondition_failed().status(), 412);
        assert_eq!(Error::unprocessable("Past Due Date").status(), 422);
        assert!(Error::forbidden("Not Yours").headers().is_empty());
    }

    #[test]
    fn a_cause_that_its_wrapper_includes_is_written_once() {
        #[derive(Debug)]
        struct Wrapper(std::io::Error);
        impl fmt::Display for Wrapper {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "cannot write: {}", self.0)
            }
        }
        impl StdError for Wrapper {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::internal(Wrapper(std::io::Error::other("disk full")));
        assert_eq!(error.cause(), "cannot write: disk full");
    }

    #[test]
    fn a_context_comes_before_the_cause_and_needs_one() {
        let error = Error::internal("disk I/O error").with_context("store file a.sqlite");
        assert_eq!(error.cause(), "store file a.sqlite: disk I/O error");
        assert_eq!(Error::not_found("No Such Thing").with_context("store file a.sqlite").cause(), "");
    }

    #[test]
    fn the_trace_names_the_line_that_made_the_error() {
        let line = line!() + 1;
        let error = Error::not_found("No Such Thing");
        assert!(error.trace().contains(&format!("error.rs:{line}")), "{}", error.trace());
    }
}

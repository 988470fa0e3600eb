//! The one error of the server: what the caller is told, and what only the log may know.
//!
//! A handler returns `Result<T, Error>`. The kind decides the status; the message goes to the caller; the
//! source goes to the log alone. This file knows the numbers of HTTP and nothing else of it, so that a service
//! can refuse without importing the web.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use serde::Serialize;

/// What most functions of the server return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is; each has one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request cannot be understood or breaks a rule.
    BadRequest,
    /// 401: the caller has not said who it is, or not in a way that holds.
    Unauthorized,
    /// 403: understood, and refused.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the client took too long to send its request.
    RequestTimeout,
    /// 409: it clashes with what is stored.
    Conflict,
    /// 412: a condition of the request (`If-Match`) does not hold.
    PreconditionFailed,
    /// 413: the body is larger than the limit.
    PayloadTooLarge,
    /// 415: the body is encoded in a way the server does not read.
    UnsupportedMediaType,
    /// 422: well formed, and against a rule of the application.
    Unprocessable,
    /// 429: the caller has sent too many requests.
    TooManyRequests,
    /// 431: too many headers, or too large.
    HeadersTooLarge,
    /// 500: our fault; the caller learns nothing of the cause.
    Internal,
    /// 503: a dependency, or the server itself, cannot serve now.
    Unavailable,
    /// Any other status from 400 to 599; say with `with_reason` what it is.
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

    /// The reason phrase and message of an error that gives none of its own.
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

/// One field of a refused body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the value; empty for the document itself.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

/// A failure with a public and a private side.
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
    /// An error of this kind with its standard phrase as message.
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

    /// 412: a condition of the request does not hold, such as the version in `If-Match`.
    #[track_caller]
    pub fn precondition_failed() -> Self {
        Self::new(Kind::PreconditionFailed)
    }

    /// 422 with a fixed message, which is also the reason phrase. Add the fields by [`Self::with_errors`].
    #[track_caller]
    pub fn unprocessable(message: &'static str) -> Self {
        Self::new(Kind::Unprocessable).with_reason(message)
    }

    /// 429, with the time after which the caller may try again: `Retry-After`, in whole seconds, rounded up.
    #[track_caller]
    pub fn too_many_requests(retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0));
        Self::new(Kind::TooManyRequests).with_header("retry-after", seconds.to_string())
    }

    /// 500: the cause goes to the log, the caller is told only that it is our fault.
    #[track_caller]
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Internal).with_source(source)
    }

    /// 503: a dependency cannot serve now; the cause goes to the log.
    #[track_caller]
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Unavailable).with_source(source)
    }

    /// Sets the HTTP/1.1 reason phrase, and the message with it. It is `'static` on purpose: a reason phrase
    /// never carries the caller's text.
    pub fn with_reason(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self.message = Cow::Borrowed(reason);
        self
    }

    /// Sets the message that the caller reads in the body; it may quote the caller.
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// Adds the fields that were refused.
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds a header to the response; several of one name are all sent. One that is no HTTP header is left out.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds the cause, for the log only.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says before the cause where it happened; an error without a cause stays as it is.
    pub fn at_place(self, place: impl fmt::Display) -> Self {
        match self.cause() {
            cause if cause.is_empty() => self,
            cause => self.with_source(format!("{place}: {cause}")),
        }
    }

    /// What kind of failure it is.
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

    /// What the caller is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The fields that were refused.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The headers of the response, in the order in which they were added.
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// The causes on one line, outermost first, for the log; empty when the message says it all.
    pub fn cause(&self) -> String {
        let mut text = String::new();
        let mut next = self.source();
        while let Some(source) = next {
            let cause = source.to_string();
            // Many errors say their source themselves.
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

    /// The message, the place in the source, and every cause on a line of its own: what `--debug` shows.
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

/// Why the server did not start: one line for a person, and the exit code of the process.
#[derive(Debug)]
pub struct StartError {
    /// 2: the command line or the configuration has to be mended; 1: anything else.
    pub exit_code: u8,
    message: String,
}

impl StartError {
    /// The configuration or the command line is wrong (exit code 2).
    pub fn config(message: impl Into<String>) -> Self {
        Self { exit_code: 2, message: message.into() }
    }

    /// The configuration is right, the machine does not allow it (exit code 1).
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
    fn the_message_never_tells_the_cause() {
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
    fn a_cause_that_its_wrapper_says_is_said_once() {
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
    fn a_place_is_said_before_the_cause_and_only_there() {
        let error = Error::internal("disk I/O error").at_place("store file a.sqlite");
        assert_eq!(error.cause(), "store file a.sqlite: disk I/O error");
        assert_eq!(Error::not_found("No Such Thing").at_place("store file a.sqlite").cause(), "");
    }

    #[test]
    fn the_trace_names_the_line_that_made_the_error() {
        let line = line!() + 1;
        let error = Error::not_found("No Such Thing");
        assert!(error.trace().contains(&format!("error.rs:{line}")), "{}", error.trace());
    }
}

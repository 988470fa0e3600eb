//! The response to a call: whole, or as a stream. Both are bounded in size and time.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::error::{CallError, Cause};
use super::permits::Permit;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub(super) upstream: Arc<str>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Response {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers. Those that describe a compressed body are gone.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, decompressed.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The body as a `T`. The error is [`Cause::InvalidBody`]; it does not quote the body, which may hold secrets.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let detail = format!("{:?} error in its JSON, line {line} column {column}", error.classify());
            CallError::new(&self.upstream, Cause::InvalidBody, detail)
        })
    }
}

/// A response whose body is still to come. Its call counts as under way until it is dropped, or until another call needs its
/// permit when nothing of it was read for the time of an attempt.
pub struct Streamed {
    pub(super) upstream: Arc<str>,
    pub(super) response: reqwest::Response,
    pub(super) limit: Limit,
    pub(super) deadline: Deadline,
    pub(super) permit: Permit,
}

impl Streamed {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next piece of the body, decompressed; `None` at its end. All pieces together are bounded by the limit of the
    /// call, and arrive within its time.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        let late = |_| CallError::new(&self.upstream, self.deadline.cause(), "while the body was read");
        self.permit.note(false);
        let next = timeout_at(self.deadline.at, self.response.chunk()).await.map_err(late)?;
        let chunk = next.map_err(|error| CallError::of(&self.upstream, error))?;
        if let Some(chunk) = &chunk {
            self.limit.take(&self.upstream, chunk.len())?;
        }
        self.permit.note(true);
        Ok(chunk)
    }

    /// The body as a stream, for `axum::body::Body::from_stream`. It ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, CallError>> + Send {
        stream::unfold(Some(self), async |streamed| {
            let mut streamed = streamed?;
            match streamed.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(streamed))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// The size of a body that is left.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) limit: u64,
    pub(super) left: u64,
}

impl Limit {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }

    fn take(&mut self, upstream: &Arc<str>, bytes: usize) -> Result<(), CallError> {
        let too_large =
            || CallError::new(upstream, Cause::TooLarge, format!("more than {} bytes", self.limit));
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(too_large)?;
        Ok(())
    }
}

/// The end of a call, and whose end it is.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// It is that of the request that is being handled.
    pub(super) by_request: bool,
}

impl Deadline {
    pub(super) fn cause(self) -> Cause {
        Cause::TimedOut { by_request: self.by_request }
    }
}

/// The whole body. The limit counts what comes out of the decompression, piece by piece.
pub(super) async fn collect(
    upstream: &Arc<str>,
    response: &mut reqwest::Response,
    mut limit: Limit,
) -> Result<Bytes, CallError> {
    let mut body = BytesMut::new();
    // `Content-Length` is known before the first byte; reqwest drops it where the body is compressed.
    if response.content_length().is_some_and(|length| length > limit.limit) {
        limit.take(upstream, usize::MAX)?;
    }
    while let Some(chunk) = response.chunk().await.map_err(|error| CallError::of(upstream, error))? {
        limit.take(upstream, chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

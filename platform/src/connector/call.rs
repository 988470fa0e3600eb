//! One call: what is sent, and how often. The order of its guards: concurrency, deadline, retries, breaker, attempt.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use reqwest::Url;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::error::{CallError, Cause};
use super::framing;
use super::path::leads_upwards;
use super::permits::Permit;
use super::response::{Deadline, Limit, Response, Streamed, collect};
use super::retry_after;
use super::upstream::{Connector, Recorder};
use crate::secret::MASK;

/// The header with the time that this service waits for the response to an attempt, in whole milliseconds.
pub const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How much earlier than the request that is being handled a call ends: its handler can still respond. A tenth, where less
/// than half a second is left.
pub(super) const MARGIN: Duration = Duration::from_millis(50);

/// A call that is being prepared.
#[must_use = "nothing is sent before `send` or `stream`"]
pub struct Call {
    connector: Connector,
    method: Method,
    url: Result<Url, CallError>,
    headers: HeaderMap,
    body: Bytes,
    any_status: bool,
    limit: u64,
}

/// What has come of an attempt.
struct Received {
    response: reqwest::Response,
    /// The body, unless it is to be streamed.
    body: Bytes,
}

impl Connector {
    /// GET. The path begins with a slash, and is appended to that of the upstream's URL. For the URL of a user
    /// ([`Services::public_connector`](crate::services::Services::public_connector)) it is the whole URL.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// POST. It is sent once, unless it has an [idempotency key](Call::idempotency_key).
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// PUT.
    pub fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Any method.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call::new(self.clone(), method, self.url(path))
    }
}

impl Call {
    fn new(connector: Connector, method: Method, url: Result<Url, CallError>) -> Self {
        let limit = connector.upstream.settings.response_limit.get();
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { connector, method, url, headers, body, any_status: false, limit }
    }

    /// Appends a segment to the path, such as an id. Its slashes are escaped; where some server would still read `..` in it, the
    /// call fails.
    pub fn segment(mut self, segment: &str) -> Self {
        // The parser of URLs leaves out all of these, and white space first: `.\t.` would be `..`.
        if matches!(segment, "." | "..") || segment.contains(['\t', '\n', '\r']) {
            self.url =
                Err(self.wrong("a segment of a path cannot be . or .., and has no tab and no end of a line"));
        } else if let Ok(url) = &mut self.url
            && let Ok(mut segments) = url.path_segments_mut()
        {
            segments.pop_if_empty().push(segment);
        }
        self
    }

    /// Adds a parameter to the query.
    pub fn query(mut self, key: &str, value: &str) -> Self {
        if let Ok(url) = &mut self.url {
            url.query_pairs_mut().append_pair(key, value);
        }
        self
    }

    /// Sets a header. A name or value that HTTP does not allow fails the call.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => self.url = Err(self.wrong("a header has a name or a value that HTTP does not allow")),
        }
        self
    }

    /// Lets the upstream recognise a repeated attempt, so that also a POST or PATCH is tried again.
    pub fn idempotency_key(self, key: &str) -> Self {
        self.header(IDEMPOTENCY_KEY.as_str(), key)
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to this value as JSON, with its content type.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => self.body(json).header("content-type", "application/json"),
            Err(error) => {
                self.url = Err(self.wrong(&format!("the body is no JSON: {error}")));
                self
            }
        }
    }

    /// Takes a response of any status, and not only of 2xx, for success. What can be retried is retried before.
    pub fn any_status(mut self) -> Self {
        self.any_status = true;
        self
    }

    /// The largest response body, in bytes, instead of `response_limit`.
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sends it, and reads the whole response: an attempt that breaks in its middle is repeated too.
    pub async fn send(self) -> Result<Response, CallError> {
        let upstream = self.connector.upstream.name.clone();
        let (received, ..) = self.run(true).await?;
        let Received { response, body } = received;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Response { upstream, status, headers, body })
    }

    /// Sends it, and leaves the body of the response to be read piece by piece. It is repeated until there is a response
    /// head, and no more.
    pub async fn stream(self) -> Result<Streamed, CallError> {
        let (connector, limit) = (self.connector.clone(), Limit::new(self.limit));
        let (Received { response, .. }, deadline, permit) = self.run(false).await?;
        let upstream = connector.upstream.name.clone();
        connector.upstream.permits.watch(&permit);
        Ok(Streamed { upstream, response, limit, deadline, permit })
    }

    fn wrong(&self, detail: &str) -> CallError {
        CallError::new(&self.connector.upstream.name, Cause::InvalidCall, detail)
    }

    async fn run(self, whole: bool) -> Result<(Received, Deadline, Permit), CallError> {
        let url = self.url.clone()?;
        let upstream = &*self.connector.upstream;
        if upstream.base.is_some() && leads_upwards(url.path()) {
            return Err(self.wrong("the path, or a segment of it, leads upwards for some servers"));
        }
        let mut recorder = self.connector.recorder();
        let Some(permit) = upstream.permits.take() else {
            let error = CallError::new(&upstream.name, Cause::Overloaded, "");
            self.log_outcome(&url, &recorder, Err(&error));
            return Err(error);
        };
        let deadline = self.deadline();
        upstream.budget.deposit();
        let result = self.attempts(&url, whole, deadline, &mut recorder).await;
        self.log_outcome(
            &url,
            &recorder,
            result.as_ref().map(|received| received.response.status().as_u16()),
        );
        Ok((result?, deadline, permit))
    }

    /// When the call has to end.
    fn deadline(&self) -> Deadline {
        let now = Instant::now();
        let own = now + self.connector.upstream.settings.timeout.get();
        let of_request = self.connector.incoming.as_ref().and_then(|it| it.deadline).map(|deadline| {
            let left = deadline.saturating_duration_since(now);
            now + left.saturating_sub(MARGIN.min(left / 10))
        });
        match of_request {
            Some(at) if at < own => Deadline { at, by_request: true },
            _ => Deadline { at: own, by_request: false },
        }
    }

    async fn attempts(
        &self,
        url: &Url,
        whole: bool,
        deadline: Deadline,
        recorder: &mut Recorder,
    ) -> Result<Received, CallError> {
        let upstream = &*self.connector.upstream;
        let repeatable = self.method.is_idempotent() || self.headers.contains_key(IDEMPOTENCY_KEY);
        loop {
            let started = Instant::now();
            let result = self.guarded_attempt(url, whole, deadline).await;
            let number = recorder.retries + 1;
            self.log_attempt(url, number, started.elapsed(), &result);
            let error = match result {
                Err(error) if repeatable && error.is_transient() => error,
                Ok(received) if repeatable && number < upstream.policy.attempts() => {
                    // A status that the caller wants to see as it is, when trying again does not help.
                    match self.failure_of(&received.response) {
                        Some(error) if error.is_transient() && self.any_status => {
                            if !self.wait(number, &error, deadline).await {
                                return Ok(received);
                            }
                            recorder.retries += 1;
                            continue;
                        }
                        _ => return Ok(received),
                    }
                }
                result => return result,
            };
            if !self.wait(number, &error, deadline).await {
                return Err(error);
            }
            recorder.retries += 1;
        }
    }

    /// Waits before the next attempt; false when there must be none.
    async fn wait(&self, failed: u32, error: &CallError, deadline: Deadline) -> bool {
        let upstream = &*self.connector.upstream;
        if failed >= upstream.policy.attempts() {
            return false;
        }
        let wait = upstream.policy.wait(failed).max(error.retry_after().unwrap_or_default());
        // It would come too late.
        if Instant::now().checked_add(wait).is_none_or(|next| next >= deadline.at) {
            return false;
        }
        if !upstream.budget.withdraw() {
            tracing::info!(target: "server.outbound", upstream = &*upstream.name, "the budget of retries is used up");
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    async fn guarded_attempt(
        &self,
        url: &Url,
        whole: bool,
        deadline: Deadline,
    ) -> Result<Received, CallError> {
        let upstream = &*self.connector.upstream;
        let pass = upstream.pass()?;
        let result = self.attempt(url, whole, deadline).await;
        let failed = match &result {
            Ok(received) => self.failure_of(&received.response).map_or(Some(false), |error| error.counts()),
            Err(error) => error.counts(),
        };
        upstream.settle(pass, failed);
        result
    }

    async fn attempt(&self, url: &Url, whole: bool, deadline: Deadline) -> Result<Received, CallError> {
        let upstream = &*self.connector.upstream;
        let own = Instant::now() + upstream.settings.attempt_timeout.get();
        let until = if own < deadline.at { Deadline { at: own, by_request: false } } else { deadline };
        let request = self.request(url.clone(), until.at.saturating_duration_since(Instant::now()));
        let exchange = async {
            let sent = upstream.client().await?.execute(request).await;
            let mut response = sent.map_err(|error| CallError::of(&upstream.name, error))?;
            let broken = |why| CallError::new(&upstream.name, Cause::Broken, why);
            framing::check_coding(response.headers()).map_err(broken)?;
            if !self.any_status
                && let Some(error) = self.failure_of(&response)
            {
                return Err(error);
            }
            let limit = Limit::new(self.limit);
            let body =
                if whole { collect(&upstream.name, &mut response, limit).await? } else { Bytes::new() };
            Ok(Received { response, body })
        };
        let late = |_| CallError::new(&upstream.name, until.cause(), "");
        timeout_at(until.at, exchange).await.map_err(late)?
    }

    fn failure_of(&self, response: &reqwest::Response) -> Option<CallError> {
        let status = response.status();
        if status.is_success() {
            return None;
        }
        let retry_after = retry_after::of(response.headers(), SystemTime::now());
        let cause = Cause::Status { status: status.as_u16(), retry_after };
        Some(CallError::new(&self.connector.upstream.name, cause, ""))
    }

    fn request(&self, url: Url, time: Duration) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method.clone(), url);
        let headers = request.headers_mut();
        if let Some(incoming) = &self.connector.incoming {
            headers.extend(incoming.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        if let Some(authorization) = &self.connector.upstream.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT_HEADER, HeaderValue::from(millis));
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if !self.body.is_empty() {
            *request.body_mut() = Some(self.body.clone().into());
        }
        request
    }

    fn log_attempt(&self, url: &Url, attempt: u32, time: Duration, result: &Result<Received, CallError>) {
        let (upstream, method, url) = (&*self.connector.upstream.name, self.method.as_str(), shown(url));
        let (request_id, ms) = (self.connector.request_id(), millis(time));
        match result {
            Ok(received) => {
                let status = received.response.status().as_u16();
                tracing::debug!(target: "server.outbound", request_id, upstream, method, url, attempt, status, ms, "attempt");
            }
            Err(error) => {
                let error = error.to_string();
                tracing::info!(target: "server.outbound", request_id, upstream, method, url, attempt, error, ms, "attempt failed");
            }
        }
    }

    fn log_outcome(&self, url: &Url, recorder: &Recorder, result: Result<u16, &CallError>) {
        let (upstream, method, url) = (&*self.connector.upstream.name, self.method.as_str(), shown(url));
        let (request_id, ms) = (self.connector.request_id(), millis(recorder.started.elapsed()));
        let retries = recorder.retries;
        recorder.measure(upstream, &self.method, result);
        match result {
            Ok(status) => {
                tracing::debug!(target: "server.outbound", request_id, upstream, method, url, status, retries, ms, "call");
            }
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(target: "server.outbound", request_id, upstream, method, url, error, retries, ms, "call failed");
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A URL for the log: without its user, and without the values of its query.
fn shown(url: &Url) -> String {
    let mut text = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    // Writing to a string does not fail.
    if let Some(port) = url.port() {
        let _ = write!(text, ":{port}");
    }
    text.push_str(url.path());
    for (index, (key, _)) in url.query_pairs().enumerate() {
        let _ = write!(text, "{}{key}={MASK}", if index == 0 { '?' } else { '&' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_logged_without_its_secrets() {
        let url = Url::parse("https://ada:hunter2@h:8443/p?token=hunter2&q=hunter2#hunter2").unwrap();
        assert_eq!(shown(&url), "https://h:8443/p?token=***&q=***");
        assert_eq!(shown(&Url::parse("http://h").unwrap()), "http://h/");
    }
}

//! The way to one upstream: its limits, and what it shares between all calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use tokio::time::Instant;

use super::breaker::{Breaker, Pass};
use super::budget::Budget;
use super::error::{CallError, Cause};
use super::forwarder::Forwarder;
use super::lazy::Lazy;
use super::permits::Permits;
use super::public_addresses;
use super::settings::Settings;
use super::tunnel::TunnelBounds;
use crate::retry::Policy;

/// What calls; all upstreams share one.
pub(super) type Client = Arc<Lazy<reqwest::Client>>;

/// The methods that have a name in the figures; any other one would let a caller add series without end.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// OpenTelemetry's name for all other methods.
const OTHER: &str = "_OTHER";

/// The name of a method in the figures; one of few.
pub(crate) fn method_name(method: &Method) -> &'static str {
    METHODS.into_iter().find(|name| *name == method.as_str()).unwrap_or(OTHER)
}

/// Calls one upstream; cheap to clone. A handler takes it as [`ConnectorTo`](crate::http::ConnectorTo), which adds the
/// request at hand.
#[derive(Clone)]
pub struct Connector {
    pub(super) upstream: Arc<Upstream>,
    pub(super) incoming: Option<IncomingRequest>,
}

/// The request that is being handled while a call is made.
#[derive(Clone)]
pub struct IncomingRequest {
    /// The headers that are passed on: request id, trace.
    pub headers: HeaderMap,
    /// The request id, for the log.
    pub request_id: String,
    /// When its time is over.
    pub deadline: Option<Instant>,
    /// What ends a WebSocket that is passed on.
    pub tunnel: TunnelBounds,
    /// Where its calls are counted.
    pub tally: Arc<Tally>,
}

/// The calls of one request: their number, their time, their retries.
#[derive(Debug, Default)]
pub struct Tally {
    calls: AtomicU64,
    micros: AtomicU64,
    retries: AtomicU64,
}

impl Tally {
    /// How many calls have ended, how long they took together, and how many attempts were retries.
    pub fn read(&self) -> (u64, Duration, u64) {
        let [calls, micros, retries] =
            [&self.calls, &self.micros, &self.retries].map(|counter| counter.load(Ordering::Relaxed));
        (calls, Duration::from_micros(micros), retries)
    }
}

/// Counts a call when it ends, also when its future is dropped.
pub(super) struct Recorder {
    pub(super) started: Instant,
    pub(super) retries: u32,
    tally: Option<Arc<Tally>>,
}

impl Recorder {
    /// Counts the call for `/metrics`, with its method and its outcome: a status, or why there is none.
    pub(super) fn measure(&self, upstream: &str, method: &Method, result: Result<u16, &CallError>) {
        let outcome = result.map_or_else(
            |error| match error.cause() {
                Cause::Status { status, .. } => status.to_string(),
                cause => cause.name().to_owned(),
            },
            |status| status.to_string(),
        );
        metrics::histogram!(
            "http_client_request_duration_seconds",
            "upstream" => upstream.to_owned(), "http_request_method" => method_name(method), "outcome" => outcome
        )
        .record(self.started.elapsed());
        metrics::counter!("http_client_retries_total", "upstream" => upstream.to_owned())
            .increment(self.retries.into());
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Some(tally) = &self.tally else { return };
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tally.calls.fetch_add(1, Ordering::Relaxed);
        tally.micros.fetch_add(micros, Ordering::Relaxed);
        tally.retries.fetch_add(u64::from(self.retries), Ordering::Relaxed);
    }
}

pub(super) struct Upstream {
    pub(super) name: Arc<str>,
    /// `None`: any public URL, or any at all.
    pub(super) base: Option<Url>,
    any_address: bool,
    /// User and password of the URL. They are not left in it: hyper's pool writes it to the log at level trace.
    pub(super) authorization: Option<HeaderValue>,
    health: String,
    pub(super) client: Client,
    /// What forwards requests.
    pub(super) forwarder: Forwarder,
    pub(super) settings: Settings,
    pub(super) policy: Policy,
    pub(super) permits: Permits,
    pub(super) budget: Budget,
    /// None for the URLs of users: one of them must not close the way to the others.
    pub(super) breaker: Option<Breaker>,
}

impl Upstream {
    pub(super) async fn client(&self) -> Result<&reqwest::Client, CallError> {
        let failed = |why| CallError::new(&self.name, Cause::InvalidCall, why);
        self.client.get().await.map_err(failed)
    }

    /// Asks the breaker for one attempt. `None` where there is no breaker.
    pub(super) fn pass(&self) -> Result<Option<Pass<'_>>, CallError> {
        let pass = self.breaker.as_ref().map(Breaker::pass).transpose();
        pass.map_err(|retry_after| CallError::new(&self.name, Cause::BreakerOpen { retry_after }, ""))
    }

    /// Tells the breaker whether the attempt has failed. `None` where that says nothing about the upstream.
    pub(super) fn settle(&self, pass: Option<Pass<'_>>, failed: Option<bool>) {
        let Some((pass, failed)) = pass.zip(failed) else { return };
        if !failed {
            pass.succeeded();
        } else if pass.failed() {
            tracing::warn!(target: "server.outbound", upstream = &*self.name, "the breaker opens");
        }
    }
}

impl Connector {
    pub(super) fn new(
        name: &str,
        base: Option<Url>,
        health: Option<&str>,
        settings: Settings,
        (client, forwarder): (Client, Forwarder),
    ) -> Self {
        let (base, authorization) = base.map(without_user).unzip();
        let breaker = base.is_some().then(|| Breaker::new(settings.breaker));
        let upstream = Upstream {
            name: name.into(),
            base,
            any_address: false,
            authorization: authorization.flatten(),
            health: health.unwrap_or("/").to_owned(),
            client,
            forwarder,
            policy: settings.policy(),
            permits: Permits::new(settings.concurrency.as_usize(), settings.attempt_timeout.get()),
            budget: Budget::new(settings.retry_percent.get(), settings.retry_reserve.get()),
            breaker,
            settings,
        };
        Self { upstream: Arc::new(upstream), incoming: None }
    }

    /// One without a URL of its own that reaches private addresses too.
    #[cfg(feature = "oidc")]
    pub(super) fn reaching_any_address(mut self) -> Self {
        if let Some(upstream) = Arc::get_mut(&mut self.upstream) {
            upstream.any_address = true;
        }
        self
    }

    /// The name of the upstream.
    pub fn name(&self) -> &str {
        &self.upstream.name
    }

    /// The same upstream, called for this request.
    pub fn for_request(&self, incoming: IncomingRequest) -> Self {
        Self { upstream: Arc::clone(&self.upstream), incoming: Some(incoming) }
    }

    /// Asks once for the health path, past breaker and retries. Any response below 500 means that the upstream is up.
    pub async fn check(&self, time: Duration) -> Result<(), CallError> {
        let name = &self.upstream.name;
        let url = self.url(&self.upstream.health)?;
        let client = self.upstream.client().await?;
        let mut request = client.get(url);
        if let Some(authorization) = &self.upstream.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let asked = tokio::time::timeout(time, request.send()).await;
        let late = |_| CallError::new(name, Cause::TimedOut { by_request: false }, "");
        let response = asked.map_err(late)?.map_err(|error| CallError::of(name, error))?;
        match response.status().as_u16() {
            status @ 500.. => Err(CallError::new(name, Cause::Status { status, retry_after: None }, "")),
            _ => Ok(()),
        }
    }

    pub(super) fn recorder(&self) -> Recorder {
        let tally = self.incoming.as_ref().map(|incoming| Arc::clone(&incoming.tally));
        Recorder { started: Instant::now(), retries: 0, tally }
    }

    pub(super) fn request_id(&self) -> &str {
        self.incoming.as_ref().map_or("", |incoming| &incoming.request_id)
    }

    /// The URL of a path, below that of the upstream.
    pub(super) fn url(&self, path: &str) -> Result<Url, CallError> {
        let failed = |cause, why: &str| CallError::new(&self.upstream.name, cause, why);
        let Some(base) = &self.upstream.base else {
            let url = Url::parse(path).map_err(|error| failed(Cause::NotPublic, &error.to_string()))?;
            return match public_addresses::refuses(&url) {
                _ if self.upstream.any_address => Ok(url),
                Some(why) => Err(failed(Cause::NotPublic, why)),
                None => Ok(url),
            };
        };
        if !path.starts_with('/') {
            return Err(failed(Cause::InvalidCall, "a path begins with a slash"));
        }
        let prefix = base.path().trim_end_matches('/');
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = base.clone();
        url.set_path(&format!("{prefix}{path}"));
        url.set_query(query);
        // The parser has resolved `..` and its spellings.
        let below = url.path().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        if below {
            Ok(url)
        } else {
            Err(failed(Cause::InvalidCall, "the path leads out of the upstream's URL"))
        }
    }
}

/// The URL without its user, and the header of RFC 7617 for that user.
fn without_user(mut url: Url) -> (Url, Option<HeaderValue>) {
    if url.username().is_empty() && url.password().is_none() {
        return (url, None);
    }
    let plain = |text: &str| {
        let text = text.replace('+', "%2B");
        form_urlencoded::parse(text.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
    };
    let pair = format!("{}:{}", plain(url.username()), plain(url.password().unwrap_or_default()));
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok();
    if let Some(header) = &mut header {
        header.set_sensitive(true);
    }
    // They fail only for URLs without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    (url, header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_url_becomes_a_header() {
        let (url, header) = without_user(Url::parse("https://ada:p%40+%3D%26w@h/v1").unwrap());
        assert_eq!(url.as_str(), "https://h/v1");
        let pair = STANDARD.decode(header.unwrap().to_str().unwrap().strip_prefix("Basic ").unwrap());
        assert_eq!(pair.unwrap(), b"ada:p@+=&w");
        assert_eq!(without_user(Url::parse("https://h/").unwrap()).1, None);
    }
}

//! The settings of calls to other services: the section `connector` for all, and in `upstreams` those of each.

use std::fmt;

use reqwest::Url;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::retry::Policy;
use crate::secret::mask_url;
use crate::setting::{Count, Size, Span};

/// At most ten minutes.
type Time = Span<1, 600_000>;
/// At most ten minutes, or none.
type Wait = Span<0, 600_000>;
/// At most 1 GiB.
type Bytes = Size<0, { 1 << 30 }>;

/// The section `connector`. `defaults/connector.yaml` explains each key. It is a part of [`UpstreamSettings`] too, so unknown
/// keys are refused where the configuration is read.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Settings {
    /// The longest that a call takes, with all attempts.
    pub timeout: Time,
    /// The longest that one attempt takes, with the whole response.
    pub attempt_timeout: Time,
    /// The most attempts.
    pub attempts: Count<1, 100>,
    /// The longest wait after the first attempt; it doubles after each further one.
    pub backoff: Wait,
    /// The longest wait of all.
    pub max_backoff: Wait,
    /// Whether a wait is random up to its longest.
    pub jitter: bool,
    /// How many retries there may be for 100 calls.
    pub retry_percent: Count<0, 10_000>,
    /// How many retries there may be besides.
    pub retry_reserve: Count<0, 1_000_000>,
    /// The most calls at a time.
    pub concurrency: Count<1, 100_000>,
    /// The largest response body, decompressed.
    pub response_limit: Bytes,
    /// When calls are not even tried.
    pub breaker: Breaker,
    /// What holds for requests that are forwarded.
    pub forward: Forward,
}

/// The section `connector.forward`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// The longest silence of the upstream.
    pub idle_timeout: Span<1, 86_400_000>,
    /// The most headers in a response.
    pub max_headers: Count<100, 10_000>,
    /// Whether the upstream gets the `Host` of the client, and not its own.
    pub keep_host: bool,
}

/// The section `connector.breaker`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// The time whose attempts count.
    pub window: Span<100, 3_600_000>,
    /// The fewest attempts that say anything.
    pub min_calls: Count<1, 1_000_000>,
    /// The share of failures at which it opens.
    pub failure_percent: Count<1, 100>,
    /// How long it stays open.
    pub open_for: Time,
}

/// One entry of the section `upstreams`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UpstreamSettings {
    /// Where it is.
    pub url: BaseUrl,
    /// The path that `Connector::check` asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Its own settings, and those of the section `connector` that it leaves out.
    #[serde(flatten)]
    pub settings: Settings,
}

impl Settings {
    pub(super) fn policy(&self) -> Policy {
        let attempts = u32::try_from(self.attempts.get()).unwrap_or(u32::MAX);
        let policy = Policy::exponential(attempts, self.backoff.get(), self.max_backoff.get());
        if self.jitter { policy } else { policy.without_jitter() }
    }
}

/// The URL of an upstream: `http` or `https`, a host, and a path to which those of the calls are appended. Its password is
/// never shown.
#[derive(Clone)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Parses a URL; the error says what is expected and does not quote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("is no URL of a service, expected http://HOST:PORT or https://HOST".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has a query or a fragment, expected only a host and a path".to_owned());
        }
        Ok(Self(url))
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(self.0.as_str()))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_a_host_and_shows_no_password() {
        let url = BaseUrl::parse("https://ada:hunter2@h:8443/v1").unwrap();
        assert_eq!(format!("{url:?}"), "https://ada:***@h:8443/v1");
        for wrong in ["", "h:80", "ftp://h", "http://", "http://h/?token=hunter2", "http://h/#a", "unix:/x"] {
            let message = BaseUrl::parse(wrong).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}

//! Spans of requests, for a collector of OpenTelemetry: one for each request that has a line in the log.
//!
//! A span belongs to a trace by the header `traceparent` (W3C Trace Context): the span of the caller is its parent, and it
//! is the parent of what the services called from here record. Whether a request is recorded is decided where its trace
//! begins; the flag `sampled` of the header carries it on.
//!
//! What is recorded is sent in batches by a thread of its own, as OTLP in protobuf over HTTP (the cargo feature `otlp`).

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "none.rs"]
mod otlp;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::secret::Secret;
use crate::setting::{Count, Span as TimeSpan};

/// The section `traces`. `defaults/traces.yaml` explains each key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The URL to which spans are sent; empty for none.
    pub endpoint: String,
    /// Headers of those requests, `NAME=VALUE,NAME=VALUE`.
    pub headers: Secret,
    /// How many of 100 traces that begin here are recorded.
    pub sample_percent: Count<0, 100>,
    /// Whether the caller decides for the traces that it has begun.
    pub caller_decides: bool,
    /// The most spans that wait to be sent.
    pub queue: Count<1, 1_000_000>,
    /// How long spans wait for others.
    pub delay: TimeSpan<1, 60_000>,
    /// The longest that one request to the collector takes.
    pub timeout: TimeSpan<1, 600_000>,
}

impl Settings {
    /// Whether spans are recorded.
    pub fn is_on(&self) -> bool {
        !self.endpoint.is_empty()
    }

    /// Refuses an endpoint that cannot be one, and any where this program cannot send spans.
    pub fn check(&self) -> Result<(), String> {
        let scheme = ["http://", "https://"].iter().any(|scheme| self.endpoint.starts_with(scheme));
        if !self.is_on() {
            Ok(())
        } else if !cfg!(feature = "otlp") {
            Err("traces.endpoint: this program was built without it; build it with the feature otlp"
                .to_owned())
        } else if !scheme || reqwest::Url::parse(&self.endpoint).is_err() {
            Err("traces.endpoint: is no URL such as http://127.0.0.1:4318/v1/traces".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Which trace a request belongs to, and its span there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The id of the trace.
    pub trace: u128,
    /// The id of the span of the request.
    pub span: u64,
    /// The id of the span of its caller; 0 where the trace begins here.
    pub parent: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// Its trace and its span.
    pub context: SpanContext,
    /// How long it took, until now.
    pub took: Duration,
    /// Its method.
    pub method: &'static str,
    /// The template of its route, where it has one.
    pub route: Option<&'a str>,
    /// Its path.
    pub path: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The status of the response.
    pub status: u16,
    /// The address of the client.
    pub client: Option<String>,
    /// Its id, as in the log.
    pub request_id: &'a str,
}

/// Where spans are recorded.
pub struct Traces {
    sample_percent: u64,
    caller_decides: bool,
    exporter: otlp::Exporter,
}

impl Traces {
    /// Begins to send spans, if an endpoint is set. The collector need not respond yet.
    pub fn open(settings: &Settings, service: &str) -> Result<Option<Self>, StartError> {
        if !settings.is_on() {
            return Ok(None);
        }
        settings.check().map_err(StartError::config)?;
        let exporter = otlp::Exporter::open(settings, service)?;
        let (sample_percent, caller_decides) = (settings.sample_percent.get(), settings.caller_decides);
        Ok(Some(Self { sample_percent, caller_decides, exporter }))
    }

    /// The context of a request whose caller has this one: trace, span, and whether it is recorded.
    pub fn begin(&self, caller: Option<(u128, u64, bool)>) -> SpanContext {
        let is_sampled = match caller {
            Some((.., is_sampled)) if self.caller_decides => is_sampled,
            _ => fastrand::u64(..100) < self.sample_percent,
        };
        let (trace, parent, _) = caller.unwrap_or_else(|| (fastrand::u128(1..), 0, false));
        SpanContext { trace, span: fastrand::u64(1..), parent, is_sampled }
    }

    /// Records a request, if it is sampled. It never waits: where the queue is full the span is lost, and the log says so.
    pub fn record(&self, ended: Ended<'_>) {
        if ended.context.is_sampled {
            self.exporter.send(ended);
        }
    }

    /// Sends what waits, for at most this time. It blocks its thread.
    pub fn close(&self, time: Duration) {
        self.exporter.close(time);
    }
}

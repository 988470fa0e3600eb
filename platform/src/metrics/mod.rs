//! Figures for a Prometheus server: how many requests, how long they take, what the store, the locks, the cache, the jobs and
//! the calls to other services do, and what the process uses.
//!
//! They are counted by the macros of the crate `metrics`, as a log is written by those of `tracing`; an app counts its own in the
//! same way. Where nothing is installed they do nothing. With several processes each worker hands its page to the
//! supervisor once a second, and [`Totals`] adds them up: one page for the whole server, whichever worker has served what.

mod buckets;
mod names;
mod process;
mod server;
mod totals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::StartError;
use crate::secret::Secret;
use buckets::Buckets;

pub use ::metrics::{counter, gauge, histogram};
pub use names::begin_supervisor;
pub use server::serve;
pub use totals::Totals;

/// The upper bounds of histograms that the settings do not name, in seconds: those of OpenTelemetry's `http.server.request.duration`.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// How often what was recorded is added up.
const ADD_UP_EVERY: Duration = Duration::from_secs(5);

/// The section `metrics`. `defaults/metrics.yaml` explains each key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where `/metrics` is served.
    pub listen: Listen,
    /// What a scraper has to send.
    pub token: Secret,
    /// The bounds of single histograms, by their names.
    pub buckets: Buckets,
}

impl Settings {
    /// Whether anything is counted.
    pub fn is_on(&self) -> bool {
        self.listen.0.is_some()
    }
}

/// An address and a port, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub(crate) Option<SocketAddr>);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = |_| {
            de::Error::custom(format_args!(
                "'{text}' is not an IP address with a port such as 127.0.0.1:9464, nor empty"
            ))
        };
        text.parse().map(Some).map(Self).map_err(wrong)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.map(|address| address.to_string()).unwrap_or_default())
    }
}

/// What this process counts.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl Recorder {
    /// Counts from now on, for the whole process.
    pub fn install(settings: &Settings) -> Result<Self, StartError> {
        let failed = |error: String| StartError::failed(format!("cannot count metrics: {error}"));
        let unbuilt = |error: BuildError| failed(error.to_string());
        let mut builder = PrometheusBuilder::new().set_buckets(&SECONDS).map_err(unbuilt)?;
        for (name, bounds) in &settings.buckets {
            let name = Matcher::Full(name.0.clone());
            builder = builder.set_buckets_for_metric(name, &bounds.0).map_err(unbuilt)?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder).map_err(|error| failed(error.to_string()))?;
        names::describe();
        Ok(Self(handle))
    }

    /// Adds up what was recorded, now and then: what waits for it needs memory for each request, and only [`Self::page`] does
    /// it besides, which nobody may ask for.
    pub fn add_up_in_background(&self) {
        let handle = self.0.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(ADD_UP_EVERY).await;
                handle.run_upkeep();
            }
        });
    }

    /// All figures of this process, as text.
    pub fn page(&self) -> String {
        self.0.run_upkeep();
        self.0.render() + &process::page()
    }
}

/// What a scrape gives, as text.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// What there is once for a server, however many processes it has.
pub fn once(name: &str, version: &str, started: std::time::SystemTime) -> String {
    let since = started.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let (name, version) = (escape(name), escape(version));
    format!(
        "# HELP target_info The service.\n# TYPE target_info gauge\n\
         target_info{{service_name=\"{name}\",service_version=\"{version}\"}} 1\n\
         # HELP process_start_time_seconds When the server was started, in seconds since 1970-01-01 UTC.\n\
         # TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {since}\n"
    )
}

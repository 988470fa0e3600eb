//! The settings of the process: its name, its address, its shutdown.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::setting::{Count, Host, PublicUrl, Span};
use crate::tls;

/// The section `server`. `defaults/server.yaml` explains each key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name of the service in its log records; empty until `load` has put the name of the package here.
    pub name: String,
    /// The host that it listens on.
    pub host: Host,
    /// The TCP port; 0 lets the system choose.
    pub port: Count<0, 65_535>,
    /// The address under which its users find it.
    pub public_url: PublicUrl,
    /// The name of the environment, for the application.
    pub env: String,
    /// The number of serving processes; 0 is one per core. More than 1,024 is a typing error.
    pub processes: Count<0, 1_024>,
    /// Whether responses show traces.
    pub debug: DebugMode,
    /// Whether to serve HTTPS.
    pub ssl: bool,
    /// What HTTPS is served with.
    pub tls: tls::Settings,
    /// What the supervisor of several processes tolerates.
    pub workers: process::Settings,
    /// Delays of a shutdown.
    pub shutdown: Shutdown,
}

impl Settings {
    /// `public_url`, or where that is not set, the address at which a browser of this machine finds it.
    pub(crate) fn public_url(&self) -> String {
        let own = || {
            let scheme = if self.ssl { "https" } else { "http" };
            format!("{scheme}://localhost:{}", self.port.get())
        };
        self.public_url.origin().map_or_else(own, str::to_owned)
    }

    /// The number of processes, with 0 resolved to the number of cores.
    pub fn process_count(&self) -> u64 {
        match self.processes.get() {
            0 => cores() as u64,
            count => count,
        }
    }

    /// The threads that run the tasks of one of several processes; `None` where tokio decides: for one process, which has a
    /// thread for each core, and where `TOKIO_WORKER_THREADS` is set.
    pub(crate) fn threads(&self) -> Option<usize> {
        let own = std::env::var_os("TOKIO_WORKER_THREADS").is_none();
        own.then(|| threads_of(cores(), self.process_count()))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The share of the cores. Two at least: one that a handler blocks must not stop all others.
fn threads_of(cores: usize, processes: u64) -> usize {
    cores.div_ceil(usize::try_from(processes).unwrap_or(usize::MAX).max(1)).max(2)
}

/// The section `server.shutdown`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long new requests are still accepted after the signal.
    pub linger: Span<0, 300_000>,
    /// How long requests in flight may take after that before their connections are closed.
    pub deadline: Span<0, 3_600_000>,
}

/// Who gets traces of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DebugMode {
    /// Nobody.
    Off,
    /// Clients of a server that only this machine can reach.
    On,
    /// Every client.
    Exposed,
}

impl DebugMode {
    /// Whether traces are shown at all.
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

impl<'de> Deserialize<'de> for DebugMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = DebugMode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("off, on or exposed")
            }
            // Tools for YAML 1.1 write a bare `on` as `true`.
            fn visit_bool<E>(self, on: bool) -> Result<DebugMode, E> {
                Ok(if on { DebugMode::On } else { DebugMode::Off })
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<DebugMode, E> {
                match word {
                    "off" => Ok(DebugMode::Off),
                    "on" => Ok(DebugMode::On),
                    "exposed" => Ok(DebugMode::Exposed),
                    _ => Err(E::invalid_type(de::Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn debug_is_one_of_three_words_or_a_boolean() {
        for (given, expected) in [
            (json!("off"), DebugMode::Off),
            (json!("on"), DebugMode::On),
            (json!("exposed"), DebugMode::Exposed),
            (json!(true), DebugMode::On),
            (json!(false), DebugMode::Off),
        ] {
            assert_eq!(from_value::<DebugMode>(given).unwrap(), expected);
        }
        assert_eq!(to_value(DebugMode::Exposed).unwrap(), json!("exposed"));
        assert!(
            from_value::<DebugMode>(json!("yes")).unwrap_err().to_string().contains("off, on or exposed")
        );
    }

    #[test]
    fn several_processes_share_the_cores() {
        for (cores, processes, threads) in [(64, 64, 2), (64, 4, 16), (10, 4, 3), (2, 2, 2), (1, 9, 2)] {
            assert_eq!(threads_of(cores, processes), threads, "{cores} cores, {processes} processes");
        }
    }
}

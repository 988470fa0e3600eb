//! The settings of the process as a whole: its name, where it listens, how it ends.

use std::fmt;
use std::net::IpAddr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::platform::setting::{Count, Span};

/// The section `server`. `defaults/server.yaml` explains each key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the server names itself, in logs.
    pub name: String,
    /// Where it listens.
    pub host: Host,
    /// TCP port; 0 lets the system choose.
    pub port: Count<0, 65_535>,
    /// Name of the environment, for the application.
    pub env: String,
    /// Processes that serve; 0 is one per core. 1,024 is far above any machine's cores: a typing error.
    pub processes: Count<0, 1_024>,
    /// How much of its inside the server shows.
    pub debug: DebugMode,
    /// Serve HTTPS.
    pub ssl: bool,
    /// How it ends.
    pub shutdown: Shutdown,
}

impl Settings {
    /// How many processes are asked for; 0 is one for each core.
    pub fn process_count(&self) -> u64 {
        match self.processes.get() {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            count => count,
        }
    }
}

/// The section `server.shutdown`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long new requests are still taken after the signal.
    pub linger: Span<0, 300_000>,
    /// How long requests in flight may take after that before they are cut.
    pub deadline: Span<0, 3_600_000>,
}

/// How much of its inside the server shows to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DebugMode {
    /// Nothing.
    Off,
    /// Traces in error bodies, for callers on this machine only.
    On,
    /// Traces in error bodies, for whoever can connect.
    Exposed,
}

impl<'de> Deserialize<'de> for DebugMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = DebugMode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("off, on or exposed")
            }
            // Tools that speak YAML 1.1 turn a bare `on` into `true` when they rewrite a file.
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

/// An IP address or a host name, without a port.
#[derive(Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Reads a host; the error says what a host looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        // RFC 1123 names, and the underscore that container networks use in theirs.
        let name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        // 253: the longest host name of RFC 1035.
        if bare.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.len() <= 253 && name(text)) {
            return Ok(Self(bare.to_owned()));
        }
        Err(format!("'{text}' is not a host, expected a name or an IP address without port"))
    }

    /// The name, or the address without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when only this machine can reach it. A name other than `localhost` may resolve to anything.
    pub fn is_loopback(&self) -> bool {
        match self.0.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.0.eq_ignore_ascii_case("localhost"),
        }
    }

    /// As it stands in a URL: an IPv6 address in brackets.
    pub fn in_url(&self) -> String {
        if self.0.contains(':') { format!("[{}]", self.0) } else { self.0.clone() }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn loopback_is_an_address_of_this_machine_or_localhost() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"] {
            assert!(Host::parse(host).unwrap().is_loopback(), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org"] {
            assert!(!Host::parse(host).unwrap().is_loopback(), "{host}");
        }
    }

    #[test]
    fn a_host_with_a_port_or_a_path_is_refused() {
        for host in ["", "localhost:8080", "http://localhost", "a b", "a/b", "u@h", "[::1", "[::1]:80"] {
            assert!(Host::parse(host).is_err(), "{host}");
        }
    }

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
}

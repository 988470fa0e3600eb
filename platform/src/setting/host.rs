//! The setting type of a host: a name or an address, without a port.

use std::fmt;
use std::net::IpAddr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

/// An IP address or a host name, without a port.
#[derive(Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Parses a host; the error says what a host looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        // Names of RFC 1123, and the underscore, which container networks use in names.
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

    /// The form for a URL: an IPv6 address in brackets.
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
}

//! The names under which the server may be asked (`http.allowed_hosts`).

use serde::{Deserialize, Serialize};

use super::request_host::RequestHost;
use crate::error::{Error, Kind, Result};

/// Names such as `example.org`, and `*.example.org` for those below it; all names where there are none.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct AllowedHosts(Vec<String>);

impl TryFrom<Vec<String>> for AllowedHosts {
    type Error = String;

    fn try_from(mut names: Vec<String>) -> Result<Self, String> {
        for name in &mut names {
            name.make_ascii_lowercase();
            let bare = name.strip_prefix("*.").unwrap_or(name);
            let is_name = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            let is_ipv6 = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let is_ipv6 = is_ipv6.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
            if bare.is_empty() || !(is_name || is_ipv6) {
                let expected =
                    "expected example.org, *.example.org, 192.0.2.1 or [2001:db8::1], without a port";
                return Err(format!("'{name}' is not a host: {expected}"));
            }
        }
        Ok(Self(names))
    }
}

impl From<AllowedHosts> for Vec<String> {
    fn from(hosts: AllowedHosts) -> Self {
        hosts.0
    }
}

impl AllowedHosts {
    /// 421 for a request to another host, or to none (RFC 9110, section 15.5.20).
    pub(crate) fn check(&self, host: Option<&RequestHost>) -> Result<()> {
        if self.0.is_empty() || host.is_some_and(|host| self.allows(host)) {
            return Ok(());
        }
        Err(Error::new(Kind::Other(421)).with_reason("Misdirected Request"))
    }

    fn allows(&self, host: &RequestHost) -> bool {
        let name = host.name().trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => name == *allowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_host_is_compared_without_case_and_port() {
        let names = ["Example.org", "*.example.com", "192.0.2.1", "[2001:db8::1]"];
        let hosts = AllowedHosts::try_from(names.map(String::from).to_vec()).unwrap();
        let allows = |host: &'static str| {
            RequestHost::parse(HeaderValue::from_static(host)).is_some_and(|host| hosts.allows(&host))
        };
        for host in [
            "example.org",
            "EXAMPLE.ORG:5000",
            "example.org.",
            "a.example.com",
            "b.a.example.com:1",
            "192.0.2.1:80",
            "[2001:db8::1]:80",
            "[2001:DB8::1]",
        ] {
            assert!(allows(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "example.com",
            ".example.com",
            "xexample.com",
            "www.example.org",
            "example.org.evil",
            "192.0.2.2",
            "[2001:db8::2]",
            "[2001:db8::1",
            "2001:db8::1",
        ] {
            assert!(!allows(host), "{host}");
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused_and_named() {
        for name in ["", "*", "*.", "example.org:80", "https://example.org", "2001:db8::1", "a b", "[x]"] {
            let error = AllowedHosts::try_from(vec![name.to_owned()]).unwrap_err();
            assert!(error.starts_with(&format!("'{name}' is not a host")), "{error}");
        }
    }
}

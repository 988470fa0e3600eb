//! The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted (`http.trusted_proxies`).

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Networks such as `10.0.0.0/8`, and single addresses.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct TrustedProxies(Vec<IpNet>);

impl TryFrom<Vec<String>> for TrustedProxies {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<Self, Self::Error> {
        let network = |text: &String| {
            let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse()
                .ok()
                .or_else(single)
                .map(canonical)
                .ok_or_else(|| format!("'{text}' is not a network such as 10.0.0.0/8, nor an IP address"))
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl From<TrustedProxies> for Vec<String> {
    fn from(proxies: TrustedProxies) -> Self {
        proxies.0.iter().map(ToString::to_string).collect()
    }
}

impl TrustedProxies {
    /// Whether no proxy is trusted.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Whether the peer is a trusted proxy that says in `X-Forwarded-Proto` that its client has used HTTPS. The last
    /// value counts: it is that of the proxy itself.
    pub(crate) fn say_https(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let Some(line) = headers.get_all(X_FORWARDED_PROTO).iter().next_back() else { return false };
        let scheme = line.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        self.trusts(peer) && scheme.trim_ascii().eq_ignore_ascii_case(b"https")
    }

    /// The client that the proxies name in `X-Forwarded-For`: the last address there that is not a trusted proxy,
    /// because each proxy appends the address of its own client. `None` when the peer is not a trusted proxy, or names
    /// no address. Addresses before one that cannot be parsed are not trusted.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.trusts(peer) {
            return None;
        }
        let mut client = None;
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            // Whatever bytes the client itself has sent stand to the left of what the proxy appends.
            for text in line.as_bytes().rsplit(|byte| *byte == b',') {
                let text = str::from_utf8(text).unwrap_or_default();
                let Some(address) = address(text.trim()) else { return client };
                client = Some(address);
                if !self.trusts(address) {
                    return client;
                }
            }
        }
        client
    }
}

/// A network of IPv4 addresses mapped to IPv6 (`::ffff:10.0.0.0/104`) as one of IPv4: addresses are compared as IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpAddr::V4(address) = network.addr().to_canonical() else { return network };
    let length = network.prefix_len().checked_sub(network.max_prefix_len() - 32);
    length.and_then(|length| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

/// Parses an address with or without a port and brackets, as the common proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(host, _)| host);
    let parsed = bare.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    parsed.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(lines: &[&'static str]) -> Option<String> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        client_of(&lines)
    }

    fn client_of(lines: &[&[u8]]) -> Option<String> {
        let proxies = TrustedProxies::try_from(vec!["10.0.0.0/8".to_owned(), "::1".to_owned()]).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        let client = proxies.client("10.0.0.1".parse().unwrap(), &headers);
        // The header of a peer that is not trusted is ignored.
        assert_eq!(proxies.client("192.0.2.1".parse().unwrap(), &headers), None);
        client.map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_not_a_trusted_proxy_is_the_client() {
        assert_eq!(client(&[]), None);
        assert_eq!(client(&["203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        // The first address was sent by the client itself, and is not trusted.
        assert_eq!(client(&["1.1.1.1, 203.0.113.7, 10.0.0.2"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(client(&["1.1.1.1", "203.0.113.7", "10.0.0.2"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(client(&["10.0.0.9, 10.0.0.2"]).as_deref(), Some("10.0.0.9"));
        assert_eq!(client(&["203.0.113.7:4711"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(client(&["[2001:db8::1]:80"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(client(&["203.0.113.7, unknown"]), None);
        assert_eq!(client(&["::ffff:203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        // One byte that is not ASCII, sent by the client, must not hide its address.
        assert_eq!(client_of(&[b"\xff, 203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(client_of(&[b"203.0.113.7, \xff"]), None);
    }

    #[test]
    fn a_network_written_as_ipv4_in_ipv6_is_one_of_ipv4() {
        for (text, trusted, other) in [
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("2001:db8::/32", "2001:db8::1", "10.0.0.1"),
        ] {
            let proxies = TrustedProxies::try_from(vec![text.to_owned()]).unwrap();
            assert!(proxies.trusts(trusted.parse().unwrap()), "{text}");
            assert!(!proxies.trusts(other.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_can_say_that_its_client_has_used_https() {
        let proxies = TrustedProxies::try_from(vec!["10.0.0.0/8".to_owned()]).unwrap();
        for (lines, https) in [
            (&["https"][..], true),
            (&["HTTPS"], true),
            (&["http, https"], true),
            (&["http", "https"], true),
            (&["https, http"], false),
            (&["http"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_PROTO, HeaderValue::from_static(line));
            }
            assert_eq!(proxies.say_https("10.0.0.1".parse().unwrap(), &headers), https, "{lines:?}");
            assert!(!proxies.say_https("192.0.2.1".parse().unwrap(), &headers), "{lines:?}");
        }
    }

    #[test]
    fn an_invalid_network_is_refused_and_named() {
        let error = TrustedProxies::try_from(vec!["10.0.0.0/40".to_owned()]).unwrap_err();
        assert!(error.contains("'10.0.0.0/40' is not a network"), "{error}");
    }
}

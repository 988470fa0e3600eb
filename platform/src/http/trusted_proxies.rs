//! The proxies whose `X-Forwarded-For` is trusted (`http.trusted_proxies`).

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// The client that the proxies name in `X-Forwarded-For`: the last address there that is not a trusted proxy,
    /// because each proxy appends the address of its own client. `None` when the peer is not a trusted proxy, or names
    /// no address. Addresses before one that cannot be parsed are not trusted.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.trusts(peer) {
            return None;
        }
        let mut client = None;
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for text in line.to_str().ok()?.rsplit(',') {
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
        let proxies = TrustedProxies::try_from(vec!["10.0.0.0/8".to_owned(), "::1".to_owned()]).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
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
    }

    #[test]
    fn an_invalid_network_is_refused_and_named() {
        let error = TrustedProxies::try_from(vec!["10.0.0.0/40".to_owned()]).unwrap_err();
        assert!(error.contains("'10.0.0.0/40' is not a network"), "{error}");
    }
}

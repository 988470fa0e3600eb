//! The SSRF guard, for URLs that come from a user: only public addresses are connected to.
//!
//! A name is looked up by [`PublicOnly`], and the connection goes to the addresses that it has let through: what a name
//! resolves to at another time (DNS rebinding) does not matter. An address in a URL is never looked up, so it is checked
//! before. Redirects are not followed.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Looks a name up.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Resolves names to public addresses only.
pub(super) struct PublicOnly(pub(super) Lookup);

/// An address that a user must not reach through this service.
#[derive(Debug)]
pub(super) struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name has no public address")
    }
}

impl std::error::Error for NotPublic {}

/// The resolver of the operating system.
pub(super) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
        })
    })
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let looking_up = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let found = looking_up.await?.into_iter().filter(|address| is_public(*address));
            let found: Vec<_> = found.map(|address| SocketAddr::new(address, 0)).collect();
            if found.is_empty() { Err(NotPublic.into()) } else { Ok(Box::new(found.into_iter()) as Addrs) }
        })
    }
}

/// Why a URL of a user's is refused before anything is looked up. The parser of URLs has already read all spellings of an
/// address (`0x7f.1`, `2130706433`, `[::ffff:7f00:1]`).
pub(super) fn refuses(url: &Url) -> Option<&'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some("expected http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("a URL with a user is not allowed");
    }
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    literal.is_ok_and(|address| !is_public(address)).then_some("the address is not public")
}

/// What is not reachable from everywhere: the special-purpose registry of IANA (RFC 6890), multicast, and the one address of a
/// cloud that is in none of these: Azure's for what a machine asks about itself.
const NOT_PUBLIC_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),        // this network
    ([10, 0, 0, 0], 8),       // private
    ([100, 64, 0, 0], 10),    // CGNAT
    ([127, 0, 0, 0], 8),      // loopback
    ([169, 254, 0, 0], 16),   // link-local, and the metadata of clouds
    ([168, 63, 129, 16], 32), // Azure
    ([172, 16, 0, 0], 12),    // private
    ([192, 0, 0, 0], 24),     // protocols of the IETF
    ([192, 0, 2, 0], 24),     // documentation
    ([192, 31, 196, 0], 24),  // AS112
    ([192, 88, 99, 0], 24),   // relays of 6to4
    ([192, 168, 0, 0], 16),   // private
    ([198, 18, 0, 0], 15),    // benchmarks
    ([198, 51, 100, 0], 24),  // documentation
    ([203, 0, 113, 0], 24),   // documentation
    ([224, 0, 0, 0], 4),      // multicast
    ([240, 0, 0, 0], 4),      // reserved, broadcast
];

/// Of the addresses that are routed in IPv6, `2000::/3`, those that are not public or that carry another address. All outside
/// of it are refused: loopback, link-local, unique local, multicast, mapped IPv4, and the translated ones (`64:ff9b::/96`).
const NOT_PUBLIC_V6: [([u16; 3], u32); 4] = [
    ([0x2001, 0, 0], 23),     // protocols of the IETF, Teredo
    ([0x2001, 0xdb8, 0], 32), // documentation
    ([0x2002, 0, 0], 16),     // 6to4
    ([0x3fff, 0, 0], 20),     // documentation
];

/// Whether an address can be reached from everywhere.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            let within = |(network, prefix): &([u8; 4], u32)| {
                (bits ^ u32::from(Ipv4Addr::from(*network))) >> (32 - prefix) == 0
            };
            !NOT_PUBLIC_V4.iter().any(within)
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            let within = |(network, prefix): &([u16; 3], u32)| {
                let [a, b, c] = *network;
                (bits ^ u128::from(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))) >> (128 - prefix) == 0
            };
            bits >> 125 == 1 && !NOT_PUBLIC_V6.iter().any(within)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Mutex;

    #[test]
    fn an_address_that_is_not_public_is_refused_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.0.0.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "0",
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "0xa9fea9fe",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:8.8.8.8]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[fe80::1]",
            "[febf::1]",
            "[fc00::1]",
            "[fd12::1]",
            "[ff02::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
            "[fec0::1]",
        ] {
            let url = Url::parse(&format!("http://{host}/x")).unwrap();
            assert_eq!(refuses(&url), Some("the address is not public"), "{host}");
        }
        for host in [
            "8.8.8.8",
            "134744072",
            "168.63.129.15",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "223.255.255.255",
            "[2606:4700::1111]",
            "[2a00:1450:4001::1]",
            "example.org",
            "localhost",
        ] {
            let url = Url::parse(&format!("http://{host}/x")).unwrap();
            assert_eq!(refuses(&url), None, "{host}");
        }
        for other in ["ftp://8.8.8.8/", "file:///etc/passwd", "http://ada:pw@8.8.8.8/", "http://ada@8.8.8.8/"]
        {
            assert!(refuses(&Url::parse(other).unwrap()).is_some(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_name_is_checked_at_each_look_up() {
        let answers = Mutex::new(vec!["127.0.0.1", "10.0.0.1 8.8.8.8 ::1", "8.8.8.8"]);
        let resolver = PublicOnly(Arc::new(move |_| {
            let next = answers.lock().unwrap().pop().unwrap();
            Box::pin(async move { Ok(next.split(' ').map(|address| address.parse().unwrap()).collect()) })
        }));
        let resolve = async || resolver.resolve("rebound.example".parse().unwrap()).await;
        let public: Vec<SocketAddr> = vec!["8.8.8.8:0".parse().unwrap()];
        assert_eq!(resolve().await.unwrap().collect::<Vec<_>>(), public);
        // Of several addresses, only the public ones.
        assert_eq!(resolve().await.unwrap().collect::<Vec<_>>(), public);
        // The same name, rebound.
        assert!(resolve().await.err().unwrap().is::<NotPublic>());
    }
}

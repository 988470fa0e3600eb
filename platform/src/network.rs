//! The network of a client: what counts as one client where clients are counted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// One address of IPv4, or one network of 64 bits of IPv6: that is what a client gets, with all addresses in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address. An address of IPv4 that is written as one of IPv6 is one of IPv4.
    pub fn of(client: IpAddr) -> Self {
        Self(match client.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! The other end of a connection: its address, and which of its requests are being answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The other end of one connection; a clone is one more handle on the same.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: String,
    begun: AtomicU64,
    ended: AtomicU64,
    unread: AtomicBool,
}

impl Peer {
    /// A peer that has asked nothing yet.
    pub fn new(address: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            address: SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            unread: AtomicBool::new(false),
        }))
    }

    /// Its network address with its port; an IPv4 address in IPv6 clothes is shown as what it is.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Notes that it has asked something; the answer ends with the guard.
    pub(super) fn begin(self) -> InFlight {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        InFlight(self)
    }

    /// Notes whether there is something of its last request's body that was not read.
    pub(super) fn set_unread(&self, unread: bool) {
        self.0.unread.store(unread, Ordering::Release);
    }

    /// Whether it may still be sending a body that nobody reads. Of HTTP/2, with many requests at a time, only a guess.
    pub(super) fn has_unread(&self) -> bool {
        self.0.unread.load(Ordering::Acquire)
    }

    /// How many requests it has made.
    pub(super) fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Whether each of them has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.0.ended.load(Ordering::Acquire) == self.begun()
    }
}

/// A request that is being answered.
pub(super) struct InFlight(Peer);

impl InFlight {
    pub(super) fn peer(&self) -> &Peer {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_an_address_with_its_port_and_ipv4_as_ipv4() {
        for (address, text) in
            [("[::ffff:10.0.0.1]:80", "10.0.0.1:80"), ("[2001:db8::1]:443", "[2001:db8::1]:443")]
        {
            assert_eq!(Peer::new(address.parse().unwrap()).address(), text);
        }
    }

    #[test]
    fn all_is_answered_when_the_last_guard_is_gone() {
        let peer = Peer::new("127.0.0.1:1".parse().unwrap());
        assert!(peer.is_answered());
        let (one, other) = (peer.clone().begin(), peer.clone().begin());
        assert_eq!(one.peer().begun(), 2);
        drop(one);
        assert!(!peer.is_answered());
        drop(other);
        assert!(peer.is_answered());
    }
}

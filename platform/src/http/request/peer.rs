//! The other end of a connection: its address, and how many of its requests are in flight.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use super::arrival::Arrival;

/// The other end of one connection. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    /// The address as text, for the log.
    text: String,
    begun: AtomicU64,
    ended: AtomicU64,
    unread_body: AtomicBool,
    broken_body: AtomicBool,
    upgraded: AtomicBool,
    connection: Mutex<Connection>,
    arrival: OnceLock<Arrival>,
    /// Since when each response body over HTTP/2 waits for it, by its number.
    waiting: Mutex<BTreeMap<u64, Instant>>,
}

/// The connection that a peer is the other end of, where there is one: a request may also come through no socket.
#[derive(Debug, Default)]
struct Connection {
    is_open: bool,
    /// Dropped when the upgraded connection ends.
    guard: Option<Box<dyn Any + Send>>,
}

impl Peer {
    /// A peer that has sent no request yet. An IPv4 address mapped to IPv6 becomes IPv4.
    pub fn new(address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Self(Arc::new(Inner {
            address,
            text: address.to_string(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            unread_body: AtomicBool::new(false),
            broken_body: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            connection: Mutex::default(),
            arrival: OnceLock::new(),
            waiting: Mutex::default(),
        }))
    }

    /// Its network address.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Its network address as text, with the port.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Notes how its connection has come in, before the first request.
    pub(crate) fn arrived(&self, arrival: Arrival) {
        // It comes in once.
        let _ = self.0.arrival.set(arrival);
    }

    /// How its connection has come in; nothing for plain HTTP.
    pub(crate) fn arrival(&self) -> Option<&Arrival> {
        self.0.arrival.get()
    }

    /// Counts a request as in flight, until the guard is dropped.
    pub(crate) fn begin(self) -> InFlight {
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        InFlight(self)
    }

    /// Records whether a part of the last request body is still unread.
    pub(crate) fn set_unread_body(&self, unread: bool) {
        self.0.unread_body.store(unread, Ordering::Release);
    }

    /// Whether it may still be sending a body that no handler reads. For concurrent requests of HTTP/2 it is only a
    /// guess.
    pub(crate) fn has_unread_body(&self) -> bool {
        self.0.unread_body.load(Ordering::Acquire)
    }

    /// Records that nobody can tell where the last request body ends.
    pub(crate) fn set_broken_body(&self) {
        self.0.broken_body.store(true, Ordering::Release);
    }

    /// Whether the last request body has no end that can be found. It stays so: the connection is closed then.
    pub(crate) fn has_broken_body(&self) -> bool {
        self.0.broken_body.load(Ordering::Acquire)
    }

    /// Notes that a response body over HTTP/2 waits until it takes more, as long as the guard is not dropped.
    pub(crate) fn wait(&self) -> Waiting {
        let mut waiting = self.waiting();
        let number = waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        waiting.insert(number, Instant::now());
        drop(waiting);
        Waiting { peer: self.clone(), number }
    }

    /// Since when the response body has waited that waits for the longest time.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting().values().min().copied()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests it has sent so far.
    pub(crate) fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Whether no request is in flight.
    pub(crate) fn has_no_request_in_flight(&self) -> bool {
        self.0.ended.load(Ordering::Acquire) == self.begun()
    }

    /// Notes that its connection is open.
    pub(crate) fn connected(&self) {
        self.connection().is_open = true;
    }

    /// Notes that a handler has taken the connection over (101 Switching Protocols). `guard` is dropped when the
    /// connection ends, or now where there is none.
    pub(crate) fn upgrade(&self, guard: impl Any + Send) {
        let mut connection = self.connection();
        if connection.is_open {
            connection.guard = Some(Box::new(guard));
            self.0.upgraded.store(true, Ordering::Release);
        } else {
            drop(connection);
            drop(guard);
        }
    }

    /// Whether a handler has taken over the connection.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.0.upgraded.load(Ordering::Acquire)
    }

    /// Notes the end of its connection. The guard of an upgrade holds this peer: it has to be dropped here.
    pub(crate) fn disconnected(&self) {
        let mut connection = self.connection();
        connection.is_open = false;
        let guard = connection.guard.take();
        drop(connection);
        drop(guard);
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guard of a request in flight.
pub(crate) struct InFlight(Peer);

impl InFlight {
    pub(crate) fn peer(&self) -> &Peer {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

/// The guard of a response body that waits for its client.
pub(crate) struct Waiting {
    peer: Peer,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.peer.waiting().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_with_its_port_and_ipv4_as_ipv4() {
        for (address, text) in
            [("[::ffff:10.0.0.1]:80", "10.0.0.1:80"), ("[2001:db8::1]:443", "[2001:db8::1]:443")]
        {
            assert_eq!(Peer::new(address.parse().unwrap()).as_str(), text);
        }
    }

    #[test]
    fn no_request_is_in_flight_when_the_last_guard_is_dropped() {
        let peer = Peer::new("127.0.0.1:1".parse().unwrap());
        assert!(peer.has_no_request_in_flight());
        let (one, other) = (peer.clone().begin(), peer.clone().begin());
        assert_eq!(one.peer().begun(), 2);
        drop(one);
        assert!(!peer.has_no_request_in_flight());
        drop(other);
        assert!(peer.has_no_request_in_flight());
    }

    #[test]
    fn an_upgraded_request_is_in_flight_until_its_connection_ends() {
        let peer = Peer::new("127.0.0.1:1".parse().unwrap());
        peer.connected();
        peer.upgrade(peer.clone().begin());
        assert!(peer.is_upgraded() && !peer.has_no_request_in_flight());
        peer.disconnected();
        assert!(peer.has_no_request_in_flight());
        // Without a connection there would be nothing to end it.
        peer.upgrade(peer.clone().begin());
        assert!(peer.has_no_request_in_flight());
    }
}

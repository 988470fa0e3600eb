//! Accepts connections, no more than there are places for, and drains them: axum-server, with what the stock stack
//! leaves open.
//!
//! A connection that sends nothing, or only the start of the HTTP/2 preface, would stay for ever (hyper#3756): so
//! every one has to show what it speaks first. All later deadlines are those of `connection.rs`. Knows no routes.

use std::future::{Future, ready};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::{AddrListener, Address};
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::service_fn;

use super::connection::{Connection, Terms};
use super::middleware::Stack;
use super::peer::Peer;
use super::settings::Settings;
use crate::platform::error::StartError;

/// How often it is looked for something that nobody tells.
const POLL: Duration = Duration::from_millis(10);

/// How often at most the log is told that all places are taken: at the limit they are taken and free in turns.
const TELL_FULL: Duration = Duration::from_mins(1);

/// How many headers hyper takes when it is not told (`http1::Builder::max_headers`).
const HYPER_MAX_HEADERS: usize = 100;

/// Opens the port; an error says what to do about it.
pub async fn listen(host: &str, port: u16) -> Result<TcpListener, StartError> {
    bind(host, port).await.map_err(|error| {
        let place = format!("{host}:{port}");
        StartError::failed(match error.kind() {
            ErrorKind::AddrInUse => format!(
                "port {port} is in use by another process; choose another with --port \
                 (on macOS, port 5000 is taken by AirPlay Receiver)"
            ),
            ErrorKind::PermissionDenied => {
                format!("cannot listen on {place}: {error}; choose a port from 1024 with --port")
            }
            _ => format!("cannot listen on {place}: {error}; choose another address with --host"),
        })
    })
}

async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    first_of(tokio::net::lookup_host((host, port)).await?).await
}

/// The first address that this machine has. One whose port is taken ends the search: with `localhost` as 127.0.0.1
/// and `::1`, the other family would be free, and half of the clients would reach the other process.
async fn first_of(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpListener> {
    let mut last = io::Error::new(ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() != ErrorKind::AddrInUse => last = error,
            result => return result,
        }
    }
    Err(last)
}

/// A server that has been told to drain, or not yet.
#[derive(Clone)]
pub struct Drain {
    handle: Handle<Peer>,
    started: watch::Sender<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { handle: Handle::new(), started: watch::Sender::new(false) }
    }
}

impl Drain {
    /// Stops accepting, lets what is in flight finish, and closes what is left at the deadline.
    pub fn start(&self, deadline: Duration) {
        self.started.send_replace(true);
        self.handle.graceful_shutdown(Some(deadline));
    }

    /// Waits until the last connection is gone, for a second at most. At the deadline axum-server tells them to end
    /// and does not wait; each still has a line to write.
    pub async fn ended(&self) {
        let gone = async {
            while self.connections() > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        // What stays after that is stuck in code that never waits, and cannot be told anything.
        let _ = tokio::time::timeout(Duration::from_secs(1), gone).await;
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.handle.connection_count()
    }
}

/// Serves until drained.
pub async fn serve(
    listener: TcpListener,
    stack: Arc<Stack>,
    settings: &Settings,
    drain: Drain,
) -> io::Result<()> {
    let draining = drain.started.subscribe();
    let acceptor = FirstByte { deadline: settings.first_byte_timeout.get(), draining: draining.clone() };
    let gate = Gate {
        listener,
        places: Arc::new(Semaphore::new(settings.max_connections.as_usize())),
        terms: Terms::new(Arc::clone(&stack), settings, draining),
        told_full: Mutex::default(),
        failing: AtomicBool::new(false),
    };
    let mut server = axum_server::Server::from_listener(gate).acceptor(acceptor).handle(drain.handle);
    let builder = server.http_builder();
    // A client may close its side and wait for the answer; hyper would drop the request unseen, and its line with it.
    builder.http1().half_close(true);
    // `Connection` times the headers, so hyper does not.
    builder.http1().header_read_timeout(None).max_buf_size(settings.max_header_size.as_usize());
    // hyper's own number needs no memory of the heap; a number that is set costs two allocations a request.
    let max_headers = settings.max_headers.as_usize() * 3 / 2;
    if max_headers > HYPER_MAX_HEADERS {
        builder.http1().max_headers(max_headers);
    }
    // The middleware refuses with a body in JSON; what h2 refuses by itself has none, so its limit is twice ours.
    let max_list = u32::try_from(settings.max_header_size.get() * 2).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(max_list)
        .max_concurrent_streams(u32::try_from(settings.http2_max_streams.get()).unwrap_or(u32::MAX))
        .keep_alive_interval(settings.http2_ping_interval.get())
        .keep_alive_timeout(settings.header_timeout.get());
    server
        .serve(service_fn(move |peer: Peer| {
            let stack = Arc::clone(&stack);
            ready(Ok::<_, io::Error>(service_fn(move |request: axum::http::Request<Incoming>| {
                let (stack, peer) = (Arc::clone(&stack), peer.clone());
                // Most requests have no body, and one that is known to be empty needs no memory.
                let body =
                    |body: Incoming| if body.is_end_stream() { Body::empty() } else { Body::new(body) };
                stack.answer(Some(peer), request.map(body)).map(Ok::<_, io::Error>)
            })))
        }))
        .await
}

/// Where connections come in, no more at a time than there are places.
pub struct Gate {
    listener: TcpListener,
    places: Arc<Semaphore>,
    terms: Terms,
    told_full: Mutex<Option<Instant>>,
    failing: AtomicBool,
}

/// What axum-server calls an address is all that its services are told of a connection.
impl Address for Peer {
    type Stream = Connection;
    type Listener = Gate;
}

impl AddrListener<Connection, Peer> for Gate {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(Connection, Peer)> {
        let place = self.place().await?;
        let accepted = self.listener.accept().await;
        // axum-server tries again after 50 ms; the log is told once.
        match &accepted {
            Ok(_) => self.failing.store(false, Ordering::Relaxed),
            Err(_) if self.failing.swap(true, Ordering::Relaxed) => {}
            Err(error) => tracing::error!(target: "server", %error, "cannot accept connections"),
        }
        let (stream, address) = accepted?;
        // Answers are written whole: waiting for more (Nagle's algorithm) only delays them.
        stream.set_nodelay(true)?;
        let peer = Peer::new(address);
        Ok((Connection::new(stream, peer.clone(), self.terms.clone(), place), peer))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer::new)
    }
}

impl Gate {
    /// A place for one more connection.
    async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        self.tell_full();
        Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)
    }

    fn tell_full(&self) {
        let mut told = self.told_full.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_FULL) {
            *told = Some(Instant::now());
            tracing::warn!(target: "server", "as many connections as http.max_connections: new ones wait");
        }
    }
}

/// Waits until a connection has sent enough to tell HTTP/1 from HTTP/2.
#[derive(Clone)]
struct FirstByte {
    deadline: Duration,
    draining: watch::Receiver<bool>,
}

/// How long a connection that has said nothing is still kept once the server drains: its first bytes may be on the
/// way. Browsers open connections ahead of need; waiting `first_byte_timeout` for those would delay every end.
const PARTING: Duration = Duration::from_millis(100);

/// How often at least a connection that has sent a part of the preface is looked at.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: Send + 'static> Accept<Connection, S> for FirstByte {
    type Stream = Connection;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Connection, S)>> + Send>>;

    fn accept(&self, mut connection: Connection, service: S) -> Self::Future {
        let deadline = self.deadline;
        let mut draining = self.draining.clone();
        Box::pin(async move {
            let parted = async {
                // An error is a `Drain` that is gone, and with it the server.
                let _ = draining.wait_for(|started| *started).await;
                tokio::time::sleep(PARTING).await;
            };
            let spoke = tokio::time::timeout(deadline, speaks_http2(connection.socket()));
            let http2 = tokio::select! {
                spoke = spoke => spoke.map_err(|_| ErrorKind::TimedOut)??,
                () = parted => return Err(ErrorKind::ConnectionAborted.into()),
            };
            if http2 {
                connection.speaks_http2();
            }
            Ok((connection, service))
        })
    }
}

/// Looks at the first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let mut known = 0;
    let mut pause = POLL;
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(&start[..length]) {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        if length == known {
            // The bytes stay in the socket, which therefore stays readable: wait for more by the clock, and for one
            // who sends no more ever more rarely.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        known = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_with_two_addresses_is_in_use_when_the_first_one_is() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
        let error = first_of([taken.0, other].into_iter()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        // The control, which is also tokio's own way: the second address was free.
        assert!(TcpListener::bind(&[taken.0, other][..]).await.is_ok());
        // An address that is not this machine's is passed over (192.0.2.0/24 is nobody's, RFC 5737).
        assert!(first_of(["192.0.2.1:0".parse().unwrap(), other].into_iter()).await.is_ok());
    }
}

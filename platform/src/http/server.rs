//! Accepts connections up to a limit, serves them, and drains them.
//!
//! It is axum-server with the parts that the stock stack lacks. The deadlines of a connection are in `connection.rs`
//! and `timed.rs`. This file knows no routes.

use std::future::{Future, ready};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::{AddrListener, Address};
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::service_fn;

use super::connection::{Connection, ConnectionConfig};
use super::middleware::Stack;
use super::peer::Peer;
use super::settings::Settings;
use crate::error::StartError;
use crate::shutdown::Shutdown;

/// How often the number of open connections is checked at the end of a drain.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The shortest time between two log lines that say that all permits are in use: at the limit, that state begins and
/// ends all the time.
const REPORT_FULL_EVERY: Duration = Duration::from_mins(1);

/// How long connections that were cut have time to write their log lines.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// How many headers hyper accepts by default (`http1::Builder::max_headers`).
const HYPER_MAX_HEADERS: usize = 100;

/// Opens the port. An error says what to do about it.
pub async fn listen(host: &str, port: u16) -> Result<TcpListener, StartError> {
    bind(host, port).await.map_err(|error| {
        let address = format!("{host}:{port}");
        StartError::failed(match error.kind() {
            ErrorKind::AddrInUse => format!(
                "port {port} is in use by another process; choose another with --port \
                 (on macOS, port 5000 is taken by AirPlay Receiver)"
            ),
            ErrorKind::PermissionDenied => {
                format!("cannot listen on {address}: {error}; choose a port from 1024 with --port")
            }
            _ => format!("cannot listen on {address}: {error}; choose another address with --host"),
        })
    })
}

async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    bind_first(tokio::net::lookup_host((host, port)).await?).await
}

/// Listens on the first of these addresses that this machine has. A port in use is an error, and the next address is
/// not tried: `localhost` is 127.0.0.1 and `::1`, and one of them may be free. Then half of the clients would reach the
/// other process.
async fn bind_first(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpListener> {
    let mut last = io::Error::new(ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() != ErrorKind::AddrInUse => last = error,
            result => return result,
        }
    }
    Err(last)
}

/// The handle that drains a server. Clones share the same state.
#[derive(Clone)]
pub struct Drain {
    handle: Handle<Peer>,
    shutdown: Shutdown,
    open: Arc<AtomicUsize>,
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl Drain {
    /// `shutdown` is notified when the drain begins.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { handle: Handle::new(), shutdown, open: Arc::default(), deadline: Arc::default() }
    }

    /// Stops accepting connections, lets requests in flight finish, and closes the remaining connections after this
    /// time.
    pub fn start(&self, time: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(time);
        self.shutdown.begin();
        self.handle.graceful_shutdown(Some(time));
    }

    /// Waits until the last connection is closed. Upgraded connections are cut at the deadline; axum-server does not
    /// wait for them.
    async fn finish(&self) {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let time = deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if tokio::time::timeout(time, self.none_open()).await.is_err() {
            self.shutdown.deadline().cancel();
            // What is left after that runs code that never awaits. Nothing can stop it.
            let _ = tokio::time::timeout(CUT_GRACE, self.none_open()).await;
        }
    }

    async fn none_open(&self) {
        while self.connections() > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// How many connections are open, upgraded ones included.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

/// Serves until the drain has ended, upgraded connections included. The listener may be inherited from another process.
pub async fn serve(
    listener: TcpListener,
    stack: Arc<Stack>,
    settings: &Settings,
    drain: Drain,
) -> io::Result<()> {
    let config = ConnectionConfig::new(Arc::clone(&stack), settings, &drain.shutdown);
    let listener = LimitedListener {
        listener,
        permits: Arc::new(Semaphore::new(settings.max_connections.as_usize())),
        open: Arc::clone(&drain.open),
        reported_full: Mutex::default(),
        failing: AtomicBool::new(false),
    };
    let handle = drain.handle.clone();
    let mut server = axum_server::Server::from_listener(listener).acceptor(Connect(config)).handle(handle);
    let builder = server.http_builder();
    // A client may close its sending side and wait for the response. By default, hyper would drop the request, and it
    // would have no log line.
    builder.http1().half_close(true);
    // `timed.rs` enforces the deadline of the request head, so hyper needs none.
    builder.http1().header_read_timeout(None).max_buf_size(settings.max_header_size.as_usize());
    // The middleware refuses too many headers with an error body, so the limit of hyper is higher. Up to its default,
    // hyper needs no allocation for the headers; a configured limit costs two allocations a request.
    let max_headers = settings.max_headers.as_usize() * 3 / 2;
    if max_headers > HYPER_MAX_HEADERS {
        builder.http1().max_headers(max_headers);
    }
    // The middleware refuses larger headers with an error body. A refusal by h2 has no body, so the limit of h2 is
    // twice as high.
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
                // Most requests have no body, and an empty body needs no allocation.
                let body =
                    |body: Incoming| if body.is_end_stream() { Body::empty() } else { Body::new(body) };
                stack.respond(Some(peer), request.map(body)).map(Ok::<_, io::Error>)
            })))
        }))
        .await?;
    drain.finish().await;
    Ok(())
}

/// A listener that limits the number of open connections: each one holds a permit.
pub struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    reported_full: Mutex<Option<Instant>>,
    failing: AtomicBool,
}

/// axum-server passes only this "address" of a connection to the service that handles its requests.
impl Address for Peer {
    type Stream = Socket;
    type Listener = LimitedListener;
}

impl AddrListener<Socket, Peer> for LimitedListener {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(Socket, Peer)> {
        let permit = self.permit().await?;
        let accepted = self.listener.accept().await;
        // axum-server tries again after 50 ms. Only the first failure in a row is logged.
        match &accepted {
            Ok(_) => self.failing.store(false, Ordering::Relaxed),
            Err(_) if self.failing.swap(true, Ordering::Relaxed) => {}
            Err(error) => tracing::error!(target: "server", %error, "cannot accept connections"),
        }
        let (stream, address) = accepted?;
        // Nagle's algorithm would only delay responses: each one is written at once.
        stream.set_nodelay(true)?;
        let peer = Peer::new(address);
        let open = OpenConnection::count(&self.open);
        Ok((Socket { stream, peer: peer.clone(), _permit: permit, _open: open }, peer))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer::new)
    }
}

impl LimitedListener {
    /// Waits for the permit of one more connection.
    async fn permit(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        self.report_full();
        Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)
    }

    fn report_full(&self) {
        let mut reported = self.reported_full.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_none_or(|reported| reported.elapsed() >= REPORT_FULL_EVERY) {
            *reported = Some(Instant::now());
            tracing::warn!(target: "server", "the limit http.max_connections is reached: new connections wait");
        }
    }
}

/// Counts a connection as open until it is dropped.
struct OpenConnection(Arc<AtomicUsize>);

impl OpenConnection {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A TCP stream that holds the permit of its connection.
pub struct Socket {
    stream: TcpStream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(task, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// Turns a socket into a connection, once the first bytes show the protocol of the client.
#[derive(Clone)]
struct Connect(ConnectionConfig);

impl<S: Send + 'static> Accept<Socket, S> for Connect {
    type Stream = Connection<Socket>;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Connection<Socket>, S)>> + Send>>;

    fn accept(&self, socket: Socket, service: S) -> Self::Future {
        let (config, peer) = (self.0.clone(), socket.peer.clone());
        Box::pin(async move { Ok((config.connect(socket, peer).await?, service)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_in_use_on_the_first_address_is_an_error() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
        let error = bind_first([taken.0, other].into_iter()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        // The control, which is what tokio itself does: the second address was free.
        assert!(TcpListener::bind(&[taken.0, other][..]).await.is_ok());
        // An address that this machine does not have is skipped (192.0.2.0/24 is reserved for documentation, RFC 5737).
        assert!(bind_first(["192.0.2.1:0".parse().unwrap(), other].into_iter()).await.is_ok());
    }
}

//! Accepts connections, no more than there are permits for, and drains them: axum-server, with what the stock stack
//! leaves open. The deadlines of a connection are those of `connection.rs` and `timed.rs`. Knows no routes.

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

/// How often is looked for what sends no notice.
const POLL: Duration = Duration::from_millis(10);

/// How often at most the log says that all permits are taken: at the limit that begins and ends all the time.
const REPORT_FULL_EVERY: Duration = Duration::from_mins(1);

/// How long connections that were cut have to write their lines.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// How many headers hyper takes when it is not told (`http1::Builder::max_headers`).
const HYPER_MAX_HEADERS: usize = 100;

/// Opens the port; an error says what to do about it.
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

/// The handle with which a server is drained. A clone is one more handle on the same.
#[derive(Clone)]
pub struct Drain {
    handle: Handle<Peer>,
    shutdown: Shutdown,
    open: Arc<AtomicUsize>,
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl Drain {
    /// `shutdown` is told when the drain begins.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { handle: Handle::new(), shutdown, open: Arc::default(), deadline: Arc::default() }
    }

    /// Stops accepting, lets what is in flight finish, and closes what is left after this time.
    pub fn start(&self, time: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(time);
        self.shutdown.begin();
        self.handle.graceful_shutdown(Some(time));
    }

    /// Waits until the last connection is gone. What is upgraded has until the deadline, and is cut then: axum-server
    /// does not count it.
    async fn ended(&self) {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let time = deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if tokio::time::timeout(time, self.none_open()).await.is_err() {
            self.shutdown.deadline().cancel();
            // What stays after that is stuck in code that never waits, and cannot be told anything.
            let _ = tokio::time::timeout(CUT_GRACE, self.none_open()).await;
        }
    }

    async fn none_open(&self) {
        while self.connections() > 0 {
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many connections are open, upgraded ones included.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

/// Serves until drained, upgraded connections included. The listener may be one that another process has opened.
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
    // A client may close its side and wait for the response; hyper would drop the request unseen, without its line.
    builder.http1().half_close(true);
    // `timed.rs` has the deadline of the request head, so hyper needs none.
    builder.http1().header_read_timeout(None).max_buf_size(settings.max_header_size.as_usize());
    // hyper's own limit needs no heap; a limit that is set costs two allocations a request.
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
                // Most requests have no body, and a body that is known to be empty needs no allocation.
                let body =
                    |body: Incoming| if body.is_end_stream() { Body::empty() } else { Body::new(body) };
                stack.respond(Some(peer), request.map(body)).map(Ok::<_, io::Error>)
            })))
        }))
        .await?;
    drain.ended().await;
    Ok(())
}

/// A listener that accepts no more connections at a time than it has permits.
pub struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    reported_full: Mutex<Option<Instant>>,
    failing: AtomicBool,
}

/// What axum-server calls an address is all that its services learn of a connection.
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
        // axum-server tries again after 50 ms; the log is told once.
        match &accepted {
            Ok(_) => self.failing.store(false, Ordering::Relaxed),
            Err(_) if self.failing.swap(true, Ordering::Relaxed) => {}
            Err(error) => tracing::error!(target: "server", %error, "cannot accept connections"),
        }
        let (stream, address) = accepted?;
        // Responses are written whole: to wait for more (Nagle's algorithm) only delays them.
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
    /// The permit for one more connection.
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
            tracing::warn!(target: "server", "as many connections as http.max_connections: new ones wait");
        }
    }
}

/// Counts a connection for as long as it lives.
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

/// A TCP stream with the permit of its connection.
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

/// Makes a connection of a socket once the client has shown which protocol it speaks.
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

//! Serves connections, and drains them.
//!
//! It is axum-server with the parts that the stock stack lacks. `listener.rs` accepts. The deadlines of a connection are in `connection.rs`
//! and `timed.rs`. This file knows no routes.

mod connection;
mod listener;
mod refusal;
mod secure;
mod timed;
mod timed_body;

use std::future::{Future, ready};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode, Version};
use axum_server::Handle;
use axum_server::accept::Accept;
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use self::connection::{Connection, ConnectionConfig};
use self::listener::{LimitedListener, Redirect, Socket};
use self::secure::{Handshakes, Speaks, Transport};
use self::timed_body::TimedBody;
use crate::error::StartError;
use crate::http::middleware::Stack;
use crate::http::request::arrival::{Arrival, ToHttps};
use crate::http::request::peer::Peer;
use crate::http::settings::Settings;
use crate::shutdown::Shutdown;
use crate::tls::Tls;

/// How often the number of open connections is checked at the end of a drain.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long connections that were cut have time to write their log lines.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// How many headers hyper accepts by default (`http1::Builder::max_headers`).
const HYPER_MAX_HEADERS: usize = 100;

/// Opens the port. An error says what to do about it.
pub async fn listen(host: &str, port: u16, settings: &Settings) -> Result<TcpListener, StartError> {
    bind(host, port, settings.backlog(), false).await.map_err(|error| {
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

/// Opens the port. On a shared one, other processes of this user may listen too; the kernel deals the connections out.
pub(crate) async fn bind(host: &str, port: u16, backlog: u32, shared: bool) -> io::Result<TcpListener> {
    bind_first(tokio::net::lookup_host((host, port)).await?, backlog, shared)
}

/// Listens on the first of these addresses that this machine has. A port in use is an error, and the next address is
/// not tried: `localhost` is 127.0.0.1 and `::1`, and one of them may be free. Then half of the clients would reach the
/// other process.
fn bind_first(
    addresses: impl Iterator<Item = SocketAddr>,
    backlog: u32,
    shared: bool,
) -> io::Result<TcpListener> {
    let mut last = io::Error::new(ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match bind_to(address, backlog, shared) {
            Err(error) if error.kind() != ErrorKind::AddrInUse => last = error,
            result => return result,
        }
    }
    Err(last)
}

/// Opens the port of this address.
pub(crate) fn bind_to(address: SocketAddr, backlog: u32, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// The handle that drains a server. Clones share the same state.
#[derive(Clone)]
pub struct Drain {
    handle: Handle<Peer>,
    shutdown: Shutdown,
    open: Arc<AtomicUsize>,
    deadline: Arc<Mutex<Option<Instant>>>,
    parting: Arc<AtomicBool>,
    accepts_none: CancellationToken,
    /// Cancelled when the loop that accepts has seen that.
    has_stopped: CancellationToken,
    cut: Arc<AtomicUsize>,
}

impl Drain {
    /// `shutdown` is notified when the drain begins.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            handle: Handle::new(),
            shutdown,
            open: Arc::default(),
            deadline: Arc::default(),
            parting: Arc::default(),
            accepts_none: CancellationToken::new(),
            has_stopped: CancellationToken::new(),
            cut: Arc::default(),
        }
    }

    /// From now on each response to a request over HTTP/1 ends its connection. A connection that the server closes
    /// while no request is in flight can lose a request that is on the way; one that is closed after a response that
    /// says so loses none.
    pub fn part(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    /// Takes no more connections, and waits until those that are open have ended after their next response, for at most
    /// this time. The listening socket has to be that of another process too, or its connections are lost. That of the
    /// redirect is of this process alone: it is closed, and what waits in it is still served.
    pub async fn retire(&self, time: Duration) {
        self.part();
        self.accepts_none.cancel();
        let retired = async {
            // A connection that is accepted at this moment is not counted yet.
            self.has_stopped.cancelled().await;
            self.none_open().await;
        };
        // Those that are left are idle; the drain closes them.
        let _ = tokio::time::timeout(time, retired).await;
    }

    /// Stops accepting connections, lets requests in flight finish, and closes the remaining connections after this
    /// time.
    pub fn start(&self, time: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(time);
        self.shutdown.begin();
        // axum-server has the time for what runs code that never awaits.
        self.handle.graceful_shutdown(time.checked_add(CUT_GRACE));
        let drain = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            drain.cut.store(drain.connections(), Ordering::Release);
            drain.shutdown.deadline().cancel();
            drain.handle.shutdown();
        });
    }

    /// How many connections were cut at the deadline.
    pub fn cut(&self) -> usize {
        self.cut.load(Ordering::Acquire)
    }

    /// Waits until the last connection is closed. Upgraded connections are cut at the deadline; axum-server does not
    /// wait for them.
    async fn finish(&self) {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let time = deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        // What is left after that runs code that never awaits. Nothing can stop it.
        let _ = tokio::time::timeout(time.saturating_add(CUT_GRACE), self.none_open()).await;
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
    serve_with(listener, None, stack, settings, drain).await
}

/// [`serve`] with HTTPS, where it is given.
pub async fn serve_with(
    listener: TcpListener,
    https: Option<Https>,
    stack: Arc<Stack>,
    settings: &Settings,
    drain: Drain,
) -> io::Result<()> {
    let (handshakes, redirect) = https.map(|https| https.split(settings)).unzip();
    let connect =
        Connect { config: ConnectionConfig::new(Arc::clone(&stack), settings, &drain.shutdown), handshakes };
    let listener = LimitedListener {
        listener,
        redirect: Mutex::new(redirect.flatten().map(Arc::new)),
        last: Mutex::default(),
        permits: Arc::new(Semaphore::new(settings.max_connections.as_usize())),
        open: Arc::clone(&drain.open),
        reported_full: Mutex::default(),
        failing: AtomicBool::new(false),
        accepts_none: drain.accepts_none.clone(),
        has_stopped: drain.has_stopped.clone(),
    };
    let parting = Arc::clone(&drain.parting);
    let handle = drain.handle.clone();
    let mut server = axum_server::Server::from_listener(listener).acceptor(connect).handle(handle);
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
            let (stack, parting) = (Arc::clone(&stack), Arc::clone(&parting));
            ready(Ok::<_, io::Error>(service_fn(move |request: axum::http::Request<Incoming>| {
                let (stack, peer) = (Arc::clone(&stack), peer.clone());
                // Most requests have no body, and an empty body needs no allocation.
                let body =
                    |body: Incoming| if body.is_end_stream() { Body::empty() } else { Body::new(body) };
                let is_http2 = request.version() == Version::HTTP_2;
                let parts = parting.load(Ordering::Relaxed) && !is_http2;
                stack.respond(Some(peer.clone()), request.map(body)).map(move |mut response| {
                    if is_http2 && !response.body().is_end_stream() {
                        response = response.map(|body| Body::new(TimedBody::new(body, peer)));
                    }
                    if parts && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, io::Error>(response)
                })
            })))
        }))
        .await?;
    drain.finish().await;
    Ok(())
}

/// What HTTPS needs.
pub struct Https {
    /// The pair, and what it is served with.
    pub tls: Arc<Tls>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Where HTTP is listened for too, and the port of HTTPS in the URLs to which its requests are sent.
    pub redirect: Option<(TcpListener, u16)>,
}

impl Https {
    fn split(self, settings: &Settings) -> (Handshakes, Option<Redirect>) {
        let Self { tls, handshake_timeout, redirect } = self;
        let handshakes = Handshakes::new(Arc::clone(&tls), handshake_timeout, settings.write_timeout.get());
        (
            handshakes,
            redirect.map(|(listener, port)| Redirect { listener, to: Arc::new(ToHttps { tls, port }) }),
        )
    }
}

/// Turns a socket into a connection, once the first bytes show the protocol of the client.
#[derive(Clone)]
struct Connect {
    config: ConnectionConfig,
    handshakes: Option<Handshakes>,
}

impl<S: Send + 'static> Accept<Socket, S> for Connect {
    type Stream = Connection<Transport<Socket>>;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, S)>> + Send>>;

    fn accept(&self, socket: Socket, service: S) -> Self::Future {
        let (connect, peer) = (self.clone(), socket.peer.clone());
        Box::pin(async move {
            let stream = match &connect.handshakes {
                Some(handshakes) if peer.arrival().is_none() => connect.secure(socket, handshakes).await?,
                _ => Transport::Plain(socket),
            };
            Ok((connect.config.connect(stream, peer).await?, service))
        })
    }
}

impl Connect {
    /// Makes the handshake of TLS, unless the client speaks HTTP by mistake.
    async fn secure(&self, socket: Socket, handshakes: &Handshakes) -> io::Result<Transport<Socket>> {
        let first = self.config.first_byte(socket.first_byte()).await?;
        let peer = socket.peer.clone();
        if Speaks::of(first) == Speaks::Http {
            peer.arrived(Arrival::Mistaken);
            return Ok(Transport::Plain(socket));
        }
        self.config.handshake(handshakes.accept(socket, &peer)).await
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
        let error = bind_first([taken.0, other].into_iter(), 9, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        // The control, which is what tokio itself does: the second address was free.
        assert!(TcpListener::bind(&[taken.0, other][..]).await.is_ok());
        // An address that this machine does not have is skipped (192.0.2.0/24 is reserved for documentation, RFC 5737).
        assert!(bind_first(["192.0.2.1:0".parse().unwrap(), other].into_iter(), 9, false).is_ok());
    }

    /// How many of so many clients get through at once while the server accepts none: those for which there is no room have
    /// to send their SYN again, after a second.
    async fn got_through(clients: usize, room: u32, time: Duration) -> usize {
        let listener = bind("127.0.0.1", 0, room, false).await.unwrap();
        let server = listener.local_addr().unwrap();
        tokio::task::spawn_blocking(move || {
            let connect = |_| std::net::TcpStream::connect_timeout(&server, time).ok();
            // One that is closed at once waits to be accepted all the same, and takes no descriptor here.
            (0..clients).map_while(connect).count()
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_burst_of_connections_waits_for_room_only_beyond_the_backlog() {
        // The default, of which the kernel takes what it allows.
        assert_eq!(got_through(2_000, 65_535, Duration::from_secs(30)).await, 2_000);
        // The control: what a listener of Rust's standard library has. Nobody accepts, so the next one never gets through.
        assert!(got_through(2_000, 128, Duration::from_millis(500)).await <= 130);
    }
}

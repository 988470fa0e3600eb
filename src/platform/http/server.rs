//! Accepts connections and drains them: axum-server, with the deadlines that the stock stack leaves open.
//!
//! hyper times the headers of a request, once it is given a timer, but not the silence before: a connection
//! that sends nothing, or only the start of the HTTP/2 preface, would stay for ever (hyper#3756). So every
//! connection has to show what it speaks first. Knows nothing of routes.

use std::future::{Future, ready};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum_server::Handle;
use axum_server::accept::Accept;
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::service_fn;

use super::middleware::Stack;
use super::settings::Settings;
use crate::platform::error::StartError;

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
    handle: Handle<SocketAddr>,
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
    let acceptor =
        FirstByte { deadline: settings.first_byte_timeout.get(), draining: drain.started.subscribe() };
    let mut server = axum_server::Server::from_listener(listener).acceptor(acceptor).handle(drain.handle);
    let builder = server.http_builder();
    // The middleware refuses with a body in JSON; hyper's own limits, which answer without one, stand behind
    // it with room to spare.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout.get())
        .max_buf_size(settings.max_header_size.as_usize());
    // hyper's own number needs no memory of the heap; a number that is set costs two allocations a request.
    let max_headers = settings.max_headers.as_usize() * 3 / 2;
    if max_headers > HYPER_MAX_HEADERS {
        builder.http1().max_headers(max_headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(settings.max_header_size.get()).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(settings.http2_max_streams.get()).unwrap_or(u32::MAX))
        .keep_alive_interval(settings.http2_ping_interval.get())
        .keep_alive_timeout(settings.header_timeout.get());
    server
        .serve(service_fn(move |peer: SocketAddr| {
            let stack = Arc::clone(&stack);
            ready(Ok::<_, io::Error>(service_fn(move |request: axum::http::Request<Incoming>| {
                let stack = Arc::clone(&stack);
                async move { Ok::<_, io::Error>(stack.answer(Some(peer), request.map(Body::new)).await) }
            })))
        }))
        .await
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

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S: Send + 'static> Accept<TcpStream, S> for FirstByte {
    type Stream = TcpStream;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(TcpStream, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let deadline = self.deadline;
        let mut draining = self.draining.clone();
        Box::pin(async move {
            // Answers are written whole: waiting for more (Nagle's algorithm) only delays them.
            stream.set_nodelay(true)?;
            let parted = async {
                // An error is a `Drain` that is gone, and with it the server.
                let _ = draining.wait_for(|started| *started).await;
                tokio::time::sleep(PARTING).await;
            };
            let spoke = tokio::time::timeout(deadline, speaks(&stream));
            tokio::select! {
                spoke = spoke => spoke.map_err(|_| ErrorKind::TimedOut)??,
                () = parted => return Err(ErrorKind::ConnectionAborted.into()),
            }
            Ok((stream, service))
        })
    }
}

async fn speaks(stream: &TcpStream) -> io::Result<()> {
    let mut start = [0; PREFACE.len()];
    let mut known = 0;
    loop {
        let length = stream.peek(&mut start).await?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(&start[..length]) || length == PREFACE.len() {
            return Ok(());
        }
        if length == known {
            // The bytes stay in the socket, which therefore stays readable: wait for more by the clock.
            tokio::time::sleep(Duration::from_millis(10)).await;
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

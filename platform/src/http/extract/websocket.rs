//! WebSockets that end with the server. Behind the feature `ws`.
//!
//! axum's own [`ws`](axum::extract::ws) works here too, but nothing tells its handler that the server drains: it is cut at
//! the deadline. This one closes the connection with 1001 (Going Away, RFC 6455, section 7.4.1) by itself.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Error;
use axum::extract::FromRequestParts;
use axum::extract::ws::{self, CloseFrame, Message, close_code};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Sink, SinkExt, Stream, StreamExt as _};
use tokio::time::Instant;

#[cfg(feature = "auth")]
use super::caller::Caller;
#[cfg(feature = "auth")]
use crate::auth::Account;
use crate::error;
use crate::http::request::context;
use crate::shutdown::Shutdown;

/// The read buffer of a WebSocket, 4 KiB: with ten thousand idle connections tungstenite's default, 128 KiB, would take
/// more than a gigabyte.
const READ_BUFFER: usize = 4 << 10;

/// How much longer a handler may be silent than the connection: one that waits for the client hears of that deadline first.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long the client has to confirm that it closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a WebSocket. One that a page of another site opens is 403, but for [`Route::cross_site`](crate::http::Route::cross_site).
///
/// ```no_run
/// use platform::http::{Route, WebSocketUpgrade};
/// use platform::services::Services;
///
/// let echo = async |upgrade: WebSocketUpgrade| {
///     upgrade.on_upgrade(async |mut socket| {
///         while let Some(Ok(message)) = socket.recv().await {
///             if socket.send(message).await.is_err() {
///                 break;
///             }
///         }
///     })
/// };
/// let route: Route<Services> = Route::at("/echo").get(echo);
/// ```
///
/// # Errors
///
/// 400 and 426 with the reason for a request that opens no WebSocket.
pub struct WebSocketUpgrade {
    upgrade: ws::WebSocketUpgrade,
    shutdown: Shutdown,
    idle_timeout: Duration,
    /// Ready when its caller has no right to it any more.
    revoked: BoxFuture<'static, ()>,
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let context = context::of(parts).map_err(error::Error::into_response)?;
        let (shutdown, idle_timeout) = (context.shutdown().clone(), context.upgrade_idle_timeout());
        let upgrade = ws::WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(ws::rejection::WebSocketUpgradeRejection::into_response)?;
        Ok(Self {
            upgrade: upgrade.read_buffer_size(READ_BUFFER),
            shutdown,
            idle_timeout,
            revoked: Box::pin(pending()),
        })
    }
}

impl WebSocketUpgrade {
    /// Sets what axum's upgrade has settings for: message sizes, protocols, buffers.
    #[must_use]
    pub fn configure(mut self, set: impl FnOnce(ws::WebSocketUpgrade) -> ws::WebSocketUpgrade) -> Self {
        self.upgrade = set(self.upgrade);
        self
    }

    /// Closes the WebSocket with 1008 (Policy Violation, RFC 6455, section 7.4.1) when the session or the token of its caller
    /// has ended, here or in another process: at most `auth.sessions.watch` later. An open WebSocket is a use of its session.
    #[cfg(feature = "auth")]
    #[must_use]
    pub fn until_revoked<U: Account, R: 'static>(mut self, caller: &Caller<U, R>) -> Self {
        let known = caller.known();
        self.revoked = Box::pin(async move { known.revoked().await });
        self
    }

    /// The response that opens the WebSocket; `handler` runs until it returns, and then the connection is closed. It is
    /// dropped when it neither receives nor sends for `http.upgrade_idle_timeout`, and at the deadline of a drain.
    pub fn on_upgrade<H, F>(self, handler: H) -> Response
    where
        H: FnOnce(WebSocket) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { upgrade, shutdown, idle_timeout, revoked } = self;
        upgrade.on_upgrade(async move |socket| {
            let open = Open { socket, closed: false, used: Instant::now() };
            let shared = Arc::new(Shared { open: Mutex::new(open), shutdown: shutdown.clone() });
            let draining = Box::pin(async move { shutdown.begun().await });
            let handling = handler(WebSocket { shared: Arc::clone(&shared), draining });
            tokio::select! {
                () = handling => {}
                () = shared.idle(idle_timeout) => {}
                () = shared.drained() => {}
                () = revoked => shared.close(close_code::POLICY, "the session has ended").await,
            }
            // A handler that ends because the server drains leaves the close to this.
            if shared.shutdown.has_begun() {
                shared.go_away().await;
            }
        })
    }
}

/// An open WebSocket: a stream of messages, and a sink for them. Both ends can be had apart
/// ([`split`](futures_util::StreamExt::split)).
///
/// The stream ends when the client has closed, and when the server drains; what is sent then is an error.
pub struct WebSocket {
    shared: Arc<Shared>,
    /// Ready when the server drains, once.
    draining: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

/// What the handler and the deadlines around it share.
struct Shared {
    /// Locked while the socket is polled.
    open: Mutex<Open>,
    shutdown: Shutdown,
}

struct Open {
    socket: ws::WebSocket,
    /// The server has sent its close frame.
    closed: bool,
    /// When the handler has last asked for something.
    used: Instant,
}

impl WebSocket {
    /// The next message; `None` when the client has closed, or when the server drains and closes.
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        self.next().await
    }

    /// Sends a message. An error when the connection is gone, or when the server drains and closes it.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        SinkExt::send(self, message).await
    }

    /// The socket, for the sink.
    fn sink(&self) -> Result<MutexGuard<'_, Open>, Error> {
        if self.shared.shutdown.has_begun() {
            return Err(Error::new("the server drains: the WebSocket is closed"));
        }
        Ok(self.shared.used())
    }
}

impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        if self.shared.shutdown.has_begun() || self.draining.poll_unpin(task).is_ready() {
            return Poll::Ready(None);
        }
        self.shared.used().socket.poll_next_unpin(task)
    }
}

impl Sink<Message> for WebSocket {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Result<(), Error>> {
        self.sink()?.socket.poll_ready_unpin(task)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.sink()?.socket.start_send_unpin(message)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Result<(), Error>> {
        self.sink()?.socket.poll_flush_unpin(task)
    }

    fn poll_close(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Result<(), Error>> {
        self.sink()?.socket.poll_close_unpin(task)
    }
}

impl Shared {
    /// The socket. Nothing is left half done by a panic while it is polled.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket, for the handler.
    fn used(&self) -> MutexGuard<'_, Open> {
        let mut open = self.open();
        open.used = Instant::now();
        open
    }

    /// Waits until the handler has neither received nor sent for this time. While it waits for either, it is asked again as
    /// something happens, and at the deadline of the connection, which comes first.
    async fn idle(&self, timeout: Duration) {
        let timeout = timeout.saturating_add(IDLE_GRACE);
        loop {
            let used = self.open().used;
            if used.elapsed() >= timeout {
                return;
            }
            tokio::time::sleep_until(used + timeout).await;
        }
    }

    /// Closes the WebSocket when the server drains, whatever the handler does, and waits for the deadline.
    async fn drained(&self) {
        self.shutdown.begun().await;
        self.go_away().await;
        self.shutdown.deadline().cancelled().await;
    }

    async fn go_away(&self) {
        self.close(close_code::AWAY, "the server stops").await;
    }

    /// Says why the connection ends, and waits for the client to confirm it. Once more, it only waits.
    async fn close(&self, code: u16, reason: &'static str) {
        let is_said = std::mem::replace(&mut self.open().closed, true);
        let closing = async {
            if !is_said {
                poll_fn(|task| self.open().socket.poll_ready_unpin(task)).await?;
                let frame = CloseFrame { code, reason: reason.into() };
                self.open().socket.start_send_unpin(Message::Close(Some(frame)))?;
            }
            let next = |task: &mut Task<'_>| {
                let socket = &mut self.open().socket;
                // What cannot be written now is tried again when something comes, or at the end of the time.
                let _ = socket.poll_flush_unpin(task)?;
                socket.poll_next_unpin(task).map(Option::transpose)
            };
            while poll_fn(next).await?.is_some() {}
            Ok::<_, Error>(())
        };
        // A client that is gone or does not confirm is cut with the connection.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

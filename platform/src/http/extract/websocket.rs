//! WebSockets that end with the server. Behind the feature `ws`.
//!
//! axum's own [`ws`](axum::extract::ws) works here too, but nothing tells its handler that the server drains: it is cut at
//! the deadline. This one closes the connection with 1001 (Going Away, RFC 6455, section 7.4.1) by itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Error;
use axum::extract::FromRequestParts;
use axum::extract::ws::{self, CloseFrame, Message, close_code};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error;
use crate::http::request::context;
use crate::shutdown::Shutdown;

/// The read buffer of a WebSocket, 4 KiB: with ten thousand idle connections tungstenite's default, 128 KiB, would take
/// more than a gigabyte.
const READ_BUFFER: usize = 4 << 10;

/// How long the client has to confirm that it closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a WebSocket. A route with `.cookies()` refuses one that a page of another site opens.
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
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let context = context::of(parts).map_err(error::Error::into_response)?;
        let (shutdown, idle_timeout) = (context.shutdown().clone(), context.upgrade_idle_timeout());
        let upgrade = ws::WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(ws::rejection::WebSocketUpgradeRejection::into_response)?;
        Ok(Self { upgrade: upgrade.read_buffer_size(READ_BUFFER), shutdown, idle_timeout })
    }
}

impl WebSocketUpgrade {
    /// Sets what axum's upgrade has settings for: message sizes, protocols, buffers.
    #[must_use]
    pub fn configure(mut self, set: impl FnOnce(ws::WebSocketUpgrade) -> ws::WebSocketUpgrade) -> Self {
        self.upgrade = set(self.upgrade);
        self
    }

    /// The response that opens the WebSocket; `handler` runs until it returns, and then the connection is closed. It is
    /// dropped when it neither receives nor sends for `http.upgrade_idle_timeout`, and at the deadline of a drain.
    pub fn on_upgrade<H, F>(self, handler: H) -> Response
    where
        H: FnOnce(WebSocket) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { upgrade, shutdown, idle_timeout } = self;
        upgrade.on_upgrade(async move |socket| {
            let open = Open { socket, closed: false, used: Instant::now() };
            let shared = Arc::new(Shared { open: Mutex::new(open), shutdown });
            let handling = handler(WebSocket(Arc::clone(&shared)));
            tokio::select! {
                () = handling => {}
                () = shared.idle(idle_timeout) => {}
                () = shared.drained() => {}
            }
        })
    }
}

/// An open WebSocket.
pub struct WebSocket(Arc<Shared>);

/// What the handler and the deadlines around it share.
struct Shared {
    /// Locked while a message is received or sent.
    open: Mutex<Open>,
    shutdown: Shutdown,
}

struct Open {
    socket: ws::WebSocket,
    /// The server has sent its close frame.
    closed: bool,
    /// When the last message was received or sent.
    used: Instant,
}

impl WebSocket {
    /// The next message; `None` when the client has closed, or when the server drains and has closed.
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        let mut open = self.0.open.lock().await;
        if open.closed {
            return None;
        }
        let received = tokio::select! {
            () = self.0.shutdown.begun() => None,
            message = open.socket.recv() => Some(message),
        };
        let Some(message) = received else {
            open.close().await;
            return None;
        };
        open.used = Instant::now();
        message
    }

    /// Sends a message. An error when the connection is gone, or when the server drains and has closed it.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        let mut open = self.0.open.lock().await;
        if self.0.shutdown.has_begun() {
            open.close().await;
            return Err(Error::new("the server drains: the WebSocket is closed"));
        }
        open.socket.send(message).await?;
        open.used = Instant::now();
        Ok(())
    }
}

impl Shared {
    /// Waits until the handler has neither received nor sent for this time. While it does either, the deadlines of the
    /// connection hold.
    async fn idle(&self, timeout: Duration) {
        loop {
            let used = self.open.try_lock().map_or_else(|_| Instant::now(), |open| open.used);
            if used.elapsed() >= timeout {
                return;
            }
            tokio::time::sleep_until(used + timeout).await;
        }
    }

    /// Closes the WebSocket when the server drains, whatever the handler does, and waits for the deadline.
    async fn drained(&self) {
        self.shutdown.begun().await;
        self.open.lock().await.close().await;
        self.shutdown.deadline().cancelled().await;
    }
}

impl Open {
    /// Says that the server goes away, and waits for the client to confirm it.
    async fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let frame = CloseFrame { code: close_code::AWAY, reason: "the server stops".into() };
        let closing = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            while self.socket.recv().await.transpose()?.is_some() {}
            Ok::<_, Error>(())
        };
        // A client that is gone or does not confirm is cut with the connection.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

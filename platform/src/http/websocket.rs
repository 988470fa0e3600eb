//! WebSockets that end with the server. Behind the feature `ws`.
//!
//! axum's own [`ws`](axum::extract::ws) works here too, but nothing tells its handler that the server drains: it is cut at
//! the deadline. This one closes the connection with 1001 (Going Away, RFC 6455, section 7.4.1) by itself.

use std::future::Future;
use std::time::Duration;

use axum::Error;
use axum::extract::FromRequestParts;
use axum::extract::ws::{self, CloseFrame, Message, close_code};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};

use super::context;
use crate::error;
use crate::shutdown::Shutdown;

/// The read buffer of a WebSocket, 4 KiB. tungstenite's default, 128 KiB, is what ten thousand quiet connections would
/// take a gigabyte for.
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
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let shutdown = context::of(parts).map_err(error::Error::into_response)?.shutdown().clone();
        let upgrade = ws::WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(ws::rejection::WebSocketUpgradeRejection::into_response)?;
        Ok(Self { upgrade: upgrade.read_buffer_size(READ_BUFFER), shutdown })
    }
}

impl WebSocketUpgrade {
    /// Sets what axum's upgrade has settings for: message sizes, protocols, buffers.
    #[must_use]
    pub fn configure(mut self, set: impl FnOnce(ws::WebSocketUpgrade) -> ws::WebSocketUpgrade) -> Self {
        self.upgrade = set(self.upgrade);
        self
    }

    /// The response that opens the WebSocket; `handler` runs until it returns, and then the connection is closed.
    pub fn on_upgrade<H, F>(self, handler: H) -> Response
    where
        H: FnOnce(WebSocket) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown;
        self.upgrade.on_upgrade(move |socket| handler(WebSocket { socket, shutdown, closed: false }))
    }
}

/// An open WebSocket.
pub struct WebSocket {
    socket: ws::WebSocket,
    shutdown: Shutdown,
    /// The server has sent its close frame.
    closed: bool,
}

impl WebSocket {
    /// The next message; `None` when the client has closed, or when the server drains and has closed.
    pub async fn recv(&mut self) -> Option<Result<Message, Error>> {
        tokio::select! {
            () = self.shutdown.begun(), if !self.closed => {
                self.close().await;
                None
            }
            message = self.socket.recv(), if !self.closed => message,
            else => None,
        }
    }

    /// Sends a message. An error when the connection is gone, or when the server drains and has closed it.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        if self.shutdown.has_begun() {
            self.close().await;
            return Err(Error::new("the server drains: the WebSocket is closed"));
        }
        self.socket.send(message).await
    }

    /// axum's own WebSocket; it is not closed at a drain.
    pub fn into_inner(self) -> ws::WebSocket {
        self.socket
    }

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

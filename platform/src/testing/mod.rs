//! Tools for the tests of an app: the app in process, the program as a process, and a connection of raw bytes.
//!
//! They need the feature `testing`, which belongs into `[dev-dependencies]` only.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod app;
mod connection;
mod program;
mod tls;

pub use app::{NoSettings, SERVICE, TestApp, TestResponse};
pub use connection::Connection;
pub use program::{Program, TestServer};
pub use tls::{TestAuthority, TestClient, TestPair};

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. Generous, because test machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs blocking code, such as reads from a [`Connection`], outside the worker threads of the runtime.
pub async fn client<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(test).await.unwrap()
}

/// Waits until the condition is true, for at most [`PATIENCE`].
pub async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

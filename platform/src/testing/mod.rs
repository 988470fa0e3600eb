//! For the tests of an app: the app in process, the program as a process, and a connection of raw bytes.
//!
//! Behind the feature `testing`, which only `[dev-dependencies]` turn on.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod app;
mod connection;
mod program;

pub use app::{NoSettings, SERVICE, TestApp, TestResponse};
pub use connection::Connection;
pub use program::{Program, TestServer};

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen; the machines are shared and slow at times.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the blocking side of a test beside the server's runtime.
pub async fn client<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(test).await.unwrap()
}

/// Waits for a condition, for as long as the patience of a test lasts.
pub async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

//! What the tests share: the app in process, the program as a process, and a connection of raw bytes.

mod app;
mod connection;
mod program;

pub use app::{Answer, TestApp};
pub use connection::Connection;
pub use program::{TestServer, program, run_to_end};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen; the machines are shared and slow at times.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the condition holds; panics with `what` when it never does.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

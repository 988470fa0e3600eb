//! What the tests share: the app in process, the program as a process, and a connection of raw bytes.

mod app;
mod connection;
mod handlers;
mod program;

pub use app::{Answer, TestApp};
pub use connection::Connection;
pub use handlers::{echo, length};
pub use program::{TestServer, run_to_end};

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen; the machines are shared and slow at times.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the blocking side of a test beside the server's runtime.
pub async fn client<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(test).await.unwrap()
}

/// Waits for a condition that nobody tells of.
pub async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

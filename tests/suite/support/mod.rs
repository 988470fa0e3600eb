//! What the tests share: the app in process, the program as a process, and a connection of raw bytes.

mod app;
mod connection;
mod handlers;
mod program;

pub use app::{Answer, TestApp};
pub use connection::Connection;
pub use handlers::{echo, length};
pub use program::{TestServer, run_to_end};

use std::time::Duration;

/// How long a test waits for something that must happen; the machines are shared and slow at times.
pub const PATIENCE: Duration = Duration::from_secs(30);

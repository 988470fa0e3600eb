//! HTTPS of the program: the start, `keys`, replaced files, the redirect, several processes.

mod files;
mod handshakes;
mod processes;
mod redirect;

use std::path::Path;

use platform::testing::{TestPair, TestServer};

use crate::support::PROGRAM;

const GET: &str = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Starts it in a folder whose pair is written.
fn start(folder: &Path, arguments: &[&str]) -> TestServer {
    PROGRAM.start_in(folder, &[&["--ssl", "--db_url", "memory:"], arguments].concat())
}

/// Whether a new connection gets this pair and a response.
fn serves(server: &TestServer, pair: &TestPair) -> bool {
    let Ok(mut connection) = platform::testing::Connection::try_secure(server.address, &pair.client()) else {
        return false;
    };
    let response = connection.send(GET).read_response();
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    true
}

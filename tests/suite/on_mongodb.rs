//! The program on MongoDB, chosen by the flags and the variables of the original server.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use platform::testing::TestServer;

use crate::support::PROGRAM;

/// The address of the server that the tests use.
fn mongodb() -> String {
    let url = std::env::var("TEST_MONGODB_URI")
        .expect("TEST_MONGODB_URI names no server; `make test-all` starts one");
    let hosts = url.split("://").nth(1).unwrap().split(['/', '?']).next().unwrap();
    hosts.rsplit('@').next().unwrap().split(',').next().unwrap().to_owned()
}

/// An address at which nothing listens.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Forwards connections to MongoDB, until the process ends.
fn forward(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(mongodb()).unwrap();
            let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
            let (mut from_server, mut to_server) = (server.try_clone().unwrap(), server);
            thread::spawn(move || io::copy(&mut from_client, &mut to_server));
            thread::spawn(move || io::copy(&mut from_server, &mut to_client));
        }
    });
}

/// The records of a log that have this text.
fn records<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

#[test]
#[ignore = "needs MongoDB: make test-all"]
fn the_program_starts_while_mongodb_is_down_and_logs_once_that_it_is_and_that_it_is_back() {
    let address = free_address();
    let port = address.port().to_string();
    let mut server =
        PROGRAM.start(&["--db_host", "127.0.0.1", "--db-port", &port, "--db_name", "test_program"]);
    server.wait_for_line("the store does not respond");
    let connection = server.connect().send("GET /ping HTTP/1.1\r\nhost: a\r\n\r\n").read_head();
    assert!(connection.starts_with("HTTP/1.1 200"), "{connection}");
    forward(address);
    server.wait_for_line("the store responds again");
    server.signal("TERM");
    // The log is complete when the process has ended.
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    for text in ["the store does not respond", "the store responds again"] {
        assert_eq!(records(&log, text).len(), 1, "{log}");
    }
}

#[test]
#[ignore = "needs MongoDB: make test-all"]
fn the_variables_of_the_original_choose_mongodb_and_their_password_is_in_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_address().port().to_string();
    let mut command = PROGRAM.command(folder.path());
    command.args(["--port", "0", "--host", "127.0.0.1"]).envs([
        ("MONGODB_HOST", "127.0.0.1"),
        ("MONGODB_PORT", &port),
        ("MONGODB_USER", "ada"),
        ("MONGODB_PASSWORD", "hunter2"),
        ("SERVER__STORE__TIMEOUT", "200ms"),
    ]);
    let mut server = TestServer::spawn(&mut command, folder.path());
    server.wait_for_line("the store does not respond");
    server.signal("TERM");
    // The log is complete when the process has ended.
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    assert!(log.contains("ada:***@127.0.0.1") && !log.contains("hunter2"), "{log}");
}

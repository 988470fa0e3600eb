//! The end of a server with several processes.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use platform::testing::{Connection, TestServer};

use super::{is_alive, signal, start, workers};
use crate::support::PROGRAM;

const HALF: &str = "GET /ping HTTP/1.1\r\nHost: a\r\n";

fn half_a_request(server: &TestServer) -> Connection {
    let mut connection = server.connect();
    connection.send(HALF);
    assert!(connection.is_quiet_for(Duration::from_millis(100)));
    connection
}

/// A server with requests in flight, and with what is not in flight.
fn busy(deadline: &str) -> (tempfile::TempDir, TestServer, Vec<Connection>) {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!("server: {{shutdown: {{deadline: {deadline}}}}}\nhttp: {{header_timeout: 1h}}\n");
    let server = start(folder.path(), "3", &yaml);
    let requests = (0..6).map(|_| half_a_request(&server)).collect();
    (folder, server, requests)
}

#[test]
fn requests_in_flight_in_all_workers_are_finished() {
    let (_folder, mut server, requests) = busy("1h");
    let all = workers(&server);
    let mut idle = server.connect();
    assert!(idle.send(format!("{HALF}\r\n")).read_response().starts_with("HTTP/1.1 200"));
    server.signal("TERM");
    server.wait_for_line("draining");
    for mut request in requests {
        assert!(request.send("\r\n").read_response().starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(idle.read_to_end(), "");
    assert_eq!(server.wait(), Some(0));
    assert!(all.values().all(|worker| !is_alive(*worker)), "{all:?}");
    let log = server.log_file();
    assert_eq!(log.lines().filter(|line| line.contains("msg=stopped ")).count(), 3, "{log}");
}

#[test]
fn all_workers_are_not_ready_from_the_signal_on_and_still_serve_while_they_linger() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "3", "server: {shutdown: {linger: 5m}}\n");
    let get =
        |path: &str| server.connect().send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).read_response();
    assert!(get("/ready").starts_with("HTTP/1.1 200"));
    server.signal("TERM");
    super::until(|| server.log_file().matches("msg=draining").count() == 3);
    // Enough connections that every worker has some.
    for _ in 0..30 {
        let response = get("/ready");
        assert!(response.starts_with("HTTP/1.1 503") && response.contains("\"draining\""), "{response}");
        let response = get("/ping");
        assert!(response.starts_with("HTTP/1.1 200") && response.contains("connection: close"), "{response}");
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));
}

#[test]
fn what_does_not_end_is_cut_at_the_deadline_and_the_exit_code_says_so() {
    let (_folder, mut server, _requests) = busy("300ms");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(3));
}

#[test]
fn a_second_signal_ends_all_workers_at_once() {
    let (_folder, mut server, _requests) = busy("1h");
    let all = workers(&server);
    server.signal("TERM");
    server.wait_for_line("draining");
    assert!(!server.has_ended());
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));
    super::until(|| all.values().all(|worker| !is_alive(*worker)));
}

#[test]
fn a_signal_to_the_whole_group_is_one_signal() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "http: {header_timeout: 1h}\n").unwrap();
    let mut command = PROGRAM.command(folder.path());
    command.args(["--proc", "3", "--port", "0", "--host", "127.0.0.1", "--config", "a.yaml"]);
    let mut server = TestServer::spawn(command.process_group(0), folder.path());
    let group = -i64::from(server.process_id());
    let requests: Vec<_> = (0..6).map(|_| half_a_request(&server)).collect();
    signal("INT", group);
    server.wait_for_line("draining");
    for mut request in requests {
        assert!(request.send("\r\n").read_response().starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(server.wait(), Some(0));
}

//! The program with a collector of spans that is down.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use platform::testing::{Connection, PATIENCE, TestServer};

use crate::support::PROGRAM;

/// Responds to one request with 200, and returns its head in lower case.
fn take(stream: TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    reader.get_mut().write_all(response).unwrap();
    head
}

fn told(server: &TestServer, what: &str) -> usize {
    server.log_file().lines().filter(|line| line.contains(what)).count()
}

fn request(server: &TestServer) {
    let response =
        Connection::open(server.address).send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
}

/// Sends requests until the condition is true.
fn request_until(server: &TestServer, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{}", server.log_file());
        request(server);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_collector_that_is_down_costs_no_request_and_is_told_once() {
    // A port that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let mut command = PROGRAM.command(folder.path());
    command.env("SERVER__TRACES__ENDPOINT", format!("http://127.0.0.1:{port}/v1/traces"));
    command.env("SERVER__TRACES__DELAY", "5ms");
    command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]);
    let server = TestServer::spawn(&mut command, folder.path());
    request_until(&server, || told(&server, "spans are lost") > 0);
    for _ in 0..10 {
        request(&server);
    }
    let collector = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let collecting = std::thread::spawn(move || {
        let path = take(collector.accept().unwrap().0);
        // Later batches are taken too.
        std::thread::spawn(move || collector.incoming().for_each(|stream| drop(take(stream.unwrap()))));
        path
    });
    request_until(&server, || told(&server, "takes spans again") == 1);
    assert!(collecting.join().unwrap().starts_with("post /v1/traces "));
    assert_eq!(told(&server, "spans are lost"), 1, "{}", server.log_file());
}

#[test]
fn an_endpoint_that_is_none_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for endpoint in ["collector:4318", "ftp://collector/v1/traces", "http://"] {
        let mut command = PROGRAM.command(folder.path());
        command.env("SERVER__TRACES__ENDPOINT", endpoint).args(["--port", "0", "--db_url", "memory:"]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("traces.endpoint") && text.contains("SERVER__TRACES__ENDPOINT"), "{text}");
    }
}

#[test]
fn a_collector_gets_the_headers_of_the_configuration_and_none_of_the_environment() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = PROGRAM.command(folder.path());
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    command.env("SERVER__TRACES__ENDPOINT", endpoint).env("SERVER__TRACES__DELAY", "5ms");
    command.env("SERVER__TRACES__HEADERS", "x-tenant=ada");
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=hunter2").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]);
    let server = TestServer::spawn(&mut command, folder.path());
    request(&server);
    let head = take(collector.accept().unwrap().0);
    assert!(
        head.contains("x-tenant: ada") && head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    assert!(!head.contains("hunter2"), "{head}");
}

//! `/metrics` of one process and of several: one page for all.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use platform::testing::{Connection, TestServer};

use super::{signal, until, workers};
use crate::support::PROGRAM;

/// Starts a server, and returns where its figures are.
fn start(folder: &Path, processes: &str, token: &str) -> (TestServer, SocketAddr) {
    start_with(folder, processes, token, &[])
}

fn start_with(folder: &Path, processes: &str, token: &str, more: &[&str]) -> (TestServer, SocketAddr) {
    // A port that is free now; nothing else asks for it by its number.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = PROGRAM.command(folder);
    command.args(["--proc", processes, "--port", "0", "--host", "127.0.0.1"]).args(more);
    command.env("SERVER__METRICS__LISTEN", address.to_string()).env("SERVER__METRICS__TOKEN", token);
    (TestServer::spawn(&mut command, folder), address)
}

fn ask(address: SocketAddr, head: &str) -> String {
    Connection::open(address).send(format!("{head}Host: a\r\nConnection: close\r\n\r\n")).read_to_end()
}

/// The figures by their names and labels.
fn figures(address: SocketAddr) -> BTreeMap<String, String> {
    let page = ask(address, "GET /metrics HTTP/1.1\r\n");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let lines = page.split_once("\r\n\r\n").unwrap().1.lines();
    let samples = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The number of requests to this route with this status.
fn requests(address: SocketAddr, route: &str, status: u16) -> u64 {
    let wanted = [format!("http_route=\"{route}\""), format!("code=\"{status}\"")];
    let counts = figures(address).into_iter().filter(|(name, _)| {
        name.starts_with("http_server_request_duration_seconds_count")
            && wanted.iter().all(|label| name.contains(label.as_str()))
    });
    counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

fn send(server: &TestServer, path: &str) {
    server.connect().send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).read_response();
}

#[test]
fn requests_are_counted_by_route_and_an_unknown_path_adds_no_series() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address) = start(folder.path(), "1", "");
    for number in 0..5 {
        send(&server, "/ping");
        send(&server, &format!("/nowhere/{number}"));
    }
    // A figure is there when the response has been sent, a moment after it has arrived.
    until(|| requests(address, "/ping", 200) == 5 && requests(address, "unmatched", 404) == 5);
    let all = figures(address);
    assert!(!all.keys().any(|name| name.contains("nowhere")), "{all:?}");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "http_server_active_requests"]
    {
        assert!(all.contains_key(name), "{name}: {all:?}");
    }
    let up_to_10s = all.iter().find(|(name, _)| name.contains("/ping") && name.contains("le=\"10\""));
    assert_eq!(up_to_10s.unwrap().1, "5");
}

#[test]
fn what_all_workers_have_counted_is_added_also_when_one_has_died_or_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, address) = start(folder.path(), "3", "");
    until(|| workers(&server).len() == 3);
    for _ in 0..30 {
        send(&server, "/ping");
    }
    until(|| requests(address, "/ping", 200) == 30);
    // What has been reported stays: nothing is counted twice, and nothing is lost.
    let old = workers(&server);
    signal("KILL", old[&1].into());
    until(|| workers(&server)[&1] != old[&1]);
    until(|| figures(address).get("worker_deaths_total") == Some(&"1".to_owned()));
    // What an old worker counts before it ends is reported at its end.
    for _ in 0..10 {
        send(&server, "/ping");
    }
    server.signal("HUP");
    server.wait_for_line(" reloaded ");
    for _ in 0..10 {
        send(&server, "/ping");
    }
    until(|| requests(address, "/ping", 200) == 50);
    // All old workers have ended, and what they had open is over: only what is asked now.
    until(|| figures(address)["http_server_open_connections"] == "0");
    assert_eq!(figures(address)["server_reloads_total{outcome=\"done\"}"], "1");
    assert_eq!(requests(address, "/ping", 200), 50);
}

#[test]
fn a_token_is_asked_for_and_nothing_else_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, address) = start(folder.path(), "1", "hunter2");
    for (head, status) in [
        ("GET /metrics HTTP/1.1\r\n", 401),
        ("GET /metrics HTTP/1.1\r\nAuthorization: Bearer hunter3\r\n", 401),
        ("GET /metrics HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n", 200),
        ("POST /metrics HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n", 405),
        ("GET /ping HTTP/1.1\r\n", 404),
    ] {
        let response = ask(address, head);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {response}");
        // What HTTP wants with these two.
        assert_eq!(response.contains("\r\nwww-authenticate: Bearer\r\n"), status == 401, "{response}");
        assert_eq!(response.contains("\r\nallow: GET, HEAD\r\n"), status == 405, "{response}");
    }
}

/// The bounds of the buckets that the histogram of requests has.
fn bounds(address: SocketAddr) -> Vec<String> {
    let page = ask(address, "GET /metrics HTTP/1.1\r\n");
    let buckets =
        page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_bucket{"));
    buckets.map(|line| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn a_histogram_has_the_buckets_that_are_set_for_it_and_wrong_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.yaml");
    let set = |buckets: &str| std::fs::write(&file, format!("metrics:\n  buckets: {buckets}")).unwrap();
    for processes in ["1", "2"] {
        set("{http_server_request_duration_seconds: [0.5, 30], job_run_duration_seconds: [1]}");
        let (server, address) = start_with(folder.path(), processes, "", &["--config", "my.yaml"]);
        send(&server, "/ping");
        until(|| bounds(address) == ["0.5", "30", "+Inf"]);
        set("{job_run_duration_seconds: [1]}");
        let (server, address) = start_with(folder.path(), processes, "", &["--config", "my.yaml"]);
        send(&server, "/ping");
        until(|| bounds(address).len() == 15);
    }
    for (buckets, expected) in [
        ("{a: []}", "my.yaml:2: metrics.buckets.a: expected at least one upper bound"),
        ("{a: [1, 0.5]}", "my.yaml:2: metrics.buckets.a: 0.5 comes after 1, expected ascending bounds"),
        ("{a: [1, 1]}", "my.yaml:2: metrics.buckets.a: 1 comes after 1, expected ascending bounds"),
        ("{a: [1, .inf]}", "my.yaml:2: metrics.buckets.a"),
        ("{a: [.nan]}", "my.yaml:2: metrics.buckets.a"),
        ("{a: [1, x]}", "my.yaml:2: metrics.buckets.a"),
        ("{a: 1}", "my.yaml:2: metrics.buckets.a"),
        ("{a.b: [1]}", "'a.b' is not the name of a figure, expected letters, digits, '_' and ':'"),
        ("{1a: [1]}", "'1a' is not the name of a figure"),
    ] {
        set(buckets);
        let refused = PROGRAM.run(folder.path(), &["config", "--config", "my.yaml"], &[]);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{buckets}: {message}");
        assert!(message.contains(expected), "{buckets}: {message}");
    }
}

#[test]
fn an_address_that_is_none_and_one_in_use_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    for (listen, code, expected) in
        [("9464", 2, "metrics.listen"), (port.as_str(), 1, "metrics.listen: cannot listen")]
    {
        for processes in ["1", "2"] {
            let variables = [("SERVER__METRICS__LISTEN", listen)];
            let output = PROGRAM.run(folder.path(), &["--port", "0", "--proc", processes], &variables);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }
}

//! `/metrics` of a server that has done something of every kind: `examples/figures.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use platform::testing::{Connection, PATIENCE, TestServer};

use crate::tasks::example;

/// Every figure and its labels, sorted. What is made for a Prometheus server, such as the dashboard, is checked against it.
const ALL: &str = include_str!("../figures.txt");

/// Starts the server, and returns where its figures are.
fn start(folder: &Path, processes: &str) -> (TestServer, SocketAddr) {
    // A port that is free now; nothing else asks for it by its number.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = example("figures").command(folder);
    command.args(["--proc", processes, "--port", "0", "--host", "127.0.0.1"]);
    command.env("SERVER__METRICS__LISTEN", address.to_string());
    (TestServer::spawn(&mut command, folder), address)
}

/// The figures by their names with labels, without those of the buckets.
fn figures(address: SocketAddr) -> BTreeMap<String, f64> {
    let get = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let page = Connection::open(address).send(get).read_to_end();
    let lines = page.split_once("\r\n\r\n").unwrap().1.lines();
    let samples = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let samples = samples.filter(|(name, _)| !name.contains("_bucket{"));
    samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// The sum of the figures of this name whose labels have all of these.
fn sum(all: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let matching = all.iter().filter(|(sample, _)| {
        let (of, given) = sample.split_once('{').unwrap_or((sample, ""));
        of == name && labels.iter().all(|label| given.contains(label))
    });
    matching.map(|(_, value)| value).sum()
}

/// A line for each family, with the names of its labels.
fn families(all: &BTreeMap<String, f64>) -> BTreeSet<String> {
    let names = all.keys().map(|sample| {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let family = ["_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        // A value has neither a quote nor an equals sign here.
        let labels: BTreeSet<&str> = labels
            .split('"')
            .step_by(2)
            .map(|text| text.trim_matches([',', '=', '}']))
            .filter(|label| !label.is_empty())
            .collect();
        let labels: Vec<&str> = labels.into_iter().collect();
        format!("{family} {}", labels.join(",")).trim_end().to_owned()
    });
    names.collect()
}

fn send(server: &TestServer, request: &str, status: u16) {
    let response = server
        .connect()
        .send(format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
        .read_response();
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
}

/// What is expected of a figure: its name, values of its labels, and its value.
type Expected = (&'static str, &'static [&'static str], f64);

fn wait_until_counted(address: SocketAddr, expected: &[Expected]) -> BTreeMap<String, f64> {
    let start = Instant::now();
    loop {
        let all = figures(address);
        // Counts are whole.
        let is_wrong = |(name, labels, value): &&Expected| (sum(&all, name, labels) - value).abs() > 0.1;
        let Some(wrong) = expected.iter().find(is_wrong) else { return all };
        assert!(start.elapsed() < PATIENCE, "{wrong:?}: {all:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_store_the_locks_the_cache_the_jobs_and_the_calls_out_are_counted() {
    for processes in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let (server, address) = start(folder.path(), processes);
        for (request, status) in [
            ("PUT /entries/a", 204),
            ("PUT /entries/a", 409),
            ("GET /cached/a", 200),
            ("GET /cached/a", 200),
            ("POST /locked/a", 204),
            ("GET /called", 502),
            ("INVENTED /forwarded", 502),
        ] {
            send(&server, request, status);
        }
        let (hits, runs) = if processes == "1" { (1.0, 1.0) } else { (0.0, 2.0) };
        let expected: [Expected; 12] = [
            ("http_server_request_duration_seconds_count", &["\"PUT\"", "/entries/{id}", "\"204\""], 1.0),
            ("http_server_request_duration_seconds_count", &["\"PUT\"", "/entries/{id}", "\"409\""], 1.0),
            (
                "db_client_operation_duration_seconds_count",
                &["\"sqlite\"", "\"entries\"", "\"insert\"", "\"ok\""],
                1.0,
            ),
            ("db_client_operation_duration_seconds_count", &["\"insert\"", "\"409\""], 1.0),
            ("lock_acquisitions_total", &["\"acquired\""], 1.0),
            ("lock_acquisitions_total", &["\"held by another\""], 1.0),
            ("http_client_request_duration_seconds_count", &["\"nobody\"", "\"GET\"", "\"refused\""], 1.0),
            ("http_client_request_duration_seconds_count", &["\"nobody\"", "\"_OTHER\"", "\"refused\""], 1.0),
            ("http_client_retries_total", &["\"nobody\""], 1.0),
            ("job_runs_total", &["\"fails once\"", "\"failed\""], runs),
            ("job_run_duration_seconds_count", &["\"fails once\""], runs),
            ("log_dropped_records", &[], 0.0),
        ];
        // A worker reports once a second, and a response arrives a moment before it is counted.
        let all = wait_until_counted(address, &expected);
        // Each worker has a cache in memory of its own.
        assert!(sum(&all, "cache_lookups_total", &["\"hit\""]) >= hits, "{all:?}");
        assert!(sum(&all, "cache_lookups_total", &["\"miss\""]) >= 1.0, "{all:?}");
        let documented: BTreeSet<String> = ALL.lines().map(str::to_owned).collect();
        if processes == "2" {
            assert_eq!(families(&all), documented);
        } else {
            // What only a supervisor counts.
            let missing: Vec<String> = documented.difference(&families(&all)).cloned().collect();
            assert_eq!(missing, ["server_reloads_total outcome", "worker_deaths_total"]);
        }
    }
}

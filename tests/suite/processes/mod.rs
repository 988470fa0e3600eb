//! Several processes: a supervisor and its workers. The log says which worker did what.

mod clients;
mod deaths;
mod log;
mod manager;
mod metrics;
mod reload;
mod stop;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use platform::testing::{PATIENCE, TestServer};

use crate::support::PROGRAM;

/// Starts several processes in a folder, with this text as the configuration file.
fn start(folder: &Path, processes: &str, yaml: &str) -> TestServer {
    std::fs::write(folder.join("a.yaml"), yaml).unwrap();
    let server = PROGRAM.start_in(folder, &["--proc", processes, "--config", "a.yaml"]);
    // The file is written a bit later than the console.
    until(|| server.log_file().contains("msg=listening"));
    let count = processes.parse().unwrap();
    until(|| workers(&server).len() >= count);
    server
}

/// The value of a field in a line of the log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!(" {name}="))? + name.len() + 2;
    line[at..].split(' ').next()
}

/// The process id of the newest worker of each number.
pub fn workers(server: &TestServer) -> BTreeMap<u32, u32> {
    let log = server.log_file();
    let serving = log.lines().filter(|line| line.contains("msg=serving"));
    serving
        .map(|line| ["worker", "pid"].map(|name| field(line, name).unwrap().parse().unwrap()))
        .map(|[worker, pid]| (worker, pid))
        .collect()
}

/// Sends a signal to a process, or to a group of processes when the id is negative.
pub fn signal(name: &str, id: i64) {
    let sent = Command::new("kill").args([&format!("-{name}"), "--", &id.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Whether there is such a process. A zombie is none.
fn is_alive(process: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &process.to_string()]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

/// Waits until the condition is true, and returns how long that took.
pub fn until(condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[test]
fn all_workers_respond_on_one_port() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "3", "");
    assert!(server.log_file().contains(" workers=3"), "{}", server.log_file());
    let answered = |worker: u32| {
        let by = format!(" worker={worker}");
        server.log_file().lines().any(|line| line.contains("path=/nowhere") && line.contains(&by))
    };
    until(|| {
        server.connect().send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        (1..=3).all(answered)
    });
}

#[test]
fn zero_processes_are_one_for_each_core() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "0", "");
    let cores = std::thread::available_parallelism().unwrap().get();
    let workers = format!(" workers={cores}");
    assert_eq!(server.log_file().contains(&workers), cores > 1, "{}", server.log_file());
}

#[test]
fn the_flag_of_a_worker_is_refused_to_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let output = PROGRAM.run(folder.path(), &["--worker", "1"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("supervisor"));
}

//! What the operating system limits (`ulimit`): the program knows it, says so, and serves what it can.

use std::fs;
use std::path::Path;
use std::process::Command;

use platform::testing::{Connection, TestServer};

use crate::tasks::example;

/// The server of `examples/ledger.rs` after these commands of the shell.
fn limited(limits: &str, folder: &Path, url: &str, environment: &[(&str, &str)]) -> TestServer {
    let program = example("ledger").command(folder);
    let mut command = Command::new("sh");
    command.current_dir(folder).env_clear().args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]);
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.envs(environment.iter().copied());
    command.arg(program.get_program()).args(["--host", "127.0.0.1", "--port", "0", "--db_url", url]);
    TestServer::spawn(&mut command, folder)
}

/// The stores that write files, each in a folder of its own.
fn stores() -> Vec<&'static str> {
    let sqlite = cfg!(feature = "sqlite").then_some("sqlite:store.sqlite");
    ["file:store"].into_iter().chain(sqlite).collect()
}

fn status(connection: &mut Connection, request: &str) -> u16 {
    connection.send(request).read_response()[9..12].parse().unwrap()
}

const PING: &str = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";
const LIST: &str = "GET /entries HTTP/1.1\r\nHost: a\r\n\r\n";
const FILE: &str = "GET /static/a.txt HTTP/1.1\r\nHost: a\r\n\r\n";

fn post(text: &str) -> String {
    let body = format!(r#"{{"token": "t", "text": "{text}"}}"#);
    format!("POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn write_static(folder: &Path) {
    fs::create_dir_all(folder.join("views/static")).unwrap();
    fs::write(folder.join("views/static/a.txt"), "a").unwrap();
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let limit_of = |process: &str| {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let server = limited("ulimit -S -n 200", folder.path(), "memory:", &[]);
    let hard = limit_of("self")[1].clone();
    assert_eq!(limit_of(&server.process_id().to_string()), [hard.clone(), hard]);
}

#[test]
fn connections_leave_descriptors_to_the_rest_and_the_log_says_how_many_they_have() {
    const MOST: usize = 172;
    for url in stores() {
        let folder = tempfile::tempdir().unwrap();
        write_static(folder.path());
        let environment =
            [("SERVER__HTTP__MAX_CONNECTIONS", "5000"), ("SERVER__HTTP__RESERVED_FILES", "128")];
        let mut server = limited("ulimit -n 300", folder.path(), url, &environment);
        let line = server.wait_for_line("fewer connections than http.max_connections");
        for part in ["limit=300", "reserved=128", "connections=172", "configured=5000"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        let mut open: Vec<Connection> = (0..MOST).map(|_| server.connect()).collect();
        assert!(open.iter_mut().all(|connection| status(connection, PING) == 200));
        // One more waits.
        let mut waiting = server.connect();
        assert!(waiting.send(PING).is_quiet_for(std::time::Duration::from_millis(200)));
        for _ in 0..3 {
            let all = [post("x").as_str(), LIST, FILE, PING].map(|request| status(&mut open[0], request));
            assert_eq!(all, [201, 200, 200, 200], "{url}");
        }
        open.truncate(1);
        assert!(waiting.read_response().starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn out_of_descriptors_what_needs_a_file_is_unavailable_and_no_fault_of_the_program() {
    for url in stores() {
        let folder = tempfile::tempdir().unwrap();
        write_static(folder.path());
        // The control of the test above: with no reserve, connections take all.
        let environment = [("SERVER__HTTP__MAX_CONNECTIONS", "5000"), ("SERVER__HTTP__RESERVED_FILES", "0")];
        let mut server = limited("ulimit -n 64", folder.path(), url, &environment);
        let mut first = server.connect();
        assert_eq!(status(&mut first, PING), 200);
        let open: Vec<Connection> = (0..100).map(|_| server.connect()).collect();
        server.wait_for_line("cannot accept connections");
        assert_eq!([PING, FILE].map(|request| status(&mut first, request)), [200, 503], "{url}");
        for request in [LIST, &post("x")] {
            let status = status(&mut first, request);
            // SQLite may have opened its files before.
            let expected: &[u16] = if url.starts_with("file:") { &[503] } else { &[200, 201, 503] };
            assert!(expected.contains(&status), "{url}: {request:.20} {status}");
        }
        drop(open);
        // The descriptors come back when the server has seen the ends of the connections.
        let start = std::time::Instant::now();
        while status(&mut first, &post("x")) != 201 {
            assert!(start.elapsed() < platform::testing::PATIENCE, "{url}: still unavailable");
        }
        assert_eq!([LIST, FILE].map(|request| status(&mut first, request)), [200, 200], "{url}");
    }
}

#[test]
fn a_file_that_may_not_grow_makes_its_store_unavailable_and_ends_nothing() {
    for url in stores() {
        let folder = tempfile::tempdir().unwrap();
        // 512 blocks of 512 bytes; the files of an empty SQLite database take less than half.
        let mut server = limited("ulimit -f 512", folder.path(), url, &[]);
        let mut connection = server.connect();
        let small = status(&mut connection, &post("x"));
        let large = "y".repeat(100_000);
        let mut statuses: Vec<u16> = (0..20).map(|_| status(&mut connection, &post(&large))).collect();
        statuses.push(status(&mut connection, &post(&"y".repeat(400_000))));
        assert_eq!(small, 201, "{url}");
        assert!(
            statuses.contains(&503) && statuses.iter().all(|status| [201, 503].contains(status)),
            "{url}: {statuses:?}"
        );
        assert_eq!([PING, LIST].map(|request| status(&mut connection, request)), [200, 200], "{url}");
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0), "{url}");
    }
}

#[test]
fn a_log_file_that_may_not_grow_is_dropped_and_the_other_sink_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // 16 KiB, less than these lines.
    let mut server = limited("ulimit -f 32", folder.path(), "memory:", &[]);
    let mut connection = server.connect();
    for _ in 0..200 {
        assert_eq!(status(&mut connection, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    }
    let line = server.wait_for_line("logs/server.log");
    assert!(line.to_lowercase().contains("file too large"), "{line}");
    assert_eq!(status(&mut connection, PING), 200);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let size = fs::metadata(folder.path().join("logs/server.log")).unwrap().len();
    // A batch of lines that does not fit whole is dropped whole.
    assert!((1..=16 << 10).contains(&size), "{size}");
}

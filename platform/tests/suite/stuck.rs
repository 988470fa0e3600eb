//! A process whose threads never come back, from a file call or from code that never awaits, ends in time all the same; and what
//! is no regular file is not opened.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use platform::testing::{PATIENCE, TestServer};

use crate::tasks::{example, faulty};

fn signal(process: u32, name: &str) {
    assert!(
        Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap().success()
    );
}

fn make_pipe(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_start_that_blocks_its_thread_ends_by_a_signal_and_at_once_by_a_second_one() {
    for (signals, code) in
        [(&["TERM"][..], 3), (&["INT", "TERM"], 143), (&["QUIT"], 3), (&["TERM", "QUIT"], 131)]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut starting = faulty(folder.path(), "init blocks").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(starting.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("init blocks")));
        for name in signals {
            signal(starting.id(), name);
            // Two signals that come together are one.
            std::thread::sleep(Duration::from_millis(200));
        }
        // The control: the blocked thread itself ends nothing.
        assert!(starting.try_wait().unwrap().is_none(), "{signals:?}");
        assert!(lines.any(|line| line.unwrap().contains("has not ended in time")), "{signals:?}");
        assert_eq!(starting.wait().unwrap().code(), Some(code), "{signals:?}");
    }
}

#[test]
fn a_server_whose_threads_are_all_blocked_ends_after_its_deadline_and_at_once_by_a_second_signal() {
    let start = || {
        let folder = tempfile::tempdir().unwrap();
        (TestServer::spawn(&mut faulty(folder.path(), "all threads block"), folder.path()), folder)
    };
    let (mut server, _folder) = start();
    server.signal("TERM");
    server.wait_for_line("has not ended in time");
    assert_eq!(server.wait(), Some(3));
    assert!(server.log_file().contains("has not ended in time"));
    let (mut server, _folder) = start();
    server.signal("TERM");
    // Two signals that come together are one.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!server.has_ended());
    server.signal("INT");
    assert_eq!(server.wait(), Some(130));
}

#[test]
fn quit_drains_as_terminate_does() {
    let mut server = example("ledger").start(&["--db_url", "memory:"]);
    let response = server.connect().send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    server.signal("QUIT");
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    for part in ["path=/nowhere", "msg=draining signal=SIGQUIT", "msg=stopped"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

#[test]
fn a_store_opens_no_pipe() {
    let start = |url: &str, pipe: &str| {
        let folder = tempfile::tempdir().unwrap();
        make_pipe(&folder.path().join(pipe));
        (
            example("ledger").command(folder.path()).args(["--port", "0", "--db_url", url]).spawn().unwrap(),
            folder,
        )
    };
    let mut refused = vec![("file:store", "store/.journal")];
    if cfg!(feature = "sqlite") {
        refused.push(("sqlite:x.sqlite", "x.sqlite"));
    }
    for (url, pipe) in refused {
        let (mut child, _folder) = start(url, pipe);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{url} with the pipe {pipe}: it waits");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(1), "{url} with the pipe {pipe}");
    }
}

#[test]
fn a_pipe_among_the_documents_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    make_pipe(&folder.path().join("store/entries/x.json"));
    make_pipe(&folder.path().join("store/groups/.lock"));
    let mut server = example("ledger").start_in(folder.path(), &["--db_url", "file:store"]);
    let mut connection = server.connect();
    let mut ask = |head: &str| connection.send(format!("{head} HTTP/1.1\r\nHost: a\r\n\r\n")).read_response();
    let response = ask("GET /entries/x");
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(server.log_file().contains("x.json is damaged: it is no regular file"), "{}", server.log_file());
}

//! SIGTERM with everything in flight, for one process and for several: `examples/busy.rs`.

use std::time::{Duration, Instant};

use platform::testing::{Connection, PATIENCE, TestServer};

use crate::tasks::example;

/// More than `/slow` takes.
const DEADLINE: Duration = Duration::from_secs(7);

fn send(server: &TestServer, bytes: &str) -> Connection {
    let mut connection = server.connect();
    connection.send(bytes);
    connection
}

#[test]
fn a_stop_with_everything_in_flight_finishes_what_can_be_finished() {
    for processes in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = example("busy").command(folder.path());
        command.args(["--proc", processes, "--port", "0", "--host", "127.0.0.1"]);
        command.env("SERVER__SERVER__SHUTDOWN__DEADLINE", "7s");
        // So that nothing but the deadline ends a body that does not come.
        command.env("SERVER__HTTP__BODY_GRACE", "1m");
        let mut server = TestServer::spawn(&mut command, folder.path());
        let start = Instant::now();
        for line in ["a run has begun", "held=true"] {
            while !server.log_file().contains(line) {
                assert!(start.elapsed() < PATIENCE, "no {line}: {}", server.log_file());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let locks = || std::fs::read_dir(folder.path().join("var/locks")).unwrap().count();
        // A file for each lock that is held, and the counter of the tokens.
        assert!(locks() > 1);
        let mut idle = send(&server, "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(idle.read_response().starts_with("HTTP/1.1 200"));
        let mut half_a_head = send(&server, "GET /ping HTTP/1.1\r\n");
        let [mut half_a_body, mut never_a_body] = [(); 2]
            .map(|()| send(&server, "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"));
        let mut socket = send(
            &server,
            "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert!(socket.read_head().starts_with("HTTP/1.1 101"));
        let mut slow = send(&server, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            slow.is_quiet_for(Duration::from_millis(200))
                && half_a_body.is_quiet_for(Duration::from_millis(1))
        );

        let start = Instant::now();
        server.signal("TERM");
        server.wait_for_line("draining");
        // The frame of a close with the code 1001 (RFC 6455, section 5.5.1).
        let frame = socket.read_exactly(4);
        assert_eq!((frame[0], u16::from_be_bytes([frame[2], frame[3]])), (0x88, 1001), "{frame:?}");
        assert!(half_a_body.send("67890").read_response().ends_with("\r\n\r\n10"));
        let slow = slow.read_response();
        assert!(slow.starts_with("HTTP/1.1 200") && slow.ends_with("\r\n\r\nslow"), "{slow}");
        assert_eq!(idle.read_to_end(), "");
        assert_eq!(half_a_head.read_to_end(), "");
        // What cannot be finished is cut, and the exit code says so.
        assert_eq!(server.wait(), Some(3), "{}", server.log_file());
        let time = start.elapsed();
        assert!((DEADLINE..DEADLINE + Duration::from_secs(1)).contains(&time), "{time:?}");
        assert!(!never_a_body.read_to_end().starts_with("HTTP/1.1 200"));
        assert_eq!(locks(), 1, "no lock is held any more");
        let log = server.log_file();
        for line in ["a run has ended", "the task has ended", "msg=stopped"] {
            assert!(log.contains(line), "{line}: {log}");
        }
    }
}

/// The value of a field in the line of the log that has this message.
fn field_of(log: &str, message: &str, field: &str) -> Vec<Option<String>> {
    let lines = log.lines().filter(|line| line.contains(&format!("msg={message}")));
    let value = |line: &str| Some(line.split(&format!(" {field}=")).nth(1)?.split(' ').next()?.to_owned());
    lines.map(value).collect()
}

#[test]
fn every_record_made_for_a_request_has_its_id_and_its_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = example("busy").command(folder.path());
    let mut server = TestServer::spawn(command.args(["--port", "0", "--host", "127.0.0.1"]), folder.path());
    // Many at once, so that threads change between them.
    let trace = |n: usize| format!("{n:032x}");
    let get = |path: &str, n: usize| {
        let parent = format!("00-{}-00f067aa0ba902b7-01", trace(n));
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: r{n}\r\ntraceparent: {parent}\r\n\r\n");
        send(&server, &head)
    };
    let mut requests: Vec<_> = (1..=20).map(|n| get("/slow", n)).collect();
    for request in &mut requests {
        assert!(request.read_response().starts_with("HTTP/1.1 200"));
    }
    get("/spawning", 99).read_response();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    for message in ["\"slow begins\"", "\"slow ends\""] {
        let mut ids: Vec<_> = field_of(&log, message, "request_id").into_iter().flatten().collect();
        ids.sort();
        let mut expected: Vec<_> = (1..=20).map(|n| format!("r{n}")).collect();
        expected.sort();
        assert_eq!(ids, expected, "{log}");
        let traces = field_of(&log, message, "trace_id");
        for (id, of) in field_of(&log, message, "request_id").into_iter().flatten().zip(traces) {
            assert_eq!(of, Some(trace(id[1..].parse().unwrap())));
        }
    }
    assert_eq!(field_of(&log, "\"spawned within\"", "request_id"), [Some("r99".to_owned())]);
    // The controls: what is spawned without it, and what belongs to no request.
    assert_eq!(field_of(&log, "spawned ", "request_id"), [] as [Option<String>; 0]);
    assert!(log.lines().any(|line| line.ends_with("msg=spawned") && !line.contains("request_id")), "{log}");
    assert_eq!(field_of(&log, "listening", "request_id"), [None]);
    // The line of the request itself.
    let own = log.lines().find(|line| line.contains("request_id=r7 ") && line.contains("server.access"));
    assert!(own.is_some_and(|line| line.contains(&format!("trace_id={}", trace(7)))), "{own:?}");
}

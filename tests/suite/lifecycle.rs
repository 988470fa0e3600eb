//! Start and end of the program: ports, signals, configuration, restarts.

use std::fs;
use std::time::Duration;

use platform::testing::{Connection, TestServer};

use crate::support::PROGRAM;

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_port_in_use_says_what_to_do_and_exits_with_1() {
    let server = PROGRAM.start(&["--db_url", "memory:"]);
    let folder = tempfile::tempdir().unwrap();
    // Its absence would be a warning.
    fs::create_dir_all(folder.path().join("views/static")).unwrap();
    let port = server.address.port().to_string();
    let second =
        PROGRAM.run(folder.path(), &["--host", "127.0.0.1", "--port", &port, "--db_url", "memory:"], &[]);
    assert_eq!(second.status.code(), Some(1));
    let text = stderr(&second);
    let expected = format!("{}: port {port} is in use", env!("CARGO_PKG_NAME"));
    assert!(text.starts_with(&expected) && text.contains("--port"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_mistake_in_the_configuration_is_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.yaml");
    for (yaml, expected) in [
        ("http:\n  body_limt: 1MiB\n", ["mine.yaml:2", "http.body_limt", "http.body_limit"]),
        ("server:\n\n  port: 70000\n", ["mine.yaml:3", "server.port", "out of range"]),
        ("http: {etag: 7}\n", ["mine.yaml:1", "http.etag", "expected a boolean"]),
        ("store:\n  url: flie:var/documents\n", ["mine.yaml:2", "store.url", "file"]),
    ] {
        fs::write(&file, yaml).unwrap();
        let output = PROGRAM.run(folder.path(), &["--config", "mine.yaml"], &[]);
        assert_eq!(output.status.code(), Some(2), "{yaml}");
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(expected.iter().all(|part| text.contains(part)), "{expected:?} is not in {text}");
    }
    let output = PROGRAM.run(folder.path(), &["--config", "none.yaml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("none.yaml"), "{}", stderr(&output));
}

#[test]
fn the_configuration_is_printed_with_origins_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.yaml"), "http:\n  request_timeout: 7s\n").unwrap();
    let url = "postgres://ada:hunter2@db/app";
    let arguments = ["config", "--config", "mine.yaml", "--port", "8080", "--db_url", url];
    let output = PROGRAM.run(folder.path(), &arguments, &[("SERVER__HTTP__BODY_LIMIT", "2MiB")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let line =
        |key: &str| text.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {text}"));
    assert!(line(" port: 8080").contains("--port"), "{text}");
    assert!(line("body_limit: 2MiB").contains("SERVER__HTTP__BODY_LIMIT"), "{text}");
    assert!(line("request_timeout: 7s").contains("mine.yaml:2"), "{text}");
    let defaults = text.lines().filter(|line| line.contains("# platform/defaults/")).count();
    assert!(defaults > 0, "{text}");
    assert!(!text.contains("hunter2") && line(" url: ").contains("***"), "{text}");
}

#[test]
fn the_manual_is_printed_with_its_comments() {
    let folder = tempfile::tempdir().unwrap();
    let output = PROGRAM.run(folder.path(), &["config", "--manual"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["# platform/defaults/http.yaml", "\n  # The TCP port", "\n---\n# configs/default.yaml", "\napp:"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn the_program_has_the_name_and_the_version_of_its_package() {
    let folder = tempfile::tempdir().unwrap();
    let output = PROGRAM.run(folder.path(), &["--version"], &[]);
    let expected = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn the_routes_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let output = PROGRAM.run(folder.path(), &["routes", "--db_url", "memory:"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().any(|line| line.starts_with("/ping") && line.contains("GET, HEAD, OPTIONS")),
        "{text}"
    );
}

#[test]
fn memory_with_several_processes_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let output = PROGRAM.run(folder.path(), &["--db_url", "memory:", "--proc", "2"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("memory") && text.contains("2 processes"), "{text}");
}

#[test]
fn a_flag_of_a_missing_feature_is_refused_and_not_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let mongodb = (!cfg!(feature = "mongodb")).then_some(["--db_host", "db"]);
    let etcd = (!cfg!(feature = "etcd")).then_some(["--lock_server", ""]);
    for arguments in mongodb.into_iter().chain(etcd) {
        let given: Vec<&str> = arguments.into_iter().filter(|word| !word.is_empty()).collect();
        let output = PROGRAM.run(folder.path(), &given, &[]);
        assert_eq!(output.status.code(), Some(2), "{given:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{given:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(given[0]), "{given:?}: {}", stderr(&output));
    }
    assert!(!folder.path().join("var").exists(), "a store was created for a server that does not start");
}

#[test]
fn debug_is_refused_on_an_address_that_others_can_reach_unless_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let once = PROGRAM.run(folder.path(), &["--host", "0.0.0.0", "--debug", "--db_url", "memory:"], &[]);
    assert_eq!(once.status.code(), Some(2));
    assert!(stderr(&once).contains("debug"), "{}", stderr(&once));
    let mut twice = PROGRAM.start(&["--host", "0.0.0.0", "--debug", "--debug", "--db_url", "memory:"]);
    assert!(!twice.has_ended());
}

#[test]
fn a_signal_ends_the_server_with_0_and_its_log_is_complete() {
    for signal in ["TERM", "INT"] {
        let mut server = PROGRAM.start(&["--db_url", "memory:"]);
        server.connect().send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        server.signal(signal);
        assert_eq!(server.wait(), Some(0));
        let log = server.log_file();
        assert!(log.contains("path=/nowhere") && log.contains("msg=stopped"), "{log}");
    }
}

#[test]
fn a_missing_folder_of_static_files_is_one_warning_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let warnings = || {
        let mut command = PROGRAM.command(folder.path());
        command.args(["--host", "127.0.0.1", "--port", "0", "--db_url", "memory:"]);
        let mut server =
            TestServer::spawn(command.env("SERVER__VIEWS__STATIC_DIR", "views/static"), folder.path());
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        let lines = server.remaining_lines();
        lines.into_iter().filter(|line| line.contains("views/static")).collect::<Vec<_>>()
    };
    let found = warnings();
    assert!(found.len() == 1 && found[0].contains("there is no folder views/static"), "{found:?}");
    // The control.
    fs::create_dir_all(folder.path().join("views/static")).unwrap();
    assert_eq!(warnings(), [""; 0]);
}

/// A server that has received SIGTERM while a connection has sent only half of its request head.
fn draining(deadline: &str) -> (TestServer, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draining.yaml");
    fs::write(
        &file,
        format!("server: {{shutdown: {{deadline: {deadline}}}}}\nhttp: {{header_timeout: 1h}}\n"),
    )
    .unwrap();
    let mut server = PROGRAM.start(&["--db_url", "memory:", "--config", file.to_str().unwrap()]);
    let mut connection = server.connect();
    connection.send("GET /ping HTTP/1.1\r\nHost: a\r\n");
    assert!(connection.is_quiet_for(Duration::from_millis(100)));
    server.signal("TERM");
    server.wait_for_line("draining");
    (server, connection)
}

#[test]
fn a_request_in_flight_at_a_signal_is_finished() {
    let (mut server, mut connection) = draining("1h");
    let response = connection.send("\r\n").read_response();
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_signal_makes_ready_503_while_connections_are_still_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lingering.yaml");
    fs::write(&file, "server: {shutdown: {linger: 2s}}\n").unwrap();
    let mut server = PROGRAM.start(&["--db_url", "memory:", "--config", file.to_str().unwrap()]);
    let ask = |server: &TestServer, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        server.connect().send(&request).read_response()
    };
    assert!(ask(&server, "/ready").starts_with("HTTP/1.1 200"));
    server.signal("TERM");
    server.wait_for_line("draining");
    assert!(ask(&server, "/ready").starts_with("HTTP/1.1 503"));
    assert!(ask(&server, "/live").starts_with("HTTP/1.1 200"));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_connection_that_does_not_end_is_cut_at_the_deadline_and_the_exit_code_says_so() {
    let (mut server, _connection) = draining("200ms");
    assert_eq!(server.wait(), Some(3));
}

#[test]
fn while_a_stopping_server_lingers_its_responses_end_their_connections() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), "server: {shutdown: {linger: 5m}}\n").unwrap();
    let mut server = PROGRAM.start_in(folder.path(), &["--db_url", "memory:", "--config", "a.yaml"]);
    let ping = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut connection = server.connect();
    assert!(!connection.send(ping).read_response().to_lowercase().contains("connection: close"));
    server.signal("TERM");
    server.wait_for_line("draining");
    assert!(connection.send(ping).read_response().to_lowercase().contains("connection: close"));
    assert_eq!(connection.read_to_end(), "");
    assert!(server.connect().send(ping).read_response().starts_with("HTTP/1.1 200"));
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let (mut server, _connection) = draining("1h");
    assert!(!server.has_ended());
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));
}

#[tokio::test]
async fn two_servers_in_one_folder_write_complete_lines_into_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = [0; 2].map(|_| PROGRAM.start_in(folder.path(), &["--db_url", "memory:"]));
    let client = reqwest::Client::new();
    for number in 0..100 {
        for server in &servers {
            client.get(server.url(&format!("/nowhere/{number}"))).send().await.unwrap();
        }
    }
    for server in &mut servers {
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
    let log = servers[0].log_file();
    let complete =
        |line: &&str| line.starts_with("time=") && line.contains("status=404") && line.ends_with('"');
    assert_eq!(log.lines().filter(complete).count(), 200, "{log}");
}

#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    for processes in ["1", "2"] {
        let ignored = |script: &str| {
            let folder = tempfile::tempdir().unwrap();
            let program = PROGRAM.command(folder.path());
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", script, "sh"]).arg(program.get_program()).current_dir(folder.path());
            command.args(["--proc", processes, "--host", "127.0.0.1", "--port", "0"]).env_clear();
            command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let server = TestServer::spawn(&mut command, folder.path());
            let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
        };
        assert!(ignored("trap '' HUP; exec \"$@\""), "{processes}");
        // The control.
        assert!(!ignored("exec \"$@\""), "{processes}");
    }
}

#[test]
fn a_hangup_gives_one_process_the_new_levels_of_its_log_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let yaml = |level: &str| format!("logging: {{levels: {{server.access: {level}}}}}\n");
    std::fs::write(&file, yaml("off")).unwrap();
    let mut server = PROGRAM.start_in(folder.path(), &["--config", "a.yaml"]);
    let get = |server: &TestServer, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        server.connect().send(head).read_to_end()
    };
    get(&server, "/before");
    std::fs::write(&file, yaml("info")).unwrap();
    server.signal("HUP");
    server.wait_for_line("levels of the log");
    get(&server, "/after");
    std::fs::write(&file, "logging: {levels: {server: loud}}\n").unwrap();
    server.signal("HUP");
    let line = server.wait_for_line("no reload");
    assert!(line.contains("a.yaml:1") && line.contains("loud"), "{line}");
    server.signal("USR2");
    server.wait_for_line("--proc 2");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    assert!(!log.contains("/before") && log.contains("path=/after"), "{log}");
}

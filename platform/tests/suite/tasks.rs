//! Background tasks, subcommands and the end of the program: `examples/worker.rs` and `examples/faulty.rs` as processes.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use platform::http::Routes;
use platform::store::{Dao, Entity, Filter};
use platform::testing::{Program, TestApp, TestServer, until};

/// An example, which cargo builds for every run of the tests.
pub fn example(name: &str) -> Program {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    // `cargo test` builds it; `cargo test --test suite` does not.
    assert!(path.exists(), "missing: build it with `cargo build -p platform --example {name}`");
    Program::new(path.to_str().unwrap().to_owned().leak())
}

pub fn worker() -> Program {
    example("worker")
}

pub const STORE: &str = "sqlite:worker.sqlite";

fn count(folder: &Path) -> u64 {
    let counted = worker().run(folder, &["count", "--db_url", STORE], &[]);
    assert_eq!(counted.status.code(), Some(0), "{}", String::from_utf8_lossy(&counted.stderr));
    String::from_utf8(counted.stdout).unwrap().trim().parse().unwrap()
}

fn start(folder: &Path) -> TestServer {
    worker().start_in(folder, &["--db_url", STORE])
}

#[tokio::test]
async fn a_task_is_told_to_stop_and_finishes_before_the_store_closes() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    until(|| count(folder.path()) > 2).await;
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = server.log_file();
    assert!(!log.contains("cannot write an entry") && log.contains("msg=stopped"), "{log}");
    let entries = read(folder.path()).await;
    let [.., task, end] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!([task.as_str(), end.as_str()], ["task, told to stop", "end"]);
}

/// Who wrote the entries, in their order.
async fn read(folder: &Path) -> Vec<String> {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Entry {
        written_by: String,
    }
    impl Entity for Entry {
        const COLLECTION: &'static str = "entries";
    }
    let url = format!("sqlite:{}", folder.join("worker.sqlite").display());
    let app = TestApp::with_routes(Routes::new(), &[("SERVER__STORE__URL", url.as_str())]).await;
    let entries: Dao<Entry> = app.services().dao();
    entries.get_all(Filter::all()).await.unwrap().into_iter().map(|entry| entry.value.written_by).collect()
}

#[test]
fn a_subcommand_is_in_the_help_and_a_wrong_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let help = worker().run(folder.path(), &["--help"], &[]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("  count ") && help.contains("Count the entries"), "{help}");
    assert_eq!(worker().run(folder.path(), &["cuont"], &[]).status.code(), Some(2));
    assert_eq!(count(folder.path()), 0);
}

/// What the layer beside the log has seen: the process and the level of each event.
fn trail(folder: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("trail")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(pid, level)| (pid.into(), level.into()))
        .collect()
}

#[tokio::test]
async fn every_process_has_the_layer_of_the_app_beside_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let trail_on = [("SERVER__APP__TRAIL", "trail")];
    assert_eq!(worker().run(folder.path(), &["count", "--db_url", STORE], &trail_on).status.code(), Some(0));
    assert!(trail(folder.path()).iter().any(|(_, level)| level == "DEBUG"), "the subcommand");
    std::fs::remove_file(folder.path().join("trail")).unwrap();

    let mut command = worker().command(folder.path());
    command.args(["--db_url", STORE, "--port", "0", "--host", "127.0.0.1", "--proc", "2"]).envs(trail_on);
    let mut server = TestServer::spawn(&mut command, folder.path());
    let supervisor = server.process_id().to_string();
    let workers = || {
        let debug = trail(folder.path()).into_iter().filter(|(_, level)| level == "DEBUG");
        debug.map(|(pid, _)| pid).filter(|pid| *pid != supervisor).collect::<BTreeSet<_>>().len()
    };
    until(|| workers() == 2).await;
    assert!(trail(folder.path()).contains(&(supervisor.clone(), "INFO".to_owned())));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(!server.log_file().contains("level=debug"), "the log has its own level");
}

#[test]
fn the_routes_are_printed_without_opening_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let routes = worker().run(folder.path(), &["routes", "--db_url", STORE], &[]);
    assert_eq!(routes.status.code(), Some(0));
    assert!(String::from_utf8(routes.stdout).unwrap().starts_with("/ping"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // The control: a subcommand of the app opens it.
    count(folder.path());
    assert!(folder.path().join("worker.sqlite").exists());
}

/// The faulty example as a command, without standard output.
pub fn faulty(folder: &Path, fault: &str) -> Command {
    let mut command = example("faulty").command(folder);
    let variables = [
        ("FAULT", fault),
        ("SERVER__SERVER__SHUTDOWN__DEADLINE", "300ms"),
        ("SERVER__STORE__URL", "memory:"),
    ];
    command.args(["--port", "0", "--host", "127.0.0.1"]).envs(variables);
    command
}

/// Whatever of the app never ends or panics at the end, the program ends by itself, names it, and does the rest.
#[test]
fn the_end_of_the_program_has_a_deadline_and_names_what_exceeds_it() {
    for (fault, named) in [
        ("none", ""),
        ("task blocks", "msg=\"a background task was dropped at the deadline\" task=beside"),
        ("end waits", "msg=\"work at the end was dropped at the deadline\" function=faulty::first_end"),
        ("end blocks", "msg=\"work at the end was dropped at the deadline\" function=faulty::first_end"),
        ("end panics", "msg=\"work at the end panicked\" function=faulty::first_end"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        // Its absence would be a warning.
        std::fs::create_dir_all(folder.path().join("views/static")).unwrap();
        let mut server = TestServer::spawn(&mut faulty(folder.path(), fault), folder.path());
        server.signal("TERM");
        let code = if fault == "none" { 0 } else { 3 };
        assert_eq!(server.wait(), Some(code), "{fault}");
        let log = server.log_file();
        assert!(log.contains(named) && log.contains("msg=stopped"), "{fault}: {log}");
        assert!(log.contains("the second end"), "{fault}: {log}");
        // The control: nothing is named where nothing fails.
        assert_eq!(log.contains("level=warn") || log.contains("level=error"), fault != "none", "{log}");
    }
}

#[test]
fn a_task_that_ends_before_the_drain_is_named_at_once() {
    for (fault, named) in
        [("task panics", "a background task panicked"), ("task ends", "a background task has ended")]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut server = TestServer::spawn(&mut faulty(folder.path(), fault), folder.path());
        let line = server.wait_for_line(named);
        assert!(line.contains("task=beside"), "{line}");
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn a_reload_during_a_start_does_not_tell_the_service_manager_that_the_server_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    // It starts a bit later than it waits; the control, with which the server is ready.
    for (fault, expected) in [("init waits", &[][..]), ("none", &["READY=1", "RELOADING=1", "READY=1"][..])] {
        let mut command = faulty(folder.path(), fault);
        let mut starting = command.env("NOTIFY_SOCKET", &path).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(starting.stderr.take().unwrap()).lines();
        let mut wait_for = |text: &str| assert!(lines.any(|line| line.unwrap().contains(text)), "{text}");
        let signal = |name: &str| {
            let sent = Command::new("kill").args([name, &starting.id().to_string()]).status().unwrap();
            assert!(sent.success());
        };
        wait_for(if fault == "none" { " listening " } else { "init waits" });
        signal("-HUP");
        wait_for("the levels of the log are as configured now");
        signal("-TERM");
        assert_eq!(starting.wait().unwrap().code(), Some(0));
        manager.set_nonblocking(true).unwrap();
        let mut told = Vec::new();
        let mut bytes = [0; 1024];
        while let Ok(length) = manager.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            told.extend(text.lines().next().map(str::to_owned));
        }
        told.retain(|told| told != "STOPPING=1");
        assert_eq!(told, expected, "{fault}");
    }
}

#[test]
fn a_signal_ends_a_start_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let mut starting = faulty(folder.path(), "init waits").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(starting.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("init waits")));
    let killed = Command::new("kill").args(["-TERM", &starting.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(lines.any(|line| line.unwrap().contains("stopped before it listened")));
    assert_eq!(starting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_subcommand_logs_as_the_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let checked = faulty(folder.path(), "none").arg("check").output().unwrap();
    assert_eq!(checked.status.code(), Some(0));
    assert!(String::from_utf8(checked.stderr).unwrap().contains("checked"));
    let log = std::fs::read_to_string(folder.path().join("logs/server.log")).unwrap();
    assert!(log.contains("level=error") && log.contains("msg=checked"), "{log}");
    assert!(!log.contains("the second end"), "{log}");
}

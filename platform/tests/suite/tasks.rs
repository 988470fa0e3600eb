//! Background tasks, subcommands and the end of the program: `examples/worker.rs` as a process.

use std::path::Path;

use platform::http::Routes;
use platform::store::{Dao, Entity, Filter};
use platform::testing::{Program, TestApp, TestServer, until};

/// The example, which cargo builds for every run of the tests.
fn worker() -> Program {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/worker");
    // `cargo test` builds it; `cargo test --test suite` does not.
    assert!(path.exists(), "missing: build it with `cargo build -p platform --example worker`");
    Program::new(path.to_str().unwrap().to_owned().leak())
}

const STORE: &str = "sqlite:worker.sqlite";

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

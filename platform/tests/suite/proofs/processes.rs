//! Four processes on one store: what each has added is in the sum.

use std::path::Path;
use std::process::{Child, Stdio};

use super::{Engine, create, ledger, remove, rounds};

const PROCESSES: u32 = 4;

/// A process that adds 1 to a counter, several times.
fn add(folder: &Path, url: &str, counter: &str, way: &str, times: u32) -> Child {
    let mut command = ledger().command(folder);
    command.args(["add", counter, way, &times.to_string(), &PROCESSES.to_string(), "--db_url", url]);
    command.stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().unwrap()
}

fn total(folder: &Path, url: &str, counter: &str) -> u32 {
    let output = ledger().run(folder, &["total", counter, "--db_url", url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// What four processes have added in this way, and what they should have.
async fn added(engine: Engine, way: &str, times: u32) -> (u32, u32) {
    let folder = tempfile::tempdir().unwrap();
    let url = engine.url(&folder);
    create(&url).await;
    let adding: Vec<Child> = (0..PROCESSES).map(|_| add(folder.path(), &url, "sum", way, times)).collect();
    let ended = tokio::task::spawn_blocking(|| {
        adding.into_iter().map(|child| child.wait_with_output().unwrap().status).collect::<Vec<_>>()
    });
    for status in ended.await.unwrap() {
        assert!(status.success(), "{way}: {status}, {}", log(folder.path()));
    }
    let sum = total(folder.path(), &url, "sum");
    remove(&url).await;
    (sum, PROCESSES * times)
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("logs/server.log")).unwrap_or_default()
}

async fn four_processes_add_up_exactly(engine: Engine) {
    for way in ["modify", "patch"] {
        let (sum, expected) = added(engine, way, rounds(100, 1000)).await;
        assert_eq!(sum, expected, "{way}");
    }
}

/// The control: a read and a write that nothing ties together. It cannot miss it: no process writes before all four have read
/// the counter at 0 (`meet` of the program), so the first writes of all four make 1 of it.
async fn a_write_that_expects_no_version_loses_additions(engine: Engine) {
    let (sum, expected) = added(engine, "blind", 100).await;
    assert!(sum < expected, "{sum} of {expected}");
}

proofs! {
    four_processes_add_up_exactly
    a_write_that_expects_no_version_loses_additions
}

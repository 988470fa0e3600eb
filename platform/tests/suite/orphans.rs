//! A supervisor that gets the children of others, as process 1 of a container does: it waits for them when they end, and
//! takes none for a worker.
//!
//! Here it is made the reaper of its descendants, which needs no root and no container.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use platform::testing::{TestServer, until};
use rustix::process::{getpid, set_child_subreaper};

use crate::tasks::example;

/// The folder of the server, for the process that becomes it.
const FOLDER: &str = "ORPHANS_FOLDER";

/// Starts two processes, one the child of the other, which write their ids into files.
const FAMILY: &str = "sleep 100 & echo $! >child; echo $$ >parent; exec sleep 100";

/// This test program once more, told by a variable to become the server instead of testing.
#[test]
fn a_process_becomes_a_server_that_gets_orphans() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    // Kept through `exec`.
    set_child_subreaper(Some(getpid())).unwrap();
    let mut family = Command::new("sh");
    family.args(["-c", FAMILY]).current_dir(folder).stdin(Stdio::null());
    let mut parent = family.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut server = example("busy").command(folder);
    let error = server.args(["--proc", "2", "--port", "0", "--host", "127.0.0.1"]).exec();
    // Only where it could not become the server.
    parent.kill().unwrap();
    parent.wait().unwrap();
    panic!("{error}");
}

/// The state of a process and its parent; `None` when there is no such process, not even a zombie.
fn state(process: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')').unwrap().1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The process whose id a file has.
async fn named(file: &Path) -> u32 {
    let read = || fs::read_to_string(file).ok()?.trim().parse().ok();
    until(|| read().is_some()).await;
    read().unwrap()
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
}

/// The processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let ids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let mut children: Vec<u32> =
        ids.filter(|process| state(*process).is_some_and(|(_, of)| of == parent)).collect();
    children.sort_unstable();
    children
}

#[tokio::test]
async fn a_supervisor_waits_for_orphans_and_takes_none_for_a_worker() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "orphans::a_process_becomes_a_server_that_gets_orphans", "--nocapture"]);
    let mut server = TestServer::spawn(command.env(FOLDER, folder.path()), folder.path());
    let supervisor = server.process_id();
    let [parent, child] =
        [named(&folder.path().join("parent")).await, named(&folder.path().join("child")).await];
    assert_eq!((state(parent).unwrap().1, state(child).unwrap().1), (supervisor, parent));
    let mut workers = children(supervisor);
    workers.retain(|process| *process != parent);
    assert_eq!(workers.len(), 2);

    // The child becomes an orphan, and then the supervisor's.
    kill(parent);
    until(|| state(parent).is_none()).await;
    until(|| state(child).unwrap().1 == supervisor).await;
    kill(child);
    until(|| state(child).is_none()).await;
    // The control: who is not waited for stays, as a zombie. It cannot miss it: nobody else may wait for a child of this process.
    let mut unawaited = Command::new("true").spawn().unwrap();
    until(|| state(unawaited.id()).unwrap().0 == 'Z').await;
    unawaited.wait().unwrap();

    assert_eq!(children(supervisor), workers);
    let ping = "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(server.connect().send(ping).read_response().starts_with("HTTP/1.1 200"));
    assert!(!server.log_file().contains("a worker has died"), "{}", server.log_file());
    // A worker is still known as one.
    kill(workers[0]);
    server.wait_for_line("a worker was replaced");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

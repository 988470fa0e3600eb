//! Workers, and the supervisor, that die or hang.

use std::time::Duration;

use super::clients::Clients;
use super::{is_alive, signal, start, until, workers};

#[test]
fn a_killed_worker_is_replaced_and_only_its_own_requests_fail() {
    const KILLS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "3", "");
    let clients = Clients::start(server.address);
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let old = workers(&server)[&2];
        signal("KILL", old.into());
        times.push(until(|| workers(&server)[&2] != old));
    }
    // The median: a machine under load is slow at times, but not most of the time.
    times.sort();
    assert!(times[KILLS / 2] < Duration::from_secs(1), "{times:?}");
    let most = clients.count() * KILLS;
    let (count, failed) = clients.stop();
    assert!(count > 0 && failed.len() <= most, "{} of {count} failed: {failed:#?}", failed.len());
}

#[test]
fn a_crash_loop_ends_the_supervisor_with_one_line_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "2", "server: {workers: {crash_limit: 3}}\n");
    // No new worker can open the store.
    std::fs::rename(folder.path().join("var"), folder.path().join("gone")).unwrap();
    std::fs::write(folder.path().join("var"), "").unwrap();
    signal("KILL", workers(&server)[&1].into());
    assert_eq!(server.wait(), Some(1));
    let all = workers(&server);
    assert!(all.values().all(|worker| !is_alive(*worker)), "{all:?}");
    let lines = server.remaining_lines();
    let name = format!("{}: worker 1 has died more than 3 times", env!("CARGO_PKG_NAME"));
    assert_eq!(lines.iter().filter(|line| line.starts_with(&name)).count(), 1, "{lines:#?}");
}

#[test]
fn workers_that_cannot_start_end_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("var"), "").unwrap();
    let output = crate::support::PROGRAM.run(folder.path(), &["--proc", "2", "--port", "0"], &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("did not start"), "{text}");
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), "2", "server: {workers: {hang_timeout: 2s}}\n");
    let old = workers(&server)[&1];
    signal("STOP", old.into());
    server.wait_for_line("a worker hangs");
    until(|| workers(&server)[&1] != old && !is_alive(old));
}

#[test]
fn the_workers_end_soon_after_their_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "server: {shutdown: {linger: 5m, deadline: 1h}}\nhttp: {header_timeout: 1h}\n";
    let mut server = start(folder.path(), "3", yaml);
    let mut connection = server.connect();
    connection.send("GET /ping HTTP/1.1\r\nHost: a\r\n");
    assert!(connection.is_quiet_for(Duration::from_millis(100)));
    let all = workers(&server);
    assert!(all.len() == 3 && all.values().all(|worker| is_alive(*worker)), "{all:?}");
    server.signal("KILL");
    server.wait();
    let time = until(|| all.values().all(|worker| !is_alive(*worker)));
    assert!(time < Duration::from_secs(5), "{time:?}");
}

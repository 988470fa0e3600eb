//! The jobs of the example, in several programs that share a folder of locks.

use std::collections::HashMap;
use std::path::Path;

use platform::testing::TestServer;
use tempfile::TempDir;

use crate::processes::until;
use crate::support::PROGRAM;

/// The times of the runs in a log, of the job that runs in every process or of the other one.
fn runs(log: &str, job: &str) -> Vec<String> {
    let lines =
        log.lines().filter(|line| line.contains("server.job") && line.contains(&format!("job={job}")));
    lines.map(|line| line.split("tick=").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn they_are_off_until_they_are_switched_on() {
    let mut server = PROGRAM.start(&["--db_url", "memory:"]);
    // The control: one that was started later, and in which they are on, has run them.
    let folder = tempfile::tempdir().unwrap();
    let on = start(folder.path(), &[]);
    until(|| runs(&on.log_file(), "example").len() > 1);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(!server.log_file().contains("server.job"), "{}", server.log_file());
}

/// A server in which they are on.
fn start(folder: &Path, locks: &[(&str, &str)]) -> TestServer {
    let mut command = PROGRAM.command(folder);
    command.args(["--port", "0", "--host", "127.0.0.1", "--db_url", "memory:"]);
    command.env("SERVER__APP__TIMEKEEPER__ENABLED", "true").envs(locks.iter().copied());
    TestServer::spawn(&mut command, folder)
}

#[test]
fn one_process_runs_the_concurrent_job_each_second_also_when_some_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    each_run_is_in_one_process(&[("SERVER__LOCK__DIR", folder.path().to_str().unwrap())]);
}

mod on_etcd {
    #[test]
    #[ignore = "needs etcd: make test-all"]
    fn one_process_runs_the_concurrent_job_each_second_also_when_some_are_killed() {
        let endpoint = std::env::var("TEST_ETCD_ENDPOINT")
            .expect("TEST_ETCD_ENDPOINT names no server; `make test-all` starts one");
        let (_, address) = endpoint.split_once("://").unwrap();
        let (host, port) = address.rsplit_once(':').unwrap();
        // Locks of its own.
        let prefix = format!("timekeeper-{}/", std::process::id());
        super::each_run_is_in_one_process(&[
            ("SERVER__LOCK__SERVER", "true"),
            ("SERVER__LOCK__HOST", host),
            ("SERVER__LOCK__PORT", port),
            ("SERVER__LOCK__ETCD__PREFIX", &prefix),
        ]);
    }
}

/// How often each time was run, by this job in all of these servers.
fn counts<'a>(servers: impl Iterator<Item = &'a (TestServer, TempDir)>, job: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for tick in servers.flat_map(|(server, _)| runs(&server.log_file(), job)) {
        *counts.entry(tick).or_default() += 1;
    }
    counts
}

/// Four servers, of which one is killed after every two runs. They share locks by these settings.
fn each_run_is_in_one_process(locks: &[(&str, &str)]) {
    const SINGLE: &str = "\"concurrent example\"";
    let start = || {
        let folder = tempfile::tempdir().unwrap();
        (start(folder.path(), locks), folder)
    };
    let mut servers: Vec<_> = (0..4).map(|_| start()).collect();
    let mut ended: Vec<(TestServer, TempDir)> = Vec::new();
    for kill in 1..=4 {
        until(|| counts(servers.iter().chain(&ended), SINGLE).len() >= 2 * kill);
        // The one that has run the last job is killed, and another one comes.
        let last = |server: &TestServer| runs(&server.log_file(), SINGLE).into_iter().max();
        let at = (0..servers.len()).max_by_key(|at| last(&servers[*at].0)).unwrap();
        servers[at].0.signal("KILL");
        servers[at].0.wait();
        ended.push(std::mem::replace(&mut servers[at], start()));
    }
    // The control: the other job runs in all processes. It cannot miss it: it waits for a time at which it did.
    until(|| counts(servers.iter(), "example").values().any(|runs| *runs >= 3));
    for (server, _) in &mut servers {
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
    let single = counts(servers.iter().chain(&ended), SINGLE);
    assert!(single.len() >= 8 && single.values().all(|runs| *runs == 1), "{single:?}");
}

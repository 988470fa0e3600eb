//! The jobs of the example, in several programs that share a folder of locks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use platform::testing::TestServer;

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
    std::thread::sleep(Duration::from_millis(1_500));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(!server.log_file().contains("server.job"), "{}", server.log_file());
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

/// Four servers, of which one is killed every 2.7 s. They share locks by these settings.
fn each_run_is_in_one_process(locks: &[(&str, &str)]) {
    let start = || {
        let folder = tempfile::tempdir().unwrap();
        let mut command = PROGRAM.command(folder.path());
        command.args(["--port", "0", "--host", "127.0.0.1", "--db_url", "memory:"]);
        command.env("SERVER__APP__TIMEKEEPER__ENABLED", "true").envs(locks.iter().copied());
        (TestServer::spawn(&mut command, folder.path()), folder)
    };
    let mut servers: Vec<_> = (0..4).map(|_| start()).collect();
    let (begun, mut ended) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(9) {
        std::thread::sleep(Duration::from_millis(2_700));
        // The one that has run the last job is killed, and another one comes.
        let last = |server: &TestServer| runs(&server.log_file(), "\"concurrent example\"").into_iter().max();
        let at = (0..servers.len()).max_by_key(|at| last(&servers[*at].0)).unwrap();
        servers[at].0.signal("KILL");
        servers[at].0.wait();
        ended.push(std::mem::replace(&mut servers[at], start()));
    }
    for (server, _) in &mut servers {
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
    let logs: Vec<String> = servers.iter().chain(&ended).map(|(server, _)| server.log_file()).collect();
    let mut single: HashMap<String, usize> = HashMap::new();
    let mut every = HashMap::new();
    for log in &logs {
        for tick in runs(log, "\"concurrent example\"") {
            *single.entry(tick).or_default() += 1;
        }
        for tick in runs(log, "example") {
            *every.entry(tick).or_default() += 1;
        }
    }
    assert!(single.values().all(|runs| *runs == 1), "{single:?}");
    // A job that ends at once is lost with its line only when its process is killed in that moment.
    assert!(single.len() >= 5, "{single:?}");
    // The control: the other job runs in all processes.
    assert!(every.values().any(|runs: &usize| *runs >= 3), "{every:?}");
}

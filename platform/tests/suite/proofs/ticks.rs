//! A job each second in two servers of four workers each: every time is run by one process at most, whatever is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use platform::testing::{PATIENCE, TestServer};
use tempfile::TempDir;

use super::rounds;
use crate::tasks::example;

type Variables = Vec<(&'static str, String)>;

/// The processes that have run each second, in the order of their effects.
fn effects(folder: &Path, job: &str) -> BTreeMap<u64, Vec<u32>> {
    let text = std::fs::read_to_string(folder.join(format!("effects.{job}"))).unwrap_or_default();
    let mut all = BTreeMap::<u64, Vec<u32>>::new();
    for line in text.lines() {
        let (tick, process) = line.split_once(' ').unwrap();
        all.entry(tick.parse().unwrap()).or_default().push(process.parse().unwrap());
    }
    all
}

struct Servers {
    /// Where all of them write the effects.
    shared: TempDir,
    locks: Variables,
    running: Vec<(TestServer, TempDir)>,
}

impl Servers {
    fn start(locks: Variables) -> Self {
        let mut servers = Self { shared: tempfile::tempdir().unwrap(), locks, running: Vec::new() };
        for _ in 0..2 {
            servers.start_one();
        }
        servers
    }

    fn start_one(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = example("ticker").command(folder.path());
        command.args(["--proc", "4", "--port", "0", "--host", "127.0.0.1"]);
        command.env("SERVER__APP__EFFECTS", self.shared.path().join("effects"));
        let locks = self.locks.iter().map(|(name, value)| (*name, value.as_str()));
        command.env("SERVER__LOCK__DIR", self.shared.path().join("locks")).envs(locks);
        self.running.push((TestServer::spawn(&mut command, folder.path()), folder));
    }

    fn effects(&self, job: &str) -> BTreeMap<u64, Vec<u32>> {
        effects(self.shared.path(), job)
    }

    /// Waits until so many more seconds were run. Returns the first and the last of them, and how many there were.
    fn watch(&self, seconds: u32) -> (u64, u64, usize) {
        let first = self.effects("guarded").last_key_value().map_or(0, |(tick, _)| tick + 1);
        let start = Instant::now();
        loop {
            let all = self.effects("guarded");
            let new: Vec<u64> = all.range(first..).map(|(tick, _)| *tick).collect();
            if new.len() > seconds as usize {
                return (new[0], new[new.len() - 1], new.len());
            }
            assert!(start.elapsed() < PATIENCE + Duration::from_secs(2) * seconds, "the job stands still");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the process that has run the job last, or its supervisor and with it all of that server, which is started
    /// again.
    fn kill(&mut self, supervisor: bool) {
        if supervisor {
            let (mut server, _folder) = self.running.remove(0);
            server.signal("KILL");
            server.wait();
            self.start_one();
            return;
        }
        let last = self.effects("guarded").into_values().next_back().unwrap();
        // It may have ended with its supervisor meanwhile.
        let _ = Command::new("kill").args(["-KILL", &last[0].to_string()]).status();
    }
}

/// Two servers with these locks: for a while without, then with kills.
fn every_second_is_run_once(locks: Variables) {
    let mut servers = Servers::start(locks);
    let seconds = rounds(6, 120);
    let (first, last, count) = servers.watch(seconds);
    let expected = usize::try_from(last - first + 1).unwrap();
    // The short run shares the machine with other tests, and a job that is late for more than its period is skipped.
    let enough = if seconds == 120 { expected * 99 / 100 } else { expected / 2 };
    assert!(count >= enough, "{count} of {expected}");
    for kill in 0..rounds(3, 12) {
        servers.watch(rounds(2, 10));
        servers.kill(kill % 3 == 2);
    }
    servers.watch(rounds(3, 10));
    // The control: the job that nothing guards runs in most of the eight processes. It cannot miss it: it waits for a second in
    // which they are all there and in time for it.
    let most = || servers.effects("unguarded").into_values().map(|runs| runs.len()).max();
    let start = Instant::now();
    while most() <= Some(4) {
        assert!(start.elapsed() < PATIENCE, "{:?}", most());
        std::thread::sleep(Duration::from_millis(50));
    }
    for (server, _) in &mut servers.running {
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0), "{}", server.log_file());
    }
    let twice: Vec<_> = servers.effects("guarded").into_iter().filter(|(_, runs)| runs.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn on_lock_files_every_second_is_run_once_whatever_is_killed() {
    every_second_is_run_once(Vec::new());
}

#[cfg(feature = "etcd")]
mod on_etcd {
    #[test]
    #[ignore = "needs etcd: make test-all"]
    fn every_second_is_run_once_whatever_is_killed() {
        let endpoint = crate::lock_contract::on_etcd::server();
        super::every_second_is_run_once(vec![
            ("SERVER__LOCK__SERVER", "true".to_owned()),
            ("SERVER__LOCK__ETCD__ENDPOINTS", format!("[\"{endpoint}\"]")),
            ("SERVER__LOCK__ETCD__PREFIX", format!("ticks-{}/", std::process::id())),
        ]);
    }
}

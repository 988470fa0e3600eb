//! A process that takes locks: this test program once more, told by a variable what to do instead of testing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use platform::lock::LockManager;
use serde_json::Value;

use super::{TestLocks, open, take};
use crate::proofs::pauses;

/// How often a child that counts takes the lock.
pub(super) const COUNT: usize = 20;

const ACTION: &str = "LOCK_CHILD_ACTION";
const SETTINGS: &str = "LOCK_CHILD_SETTINGS";
/// What its lines begin with, among those of the test program.
const MARK: &str = "child: ";

pub struct Child {
    process: Process,
    output: Option<Output>,
}

/// What a child prints.
pub struct Output(BufReader<ChildStdout>);

impl Output {
    /// The next line that the action prints; `None` when the child has ended.
    pub fn next_line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, text)) = line.trim_end().split_once(MARK) {
                return Some(text.to_owned());
            }
        }
    }
}

impl Child {
    /// Starts a process that performs the action with the locks of these settings.
    pub fn start(settings: &Value, action: &str) -> Self {
        Self::start_with(settings, action, &[])
    }

    /// The same with more variables.
    pub fn start_with(settings: &Value, action: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "lock_contract::child::a_process_takes_a_lock", "--nocapture"]);
        command.env(ACTION, action).env(SETTINGS, settings.to_string()).stdout(Stdio::piped());
        let mut process = command.envs(variables.iter().copied()).spawn().unwrap();
        let output = Some(Output(BufReader::new(process.stdout.take().unwrap())));
        Self { process, output }
    }

    /// The next line that the action prints.
    pub(super) fn read_line(&mut self) -> String {
        self.output.as_mut().unwrap().next_line().expect("the child has ended")
    }

    /// All that it prints from now on, for another thread.
    #[cfg(feature = "etcd")]
    pub fn take_output(&mut self) -> Output {
        self.output.take().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the end of its action.
    pub(super) fn wait(&mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn print(text: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{MARK}{text}").unwrap();
    out.flush().unwrap();
}

async fn act(locks: LockManager, action: &str) {
    match action.split_once(' ').unwrap_or((action, "")) {
        ("hold", _) => {
            let lease = take(&locks, "a").await;
            print(lease.fencing_token());
            std::future::pending::<()>().await;
        }
        ("count", path) => {
            for _ in 0..COUNT {
                let lease = take(&locks, "a").await;
                let text = std::fs::read_to_string(path).unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(1)).await;
                std::fs::write(path, format!("{text}{}\n", lease.fencing_token())).unwrap();
                lease.release().await.unwrap();
            }
        }
        ("watch", _) => {
            let lease = take(&locks, "a").await;
            loop {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                print(format!("{} {now}", lease.is_valid()));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        ("write", path) => pauses::write(locks, path, true, print).await,
        ("write-unguarded", path) => pauses::write(locks, path, false, print).await,
        _ => panic!("{action}"),
    }
}

#[tokio::test]
async fn a_process_takes_a_lock() {
    if let Ok(action) = std::env::var(ACTION) {
        let settings: Value = std::env::var(SETTINGS).unwrap().parse().unwrap();
        return act(open(&settings), &action).await;
    }
    // Where it is not a child, the test of the child.
    let locks = TestLocks::file();
    let mut child = Child::start(&locks.settings, "hold");
    assert_eq!(child.read_line(), "1");
    assert!(super::is_held(&locks.open(), "a").await);
    child.signal("TERM");
    assert!(!child.process.wait().unwrap().success());
}

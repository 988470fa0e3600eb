//! Holders of a lock that are paused for longer than its time to live, and go on as if they still had it. What they write
//! under the guard of their token damages nothing.

use platform::http::Routes;
use platform::lock::{LockManager, Wait};
use platform::store::{Dao, Entity, Expected, Patch};
use platform::testing::TestApp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The tokens of all who have written it, in the order of their writes.
#[derive(Deserialize, Serialize)]
struct History {
    claimed: u64,
    tokens: Vec<u64>,
}

impl Entity for History {
    const COLLECTION: &'static str = "histories";
}

const ID: &str = "one";

async fn open(store: &str) -> Dao<History> {
    // A busy disk is no reason to refuse a write.
    let settings = [("SERVER__STORE__URL", store), ("SERVER__STORE__TIMEOUT", "20s")];
    let app = TestApp::with_routes(Routes::new(), &settings).await;
    app.services().dao()
}

/// While this file is there, a writer stands still between its read and its write.
fn gate(store: &str) -> PathBuf {
    PathBuf::from(format!("{}.gate", store.trim_start_matches("sqlite:")))
}

/// What the process of a writer does, again and again: takes the lock, reads, works, and writes what it has read with its
/// token added.
pub async fn write(locks: LockManager, store: &str, guarded: bool, print: impl Fn(String)) {
    let histories = open(store).await;
    loop {
        // Who was paused while it waited gets an error.
        let Ok(Some(lease)) = locks.acquire("history", Wait::Forever).await else { continue };
        let token = lease.fencing_token();
        let guard = if guarded { histories.guarded(token) } else { histories.clone() };
        let outcome = async {
            // What it reads comes from a guarded write: from then on, nobody with an older token changes it.
            let claim = Patch::new().set("claimed", token);
            let mut history = guard.update(ID, Expected::Any, claim).await?.unwrap().value;
            print(format!("works {token}"));
            if gate(store).exists() {
                print(format!("stands {token}"));
                while gate(store).exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            history.tokens.push(token);
            guard.replace(ID, Expected::Any, &history).await
        };
        match outcome.await {
            Ok(_) => print(format!("wrote {token}")),
            Err(error) => print(format!("refused {token}: {}", error.reason())),
        }
        let _ = lease.release().await;
    }
}

#[cfg(feature = "etcd")]
mod on_etcd {
    use std::sync::mpsc::{self, Receiver};

    use platform::testing::PATIENCE;

    use super::super::rounds;
    use super::{History, ID, gate, open};
    use crate::lock_contract::TestLocks;
    use crate::lock_contract::child::Child;

    /// The lines of all writers, each with the number of its writer.
    fn lines_of(writers: &mut [Child]) -> Receiver<(usize, String)> {
        let (sender, lines) = mpsc::channel();
        for (number, writer) in writers.iter_mut().enumerate() {
            let (mut output, sender) = (writer.take_output(), sender.clone());
            std::thread::spawn(move || {
                while let Some(line) = output.next_line() {
                    if sender.send((number, line)).is_err() {
                        break;
                    }
                }
            });
        }
        lines
    }

    /// What a run has shown.
    #[derive(Debug, Default)]
    struct Seen {
        acknowledged: Vec<u64>,
        refused: usize,
        /// In the end.
        history: Vec<u64>,
    }

    /// Three writers, of which one after the other is paused in the middle of its work until another one has written. The gate
    /// keeps it there until it is paused, however long that takes.
    async fn run(action: &str, pauses: u32) -> Seen {
        let locks = TestLocks::etcd();
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", folder.path().join("store.sqlite").display());
        let histories = open(&store).await;
        histories.insert_with_id(ID, &History { claimed: 0, tokens: Vec::new() }).await.unwrap();
        let action = format!("{action} {store}");
        let mut writers: Vec<_> = (0..3).map(|_| Child::start(&locks.settings, &action)).collect();
        let lines = lines_of(&mut writers);
        let mut seen = Seen::default();
        // Waits for a line of this kind, of a writer for which this is true.
        let mut next = |kinds: &[&str], of: &dyn Fn(usize) -> bool| {
            loop {
                let (number, line) = lines.recv_timeout(PATIENCE).expect("the writers go on");
                if let Some(token) = line.strip_prefix("wrote ") {
                    seen.acknowledged.push(token.parse().unwrap());
                } else if line.starts_with("refused ") {
                    assert!(line.ends_with(": Stale"), "{line}");
                    seen.refused += 1;
                }
                if kinds.iter().any(|kind| line.starts_with(kind)) && of(number) {
                    return number;
                }
            }
        };
        for _ in 0..pauses {
            std::fs::write(gate(&store), "").unwrap();
            let sleeper = next(&["stands"], &|_| true);
            writers[sleeper].signal("STOP");
            std::fs::remove_file(gate(&store)).unwrap();
            // Its lease ends meanwhile.
            next(&["wrote"], &|number| number != sleeper);
            writers[sleeper].signal("CONT");
            next(&["wrote", "refused"], &|number| number == sleeper);
        }
        for writer in &mut writers {
            writer.kill();
        }
        while let Ok((_, line)) = lines.recv() {
            seen.acknowledged.extend(line.strip_prefix("wrote ").map(|token| token.parse::<u64>().unwrap()));
        }
        seen.history = histories.get(ID).await.unwrap().unwrap().value.tokens;
        seen
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs etcd: make test-all"]
    async fn guarded_writes_of_paused_holders_lose_nothing_and_come_in_the_order_of_their_tokens() {
        let seen = run("write", rounds(4, 30)).await;
        let lost: Vec<_> = seen.acknowledged.iter().filter(|token| !seen.history.contains(token)).collect();
        assert!(lost.is_empty(), "{lost:?} of {seen:?}");
        assert!(seen.history.is_sorted_by(|one, next| one < next), "{seen:?}");
        assert!(seen.refused > 0, "no holder was paused for long enough: {seen:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs etcd: make test-all"]
    async fn without_the_guard_writes_are_lost() {
        // It cannot miss it: a paused writer goes on after another one has written, and so writes what it has read before that.
        let seen = run("write-unguarded", 4).await;
        assert!(seen.acknowledged.iter().any(|token| !seen.history.contains(token)), "{seen:?}");
    }
}

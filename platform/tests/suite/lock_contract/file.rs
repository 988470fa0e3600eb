//! What only lock files have: the folder, the counter, and what other processes do with them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use platform::error::Kind;
use platform::lock::Wait;
use platform::testing::until;

use super::{TestLocks, is_held, open, settings, take};

/// The names in the folder of the locks.
fn files(locks: &TestLocks) -> Vec<String> {
    let entries = fs::read_dir(locks.folder.path().join("locks")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_folder_has_a_file_for_each_lock_that_is_held_and_no_more() {
    let locks = TestLocks::file();
    let opened = locks.open();
    assert!(!locks.folder.path().join("locks").exists(), "made before a lock is taken");
    let held = take(&opened, "held").await;
    for number in 0..50 {
        drop(take(&opened, &format!("job/{number}")).await);
    }
    assert_eq!(files(&locks), [".token", "held.lock"]);
    let text = fs::read_to_string(locks.folder.path().join("locks/held.lock")).unwrap();
    assert_eq!(text, format!("pid={} token=1 name=\"held\"\n", std::process::id()));
    drop(held);
    assert_eq!(files(&locks), [".token"]);
}

#[tokio::test]
async fn what_killed_holders_have_left_is_deleted_by_the_next_process() {
    let locks = TestLocks::file();
    let _held = take(&locks.open(), "held").await;
    let folder = locks.folder.path().join("locks");
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    for (name, time) in [("old", long_ago), ("held", long_ago), ("new", SystemTime::now())] {
        let file = fs::File::options().append(true).create(true).open(folder.join(format!("{name}.lock")));
        file.unwrap().set_modified(time).unwrap();
    }
    drop(take(&locks.open(), "another").await);
    assert_eq!(files(&locks), [".token", "held.lock", "new.lock"]);
    // What is left of a name does not keep anybody from it.
    assert!(!is_held(&locks.open(), "new").await);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_503_and_the_log_gets_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let dir = file.join("locks");
    let locks = open(&settings(dir.to_str().unwrap()));
    for error in [locks.acquire("a", Wait::Forever).await.unwrap_err(), locks.ping().await.unwrap_err()] {
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.cause().contains(dir.to_str().unwrap()), "{}", error.cause());
    }
    // It is used as soon as it can be.
    fs::remove_file(&file).unwrap();
    assert_eq!(take(&locks, "a").await.fencing_token(), 1);
    locks.ping().await.unwrap();
}

#[tokio::test]
async fn a_damaged_counter_stops_all_locks_and_never_starts_anew() {
    let locks = TestLocks::file();
    let opened = locks.open();
    drop(take(&opened, "a").await);
    let counter = locks.folder.path().join("locks/.token");
    for text in ["twelve\n", "18446744073709551615\n"] {
        fs::write(&counter, text).unwrap();
        let error = opened.acquire("a", Wait::No).await.unwrap_err();
        assert!(
            error.cause().contains(".token") && error.cause().contains("is not a token"),
            "{}",
            error.cause()
        );
        // The lock is not kept by the failure.
        fs::write(&counter, "41\n").unwrap();
        assert_eq!(take(&opened, "a").await.fencing_token(), 42);
    }
}

#[tokio::test]
async fn a_process_that_stands_still_with_the_counter_stops_others_for_3_s_and_not_for_ever() {
    let locks = TestLocks::file();
    let opened = locks.open();
    drop(take(&opened, "a").await);
    let counter = fs::File::open(locks.folder.path().join("locks/.token")).unwrap();
    counter.lock().unwrap();
    let start = Instant::now();
    let error = opened.acquire("a", Wait::No).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    drop(counter);
    // What was begun then ends without its caller, and unlocks.
    drop(take(&opened, "a").await);
}

#[tokio::test]
async fn a_child_process_does_not_keep_the_lock_of_its_parent() {
    let locks = TestLocks::file();
    let (one, other) = (locks.open(), locks.open());
    let lease = take(&one, "a").await;
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    lease.release().await.unwrap();
    assert!(!is_held(&other, "a").await);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_a_long_queue_lets_others_have_the_lock() {
    let locks = TestLocks::file();
    let (one, other) = (locks.open(), locks.open());
    let greedy: Vec<_> = (0..4)
        .map(|_| {
            let one = one.clone();
            tokio::spawn(async move {
                loop {
                    let lease = take(&one, "a").await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    drop(lease);
                }
            })
        })
        .collect();
    until(|| locks.folder.path().join("locks/a.lock").exists()).await;
    let start = Instant::now();
    for _ in 0..10 {
        drop(take(&other, "a").await);
    }
    // Each within nine turns of the others (lock/queue.rs): half a second.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(greedy.iter().all(|task| !task.is_finished()));
    greedy.iter().for_each(tokio::task::JoinHandle::abort);
}

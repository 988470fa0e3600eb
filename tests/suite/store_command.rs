//! `server store copy`, through the program.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use platform::testing::PATIENCE;

use crate::support::PROGRAM;

/// Several chunks.
const DOCUMENTS: usize = 1200;

/// Files of a store, as a person would write them.
fn write_documents(folder: &Path, collection: &str, count: usize) {
    let folder = folder.join(collection);
    fs::create_dir_all(&folder).unwrap();
    for at in 0..count {
        let token = if at % 2 == 0 { r#""token":5,"# } else { "" };
        let text = format!(
            r#"{{"id":"n{at:05}","version":3,{token}"body":{{"big":18446744073709551615,"a.b":[-0.0,{at}]}}}}"#
        );
        fs::write(folder.join(format!("n{at:05}.json")), text).unwrap();
    }
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = PROGRAM.run(folder, arguments, &[]);
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The files of a collection, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_copy_that_is_killed_goes_on_and_a_ring_of_copies_ends_equal() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_documents(&folder.join("a"), "tasks", DOCUMENTS);
    write_documents(&folder.join("a"), "of_an_older_release", 3);
    let mut copy = PROGRAM.command(folder);
    copy.args(["store", "copy", "file:a", "file:b"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut copy = copy.spawn().unwrap();
    let begun = Instant::now();
    // The first chunk is small.
    while !folder.join("b/tasks/n00010.json").exists() {
        assert!(begun.elapsed() < PATIENCE, "it does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert!(files(&folder.join("b/tasks")).len() < DOCUMENTS, "it was not killed in the middle");
    let (code, out, err) = run(folder, &["store", "copy", "file:a", "file:b"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("of_an_older_release") && !out.contains("DIFFERENT"), "{out}");
    let row = out.lines().find(|line| line.starts_with("tasks")).unwrap();
    let count = DOCUMENTS.to_string();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..3], [&count, &count], "{out}");
    #[cfg(feature = "sqlite")]
    {
        assert_eq!(run(folder, &["store", "copy", "file:b", "sqlite:c/c.sqlite"]).0, Some(0));
        assert_eq!(run(folder, &["store", "copy", "sqlite:c/c.sqlite", "file:d"]).0, Some(0));
        assert_eq!(files(&folder.join("d/tasks")), files(&folder.join("b/tasks")));
    }
}

#[test]
fn a_copy_that_cannot_be_done_says_why_and_shows_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_documents(&folder.join("a"), "tasks", 2);
    write_documents(&folder.join("b"), "tasks", 3);
    for (from, to, expected, why) in [
        ("file:none", "file:c", 2, "FROM: file:none does not exist"),
        ("file:a", "file:./a", 2, "FROM and TO are the same store"),
        ("memory:", "file:c", 2, "FROM: a store in memory"),
        ("file:a", "fiel:c", 2, "did you mean file:"),
        ("file:a", "redis://ada:hunter2@h/0", 2, "ada:***@h"),
        ("file:a", "file:b", 1, "the document \"n00002\" of tasks is not in FROM. Copy into an empty store"),
    ] {
        let (code, out, err) = run(folder, &["store", "copy", from, to]);
        assert_eq!((code, out.as_str()), (Some(expected), ""), "{err}");
        assert!(err.contains(why) && !err.contains("hunter2"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert!(!folder.join("c").exists() && !folder.join("none").exists());
    // The control: it can be done; and `store.url` is the store of the configuration.
    let (code, _, err) =
        run(folder, &["store", "copy", "file:a", "store.url", "--overwrite", "--db_url", "file:b"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(files(&folder.join("b/tasks")).len(), 2);
}

#[test]
fn a_signal_stops_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_documents(&folder.join("a"), "tasks", DOCUMENTS);
    let mut copy = PROGRAM.command(folder);
    copy.args(["store", "copy", "file:a", "file:b"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let copy = copy.spawn().unwrap();
    let begun = Instant::now();
    while !folder.join("b/tasks/n00010.json").exists() {
        assert!(begun.elapsed() < PATIENCE, "it does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    let pid = copy.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let Output { status, stderr, .. } = copy.wait_with_output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("stopped by SIGINT; the same command goes on where this one was"), "{stderr}");
    assert!(files(&folder.join("b/tasks")).len() < DOCUMENTS);
}

#[test]
fn a_migration_without_a_step_that_has_not_run_has_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = run(folder.path(), &["store", "migrate", "--db_url", "file:a"]);
    assert_eq!((code, out.as_str()), (Some(0), "nothing to do: every step has run\n"), "{err}");
    let (code, _, err) = run(folder.path(), &["store", "migrate", "--db_url", "fiel:a"]);
    assert_eq!(code, Some(2), "{err}");
}

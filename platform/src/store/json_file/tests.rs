//! What only this engine has: the content of files, damaged files, unfinished files and the lock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::super::Action;
use super::super::write::{Change, Expected};
use super::*;

const ITEMS: &Collection = &Collection::new("items", &[]);

async fn open(root: &Path, timeout: Duration) -> JsonFileStore {
    JsonFileStore::open(root.to_owned(), timeout).await.unwrap()
}

fn insert(id: &str) -> Write {
    let body = serde_json::from_value(json!({"name": "Ada", "born": 1815})).unwrap();
    Write::Insert(vec![Document { version: 1, ..Document::new(id.to_owned(), Arc::new(body), None) }])
}

const LONG_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_file_can_be_read_and_edited_by_hand() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    store.write(ITEMS, insert("ada")).await.unwrap();
    let path = root.path().join("items/ada.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("{\n  \"id\": \"ada\",\n  \"version\": 1,\n  \"body\": {\n    \"name\": \"Ada\","),
        "{text}"
    );
    fs::write(&path, text.replace("1815", "1816")).unwrap();
    let document = store.get(ITEMS, "ada").await.unwrap().unwrap();
    assert_eq!(document.fields["born"], 1816);
    // Notepad saves a file so.
    fs::write(&path, format!("\u{feff}{text}")).unwrap();
    let document = store.get(ITEMS, "ada").await.unwrap().unwrap();
    assert_eq!(document.fields["born"], 1815);
}

fn everything() -> Query {
    Query { filter: Filter::All, sort: super::super::Sort::by_id(), page: super::super::Page::all() }
}

fn delete(id: &str) -> Write {
    Write::Change { filter: Filter::id(id), expected: Expected::Any, change: Change::Delete }
}

#[tokio::test]
async fn a_damaged_file_is_left_out_and_can_be_deleted() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    store.write(ITEMS, insert("ada")).await.unwrap();
    let good = fs::read_to_string(root.path().join("items/ada.json")).unwrap();
    for (id, content) in
        [("half", &good[..20]), ("empty", ""), ("copy", &good), ("ada (1)", &good), ("Ada", &good)]
    {
        let path = root.path().join(format!("items/{id}.json"));
        fs::write(&path, content).unwrap();
        let ids = |found: Vec<Document>| found.into_iter().map(|found| found.id).collect::<Vec<_>>();
        assert_eq!(ids(store.find(ITEMS, everything()).await.unwrap()), ["ada"], "{id}");
        let first = Query { page: super::super::Page::first(10), ..everything() };
        assert_eq!(ids(store.find(ITEMS, first).await.unwrap()), ["ada"], "{id}");
        assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 1, "{id}");
        // Who must see all documents learns of it.
        let named = format!("items/{id}.json is damaged");
        let error = store.check_readable(ITEMS).await.unwrap_err();
        assert!(error.status() == 500 && error.cause().contains(&named), "{}", error.cause());
        if crate::file_name::safe(id) == id {
            let version = Write::Change {
                filter: Filter::id(id),
                expected: Expected::Version(1),
                change: Change::Delete,
            };
            let new = Document::new(id.to_owned(), Arc::default(), None);
            let upsert = Write::Upsert { filter: Filter::id(id), new };
            for call in [
                store.get(ITEMS, id).await.map(drop),
                store.write(ITEMS, version).await.map(drop),
                store.write(ITEMS, upsert).await.map(drop),
                store.guarded_write(ITEMS, delete(id), Some(1)).await.map(drop),
            ] {
                let error = call.unwrap_err();
                assert!(error.status() == 500 && error.cause().contains(&named), "{}", error.cause());
            }
            assert_eq!(store.write(ITEMS, insert(id)).await.unwrap_err().reason(), "Document Exists");
        }
        assert_eq!(store.write(ITEMS, delete(id)).await.unwrap().count, 1, "{id}");
        assert!(!path.exists(), "{id}");
        assert_eq!(store.write(ITEMS, delete(id)).await.unwrap().count, 0, "{id}");
        store.check_readable(ITEMS).await.unwrap();
    }
    // No other file can be named so.
    fs::write(root.path().join("items/notes.txt"), "").unwrap();
    fs::write(root.path().join("outside.json"), "").unwrap();
    for id in ["../outside", ".lock", "notes.txt", "..", "items/../ada"] {
        assert_eq!(store.write(ITEMS, delete(id)).await.unwrap().count, 0, "{id}");
    }
    assert!(root.path().join("outside.json").exists() && store.get(ITEMS, "ada").await.unwrap().is_some());
    // A folder or a circle of links in the place of a file cannot be deleted so, but the list is there.
    fs::create_dir(root.path().join("items/folder.json")).unwrap();
    std::os::unix::fs::symlink("circle.json", root.path().join("items/circle.json")).unwrap();
    for stray in ["README.txt", "._ada.json", ".#ada.json", ".ada.json.swp"] {
        fs::write(root.path().join("items").join(stray), "not a document").unwrap();
    }
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 1);
    store.write(ITEMS, delete("ada")).await.unwrap();
}

#[tokio::test]
async fn the_files_are_not_for_everybody() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    store.write(ITEMS, insert("one")).await.unwrap();
    // The journal of several, as a killed process leaves it.
    let several =
        Write::Insert(["a", "b"].map(|id| Document::new(id.to_owned(), Arc::default(), None)).into());
    store.write(ITEMS, several).await.unwrap();
    disk::put(&disk::RealDisk, root.path(), &[(".journal".to_owned(), vec![])]).unwrap();
    let mut seen = Vec::new();
    for folder in [root.path().to_owned(), root.path().join("items")] {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let mode = entry.metadata().unwrap().permissions().mode();
            if entry.path().is_file() {
                assert_eq!(mode & 0o137, 0, "{entry:?}: {mode:o}");
                seen.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    seen.sort();
    assert_eq!(seen, [".journal", ".lock", ".lock", "a.json", "b.json", "one.json"]);
}

#[tokio::test]
async fn a_file_written_by_hand_is_read_and_never_interpreted() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    store.write(ITEMS, insert("x")).await.unwrap();
    // The file adds one level around the fields.
    let nested = |levels: usize| format!("{}{{}}{}", r#"{"in":"#.repeat(levels - 2), "}".repeat(levels - 2));
    let reserved = r#"{"a":{"$serde_json::private::RawValue":"[1]"}}"#;
    for (body, damage) in [
        (nested(crate::json::MAX_DEPTH).as_str(), None),
        (&nested(crate::json::MAX_DEPTH + 1), Some("recursion limit exceeded")),
        (r#"{"a":1,"b":0.69999999999999996}"#, None),
        (r#"{"a":1,"a":2}"#, Some("/body/a: duplicate field `a`")),
        (reserved, Some("/body/a/$serde_json::private::RawValue: a key must not begin with")),
    ] {
        fs::write(root.path().join("items/x.json"), format!(r#"{{"id":"x","version":1,"body":{body}}}"#))
            .unwrap();
        match (store.get(ITEMS, "x").await, damage) {
            (Ok(found), None) => assert!(found.is_some(), "{body}"),
            (Err(error), Some(damage)) => {
                let cause = error.cause();
                assert_eq!(error.status(), 500);
                assert!(cause.contains(&format!("items/x.json is damaged: {damage}")), "{cause}");
            }
            (read, _) => panic!("{body}: {read:?}"),
        }
    }
}

#[tokio::test]
async fn unfinished_files_of_a_killed_writer_are_removed_at_the_start_unless_a_writer_is_active() {
    let root = tempfile::tempdir().unwrap();
    open(root.path(), LONG_TIMEOUT).await.write(ITEMS, insert("ada")).await.unwrap();
    let leftover = root.path().join("items/bob.json.unfinished");
    let foreign = root.path().join("foreign/x.unfinished");
    fs::create_dir(root.path().join("foreign")).unwrap();
    fs::write(&leftover, "{").unwrap();
    fs::write(&foreign, "{").unwrap();
    let lock = fs::File::open(root.path().join("items/.lock")).unwrap();
    lock.lock().unwrap();
    open(root.path(), LONG_TIMEOUT).await;
    assert!(leftover.exists(), "an active writer has lost its file");
    drop(lock);
    let store = open(root.path(), LONG_TIMEOUT).await;
    assert!(!leftover.exists());
    assert!(foreign.exists(), "a folder without a lock file is not a collection");
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 1);
}

#[tokio::test]
async fn a_write_behind_the_lock_of_another_process_fails_after_the_timeout() {
    let root = tempfile::tempdir().unwrap();
    let patient = open(root.path(), LONG_TIMEOUT).await;
    patient.write(ITEMS, insert("before")).await.unwrap();
    let store = open(root.path(), Duration::from_millis(100)).await;
    let lock = fs::File::open(root.path().join("items/.lock")).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    let error = store.write(ITEMS, insert("meanwhile")).await.unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(patient.get(ITEMS, "before").await.unwrap().is_some(), "a reader does not wait");
    drop(lock);
    patient.write(ITEMS, insert("after")).await.unwrap();
}

#[tokio::test]
async fn a_root_that_is_gone_takes_no_write_and_is_not_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("documents");
    let store = open(&root, LONG_TIMEOUT).await;
    store.write(ITEMS, insert("before")).await.unwrap();
    let aside = parent.path().join("aside");
    fs::rename(&root, &aside).unwrap();
    for write in [insert("lost"), Write::DeleteAll(Filter::All)] {
        let error = store.write(ITEMS, write).await.unwrap_err();
        assert!(error.status() == 503 && error.cause().contains("documents"), "{}", error.cause());
    }
    assert!(!root.exists());
    fs::rename(&aside, &root).unwrap();
    store.write(OTHERS, insert("after")).await.unwrap();
}

#[tokio::test]
async fn a_root_that_is_a_file_is_an_error_that_names_it() {
    let root = tempfile::NamedTempFile::new().unwrap();
    let error = JsonFileStore::open(root.path().to_owned(), LONG_TIMEOUT).await.err().unwrap();
    assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
}

#[tokio::test]
async fn only_a_guarded_document_has_a_token_in_its_file() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    store.write(ITEMS, insert("plain")).await.unwrap();
    let guarded = Document { version: 1, ..Document::new("guarded".to_owned(), Arc::default(), Some(7)) };
    store.guarded_write(ITEMS, Write::Insert(vec![guarded]), Some(7)).await.unwrap();
    let text = |id: &str| fs::read_to_string(root.path().join(format!("items/{id}.json"))).unwrap();
    assert!(text("guarded").contains("\"version\": 1,\n  \"token\": 7,\n"), "{}", text("guarded"));
    assert!(!text("plain").contains("token"), "{}", text("plain"));
}

const OTHERS: &Collection = &Collection::new("others", &[]);
const THIRD: &Collection = &Collection::new("third", &[]);

/// The journal of a killed process that had written one of two new files.
fn leave_journal(root: &Path) {
    let text = |id: &str| format!("{{\"id\":\"{id}\",\"version\":1,\"body\":{{}}}}");
    let journal =
        json!({"items": {"ada.json": text("ada"), "gone.json": null}, "others": {"bob.json": text("bob")}});
    fs::write(root.join("items/ada.json"), text("ada")).unwrap();
    fs::write(root.join(".journal"), journal.to_string()).unwrap();
}

async fn with_journal(root: &Path) -> JsonFileStore {
    let store = open(root, LONG_TIMEOUT).await;
    store.write(ITEMS, insert("gone")).await.unwrap();
    store.write(OTHERS, insert("before")).await.unwrap();
    // A write of several files creates the lock of the root.
    store.write(ITEMS, Write::DeleteAll(Filter::id("none"))).await.unwrap();
    leave_journal(root);
    store
}

async fn assert_completed(store: &JsonFileStore, root: &Path) {
    assert!(store.get(ITEMS, "ada").await.unwrap().is_some());
    assert!(store.get(ITEMS, "gone").await.unwrap().is_none());
    assert!(store.get(OTHERS, "bob").await.unwrap().is_some());
    assert!(!root.join(".journal").exists());
}

#[tokio::test]
async fn the_next_start_completes_what_a_killed_process_has_begun() {
    let root = tempfile::tempdir().unwrap();
    let store = with_journal(root.path()).await;
    fs::write(root.path().join(".journal.unfinished"), "{").unwrap();
    // A process that is writing: it may complete it itself.
    let lock = fs::File::open(root.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    open(root.path(), LONG_TIMEOUT).await;
    assert!(store.get(OTHERS, "bob").await.unwrap().is_none());
    drop(lock);
    let store = open(root.path(), LONG_TIMEOUT).await;
    assert_completed(&store, root.path()).await;
    assert!(!root.path().join(".journal.unfinished").exists());
    // A copy of the folder without the files that begin with a dot, except the journal.
    leave_journal(root.path());
    fs::remove_file(root.path().join(".lock")).unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    assert_completed(&store, root.path()).await;
}

#[tokio::test]
async fn the_next_write_to_one_of_its_collections_completes_it_first() {
    for write in [
        insert("new"),
        Write::DeleteAll(Filter::id("none")),
        Write::Change {
            filter: Filter::id("bob"),
            expected: Expected::Version(1),
            change: Change::Replace(Arc::default()),
        },
    ] {
        let root = tempfile::tempdir().unwrap();
        let store = with_journal(root.path()).await;
        store.write(OTHERS, write).await.unwrap();
        assert_completed(&store, root.path()).await;
    }
    let root = tempfile::tempdir().unwrap();
    let store = with_journal(root.path()).await;
    // A write of one file of another collection does not wait for it, and a batch does.
    store.write(THIRD, insert("new")).await.unwrap();
    assert!(root.path().join(".journal").exists());
    let require =
        |id: &str| Step { collection: OTHERS, id: id.to_owned(), action: Action::Require, token: None };
    let outcome = store.batch(vec![require("bob")]).await.unwrap();
    assert!(matches!(outcome, BatchOutcome::Committed(_)), "{outcome:?}");
    assert_completed(&store, root.path()).await;
}

#[tokio::test]
async fn a_damaged_journal_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let store = with_journal(root.path()).await;
    for damaged in ["{", "", r#"{"items": {"../x.json": null}}"#] {
        fs::write(root.path().join(".journal"), damaged).unwrap();
        let error = store.write(ITEMS, insert("x")).await.unwrap_err();
        assert_eq!(error.status(), 500, "{}", error.cause());
        assert!(error.cause().contains(".journal is damaged"), "{}", error.cause());
        let error = JsonFileStore::open(root.path().to_owned(), LONG_TIMEOUT).await.err().unwrap();
        assert!(error.to_string().contains(".journal is damaged"), "{error}");
    }
}

#[tokio::test]
async fn a_read_that_takes_too_long_is_unavailable_and_its_thread_ends() {
    let root = tempfile::tempdir().unwrap();
    open(root.path(), LONG_TIMEOUT).await.write(ITEMS, insert("ada")).await.unwrap();
    // A tenth of a second and more.
    let text = fs::read_to_string(root.path().join("items/ada.json")).unwrap();
    for number in 0..5_000 {
        let name = format!("a{number}");
        fs::write(
            root.path().join(format!("items/{name}.json")),
            text.replace("\"ada\"", &format!("\"{name}\"")),
        )
        .unwrap();
    }
    let store = open(root.path(), Duration::from_millis(10)).await;
    let count = store.count(ITEMS, Filter::All, None).await.unwrap_err();
    let find = store.find(ITEMS, everything()).await.unwrap_err();
    let page = Query { page: super::super::Page::first(5_000), ..everything() };
    let page = store.find(ITEMS, page).await.unwrap_err();
    for error in [count, find, page] {
        assert_eq!(error.status(), 503, "{error:?}");
    }
    let folder = store.root.folder(ITEMS).until(Instant::now());
    assert_eq!(folder.scan(&Filter::All).unwrap_err().status(), 503);
    assert_eq!(folder.first(&Filter::All, 10).unwrap_err().status(), 503);
    assert_eq!(folder.check_readable().unwrap_err().status(), 503);
    // The control.
    let store = open(root.path(), Duration::from_mins(1)).await;
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 5_001);
}

#[tokio::test]
async fn a_write_that_a_slow_disk_holds_up_is_unavailable_at_its_time_and_says_that_it_may_be_carried_out() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), Duration::from_millis(100)).await;
    let (disk_responds, disk) = std::sync::mpsc::channel();
    let held_up = store.change(move |_, _| disk.recv().map_err(Error::internal));
    let error =
        tokio::time::timeout(Duration::from_secs(30), held_up).await.expect("no deadline").unwrap_err();
    assert_eq!((error.status(), error.message()), (503, "It is not known whether this was carried out."));
    assert!(error.headers().is_empty(), "{:?}", error.headers());
    // It still keeps the others out, who know that they have written nothing.
    let error = store.write(ITEMS, insert("ada")).await.unwrap_err();
    assert_eq!((error.status(), error.headers()), (503, &[("retry-after", "1".to_owned())][..]));
    disk_responds.send(()).unwrap();
    drop(store.writers.lock().await);
    assert!(store.get(ITEMS, "ada").await.unwrap().is_none());
}

//! What only this engine has: the content of files, damaged files, unfinished files and the lock.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;

const ITEMS: &Collection = &Collection::new("items", &[]);

async fn open(root: &Path, timeout: Duration) -> JsonFileStore {
    JsonFileStore::open(root.to_owned(), timeout).await.unwrap()
}

fn insert(id: &str) -> Write {
    let body = serde_json::from_value(json!({"name": "Ada", "born": 1815})).unwrap();
    Write::Insert(vec![(id.to_owned(), Arc::new(body))])
}

const LONG_TIMEOUT: Duration = Duration::from_secs(5);

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

#[tokio::test]
async fn a_damaged_file_is_an_error_that_names_it_and_is_never_skipped() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), LONG_TIMEOUT).await;
    store.write(ITEMS, insert("ada")).await.unwrap();
    let good = fs::read_to_string(root.path().join("items/ada.json")).unwrap();
    for (name, content) in [("half.json", &good[..20]), ("empty.json", ""), ("copy.json", &good)] {
        let path = root.path().join("items").join(name);
        fs::write(&path, content).unwrap();
        let query =
            Query { filter: Filter::All, sort: super::super::Sort::by_id(), page: super::super::Page::all() };
        let error = store.find(ITEMS, query).await.unwrap_err();
        assert_eq!(error.status(), 500);
        assert!(error.cause().contains(&format!("items/{name} is damaged")), "{}", error.cause());
        fs::remove_file(path).unwrap();
    }
    for stray in ["README.txt", "._ada.json", ".#ada.json", ".ada.json.swp"] {
        fs::write(root.path().join("items").join(stray), "not a document").unwrap();
    }
    assert_eq!(store.count(ITEMS, Filter::All).await.unwrap(), 1);
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
    assert_eq!(store.count(ITEMS, Filter::All).await.unwrap(), 1);
}

#[tokio::test]
async fn a_write_behind_the_lock_of_another_process_fails_after_the_timeout() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path(), Duration::from_millis(100)).await;
    store.write(ITEMS, insert("before")).await.unwrap();
    let lock = fs::File::open(root.path().join("items/.lock")).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    let error = store.write(ITEMS, insert("meanwhile")).await.unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(store.get(ITEMS, "before").await.unwrap().is_some(), "a reader does not wait");
    drop(lock);
    store.write(ITEMS, insert("after")).await.unwrap();
}

#[tokio::test]
async fn a_root_that_is_a_file_is_an_error_that_names_it() {
    let root = tempfile::NamedTempFile::new().unwrap();
    let error = JsonFileStore::open(root.path().to_owned(), LONG_TIMEOUT).await.err().unwrap();
    assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
}

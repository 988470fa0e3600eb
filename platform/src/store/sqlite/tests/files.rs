//! The three files of a database: deleted, replaced, of somebody else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// The file beside the database with this suffix.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[tokio::test]
async fn a_file_that_was_deleted_or_replaced_takes_no_write_that_would_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("kept")).await.unwrap();
    let path = file(&folder);
    let aside = folder.path().join("aside.sqlite");
    fs::rename(&path, &aside).unwrap();
    let error = store.write(ITEMS, insert("lost")).await.unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(error.cause().contains("test.sqlite: it was deleted"), "{}", error.cause());
    fs::copy(&aside, &path).unwrap();
    let error = store.write(ITEMS, insert("lost")).await.unwrap_err();
    assert!(error.cause().contains("its path names another file now"), "{}", error.cause());
    assert!(store.get(ITEMS, "kept").await.unwrap().is_some(), "an open file can be read");
    fs::rename(&aside, &path).unwrap();
    store.write(ITEMS, insert("kept too")).await.unwrap();
}

#[tokio::test]
async fn a_log_that_was_deleted_or_replaced_takes_no_write_that_would_be_lost() {
    for suffix in ["-wal", "-shm"] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, 256).await;
        store.write(ITEMS, insert("kept")).await.unwrap();
        let path = beside(&file(&folder), suffix);
        let aside = folder.path().join("aside");
        // The control: with the three files there, it takes writes.
        store.write(ITEMS, insert("kept too")).await.unwrap();
        fs::rename(&path, &aside).unwrap();
        let error = store.write(ITEMS, insert("lost")).await.unwrap_err();
        assert_eq!(error.status(), 503);
        let expected = format!("test.sqlite: its {suffix} was deleted");
        assert!(error.cause().contains(&expected), "{}", error.cause());
        fs::copy(&aside, &path).unwrap();
        let error = store.write(ITEMS, insert("lost")).await.unwrap_err();
        assert!(error.cause().contains(&format!("its {suffix} was replaced")), "{}", error.cause());
        assert!(store.get(ITEMS, "kept").await.unwrap().is_some(), "open files can be read");
        fs::rename(&aside, &path).unwrap();
        store.write(ITEMS, insert("kept as well")).await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_stop_saves_what_a_deleted_log_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("kept")).await.unwrap();
    let alone = folder.path().join("alone.sqlite");
    fs::copy(&path, &alone).unwrap();
    fs::remove_file(beside(&path, "-wal")).unwrap();
    assert_eq!(store.write(ITEMS, insert("refused")).await.unwrap_err().status(), 503);
    store.close().await;
    let again = open(&folder, 256).await;
    assert_eq!(ids(&again, Filter::All, Sort::by_id()).await, ["kept"]);
    again.write(ITEMS, insert("new")).await.unwrap();
    // The control: the file alone, as `kill -9` leaves it, has nothing.
    let left = SqliteStore::open(alone.clone(), &settings(&alone, 256, "5s")).await.unwrap();
    assert_eq!(ids(&left, Filter::All, Sort::by_id()).await, [""; 0]);
}

#[tokio::test]
async fn a_writer_that_connects_again_goes_on_with_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let options = SqliteConnectOptions::new().filename(&path).journal_mode(SqliteJournalMode::Wal);
    let store = open(&folder, 256).await;
    store.prepare(ITEMS).await.unwrap();
    // Its first connection cannot write: BEGIN fails, and the connection is dropped.
    let broken = options.clone().read_only(true).connect().await.unwrap();
    let anchor = options.connect().await.unwrap();
    let writer = Writer::start([broken, anchor], options, store.file.clone(), &settings(&path, 1, "5s"));
    let error = writer.execute(Command::Write(ITEMS, insert("a"), None)).await.unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(error.cause().contains("readonly"), "{}", error.cause());
    // The control: the anchor alone keeps the log.
    store.close().await;
    writer.execute(Command::Write(ITEMS, insert("a"), None)).await.unwrap();
    writer.close().await;
    assert!(!beside(&path, "-wal").exists());
}

#[tokio::test]
async fn a_link_to_the_file_has_the_log_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real.sqlite");
    let link = folder.path().join("link.sqlite");
    std::os::unix::fs::symlink("real.sqlite", &link).unwrap();
    let store = SqliteStore::open(link.clone(), &settings(&link, 256, "5s")).await.unwrap();
    store.write(ITEMS, insert("a")).await.unwrap();
    assert!(real.exists() && beside(&real, "-wal").exists());
    fs::remove_file(beside(&real, "-wal")).unwrap();
    assert_eq!(store.write(ITEMS, insert("b")).await.unwrap_err().status(), 503);
}

/// Writes 3 MB while a reader stays open, and returns the store, the reader, and the log.
async fn with_a_reader(folder: &TempDir, limit: &str) -> (SqliteStore, SqliteConnection, PathBuf) {
    let path = file(folder);
    let mut settings = settings(&path, 256, "5s");
    settings.sqlite.wal_limit = serde_json::from_value(json!(limit)).unwrap();
    let store = SqliteStore::open(path.clone(), &settings).await.unwrap();
    store.write(ITEMS, insert("first")).await.unwrap();
    let mut reader = by_hand(&path).await;
    sqlx::query("BEGIN").execute(&mut reader).await.unwrap();
    sqlx::query("SELECT * FROM items").fetch_all(&mut reader).await.unwrap();
    for number in 0..30 {
        let large = new(&number.to_string(), json!({"text": "x".repeat(100_000)}));
        store.write(ITEMS, Write::Insert(vec![large])).await.unwrap();
    }
    (store, reader, beside(&path, "-wal"))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn a_log_that_has_grown_under_a_reader_is_emptied_when_the_reader_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut reader, log) = with_a_reader(&folder, "1MiB").await;
    assert!(size(&log) > 3_000_000, "{}", size(&log));
    sqlx::query("ROLLBACK").execute(&mut reader).await.unwrap();
    // Nobody writes any more.
    let begun = Instant::now();
    while size(&log) > 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", size(&log));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 31);
    // It waits for another process as before.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut reader).await.unwrap();
    let write = store.write(ITEMS, insert("meanwhile"));
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sqlx::query("ROLLBACK").execute(&mut reader).await.unwrap();
    };
    let (written, ()) = tokio::join!(write, release);
    written.unwrap();
}

#[tokio::test]
async fn below_its_limit_a_log_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut reader, log) = with_a_reader(&folder, "1GiB").await;
    sqlx::query("ROLLBACK").execute(&mut reader).await.unwrap();
    store.write(ITEMS, insert("a")).await.unwrap();
    store.write(ITEMS, insert("b")).await.unwrap();
    assert!(size(&log) > 3_000_000, "{}", size(&log));
}

#[tokio::test]
async fn the_three_files_are_not_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("a")).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let mode = fs::metadata(beside(&file(&folder), suffix)).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{suffix}: {mode:o}");
    }
}

//! What only this engine has: group commit, the use of indexes, and errors of its file.

mod deadlines;
mod files;

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::Connection;
use tempfile::TempDir;

use super::super::query::{Direction, Page, Sort, field};
use super::super::write::{Change, Expected};
use super::*;
use crate::json;

const ITEMS: &Collection = &Collection::new("items", &["city", "address.zip"]);
const OTHERS: &Collection = &Collection::new("others", &[]);

fn settings(path: &Path, group: u64, timeout: &str) -> Settings {
    let url = format!("sqlite:{}", path.display());
    let sqlite = json!({"connections": 2, "queue": 1000, "group": group, "wal_limit": "1MiB"});
    let (mongodb, postgres) = (json!({"connections": 1}), json!({"connections": 1}));
    let settings =
        json!({"url": url, "timeout": timeout, "sqlite": sqlite, "mongodb": mongodb, "postgres": postgres});
    serde_json::from_value(settings).unwrap()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("made/here/test.sqlite")
}

/// A connection of another program to the same file.
async fn by_hand(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

async fn open(folder: &TempDir, group: u64) -> SqliteStore {
    let path = file(folder);
    SqliteStore::open(path.clone(), &settings(&path, group, "5s")).await.unwrap()
}

fn new(id: &str, body: serde_json::Value) -> Document {
    Document::new(id.to_owned(), Arc::new(serde_json::from_value(body).unwrap()), None)
}

fn insert(id: &str) -> Write {
    Write::Insert(vec![new(id, json!({"city": "Paris"}))])
}

async fn commits_of_200_concurrent_inserts(group: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, group).await;
    store.prepare(ITEMS).await.unwrap();
    let before = store.writer.commits();
    let inserts = (0..200).map(|n| store.write(ITEMS, insert(&n.to_string())));
    for result in join_all(inserts).await {
        result.unwrap();
    }
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 200);
    store.writer.commits() - before
}

#[tokio::test]
async fn writes_that_wait_together_share_a_commit() {
    let commits = commits_of_200_concurrent_inserts(256).await;
    assert!(commits < 100, "{commits}");
}

#[tokio::test]
async fn without_grouping_each_write_has_a_commit_of_its_own() {
    assert_eq!(commits_of_200_concurrent_inserts(1).await, 200);
}

#[tokio::test]
async fn a_write_that_is_refused_does_not_affect_the_others_of_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("exists")).await.unwrap();
    let half = Write::Insert(vec![new("half", json!({})), new("exists", json!({}))]);
    let wrong_version = Write::Change {
        filter: Filter::id("exists"),
        expected: Expected::Version(9),
        change: Change::Delete,
    };
    let before = store.writer.commits();
    let writes = [insert("a"), half, insert("b"), wrong_version, insert("exists"), insert("c")];
    let results = join_all(writes.map(|write| store.write(ITEMS, write))).await;
    let reasons: Vec<_> = results.into_iter().map(|result| result.map_err(|error| error.reason())).collect();
    assert!(matches!(
        reasons[..],
        [Ok(_), Err("Document Exists"), Ok(_), Err("Version Conflict"), Err("Document Exists"), Ok(_)]
    ));
    assert!(store.writer.commits() - before < 6, "they were not in one group");
    let ids: Vec<String> = ids(&store, Filter::All, Sort::by_id()).await;
    assert_eq!(ids, ["a", "b", "c", "exists"]);
}

#[tokio::test]
async fn a_batch_that_is_refused_does_not_affect_the_others_of_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("exists")).await.unwrap();
    let batch = |ids: [&str; 2]| {
        let steps = ids.map(|id| {
            let action = super::super::Action::Insert(new(id, json!({})));
            Step { collection: ITEMS, id: id.to_owned(), action, token: None }
        });
        store.batch(steps.into())
    };
    let before = store.writer.commits();
    let (first, refused, second, done, third) = tokio::join!(
        store.write(ITEMS, insert("a")),
        batch(["half", "exists"]),
        store.write(ITEMS, insert("b")),
        batch(["c", "d"]),
        store.write(ITEMS, insert("exists")),
    );
    assert!(matches!(refused.unwrap(), BatchOutcome::Refused(1, _)));
    assert!(matches!(done.unwrap(), BatchOutcome::Committed(_)));
    assert!(first.is_ok() && second.is_ok() && third.is_err());
    assert!(store.writer.commits() - before < 5, "they were not in one group");
    assert_eq!(ids(&store, Filter::All, Sort::by_id()).await, ["a", "b", "c", "d", "exists"]);
}

async fn ids(store: &SqliteStore, filter: Filter, sort: Sort) -> Vec<String> {
    let query = Query { filter, sort, page: Page::all() };
    store.find(ITEMS, query).await.unwrap().into_iter().map(|document| document.id).collect()
}

async fn plan(store: &SqliteStore, filter: Filter, sort: Sort) -> String {
    store.prepare(ITEMS).await.unwrap();
    let mut sql = Sql::find(ITEMS, &Query { filter, sort, page: Page::first(10) });
    sql.text.insert_str(0, "EXPLAIN QUERY PLAN ");
    let rows = sql.query().fetch_all(&store.readers).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_declared_index_serves_the_filters_and_sorts_of_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    for filter in [
        field("city").eq("Paris"),
        field("city").eq(7),
        field("city").eq(0.5),
        field("city").eq(true),
        field("city").eq(None::<i64>),
        field("city").gt(7),
        field("city").starts_with("Par"),
        field("city").is_in(["Paris", "Rome"]),
        field("city").eq("Paris").and(field("country").eq("FR")),
    ] {
        let plan = plan(&store, filter.clone(), Sort::by_id()).await;
        assert!(plan.contains("SEARCH items USING INDEX items by city"), "{filter:?}: {plan}");
    }
    let nested = plan(&store, field("address.zip").eq("75001"), Sort::by_id()).await;
    assert!(nested.contains("items by address.zip"), "{nested}");
    // A page after a cursor begins in the middle of the index.
    let ascending = Sort::by("city", Direction::Ascending);
    let after = super::super::cursor::parts_after(&ascending, &[json!("Paris")], "x").remove(0);
    let after = plan(&store, after, ascending).await;
    assert!(after.starts_with("SEARCH items USING INDEX items by city (<expr>=? AND <expr>>?)"), "{after}");
    assert!(!after.contains("TEMP B-TREE"), "{after}");
    let sorted = plan(&store, Filter::All, Sort::by("city", Direction::Ascending)).await;
    assert_eq!(sorted, "SCAN items USING INDEX items by city");
    let both = plan(&store, field("city").eq("Paris"), Sort::by_id()).await;
    assert!(!both.contains("TEMP B-TREE"), "{both}");
    // The control: without an index, every document is read.
    let scan = plan(&store, field("country").eq("FR"), Sort::by("country", Direction::Ascending)).await;
    assert!(scan.contains("SCAN items") && scan.contains("TEMP B-TREE"), "{scan}");
}

#[tokio::test]
async fn every_connection_syncs_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.readers).await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.readers).await.unwrap();
    // 2 is FULL. The writer's connection has the same options.
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
    sqlx::query("CREATE TABLE x (y)").execute(&store.readers).await.unwrap_err();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "Dear diary, today I did not write a database. ".repeat(50)).unwrap();
    let error = SqliteStore::open(path.clone(), &settings(&path, 1, "1s")).await.err().unwrap();
    assert_eq!(error.to_string(), format!("store file {} is not an SQLite database", path.display()));
    let error =
        SqliteStore::open(folder.path().to_owned(), &settings(folder.path(), 1, "1s")).await.err().unwrap();
    assert!(error.to_string().ends_with(": it is a folder"), "{error}");
    let below = path.join("x.sqlite");
    let error = SqliteStore::open(below.clone(), &settings(&below, 1, "1s")).await.err().unwrap();
    assert!(error.to_string().contains("notes.txt/x.sqlite"), "{error}");
}

#[tokio::test]
async fn several_stores_can_open_a_new_file_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let stores = join_all((0..8).map(|_| open(&folder, 256))).await;
    let writes = stores.iter().enumerate().map(|(n, store)| store.write(ITEMS, insert(&n.to_string())));
    for result in join_all(writes).await {
        result.unwrap();
    }
    assert_eq!(stores[0].count(ITEMS, Filter::All, None).await.unwrap(), 8);
}

#[tokio::test]
async fn a_write_behind_the_lock_of_another_process_fails_after_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("held.sqlite");
    let store = SqliteStore::open(path.clone(), &settings(&path, 256, "200ms")).await.unwrap();
    store.write(ITEMS, insert("before")).await.unwrap();
    let mut other = by_hand(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let start = Instant::now();
    let error = store.write(ITEMS, insert("meanwhile")).await.unwrap_err();
    assert_eq!((error.status(), error.headers()), (503, &[("retry-after", "1".to_owned())][..]));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(store.get(ITEMS, "before").await.unwrap().is_some(), "a reader does not wait");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    // The writer may still wait in its last transaction.
    while store.write(ITEMS, insert("after")).await.is_err_and(|error| error.status() == 503) {}
    assert!(ids(&store, Filter::All, Sort::by_id()).await.contains(&"after".to_owned()));
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_before_its_transaction_began_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let store = Arc::new(SqliteStore::open(path.clone(), &settings(&path, 256, "60s")).await.unwrap());
    store.prepare(ITEMS).await.unwrap();
    let mut other = by_hand(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let [gone, stays] = ["gone", "stays"].map(|id| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.write(ITEMS, insert(id)).await })
    });
    // The writer has taken them from the queue, and waits for the lock.
    let queue = &store.writer.queue;
    tokio::task::yield_now().await;
    let begun = Instant::now();
    while queue.capacity() < queue.max_capacity() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it takes nothing from the queue");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    stays.await.unwrap().unwrap();
    assert_eq!(ids(&store, Filter::All, Sort::by_id()).await, ["stays"]);
}

#[tokio::test]
async fn a_write_that_has_begun_and_takes_too_long_says_that_it_may_be_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let store = SqliteStore::open(path.clone(), &settings(&path, 256, "3s")).await.unwrap();
    store.prepare(ITEMS).await.unwrap();
    let mut hand = by_hand(&path).await;
    // Some ten seconds.
    let slow =
        "CREATE VIEW slow AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000000)
                SELECT count(*) AS n FROM n;
                CREATE TRIGGER slow BEFORE INSERT ON items BEGIN SELECT n FROM slow; END";
    sqlx::raw_sql(slow).execute(&mut hand).await.unwrap();
    let error = store.write(ITEMS, insert("a")).await.unwrap_err();
    assert_eq!((error.status(), error.message()), (503, "It is not known whether this was carried out."));
    assert!(error.headers().is_empty(), "{:?}", error.headers());
    // The control: one that waits behind it has not begun, and never does.
    let error = store.write(ITEMS, insert("b")).await.unwrap_err();
    assert_eq!((error.status(), error.headers()), (503, &[("retry-after", "1".to_owned())][..]));
}

#[tokio::test]
async fn a_process_that_ends_waits_for_no_reader_of_another_one_and_holds_up_no_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let settings = settings(&path, 256, "60s");
    let [ends, goes_on] =
        [SqliteStore::open(path.clone(), &settings).await, SqliteStore::open(path.clone(), &settings).await]
            .map(Result::unwrap);
    ends.write(ITEMS, insert("a")).await.unwrap();
    let mut reader = by_hand(&path).await;
    sqlx::raw_sql("BEGIN; SELECT * FROM items").execute(&mut reader).await.unwrap();
    // What is in the log now cannot be moved into the file while that reads.
    goes_on.write(ITEMS, insert("b")).await.unwrap();
    let both = async { tokio::join!(ends.close(), goes_on.write(ITEMS, insert("c"))) };
    let ((), written) =
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("it waits for the reader");
    written.unwrap();
    assert_eq!(ids(&goes_on, Filter::All, Sort::by_id()).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn the_writer_goes_on_when_callers_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 4).await;
    for n in 0..50 {
        let id = n.to_string();
        let write = store.write(ITEMS, insert(&id));
        // Polled once, which queues it, and dropped.
        let _ = tokio::time::timeout(Duration::ZERO, write).await;
    }
    store.write(ITEMS, insert("last")).await.unwrap();
    assert!(store.get(ITEMS, "last").await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_file_fails_the_whole_group_and_the_writer_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.prepare(ITEMS).await.unwrap();
    // 40 pages of 4 KiB: enough for the tables, too small for the large document.
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("made/here/test.sqlite"))
        .pragma("max_page_count", "40");
    let both = [options.connect().await.unwrap(), options.connect().await.unwrap()];
    let writer = Writer::start(both, options, store.file.clone(), &settings(folder.path(), 256, "5s"));
    let large = Write::Insert(vec![new("large", json!({"text": "x".repeat(1_000_000)}))]);
    let group =
        [insert("a"), large, insert("b")].map(|write| writer.execute(Command::Write(ITEMS, write, None)));
    for result in join_all(group).await {
        let error = result.unwrap_err();
        assert_eq!(error.status(), 503);
        assert!(error.cause().contains("full"), "{}", error.cause());
    }
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 0);
    writer.execute(Command::Write(ITEMS, insert("after"), None)).await.unwrap();
    assert_eq!(ids(&store, Filter::All, Sort::by_id()).await, ["after"]);
}

#[tokio::test]
async fn a_closed_store_has_one_file_and_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("kept")).await.unwrap();
    store.close().await;
    let files: Vec<_> =
        std::fs::read_dir(folder.path().join("made/here")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["test.sqlite"]);
    assert_eq!(store.write(ITEMS, insert("late")).await.unwrap_err().status(), 503);
    assert_eq!(store.get(ITEMS, "kept").await.unwrap_err().status(), 503);
    assert_eq!(store.ping().await.unwrap_err().status(), 503);
    // `OTHERS` was not used before.
    for collection in [ITEMS, OTHERS] {
        let error = store.get(collection, "kept").await.unwrap_err();
        assert!(
            error.cause().starts_with("store file ") && error.cause().contains("test.sqlite: "),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_document_is_an_error_that_names_it_and_affects_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("good")).await.unwrap();
    let mut hand = by_hand(&file(&folder)).await;
    let insert = "INSERT INTO items (id, version, body) VALUES ('bad', 1, '[\"not an object\"]')";
    sqlx::query(insert).execute(&mut hand).await.unwrap();
    let error = store.get(ITEMS, "bad").await.unwrap_err();
    assert_eq!(error.status(), 500);
    assert!(error.cause().contains("items \"bad\" is damaged"), "{}", error.cause());
    assert!(store.get(ITEMS, "good").await.unwrap().is_some());
}

#[tokio::test]
async fn a_document_written_by_hand_is_read_and_never_interpreted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.prepare(ITEMS).await.unwrap();
    let mut hand = by_hand(&file(&folder)).await;
    let nested = |levels: usize| format!("{}{{}}{}", r#"{"in":"#.repeat(levels - 1), "}".repeat(levels - 1));
    let reserved = r#"{"a":{"$serde_json::private::RawValue":"[1]"}}"#;
    for (body, damage) in [
        (nested(json::MAX_DEPTH).as_str(), None),
        (&nested(json::MAX_DEPTH + 1), Some("recursion limit exceeded")),
        (r#"{"a":1,"b":0.69999999999999996}"#, None),
        (r#"{"a":1,"a":2}"#, Some("/a: duplicate field `a`")),
        (reserved, Some("/a/$serde_json::private::RawValue: a key must not begin with")),
    ] {
        sqlx::query("REPLACE INTO items (id, version, body) VALUES ('x', 1, ?)")
            .bind(body)
            .execute(&mut hand)
            .await
            .unwrap();
        match (store.get(ITEMS, "x").await, damage) {
            (Ok(found), None) => assert!(found.is_some(), "{body}"),
            (Err(error), Some(damage)) => {
                let cause = error.cause();
                assert_eq!(error.status(), 500);
                assert!(cause.contains(&format!("items \"x\" is damaged: {damage}")), "{cause}");
            }
            (read, _) => panic!("{body}: {read:?}"),
        }
    }
}

#[tokio::test]
async fn a_start_can_read_while_another_process_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    store.write(ITEMS, insert("kept")).await.unwrap();
    let path = file(&folder);
    let mut other = by_hand(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let second = SqliteStore::open(path.clone(), &settings(&path, 256, "200ms")).await.unwrap();
    assert!(second.get(ITEMS, "kept").await.unwrap().is_some());
    // The control: a write waits, and fails.
    assert_eq!(second.write(ITEMS, insert("meanwhile")).await.unwrap_err().status(), 503);
}

#[tokio::test]
async fn another_constraint_of_a_table_made_elsewhere_is_no_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, 256).await;
    let mut hand = by_hand(&file(&folder)).await;
    let table = "CREATE TABLE items (id TEXT PRIMARY KEY, version INTEGER, body TEXT, extra TEXT NOT NULL DEFAULT NULL)";
    sqlx::query(table).execute(&mut hand).await.unwrap();
    let error = store.write(ITEMS, insert("a")).await.unwrap_err();
    assert_eq!(error.status(), 500);
    assert!(error.cause().contains("NOT NULL constraint failed: items.extra"), "{}", error.cause());
}

/// Of nobody's table anything is changed, and the error names it.
#[tokio::test]
async fn a_table_that_is_not_one_of_documents_is_refused_and_left_alone() {
    const INDEXED: &Collection = &Collection::new("items", &["city"]).unique(&["code"]);
    for columns in
        ["token INTEGER, name TEXT", "id TEXT, version INTEGER, token INTEGER", "id TEXT, body TEXT"]
    {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, 256).await;
        let mut hand = by_hand(&file(&folder)).await;
        let table = format!("CREATE TABLE items ({columns})");
        sqlx::query(sqlx::AssertSqlSafe(table.as_str())).execute(&mut hand).await.unwrap();
        for collection in [ITEMS, INDEXED] {
            let prepared = store.prepare(collection).await;
            for error in [prepared.unwrap_err(), store.write(collection, insert("a")).await.unwrap_err()] {
                assert_eq!(error.status(), 500);
                assert!(error.cause().contains("the table \"items\" of this database"), "{}", error.cause());
            }
        }
        let left: Vec<String> =
            sqlx::query_scalar("SELECT sql FROM sqlite_schema").fetch_all(&mut hand).await.unwrap();
        assert_eq!(left, [table]);
    }
}

#[tokio::test]
async fn a_table_of_an_older_version_gets_its_column_also_when_several_start_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    drop(open(&folder, 256).await);
    let mut hand = by_hand(&path).await;
    let table =
        "CREATE TABLE items (id TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL)";
    sqlx::query(table).execute(&mut hand).await.unwrap();
    let insert_by_hand =
        |id: &str| format!("INSERT INTO items (id, version, body) VALUES ('{id}', 3, '{{}}')");
    sqlx::query(sqlx::AssertSqlSafe(insert_by_hand("old"))).execute(&mut hand).await.unwrap();
    let settings = settings(&path, 256, "5s");
    let stores = join_all((0..8).map(|_| SqliteStore::open(path.clone(), &settings))).await;
    let stores: Vec<SqliteStore> = stores.into_iter().map(Result::unwrap).collect();
    for found in join_all(stores.iter().map(|store| store.get(ITEMS, "old"))).await {
        let found = found.unwrap().unwrap();
        assert_eq!((found.version, found.token), (3, 0));
    }
    let replace = || Write::Change {
        filter: Filter::id("old"),
        expected: Expected::Any,
        change: Change::Replace(Arc::default()),
    };
    stores[0].guarded_write(ITEMS, replace(), Some(5)).await.unwrap();
    let error = stores[1].guarded_write(ITEMS, replace(), Some(4)).await.unwrap_err();
    assert_eq!(error.reason(), "Stale");
    // A process of the older version still runs.
    sqlx::query(sqlx::AssertSqlSafe(insert_by_hand("new"))).execute(&mut hand).await.unwrap();
    assert_eq!(stores[2].get(ITEMS, "new").await.unwrap().unwrap().token, 0);
}

#[test]
fn an_error_that_passes_says_when_to_try_again() {
    let error = store_error(sqlx::Error::PoolTimedOut);
    assert_eq!((error.kind(), error.headers()), (Kind::Unavailable, &[("retry-after", "1".to_owned())][..]));
    // The control: one that does not pass.
    let error = store_error(sqlx::Error::RowNotFound);
    assert_eq!((error.kind(), error.headers()), (Kind::Internal, &[][..]));
}

//! Reads that take too long.

use super::*;

/// Counts to a number; to 0, for ever.
fn count_to(end: u64) -> String {
    let end = if end == 0 { String::new() } else { format!(" LIMIT {end}") };
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{end}) SELECT count(*) AS n FROM n"
    )
}

async fn count(store: &SqliteStore, end: u64) -> Result<Vec<SqliteRow>> {
    let text = count_to(end);
    store.rows(sqlx::query(sqlx::AssertSqlSafe(text.as_str()))).await
}

#[tokio::test]
async fn a_read_ends_at_its_time_and_its_connection_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let store = SqliteStore::open(path.clone(), &settings(&path, 256, "200ms")).await.unwrap();
    store.write(ITEMS, insert("a")).await.unwrap();
    // More than there are connections.
    for _ in 0..5 {
        let start = Instant::now();
        let error = count(&store, 0).await.unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.cause().contains("test.sqlite"), "{error:?}");
        assert!((200..2_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
    // Their callers go away: the statements end all the same.
    for _ in 0..2 {
        assert!(tokio::time::timeout(Duration::from_millis(50), count(&store, 0)).await.is_err());
    }
    let start = Instant::now();
    while store.count(ITEMS, Filter::All, None).await.is_err() {
        // The driver gives up a connection whose statement goes on after 5 s.
        assert!(start.elapsed() < Duration::from_secs(3));
    }
    while store.readers.num_idle() < usize::try_from(store.readers.size()).unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    // The deadline of a read is not that of who has its connection next.
    assert_eq!(count(&store, 10).await.unwrap()[0].get::<i64, _>("n"), 10);
    for _ in 0..4 {
        let start = Instant::now();
        let text = count_to(5_000_000);
        let counted =
            sqlx::query(sqlx::AssertSqlSafe(text.as_str())).fetch_one(&store.readers).await.unwrap();
        assert_eq!(counted.get::<i64, _>("n"), 5_000_000);
        assert!(start.elapsed() > Duration::from_millis(200), "{:?}: count further", start.elapsed());
    }
    store.close().await;
}

/// The threads of this process whose names begin so: each connection has one, until it is closed.
fn threads(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

#[tokio::test]
async fn a_read_whose_caller_has_gone_away_is_interrupted_before_its_deadline() {
    let options = SqliteConnectOptions::new().filename(":memory:").thread_name(|n| format!("left-{n}"));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options);
    let text = count_to(0);
    let deadline = Instant::now() + Duration::from_hours(1);
    let read = reader::rows(&pool, sqlx::query(sqlx::AssertSqlSafe(text.as_str())), deadline);
    assert!(tokio::time::timeout(Duration::from_millis(300), read).await.is_err());
    let start = Instant::now();
    while threads("left-") > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "it is still read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_slow_by_the_way_out_takes_no_connection_from_the_dao_and_ends_at_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let store = SqliteStore::open(path.clone(), &settings(&path, 256, "3s")).await.unwrap();
    store.write(ITEMS, insert("a")).await.unwrap();
    let way_out = store.sqlite().unwrap();
    let text = count_to(0);
    // More than there are connections, and their callers go away.
    let slow = (0..6).map(|_| sqlx::query(sqlx::AssertSqlSafe(text.as_str())).fetch_all(&way_out));
    assert!(tokio::time::timeout(Duration::from_millis(300), join_all(slow)).await.is_err());
    assert_eq!((way_out.size(), way_out.num_idle()), (2, 0));
    for _ in 0..6 {
        assert!(store.get(ITEMS, "a").await.unwrap().is_some());
        store.ping().await.unwrap();
    }
    let start = Instant::now();
    while let Err(error) = sqlx::query("SELECT 1").fetch_one(&way_out).await {
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
    }
    // Readers that are all in use are no outage.
    let taken = [store.readers.acquire().await.unwrap(), store.readers.acquire().await.unwrap()];
    store.ping().await.unwrap();
    drop(taken);
    store.close().await;
}

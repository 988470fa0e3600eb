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

//! What waits for a lock, or for nobody, and what it takes away from others.

use super::*;

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn writes_that_wait_for_a_lock_leave_connections_to_reads_and_to_the_health_check() {
    let schema = TestSchema::new().await;
    let store = Arc::new(schema.open("60s"));
    store.write(ITEMS, insert("a")).await.unwrap();
    let mut hand = schema.by_hand().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM items FOR UPDATE").execute(&mut hand).await.unwrap();
    // More than there are connections, of all kinds.
    let writes: Vec<_> = (0..30)
        .map(|n| {
            let store = Arc::clone(&store);
            let change = Change::Replace(new("a", json!({"n": n})).fields);
            let filter = if n % 3 == 0 { Filter::id("a") } else { field("city").ne("Rome") };
            let step = Step {
                collection: ITEMS,
                id: "a".into(),
                action: super::super::super::Action::Change(Expected::Any, change.clone()),
                token: None,
            };
            let write = Write::Change { filter, expected: Expected::Any, change };
            tokio::spawn(async move {
                if n % 5 == 0 {
                    store.batch(vec![step]).await.map(drop)
                } else {
                    store.write(ITEMS, write).await.map(drop)
                }
            })
        })
        .collect();
    let in_use = || (store.0.pool.size() as usize).saturating_sub(store.0.pool.num_idle());
    let begun = Instant::now();
    while in_use() < 6 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} wait", in_use());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        assert!(store.get(ITEMS, "a").await.unwrap().is_some());
        store.ping().await.unwrap();
    }
    assert!(!writes.iter().any(tokio::task::JoinHandle::is_finished), "the reads have waited for a write");
    sqlx::raw_sql("ROLLBACK").execute(&mut hand).await.unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn what_is_slow_by_the_way_out_takes_no_connection_from_the_dao_nor_from_the_health_check() {
    let schema = TestSchema::new().await;
    let store = schema.open("60s");
    store.write(ITEMS, insert("a")).await.unwrap();
    let way_out = store.postgres().unwrap();
    // More than there are connections, and their callers go away.
    let slow = (0..12).map(|_| sqlx::query("SELECT pg_sleep(30)").execute(&way_out));
    while way_out.size() < 8 {
        let slow = futures_util::future::join_all(slow.clone());
        assert!(tokio::time::timeout(Duration::from_millis(500), slow).await.is_err());
    }
    let reads = async {
        assert!(store.get(ITEMS, "a").await.unwrap().is_some());
        store.ping().await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), reads)
        .await
        .expect("a read waits for what nobody waits for");
    // Connections that are all in use are no outage.
    let taken = futures_util::future::join_all((0..8).map(|_| store.0.checkout())).await;
    store.ping().await.unwrap();
    drop(taken);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_write_whose_caller_goes_away_while_it_waits_for_a_lock_is_not_executed() {
    let schema = TestSchema::new().await;
    let store = schema.open("60s");
    store.write(ITEMS, insert("a")).await.unwrap();
    let mut hand = schema.by_hand().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM items FOR UPDATE").execute(&mut hand).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut hand).await.unwrap();
    let waiting = format!("SELECT query FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))");
    let write = store.write(ITEMS, Write::DeleteAll(Filter::All));
    let until_it_waits = async {
        while schema.rows(&waiting).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        written = write => panic!("it did not wait: {written:?}"),
        () = until_it_waits => {}
    }
    let begun = Instant::now();
    while !schema.rows(&waiting).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it still waits");
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut hand).await.unwrap();
    assert!(store.get(ITEMS, "a").await.unwrap().is_some());
    schema.remove().await;
}

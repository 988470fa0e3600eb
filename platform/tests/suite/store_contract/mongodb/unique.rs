//! Unique paths and the pending documents of writes that have not ended.

mod on_mongodb {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use mongodb::bson::{Document, doc, oid::ObjectId};
    use mongodb::{Client, Database};
    use platform::error::Kind;
    use platform::store::{self, DocumentStore, Expected, Filter, field};
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::super::unique::{UNIQUE, accounts, assert_clash, of};
    use super::super::{database, remove, server, url};

    /// A database without a collection.
    async fn empty(folder: &TempDir) -> (String, Database) {
        let url = url(&server(), &database(folder));
        let database = Client::with_uri_str(&url).await.unwrap().default_database().unwrap();
        (url, database)
    }

    async fn open(url: &str) -> Arc<dyn DocumentStore> {
        let settings = json!({
            "url": url, "timeout": "1s", "mongodb": {"connections": 4}, "postgres": {"connections": 1},
            "sqlite": {"connections": 1, "queue": 1, "group": 1, "wal_limit": "16MiB"},
        });
        store::open(&serde_json::from_value(settings).unwrap(), 1).await.unwrap()
    }

    /// The id of a write that began this long ago.
    fn begun_before(age: Duration) -> ObjectId {
        let begun = SystemTime::now() - age;
        let seconds = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut bytes = ObjectId::new().bytes();
        bytes[..4].copy_from_slice(&u32::try_from(seconds).unwrap().to_be_bytes());
        ObjectId::from_bytes(bytes)
    }

    /// A pending document, as a process has left it that was killed before the end of its write.
    async fn leave(database: &Database, write: ObjectId, id: &str, email: &str) {
        let document = doc! {
            "_id": id, "version": 1_i64, "revision": ObjectId::new(), "body": { "email": email }, "pending": write,
        };
        database.collection::<Document>("accounts").insert_one(document).await.unwrap();
    }

    async fn commit(database: &Database, write: ObjectId) {
        database.collection("_writes").insert_one(doc! { "_id": write, "abandoned": false }).await.unwrap();
    }

    const LONG_AGO: Duration = Duration::from_hours(1);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs MongoDB: make test-all"]
    async fn what_a_killed_process_has_left_holds_its_value_only_if_it_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let (url, database) = empty(&folder).await;
        let store = open(&url).await;
        let accounts = accounts(&store);
        accounts.insert_with_id("own", &of("own@x")).await.unwrap();
        for step in 0..6 {
            let (abandoned, committed) = (format!("abandoned-{step}"), format!("committed-{step}"));
            leave(&database, begun_before(LONG_AGO), &format!("a{step}"), &abandoned).await;
            let write = begun_before(LONG_AGO);
            leave(&database, write, &format!("c{step}"), &committed).await;
            commit(&database, write).await;
            let (free, taken) = (of(abandoned), of(committed));
            let new = Filter::id(format!("new-{step}"));
            let none = field("email").eq("nobody@x");
            match step {
                0 => {
                    assert_clash(accounts.insert(&taken).await, "/email");
                    accounts.insert(&free).await.unwrap();
                }
                1 => {
                    assert_clash(accounts.insert_many(&[of("x"), taken]).await, "/email");
                    accounts.insert_many(&[of("x"), free]).await.unwrap();
                }
                2 => {
                    assert_clash(accounts.replace("own", Expected::Any, &taken).await, "/email");
                    accounts.replace("own", Expected::Any, &free).await.unwrap().unwrap();
                }
                3 => {
                    assert_clash(accounts.upsert(new.clone(), &taken).await, "/email");
                    accounts.upsert(new, &free).await.unwrap();
                }
                4 => {
                    assert_clash(accounts.upsert(none.clone(), &taken).await, "/email");
                    accounts.upsert(none, &free).await.unwrap();
                }
                // The document that was committed is what the upsert looks for.
                _ => {
                    let upserted = accounts.upsert(field("email").eq("committed-5"), &taken).await.unwrap();
                    assert_eq!((upserted.created, upserted.id.as_str()), (false, "c5"));
                }
            }
        }
        remove(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs MongoDB: make test-all"]
    async fn the_value_of_a_write_in_progress_is_neither_free_nor_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (url, database) = empty(&folder).await;
        let store = open(&url).await;
        let accounts = accounts(&store);
        accounts.insert_with_id("own", &of("own@x")).await.unwrap();
        let write = ObjectId::new();
        leave(&database, write, "p", "p@x").await;
        for error in [
            accounts.insert(&of("p@x")).await.unwrap_err(),
            accounts.insert_many(&[of("a"), of("p@x")]).await.unwrap_err(),
            accounts.replace("own", Expected::Any, &of("p@x")).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        }
        // It is taken as soon as the write is committed: also for the one who waits.
        let waiting = tokio::spawn({
            let accounts = accounts.clone();
            async move { accounts.insert(&of("p@x")).await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        commit(&database, write).await;
        assert_clash(waiting.await.unwrap(), "/email");
        assert_eq!(accounts.get_first(field("email").eq("p@x")).await.unwrap().unwrap().id, "p");
        remove(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs MongoDB: make test-all"]
    async fn a_path_becomes_unique_over_what_a_killed_process_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let (url, database) = empty(&folder).await;
        leave(&database, begun_before(LONG_AGO), "a", "same@x").await;
        leave(&database, begun_before(LONG_AGO), "b", "same@x").await;
        open(&url).await.prepare(&UNIQUE).await.unwrap();
        database.collection::<Document>("accounts").drop().await.unwrap();
        // Two writes in progress: one of them will end in some way, so this is not an error for ever.
        leave(&database, ObjectId::new(), "a", "same@x").await;
        leave(&database, ObjectId::new(), "b", "same@x").await;
        let error = open(&url).await.prepare(&UNIQUE).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        remove(&url).await;
    }
}

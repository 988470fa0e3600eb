//! What only MongoDB can show: outages, and what is left of a write when its process ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc, oid::ObjectId};
use platform::error::Kind;
use platform::store::{self, Direction, DocumentStore, Filter, Page, Sort, Stored, field};
use platform::testing::PATIENCE;
use serde_json::json;
use tempfile::TempDir;

use super::super::{Person, outages, people, person};
use super::{database, remove, server, url};
use crate::tcp_proxy::TcpProxy;

/// `store.timeout` of these tests.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How much longer than that a call may take.
const TOLERANCE: Duration = Duration::from_secs(1);
/// How soon after the return of the server calls succeed again.
const RECOVERY: Duration = Duration::from_secs(5);

/// The host and port of the server.
fn host() -> String {
    let server = server();
    let rest = server.split_once("://").unwrap().1;
    let hosts = rest.split(['/', '?']).next().unwrap();
    let host = hosts.rsplit('@').next().unwrap().split(',').next().unwrap();
    if host.contains(':') { host.to_owned() } else { format!("{host}:27017") }
}

/// The server's URL with the address of a proxy.
fn through(proxy: &TcpProxy, database: &str) -> String {
    let url = url(&server(), database).replace(&host(), &proxy.address.to_string());
    // Otherwise the driver would ask a replica set for its members, and go around the proxy.
    format!("{}directConnection=true", if url.ends_with('?') { url } else { url + "&" })
}

async fn open(url: &str) -> Arc<dyn DocumentStore> {
    let settings = json!({
        "url": url, "timeout": "1s", "mongodb": {"connections": 8}, "postgres": {"connections": 1},
        "sqlite": {"connections": 1, "queue": 1, "group": 1, "wal_limit": "16MiB"},
    });
    store::open(&serde_json::from_value(settings).unwrap(), 1).await.unwrap()
}

/// All methods of a store fail with 503 within the timeout.
async fn assert_unavailable(store: &Arc<dyn DocumentStore>) {
    let people = people(store);
    let ada = person("Ada", 36);
    let many = [ada.clone(), ada.clone()];
    let name = || field("name").eq("Ada");
    let begun = Instant::now();
    let (get, find, count, insert, insert_many, upsert, delete, ping) = tokio::join!(
        people.get("x"),
        people.get_all(Filter::all()),
        people.count(name()),
        people.insert(&ada),
        people.insert_many(&many),
        people.upsert(name(), &ada),
        people.delete_all(name()),
        store.ping(),
    );
    let took = begun.elapsed();
    for error in [
        get.err(),
        find.err(),
        count.err(),
        insert.err(),
        insert_many.err(),
        upsert.err(),
        delete.err(),
        ping.err(),
    ] {
        let error = error.unwrap();
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(took < TIMEOUT + TOLERANCE, "{took:?}");
}

async fn assert_recovers(store: &Arc<dyn DocumentStore>) {
    let begun = Instant::now();
    while let Err(error) = people(store).count(Filter::all()).await {
        assert!(begun.elapsed() < RECOVERY, "{error:?}");
    }
    assert!(begun.elapsed() < RECOVERY, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn a_server_that_is_down_at_the_start_is_used_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = TcpProxy::stopped(&host()).await;
    let begun = Instant::now();
    let store = open(&through(&proxy, &database(&folder))).await;
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    assert_unavailable(&store).await;
    assert_unavailable(&store).await;
    proxy.start().await;
    assert_recovers(&store).await;
    people(&store).insert(&person("Ada", 36)).await.unwrap();
    remove(&url(&server(), &database(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = TcpProxy::started(&host()).await;
    let store = open(&through(&proxy, &database(&folder))).await;
    let id = people(&store).insert(&person("Ada", 36)).await.unwrap();
    proxy.stop().await;
    assert_unavailable(&store).await;
    proxy.start().await;
    assert_recovers(&store).await;
    assert_eq!(people(&store).get(&id).await.unwrap().unwrap().value, person("Ada", 36));
    remove(&url(&server(), &database(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn a_frozen_server_costs_a_caller_no_more_than_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = TcpProxy::started(&host()).await;
    let url = through(&proxy, &database(&folder));
    let store = open(&url).await;
    people(&store).insert(&person("Ada", 36)).await.unwrap();
    // The control: the driver alone, with its own defaults, waits. It cannot miss it: through a frozen proxy no answer comes.
    let client = Client::with_uri_str(&url).await.unwrap();
    let collection = client.default_database().unwrap().collection::<Document>("people");
    collection.find_one(doc! {}).await.unwrap();
    proxy.freeze(true);
    assert_unavailable(&store).await;
    let found = tokio::time::timeout(TIMEOUT + TOLERANCE, collection.find_one(doc! {})).await;
    assert!(found.is_err(), "{found:?}");
    let begun = Instant::now();
    let closed = open(&url).await;
    assert_unavailable(&closed).await;
    closed.close().await;
    assert!(begun.elapsed() < TIMEOUT * 2 + TOLERANCE * 2, "{:?}", begun.elapsed());
    proxy.freeze(false);
    assert_recovers(&store).await;
    remove(&super::url(&server(), &database(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn a_password_is_in_no_error() {
    let proxy = TcpProxy::stopped(&host()).await;
    let store = open(&format!("mongodb://ada:hunter2@{}/x", proxy.address)).await;
    // Its errors are checked for the password there.
    assert_unavailable(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn an_app_that_a_variable_gives_its_store_responds_with_503_while_that_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = TcpProxy::stopped(&host()).await;
    let url = through(&proxy, &database(&folder));
    outages::check(("MONGODB_URI", &url), &mut proxy).await;
    remove(&self::url(&server(), &database(&folder))).await;
}

/// A database, and the driver's view of its collection `people`.
async fn raw(folder: &TempDir) -> (String, mongodb::Database) {
    let url = url(&server(), &database(folder));
    let client = Client::with_uri_str(&url).await.unwrap();
    let database = client.default_database().unwrap();
    (url, database)
}

/// Documents of a write as a process has left them that was killed before the end.
async fn leave(database: &mongodb::Database, write: ObjectId, ids: &[&str]) {
    let documents = ids.iter().map(|id| {
        let body = doc! { "name": "Ada", "age": 36_i64 };
        doc! { "_id": id, "version": 1_i64, "revision": ObjectId::new(), "body": body, "pending": write }
    });
    database.collection::<Document>("people").insert_many(documents).await.unwrap();
}

fn ids(found: Vec<Stored<Person>>) -> Vec<String> {
    found.into_iter().map(|stored| stored.id).collect()
}

/// The id of a write that began long ago.
fn old() -> ObjectId {
    let mut bytes = ObjectId::new().bytes();
    bytes[..4].copy_from_slice(&1_600_000_000_u32.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn what_a_killed_process_has_committed_becomes_visible_and_the_rest_never_does() {
    let folder = tempfile::tempdir().unwrap();
    let (url, database) = raw(&folder).await;
    let (committed, abandoned, in_progress) = (old(), old(), ObjectId::new());
    leave(&database, committed, &["c1", "c2"]).await;
    leave(&database, abandoned, &["a1", "a2"]).await;
    leave(&database, in_progress, &["p1", "p2"]).await;
    database.collection("_writes").insert_one(doc! { "_id": committed, "abandoned": false }).await.unwrap();
    let store = open(&url).await;
    let people = people(&store);
    assert_eq!(ids(people.get_all(Filter::all()).await.unwrap()), ["c1", "c2"]);
    assert!(people.get("p1").await.unwrap().is_none());
    // The id of an abandoned document is free.
    people.insert_with_id("a1", &person("Bob", 20)).await.unwrap();
    // That of a document in progress is neither free nor taken.
    let error = people.insert_with_id("p1", &person("Bob", 20)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(people.delete_all(Filter::all()).await.unwrap(), 3);
    let left = database.collection::<Document>("people").count_documents(doc! {}).await.unwrap();
    assert_eq!(left, 2);
    remove(&url).await;
}

/// As `leave`, by a process that has been committing the write, and has made one of two documents visible.
async fn leave_halfway(database: &mongodb::Database, ids: [&str; 2]) {
    let write = ObjectId::new();
    leave(database, write, &ids).await;
    database.collection("_writes").insert_one(doc! { "_id": write, "abandoned": false }).await.unwrap();
    let shown = doc! { "$unset": { "pending": "" } };
    database.collection::<Document>("people").update_one(doc! { "_id": ids[0] }, shown).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn a_read_in_the_middle_of_a_write_sees_all_of_it_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (url, database) = raw(&folder).await;
    let store = open(&url).await;
    let people = people(&store);
    people.insert_with_id("z", &person("Zoe", 1)).await.unwrap();
    leave(&database, ObjectId::new(), &["a1", "a2"]).await;
    // Pending documents take no room of a page.
    let by_name = Sort::by("name", Direction::Ascending);
    let page = people.page(Filter::all(), by_name, Page::first(1)).await.unwrap();
    assert_eq!((page.total, ids(page.items)), (1, vec!["z".to_owned()]));
    assert_eq!(ids(people.get_all(Filter::all()).await.unwrap()), ["z"]);
    assert!(!people.exists(field("name").eq("Ada")).await.unwrap());
    // What a killed process has left long ago is deleted by the first read that meets it.
    leave(&database, old(), &["o1", "o2"]).await;
    assert_eq!(people.count(Filter::all()).await.unwrap(), 1);
    let left = doc! { "_id": { "$in": ["o1", "o2"] } };
    assert_eq!(database.collection::<Document>("people").count_documents(left).await.unwrap(), 0);
    // The control of the test: without a look at the records, one of the two would be seen.
    leave_halfway(&database, ["b1", "b2"]).await;
    assert_eq!(people.count(field("name").eq("Ada")).await.unwrap(), 2);
    leave_halfway(&database, ["c1", "c2"]).await;
    assert_eq!(ids(people.get_all(Filter::all()).await.unwrap()), ["b1", "b2", "c1", "c2", "z"]);
    leave_halfway(&database, ["d1", "d2"]).await;
    let none = people.get_page_after(field("name").eq("Ada"), Some("d1"), 9).await.unwrap();
    assert_eq!(ids(none.items), ["d2"]);
    remove(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MongoDB: make test-all"]
async fn a_caller_that_goes_away_leaves_all_documents_of_an_insert_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (url, database) = raw(&folder).await;
    let store = open(&url).await;
    let people = people(&store);
    people.count(Filter::all()).await.unwrap();
    let mut before = 0;
    for delay in (0..40).map(Some).chain([None]) {
        let many: Vec<_> = (0..20).map(|age| person("Ada", age)).collect();
        // The last one has all the time that it needs.
        let time = delay.map_or(PATIENCE, |delay| Duration::from_micros(delay * 250));
        let given_up = tokio::time::timeout(time, people.insert_many(&many)).await;
        let pending = || async {
            let left = doc! { "pending": { "$exists": true } };
            database.collection::<Document>("people").count_documents(left).await.unwrap()
        };
        let begun = Instant::now();
        // A dropped insert may have reached the server after its documents were deleted: those stay invisible.
        while pending().await > 0 && begun.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let count = people.count(Filter::all()).await.unwrap();
        assert!(count == before || count == before + 20, "{count} after {before}");
        assert!(given_up.is_err() || count == before + 20);
        before = count;
    }
    assert!(before > 0);
    remove(&url).await;
}

//! What only PostgreSQL can show: outages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use platform::error::Kind;
use platform::store::{self, DocumentStore, Filter, Patch, field};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;

use super::super::{outages, people, person};
use super::{create, remove, schema, server, url};
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
    let address = rest.split(['/', '?']).next().unwrap();
    let host = address.rsplit('@').next().unwrap();
    if host.contains(':') { host.to_owned() } else { format!("{host}:5432") }
}

/// A schema, and its URL with the address of a proxy.
async fn through(proxy: &TcpProxy, folder: &TempDir) -> String {
    let url = url(&server(), &schema(folder));
    create(&url).await;
    url.replace(&host(), &proxy.address.to_string())
}

async fn open(url: &str) -> Arc<dyn DocumentStore> {
    let settings = json!({
        "url": url, "timeout": "1s", "mongodb": {"connections": 1}, "postgres": {"connections": 4},
        "sqlite": {"connections": 1, "queue": 1, "group": 1, "wal_limit": "16MiB"},
    });
    store::open(&serde_json::from_value(settings).unwrap(), 1).await.unwrap()
}

/// All methods of a store fail with 503 within the timeout, also when there are more callers than connections.
async fn assert_unavailable(store: &Arc<dyn DocumentStore>) {
    let people = people(store);
    let ada = person("Ada", 36);
    let many = [ada.clone(), ada.clone()];
    let name = || field("name").eq("Ada");
    let patch = || Patch::new().set("age", 1);
    let begun = Instant::now();
    let (get, find, count, insert, insert_many, upsert, update, delete, ping) = tokio::join!(
        people.get("x"),
        people.get_all(Filter::all()),
        people.count(name()),
        people.insert(&ada),
        people.insert_many(&many),
        people.upsert(name(), &ada),
        people.update_first(name(), patch()),
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
        update.err(),
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
    // Every connection, not only the first one.
    let (people, eve) = (people(store), person("Eve", 1));
    for result in futures_util::future::join_all((0..16).map(|_| people.insert(&eve))).await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_server_that_is_down_at_the_start_is_used_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = TcpProxy::stopped(&host()).await;
    let through = through(&proxy, &folder).await;
    let begun = Instant::now();
    let store = open(&through).await;
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    assert_unavailable(&store).await;
    assert_unavailable(&store).await;
    proxy.start().await;
    assert_recovers(&store).await;
    people(&store).insert(&person("Ada", 36)).await.unwrap();
    remove(&url(&server(), &schema(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = TcpProxy::started(&host()).await;
    let store = open(&through(&proxy, &folder).await).await;
    let id = people(&store).insert(&person("Ada", 36)).await.unwrap();
    proxy.stop().await;
    assert_unavailable(&store).await;
    proxy.start().await;
    assert_recovers(&store).await;
    assert_eq!(people(&store).get(&id).await.unwrap().unwrap().value, person("Ada", 36));
    // Idle connections that break are replaced without an error of a caller.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    proxy.stop().await;
    proxy.start().await;
    people(&store).insert(&person("Ada", 36)).await.unwrap();
    remove(&url(&server(), &schema(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_frozen_server_costs_a_caller_no_more_than_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = TcpProxy::started(&host()).await;
    let through = through(&proxy, &folder).await;
    let store = open(&through).await;
    people(&store).insert(&person("Ada", 36)).await.unwrap();
    // The control: the driver's pool alone, with its own defaults, waits. It cannot miss it: through a frozen proxy no answer comes.
    let pool = PgPoolOptions::new().max_connections(1).connect(&through).await.unwrap();
    proxy.freeze(true);
    assert_unavailable(&store).await;
    assert_unavailable(&store).await;
    let one = sqlx::query("SELECT 1").fetch_one(&pool);
    let found = tokio::time::timeout(TIMEOUT + TOLERANCE, one).await;
    assert!(found.is_err(), "the pool alone has not waited");
    let begun = Instant::now();
    let closed = open(&through).await;
    assert_unavailable(&closed).await;
    closed.close().await;
    assert!(begun.elapsed() < TIMEOUT * 2 + TOLERANCE * 2, "{:?}", begun.elapsed());
    proxy.freeze(false);
    assert_recovers(&store).await;
    remove(&url(&server(), &schema(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn connections_that_were_lost_without_a_sign_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = TcpProxy::started(&host()).await;
    let store = open(&through(&proxy, &folder).await).await;
    // All connections of the pool.
    assert_recovers(&store).await;
    // As a server that lost its power, and has been replaced by another one.
    proxy.lose_connections();
    let begun = Instant::now();
    // As many callers as connections: none of these may be left in the pool.
    let counts =
        (0..4).map(|_| async { people(&store).count(Filter::all()).await.map_err(|error| error.kind()) });
    let results = futures_util::future::join_all(counts).await;
    assert!(results.iter().all(|result| *result == Err(Kind::Unavailable)), "{results:?}");
    assert_recovers(&store).await;
    assert!(begun.elapsed() < RECOVERY, "{:?}", begun.elapsed());
    remove(&url(&server(), &schema(&folder))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_password_is_in_no_error() {
    let proxy = TcpProxy::stopped(&host()).await;
    let store = open(&format!("postgres://ada:hunter2@{}/x", proxy.address)).await;
    // Its errors are checked for the password there.
    assert_unavailable(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn an_app_that_a_variable_gives_its_store_responds_with_503_while_that_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = TcpProxy::stopped(&host()).await;
    let through = through(&proxy, &folder).await;
    outages::check(("DATABASE_URL", &through), &mut proxy).await;
    remove(&url(&server(), &schema(&folder))).await;
}

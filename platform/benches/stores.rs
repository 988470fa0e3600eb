//! What the DAO costs over the bare driver, and what a large collection costs over a small one. All figures are ratios of
//! two things measured in turns in this run; nothing is asserted.
//!
//! * **Driver**: CPU time of this process for each operation, by the DAO and by the driver alone, which does the same round
//!   trip and reads the same JSON. PostgreSQL and MongoDB, where `TEST_POSTGRES_URL` and `TEST_MONGODB_URI` name them.
//! * **Group commit**: durable inserts into SQLite by 64 tasks, and by one transaction after the other.
//! * **Growth**: the median time of a read by id, of a filter with an index and of a page in the middle, with
//!   `BENCH_DOCUMENTS` documents (1,000,000) over the same with 1,000. SQLite and PostgreSQL.
//!
//! `make bench-stores` starts the servers and runs it.

#![expect(clippy::print_stdout, reason = "the table is the product of this program")]
#![expect(clippy::cast_precision_loss, reason = "nanoseconds and counts, far below 2^52")]
#![expect(clippy::unwrap_used, reason = "a program for the terminal: a failure ends it")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::doc;
use platform::store::Direction::Ascending;
use platform::store::{self, Dao, DocumentStore, Entity, Filter, Sort, field};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// Documents of one insert.
const CHUNK: u64 = 5_000;
/// Rounds of each measurement; the result is the median of their ratios.
const ROUNDS: usize = 7;
/// Operations in a round.
const OPERATIONS: u64 = 500;
/// Reads of each kind whose median is taken.
const READS: u64 = 400;

#[derive(Debug, Deserialize, Serialize)]
struct Item {
    number: u64,
    city: String,
    text: String,
}

impl Entity for Item {
    const COLLECTION: &'static str = "items";
    const INDEXES: &'static [&'static str] = &["city", "number"];
}

fn item(number: u64) -> Item {
    Item { number, city: format!("City {}", number / 5), text: "x".repeat(200) }
}

fn id(number: u64) -> String {
    format!("{number:032x}")
}

#[tokio::main]
async fn main() {
    let documents = std::env::var("BENCH_DOCUMENTS").map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir_in(".").unwrap();
    group_commit(&folder.path().join("group.sqlite").display().to_string()).await;
    let postgres = std::env::var("TEST_POSTGRES_URL").ok();
    match &postgres {
        Some(url) => over_postgres(url).await,
        None => println!("PostgreSQL: NOT RUN, TEST_POSTGRES_URL names no server"),
    }
    match std::env::var("TEST_MONGODB_URI") {
        Ok(url) => over_mongodb(&url).await,
        Err(_) => println!("MongoDB: NOT RUN, TEST_MONGODB_URI names no server"),
    }
    let file =
        |documents: u64| format!("sqlite:{}", folder.path().join(format!("{documents}.sqlite")).display());
    growth("SQLite", &file(1_000), &file(documents), documents).await;
    if let Some(url) = postgres {
        let schema = |documents: u64| format!("{url}?options[search_path]=bench_{documents}");
        for documents in [1_000, documents] {
            sql(
                &url,
                &format!("DROP SCHEMA IF EXISTS bench_{documents} CASCADE; CREATE SCHEMA bench_{documents}"),
            )
            .await;
        }
        growth("PostgreSQL", &schema(1_000), &schema(documents), documents).await;
        for documents in [1_000, documents] {
            sql(&url, &format!("DROP SCHEMA bench_{documents} CASCADE")).await;
        }
    }
}

async fn open(url: &str) -> (Arc<dyn DocumentStore>, Dao<Item>) {
    let servers = json!({"connections": 8});
    let sqlite = json!({"connections": 4, "queue": 1024, "group": 256, "wal_limit": "16MiB"});
    let settings =
        json!({"url": url, "timeout": "60s", "sqlite": sqlite, "mongodb": servers, "postgres": servers});
    let store = store::open(&serde_json::from_value(settings).unwrap(), 1).await.unwrap();
    (Arc::clone(&store), Dao::new(store))
}

async fn sql(url: &str, text: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
}

/// The CPU time of this process so far.
fn cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.filter_map(of).sum())
}

/// The CPU time of one operation.
async fn cost(operation: impl AsyncFn(u64)) -> f64 {
    let before = cpu();
    for number in 0..OPERATIONS {
        operation(number).await;
    }
    cpu().saturating_sub(before).as_nanos() as f64 / OPERATIONS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the median of the ratios of two costs, measured in turns.
async fn compare(what: &str, dao: impl AsyncFn(u64), driver: impl AsyncFn(u64)) {
    cost(&dao).await;
    cost(&driver).await;
    let (mut costs, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (dao, driver) = (cost(&dao).await, cost(&driver).await);
        costs.push(dao);
        ratios.push(dao / driver);
    }
    println!("{what:<44} {:>7.1} us by the DAO, ratio {:.2}", median(costs) / 1_000.0, median(ratios));
}

async fn over_postgres(url: &str) {
    sql(url, "DROP SCHEMA IF EXISTS bench_driver CASCADE; CREATE SCHEMA bench_driver").await;
    let url = format!("{url}?options[search_path]=bench_driver");
    let (store, dao) = open(&url).await;
    dao.insert_with_id(&id(0), &item(0)).await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let read = async |_| {
        let text = "SELECT id, version, body FROM items WHERE id = $1";
        let row: (String, i64, String) = sqlx::query_as(text).bind(id(0)).fetch_one(&pool).await.unwrap();
        serde_json::from_str::<Item>(&row.2).unwrap();
    };
    compare("PostgreSQL, read by id", async |_| drop(dao.get(&id(0)).await.unwrap()), read).await;
    let write = async |number| {
        let text = "INSERT INTO items (id, version, body) VALUES ($1, 1, $2)";
        let body = serde_json::to_string(&item(number)).unwrap();
        sqlx::query(text).bind(store::dao::new_id()).bind(body).execute(&pool).await.unwrap();
    };
    compare("PostgreSQL, insert", async |number| drop(dao.insert(&item(number)).await.unwrap()), write).await;
    store.close().await;
    sql(&url, "DROP SCHEMA bench_driver CASCADE").await;
}

async fn over_mongodb(url: &str) {
    let url = format!("{url}/bench_driver");
    let (store, dao) = open(&url).await;
    dao.insert_with_id(&id(0), &item(0)).await.unwrap();
    let database = mongodb::Client::with_uri_str(&url).await.unwrap().default_database().unwrap();
    let items = database.collection::<MongoItem>("driver");
    items.insert_one(MongoItem { id: id(0), version: 1, body: item(0) }).await.unwrap();
    let read = async |_| drop(items.find_one(doc! {"_id": id(0)}).await.unwrap().unwrap());
    compare("MongoDB, read by id", async |_| drop(dao.get(&id(0)).await.unwrap()), read).await;
    let write = async |number| {
        let new = MongoItem { id: store::dao::new_id(), version: 1, body: item(number) };
        items.insert_one(new).await.unwrap();
    };
    compare("MongoDB, insert", async |number| drop(dao.insert(&item(number)).await.unwrap()), write).await;
    store.close().await;
    database.drop().await.unwrap();
}

/// A document as the store keeps it.
#[derive(Deserialize, Serialize)]
struct MongoItem {
    #[serde(rename = "_id")]
    id: String,
    version: i64,
    body: Item,
}

async fn group_commit(path: &str) {
    const WRITERS: u64 = 64;
    const EACH: u64 = 20;
    let (store, dao) = open(&format!("sqlite:{path}")).await;
    dao.count(Filter::all()).await.unwrap();
    let mut single = SqliteConnection::connect(path).await.unwrap();
    sqlx::raw_sql("PRAGMA synchronous = FULL").execute(&mut single).await.unwrap();
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let writers = (0..WRITERS).map(|writer| {
            let dao = dao.clone();
            tokio::spawn(async move {
                for number in 0..EACH {
                    dao.insert(&item(writer * EACH + number)).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let grouped = start.elapsed().as_secs_f64() / (WRITERS * EACH) as f64;
        let start = Instant::now();
        for number in 0..EACH {
            let body = serde_json::to_string(&item(number)).unwrap();
            let insert = sqlx::query("INSERT INTO items (id, version, body) VALUES (?, 1, ?)");
            insert.bind(store::dao::new_id()).bind(body).execute(&mut single).await.unwrap();
        }
        ratios.push(start.elapsed().as_secs_f64() / EACH as f64 / grouped);
    }
    println!(
        "{:<44} {:.1} times one transaction each",
        "SQLite, 64 durable inserts at a time",
        median(ratios)
    );
    store.close().await;
}

async fn fill(dao: &Dao<Item>, documents: u64) {
    for start in (0..documents).step_by(usize::try_from(CHUNK).unwrap()) {
        let items: Vec<Item> = (start..documents.min(start + CHUNK)).map(item).collect();
        dao.insert_many(&items).await.unwrap();
    }
}

/// The median time of a read, in microseconds.
async fn time(read: impl AsyncFn(u64)) -> f64 {
    let mut times = Vec::new();
    for number in 0..READS {
        let start = Instant::now();
        read(number).await;
        times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
    }
    median(times)
}

/// The index of the nth read in a list.
fn at(n: u64, length: usize) -> usize {
    usize::try_from(n).unwrap() % length
}

async fn growth(engine: &str, small: &str, large: &str, documents: u64) {
    let mut opened = Vec::new();
    for (url, documents) in [(small, 1_000), (large, documents)] {
        let (store, dao) = open(url).await;
        fill(&dao, documents).await;
        if url.starts_with("postgres") {
            // What autovacuum does within a minute: without statistics, the planner prefers the wrong index.
            sql(url, "ANALYZE items").await;
        }
        let by_number = Sort::by("number", Ascending);
        let step = (documents / READS).max(1);
        let ids: Vec<String> = {
            let found = dao
                .get_all(field("number").is_in((0..READS).map(|n| i64::try_from(n * step).unwrap())))
                .await;
            found.unwrap().into_iter().map(|stored| stored.id).collect()
        };
        let mut cursors = Vec::new();
        for number in 0..READS {
            let before = field("number").gte(i64::try_from((number * step).min(documents - 50)).unwrap());
            let page = dao.page_after(before, by_number.clone(), None, 1).await.unwrap();
            cursors.push(page.next.unwrap());
        }
        opened.push((store, dao, documents, ids, cursors));
    }
    let mut rows = vec![
        ("read by id", Vec::new()),
        ("filter with an index", Vec::new()),
        ("page in the middle", Vec::new()),
    ];
    for (_, dao, documents, ids, cursors) in &opened {
        for _ in 0..2 {
            let by_id = time(async |n| drop(dao.get(&ids[at(n, ids.len())]).await.unwrap())).await;
            let by_filter = time(async |n| {
                let city = format!("City {}", n * 7919 % (documents / 5));
                drop(dao.get_all(field("city").eq(city)).await.unwrap());
            })
            .await;
            let page = time(async |n| {
                let cursor = &cursors[at(n, cursors.len())];
                let sort = Sort::by("number", Ascending);
                drop(dao.page_after(Filter::all(), sort, Some(cursor), 20).await.unwrap());
            })
            .await;
            for (row, value) in rows.iter_mut().zip([by_id, by_filter, page]) {
                row.1.push(value);
            }
        }
    }
    for (what, times) in rows {
        // The first round of each collection warms its caches.
        println!(
            "{:<44} {:>7.1} us with 1,000, {:>7.1} us with {documents}, ratio {:.2}",
            format!("{engine}, {what}"),
            times[1],
            times[3],
            times[3] / times[1]
        );
    }
    for (store, ..) in opened {
        store.close().await;
    }
}

//! What only this engine has: the use of indexes, texts that are longer than a key, and what others do to its tables.

mod waits;

use std::time::Instant;

use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use super::super::postgres_url::connect_options;
use super::super::query::{Direction, Page, Sort, field};
use super::super::write::{Change, Expected};
use super::*;

const ITEMS: &Collection = &Collection::new("items", &["city", "address.zip"]);
const PLAIN: &Collection = &Collection::new("plain", &[]);

/// A schema of its own.
struct TestSchema {
    url: String,
    name: String,
}

impl TestSchema {
    async fn new() -> Self {
        let server = std::env::var("TEST_POSTGRES_URL")
            .expect("TEST_POSTGRES_URL names no server; `make test-all` starts one");
        let name = format!("test_{:016x}", fastrand::u64(..));
        let joint = if server.contains('?') { '&' } else { '?' };
        let schema = Self { url: format!("{server}{joint}options[search_path]={name}"), name };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name)).await;
        schema
    }

    fn settings(&self, timeout: &str) -> Settings {
        let one = json!({"connections": 1});
        let sqlite = json!({"connections": 1, "queue": 1, "group": 1, "wal_limit": "16MiB"});
        let postgres = json!({"connections": 8});
        let settings = json!({"url": self.url, "timeout": timeout, "sqlite": sqlite, "mongodb": one, "postgres": postgres});
        serde_json::from_value(settings).unwrap()
    }

    fn open(&self, timeout: &str) -> PostgresStore {
        PostgresStore::open(connect_options(&self.url).unwrap().0, &self.settings(timeout))
    }

    async fn by_hand(&self) -> PgConnection {
        connect_options(&self.url).unwrap().0.connect().await.unwrap()
    }

    async fn execute(&self, statement: &str) {
        let mut connection = self.by_hand().await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    }

    async fn rows(&self, statement: &str) -> Vec<String> {
        let mut connection = self.by_hand().await;
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_all(&mut connection).await.unwrap()
    }

    /// Deletes the schema. A test that fails leaves it.
    async fn remove(self) {
        self.execute(&format!("SET client_min_messages = warning; DROP SCHEMA {} CASCADE", self.name)).await;
    }
}

fn new(id: &str, body: serde_json::Value) -> Document {
    Document::new(id.to_owned(), Arc::new(serde_json::from_value(body).unwrap()), None)
}

fn insert(id: &str) -> Write {
    Write::Insert(vec![new(id, json!({"city": "Paris"}))])
}

async fn ids(store: &PostgresStore, filter: Filter, sort: Sort, page: Page) -> String {
    let found = store.find(ITEMS, Query { filter, sort, page }).await.unwrap();
    found.into_iter().map(|document| document.id).collect::<Vec<_>>().join(" ")
}

/// The plan of a query, on one line.
async fn plan(store: &PostgresStore, query: &Query, texts: Texts) -> String {
    let mut sql = Sql::find(ITEMS, query, Columns::Body, texts);
    sql.text.insert_str(0, "EXPLAIN (COSTS OFF) ");
    let rows = store.0.rows(ITEMS, sql).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("; ")
}

fn page(filter: Filter, sort: Sort) -> Query {
    Query { filter, sort, page: Page::first(10) }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_declared_index_serves_the_filters_and_sorts_of_its_field() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    let all = (0..3000).map(|n| {
        let city = match n % 10 {
            0 => json!(n),
            1 => json!(n % 20 == 1),
            2 => json!(null),
            _ => json!(format!("City {}", n % 500)),
        };
        let body =
            json!({"city": city, "country": format!("Country {n}"), "address": {"zip": n.to_string()}});
        new(&format!("{n:04}"), body)
    });
    store.write(ITEMS, Write::Insert(all.collect())).await.unwrap();
    schema.execute("ANALYZE items").await;
    // As in the program: no setting forces the planner.
    for filter in [
        field("city").eq("City 3"),
        field("city").eq(70),
        field("city").eq(0.5),
        field("city").gt(2950),
        field("city").starts_with("City 49"),
        field("city").is_in(["City 3", "City 4"]),
        field("city").is_in([3, 4]),
        field("city").eq("City 3").and(field("country").eq("Country 3")),
        field("city").eq("x".repeat(300)),
    ] {
        let plan = plan(&store, &page(filter.clone(), Sort::by_id()), Texts::Whole).await;
        assert!(plan.contains("Index Cond: ((CASE jsonb_typeof((fields -> 'city'"), "{filter:?}: {plan}");
        assert!(!plan.contains("Seq Scan"), "{filter:?}: {plan}");
    }
    let nested = plan(&store, &page(field("address.zip").eq("75"), Sort::by_id()), Texts::Whole).await;
    assert!(nested.contains("Index Cond: ((CASE jsonb_typeof(((fields -> 'address'"), "{nested}");
    // The index has the order of the sort, so that a page reads no more than its rows.
    let up = page(Filter::All, Sort::by("city", Direction::Ascending));
    let sorted = plan(&store, &up, Texts::ByKey).await;
    assert!(
        sorted.starts_with("Limit;   ->  Index Scan using items_") && !sorted.contains("Sort"),
        "{sorted}"
    );
    // A page after a cursor begins in the middle of the index.
    let ascending = Sort::by("city", Direction::Ascending);
    for (value, id) in [(json!("City 303"), "1303"), (json!(1500), "1500")] {
        let after = super::super::cursor::parts_after(&ascending, &[value], id).remove(0);
        let after = plan(&store, &page(after, ascending.clone()), Texts::ByKey).await;
        assert!(after.contains("Index Cond: ((CASE jsonb_typeof((fields -> 'city'"), "{after}");
        assert!(after.contains(" >= ") && !after.contains("Seq Scan"), "{after}");
    }
    let down = page(Filter::All, Sort::by("city", Direction::Descending));
    let sorted = plan(&store, &down, Texts::ByKey).await;
    assert!(sorted.contains("Incremental Sort") && sorted.contains("Index Scan Backward"), "{sorted}");
    // The control: without an index, every document is read.
    let by_country = page(field("country").eq("Country 3"), Sort::by("country", Direction::Ascending));
    let scan = plan(&store, &by_country, Texts::Whole).await;
    assert!(scan.contains("Seq Scan") && scan.contains("Sort"), "{scan}");
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn texts_longer_than_a_key_are_indexed_found_and_sorted() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    let prefix = "é".repeat(256);
    // In the order of their ids reversed, and more than an index entry can hold, also compressed.
    let random: String =
        std::iter::repeat_with(|| fastrand::char('\u{4000}'..'\u{9000}')).take(10_000).collect();
    let texts = [
        format!("{prefix}b{random}"),
        format!("{prefix}b"),
        format!("{prefix}a{random}"),
        prefix.clone(),
        "é".repeat(255),
        "z".to_owned(),
        random.clone(),
    ];
    let documents = texts.iter().enumerate().map(|(n, text)| new(&n.to_string(), json!({"city": text})));
    let longest_id = "i".repeat(1024);
    let most = [new(&longest_id, json!({"city": "\u{10ffff}".repeat(300), "address": {"zip": random}}))];
    store.write(ITEMS, Write::Insert(documents.chain(most).collect())).await.unwrap();
    let city = || field("city");
    for (filter, expected) in [
        (city().eq(&*texts[0]), "0"),
        (city().eq(&*prefix), "3"),
        (city().is_in([&*prefix, "z", &texts[1]]), "1 3 5"),
        (city().starts_with(&*prefix), "0 1 2 3"),
        (city().starts_with(format!("{prefix}b")), "0 1"),
        (city().lt(&*prefix), "4 5"),
        (city().lte(&*prefix), "3 4 5"),
        (city().gt(&*texts[1]).and(city().lt("\u{3fff}")), "0"),
        (city().gte(&*texts[1]).and(city().lt("\u{3fff}")), "0 1"),
        (!city().starts_with(&*prefix), &*format!("4 5 6 {longest_id}")),
    ] {
        assert_eq!(ids(&store, filter.clone(), Sort::by_id(), Page::all()).await, expected, "{filter:?}");
    }
    let sort = |direction| Sort::by("city", direction);
    let up = ids(&store, Filter::All, sort(Direction::Ascending), Page::all()).await;
    assert_eq!(up, format!("5 4 3 2 1 0 6 {longest_id}"));
    for offset in 0..8 {
        let one = Page { offset, limit: Some(1) };
        let id = ids(&store, Filter::All, sort(Direction::Descending), one).await;
        assert_eq!(Some(&*id), up.rsplit(' ').nth(usize::try_from(offset).unwrap()));
    }
    // The control: the keys alone give another order.
    let query = Query { filter: Filter::All, sort: sort(Direction::Ascending), page: Page::all() };
    let rows = store.0.rows(ITEMS, Sql::find(ITEMS, &query, Columns::Body, Texts::ByKey)).await.unwrap();
    let by_key: Vec<String> = rows.iter().map(|row| row.get("id")).collect();
    assert_eq!(by_key[..6], ["5", "4", "0", "1", "2", "3"]);
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn many_processes_can_use_a_new_collection_at_the_same_time() {
    let schema = TestSchema::new().await;
    let stores: Vec<PostgresStore> = (0..8).map(|_| schema.open("10s")).collect();
    let writes = (0..32).map(|n| {
        let store = &stores[n % 8];
        async move { store.write(ITEMS, insert(&n.to_string())).await }
    });
    for result in futures_util::future::join_all(writes).await {
        result.unwrap();
    }
    assert_eq!(stores[0].count(ITEMS, Filter::All, None).await.unwrap(), 32);
    // The control: `IF NOT EXISTS` without the lock is not enough. It cannot miss it: the second process has not seen the table
    // when the first one commits it, since it waits for that commit by then.
    let create = "CREATE TABLE IF NOT EXISTS race (id text PRIMARY KEY)";
    let [mut first, mut second] = [schema.by_hand().await, schema.by_hand().await];
    sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {create}"))).execute(&mut first).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut second).await.unwrap();
    let second = tokio::spawn(async move { sqlx::raw_sql(create).execute(&mut second).await });
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)";
    while !sqlx::query_scalar::<_, bool>(waits).bind(pid).fetch_one(&mut first).await.unwrap() {
        assert!(!second.is_finished(), "the second one has not waited");
    }
    sqlx::raw_sql("COMMIT").execute(&mut first).await.unwrap();
    assert!(second.await.unwrap().is_err(), "the race did not happen");
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_commit_is_on_the_disk() {
    let schema = TestSchema::new().await;
    let store = schema.open("3s");
    let mut checkout = store.0.checkout().await.unwrap();
    for (setting, expected) in [
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("statement_timeout", "3s"),
        ("full_page_writes", "on"),
    ] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut *checkout)
            .await
            .unwrap();
        assert_eq!(value, expected, "{setting}");
    }
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_write_behind_a_lock_of_another_fails_after_the_timeout() {
    let schema = TestSchema::new().await;
    let store = schema.open("300ms");
    store.write(ITEMS, insert("a")).await.unwrap();
    let mut hand = schema.by_hand().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM items FOR UPDATE").execute(&mut hand).await.unwrap();
    for filter in [Filter::id("a"), field("city").eq("Paris")] {
        let begun = Instant::now();
        let write = Write::Change { filter, expected: Expected::Any, change: Change::Delete };
        let error = store.write(ITEMS, write).await.unwrap_err();
        assert_eq!(error.status(), 503, "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert!(store.get(ITEMS, "a").await.unwrap().is_some(), "a reader does not wait");
    sqlx::raw_sql("ROLLBACK").execute(&mut hand).await.unwrap();
    let write = Write::Change { filter: Filter::All, expected: Expected::Any, change: Change::Delete };
    assert_eq!(store.write(ITEMS, write).await.unwrap().count, 1);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_caller_that_goes_away_leaves_no_connection_in_a_transaction() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    store.write(ITEMS, insert("a")).await.unwrap();
    for n in 0..100 {
        let change = Change::Replace(new("a", json!({"n": n})).fields);
        let write = Write::Change { filter: field("city").exists(), expected: Expected::Any, change };
        let _ = tokio::time::timeout(Duration::from_micros(n * 50), store.write(ITEMS, write)).await;
        store.write(ITEMS, Write::DeleteAll(Filter::All)).await.unwrap();
        store.write(ITEMS, insert("a")).await.unwrap();
    }
    let state = format!(
        "SELECT state FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND query LIKE '%{}%'",
        "items"
    );
    // PostgreSQL notices that a connection has been closed when it next reads from it.
    let begun = Instant::now();
    while !schema.rows(&state).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_deadlock_of_two_writes_is_an_error_of_neither() {
    let schema = TestSchema::new().await;
    let store = schema.open("10s");
    let ids = |reverse: bool| {
        let mut ids: Vec<_> = (0..200).map(|n| new(&format!("{n:03}"), json!({}))).collect();
        if reverse {
            ids.reverse();
        }
        Write::Insert(ids)
    };
    let mut refused = 0;
    for _ in 0..20 {
        let (one, other) = tokio::join!(store.write(ITEMS, ids(false)), store.write(ITEMS, ids(true)));
        let results = [one, other].map(|result| result.map_err(|error| error.reason()));
        refused += results.iter().filter(|result| **result == Err("Document Exists")).count();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(store.write(ITEMS, Write::DeleteAll(Filter::All)).await.unwrap().count, 200);
    }
    assert_eq!(refused, 20);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_damaged_document_is_an_error_that_names_it_and_affects_no_other() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    store.write(ITEMS, insert("good")).await.unwrap();
    schema.execute(r#"INSERT INTO items (id, version, body) VALUES ('bad', 1, '["not an object"]')"#).await;
    let error = store.get(ITEMS, "bad").await.unwrap_err();
    assert_eq!(error.status(), 500);
    assert!(error.cause().contains("items \"bad\" is damaged"), "{}", error.cause());
    assert_eq!(ids(&store, field("city").eq("Paris"), Sort::by_id(), Page::all()).await, "good");
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_document_written_by_hand_is_found_by_queries() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    store.write(ITEMS, insert("a")).await.unwrap();
    schema.execute(r#"UPDATE items SET body = '{"city": "Rome", "address": {"zip": 5.0}}'"#).await;
    let filter = field("city").eq("Rome").and(field("address.zip").eq(5));
    assert_eq!(ids(&store, filter, Sort::by_id(), Page::all()).await, "a");
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn another_constraint_of_a_table_made_elsewhere_is_no_conflict() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    store.write(PLAIN, insert("a")).await.unwrap();
    schema.execute("ALTER TABLE plain ADD CONSTRAINT by_hand CHECK (id <> 'b')").await;
    let error = store.write(PLAIN, insert("b")).await.unwrap_err();
    assert_eq!(error.status(), 500);
    assert!(error.cause().contains("by_hand"), "{}", error.cause());
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_unique_index_made_by_hand_is_a_conflict_without_a_pointer() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    store.write(PLAIN, insert("a")).await.unwrap();
    schema.execute("CREATE UNIQUE INDEX by_hand ON plain ((fields ->> 'city'))").await;
    let error = store.write(PLAIN, insert("b")).await.unwrap_err();
    assert_eq!((error.status(), error.reason(), error.errors().len()), (409, "Value Exists", 0));
    assert!(error.cause().contains("by_hand"), "{}", error.cause());
    assert_eq!(store.write(PLAIN, insert("a")).await.unwrap_err().reason(), "Document Exists");
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_table_that_was_dropped_is_created_again() {
    let schema = TestSchema::new().await;
    let store = schema.open("5s");
    store.write(ITEMS, insert("a")).await.unwrap();
    schema.execute("DROP TABLE items").await;
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap_err().status(), 500);
    assert_eq!(store.count(ITEMS, Filter::All, None).await.unwrap(), 0);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_table_that_is_not_one_of_documents_is_refused_and_left_alone() {
    const INDEXED: &Collection = &Collection::new("items", &["city"]).unique(&["code"]);
    for columns in ["token bigint, name text", "id text, version bigint, body text", "id text, token bigint"]
    {
        let schema = TestSchema::new().await;
        schema.execute(&format!("CREATE TABLE items ({columns})")).await;
        let store = schema.open("10s");
        for collection in [ITEMS, INDEXED] {
            let prepared = store.prepare(collection).await;
            for error in [prepared.unwrap_err(), store.write(collection, insert("a")).await.unwrap_err()] {
                assert_eq!(error.status(), 500);
                assert!(error.cause().contains("the table \"items\" of this database"), "{}", error.cause());
            }
        }
        let query =
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0";
        assert_eq!(schema.rows(query).await.len(), columns.split(", ").count());
        schema.remove().await;
    }
}

/// As `CREATE UNIQUE INDEX CONCURRENTLY` leaves one that it could not build.
#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn an_index_that_is_invalid_is_built_again() {
    const UNIQUE: &Collection = &Collection::new("items", &["city"]).unique(&["code"]);
    let schema = TestSchema::new().await;
    schema.open("10s").prepare(UNIQUE).await.unwrap();
    let indexes = "SELECT count(*)::text FROM pg_index WHERE indrelid = 'items'::regclass AND indisvalid";
    assert_eq!(schema.rows(indexes).await, ["3"]);
    schema
        .execute(
            "UPDATE pg_index SET indisvalid = FALSE WHERE indrelid = 'items'::regclass AND NOT indisprimary",
        )
        .await;
    schema.open("10s").prepare(UNIQUE).await.unwrap();
    assert_eq!(schema.rows(indexes).await, ["3"]);
    schema.remove().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_schema_whose_name_has_capitals_works() {
    let mut schema = TestSchema::new().await;
    let name = schema.name.replace("test", "Test");
    schema.execute(&format!("ALTER SCHEMA {} RENAME TO \"{name}\"", schema.name)).await;
    // As a person writes it who quotes what SQL would fold.
    schema.url = schema.url.replace(&schema.name, &format!("%22{name}%22"));
    schema.name = format!("\"{name}\"");
    let store = schema.open("10s");
    store.write(ITEMS, insert("a")).await.unwrap();
    assert_eq!(store.collections().await.unwrap(), ["items"]);
    schema.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: make test-all"]
async fn a_table_of_an_older_version_gets_its_column_also_when_several_start_at_once() {
    let schema = TestSchema::new().await;
    let table = r#"CREATE TABLE items (id text COLLATE "C" PRIMARY KEY, version bigint NOT NULL,
        body text NOT NULL, fields jsonb NOT NULL GENERATED ALWAYS AS (body::jsonb) STORED)"#;
    schema.execute(table).await;
    schema.execute("INSERT INTO items (id, version, body) VALUES ('old', 3, '{}')").await;
    let stores: Vec<PostgresStore> = (0..8).map(|_| schema.open("10s")).collect();
    for found in futures_util::future::join_all(stores.iter().map(|store| store.get(ITEMS, "old"))).await {
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
    schema.execute("INSERT INTO items (id, version, body) VALUES ('new', 1, '{}')").await;
    assert_eq!(stores[2].get(ITEMS, "new").await.unwrap().unwrap().token, 0);
    schema.remove().await;
}

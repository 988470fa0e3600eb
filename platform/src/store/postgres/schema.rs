//! The table and the indexes of a collection.
//!
//! `body` is the JSON text as it was sent, to be given back: JSONB keeps neither the order of keys nor the text of a
//! number. `fields` is made of it by PostgreSQL, for queries. So a document takes about twice its size.

use std::fmt::Write as _;

use sqlx::PgConnection;

use super::super::{Collection, foreign_table};
use super::names::{hash, table};
use super::{field, unique};
use crate::error::{Error, Result};

/// The key of the advisory lock under which tables are created: the bytes of `store`.
const CREATION: i64 = 0x73_746f_7265;

/// The column of the highest fencing token.
const TOKEN: &str = "token bigint NOT NULL DEFAULT 0";

/// What a database has of a collection.
pub(super) struct Found {
    encoding: String,
    /// The names of the table and its indexes that exist, and are valid.
    relations: Vec<String>,
    /// The names of its indexes that an interrupted `CREATE INDEX CONCURRENTLY` or `REINDEX` has left behind.
    invalid: Vec<String>,
    /// The names of the columns of the table; none when there is no table.
    columns: Vec<String>,
}

impl Found {
    /// Texts can only be kept, and compared by their bytes, in UTF-8.
    pub(super) fn check_encoding(&self) -> Result<()> {
        if self.encoding == "UTF8" {
            return Ok(());
        }
        Err(Error::internal(format!("the encoding of the database is {}, and must be UTF8", self.encoding)))
    }

    /// `Internal` when the table is not one of a collection.
    pub(super) fn check_columns(&self, collection: &Collection) -> Result<()> {
        let of_collection = ["id", "version", "body", "fields"].iter().all(|column| self.has(column));
        if self.columns.is_empty() || of_collection { Ok(()) } else { Err(foreign_table(collection)) }
    }

    /// Whether the table with all its columns, and all indexes exist.
    pub(super) fn is_complete(&self, collection: &Collection) -> bool {
        self.has("token") && self.relations.len() == names(collection).len()
    }

    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }
}

/// Looks for the table and the indexes.
pub(super) async fn find(connection: &mut PgConnection, collection: &Collection) -> sqlx::Result<Found> {
    let query = sqlx::query_as(
        "WITH found AS (SELECT oid, relname::text AS name, coalesce(indisvalid, TRUE) AS valid FROM pg_class \
         LEFT JOIN pg_index ON indexrelid = oid WHERE relname = ANY($1) AND relnamespace = \
         (SELECT oid FROM pg_namespace WHERE nspname = current_schema())) \
         SELECT current_setting('server_encoding'), ARRAY(SELECT name FROM found WHERE valid), \
         ARRAY(SELECT name FROM found WHERE NOT valid), ARRAY(SELECT attname::text FROM pg_attribute JOIN found \
         ON attrelid = oid WHERE name = $2 AND attnum > 0 AND NOT attisdropped)",
    );
    let query = query.bind(names(collection)).bind(collection.name());
    let (encoding, relations, invalid, columns) = query.fetch_one(connection).await?;
    Ok(Found { encoding, relations, invalid, columns })
}

fn names(collection: &Collection) -> Vec<String> {
    let indexes = indexes(collection).into_iter().map(|(name, _)| name);
    let unique = unique::indexes(collection).into_iter().map(|index| index.name);
    std::iter::once(collection.name().to_owned()).chain(indexes).chain(unique).collect()
}

/// Creates what is missing of the table and the indexes.
///
/// `CREATE … IF NOT EXISTS` alone fails when two processes execute it at the same time, hence the lock. An index of many
/// documents takes its time, hence no limit to it.
///
/// The column of a table of an older version is added first, in a statement of its own: that locks the table against
/// everybody, for a moment. It waits for running transactions, but not for longer than any other statement.
pub(super) async fn create(
    connection: &mut PgConnection,
    collection: &Collection,
    found: &Found,
) -> sqlx::Result<()> {
    let table = table(collection);
    if !found.has("token") {
        let text = format!(
            "SET client_min_messages = warning; ALTER TABLE IF EXISTS {table} ADD COLUMN IF NOT EXISTS {TOKEN}; \
             RESET client_min_messages"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut *connection).await?;
    }
    let mut text = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = warning; \
         SELECT pg_advisory_xact_lock({CREATION}); \
         CREATE TABLE IF NOT EXISTS {table} (id text COLLATE \"C\" PRIMARY KEY, version bigint NOT NULL, \
         body text NOT NULL, fields jsonb NOT NULL GENERATED ALWAYS AS (body::jsonb) STORED, {TOKEN}); "
    );
    for name in &found.invalid {
        let _ = write!(text, "DROP INDEX IF EXISTS \"{name}\"; ");
    }
    for (name, columns) in indexes(collection) {
        let _ = write!(text, "CREATE INDEX IF NOT EXISTS \"{name}\" ON {table} ({columns}); ");
    }
    for index in unique::indexes(collection) {
        let _ = write!(text, "{}; ", index.create(collection));
    }
    text.push_str("COMMIT");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(connection).await.map(drop)
}

/// The names and the columns of the indexes. PostgreSQL cuts a name at 63 bytes, and a path may be longer: so the name
/// has a hash of the columns, and the definition shows the path.
fn indexes(collection: &Collection) -> Vec<(String, String)> {
    let columns = collection.indexes().iter().map(|path| {
        let (rank, number, key) = (field::rank(path), field::number(path), field::key(path));
        format!("({rank}), ({number}), {key}, id")
    });
    let named = columns.map(|columns| {
        let name = format!("{}_{}", collection.name(), hash(&columns));
        (name, columns)
    });
    named.collect()
}

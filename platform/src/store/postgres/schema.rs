//! The table and the indexes of a collection.
//!
//! `body` is the JSON text as it was sent, to be given back: JSONB keeps neither the order of keys nor the text of a
//! number. `fields` is made of it by PostgreSQL, for queries. So a document takes about twice its size.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::super::Collection;
use super::field;
use crate::error::{Error, Result};

/// The key of the advisory lock under which tables are created: the bytes of `store`.
const CREATION: i64 = 0x73_746f_7265;

/// The table of a collection, as an SQL name.
pub(super) fn table(collection: &Collection) -> String {
    format!("\"{}\"", collection.name())
}

/// The constraint that a second document of an id would break.
pub(super) fn primary_key(collection: &Collection) -> String {
    format!("{}_pkey", collection.name())
}

/// What a database has of a collection.
pub(super) struct Found {
    encoding: String,
    relations: i64,
}

impl Found {
    /// Texts can only be kept, and compared by their bytes, in UTF-8.
    pub(super) fn check_encoding(&self) -> Result<()> {
        if self.encoding == "UTF8" {
            return Ok(());
        }
        Err(Error::internal(format!("the encoding of the database is {}, and must be UTF8", self.encoding)))
    }

    /// Whether the table and all indexes exist.
    pub(super) fn is_complete(&self, collection: &Collection) -> bool {
        usize::try_from(self.relations) == Ok(names(collection).len())
    }
}

/// Looks for the table and the indexes.
pub(super) async fn find(connection: &mut PgConnection, collection: &Collection) -> sqlx::Result<Found> {
    let query = sqlx::query_as(
        "SELECT current_setting('server_encoding'), count(*) FROM pg_class \
         WHERE relname = ANY($1) AND relnamespace = current_schema()::regnamespace",
    );
    let (encoding, relations) = query.bind(names(collection)).fetch_one(connection).await?;
    Ok(Found { encoding, relations })
}

fn names(collection: &Collection) -> Vec<String> {
    let indexes = indexes(collection).into_iter().map(|(name, _)| name);
    std::iter::once(collection.name().to_owned()).chain(indexes).collect()
}

/// Creates what is missing of the table and the indexes.
///
/// `CREATE … IF NOT EXISTS` alone fails when two processes execute it at the same time, hence the lock. An index of many
/// documents takes its time, hence no limit to it.
pub(super) async fn create(connection: &mut PgConnection, collection: &Collection) -> sqlx::Result<()> {
    let table = table(collection);
    let mut text = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = warning; \
         SELECT pg_advisory_xact_lock({CREATION}); \
         CREATE TABLE IF NOT EXISTS {table} (id text COLLATE \"C\" PRIMARY KEY, version bigint NOT NULL, \
         body text NOT NULL, fields jsonb NOT NULL GENERATED ALWAYS AS (body::jsonb) STORED); "
    );
    for (name, columns) in indexes(collection) {
        let _ = write!(text, "CREATE INDEX IF NOT EXISTS \"{name}\" ON {table} ({columns}); ");
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
        let mut name = format!("{}_", collection.name());
        for byte in Sha256::digest(&columns).iter().take(8) {
            let _ = write!(name, "{byte:02x}");
        }
        (name, columns)
    });
    named.collect()
}

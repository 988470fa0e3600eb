//! The store in one SQLite file, shared by the processes of one machine.
//!
//! The file is in WAL mode, so that readers and the writer do not wait for each other, and `synchronous` is `FULL`:
//! with `NORMAL`, three of eight power cuts lost acknowledged writes; with `FULL`, none of 13. `FULL` costs one fsync a
//! commit, which the writes that wait at the same time share (`writer`). SQLite itself filters, sorts and pages
//! (`sql`).

mod batch;
mod database_file;
mod field;
mod reader;
mod restore;
mod schema;
mod sql;
mod unique;
mod writer;
mod writes;

use std::collections::HashSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::query::Query as SqlQuery;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, Sqlite, SqliteConnection};

use super::collections::of_collections;
use super::query::{Filter, Groups, Query, Scalar};
use super::write::{Write, WriteOutcome};
use super::{BatchOutcome, Collection, Document, DocumentStore, Settings, Step, Token};
use crate::error::{Error, Kind, Result, StartError};
use database_file::DatabaseFile;
use sql::Sql;
use writer::{Command, Done, Writer};

/// How often the start tries again while another process has the file for itself.
const POLL: Duration = Duration::from_millis(20);

/// Documents in tables, one for each collection.
pub(super) struct SqliteStore {
    file: DatabaseFile,
    readers: SqlitePool,
    /// For [`Services::sqlite`](crate::services::Services::sqlite): what is slow there takes no reader away from the DAO.
    way_out: SqlitePool,
    /// One connection, so that readers that are all in use are no outage.
    health: SqlitePool,
    writer: Writer,
    /// How long a read may take.
    timeout: Duration,
    /// The collections whose table and indexes are known to exist.
    prepared: RwLock<HashSet<&'static Collection>>,
}

impl SqliteStore {
    /// Opens the file, and creates it and its folder if they are missing.
    pub(super) async fn open(path: PathBuf, settings: &Settings) -> Result<Self, StartError> {
        let name = format!("store file {}", path.display());
        database_file::make_ready(&path).map_err(|error| unopened(&name, error))?;
        let timeout = settings.timeout.get();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(timeout)
            .pragma("journal_size_limit", settings.sqlite.wal_limit.get().to_string())
            .disable_statement_logging();
        let first = connect(&name, &options, timeout).await?;
        let anchor = connect(&name, &options, timeout).await?;
        let file = DatabaseFile::of(path).map_err(|error| unopened(&name, error))?;
        let connections = u32::try_from(settings.sqlite.connections.get()).unwrap_or(u32::MAX);
        // A connection to a file does not break while it is idle.
        let pool = SqlitePoolOptions::new().acquire_timeout(timeout).test_before_acquire(false);
        let query_only = || options.clone().pragma("query_only", "ON");
        let readers = pool.clone().max_connections(connections).connect_lazy_with(query_only());
        let way_out = reader::limited(pool.clone().max_connections(connections), timeout);
        let way_out = way_out.connect_lazy_with(query_only());
        let health = pool.max_connections(1).connect_lazy_with(query_only());
        let writer = Writer::start([first, anchor], options, file.clone(), settings);
        Ok(Self { file, readers, way_out, health, writer, timeout, prepared: RwLock::default() })
    }

    /// Creates the table and the indexes of a collection if they are missing. Each process checks once.
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        if self.prepared.read().unwrap_or_else(PoisonError::into_inner).contains(collection) {
            return Ok(());
        }
        // A read comes first: it does not wait for the writer of another process.
        let found = self.within_time(schema::Found::of(&self.readers, collection)).await?;
        found.check(collection)?;
        if !found.is_complete(collection) {
            self.execute(Command::Prepare(collection)).await?;
        }
        self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
        Ok(())
    }

    async fn execute(&self, task: Command) -> Result<Done> {
        self.writer.execute(task).await.map_err(|error| error.with_context(&self.file))
    }

    /// All rows of a query, which may read many.
    async fn rows(&self, query: SqlQuery<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>> {
        self.within_time(reader::rows(&self.readers, query, Instant::now() + self.timeout)).await
    }

    /// What a read gives, unless it takes too long. An error has the name of the file.
    async fn within_time<T>(&self, read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T> {
        let read = tokio::time::timeout(self.timeout, read).await;
        let read = read.map_or_else(
            |_| Err(Error::unavailable(format!("no response within {:?}", self.timeout))),
            |read| read.map_err(store_error),
        );
        read.map_err(|error| error.with_context(&self.file))
    }
}

/// The error of a file that cannot be opened as a store.
fn unopened(name: &str, cause: impl Display) -> StartError {
    StartError::failed(format!("{name}: {cause}"))
}

/// Opens a connection, and reads. `name` is the file's name in messages.
async fn connect(
    name: &str,
    options: &SqliteConnectOptions,
    timeout: Duration,
) -> Result<SqliteConnection, StartError> {
    let deadline = Instant::now() + timeout;
    let mut connection = loop {
        match options.connect().await {
            Ok(connection) => break connection,
            // The change to WAL needs an exclusive lock, for which SQLite does not wait.
            Err(error) if code(&error) == Some(BUSY) && Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) if code(&error) == Some(NOT_A_DATABASE) => {
                return Err(StartError::failed(format!("{name} is not an SQLite database")));
            }
            Err(error) => return Err(unopened(name, error)),
        }
    };
    let mode: Result<String, _> = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await;
    let mode = mode.map_err(|error| unopened(name, error))?;
    if mode != "wal" {
        let why =
            format!("its file system does not support WAL (journal mode is {mode}); is it a network share?");
        return Err(unopened(name, why));
    }
    // From the first read on, the two files beside it are there.
    let read = sqlx::query("SELECT count(*) FROM sqlite_schema").execute(&mut connection).await;
    read.map_err(|error| unopened(name, error))?;
    Ok(connection)
}

/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>).
const BUSY: u32 = 5;
const NO_MEMORY: u32 = 7;
const READ_ONLY: u32 = 8;
const INTERRUPTED: u32 = 9;
const IO_ERROR: u32 = 10;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;
/// Extended result codes of the same list: `SQLITE_CONSTRAINT_PRIMARYKEY` and `SQLITE_CONSTRAINT_UNIQUE`.
const PRIMARY_KEY: u32 = 1555;
const UNIQUE: u32 = 2067;

/// The extended result code of an error of SQLite itself.
fn extended_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// The primary result code of an error of SQLite itself.
fn code(error: &sqlx::Error) -> Option<u32> {
    extended_code(error).map(|extended| extended & 0xff)
}

/// An error of the driver as an error of the store.
pub(super) fn store_error(error: sqlx::Error) -> Error {
    Error::of_dependency(kind_of(&error), error)
}

fn kind_of(error: &sqlx::Error) -> Kind {
    match (error, code(error)) {
        (_, Some(BUSY | NO_MEMORY | INTERRUPTED | IO_ERROR | FULL | CANNOT_OPEN))
        | (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed, _) => {
            Kind::Unavailable
        }
        _ => Kind::Internal,
    }
}

/// The document in a row of the columns `sql::COLUMNS`.
fn decode(collection: &Collection, row: &SqliteRow) -> Result<Document> {
    let id: String = row.try_get("id").map_err(store_error)?;
    let version: i64 = row.try_get("version").map_err(store_error)?;
    let token: i64 = row.try_get("token").map_err(store_error)?;
    Document::from_row(collection, id, version, token, row.try_get("body").map_err(store_error)?)
}

/// The document in a row of `id`, `version`, `token`, and the JSON text of the value at each path.
fn decode_fields(collection: &Collection, row: &SqliteRow, paths: &[String]) -> Result<Document> {
    let id: String = row.try_get("id").map_err(store_error)?;
    let version: i64 = row.try_get("version").map_err(store_error)?;
    let token: i64 = row.try_get("token").map_err(store_error)?;
    let value = |(index, path)| Ok((path, row.try_get(index + 3).map_err(store_error)?));
    let values: Vec<(&String, Option<String>)> =
        paths.iter().enumerate().map(value).collect::<Result<_>>()?;
    Document::from_values(collection, id, version, token, values)
}

#[async_trait]
impl DocumentStore for SqliteStore {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        self.prepare(collection).await
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.prepare(collection).await?;
        let text = format!("SELECT {} FROM {} WHERE id = ?", sql::COLUMNS, schema::table(collection));
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id);
        let row = self.within_time(query.fetch_optional(&self.readers)).await?;
        row.map(|row| decode(collection, &row)).transpose()
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.prepare(collection).await?;
        let sql = Sql::find(collection, &query);
        let rows = self.rows(sql.query()).await?;
        rows.iter().map(|row| decode(collection, row)).collect()
    }

    async fn find_fields(
        &self,
        collection: &'static Collection,
        query: Query,
        paths: &[String],
    ) -> Result<Vec<Document>> {
        self.prepare(collection).await?;
        let sql = Sql::find_fields(collection, &query, paths);
        let rows = self.rows(sql.query()).await?;
        rows.iter().map(|row| decode_fields(collection, row, paths)).collect()
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        self.prepare(collection).await?;
        let sql = Sql::count_by(collection, &filter, path, limit);
        let rows = self.rows(sql.query()).await?;
        let mut groups = Groups::default();
        for row in rows {
            let value: Option<String> = row.try_get(0).map_err(store_error)?;
            let count: i64 = row.try_get(1).map_err(store_error)?;
            groups.add_text(value.as_deref(), count)?;
        }
        Ok(groups.first(limit))
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        self.prepare(collection).await?;
        let sql = Sql::count(collection, &filter, bound);
        let rows = self.rows(sql.query()).await?;
        let row = rows.first().ok_or_else(|| Error::internal("a count without a row"))?;
        let count: i64 = row.try_get(0).map_err(store_error)?;
        u64::try_from(count).map_err(Error::internal)
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        self.prepare(collection).await?;
        match self.execute(Command::Write(collection, write, token)).await? {
            Done::Write(outcome) => Ok(outcome),
            Done::Prepare | Done::Batch(_) => Err(Error::internal("the writer has done something else")),
        }
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        for step in &steps {
            self.prepare(step.collection).await?;
        }
        match self.execute(Command::Batch(steps)).await? {
            Done::Batch(outcome) => Ok(outcome),
            Done::Prepare | Done::Write(_) => Err(Error::internal("the writer has done something else")),
        }
    }

    async fn collections(&self) -> Result<Vec<String>> {
        let names = sqlx::query_scalar(restore::TABLES).fetch_all(&self.readers);
        self.within_time(names).await.map(of_collections)
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        self.prepare(collection).await?;
        self.execute(Command::Restore(collection, documents)).await.map(drop)
    }

    fn sqlite(&self) -> Option<SqlitePool> {
        Some(self.way_out.clone())
    }

    async fn ping(&self) -> Result<()> {
        self.within_time(sqlx::query("SELECT 1").fetch_one(&self.health)).await.map(drop)
    }

    async fn close(&self) {
        tokio::join!(self.readers.close(), self.way_out.close(), self.health.close());
        // The writer closes last: with no reader open, its checkpoint moves the whole WAL into the file.
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests;

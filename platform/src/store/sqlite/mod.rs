//! The store in one SQLite file, shared by the processes of one machine.
//!
//! WAL, so that readers and the writer do not wait for one another; `synchronous=FULL`, because with `NORMAL`
//! three of eight power cuts took acknowledged writes, and with `FULL` none of 13. What that costs, an fsync a
//! commit, is shared by the writes that wait at the same time (`writer`). Filters, sorts and pages are
//! SQLite's work (`sql`); this file decides nothing about their meaning.

mod place;
mod sql;
mod writer;

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, SqliteConnection};

use super::query::{Filter, Query};
use super::write::{Write, Written};
use super::{Collection, Document, DocumentStore, Settings, damaged};
use crate::error::{Error, Kind, Result, StartError};
use crate::json;
use place::Place;
use sql::Sql;
use writer::{Task, Writer};

/// How often the start tries again while another process has the file for itself.
const POLL: Duration = Duration::from_millis(20);

/// Documents in tables, one for each collection.
pub(super) struct SqliteStore {
    place: Place,
    readers: SqlitePool,
    writer: Writer,
    /// The collections whose table and indexes are known to be there.
    prepared: RwLock<HashSet<&'static Collection>>,
}

impl SqliteStore {
    /// Opens the file, and makes it and its folder where they are missing.
    pub(super) async fn open(path: PathBuf, settings: &Settings) -> Result<Self, StartError> {
        let name = format!("store file {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder).await.map_err(|error| unopened(&name, error))?;
        }
        check_writable(&path).map_err(|error| unopened(&name, error))?;
        let timeout = settings.timeout.get();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(timeout)
            .disable_statement_logging();
        let first = connect(&name, &options, timeout).await?;
        let place = Place::of(path).map_err(|error| unopened(&name, error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(u32::try_from(settings.sqlite.connections.get()).unwrap_or(u32::MAX))
            .acquire_timeout(timeout)
            // A connection to a file does not go away while nobody looks.
            .test_before_acquire(false)
            .connect_lazy_with(options.clone().pragma("query_only", "ON"));
        let writer = Writer::start(first, options, place.clone(), settings);
        Ok(Self { place, readers, writer, prepared: RwLock::default() })
    }

    /// Makes the table and the indexes of a collection, once for each process.
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        if self.prepared.read().unwrap_or_else(PoisonError::into_inner).contains(collection) {
            return Ok(());
        }
        // Looked for first: a reader need not wait for the writer of another process.
        let (text, expected) = sql::schema_found(collection);
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
            .fetch_one(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        if usize::try_from(found) != Ok(expected) {
            self.perform(Task::Prepare(collection)).await?;
        }
        self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
        Ok(())
    }

    async fn perform(&self, task: Task) -> Result<Written> {
        self.writer.perform(task).await.map_err(|error| error.at_place(&self.place))
    }

    /// An error of a reader, with the file that it is about.
    fn failed(&self, error: sqlx::Error) -> Error {
        failure(error).at_place(&self.place)
    }
}

/// Why the file cannot be the store.
fn unopened(name: &str, cause: impl Display) -> StartError {
    StartError::failed(format!("{name}: {cause}"))
}

/// SQLite opens a file that it may not write for reading, and says so only to the first write. This must come before
/// any connection: to close a file drops the locks that the process has on it (<https://www.sqlite.org/howtocorrupt.html>).
fn check_writable(path: &Path) -> io::Result<()> {
    match File::options().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.map(drop),
    }
}

/// The connection that becomes the writer's. `name` is what messages call the file.
async fn connect(
    name: &str,
    options: &SqliteConnectOptions,
    timeout: Duration,
) -> Result<SqliteConnection, StartError> {
    let deadline = Instant::now() + timeout;
    let mut connection = loop {
        match options.connect().await {
            Ok(connection) => break connection,
            // The change to WAL needs the file for itself, and SQLite does not wait for that.
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
        let why = format!("its file system allows no WAL (journal mode is {mode}); is it a network share?");
        return Err(unopened(name, why));
    }
    Ok(connection)
}

/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>).
const BUSY: u32 = 5;
const NO_MEMORY: u32 = 7;
const INTERRUPTED: u32 = 9;
const IO_ERROR: u32 = 10;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;
/// Extended result codes of the same list: a row of that key is there already.
const TAKEN: [u32; 2] = [1555, 2067];

/// The extended result code of an error of SQLite itself.
fn extended_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// The primary result code of an error of SQLite itself.
fn code(error: &sqlx::Error) -> Option<u32> {
    extended_code(error).map(|extended| extended & 0xff)
}

/// What the caller is told of an error of the driver.
fn failure(error: sqlx::Error) -> Error {
    Error::new(kind(&error)).with_source(error)
}

fn kind(error: &sqlx::Error) -> Kind {
    match (error, code(error)) {
        (_, Some(BUSY | NO_MEMORY | INTERRUPTED | IO_ERROR | FULL | CANNOT_OPEN))
        | (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed, _) => {
            Kind::Unavailable
        }
        _ => Kind::Internal,
    }
}

fn document(collection: &Collection, row: &SqliteRow) -> Result<Document> {
    let id: String = row.try_get("id").map_err(failure)?;
    let version: i64 = row.try_get("version").map_err(failure)?;
    let text: &str = row.try_get("body").map_err(failure)?;
    let place = || format!("{} {id:?}", collection.name());
    let version = u64::try_from(version).map_err(|cause| damaged(place(), cause))?;
    let body = match json::parse(text.as_bytes()) {
        Ok(Value::Object(body)) => body,
        Ok(_) => return Err(damaged(place(), "it is not an object")),
        Err(cause) => return Err(damaged(place(), cause)),
    };
    Ok(Document { id, version, body: Arc::new(body) })
}

#[async_trait]
impl DocumentStore for SqliteStore {
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.prepare(collection).await?;
        let text = format!("SELECT id, version, body FROM {} WHERE id = ?", sql::table(collection));
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id);
        let row = query.fetch_optional(&self.readers).await.map_err(|error| self.failed(error))?;
        row.map(|row| document(collection, &row)).transpose()
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.prepare(collection).await?;
        let sql = Sql::find(collection, &query);
        let rows = sql.query().fetch_all(&self.readers).await.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| document(collection, row)).collect()
    }

    async fn count(&self, collection: &'static Collection, filter: Filter) -> Result<u64> {
        self.prepare(collection).await?;
        let sql = Sql::count(collection, &filter);
        let row = sql.query().fetch_one(&self.readers).await.map_err(|error| self.failed(error))?;
        let count: i64 = row.try_get(0).map_err(failure)?;
        u64::try_from(count).map_err(Error::internal)
    }

    async fn write(&self, collection: &'static Collection, write: Write) -> Result<Written> {
        self.prepare(collection).await?;
        self.perform(Task::Write(collection, write)).await
    }

    async fn ping(&self) -> Result<()> {
        let answer = sqlx::query("SELECT 1").fetch_one(&self.readers).await;
        answer.map(drop).map_err(|error| self.failed(error))
    }

    async fn close(&self) {
        self.readers.close().await;
        // The writer goes last, so that its checkpoint meets no reader and the file stands alone.
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests;

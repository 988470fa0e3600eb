//! The store in a PostgreSQL database, shared by any number of processes and machines.
//!
//! PostgreSQL itself filters, sorts and pages (`sql`, `field`, `number`); tables and indexes appear on first use
//! (`schema`); `writes` says how a write is atomic. A commit is on the disk when it returns, unless somebody has set
//! `synchronous_commit` otherwise. It needs PostgreSQL 12 or later, and a database in UTF8.
//!
//! No caller waits longer than `store.timeout`, whatever the server does, and a server that is down does not keep this
//! one from starting. The pool connects when a connection is wanted, so it recovers by itself.

mod field;
mod lease;
mod number;
mod schema;
mod sql;
mod writes;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, Connection, Row};

use super::query::{Filter, Query};
use super::write::{Write, WriteOutcome};
use super::{Collection, Document, DocumentStore, Settings, StoreUrl};
use crate::error::{Error, Kind, Result, StartError};
use lease::Lease;
use sql::{Sql, Texts};

/// A connection that was idle for longer is tested before it is used: the server may have been restarted meanwhile.
const TESTED_AFTER: Duration = Duration::from_secs(1);

/// The longest time that the tables and indexes of a collection may take. Only a network that fails at this moment,
/// without a sign of it, makes it matter.
const CREATION: Duration = Duration::from_secs(3600);

/// The parameters that the driver reads from a URL (`sqlx::postgres::PgConnectOptions`), and `options[NAME]`.
const PARAMETERS: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "statement-cache-capacity",
    "user",
];

/// Documents in tables, one for each collection.
pub(super) struct PostgresStore {
    /// The URL without its password, for messages.
    name: String,
    pool: PgPool,
    timeout: Duration,
    /// The collections whose table and indexes are known to exist.
    prepared: Arc<RwLock<HashSet<&'static Collection>>>,
    /// For each collection that is not: who holds the lock, prepares it.
    preparing: Mutex<HashMap<&'static Collection, Arc<tokio::sync::Mutex<()>>>>,
}

/// Reads a URL. The error has no secret.
pub(super) fn connect_options(url: &StoreUrl) -> Result<PgConnectOptions, String> {
    let query = url.expose().split_once('?').map_or("", |(_, query)| query);
    for (key, _) in form_urlencoded::parse(query.as_bytes()) {
        // The driver would log the value, and a slip in the key may make that a password.
        if !PARAMETERS.contains(&&*key) && !key.starts_with("options[") {
            // With an `@`, this is what a password has after a `?`.
            let key = if query.contains('@') { String::new() } else { format!(" '{key}'") };
            return Err(format!("unknown parameter{key}, expected one of {}", PARAMETERS.join(", ")));
        }
    }
    url.expose().parse().map_err(|error: sqlx::Error| error.to_string())
}

impl PostgresStore {
    /// Opens the store. A server that does not respond is an error of later calls; one that refuses the user or the
    /// database is an error now.
    pub(super) async fn open(url: &StoreUrl, settings: &Settings) -> Result<Self, StartError> {
        let name = format!("store {url}");
        let timeout = settings.timeout.get();
        let milliseconds = timeout.as_millis().to_string();
        let options = connect_options(url)
            .map_err(|why| StartError::config(format!("{name}: {why}")))?
            // So that the server gives up when the caller has: also a transaction of a process that was stopped.
            .options([
                ("statement_timeout", milliseconds.as_str()),
                ("idle_in_transaction_session_timeout", &milliseconds),
            ])
            .disable_statement_logging();
        check_server(&name, &options, timeout).await?;
        let pool = PgPoolOptions::new()
            .max_connections(u32::try_from(settings.postgres.connections.get()).unwrap_or(u32::MAX))
            .acquire_timeout(timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TESTED_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { name, pool, timeout, prepared: Arc::default(), preparing: Mutex::default() })
    }

    /// Runs a call for at most `store.timeout`, and adds the name of the store to its error.
    async fn call<R>(&self, work: impl Future<Output = Result<R>> + Send) -> Result<R> {
        let result = tokio::time::timeout(self.timeout, work).await;
        result
            .unwrap_or_else(|_| Err(Error::unavailable(format!("no response within {:?}", self.timeout))))
            .map_err(|error| error.with_context(&self.name))
    }

    async fn lease(&self) -> Result<Lease> {
        Lease::acquire(&self.pool).await.map_err(Error::unavailable)
    }

    /// A connection, after the table and the indexes of a collection have been created if they were missing.
    async fn lease_for(&self, collection: &'static Collection) -> Result<Lease> {
        if !self.is_prepared(collection) {
            self.prepare(collection).await?;
        }
        self.lease().await
    }

    fn is_prepared(&self, collection: &'static Collection) -> bool {
        self.prepared.read().unwrap_or_else(PoisonError::into_inner).contains(collection)
    }

    /// One caller prepares, the others wait for it.
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        let lock = {
            let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(preparing.entry(collection).or_default())
        };
        let guard = lock.lock_owned().await;
        if self.is_prepared(collection) {
            return Ok(());
        }
        let mut lease = self.lease().await?;
        let found = schema::find(&mut lease, collection).await;
        let found = found.map_err(store_error)?;
        found.check_encoding()?;
        if found.is_complete(collection) {
            lease.done();
            self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
            return Ok(());
        }
        let (prepared, name) = (Arc::clone(&self.prepared), self.name.clone());
        // A task of its own: a large index takes longer than a caller waits.
        let task = tokio::spawn(async move {
            let _guard = guard;
            let created = tokio::time::timeout(CREATION, schema::create(&mut lease, collection)).await;
            let result = match created {
                Ok(created) => created.map_err(store_error),
                Err(_) => Err(Error::unavailable(format!("not created within {CREATION:?}"))),
            };
            match &result {
                Ok(()) => {
                    lease.done();
                    prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
                }
                // Its caller may be gone.
                Err(error) => {
                    tracing::warn!(cause = error.cause(), "{name}: cannot create {}", collection.name());
                }
            }
            result
        });
        task.await.map_err(Error::internal)?
    }

    /// An error of a statement. A table that somebody has dropped is created again by the next call.
    fn failed(&self, collection: &'static Collection, error: sqlx::Error) -> Error {
        if code(&error).as_deref() == Some(UNDEFINED_TABLE) {
            self.prepared.write().unwrap_or_else(PoisonError::into_inner).remove(collection);
        }
        store_error(error)
    }

    async fn rows(&self, collection: &'static Collection, sql: Sql) -> Result<Vec<PgRow>> {
        let mut lease = self.lease_for(collection).await?;
        let rows = sql.query().fetch_all(&mut *lease).await;
        lease.ended(rows).map_err(|error| self.failed(collection, error))
    }
}

/// Connects once. A server that does not respond is logged; one that refuses us will not change its mind.
async fn check_server(name: &str, options: &PgConnectOptions, timeout: Duration) -> Result<(), StartError> {
    let cause = match tokio::time::timeout(timeout, options.connect()).await {
        Ok(Ok(connection)) => {
            // Whether it closed well does not matter.
            let _ = tokio::time::timeout(timeout, connection.close()).await;
            return Ok(());
        }
        Ok(Err(error)) if code(&error).is_some_and(|code| REFUSALS.contains(&&*code)) => {
            return Err(StartError::failed(format!("{name}: {error}")));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no response within {timeout:?}"),
    };
    tracing::warn!(cause, "{name} is not available; what needs it responds with 503 until it is");
    Ok(())
}

// Codes of PostgreSQL (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const UNDEFINED_TABLE: &str = "42P01";
const READ_ONLY: &str = "25006";
const IDLE_IN_TRANSACTION: &str = "25P03";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const SERIALIZATION: &str = "40001";
const DEADLOCK: &str = "40P01";
/// An unknown user, a wrong password, an unknown database.
const REFUSALS: [&str; 3] = ["28000", "28P01", "3D000"];
/// Classes: connection, insufficient resources (a full disk too), operator intervention (a shutdown, a statement that
/// took too long), system error, rollback.
const UNAVAILABLE: [&str; 5] = ["08", "53", "57", "58", "40"];

/// The code of an error of PostgreSQL itself.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// An error of the driver as an error of the store.
fn store_error(error: sqlx::Error) -> Error {
    let kind = match (&error, code(&error).as_deref()) {
        (_, Some(READ_ONLY | IDLE_IN_TRANSACTION | LOCK_NOT_AVAILABLE)) => Kind::Unavailable,
        (_, Some(code)) if UNAVAILABLE.iter().any(|class| code.starts_with(class)) => Kind::Unavailable,
        (
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed,
            _,
        ) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind).with_source(error)
}

/// The document in a row of `id`, `version` and `body`.
fn decode(collection: &Collection, row: &PgRow) -> Result<Document> {
    let id: String = row.try_get("id").map_err(store_error)?;
    let version: i64 = row.try_get("version").map_err(store_error)?;
    Document::from_row(collection, id, version, row.try_get("body").map_err(store_error)?)
}

#[async_trait]
impl DocumentStore for PostgresStore {
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.call(async {
            let rows = self.rows(collection, Sql::get(collection, id)).await?;
            rows.first().map(|row| decode(collection, row)).transpose()
        })
        .await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.call(async {
            let mut rows = Vec::new();
            let mut texts = Texts::Whole;
            // A sort that an index can serve.
            if query.sort.fields().iter().any(|(path, _)| collection.indexes().contains(&path.as_str())) {
                texts = Texts::ByKey;
                rows = self.rows(collection, Sql::find(collection, &query, texts)).await?;
            }
            let right = texts == Texts::ByKey && !rows.iter().any(|row| row.try_get("cut").unwrap_or(true));
            if !right {
                rows = self.rows(collection, Sql::find(collection, &query, Texts::Whole)).await?;
            }
            rows.iter().map(|row| decode(collection, row)).collect()
        })
        .await
    }

    async fn count(&self, collection: &'static Collection, filter: Filter) -> Result<u64> {
        self.call(async {
            let rows = self.rows(collection, Sql::count(collection, &filter)).await?;
            let count = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(0)).map_err(store_error)?;
            u64::try_from(count).map_err(Error::internal)
        })
        .await
    }

    async fn write(&self, collection: &'static Collection, write: Write) -> Result<WriteOutcome> {
        self.call(self.execute(collection, write)).await
    }

    async fn ping(&self) -> Result<()> {
        self.call(async {
            let mut lease = self.lease().await?;
            let pong = sqlx::query("SELECT 1").fetch_one(&mut *lease).await;
            lease.ended(pong).map(drop).map_err(store_error)
        })
        .await
    }

    async fn close(&self) {
        // It sends a message on each connection, for which a frozen server has no room.
        let _ = tokio::time::timeout(self.timeout, self.pool.close()).await;
    }
}

#[cfg(test)]
mod on_postgres;

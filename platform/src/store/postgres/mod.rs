//! The store in a PostgreSQL database, shared by any number of processes and machines.
//!
//! PostgreSQL itself filters, sorts and pages (`sql`, `field`, `number`); tables and indexes appear on first use
//! (`schema`); `writes` says how a write is atomic. A commit is on the disk when it returns, unless somebody has set
//! `synchronous_commit` otherwise. It needs PostgreSQL 12 or later, and a database in UTF8.
//!
//! No caller waits longer than `store.timeout`, whatever the server does, and a server that is down does not keep this
//! one from starting. The pool connects when a connection is wanted, so it recovers by itself.

mod batch;
mod checkout;
mod condition;
mod field;
mod names;
mod number;
mod restore;
mod schema;
mod sql;
mod unique;
mod writes;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::calls::{Calls, Unanswered};
use super::collections::of_collections;
use super::query::{Filter, Groups, Query, Scalar};
use super::settings::Settings;
use super::write::{Write, WriteOutcome};
use super::{BatchOutcome, Collection, Document, DocumentStore, Step, Token};
use crate::error::{Error, Kind, Result};
use checkout::Checkout;
use sql::{Columns, Sql, Texts};

/// A connection that was idle for longer is tested before it is used: the server may have been restarted meanwhile.
const TESTED_AFTER: Duration = Duration::from_secs(1);

/// A statement whose connection was closed, since its caller has gone away, ends so soon: also one that waits for a lock.
const END_ABANDONED: &str = "SELECT set_config(name, '500ms', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";

/// How often a server that has not responded yet is tried, beside the calls.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// The longest time that the tables and indexes of a collection may take. Only a network that fails at this moment,
/// without a sign of it, makes it matter.
const CREATION: Duration = Duration::from_hours(1);

/// Documents in tables, one for each collection.
pub(super) struct PostgresStore(Arc<Inner>);

struct Inner {
    calls: Calls,
    options: PgConnectOptions,
    pool: PgPool,
    /// For [`Services::postgres`](crate::services::Services::postgres): what is slow there takes no connection away from the DAO.
    way_out: PgPool,
    /// One connection, so that connections that are all in use are no outage.
    health: PgPool,
    /// Three quarters of the connections: writes may all wait for one lock, and reads still find a connection.
    writes: Semaphore,
    /// The collections whose table and indexes are known to exist.
    prepared: RwLock<HashSet<&'static Collection>>,
    /// For each collection that is not: who holds the lock, prepares it.
    preparing: Mutex<HashMap<&'static Collection, Arc<tokio::sync::Mutex<()>>>>,
}

impl PostgresStore {
    /// A store that connects at its first use, so that it opens while PostgreSQL is down. That is logged, and when it is
    /// up.
    pub(super) fn open(options: PgConnectOptions, settings: &Settings) -> Self {
        let calls = Calls::new(settings);
        let milliseconds = calls.timeout().as_millis().to_string();
        // So that PostgreSQL gives up when the caller has: also the transaction of a process that was stopped.
        let options = options
            .options([
                ("statement_timeout", &milliseconds),
                ("idle_in_transaction_session_timeout", &milliseconds),
            ])
            .disable_statement_logging();
        // Less than the caller waits, so that there is time for another connection.
        let patience = calls.timeout() / 4;
        let connections = u32::try_from(settings.postgres.connections.get()).unwrap_or(u32::MAX);
        let pool_of = PgPoolOptions::new()
            .max_connections(connections)
            // A bit less than the caller waits: then it knows that nothing was sent.
            .acquire_timeout(calls.timeout().mul_f32(0.9))
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // PostgreSQL before 14 does not have it, and some systems cannot do it.
                    let _ = sqlx::query(END_ABANDONED).execute(connection).await;
                    Ok(())
                })
            })
            .before_acquire(move |connection, meta| {
                Box::pin(async move {
                    let works = meta.idle_for < TESTED_AFTER
                        || matches!(tokio::time::timeout(patience, connection.ping()).await, Ok(Ok(())));
                    // If not, the pool opens another one.
                    Ok(works)
                })
            });
        let [pool, way_out] = [(); 2].map(|()| pool_of.clone().connect_lazy_with(options.clone()));
        let health = pool_of.max_connections(1).connect_lazy_with(options.clone());
        let connections = settings.postgres.connections.as_usize();
        let writes = Semaphore::new((connections - connections.div_ceil(4)).max(1));
        let (prepared, preparing) = (RwLock::default(), Mutex::default());
        let inner = Arc::new(Inner { calls, options, pool, way_out, health, writes, prepared, preparing });
        tokio::spawn(wait_until_it_responds(Arc::downgrade(&inner)));
        Self(inner)
    }
}

async fn wait_until_it_responds(store: Weak<Inner>) {
    while let Some(store) = store.upgrade() {
        // Not by the pool, whose error does not say why it has no connection.
        let connected = store.calls.call(async { store.options.connect().await.map_err(Error::unavailable) });
        if let Ok(connection) = connected.await {
            // Whether it closed well does not matter.
            let _ = tokio::time::timeout(store.calls.timeout(), connection.close()).await;
            return;
        }
        drop(store);
        tokio::time::sleep(CONNECT_AGAIN).await;
    }
}

impl Inner {
    /// Lets a write begin.
    async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        let permit = tokio::time::timeout(self.calls.timeout().mul_f32(0.9), self.writes.acquire()).await;
        let permit =
            permit.map_err(|_| Error::unavailable("as many writes as may are waiting for each other"))?;
        permit.map_err(Error::internal)
    }

    async fn checkout(&self) -> Result<Checkout> {
        Self::checkout_of(&self.pool).await
    }

    async fn checkout_of(pool: &PgPool) -> Result<Checkout> {
        Checkout::acquire(pool).await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => Error::unavailable(
                "no connection in time: it does not respond, or all of store.postgres.connections are in use",
            ),
            other => Error::unavailable(other),
        })
    }

    /// A connection, after the table and the indexes of a collection have been created if they were missing.
    async fn checkout_for(self: &Arc<Self>, collection: &'static Collection) -> Result<Checkout> {
        if !self.is_prepared(collection) {
            self.prepare(collection).await?;
        }
        self.checkout().await
    }

    fn is_prepared(&self, collection: &'static Collection) -> bool {
        self.prepared.read().unwrap_or_else(PoisonError::into_inner).contains(collection)
    }

    fn is_now_prepared(&self, collection: &'static Collection) {
        self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
    }

    /// One caller prepares, the others wait for it.
    async fn prepare(self: &Arc<Self>, collection: &'static Collection) -> Result<()> {
        let lock = {
            let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(preparing.entry(collection).or_default())
        };
        let guard = lock.lock_owned().await;
        if self.is_prepared(collection) {
            return Ok(());
        }
        let mut checkout = self.checkout().await?;
        let found = schema::find(&mut checkout, collection).await;
        let found = found.map_err(store_error)?;
        found.check_encoding()?;
        found.check_columns(collection)?;
        if found.is_complete(collection) {
            checkout.done();
            self.is_now_prepared(collection);
            return Ok(());
        }
        let store = Arc::clone(self);
        // A task of its own: a large index takes longer than a caller waits.
        let task = tokio::spawn(async move {
            let _guard = guard;
            let create = async {
                match schema::create(&mut checkout, collection, &found).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(unique::why_not_created(&mut checkout, collection, error).await),
                }
            };
            let result = match tokio::time::timeout(CREATION, create).await {
                Ok(created) => created,
                Err(_) => Err(Error::unavailable(format!("not created within {CREATION:?}"))),
            };
            match &result {
                Ok(()) => {
                    checkout.done();
                    store.is_now_prepared(collection);
                }
                // Its caller may be gone.
                Err(error) => {
                    tracing::warn!(target: "server", cause = error.cause(), "cannot create {}", collection.name());
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

    async fn rows(self: &Arc<Self>, collection: &'static Collection, sql: Sql) -> Result<Vec<PgRow>> {
        let mut checkout = self.checkout_for(collection).await?;
        let rows = sql.query().fetch_all(&mut *checkout).await;
        checkout.ended(rows).map_err(|error| self.failed(collection, error))
    }

    async fn get(self: &Arc<Self>, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        let rows = self.rows(collection, Sql::get(collection, id)).await?;
        rows.first().map(|row| decode(collection, row)).transpose()
    }

    async fn find(self: &Arc<Self>, collection: &'static Collection, query: &Query) -> Result<Vec<Document>> {
        let rows = self.rows_of(collection, query, Columns::Body).await?;
        rows.iter().map(|row| decode(collection, row)).collect()
    }

    /// The rows of a query.
    async fn rows_of(
        self: &Arc<Self>,
        collection: &'static Collection,
        query: &Query,
        columns: Columns<'_>,
    ) -> Result<Vec<PgRow>> {
        // A sort that an index can serve.
        if query.sort.fields().iter().any(|(path, _)| collection.indexes().contains(&path.as_str())) {
            let rows = self.rows(collection, Sql::find(collection, query, columns, Texts::ByKey)).await?;
            if !rows.iter().any(|row| row.try_get("cut").unwrap_or(true)) {
                return Ok(rows);
            }
        }
        self.rows(collection, Sql::find(collection, query, columns, Texts::Whole)).await
    }

    async fn find_fields(
        self: &Arc<Self>,
        collection: &'static Collection,
        query: &Query,
        paths: &[String],
    ) -> Result<Vec<Document>> {
        let fields = Columns::Fields(paths);
        let rows = self.rows_of(collection, query, fields).await?;
        rows.iter().map(|row| decode_fields(collection, row, paths)).collect()
    }

    async fn count_by(
        self: &Arc<Self>,
        collection: &'static Collection,
        filter: &Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        let mut groups = Groups::default();
        for row in self.rows(collection, Sql::count_by(collection, filter, path, limit)).await? {
            let value: Option<String> = row.try_get(0).map_err(store_error)?;
            let count: i64 = row.try_get(1).map_err(store_error)?;
            groups.add_text(value.as_deref(), count)?;
        }
        Ok(groups.first(limit))
    }

    async fn count(
        self: &Arc<Self>,
        collection: &'static Collection,
        filter: &Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        let rows = self.rows(collection, Sql::count(collection, filter, bound)).await?;
        let count = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(0)).map_err(store_error)?;
        u64::try_from(count).map_err(Error::internal)
    }

    async fn ping(&self) -> Result<()> {
        let mut checkout = Self::checkout_of(&self.health).await?;
        let pong = sqlx::query("SELECT 1").fetch_one(&mut *checkout).await;
        checkout.ended(pong).map(drop).map_err(store_error)
    }
}

// Codes of PostgreSQL (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const UNDEFINED_TABLE: &str = "42P01";
const UNIQUE_VIOLATION: &str = "23505";
const READ_ONLY: &str = "25006";
const IDLE_IN_TRANSACTION: &str = "25P03";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const SERIALIZATION: &str = "40001";
const DEADLOCK: &str = "40P01";
/// Classes: connection, insufficient resources (a full disk too), operator intervention (a shutdown, a statement that
/// took too long), system error, rollback.
const UNAVAILABLE: [&str; 5] = ["08", "53", "57", "58", "40"];

/// The code of an error of PostgreSQL itself.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// An error of the driver as an error of the store.
pub(super) fn store_error(error: sqlx::Error) -> Error {
    if let sqlx::Error::Io(_) | sqlx::Error::Protocol(_) = &error {
        return Error::unavailable(Unanswered(error.to_string()));
    }
    let kind = match (&error, code(&error).as_deref()) {
        (_, Some(READ_ONLY | IDLE_IN_TRANSACTION | LOCK_NOT_AVAILABLE)) => Kind::Unavailable,
        (_, Some(code)) if UNAVAILABLE.iter().any(|class| code.starts_with(class)) => Kind::Unavailable,
        (
            sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed,
            _,
        ) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::of_dependency(kind, error)
}

/// The document in a row of `id`, `version`, `token` and `body`.
fn decode(collection: &Collection, row: &PgRow) -> Result<Document> {
    let id: String = row.try_get("id").map_err(store_error)?;
    let version: i64 = row.try_get("version").map_err(store_error)?;
    let token: i64 = row.try_get("token").map_err(store_error)?;
    Document::from_row(collection, id, version, token, row.try_get("body").map_err(store_error)?)
}

/// The document in a row of `id`, `version`, `token`, and the JSON text of the value at each path.
fn decode_fields(collection: &Collection, row: &PgRow, paths: &[String]) -> Result<Document> {
    let id: String = row.try_get("id").map_err(store_error)?;
    let version: i64 = row.try_get("version").map_err(store_error)?;
    let token: i64 = row.try_get("token").map_err(store_error)?;
    let value = |(index, path)| Ok((path, row.try_get(index + 3).map_err(store_error)?));
    let values: Vec<(&String, Option<String>)> =
        paths.iter().enumerate().map(value).collect::<Result<_>>()?;
    Document::from_values(collection, id, version, token, values)
}

#[async_trait]
impl DocumentStore for PostgresStore {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        if self.0.is_prepared(collection) {
            return Ok(());
        }
        self.0.calls.call(self.0.prepare(collection)).await
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.0.calls.call(self.0.get(collection, id)).await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.0.calls.call(self.0.find(collection, &query)).await
    }

    async fn find_fields(
        &self,
        collection: &'static Collection,
        query: Query,
        paths: &[String],
    ) -> Result<Vec<Document>> {
        self.0.calls.call(self.0.find_fields(collection, &query, paths)).await
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        self.0.calls.call(self.0.count(collection, &filter, bound)).await
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        self.0.calls.call(self.0.count_by(collection, &filter, path, limit)).await
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        self.0.calls.write(self.0.write(collection, &write, token)).await
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        self.0.calls.write(self.0.batch(&steps)).await
    }

    async fn collections(&self) -> Result<Vec<String>> {
        self.0.calls.call(self.0.tables()).await.map(of_collections)
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        self.0.calls.call(self.0.restore(collection, &documents)).await
    }

    fn postgres(&self) -> Option<PgPool> {
        Some(self.0.way_out.clone())
    }

    async fn ping(&self) -> Result<()> {
        self.0.calls.call(self.0.ping()).await
    }

    async fn close(&self) {
        // It sends a message on each connection, for which a frozen server has no room.
        let Inner { calls, pool, way_out, health, .. } = &*self.0;
        let closed = async { tokio::join!(pool.close(), way_out.close(), health.close()) };
        let _ = tokio::time::timeout(calls.timeout(), closed).await;
    }
}

#[cfg(test)]
mod on_postgres;

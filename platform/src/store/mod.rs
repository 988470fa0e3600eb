//! The document store: the trait that every engine implements, and the choice of the engine.
//!
//! A slice uses only [`Dao`] and the types of `query`. [`query`] defines what a query means; `memory` is the reference
//! implementation, and every other engine must give the same results (`platform/tests/suite/store_contract`). No code
//! outside this folder names an engine.

pub mod batch;
pub mod bulk;
#[cfg(any(feature = "mongodb", feature = "postgres"))]
mod calls;
mod collections;
mod cursor;
pub mod dao;
pub mod document;
pub mod drivers;
mod edit;
mod fields;
mod json_file;
mod listing;
mod local_path;
mod measured;
mod memory;
mod migration;
#[cfg(feature = "mongodb")]
mod mongodb;
mod mongodb_url;
mod patch;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_url;
pub mod query;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod step;
mod unique;
#[cfg(any(feature = "mongodb", feature = "postgres"))]
mod url_query;
pub mod write;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result, StartError};

pub use batch::{Batch, RefusedStep};
pub use dao::{Dao, Entity, new_id};
pub use document::{Document, Token};
pub use edit::Edit;
pub use fields::Fields;
pub use listing::{Chunk, Listing, Stored, Total, Upserted};
pub use migration::{Declared, Migration};
pub use mongodb_url::{MongodbParts, WrongPart, mongodb_url};
pub use patch::Patch;
pub use query::{Direction, Filter, Page, Query, Scalar, Sort, field};
pub use settings::{MongodbSettings, PostgresSettings, Settings, SqliteSettings, StoreUrl};
pub use step::{Action, BatchOutcome, Step};
pub use write::{Change, Expected, Write, WriteOutcome};

/// A named set of documents, with the paths that have an index, and those that are unique.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Collection {
    name: &'static str,
    indexes: &'static [&'static str],
    unique: &'static [&'static str],
}

impl Collection {
    /// A collection. Call it in a `const`: then a wrong name is a compile error.
    ///
    /// # Panics
    /// When the name is not 1 to 40 of `a-z 0-9 _` beginning with a letter, when it begins with `sqlite_` or `pg_` (which
    /// SQLite and PostgreSQL use themselves), or when an index is not a path (see [`query`]). Such a name is a valid SQL
    /// identifier and file name everywhere, and leaves room for the longer names of indexes: PostgreSQL allows 63 bytes.
    pub const fn new(name: &'static str, indexes: &'static [&'static str]) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 40, "the name of a collection has 1 to 40 characters");
        assert!(bytes[0].is_ascii_lowercase(), "the name of a collection begins with a lower-case letter");
        let mut at = 0;
        while at < bytes.len() {
            let known = bytes[at].is_ascii_lowercase() || bytes[at].is_ascii_digit() || bytes[at] == b'_';
            assert!(known, "the name of a collection is made of a-z, 0-9 and _");
            at += 1;
        }
        assert!(!matches!(bytes, [b's', b'q', b'l', b'i', b't', b'e', b'_', ..]), "sqlite_ is reserved");
        assert!(!matches!(bytes, [b'p', b'g', b'_', ..]), "pg_ is reserved");
        let mut at = 0;
        while at < indexes.len() {
            assert!(query::is_path(indexes[at]), "an index is a path such as address.city");
            at += 1;
        }
        Self { name, indexes, unique: &[] }
    }

    /// This collection with unique paths: no two documents have the same value at one of them, as [`query`] defines
    /// equality. Null, a missing field, an object and an array never clash. A path that queries use belongs into the
    /// indexes too.
    ///
    /// # Panics
    /// When one is not a path (see [`query`]).
    #[must_use]
    pub const fn unique(mut self, paths: &'static [&'static str]) -> Self {
        let mut at = 0;
        while at < paths.len() {
            assert!(query::is_path(paths[at]), "a unique path is a path such as address.city");
            at += 1;
        }
        self.unique = paths;
        self
    }

    /// The name of the collection, and of its table or folder.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The paths that have an index, in engines with indexes.
    pub fn indexes(&self) -> &'static [&'static str] {
        self.indexes
    }

    /// The paths at which no two documents have the same value.
    pub fn unique_paths(&self) -> &'static [&'static str] {
        self.unique
    }
}

/// What an engine implements. Only [`Dao`] calls it, and has checked every argument.
///
/// The first call that names a collection creates it, with its indexes. Every [`Write`] is atomic: others see all of
/// it or nothing, and no other write happens between its read and its write (`json_file` and `mongodb` say where
/// others see the middle of a write of several documents). When a write has returned, it is on the disk of an engine
/// that has one.
///
/// Every method fails with `Unavailable` when the engine does not respond in time, and with `Internal` when what it
/// holds is damaged; but a query of `json_file` leaves a damaged document out.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// Creates the collection and its indexes if they are missing. Fails with `Internal` when two stored documents have the
    /// same value at a unique path; the cause names the collection, the path and both ids.
    async fn prepare(&self, collection: &'static Collection) -> Result<()>;

    /// The document of this id.
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>>;

    /// The documents that match a query, in its order.
    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>>;

    /// The documents that match a query, in its order, with these fields only.
    async fn find_fields(
        &self,
        collection: &'static Collection,
        query: Query,
        paths: &[String],
    ) -> Result<Vec<Document>> {
        let found = self.find(collection, query).await?;
        Ok(found.into_iter().map(|document| document.only(paths)).collect())
    }

    /// How many documents match; it may stop counting at a bound.
    async fn count(&self, collection: &'static Collection, filter: Filter, bound: Option<u64>)
    -> Result<u64>;

    /// How many of the documents that match have each value at a path: the most frequent values first, then in the order
    /// of a sort, at most `limit` of them. Equal values are one group; an object or an
    /// array is in none.
    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>>;

    /// Changes documents. [`Write`] and [`Token`] say when a write is refused. The checks and the write are one atomic step.
    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome>;

    /// Changes documents without a token.
    async fn write(&self, collection: &'static Collection, write: Write) -> Result<WriteOutcome> {
        self.guarded_write(collection, write, None).await
    }

    /// Performs the steps of a batch in order, as one atomic write: all or none. `Internal` when
    /// [`DocumentStore::check_batches`] is.
    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome>;

    /// Succeeds when the engine can perform batches. `Internal`, with the remedy as its cause, when it cannot.
    async fn check_batches(&self) -> Result<()> {
        Ok(())
    }

    /// The names of all collections that the store holds, sorted, also of those that the app does not declare. What is not
    /// of the form that this program creates is left out.
    async fn collections(&self) -> Result<Vec<String>>;

    /// Fails with `Internal` when a query leaves documents of this collection out, because they are damaged; the cause names
    /// one. For who must see all of them.
    async fn check_readable(&self, _collection: &'static Collection) -> Result<()> {
        Ok(())
    }

    /// Stores documents exactly as they are, with their versions, in the place of those that have their ids. For a copy
    /// into a store that nobody else writes to, with each id once: each document is written as a whole, all of them together may not be. It
    /// can be repeated.
    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()>;

    /// See [`Services::sqlite`](crate::services::Services::sqlite).
    #[cfg(feature = "sqlite")]
    fn sqlite(&self) -> Option<sqlx::SqlitePool> {
        None
    }

    /// See [`Services::postgres`](crate::services::Services::postgres).
    #[cfg(feature = "postgres")]
    fn postgres(&self) -> Option<sqlx::PgPool> {
        None
    }

    /// See [`Services::mongodb`](crate::services::Services::mongodb).
    #[cfg(feature = "mongodb")]
    async fn mongodb(&self) -> Result<Option<::mongodb::Database>> {
        Ok(None)
    }

    /// Checks that the engine responds.
    async fn ping(&self) -> Result<()>;

    /// Completes the queued writes and closes the files. Later calls fail with `Unavailable`; an engine without files
    /// may go on as before.
    async fn close(&self);
}

/// Opens the store that the settings name. Refuses `memory:` for several processes, which could not share it.
pub async fn open(settings: &Settings, processes: u64) -> Result<Arc<dyn DocumentStore>, StartError> {
    settings.url.check_shared(processes)?;
    match settings::Engine::of(&settings.url)? {
        settings::Engine::Memory => Ok(Arc::new(memory::MemoryStore::default())),
        settings::Engine::File(folder) => {
            Ok(Arc::new(json_file::JsonFileStore::open(folder, settings.timeout.get()).await?))
        }
        #[cfg(feature = "sqlite")]
        settings::Engine::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(path, settings).await?)),
        #[cfg(feature = "mongodb")]
        settings::Engine::Mongodb(url, ignored) => {
            warn_of(&ignored);
            Ok(Arc::new(mongodb::MongodbStore::open(*url, settings)))
        }
        #[cfg(feature = "postgres")]
        settings::Engine::Postgres(server, ignored) => {
            warn_of(&ignored);
            Ok(Arc::new(postgres::PostgresStore::open(*server, settings)))
        }
    }
}

/// Names what a URL says to no effect.
#[cfg(any(feature = "mongodb", feature = "postgres"))]
fn warn_of(ignored: &[String]) {
    if !ignored.is_empty() {
        let parameters = ignored.join(" ");
        tracing::warn!(target: "server", parameters, "store.url: the driver does not have these parameters: they are ignored");
    }
}

/// The same store, whose calls are counted.
pub fn measured(store: Arc<dyn DocumentStore>, settings: &Settings) -> Arc<dyn DocumentStore> {
    let engine = settings::Engine::of(&settings.url).map_or("", |engine| engine.name());
    Arc::new(measured::Measured { inner: store, engine })
}

/// The error of a table that has the name of a collection and is somebody else's: nothing is changed in it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn foreign_table(collection: &Collection) -> Error {
    Error::internal(format!(
        "the table {:?} of this database is not one of documents: it has no columns id, version and body. Give \
         `Entity::COLLECTION` another name, or the store another database",
        collection.name()
    ))
}

/// A stored document that cannot be read; `document` says which.
fn damaged(document: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
    Error::internal(format!("{document} is damaged: {cause}"))
}

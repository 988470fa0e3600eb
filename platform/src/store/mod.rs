//! The document store: the trait that every engine implements, and the choice of the engine.
//!
//! A slice uses only [`Dao`] and the types of `query`. [`query`] defines what a query means; `memory` is the reference
//! implementation, and every other engine must give the same results (`platform/tests/suite/store_contract`). No code
//! outside this folder names an engine.

#[cfg(any(feature = "mongodb", feature = "postgres"))]
mod calls;
pub mod dao;
pub mod document;
mod fields;
mod json_file;
mod memory;
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
pub mod write;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result, StartError};

pub use dao::{Chunk, Dao, Entity, Stored};
pub use document::Document;
pub use fields::Fields;
pub use mongodb_url::{MongodbParts, WrongPart, mongodb_url};
pub use patch::Patch;
pub use query::{Filter, Page, Query, Scalar, Sort, field};
pub use settings::{MongodbSettings, PostgresSettings, Settings, SqliteSettings, StoreUrl};
pub use write::{Change, Expected, Write, WriteOutcome};

/// A named set of documents, with the paths that have an index.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Collection {
    name: &'static str,
    indexes: &'static [&'static str],
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
        Self { name, indexes }
    }

    /// The name of the collection, and of its table or folder.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The paths that have an index, in engines with indexes.
    pub fn indexes(&self) -> &'static [&'static str] {
        self.indexes
    }
}

/// What an engine implements. Only [`Dao`] calls it, and has checked every argument.
///
/// The first call that names a collection creates it, with its indexes. Every [`Write`] is atomic: others see all of
/// it or nothing, and no other write happens between its read and its write (`json_file` and `mongodb` say where they
/// cannot do that for several documents). When a write has returned, it is on the disk of an engine that has one.
///
/// Every method fails with `Unavailable` when the engine does not respond in time, and with `Internal` when what it
/// holds is damaged.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// The document of this id.
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>>;

    /// The documents that match a query, in its order.
    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>>;

    /// How many documents match.
    async fn count(&self, collection: &'static Collection, filter: Filter) -> Result<u64>;

    /// Changes documents. [`Write`] says when each write is refused.
    async fn write(&self, collection: &'static Collection, write: Write) -> Result<WriteOutcome>;

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
        settings::Engine::Mongodb(url) => Ok(Arc::new(mongodb::MongodbStore::open(*url, settings))),
        #[cfg(feature = "postgres")]
        settings::Engine::Postgres(server) => Ok(Arc::new(postgres::PostgresStore::open(*server, settings))),
    }
}

/// A stored document that cannot be read; `document` says which.
fn damaged(document: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
    Error::internal(format!("{document} is damaged: {cause}"))
}

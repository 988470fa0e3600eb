//! Documents behind one seam: the trait that every engine implements, and the choice of the engine.
//!
//! A slice sees [`Dao`] and the types of `query` alone. The meaning of a query is written down in [`query`];
//! `memory` is its model, and every other engine must answer as it does (`tests/suite/platform`). No engine
//! may be named outside this folder.

pub mod dao;
pub mod document;
mod fields;
mod json_file;
mod memory;
mod mongodb_url;
pub mod query;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod write;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result, StartError};

pub use dao::{Chunk, Dao, Entity, Stored};
pub use document::{Body, Document};
pub use mongodb_url::{MongodbParts, WrongPart, mongodb_url};
pub use query::{Filter, Page, Query, Scalar, Sort, field};
pub use settings::{Settings, SqliteSettings, StoreUrl};
pub use write::{Change, Expected, Patch, Write, Written};

/// A named set of documents and the paths that its queries use.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Collection {
    name: &'static str,
    indexes: &'static [&'static str],
}

impl Collection {
    /// A collection; made in a `const`, so that a bad name does not compile.
    ///
    /// # Panics
    /// When the name is not 1 to 40 of `a-z 0-9 _` beginning with a letter (an SQL identifier and a file name
    /// everywhere; 63 bytes is PostgreSQL's limit, and index names are longer than this one), when it begins
    /// with `sqlite_` (reserved), or when an index is not a path (see [`query`]).
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
        let mut at = 0;
        while at < indexes.len() {
            assert!(query::is_path(indexes[at]), "an index is a path such as address.city");
            at += 1;
        }
        Self { name, indexes }
    }

    /// The name of the table, folder or map.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The paths that have an index where the engine has indexes.
    pub fn indexes(&self) -> &'static [&'static str] {
        self.indexes
    }
}

/// What an engine implements; its one caller is [`Dao`], which has checked every argument.
///
/// A collection is made, with its indexes, by the first call that names it. Every [`Write`] is atomic: others
/// see all of it or nothing, and no write of another comes between its reading and its writing. A write that
/// has been answered is on the disk of an engine that has one.
///
/// Every method fails with `Unavailable` when the engine cannot answer in time, and with `Internal` when what
/// it holds is damaged.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// The document of this id.
    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>>;

    /// The documents of a query, in its order.
    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>>;

    /// How many documents match.
    async fn count(&self, collection: &'static Collection, filter: Filter) -> Result<u64>;

    /// Changes documents; what each write refuses is written at [`Write`].
    async fn write(&self, collection: &'static Collection, write: Write) -> Result<Written>;

    /// Whether the engine answers now.
    async fn ping(&self) -> Result<()>;

    /// Finishes the writes that wait, and lets go of the files. Later calls fail with `Unavailable`, or do
    /// as before where there is nothing to let go of.
    async fn close(&self);
}

/// Opens the store of the settings. `memory:` is refused when several processes are to share it.
pub async fn open(settings: &Settings, processes: u64) -> Result<Arc<dyn DocumentStore>, StartError> {
    settings.url.check_shared(processes)?;
    match settings::Engine::of(&settings.url)? {
        settings::Engine::Memory => Ok(Arc::new(memory::MemoryStore::default())),
        settings::Engine::File(folder) => {
            Ok(Arc::new(json_file::JsonFileStore::open(folder, settings.timeout.get()).await?))
        }
        #[cfg(feature = "sqlite")]
        settings::Engine::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(path, settings).await?)),
    }
}

/// A document that an engine holds and cannot read.
fn damaged(place: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
    Error::internal(format!("{place} is damaged: {cause}"))
}

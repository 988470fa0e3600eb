//! The store in MongoDB, shared by processes of many machines.
//!
//! It uses classic operators and, except for a `batch`, no transaction, so a stand-alone `mongod` will do (4.4 or later). A write reads the
//! document, changes it here, and replaces it if it is still the same (`writes`); several documents are inserted
//! invisible and made visible together (`pending`). `DeleteAll` deletes one document after the other: a query at the same
//! time may see some of them, and a crash may leave some. MongoDB itself filters, sorts and pages (`query`).

mod batch;
mod convert;
mod pending;
mod query;
mod restore;
mod server;
mod unique;
mod writes;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::raw::RawBsonRef;
use mongodb::bson::{Bson, Document as Bdoc, RawDocumentBuf, doc};
use mongodb::options::{ConnectionString, IndexOptions};
use mongodb::{Cursor, IndexModel};

use super::collections::of_collections;
use super::query::{Filter, Groups, Page, Query, Scalar};
use super::settings::Settings;
use super::write::{Write, WriteOutcome};
use super::{BatchOutcome, Collection, Document, DocumentStore, Step, Token};
use crate::error::{Error, Kind, Result};
use convert::{Found, ID, PENDING, decode};
use pending::View;
use server::Server;
pub(super) use server::store_error;

/// How often a store that has not responded yet is tried, beside the calls.
const PING_AGAIN: Duration = Duration::from_secs(1);

/// A collection of MongoDB.
type Stored = mongodb::Collection<RawDocumentBuf>;

/// Documents in collections of MongoDB.
pub(super) struct MongodbStore(Arc<Inner>);

struct Inner {
    server: Server,
    /// The collections whose indexes are known to exist.
    prepared: RwLock<HashSet<&'static Collection>>,
    /// Who holds the lock, creates unique indexes.
    indexing: Arc<tokio::sync::Mutex<()>>,
    /// Set when the server is known to have transactions.
    transactions: OnceLock<()>,
}

impl MongodbStore {
    /// A store that connects at its first use, so that it opens while MongoDB is down. That is logged, and when it is up.
    pub(super) fn open(url: ConnectionString, settings: &Settings) -> Self {
        let (server, prepared) = (Server::new(url, settings), RwLock::default());
        let (indexing, transactions) = (Arc::default(), OnceLock::new());
        let inner = Arc::new(Inner { server, prepared, indexing, transactions });
        tokio::spawn(wait_until_it_responds(Arc::downgrade(&inner)));
        Self(inner)
    }
}

async fn wait_until_it_responds(store: Weak<Inner>) {
    while let Some(store) = store.upgrade() {
        match store.server.call(store.ping()).await {
            Err(error) if error.kind() == Kind::Unavailable => {}
            _ => return,
        }
        drop(store);
        tokio::time::sleep(PING_AGAIN).await;
    }
}

impl Inner {
    /// The collection of MongoDB; creates it and its indexes if they are missing. Each process checks once. Several
    /// processes may do it at the same time: to create an index that exists is no error.
    async fn prepared(&self, collection: &'static Collection) -> Result<Stored> {
        let stored = self.server.database().await?.collection(collection.name());
        if self.prepared.read().unwrap_or_else(PoisonError::into_inner).contains(collection) {
            return Ok(stored);
        }
        let indexes = query::indexes(collection).into_iter().map(|(keys, sparse)| {
            let options = IndexOptions::builder().sparse(sparse.then_some(true)).build();
            IndexModel::builder().keys(keys).options(options).build()
        });
        stored.create_indexes(indexes).await.map_err(store_error)?;
        self.finish_abandoned(&stored).await?;
        self.create_unique(collection, &stored).await?;
        self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(collection);
        Ok(stored)
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        let stored = self.prepared(collection).await?;
        let found = stored.find_one(doc! { ID: id, PENDING: Bson::Null }).await.map_err(store_error)?;
        found.map(|raw| Ok(decode(collection, &raw)?.document)).transpose()
    }

    async fn find(
        &self,
        collection: &'static Collection,
        query: &Query,
        paths: Option<&[String]>,
    ) -> Result<Vec<Document>> {
        // To MongoDB, 0 is no limit.
        let Some((skip, _)) = bounds(query.page) else { return Ok(Vec::new()) };
        let stored = self.prepared(collection).await?;
        if skip > 0 {
            // Pending documents must not be skipped. So they cannot be noticed either.
            let visible = query::visible(&query.filter);
            return Ok(documents(read(collection, &stored, query, visible, paths).await?));
        }
        let mut view = View::default();
        loop {
            let condition = view.condition(&query.filter);
            let found = read(collection, &stored, query, condition, paths).await?;
            let pending = found.iter().filter_map(|found| found.pending);
            if self.is_consistent(&stored, &mut view, pending).await? {
                return Ok(documents(found));
            }
        }
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: &Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        // To MongoDB, 0 is no limit.
        if bound == Some(0) {
            return Ok(0);
        }
        let stored = self.prepared(collection).await?;
        let mut view = View::default();
        loop {
            let group = doc! { "$group": { ID: format!("${PENDING}"), "count": { "$sum": 1_i64 } } };
            let limit = bound.map(|bound| doc! { "$limit": i64::try_from(bound).unwrap_or(i64::MAX) });
            let matching = doc! { "$match": view.condition(filter) };
            let groups = stored.aggregate(std::iter::once(matching).chain(limit).chain([group]));
            let mut groups = groups.await.map_err(store_error)?;
            let (mut count, mut pending) = (0, Vec::new());
            while groups.advance().await.map_err(store_error)? {
                let group = groups.current();
                match group.get(ID).map_err(Error::internal)? {
                    Some(RawBsonRef::ObjectId(write)) => pending.push(write),
                    _ => count = whole(group.get("count").map_err(Error::internal)?),
                }
            }
            if self.is_consistent(&stored, &mut view, pending).await? {
                return Ok(count);
            }
        }
    }

    /// Only of visible documents: so it may be that of the middle of an insert of several.
    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: &Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let stored = self.prepared(collection).await?;
        let mut found = stored.aggregate(query::count_by(filter, path, limit)).await.map_err(store_error)?;
        let mut groups = Groups::default();
        while found.advance().await.map_err(store_error)? {
            let group = found.current();
            let value = group.get(ID).map_err(Error::internal)?.map(convert::from_bson).transpose();
            let count = whole(group.get("count").map_err(Error::internal)?);
            groups.add_value(value.map_err(Error::internal)?.as_ref(), count);
        }
        Ok(groups.first(limit))
    }

    /// The first document, by id, that matches.
    async fn first(
        &self,
        collection: &'static Collection,
        stored: &Stored,
        filter: &Filter,
    ) -> Result<Option<Found>> {
        let found =
            stored.find_one(query::visible(filter)).sort(doc! { ID: 1 }).await.map_err(store_error)?;
        found.map(|raw| decode(collection, &raw)).transpose()
    }

    async fn ping(&self) -> Result<()> {
        let pong = self.server.database().await?.run_command(doc! { "ping": 1 }).await;
        pong.map(drop).map_err(store_error)
    }
}

/// How many documents are skipped and how many follow, for MongoDB; `None` when the page is empty.
fn bounds(page: Page) -> Option<(u64, Option<i64>)> {
    let beyond = i64::try_from(page.offset).is_err();
    if beyond || page.limit == Some(0) {
        return None;
    }
    Some((page.offset, page.limit.and_then(|limit| i64::try_from(limit).ok())))
}

/// The documents that meet a condition, visible or pending, in the order of a query.
async fn read(
    collection: &Collection,
    stored: &Stored,
    query: &Query,
    condition: Bdoc,
    paths: Option<&[String]>,
) -> Result<Vec<Found>> {
    let Some((skip, limit)) = bounds(query.page) else { return Ok(Vec::new()) };
    let mut find = stored.find(condition.clone()).sort(query::order(&query.sort)).allow_disk_use(true);
    if let Some(paths) = paths {
        find = find.projection(query::projection(paths, &query.sort));
    }
    if skip > 0 {
        find = find.skip(skip);
    }
    if let Some(limit) = limit {
        find = find.limit(limit);
    }
    let found = collect(collection, find.await.map_err(store_error)?).await?;
    if !found.iter().any(|found| query.sort.has_compound(&found.document)) {
        return Ok(found);
    }
    let sorted = stored.aggregate(query::pipeline(query, condition)).allow_disk_use(true);
    collect(collection, sorted.with_type::<RawDocumentBuf>().await.map_err(store_error)?).await
}

async fn collect(collection: &Collection, mut cursor: Cursor<RawDocumentBuf>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    while cursor.advance().await.map_err(store_error)? {
        found.push(decode(collection, cursor.current())?);
    }
    Ok(found)
}

fn documents(found: Vec<Found>) -> Vec<Document> {
    found.into_iter().map(|found| found.document).collect()
}

/// A count, in either type of integer.
fn whole(value: Option<RawBsonRef<'_>>) -> u64 {
    let number = match value {
        Some(RawBsonRef::Int32(number)) => i64::from(number),
        Some(RawBsonRef::Int64(number)) => number,
        _ => 0,
    };
    u64::try_from(number).unwrap_or_default()
}

#[async_trait]
impl DocumentStore for MongodbStore {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        self.0.server.call(async { self.0.prepared(collection).await.map(drop) }).await
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.0.server.call(self.0.get(collection, id)).await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.0.server.call(self.0.find(collection, &query, None)).await
    }

    async fn find_fields(
        &self,
        collection: &'static Collection,
        query: Query,
        paths: &[String],
    ) -> Result<Vec<Document>> {
        let found = self.0.server.call(self.0.find(collection, &query, Some(paths))).await?;
        // The paths of the sort are in them too.
        Ok(found.into_iter().map(|document| document.only(paths)).collect())
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        self.0.server.call(self.0.count(collection, &filter, bound)).await
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        self.0.server.call(self.0.count_by(collection, &filter, path, limit)).await
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        self.0.server.write(self.0.write(collection, write, token)).await
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        self.0.server.write(self.0.batch(&steps)).await
    }

    async fn check_batches(&self) -> Result<()> {
        self.0.server.call(self.0.check_transactions()).await
    }

    async fn collections(&self) -> Result<Vec<String>> {
        self.0.server.call(self.0.names()).await.map(of_collections)
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        self.0.server.call(self.0.restore(collection, &documents)).await
    }

    async fn mongodb(&self) -> Result<Option<mongodb::Database>> {
        self.0.server.call(async { self.0.server.database().await.cloned() }).await.map(Some)
    }

    async fn ping(&self) -> Result<()> {
        self.0.server.call(self.0.ping()).await
    }

    async fn close(&self) {
        self.0.server.close().await;
    }
}

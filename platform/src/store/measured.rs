//! A store whose calls are counted, around any other one.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::{
    BatchOutcome, Collection, Document, DocumentStore, Filter, Query, Scalar, Step, Token, Write,
    WriteOutcome,
};
use crate::error::Result;

/// The store inside, and the name of its engine.
pub(super) struct Measured {
    pub(super) inner: Arc<dyn DocumentStore>,
    pub(super) engine: &'static str,
}

impl Measured {
    /// Counts one call, and how it ended.
    async fn time<T>(
        &self,
        operation: &'static str,
        collection: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let result = call.await;
        // The status tells a conflict, which a caller has asked for, from an outage.
        let outcome =
            result.as_ref().map_or_else(|error| error.kind().status().to_string(), |_| "ok".to_owned());
        metrics::histogram!(
            "db_client_operation_duration_seconds",
            "db_collection_name" => collection,
            "db_operation_name" => operation,
            "db_system_name" => self.engine,
            "outcome" => outcome
        )
        .record(begun.elapsed());
        result
    }
}

fn name_of(write: &Write) -> &'static str {
    match write {
        Write::Insert(_) => "insert",
        Write::Change { .. } => "update",
        Write::Upsert { .. } => "upsert",
        Write::DeleteAll(_) => "delete",
    }
}

#[async_trait]
impl DocumentStore for Measured {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        self.inner.prepare(collection).await
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.time("get", collection.name(), self.inner.get(collection, id)).await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        self.time("find", collection.name(), self.inner.find(collection, query)).await
    }

    async fn find_fields(
        &self,
        collection: &'static Collection,
        query: Query,
        paths: &[String],
    ) -> Result<Vec<Document>> {
        self.time("find", collection.name(), self.inner.find_fields(collection, query, paths)).await
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        self.time("count", collection.name(), self.inner.count(collection, filter, bound)).await
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        self.time("count", collection.name(), self.inner.count_by(collection, filter, path, limit)).await
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        let operation = name_of(&write);
        self.time(operation, collection.name(), self.inner.guarded_write(collection, write, token)).await
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        // Of several collections: that of the first step stands for all.
        let collection = steps.first().map_or("", |step| step.collection.name());
        self.time("batch", collection, self.inner.batch(steps)).await
    }

    async fn check_batches(&self) -> Result<()> {
        self.inner.check_batches().await
    }

    async fn collections(&self) -> Result<Vec<String>> {
        self.inner.collections().await
    }

    async fn check_readable(&self, collection: &'static Collection) -> Result<()> {
        self.inner.check_readable(collection).await
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        self.inner.restore(collection, documents).await
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(&self) -> Option<sqlx::SqlitePool> {
        self.inner.sqlite()
    }

    #[cfg(feature = "postgres")]
    fn postgres(&self) -> Option<sqlx::PgPool> {
        self.inner.postgres()
    }

    #[cfg(feature = "mongodb")]
    async fn mongodb(&self) -> Result<Option<::mongodb::Database>> {
        self.inner.mongodb().await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

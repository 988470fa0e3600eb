//! What a copy between stores needs of the database.

use std::sync::Arc;

use super::super::{Collection, Document};
use super::sql::Sql;
use super::{Inner, store_error};
use crate::error::Result;

/// The tables of the schema that have the columns of a collection.
const TABLES: &str = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') \
     AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND \
     (SELECT count(*) FROM pg_attribute WHERE attrelid = pg_class.oid AND NOT attisdropped \
      AND attname IN ('id', 'version', 'body', 'fields')) = 4";

impl Inner {
    pub(super) async fn tables(&self) -> Result<Vec<String>> {
        let mut checkout = self.checkout().await?;
        let names = sqlx::query_scalar(TABLES).fetch_all(&mut *checkout).await;
        checkout.ended(names).map_err(store_error)
    }

    /// Stores documents as they are, all or none.
    pub(super) async fn restore(
        self: &Arc<Self>,
        collection: &'static Collection,
        documents: &[Document],
    ) -> Result<()> {
        let sql = Sql::restore(collection, documents)?;
        let mut checkout = self.checkout_for(collection).await?;
        let restored = sql.query().execute(&mut *checkout).await;
        checkout.ended(restored).map(drop).map_err(|error| self.failed(collection, error))
    }
}

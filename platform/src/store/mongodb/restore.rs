//! What a copy between stores needs of the database.

use mongodb::bson::{Bson, Document as Bdoc, doc, serialize_to_bson};

use super::super::{Collection, Document};
use super::Inner;
use super::convert::{ID, encode};
use super::server::store_error;
use crate::error::{Error, Result};

impl Inner {
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        self.server.database().await?.list_collection_names().await.map_err(store_error)
    }

    /// Stores documents as they are: each as a whole, all of them in one round trip.
    ///
    /// It is the command and not a method of the driver: `bulk_write` needs MongoDB 8.
    pub(super) async fn restore(
        &self,
        collection: &'static Collection,
        documents: &[Document],
    ) -> Result<()> {
        self.prepared(collection).await?;
        let database = self.server.database().await?;
        let mut updates = Vec::with_capacity(documents.len());
        for document in documents {
            let stored = encode(document, None)
                .map_err(|error| Error::internal(format!("{:?}: {}", document.id, error.message())))?;
            let stored = Bdoc::try_from(stored).map_err(Error::internal)?;
            updates.push(Bson::from(doc! { "q": { ID: &document.id }, "u": stored, "upsert": true }));
        }
        let mut command = doc! { "update": collection.name(), "updates": updates, "ordered": false };
        if let Some(concern) = database.write_concern() {
            // A command does not take over that of the database.
            command.insert("writeConcern", serialize_to_bson(concern).map_err(Error::internal)?);
        }
        let reply = database.run_command(command).await.map_err(store_error)?;
        check(&reply)
    }
}

/// To the driver, a command whose writes have failed is none that failed.
fn check(reply: &Bdoc) -> Result<()> {
    let error = match (reply.get_array("writeErrors"), reply.get_document("writeConcernError")) {
        (Ok(errors), _) if !errors.is_empty() => errors.first().and_then(Bson::as_document),
        (_, Ok(error)) => Some(error),
        _ => return Ok(()),
    };
    let message = error.and_then(|error| error.get_str("errmsg").ok()).unwrap_or("it gave no reason");
    Err(Error::unavailable(format!("a document was not written: {message}")))
}

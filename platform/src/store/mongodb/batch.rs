//! A batch: one transaction of MongoDB. Only a replica set or a sharded cluster has transactions.
//!
//! The transaction reads a snapshot. A document that it changes, or only requires, must not be changed by others from the
//! snapshot to the commit: MongoDB ends it with a write conflict, and it begins again. So a required document is written
//! too; only its `revision` changes.
//!
//! A commit whose response is lost is repeated: MongoDB knows which transaction it is.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use mongodb::ClientSession;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document as Bdoc, doc};
use mongodb::error::{
    Error as DriverError, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT,
};
use mongodb::options::{ReadConcern, TransactionOptions};

use super::super::query::Filter;
use super::super::step::{BatchOutcome, Effect, Step};
use super::super::unique::UniqueIndex;
use super::super::write::document_exists;
use super::super::{Collection, Document};
use super::convert::{REVISION, decode, encode};
use super::server::store_error;
use super::unique::{Broken, broken};
use super::writes::unchanged;
use super::{Inner, Stored, query};
use crate::error::{Error, Kind, Result};

/// The code of a command that the server does not know.
const COMMAND_NOT_FOUND: i32 = 59;

/// The longest pause before a transaction begins again; it is random, so that two do not meet again and again.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a transaction ended without a commit.
enum Ended {
    /// A step was refused.
    Refused(Error),
    /// A write came between, or the server has another primary now.
    Again,
    /// The id of this document, or its value at a unique path, is taken by another one that may not be visible yet.
    Taken(Stored, Broken, Document),
    Failed(Error),
}

impl From<DriverError> for Ended {
    fn from(error: DriverError) -> Self {
        if error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            return Self::Again;
        }
        Self::Failed(store_error(error))
    }
}

impl Ended {
    /// Why a transaction ended whose write of a document has failed.
    fn of_write(collection: &Collection, stored: &Stored, document: Document, error: DriverError) -> Self {
        match broken(collection, &error) {
            Some(broken) => Self::Taken(stored.clone(), broken, document),
            None => error.into(),
        }
    }
}

impl Inner {
    /// Succeeds when the server has transactions.
    pub(super) async fn check_transactions(&self) -> Result<()> {
        if self.transactions.get().is_some() {
            return Ok(());
        }
        let database = self.server.database().await?;
        let hello = match database.run_command(doc! { "hello": 1 }).await {
            // Before 4.4.2, it had only the older name.
            Err(error) if is_unknown(&error) => database.run_command(doc! { "isMaster": 1 }).await,
            other => other,
        };
        let hello = hello.map_err(store_error)?;
        if !has_transactions(&hello) {
            return Err(Error::internal(
                "a batch needs transactions, and a stand-alone MongoDB has none: make it a replica set (one member \
                 will do), or use another store (docs/STORES.md, \"Batches\")",
            ));
        }
        // What it had not, it may have after a restart: only this is kept.
        self.transactions.get_or_init(|| ());
        Ok(())
    }

    pub(super) async fn batch(self: &Arc<Self>, steps: &[Step]) -> Result<BatchOutcome> {
        self.check_transactions().await?;
        let mut collections = Vec::with_capacity(steps.len());
        for step in steps {
            collections.push(self.prepared(step.collection).await?);
        }
        let mut session =
            self.server.database().await?.client().start_session().await.map_err(store_error)?;
        loop {
            let options = TransactionOptions::builder().read_concern(ReadConcern::local()).build();
            session.start_transaction().with_options(options).await.map_err(store_error)?;
            let mut versions = Vec::with_capacity(steps.len());
            let ended = match perform(&mut session, steps, &collections, &mut versions).await {
                Ok(()) => match commit(&mut session).await {
                    Ok(()) => return Ok(BatchOutcome::Committed(versions)),
                    Err(error) => Ended::from(error),
                },
                Err(ended) => {
                    // If it fails, MongoDB ends the transaction by itself.
                    let _ = session.abort_transaction().await;
                    ended
                }
            };
            match ended {
                Ended::Refused(error) => return Ok(BatchOutcome::Refused(versions.len(), error)),
                Ended::Failed(error) => return Err(error),
                Ended::Taken(stored, broken, document) => {
                    if let Err(error) = self.check_taken(&stored, broken, &document).await {
                        return match error.kind() {
                            Kind::Conflict => Ok(BatchOutcome::Refused(versions.len(), error)),
                            _ => Err(error),
                        };
                    }
                }
                Ended::Again => {}
            }
            tokio::time::sleep(PAUSE.mul_f64(fastrand::f64())).await;
        }
    }
}

impl Inner {
    /// `Conflict` when a visible document has the id or the value that this one would take. If a pending one has it, waits
    /// a moment for that. Then the batch can begin again.
    async fn check_taken(&self, stored: &Stored, broken: Broken, document: &Document) -> Result<()> {
        let one = slice::from_ref(document);
        match broken {
            Broken::Id if self.has_one_of(stored, one).await? => Err(document_exists()),
            Broken::Id => Ok(()),
            broken => self.refuse_or_wait(stored, broken, one).await,
        }
    }
}

fn is_unknown(error: &DriverError) -> bool {
    matches!(&*error.kind, ErrorKind::Command(error) if error.code == COMMAND_NOT_FOUND)
}

/// Whether this is the response of a member of a replica set, or of the router of a sharded cluster.
fn has_transactions(hello: &Bdoc) -> bool {
    hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|message| message == "isdbgrid")
}

async fn commit(session: &mut ClientSession) -> Result<(), DriverError> {
    loop {
        match session.commit_transaction().await {
            // Until the caller's time is over.
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                tokio::time::sleep(PAUSE).await;
            }
            committed => return committed,
        }
    }
}

/// Performs the steps, and adds the version of each to the list. When one is refused, the list has those before it.
async fn perform(
    session: &mut ClientSession,
    steps: &[Step],
    collections: &[Stored],
    versions: &mut Vec<u64>,
) -> Result<(), Ended> {
    // The values of the documents that the batch has written. To MongoDB, one that clashes with them is like one that
    // clashes with a stored document, and when the transaction has ended nobody can tell which it was.
    let mut unique: HashMap<&str, UniqueIndex> = HashMap::new();
    for (step, stored) in steps.iter().zip(collections) {
        let condition = query::visible(&Filter::id(step.id.as_str()));
        let found = stored.find_one(condition).session(&mut *session).await?;
        let found = found.map(|raw| decode(step.collection, &raw)).transpose().map_err(Ended::Failed)?;
        let now = found.as_ref().map(|found| &found.document);
        let (version, effect) = step.clone().effect(now).map_err(Ended::Refused)?;
        let index = unique
            .entry(step.collection.name())
            .or_insert_with(|| UniqueIndex::new(step.collection.unique_paths()));
        match &effect {
            Effect::Create(after) | Effect::Replace(after) => index.replace(now, Some(after)),
            Effect::Delete => index.replace(now, None),
            Effect::Nothing => Ok(()),
        }
        .map_err(Ended::Refused)?;
        let changed = match (effect, &found) {
            (Effect::Create(new), _) => {
                let document = encode(&new, None).map_err(Ended::Refused)?;
                match stored.insert_one(document).session(&mut *session).await {
                    Ok(_) => true,
                    Err(error) => return Err(Ended::of_write(step.collection, stored, new, error)),
                }
            }
            (Effect::Replace(after), Some(before)) => {
                let document = encode(&after, None).map_err(Ended::Refused)?;
                match stored.replace_one(unchanged(before), document).session(&mut *session).await {
                    Ok(replaced) => replaced.matched_count > 0,
                    Err(error) => return Err(Ended::of_write(step.collection, stored, after, error)),
                }
            }
            (Effect::Delete, Some(before)) => {
                stored.delete_one(unchanged(before)).session(&mut *session).await?.deleted_count > 0
            }
            (Effect::Nothing, Some(before)) => {
                let touch = doc! { "$set": { REVISION: ObjectId::new() } };
                stored.update_one(unchanged(before), touch).session(&mut *session).await?.matched_count > 0
            }
            (_, None) => false,
        };
        if !changed {
            return Err(Ended::Again);
        }
        versions.push(version);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_a_replica_set_and_a_router_have_transactions_and_a_stand_alone_server_has_none() {
        assert!(has_transactions(&doc! { "isWritablePrimary": true, "setName": "rs0" }));
        assert!(has_transactions(&doc! { "isWritablePrimary": true, "msg": "isdbgrid" }));
        assert!(!has_transactions(&doc! { "isWritablePrimary": true, "maxWireVersion": 21 }));
    }
}

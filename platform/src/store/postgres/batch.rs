//! A batch: one transaction in the isolation level READ COMMITTED.
//!
//! First it locks the documents that exist, all batches in the same order, so that they wait for each other and not in a
//! circle: by collection, then by id. A document that is only required is locked as a foreign key would do it: others may
//! change it, and not delete it. Then it performs the steps in their order. What it knows of a locked document stays true until
//! the commit; a document that it has not found may appear, and then its insert fails.
//!
//! A value at a unique path has no row to lock: batches that store the same values in different orders would wait for each
//! other, and of several, PostgreSQL would end one after the other, a second each (`deadlock_timeout`). So batches that store
//! documents with unique paths take turns first, by an advisory lock of each such collection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use sqlx::{Connection, PgConnection};

use super::super::step::{BatchOutcome, Effect, Step};
use super::super::write::Change;
use super::super::{Action, Collection, Document, Filter};
use super::checkout::Checkout;
use super::sql::{RowLock, Sql};
use super::writes::{Attempts, Failure, insert};
use super::{Inner, UNDEFINED_TABLE, code, decode, names, store_error};
use crate::error::{Error, Kind, Result};

/// The upper half of the key of the advisory lock of a collection with unique paths; the lower half is the number of its
/// table.
const UNIQUE: i64 = 0x75_6e69;

/// A document, by the name of its collection and its id.
type Key = (&'static str, String);

impl Inner {
    pub(super) async fn batch(self: &Arc<Self>, steps: &[Step]) -> Result<BatchOutcome> {
        for step in steps {
            if !self.is_prepared(step.collection) {
                self.prepare(step.collection).await?;
            }
        }
        let mut attempts = Attempts::default();
        let _permit = self.permit().await?;
        loop {
            let mut checkout = self.checkout().await?;
            let error = match execute(&mut checkout, steps).await {
                Ok(outcome) => {
                    checkout.done();
                    return Ok(outcome);
                }
                Err(Failure::Refused(error) | Failure::Clash(error)) => {
                    checkout.done();
                    return Err(error);
                }
                Err(Failure::Begin(error)) => error,
                Err(Failure::Sql(error)) => match checkout.ended(Err::<(), _>(error)) {
                    Err(error) if attempts.again(&error).await => continue,
                    Err(error) => error,
                    Ok(()) => continue,
                },
            };
            return Err(self.failed_batch(steps, error));
        }
    }

    /// An error of a statement of a batch, which may be of any of its collections.
    fn failed_batch(&self, steps: &[Step], error: sqlx::Error) -> Error {
        if code(&error).as_deref() == Some(UNDEFINED_TABLE) {
            let mut prepared = self.prepared.write().unwrap_or_else(PoisonError::into_inner);
            for step in steps {
                prepared.remove(step.collection);
            }
        }
        store_error(error)
    }
}

/// A failure leaves the connection outside a transaction, except when it is [`Failure::Begin`], or when the connection is
/// broken.
async fn execute(connection: &mut Checkout, steps: &[Step]) -> Result<BatchOutcome, Failure> {
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
    let mut transaction = connection.begin_with(begin).await.map_err(Failure::Begin)?;
    let mut versions = Vec::with_capacity(steps.len());
    match perform(&mut transaction, steps, &mut versions).await {
        Ok(()) => {
            transaction.commit().await?;
            Ok(BatchOutcome::Committed(versions))
        }
        // An id that exists was found before its value could clash, except one that has just appeared.
        Err(Failure::Refused(error) | Failure::Clash(error)) => {
            transaction.rollback().await?;
            // Another kind is damage.
            match error.kind() {
                Kind::BadRequest | Kind::Conflict | Kind::NotFound => {
                    Ok(BatchOutcome::Refused(versions.len(), error))
                }
                _ => Err(Failure::Refused(error)),
            }
        }
        Err(failure) => {
            // The first error tells more.
            let _ = transaction.rollback().await;
            Err(failure)
        }
    }
}

/// Performs the steps, and adds the version of each to the list. When one is refused, the list has those before it.
async fn perform(
    connection: &mut PgConnection,
    steps: &[Step],
    versions: &mut Vec<u64>,
) -> Result<(), Failure> {
    take_turns(connection, steps).await?;
    let mut now = lock_all(connection, steps).await?;
    for step in steps {
        let (collection, token) = (step.collection, step.token);
        let key = (collection.name(), step.id.clone());
        let before = now.remove(&key);
        let (version, effect) = step.clone().effect(before.as_ref())?;
        let same = Filter::id(step.id.as_str());
        let after = match effect {
            Effect::Nothing => before,
            Effect::Create(new) => {
                insert(connection, collection, [&new]).await?;
                Some(new)
            }
            Effect::Replace(after) => {
                let sql = Sql::replace(collection, &same, Some(&[after.version - 1]), &after.fields, token)?;
                let row = sql.query().fetch_optional(&mut *connection).await;
                written(row.map_err(|error| Failure::of_change(collection, error))?.is_some())?;
                Some(after)
            }
            Effect::Delete => {
                let sql = Sql::delete_one(collection, &same, Some(&[version]), token);
                written(sql.query().fetch_optional(&mut *connection).await?.is_some())?;
                None
            }
        };
        now.extend(after.map(|after| (key, after)));
        versions.push(version);
    }
    Ok(())
}

/// A locked document is written in any case, except by a rule or trigger that somebody has added to the table.
fn written(written: bool) -> Result<(), Failure> {
    if written { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
}

/// Waits for the other batches that store documents in the same collections with unique paths.
async fn take_turns(connection: &mut PgConnection, steps: &[Step]) -> Result<(), Failure> {
    let stores = |action: &Action| !matches!(action, Action::Require | Action::Change(_, Change::Delete));
    let unique =
        steps.iter().filter(|step| !step.collection.unique_paths().is_empty() && stores(&step.action));
    let tables: BTreeSet<String> = unique.map(|step| names::table(step.collection)).collect();
    for table in tables {
        let lock = format!(
            "SELECT pg_advisory_xact_lock(({UNIQUE}::bigint << 32) | '{table}'::regclass::oid::bigint)"
        );
        sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Locks the documents that exist, in the order of their keys, and returns them.
async fn lock_all(connection: &mut PgConnection, steps: &[Step]) -> Result<HashMap<Key, Document>, Failure> {
    let mut wanted: BTreeMap<Key, (&'static Collection, RowLock)> = BTreeMap::new();
    for step in steps {
        let lock = match &step.action {
            // There should be none. If there is, or if a later step needs it, it must not go.
            Action::Insert(_) | Action::Require => RowLock::Exists,
            Action::Change(_, Change::Replace(_) | Change::Merge(_)) => RowLock::Changes,
            Action::Change(_, Change::Delete) => RowLock::Deletes,
        };
        let entry =
            wanted.entry((step.collection.name(), step.id.clone())).or_insert((step.collection, lock));
        entry.1 = entry.1.max(lock);
    }
    let mut found = HashMap::new();
    let mut wanted = wanted.into_iter().peekable();
    // One statement for neighbours of one collection with the same lock.
    while let Some(((name, id), (collection, lock))) = wanted.next() {
        let mut ids = vec![id];
        while let Some(((_, id), _)) =
            wanted.next_if(|((other, _), (_, of_other))| *other == name && *of_other == lock)
        {
            ids.push(id);
        }
        let rows = Sql::lock(collection, ids, lock).query().fetch_all(&mut *connection).await?;
        for row in &rows {
            let document = decode(collection, row)?;
            found.insert((name, document.id.clone()), document);
        }
    }
    Ok(found)
}

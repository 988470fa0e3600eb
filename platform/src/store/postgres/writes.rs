//! How each write is atomic, in the isolation level READ COMMITTED.
//!
//! * An **insert** is one statement, a delete of all that match too.
//! * A change of **one id** is one statement where SQL can express it. A patch is applied here: the document is read, and
//!   written if it has still the same version. When another write has come between, the row is locked.
//! * A change of the **first that matches** also depends on documents that it does not touch: two upserts that both find
//!   nothing would create two. So such writes take turns, by an advisory lock of the collection. A write of one id does
//!   not wait for them; one that comes between the read and the write is seen by the version, and the search starts
//!   again.
//!
//! PostgreSQL ends a deadlock by failing one side, which is then executed again.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};

use super::super::write::{Change, Expected, Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Filter};
use super::lease::Lease;
use super::sql::Sql;
use super::{DEADLOCK, Inner, SERIALIZATION, code, decode, schema, store_error};
use crate::error::Error;

/// How often a write is executed before a deadlock is an error.
const ATTEMPTS: u32 = 5;

/// The upper half of the key of a collection's advisory lock; the lower half is the number of its table.
const SEARCH: i64 = 0x73_746f;

/// Why a write was not executed.
enum Failure {
    /// It was refused, and changed nothing.
    Refused(Error),
    /// A statement failed, and was undone.
    Sql(sqlx::Error),
    /// A transaction failed to begin, or its lock was not granted: the connection may be inside of it.
    Begin(sqlx::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// What others may do between a read and a write.
#[derive(Clone, Copy)]
enum Lock {
    /// Anything; the version tells.
    Nothing,
    /// The document that was read is locked.
    Row,
    /// Only writes of one id.
    Search,
}

impl Inner {
    pub(super) async fn write(
        self: &Arc<Self>,
        collection: &'static Collection,
        write: &Write,
    ) -> Result<WriteOutcome, Error> {
        let mut attempt = 1;
        loop {
            let mut lease = self.lease_for(collection).await?;
            match execute(&mut lease, collection, write).await {
                Ok(outcome) => {
                    lease.done();
                    return Ok(outcome);
                }
                Err(Failure::Refused(error)) => {
                    lease.done();
                    return Err(error);
                }
                Err(Failure::Begin(error)) => {
                    drop(lease);
                    return Err(self.failed(collection, error));
                }
                Err(Failure::Sql(error)) => {
                    let again = code(&error).is_some_and(|code| [DEADLOCK, SERIALIZATION].contains(&&*code));
                    let error = lease.ended(Err::<WriteOutcome, _>(error));
                    if !again || attempt == ATTEMPTS {
                        return error.map_err(|error| self.failed(collection, error));
                    }
                }
            }
            // Not all at the same time.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=10) * u64::from(attempt))).await;
            attempt += 1;
        }
    }
}

async fn execute(
    connection: &mut Lease,
    collection: &'static Collection,
    write: &Write,
) -> Result<WriteOutcome, Failure> {
    match write {
        Write::Insert(new) => {
            insert(connection, collection, new.iter().map(|(id, fields)| (id, &**fields))).await?;
            Ok(WriteOutcome::counted(new.len()))
        }
        Write::Change { filter, expected, change } => {
            let one_id = filter.ids().is_some_and(|ids| ids.len() == 1);
            if !one_id {
                return read_and_write(connection, collection, write, Lock::Search).await;
            }
            if let Some(outcome) = change_at_once(connection, collection, filter, expected, change).await? {
                return Ok(outcome);
            }
            read_and_write(connection, collection, write, Lock::Nothing).await
        }
        Write::Upsert { filter, id, fields } => {
            if !matches!(filter, Filter::Ids(ids) if *ids == [id.as_str()]) {
                return read_and_write(connection, collection, write, Lock::Search).await;
            }
            let row = Sql::upsert(collection, id, fields)?.query().fetch_one(&mut **connection).await?;
            let version = version(&row)?;
            let document = Document { id: id.clone(), version, fields: fields.clone() };
            Ok(WriteOutcome::of(document, version == 1))
        }
        Write::DeleteAll(filter) => {
            let done = Sql::delete(collection, filter).query().execute(&mut **connection).await?;
            Ok(WriteOutcome { count: done.rows_affected(), ..WriteOutcome::default() })
        }
    }
}

/// A change of one id in one statement; `None` when that cannot decide.
async fn change_at_once(
    connection: &mut PgConnection,
    collection: &Collection,
    filter: &Filter,
    expected: &Expected,
    change: &Change,
) -> Result<Option<WriteOutcome>, Failure> {
    let wanted = match expected {
        Expected::Any => None,
        Expected::Version(version) => Some(std::slice::from_ref(version)),
        Expected::OneOf(versions) => Some(versions.as_slice()),
    };
    let document = match change {
        Change::Merge(_) => return Ok(None),
        Change::Replace(fields) => {
            let sql = Sql::replace(collection, filter, wanted, fields)?;
            let row = sql.query().fetch_optional(connection).await?;
            row.map(|row| {
                let id = row.try_get("id").map_err(store_error)?;
                Ok::<_, Error>(Document { id, version: version(&row)?, fields: fields.clone() })
            })
        }
        Change::Delete => {
            let sql = Sql::delete_one(collection, filter, wanted);
            let row = sql.query().fetch_optional(connection).await?;
            row.map(|row| decode(collection, &row))
        }
    };
    match document.transpose()? {
        Some(document) => Ok(Some(WriteOutcome::of(document, false))),
        None if wanted.is_none() => Ok(Some(WriteOutcome::default())),
        // There is none, or it has another version.
        None => Ok(None),
    }
}

/// Reads the first document that matches, and writes it if it is still the same.
async fn read_and_write(
    connection: &mut Lease,
    collection: &'static Collection,
    write: &Write,
    mut lock: Lock,
) -> Result<WriteOutcome, Failure> {
    if let Lock::Nothing = lock {
        if let Some(outcome) = try_write(connection, collection, write, lock).await? {
            return Ok(outcome);
        }
        lock = Lock::Row;
    }
    let begin = match lock {
        Lock::Search => format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SELECT pg_advisory_xact_lock(({SEARCH}::bigint << 32) | '{}'::regclass::oid::bigint)",
            schema::table(collection)
        ),
        Lock::Row | Lock::Nothing => "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned(),
    };
    let mut transaction = connection.begin_with(sqlx::AssertSqlSafe(begin)).await.map_err(Failure::Begin)?;
    let outcome = loop {
        match try_write(&mut transaction, collection, write, lock).await {
            Ok(Some(outcome)) => break Ok(outcome),
            // The next read sees what came between.
            Ok(None) => {}
            Err(failure) => break Err(failure),
        }
    };
    match outcome {
        Ok(outcome) => {
            transaction.commit().await?;
            Ok(outcome)
        }
        Err(Failure::Refused(error)) => {
            transaction.rollback().await?;
            Err(Failure::Refused(error))
        }
        Err(failure) => {
            // The first error tells more.
            let _ = transaction.rollback().await;
            Err(failure)
        }
    }
}

/// `None` when another write came between.
async fn try_write(
    connection: &mut PgConnection,
    collection: &'static Collection,
    write: &Write,
    lock: Lock,
) -> Result<Option<WriteOutcome>, Failure> {
    let (Write::Change { filter, .. } | Write::Upsert { filter, .. }) = write else {
        return Err(Error::internal("this write reads nothing").into());
    };
    let mut sql = Sql::find_first(collection, filter);
    if let Lock::Row = lock {
        sql.text.push_str(" FOR UPDATE");
    }
    let row = sql.query().fetch_optional(&mut *connection).await?;
    let before = row.map(|row| decode(collection, &row)).transpose()?;
    let (before, after) = match (write, before) {
        (Write::Upsert { id, fields, .. }, None) => {
            insert(connection, collection, [(id, &**fields)]).await?;
            return Ok(Some(WriteOutcome::of(Document::first_version(id.clone(), fields.clone()), true)));
        }
        (Write::Upsert { fields, .. }, Some(before)) => {
            let after = before.next_version(fields.clone());
            (before, Some(after))
        }
        (Write::Change { expected, change, .. }, Some(before)) => {
            let after = change.clone().apply(&before, expected)?;
            (before, after)
        }
        _ => return Ok(Some(WriteOutcome::default())),
    };
    let same = Filter::id(before.id.as_str());
    let sql = match &after {
        Some(after) => Sql::replace(collection, &same, Some(&[before.version]), &after.fields)?,
        None => Sql::delete_one(collection, &same, Some(&[before.version])),
    };
    let written = sql.query().fetch_optional(connection).await?;
    Ok(written.map(|_| WriteOutcome::of(after.unwrap_or(before), false)))
}

async fn insert<'a>(
    connection: &mut PgConnection,
    collection: &Collection,
    new: impl IntoIterator<Item = (&'a String, &'a super::super::Fields)>,
) -> Result<(), Failure> {
    match Sql::insert(collection, new)?.query().execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let broken = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
            if broken == Some(&schema::primary_key(collection)) {
                return Err(Failure::Refused(document_exists()));
            }
            Err(Failure::Sql(error))
        }
    }
}

fn version(row: &sqlx::postgres::PgRow) -> Result<u64, Error> {
    let version: i64 = row.try_get("version").map_err(store_error)?;
    u64::try_from(version).map_err(Error::internal)
}

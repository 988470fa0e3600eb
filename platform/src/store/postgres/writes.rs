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

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use super::super::document::stale;
use super::super::unique::values;
use super::super::write::{Change, Expected, Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Fields, Filter, Token};
use super::checkout::Checkout;
use super::sql::Sql;
use super::{DEADLOCK, Inner, SERIALIZATION, code, decode, names, store_error, unique};
use crate::error::Error;

/// How often a write is executed before a deadlock is an error.
const ATTEMPTS: u32 = 5;

/// The upper half of the key of a collection's advisory lock; the lower half is the number of its table.
const SEARCH: i64 = 0x73_746f;

/// How often a write was executed.
#[derive(Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// Whether a write that has failed so is executed again; after a moment, then.
    pub(super) async fn again(&mut self, error: &sqlx::Error) -> bool {
        self.0 += 1;
        let resolved = code(error).is_some_and(|code| [DEADLOCK, SERIALIZATION].contains(&&*code));
        if !resolved || self.0 == ATTEMPTS {
            return false;
        }
        // Not all at the same time.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=10) * u64::from(self.0))).await;
        true
    }
}

/// Why a write was not executed.
pub(super) enum Failure {
    /// It was refused, and changed nothing.
    Refused(Error),
    /// The document that it would have created has the value of another one at a unique path. It changed nothing.
    Clash(Error),
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

impl Failure {
    /// The failure of a statement that creates documents.
    fn of_create(collection: &Collection, error: sqlx::Error) -> Self {
        unique::refusal(collection, &error).map_or(Self::Sql(error), Self::Clash)
    }

    /// The failure of a statement that changes documents.
    pub(super) fn of_change(collection: &Collection, error: sqlx::Error) -> Self {
        unique::refusal(collection, &error).map_or(Self::Sql(error), Self::Refused)
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
        token: Token,
    ) -> Result<WriteOutcome, Error> {
        let (mut attempts, mut clashed) = (Attempts::default(), false);
        let _permit = self.permit().await?;
        loop {
            let mut checkout = self.checkout_for(collection).await?;
            match execute(&mut checkout, collection, write, token).await {
                Ok(outcome) => {
                    checkout.done();
                    return Ok(outcome);
                }
                Err(Failure::Refused(error)) => {
                    checkout.done();
                    return Err(error);
                }
                Err(Failure::Clash(_)) if matches!(write, Write::Upsert { .. }) && !clashed => {
                    // The other document may be the one that the upsert has looked for, and came after that: then it is
                    // found now, and replaced.
                    checkout.done();
                    clashed = true;
                }
                Err(Failure::Clash(error)) => {
                    // PostgreSQL may look at the values before the id.
                    let exists = unique::has_id_of(&mut checkout, collection, write).await;
                    let exists = checkout.ended(exists).map_err(|error| self.failed(collection, error))?;
                    return Err(if exists { document_exists() } else { error });
                }
                Err(Failure::Begin(error)) => {
                    drop(checkout);
                    return Err(self.failed(collection, error));
                }
                Err(Failure::Sql(error)) => {
                    let failed = checkout.ended(Err(error));
                    match failed {
                        Err(error) if attempts.again(&error).await => {}
                        failed => return failed.map_err(|error| self.failed(collection, error)),
                    }
                }
            }
        }
    }
}

async fn execute(
    connection: &mut Checkout,
    collection: &'static Collection,
    write: &Write,
    token: Token,
) -> Result<WriteOutcome, Failure> {
    match write {
        Write::Insert(new) => {
            let mut ordered: Vec<&Document> = new.iter().collect();
            ordered.sort_by_cached_key(|new| values(collection, &new.fields));
            insert(connection, collection, ordered).await?;
            Ok(WriteOutcome::inserted(new))
        }
        Write::Change { filter, expected, change } => {
            let one_id = filter.ids().is_some_and(|ids| ids.len() == 1);
            if !one_id {
                return read_and_write(connection, collection, write, token, Lock::Search).await;
            }
            let at_once = change_at_once(connection, collection, filter, expected, change, token);
            if let Some(outcome) = at_once.await? {
                return Ok(outcome);
            }
            read_and_write(connection, collection, write, token, Lock::Nothing).await
        }
        Write::Upsert { filter, new } => {
            if !matches!(filter, Filter::Ids(ids) if *ids == [new.id.as_str()]) {
                return read_and_write(connection, collection, write, token, Lock::Search).await;
            }
            let row = Sql::upsert(collection, new, token)?.query().fetch_optional(&mut **connection).await;
            let Some(row) = row.map_err(|error| Failure::of_create(collection, error))? else {
                return Err(Failure::Refused(stale()));
            };
            let document = written(&row, new.id.clone(), &new.fields)?;
            let created = document.version == new.version;
            Ok(WriteOutcome::of(document, created))
        }
        Write::DeleteAll(filter) => {
            let done = Sql::delete(collection, filter, token).query().execute(&mut **connection).await?;
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
    token: Token,
) -> Result<Option<WriteOutcome>, Failure> {
    let wanted = match expected {
        Expected::Any => None,
        Expected::Version(version) => Some(std::slice::from_ref(version)),
        Expected::OneOf(versions) => Some(versions.as_slice()),
    };
    let document = match change {
        Change::Merge(_) => return Ok(None),
        Change::Replace(fields) => {
            let sql = Sql::replace(collection, filter, wanted, fields, token)?;
            let row = sql.query().fetch_optional(connection).await;
            let row = row.map_err(|error| Failure::of_change(collection, error))?;
            row.map(|row| {
                let id = row.try_get("id").map_err(store_error)?;
                written(&row, id, fields)
            })
        }
        Change::Delete => {
            let sql = Sql::delete_one(collection, filter, wanted, token);
            let row = sql.query().fetch_optional(connection).await?;
            row.map(|row| decode(collection, &row))
        }
    };
    match document.transpose()? {
        Some(document) => Ok(Some(WriteOutcome::of(document, false))),
        None if wanted.is_none() && token.is_none() => Ok(Some(WriteOutcome::default())),
        // There is none, or it has another version or a higher token.
        None => Ok(None),
    }
}

/// Reads the first document that matches, and writes it if it is still the same.
async fn read_and_write(
    connection: &mut Checkout,
    collection: &'static Collection,
    write: &Write,
    token: Token,
    mut lock: Lock,
) -> Result<WriteOutcome, Failure> {
    if let Lock::Nothing = lock {
        if let Some(outcome) = try_write(connection, collection, write, token, lock).await? {
            return Ok(outcome);
        }
        lock = Lock::Row;
    }
    let begin = match lock {
        Lock::Search => format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SELECT pg_advisory_xact_lock(({SEARCH}::bigint << 32) | '{}'::regclass::oid::bigint)",
            names::table(collection)
        ),
        Lock::Row | Lock::Nothing => "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned(),
    };
    let mut transaction = connection.begin_with(sqlx::AssertSqlSafe(begin)).await.map_err(Failure::Begin)?;
    let outcome = loop {
        match try_write(&mut transaction, collection, write, token, lock).await {
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
        Err(failure @ (Failure::Refused(_) | Failure::Clash(_))) => {
            transaction.rollback().await?;
            Err(failure)
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
    token: Token,
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
        (Write::Upsert { new, .. }, None) => {
            insert(connection, collection, [new]).await?;
            return Ok(Some(WriteOutcome::of(new.clone(), true)));
        }
        (Write::Upsert { new, .. }, Some(before)) => {
            let after = before.next_version(Arc::clone(&new.fields), token)?;
            (before, Some(after))
        }
        (Write::Change { expected, change, .. }, Some(before)) => {
            let after = change.clone().apply(&before, expected, token)?;
            (before, after)
        }
        _ => return Ok(Some(WriteOutcome::default())),
    };
    let same = Filter::id(before.id.as_str());
    let sql = match &after {
        Some(after) => Sql::replace(collection, &same, Some(&[before.version]), &after.fields, token)?,
        None => Sql::delete_one(collection, &same, Some(&[before.version]), token),
    };
    let written = sql.query().fetch_optional(connection).await;
    let written = written.map_err(|error| Failure::of_change(collection, error))?;
    Ok(written.map(|_| WriteOutcome::of(after.unwrap_or(before), false)))
}

pub(super) async fn insert<'a>(
    connection: &mut PgConnection,
    collection: &Collection,
    new: impl IntoIterator<Item = &'a Document>,
) -> Result<(), Failure> {
    match Sql::insert(collection, new)?.query().execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let broken = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
            if broken == Some(&names::primary_key(collection)) {
                return Err(Failure::Refused(document_exists()));
            }
            Err(Failure::of_create(collection, error))
        }
    }
}

/// The document that a statement has written, in a row of `version` and `token`.
fn written(row: &PgRow, id: String, fields: &Arc<Fields>) -> Result<Document, Error> {
    let number = |column: &str| {
        let number: i64 = row.try_get(column).map_err(store_error)?;
        u64::try_from(number).map_err(Error::internal)
    };
    Ok(Document { id, version: number("version")?, token: number("token")?, fields: Arc::clone(fields) })
}

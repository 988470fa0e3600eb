//! The statements of a write, and why one was not executed.

use sqlx::SqliteConnection;

use super::super::write::{Write, WriteOutcome, document_exists};
use super::super::{Collection, Document, Fields, Filter, Token};
use super::sql::Sql;
use super::{
    BUSY, FULL, INTERRUPTED, IO_ERROR, NO_MEMORY, PRIMARY_KEY, READ_ONLY, UNIQUE, code, decode,
    extended_code, schema, unique,
};
use crate::error::{Error, Result};

/// Why a command was not executed.
pub(super) enum Failure {
    /// It was refused, and changed nothing.
    Refused(Error),
    /// A statement failed, and was undone.
    Sql(sqlx::Error),
}

impl Failure {
    pub(super) fn ends_transaction(&self) -> bool {
        matches!(self, Self::Sql(error) if ends_transaction(error))
    }
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

/// Whether SQLite may have rolled back the transaction (<https://www.sqlite.org/lang_transaction.html>,
/// "Response To Errors Within A Transaction"), no other command will fare better, or the connection is gone.
pub(super) fn ends_transaction(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => matches!(code, BUSY | NO_MEMORY | READ_ONLY | INTERRUPTED | IO_ERROR | FULL),
        None => true,
    }
}

pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    collection: &Collection,
) -> Result<(), Failure> {
    // No other process is between these: the transaction has begun as a write.
    let found = schema::Found::of(&mut *connection, collection).await?;
    found.check(collection)?;
    if found.lacks_token() {
        sqlx::query(sqlx::AssertSqlSafe(schema::add_token(collection))).execute(&mut *connection).await?;
    }
    for statement in schema::schema(collection) {
        if let Err(error) = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await {
            let clash = unique::why_not_created(connection, collection, &error).await;
            return Err(clash.map_or(Failure::Sql(error), Failure::Refused));
        }
    }
    Ok(())
}

/// Executes one write. Only an insert of several documents needs a savepoint: a single statement that fails is undone
/// by SQLite.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    collection: &Collection,
    write: Write,
    token: Token,
) -> Result<WriteOutcome, Failure> {
    match write {
        Write::Insert(new) if new.len() > 1 => {
            sqlx::query("SAVEPOINT write").execute(&mut *connection).await?;
            let written = insert(connection, collection, new).await;
            if written.as_ref().is_err_and(Failure::ends_transaction) {
                // There is no savepoint any more.
                return written;
            }
            if written.is_err() {
                sqlx::query("ROLLBACK TO write").execute(&mut *connection).await?;
            }
            sqlx::query("RELEASE write").execute(&mut *connection).await?;
            written
        }
        Write::Insert(new) => insert(connection, collection, new).await,
        Write::Change { filter, expected, change } => {
            let sql = Sql::find_first(collection, &filter);
            let Some(row) = sql.query().fetch_optional(&mut *connection).await? else {
                return Ok(WriteOutcome::default());
            };
            let before = decode(collection, &row)?;
            if let Some(after) = change.apply(&before, &expected, token)? {
                update(connection, collection, &after).await?;
                Ok(WriteOutcome::of(after, false))
            } else {
                let sql = Sql::delete(collection, &Filter::id(before.id.as_str()), None);
                sql.query().execute(connection).await?;
                Ok(WriteOutcome::of(before, false))
            }
        }
        Write::Upsert { filter, new } => {
            let sql = Sql::find_first(collection, &filter);
            if let Some(row) = sql.query().fetch_optional(&mut *connection).await? {
                let before = decode(collection, &row)?;
                let after = before.next_version(new.fields, token)?;
                update(connection, collection, &after).await?;
                Ok(WriteOutcome::of(after, false))
            } else {
                insert_all(connection, collection, std::slice::from_ref(&new)).await?;
                Ok(WriteOutcome::of(new, true))
            }
        }
        Write::DeleteAll(filter) => {
            let sql = Sql::delete(collection, &filter, token);
            let deleted = sql.query().execute(connection).await?.rows_affected();
            Ok(WriteOutcome { count: deleted, ..WriteOutcome::default() })
        }
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    collection: &Collection,
    new: Vec<Document>,
) -> Result<WriteOutcome, Failure> {
    insert_all(connection, collection, &new).await?;
    Ok(WriteOutcome::inserted(&new))
}

async fn insert_all(
    connection: &mut SqliteConnection,
    collection: &Collection,
    new: &[Document],
) -> Result<(), Failure> {
    for (index, document) in new.iter().enumerate() {
        let sql = Sql::insert(collection, document, encoded(&document.fields)?);
        let Err(error) = sql.query().execute(&mut *connection).await else { continue };
        let exists = match unique::refusal(collection, &error) {
            // SQLite may look at the values before the id. Those before this one are in the table already.
            Some(refusal) if !unique::has_id_of(connection, collection, &new[index..]).await? => refusal,
            Some(_) => document_exists(),
            // Other codes are other constraints, of a table that this program did not create.
            None if matches!(extended_code(&error), Some(PRIMARY_KEY | UNIQUE)) => document_exists(),
            None => return Err(Failure::Sql(error)),
        };
        return Err(Failure::Refused(exists));
    }
    Ok(())
}

async fn update(
    connection: &mut SqliteConnection,
    collection: &Collection,
    after: &Document,
) -> Result<(), Failure> {
    let sql = Sql::update(collection, after, encoded(&after.fields)?);
    match sql.query().execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => Err(unique::refusal(collection, &error).map_or(Failure::Sql(error), Failure::Refused)),
    }
}

pub(super) fn encoded(fields: &Fields) -> Result<String, Error> {
    serde_json::to_string(fields).map_err(Error::internal)
}

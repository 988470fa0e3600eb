//! What a copy between stores needs of the file.

use sqlx::SqliteConnection;

use super::super::write::WriteOutcome;
use super::super::{Collection, Document};
use super::sql::Sql;
use super::writes::{Failure, encoded};

/// The tables that have the columns of a collection.
pub(super) const TABLES: &str = "SELECT name FROM sqlite_schema AS tables WHERE type = 'table' AND \
     (SELECT count(*) FROM pragma_table_info(tables.name) WHERE name IN ('id', 'version', 'body')) = 3";

/// Stores documents as they are, all or none.
pub(super) async fn restore(
    connection: &mut SqliteConnection,
    collection: &Collection,
    documents: &[Document],
) -> Result<WriteOutcome, Failure> {
    sqlx::query("SAVEPOINT restore").execute(&mut *connection).await?;
    let mut restored = Ok(WriteOutcome::counted(documents.len()));
    for document in documents {
        let one = restore_one(connection, collection, document).await;
        if let Err(failure) = one {
            if failure.ends_transaction() {
                // There is no savepoint any more.
                return Err(failure);
            }
            restored = Err(failure);
            sqlx::query("ROLLBACK TO restore").execute(&mut *connection).await?;
            break;
        }
    }
    sqlx::query("RELEASE restore").execute(&mut *connection).await?;
    restored
}

async fn restore_one(
    connection: &mut SqliteConnection,
    collection: &Collection,
    document: &Document,
) -> Result<(), Failure> {
    let sql = Sql::restore(collection, document, encoded(&document.fields)?);
    sql.query().execute(connection).await?;
    Ok(())
}

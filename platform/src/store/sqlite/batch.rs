//! A batch: a savepoint in the transaction of its group, so that a refused batch leaves the others of the group alone.

use sqlx::SqliteConnection;

use super::super::step::no_such_document;
use super::super::{BatchOutcome, Filter, Step};
use super::decode;
use super::sql::Sql;
use super::writes::{self, Failure};
use crate::error::Kind;

/// Executes the steps of a batch in a savepoint, or none of them.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    steps: Vec<Step>,
) -> Result<BatchOutcome, Failure> {
    sqlx::query("SAVEPOINT batch").execute(&mut *connection).await?;
    let mut versions = Vec::with_capacity(steps.len());
    let mut failure = None;
    for step in steps {
        match execute_step(connection, step).await {
            Ok(version) => versions.push(version),
            Err(failed) => {
                failure = Some(failed);
                break;
            }
        }
    }
    match failure {
        // There is no savepoint any more.
        Some(failure) if failure.ends_transaction() => return Err(failure),
        Some(_) => {
            sqlx::query("ROLLBACK TO batch").execute(&mut *connection).await?;
        }
        None => {}
    }
    sqlx::query("RELEASE batch").execute(connection).await?;
    match failure {
        None => Ok(BatchOutcome::Committed(versions)),
        // Another kind is damage.
        Some(Failure::Refused(error)) if error.kind() != Kind::Internal => {
            Ok(BatchOutcome::Refused(versions.len(), error))
        }
        Some(failure) => Err(failure),
    }
}

/// Executes one step, and returns the version of its document after it.
async fn execute_step(connection: &mut SqliteConnection, step: Step) -> Result<u64, Failure> {
    let (collection, token) = (step.collection, step.token);
    let filter = Filter::id(step.id.as_str());
    let Some(write) = step.write() else {
        let row = Sql::find_first(collection, &filter)
            .query()
            .fetch_optional(connection)
            .await?
            .ok_or_else(no_such_document)?;
        return Ok(decode(collection, &row)?.version);
    };
    let outcome = writes::execute(connection, collection, write, token).await?;
    Ok(outcome.document.ok_or_else(no_such_document)?.version)
}

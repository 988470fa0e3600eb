//! The unique paths of a collection in SQLite: which one a failed statement has broken.

use std::collections::HashSet;

use sqlx::{Row, SqliteConnection};

use super::super::unique::{stored_clash, value_exists, value_exists_in};
use super::super::{Collection, Document};
use super::schema::{self, Broken};
use super::{UNIQUE, extended_code, store_error};
use crate::error::Error;

/// The unique index that a statement has broken, other than a constraint of the columns.
fn broken<'a>(collection: &Collection, error: &'a sqlx::Error) -> Option<Broken<'a>> {
    if extended_code(error) != Some(UNIQUE) {
        return None;
    }
    let broken = schema::broken(collection, error.as_database_error()?.message());
    (broken != Broken::Columns).then_some(broken)
}

/// The refusal of a write that broke a unique index; `None` for any other error.
pub(super) fn refusal(collection: &Collection, error: &sqlx::Error) -> Option<Error> {
    match broken(collection, error)? {
        Broken::Path(path) => Some(value_exists(path)),
        Broken::Index(name) => Some(value_exists_in(name)),
        Broken::Columns => None,
    }
}

/// Why a unique index could not be created: two documents with the same value. `None` for any other error.
pub(super) async fn why_not_created(
    connection: &mut SqliteConnection,
    collection: &Collection,
    error: &sqlx::Error,
) -> Option<Error> {
    let Broken::Path(path) = broken(collection, error)? else { return None };
    let query = sqlx::query(sqlx::AssertSqlSafe(schema::find_clash(collection, path)));
    let found = async {
        let row = query.fetch_one(connection).await?;
        Ok::<_, sqlx::Error>((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?))
    };
    let error = match found.await {
        Ok((one, other)) => stored_clash(collection, path, [&one, &other]),
        Err(error) => store_error(error),
    };
    // Its caller may be gone: a large table takes longer than a caller waits.
    tracing::warn!(target: "server", cause = error.cause(), "cannot create {}", collection.name());
    Some(error)
}

/// Whether one of these documents has the id of a stored one, or two of them have the same id.
pub(super) async fn has_id_of(
    connection: &mut SqliteConnection,
    collection: &Collection,
    new: &[Document],
) -> Result<bool, sqlx::Error> {
    let text = format!("SELECT 1 FROM {} WHERE id = ?", schema::table(collection));
    let mut ids = HashSet::new();
    for document in new {
        let query = sqlx::query(sqlx::AssertSqlSafe(text.as_str())).bind(&document.id);
        if !ids.insert(&document.id) || query.fetch_optional(&mut *connection).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

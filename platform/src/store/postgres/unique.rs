//! The unique paths of a collection in PostgreSQL: their indexes, and which of them a failed statement has broken.
//!
//! An index holds the rank of the type, the number, and the SHA-256 of the text: PostgreSQL refuses entries above 2,704
//! bytes, and a text may be longer. Equal texts have equal digests; no two other texts with the same digest are known, nor
//! a way to make them. Two values that are NULL would not clash, hence `coalesce`; what never clashes is left out of the
//! index.

use std::collections::HashSet;

use sqlx::{PgConnection, Row};

use super::super::unique::{stored_clash, value_exists, value_exists_in};
use super::super::{Collection, Filter, Write};
use super::field::{self, BOOL, NUMBER, TEXT};
use super::names::{hash, primary_key, table};
use super::sql::Sql;
use super::{UNIQUE_VIOLATION, code, store_error};
use crate::error::Error;

/// The index of a unique path.
pub(super) struct UniqueIndex {
    pub(super) path: &'static str,
    pub(super) name: String,
    columns: String,
    condition: String,
}

impl UniqueIndex {
    fn new(collection: &Collection, path: &'static str) -> Self {
        let (rank, number, digest) = (field::rank(path), field::number(path), field::digest(path));
        let columns = format!("({rank}), coalesce({number}, 0), coalesce({digest}, ''::bytea)");
        let condition = format!("{rank} IN ({NUMBER}, {TEXT}, {BOOL})");
        let name = format!("{}_u_{}", collection.name(), hash(&format!("{columns} {condition}")));
        Self { path, name, columns, condition }
    }

    /// The statement that creates it if it is missing.
    pub(super) fn create(&self, collection: &Collection) -> String {
        let Self { name, columns, condition, .. } = self;
        let table = table(collection);
        format!("CREATE UNIQUE INDEX IF NOT EXISTS \"{name}\" ON {table} ({columns}) WHERE {condition}")
    }
}

/// The indexes of the unique paths.
pub(super) fn indexes(collection: &Collection) -> Vec<UniqueIndex> {
    collection.unique_paths().iter().map(|path| UniqueIndex::new(collection, path)).collect()
}

/// The name of the unique index that a statement has broken, other than the primary key.
fn broken<'a>(collection: &Collection, error: &'a sqlx::Error) -> Option<&'a str> {
    if code(error).as_deref() != Some(UNIQUE_VIOLATION) {
        return None;
    }
    let name = error.as_database_error()?.constraint()?;
    (name != primary_key(collection)).then_some(name)
}

/// The refusal of a write that broke a unique index; `None` for any other error.
pub(super) fn refusal(collection: &Collection, error: &sqlx::Error) -> Option<Error> {
    let name = broken(collection, error)?;
    let index = indexes(collection).into_iter().find(|index| index.name == name);
    Some(index.map_or_else(|| value_exists_in(name), |index| value_exists(index.path)))
}

/// Why the table or an index could not be created: two documents with the same value, or any other error. The connection
/// cannot be used after it.
pub(super) async fn why_not_created(
    connection: &mut PgConnection,
    collection: &Collection,
    error: sqlx::Error,
) -> Error {
    let name = broken(collection, &error);
    let Some(index) = indexes(collection).into_iter().find(|index| name == Some(&index.name)) else {
        return store_error(error);
    };
    match find_clash(connection, collection, &index).await {
        Ok(Some((one, other))) => stored_clash(collection, index.path, [&one, &other]),
        // Another writer has resolved it meanwhile.
        Ok(None) => Error::unavailable(error),
        Err(error) => store_error(error),
    }
}

/// The ids of two documents with the same value. The transaction of the connection has failed.
async fn find_clash(
    connection: &mut PgConnection,
    collection: &Collection,
    index: &UniqueIndex,
) -> sqlx::Result<Option<(String, String)>> {
    let begin = "ROLLBACK; BEGIN READ ONLY; SET LOCAL statement_timeout = 0";
    sqlx::raw_sql(begin).execute(&mut *connection).await?;
    let text = format!(
        "SELECT min(id), max(id) FROM {} WHERE {} GROUP BY {} HAVING count(*) > 1 ORDER BY 1 LIMIT 1",
        table(collection),
        index.condition,
        index.columns
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_optional(connection).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Whether an id that a write would create is there, or is twice in the write.
pub(super) async fn has_id_of(
    connection: &mut PgConnection,
    collection: &Collection,
    write: &Write,
) -> sqlx::Result<bool> {
    let created: Vec<&String> = match write {
        Write::Insert(new) => new.iter().map(|new| &new.id).collect(),
        // Not of an upsert by id, which replaces it.
        Write::Upsert { filter, new } if !matches!(filter, Filter::Ids(ids) if ids[..] == [new.id.as_str()]) =>
        {
            vec![&new.id]
        }
        _ => return Ok(false),
    };
    let ids: HashSet<&String> = created.iter().copied().collect();
    if ids.len() < created.len() {
        return Ok(true);
    }
    let stored = Filter::Ids(ids.into_iter().cloned().collect());
    let found = Sql::find_first(collection, &stored).query().fetch_optional(connection).await?;
    Ok(found.is_some())
}

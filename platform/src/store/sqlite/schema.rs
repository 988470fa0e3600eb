//! The table and the indexes of a collection in SQLite, and their names. Names and paths have been checked; they are
//! escaped all the same.

use sqlx::SqliteExecutor;

use super::super::{Collection, foreign_table};
use super::field::{rank, value};
use crate::error::Result;

/// The statements that create the table and the indexes of a collection if they are missing.
///
/// The table keeps its rowid: SQLite recommends `WITHOUT ROWID` only for rows smaller than a twentieth of a page, and
/// documents are larger.
pub(super) fn schema(collection: &Collection) -> Vec<String> {
    let name = table(collection);
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS {name} (id TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, \
         body TEXT NOT NULL, {TOKEN})"
    )];
    for path in collection.indexes() {
        let index = quoted(&index(collection, path));
        statements.push(format!(
            "CREATE INDEX IF NOT EXISTS {index} ON {name} ({}, {}, id)",
            rank(path),
            value(path)
        ));
    }
    for path in collection.unique_paths() {
        let index = quoted(&unique_index(collection, path));
        // The value is NULL where nothing can clash, and SQLite takes no NULL for equal to another one.
        statements.push(format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {name} ({}, {})",
            rank(path),
            value(path)
        ));
    }
    statements
}

/// A statement that finds the ids of two documents with the same value at a path.
pub(super) fn find_clash(collection: &Collection, path: &str) -> String {
    format!(
        "SELECT min(id), max(id) FROM {} WHERE {value} IS NOT NULL GROUP BY {}, {value} HAVING count(*) > 1 \
         ORDER BY 1 LIMIT 1",
        table(collection),
        rank(path),
        value = value(path)
    )
}

/// The column that tables of an older version do not have.
const TOKEN: &str = "token INTEGER NOT NULL DEFAULT 0";

/// A statement that adds the column to a table of an older version. It fails where the column is.
pub(super) fn add_token(collection: &Collection) -> String {
    format!("ALTER TABLE {} ADD COLUMN {TOKEN}", table(collection))
}

/// What a file has of a collection.
pub(super) struct Found {
    /// How many of the table and its indexes there are.
    relations: i64,
    /// How many columns the table has; 0 when there is no table.
    columns: i64,
    /// How many of those that every collection has had from the beginning.
    first: i64,
    /// Whether the table has the column `token`: one of an older version has not.
    token: bool,
}

impl Found {
    pub(super) async fn of<'c>(
        connection: impl SqliteExecutor<'c>,
        collection: &Collection,
    ) -> sqlx::Result<Self> {
        let text = |name: &String| format!("'{}'", name.replace('\'', "''"));
        let (names, texts) = (names(collection), names(collection).iter().map(text).collect::<Vec<_>>());
        let query = format!(
            "SELECT (SELECT count(*) FROM sqlite_schema WHERE name IN ({})), count(*), \
             count(*) FILTER (WHERE name IN ('id', 'version', 'body')), \
             count(*) FILTER (WHERE name = 'token') > 0 FROM pragma_table_info({})",
            texts.join(", "),
            text(&names[0])
        );
        let query = sqlx::query_as(sqlx::AssertSqlSafe(query));
        let (relations, columns, first, token) = query.fetch_one(connection).await?;
        Ok(Self { relations, columns, first, token })
    }

    /// `Internal` when the table is not one of a collection.
    pub(super) fn check(&self, collection: &Collection) -> Result<()> {
        if self.columns > 0 && self.first != 3 { Err(foreign_table(collection)) } else { Ok(()) }
    }

    /// Whether the table with all its columns, and all indexes exist.
    pub(super) fn is_complete(&self, collection: &Collection) -> bool {
        self.token && usize::try_from(self.relations) == Ok(names(collection).len())
    }

    /// Whether the table is of an older version.
    pub(super) fn lacks_token(&self) -> bool {
        self.columns > 0 && !self.token
    }
}

/// The names of the table and of all indexes.
fn names(collection: &Collection) -> Vec<String> {
    let indexes = collection.indexes().iter().map(|path| index(collection, path));
    let unique = collection.unique_paths().iter().map(|path| unique_index(collection, path));
    std::iter::once(collection.name().to_owned()).chain(indexes).chain(unique).collect()
}

fn index(collection: &Collection, path: &str) -> String {
    format!("{} by {path}", collection.name())
}

/// The index that makes a path unique. It may be beside the one for queries, which has the id too.
fn unique_index(collection: &Collection, path: &str) -> String {
    format!("{} unique {path}", collection.name())
}

/// What a message of SQLite says of a unique constraint that was broken: `UNIQUE constraint failed: ` and one of these.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken<'a> {
    /// The columns, such as `people.id`.
    Columns,
    /// The index of a unique path.
    Path(&'static str),
    /// Another unique index, with its name.
    Index(&'a str),
}

/// The unique constraint in a message of SQLite.
pub(super) fn broken<'a>(collection: &Collection, message: &'a str) -> Broken<'a> {
    // An index of columns is named by them, an index of expressions by its name.
    let Some(name) = message.split_once(": index '").and_then(|(_, rest)| rest.strip_suffix('\'')) else {
        return Broken::Columns;
    };
    let mut paths = collection.unique_paths().iter();
    let path = paths.find(|path| unique_index(collection, path).replace('\'', "''") == name);
    path.map_or(Broken::Index(name), |path| Broken::Path(path))
}

/// The table of a collection.
pub(super) fn table(collection: &Collection) -> String {
    quoted(collection.name())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unique_path_of_a_message_is_found() {
        static PEOPLE: Collection = Collection::new("people", &[]).unique(&["a", "it's.b"]);
        let of = |name: &str| format!("UNIQUE constraint failed: index '{name}'");
        assert_eq!(broken(&PEOPLE, &of("people unique a")), Broken::Path("a"));
        assert_eq!(broken(&PEOPLE, &of("people unique it''s.b")), Broken::Path("it's.b"));
        assert_eq!(broken(&PEOPLE, &of("people unique c")), Broken::Index("people unique c"));
        assert_eq!(broken(&PEOPLE, "UNIQUE constraint failed: people.id"), Broken::Columns);
    }
}

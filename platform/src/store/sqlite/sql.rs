//! Queries as SQL for SQLite. Their meaning is defined in `query`.
//!
//! A field is two SQL expressions: the rank of its type in a sort, and its value if that is a scalar. A condition tests
//! the rank and compares the value, a sort orders by both, and an index holds both and the id. So one index serves
//! every filter and every sort by its field. SQLite uses the index only if an expression has exactly the text that the
//! index was made of, so `rank` and `value` are the only sources of these texts.
//!
//! A condition is never NULL, so `NOT` is the plain opposite: a value is NULL only with the ranks 0, 3 and 4, and no
//! condition compares it there.
//!
//! Values are parameters. Names and paths have been checked; they are escaped all the same.

use std::fmt::Write as _;

use sqlx::Sqlite;
use sqlx::query::Query as SqlQuery;
use sqlx::sqlite::SqliteArguments;

use super::super::query::{Bound, Direction, Filter, Predicate, Query, Scalar, Sort, after_prefix};
use super::super::{Collection, Document};

/// The ranks of types in the order of `query`.
const NULL: u8 = 0;
const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const BOOL: u8 = 5;

/// A statement and its parameters.
#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
enum Parameter {
    Text(String),
    Int(i64),
}

impl Sql {
    /// The documents of a query.
    pub(super) fn find(collection: &Collection, query: &Query) -> Self {
        let mut sql = Self::of("SELECT id, version, body FROM ", collection);
        sql.filter(&query.filter);
        sql.order(&query.sort);
        // SQLite needs a LIMIT before an OFFSET; -1 is no limit.
        if query.page.limit.is_some() || query.page.offset > 0 {
            sql.text.push_str(" LIMIT ");
            sql.int(query.page.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)));
            sql.text.push_str(" OFFSET ");
            sql.int(i64::try_from(query.page.offset).unwrap_or(i64::MAX));
        }
        sql
    }

    /// The first document, by id, that matches.
    pub(super) fn find_first(collection: &Collection, filter: &Filter) -> Self {
        let mut sql = Self::of("SELECT id, version, body FROM ", collection);
        sql.filter(filter);
        sql.text.push_str(" ORDER BY id LIMIT 1");
        sql
    }

    /// The number of documents that match.
    pub(super) fn count(collection: &Collection, filter: &Filter) -> Self {
        let mut sql = Self::of("SELECT count(*) FROM ", collection);
        sql.filter(filter);
        sql
    }

    /// Inserts a document; `body` is the JSON text of its fields.
    pub(super) fn insert(collection: &Collection, document: &Document, body: String) -> Self {
        let mut sql = Self::of("INSERT INTO ", collection);
        sql.text.push_str(" (id, version, body) VALUES (");
        sql.value(&document.id);
        sql.text.push_str(", ");
        sql.int(stored_version(document.version));
        sql.text.push_str(", ");
        sql.parameter(Parameter::Text(body));
        sql.text.push(')');
        sql
    }

    /// Replaces a document; `body` is the JSON text of its fields.
    pub(super) fn update(collection: &Collection, document: &Document, body: String) -> Self {
        let mut sql = Self::of("UPDATE ", collection);
        sql.text.push_str(" SET version = ");
        sql.int(stored_version(document.version));
        sql.text.push_str(", body = ");
        sql.parameter(Parameter::Text(body));
        sql.text.push_str(" WHERE id = ");
        sql.value(&document.id);
        sql
    }

    /// Deletes all documents that match.
    pub(super) fn delete(collection: &Collection, filter: &Filter) -> Self {
        let mut sql = Self::of("DELETE FROM ", collection);
        sql.filter(filter);
        sql
    }

    /// The statement for the driver.
    pub(super) fn query(&self) -> SqlQuery<'_, Sqlite, SqliteArguments> {
        let query = sqlx::query(sqlx::AssertSqlSafe(self.text.as_str()));
        self.parameters.iter().fold(query, |query, parameter| match parameter {
            Parameter::Text(text) => query.bind(text),
            Parameter::Int(number) => query.bind(number),
        })
    }

    fn of(start: &str, collection: &Collection) -> Self {
        Self { text: format!("{start}{}", table(collection)), parameters: Vec::new() }
    }

    fn parameter(&mut self, parameter: Parameter) {
        self.text.push('?');
        self.parameters.push(parameter);
    }

    fn int(&mut self, number: i64) {
        self.parameter(Parameter::Int(number));
    }

    fn value(&mut self, text: &str) {
        self.parameter(Parameter::Text(text.to_owned()));
    }

    fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        between: &str,
        mut write: impl FnMut(&mut Self, T),
    ) {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(between);
            }
            write(self, item);
        }
    }

    fn filter(&mut self, filter: &Filter) {
        if *filter != Filter::All {
            self.text.push_str(" WHERE ");
            self.condition(filter);
        }
    }

    fn condition(&mut self, filter: &Filter) {
        match filter {
            Filter::All => self.text.push_str("TRUE"),
            Filter::Ids(ids) => {
                self.text.push_str("id IN (");
                self.list(ids, ", ", |sql, id| sql.value(id));
                self.text.push(')');
            }
            Filter::After(id) => {
                self.text.push_str("id > ");
                self.value(id);
            }
            Filter::Field(path, predicate) => self.predicate(path, predicate),
            Filter::And(filters) if filters.is_empty() => self.text.push_str("TRUE"),
            Filter::Or(filters) if filters.is_empty() => self.text.push_str("FALSE"),
            Filter::And(filters) => self.group(filters, " AND "),
            Filter::Or(filters) => self.group(filters, " OR "),
            Filter::Not(filter) => {
                self.text.push_str("NOT (");
                self.condition(filter);
                self.text.push(')');
            }
        }
    }

    fn group(&mut self, filters: &[Filter], between: &str) {
        self.text.push('(');
        self.list(filters, between, Self::condition);
        self.text.push(')');
    }

    fn predicate(&mut self, path: &str, predicate: &Predicate) {
        match predicate {
            Predicate::Exists => {
                let _ = write!(self.text, "json_type(body, {}) IS NOT NULL", json_path(path));
            }
            Predicate::StartsWith(prefix) => {
                let _ = write!(self.text, "({} = {TEXT} AND {} >= ", rank(path), value(path));
                self.value(prefix);
                if let Some(end) = after_prefix(prefix) {
                    let _ = write!(self.text, " AND {} < ", value(path));
                    self.value(&end);
                }
                self.text.push(')');
            }
            Predicate::In(values) => self.in_list(path, values),
            Predicate::Below(scalar, bound) => {
                self.compare(path, scalar, if *bound == Bound::Included { "<=" } else { "<" });
            }
            Predicate::Above(scalar, bound) => {
                self.compare(path, scalar, if *bound == Bound::Included { ">=" } else { ">" });
            }
        }
    }

    /// One condition for each type in the list, with all values of that type.
    fn in_list(&mut self, path: &str, values: &[Scalar]) {
        self.text.push('(');
        let mut first = true;
        for of_rank in [NULL, NUMBER, TEXT, BOOL] {
            let same: Vec<&Scalar> = values.iter().filter(|value| rank_of(value) == of_rank).collect();
            if same.is_empty() {
                continue;
            }
            if !first {
                self.text.push_str(" OR ");
            }
            first = false;
            if of_rank == NULL {
                let _ = write!(self.text, "{} = {NULL}", rank(path));
            } else {
                let _ = write!(self.text, "({} = {of_rank} AND {} IN (", rank(path), value(path));
                self.list(same, ", ", Self::operand);
                self.text.push_str("))");
            }
        }
        self.text.push_str(if first { "FALSE)" } else { ")" });
    }

    fn compare(&mut self, path: &str, scalar: &Scalar, operator: &str) {
        match scalar {
            // No value is less or greater than null. Null and missing are equal to it.
            Scalar::Null if operator.ends_with('=') => {
                let _ = write!(self.text, "{} = {NULL}", rank(path));
            }
            Scalar::Null => self.text.push_str("FALSE"),
            _ => {
                let _ = write!(
                    self.text,
                    "({} = {} AND {} {operator} ",
                    rank(path),
                    rank_of(scalar),
                    value(path)
                );
                self.operand(scalar);
                self.text.push(')');
            }
        }
    }

    fn operand(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Null => self.text.push_str("NULL"),
            Scalar::Bool(value) => self.int((*value).into()),
            Scalar::Int(value) => self.int(*value),
            Scalar::Text(text) => self.value(text),
            // SQLite parses the operand as it parses the document: of very large and very small numbers it gets the
            // last digit wrong, and so it gets the same one wrong in both.
            Scalar::Float(number) => {
                self.text.push_str("json_extract(");
                self.parameter(Parameter::Text(serde_json::Value::from(*number).to_string()));
                self.text.push_str(", '$')");
            }
        }
    }

    fn order(&mut self, sort: &Sort) {
        self.text.push_str(" ORDER BY ");
        for (path, direction) in sort.fields() {
            let direction = if *direction == Direction::Descending { " DESC" } else { "" };
            let _ = write!(self.text, "{}{direction}, {}{direction}, ", rank(path), value(path));
        }
        self.text.push_str("id");
    }
}

/// The statements that create the table and the indexes of a collection if they are missing.
///
/// The table keeps its rowid: SQLite recommends `WITHOUT ROWID` only for rows smaller than a twentieth of a page, and
/// documents are larger.
pub(super) fn schema(collection: &Collection) -> Vec<String> {
    let name = table(collection);
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS {name} (id TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL)"
    )];
    for path in collection.indexes() {
        let index = quoted(&index(collection, path));
        statements.push(format!(
            "CREATE INDEX IF NOT EXISTS {index} ON {name} ({}, {}, id)",
            rank(path),
            value(path)
        ));
    }
    statements
}

/// A statement that counts the table and indexes of a collection that exist, and the number that there must be.
pub(super) fn count_schema(collection: &Collection) -> (String, usize) {
    let indexes = collection.indexes().iter().map(|path| index(collection, path));
    let names: Vec<String> = std::iter::once(collection.name().to_owned()).chain(indexes).collect();
    let texts: Vec<String> = names.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    (format!("SELECT count(*) FROM sqlite_schema WHERE name IN ({})", texts.join(", ")), names.len())
}

fn index(collection: &Collection, path: &str) -> String {
    format!("{} by {path}", collection.name())
}

/// The table of a collection.
pub(super) fn table(collection: &Collection) -> String {
    quoted(collection.name())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A version as SQLite stores it: no document reaches 2⁶³ writes.
fn stored_version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// The path as an SQL literal, such as `'$."address"."city"'`. With a parameter, SQLite could not use the index.
fn json_path(path: &str) -> String {
    let mut text = String::from("'$");
    for segment in path.split('.') {
        let _ = write!(text, ".{}", serde_json::Value::from(segment).to_string().replace('\'', "''"));
    }
    text + "'"
}

/// The rank of a field's type in a sort.
fn rank(path: &str) -> String {
    format!(
        "CASE json_type(body, {}) WHEN 'integer' THEN 1 WHEN 'real' THEN 1 WHEN 'text' THEN 2 WHEN 'object' THEN 3 \
         WHEN 'array' THEN 4 WHEN 'true' THEN 5 WHEN 'false' THEN 5 ELSE 0 END",
        json_path(path)
    )
}

/// The value of a field if it is a scalar, else NULL.
fn value(path: &str) -> String {
    let path = json_path(path);
    format!(
        "CASE WHEN json_type(body, {path}) IN ('object', 'array') THEN NULL ELSE json_extract(body, {path}) END"
    )
}

fn rank_of(scalar: &Scalar) -> u8 {
    match scalar {
        Scalar::Null => NULL,
        Scalar::Int(_) | Scalar::Float(_) => NUMBER,
        Scalar::Text(_) => TEXT,
        Scalar::Bool(_) => BOOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_its_quotes() {
        assert_eq!(json_path("a.b"), r#"'$."a"."b"'"#);
        assert_eq!(json_path(r#"x' OR "1"#), r#"'$."x'' OR \"1"'"#);
    }
}

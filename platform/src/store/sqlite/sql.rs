//! Queries as SQL for SQLite. Their meaning is defined in `query`, the expressions of a field are in `field`.
//!
//! A condition tests the rank of a field and compares its value (`field`).
//!
//! A condition is never NULL, so `NOT` is the plain opposite: a value is NULL only with the ranks 0, 3 and 4, and no
//! condition compares it there.
//!
//! Values are parameters. Names and paths have been checked; they are escaped all the same.

use std::fmt::Write as _;

use sqlx::Sqlite;
use sqlx::query::Query as SqlQuery;
use sqlx::sqlite::SqliteArguments;

use super::super::query::{Bound, Direction, Filter, Needle, Predicate, Query, Scalar, after_prefix};
use super::super::{Collection, Document, Token};
use super::field::{ARRAY, BOOL, NULL, NUMBER, TEXT, json_path, rank, rank_of, text, value};
use super::schema::table;

/// The columns of a document; `body` is the JSON text of its fields.
pub(super) const COLUMNS: &str = "id, version, token, body";

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
        Self::select("body", collection, query)
    }

    /// The documents of a query: instead of the body, the JSON text of the value at each path.
    pub(super) fn find_fields(collection: &Collection, query: &Query, paths: &[String]) -> Self {
        let columns: Vec<String> = paths.iter().map(|path| text(path)).collect();
        Self::select(&columns.join(", "), collection, query)
    }

    fn select(columns: &str, collection: &Collection, query: &Query) -> Self {
        let mut sql = Self::of(&format!("SELECT id, version, token, {columns} FROM "), collection);
        sql.filter(&query.filter);
        sql.order(query);
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
        let mut sql = Self::of(&format!("SELECT {COLUMNS} FROM "), collection);
        sql.filter(filter);
        sql.text.push_str(" ORDER BY id LIMIT 1");
        sql
    }

    /// The number of documents that match, up to a bound.
    pub(super) fn count(collection: &Collection, filter: &Filter, bound: Option<u64>) -> Self {
        let Some(bound) = bound else {
            let mut sql = Self::of("SELECT count(*) FROM ", collection);
            sql.filter(filter);
            return sql;
        };
        let mut sql = Self::of("SELECT count(*) FROM (SELECT 1 FROM ", collection);
        sql.filter(filter);
        sql.text.push_str(" LIMIT ");
        sql.int(i64::try_from(bound).unwrap_or(i64::MAX));
        sql.text.push(')');
        sql
    }

    /// The JSON text of one value of each group at a path, and the number of documents that match with it.
    pub(super) fn count_by(collection: &Collection, filter: &Filter, path: &str, limit: u64) -> Self {
        let mut sql = Self::of(&format!("SELECT max({}), count(*) FROM ", text(path)), collection);
        sql.text.push_str(" WHERE ");
        sql.condition(filter);
        let (rank, value) = (rank(path), value(path));
        let _ = write!(
            sql.text,
            " AND {rank} IN ({NULL}, {NUMBER}, {TEXT}, {BOOL}) GROUP BY {rank}, {value} \
             ORDER BY count(*) DESC, {rank}, {value} LIMIT "
        );
        sql.int(i64::try_from(limit).unwrap_or(i64::MAX));
        sql
    }

    /// Inserts a document; `body` is the JSON text of its fields.
    pub(super) fn insert(collection: &Collection, document: &Document, body: String) -> Self {
        let mut sql = Self::of("INSERT INTO ", collection);
        sql.text.push_str(" (id, version, token, body) VALUES (");
        sql.value(&document.id);
        sql.text.push_str(", ");
        sql.int(stored(document.version));
        sql.text.push_str(", ");
        sql.int(stored(document.token));
        sql.text.push_str(", ");
        sql.parameter(Parameter::Text(body));
        sql.text.push(')');
        sql
    }

    /// Inserts a document as it is, or replaces the one of its id.
    pub(super) fn restore(collection: &Collection, document: &Document, body: String) -> Self {
        let mut sql = Self::insert(collection, document, body);
        sql.text.push_str(" ON CONFLICT (id) DO UPDATE SET version = excluded.version, token = excluded.token, body = excluded.body");
        sql
    }

    /// Replaces a document; `body` is the JSON text of its fields.
    pub(super) fn update(collection: &Collection, document: &Document, body: String) -> Self {
        let mut sql = Self::of("UPDATE ", collection);
        sql.text.push_str(" SET version = ");
        sql.int(stored(document.version));
        sql.text.push_str(", token = ");
        sql.int(stored(document.token));
        sql.text.push_str(", body = ");
        sql.parameter(Parameter::Text(body));
        sql.text.push_str(" WHERE id = ");
        sql.value(&document.id);
        sql
    }

    /// Deletes all documents that match, except those with a higher token.
    pub(super) fn delete(collection: &Collection, filter: &Filter, token: Token) -> Self {
        let mut sql = Self::of("DELETE FROM ", collection);
        match token {
            None => sql.filter(filter),
            Some(token) => {
                sql.text.push_str(" WHERE token <= ");
                sql.int(stored(token));
                sql.text.push_str(" AND ");
                sql.condition(filter);
            }
        }
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
            Predicate::Contains(needle) => self.contains(path, needle),
            Predicate::Has(element) => self.has(path, element),
            Predicate::Type(types) => {
                let ranks: Vec<String> = types.iter().map(|of| (*of as u8).to_string()).collect();
                let _ = write!(self.text, "{} IN ({})", rank(path), ranks.join(", "));
            }
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

    fn contains(&mut self, path: &str, needle: &Needle) {
        let _ = write!(self.text, "({} = {TEXT} AND ", rank(path));
        if needle.ignores_case() {
            let _ = write!(self.text, "{} GLOB ", value(path));
            self.value(&glob(needle));
        } else {
            let _ = write!(self.text, "instr({}, ", value(path));
            self.value(needle.text());
            self.text.push_str(") > 0");
        }
        self.text.push(')');
    }

    /// `json_each` gives the elements of an array, and the values of an object too.
    fn has(&mut self, path: &str, element: &Scalar) {
        let types = match element {
            Scalar::Null => "'null'",
            Scalar::Bool(true) => "'true'",
            Scalar::Bool(false) => "'false'",
            Scalar::Int(_) | Scalar::Float(_) => "'integer', 'real'",
            Scalar::Text(_) => "'text'",
        };
        let _ = write!(
            self.text,
            "({} = {ARRAY} AND EXISTS (SELECT 1 FROM json_each(body, {}) AS element WHERE element.type IN ({types})",
            rank(path),
            json_path(path)
        );
        if rank_of(element) == NUMBER || rank_of(element) == TEXT {
            self.text.push_str(" AND element.atom = ");
            self.operand(element);
        }
        self.text.push_str("))");
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

    /// Where the filter leaves one type, its rank is left out: SQLite would take it for a part of the order, and not use
    /// the index.
    fn order(&mut self, query: &Query) {
        self.text.push_str(" ORDER BY ");
        for (path, direction) in query.sort.fields() {
            let direction = if *direction == Direction::Descending { " DESC" } else { "" };
            if !query.filter.leaves_one_type(path) {
                let _ = write!(self.text, "{}{direction}, ", rank(path));
            }
            let _ = write!(self.text, "{}{direction}, ", value(path));
        }
        self.text.push_str("id");
    }
}

/// A version or a token as SQLite stores it: no document reaches 2⁶³ writes, and no token is higher.
fn stored(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// The pattern of `GLOB` that finds a text: classes of letters, and in a class what has a meaning.
fn glob(needle: &Needle) -> String {
    let mut pattern = String::from("*");
    for cases in needle.letters() {
        match cases[..] {
            [letter] if !matches!(letter, '*' | '?' | '[') => pattern.push(letter),
            _ => {
                pattern.push('[');
                pattern.extend(cases);
                pattern.push(']');
            }
        }
    }
    pattern + "*"
}

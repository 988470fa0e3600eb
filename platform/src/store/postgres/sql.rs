//! Statements for PostgreSQL: queries and writes. The conditions of a filter are in `condition`, the expressions of a field
//! in `field`.
//!
//! Values are parameters. Names and paths have been checked; they are escaped all the same.

use std::fmt::Write as _;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query as SqlQuery;

use super::super::query::{Direction, Filter, Query, Sort};
use super::super::{Collection, Document, Fields, Token};
use super::field::{self, BOOL, NULL, NUMBER, TEXT};
use super::names::table;
use super::number;
use crate::error::Result;

/// The columns of a document.
const COLUMNS: &str = "id, version, token, body";

/// A statement and its parameters.
#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
enum Parameter {
    Text(String),
    Texts(Vec<String>),
    Int(Option<i64>),
    Ints(Vec<i64>),
}

/// What of a document is read, besides its id and its version.
#[derive(Clone, Copy)]
pub(super) enum Columns<'a> {
    /// The body.
    Body,
    /// The JSON text of the value at each path.
    Fields(&'a [String]),
}

/// How texts are sorted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// By their keys, in fields with an index. Then the index serves the sort, and the column `cut` says whether the order
    /// of this row may be wrong. All rows of equal keys are in the right position together, so a page without such a
    /// row is right.
    ByKey,
    /// As they are.
    Whole,
}

/// What others may do with a row until the end of the transaction. The weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowLock {
    /// Change it, and not delete it.
    Exists,
    /// Rely on its existence.
    Changes,
    /// Nothing.
    Deletes,
}

impl Sql {
    /// The documents of these ids, locked in the order of the ids.
    pub(super) fn lock(collection: &Collection, ids: Vec<String>, lock: RowLock) -> Self {
        let mut sql = Self::of(&format!("SELECT {COLUMNS} FROM "), collection);
        sql.filter(&Filter::Ids(ids));
        sql.text.push_str(match lock {
            RowLock::Exists => " ORDER BY id FOR KEY SHARE",
            RowLock::Changes => " ORDER BY id FOR NO KEY UPDATE",
            RowLock::Deletes => " ORDER BY id FOR UPDATE",
        });
        sql
    }

    /// The document of an id.
    pub(super) fn get(collection: &Collection, id: &str) -> Self {
        let mut sql = Self::of(&format!("SELECT {COLUMNS} FROM "), collection);
        sql.text.push_str(" WHERE id = ");
        sql.value(id);
        sql
    }

    /// The documents of a query. With [`Texts::ByKey`], the last column is `cut`.
    pub(super) fn find(collection: &Collection, query: &Query, columns: Columns<'_>, texts: Texts) -> Self {
        let mut selected = match columns {
            Columns::Body => COLUMNS.to_owned(),
            Columns::Fields(paths) => paths
                .iter()
                .fold("id, version, token".to_owned(), |all, path| all + ", " + &field::json(path)),
        };
        if texts == Texts::ByKey {
            let cut: Vec<String> = query.sort.fields().iter().map(|(path, _)| field::is_cut(path)).collect();
            let _ = write!(selected, ", {} AS cut", cut.join(" OR "));
        }
        let mut sql = Self::of(&format!("SELECT {selected} FROM "), collection);
        sql.filter(&query.filter);
        sql.order(&query.sort, texts);
        if query.page.limit.is_some() || query.page.offset > 0 {
            // NULL is no limit.
            sql.text.push_str(" LIMIT ");
            sql.int(query.page.limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)));
            sql.text.push_str(" OFFSET ");
            sql.int(Some(i64::try_from(query.page.offset).unwrap_or(i64::MAX)));
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
        let mut sql = Self::of("SELECT count(*) FROM (SELECT 1 FROM ", collection);
        sql.filter(filter);
        // NULL is no limit.
        sql.text.push_str(" LIMIT ");
        sql.int(bound.map(|bound| i64::try_from(bound).unwrap_or(i64::MAX)));
        sql.text.push_str(") AS counted");
        sql
    }

    /// The JSON text of one value of each group at a path, and the number of documents that match with it.
    pub(super) fn count_by(collection: &Collection, filter: &Filter, path: &str, limit: u64) -> Self {
        let mut sql = Self::of(&format!("SELECT max({}), count(*) FROM ", field::json(path)), collection);
        sql.text.push_str(" WHERE ");
        sql.condition(filter);
        let (rank, number, text) = (field::rank(path), field::number(path), field::text(path));
        let _ = write!(
            sql.text,
            " AND {rank} IN ({NULL}, {NUMBER}, {TEXT}, {BOOL}) GROUP BY {rank}, {number}, {text} \
             ORDER BY count(*) DESC, {rank}, {number}, {text} LIMIT "
        );
        sql.int(Some(i64::try_from(limit).unwrap_or(i64::MAX)));
        sql
    }

    /// Inserts documents as they are.
    pub(super) fn insert<'a>(
        collection: &Collection,
        documents: impl IntoIterator<Item = &'a Document>,
    ) -> Result<Self> {
        let (mut ids, mut versions, mut tokens, mut bodies) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for document in documents {
            ids.push(document.id.clone());
            versions.push(stored(document.version));
            tokens.push(stored(document.token));
            bodies.push(number::json(&document.fields)?);
        }
        let mut sql = Self::of("INSERT INTO ", collection);
        sql.text.push_str(" (id, version, token, body) SELECT id, version, token, body FROM unnest(");
        sql.texts(ids);
        sql.text.push_str(", ");
        sql.parameter(Parameter::Ints(versions));
        sql.text.push_str(", ");
        sql.parameter(Parameter::Ints(tokens));
        sql.text.push_str(", ");
        sql.texts(bodies);
        sql.text.push_str(") AS new (id, version, token, body)");
        Ok(sql)
    }

    /// Inserts documents as they are, or replaces those of their ids.
    pub(super) fn restore(collection: &Collection, documents: &[Document]) -> Result<Self> {
        let mut sql = Self::insert(collection, documents)?;
        sql.text.push_str(
            " ON CONFLICT (id) DO UPDATE \
             SET version = excluded.version, token = excluded.token, body = excluded.body",
        );
        Ok(sql)
    }

    /// Inserts a document, or replaces the one of this id. Returns version and token, or nothing when the document has a
    /// higher token.
    pub(super) fn upsert(collection: &Collection, new: &Document, token: Token) -> Result<Self> {
        let mut sql = Self::of("INSERT INTO ", collection);
        sql.text.push_str(" AS old (id, version, token, body) VALUES (");
        sql.value(&new.id);
        sql.text.push_str(", ");
        sql.int(Some(stored(new.version)));
        sql.text.push_str(", ");
        sql.token(token);
        sql.text.push_str(", ");
        sql.parameter(Parameter::Text(number::json(&new.fields)?));
        sql.text.push_str(
            ") ON CONFLICT (id) DO UPDATE SET version = old.version + 1, \
             token = greatest(old.token, excluded.token), body = excluded.body",
        );
        if token.is_some() {
            sql.text.push_str(" WHERE old.token <= excluded.token");
        }
        sql.text.push_str(" RETURNING version, token");
        Ok(sql)
    }

    /// Replaces the documents that match, have one of these versions, if some are given, and no higher token. Returns id,
    /// version and token.
    pub(super) fn replace(
        collection: &Collection,
        filter: &Filter,
        versions: Option<&[u64]>,
        fields: &Fields,
        token: Token,
    ) -> Result<Self> {
        let mut sql = Self::of("UPDATE ", collection);
        sql.text.push_str(" SET version = version + 1, token = greatest(token, ");
        sql.token(token);
        sql.text.push_str("), body = ");
        sql.parameter(Parameter::Text(number::json(fields)?));
        sql.versioned(filter, versions, token);
        sql.text.push_str(" RETURNING id, version, token");
        Ok(sql)
    }

    /// Deletes the documents that match, have one of these versions, if some are given, and no higher token. Returns them.
    pub(super) fn delete_one(
        collection: &Collection,
        filter: &Filter,
        versions: Option<&[u64]>,
        token: Token,
    ) -> Self {
        let mut sql = Self::of("DELETE FROM ", collection);
        sql.versioned(filter, versions, token);
        let _ = write!(sql.text, " RETURNING {COLUMNS}");
        sql
    }

    /// Deletes all documents that match, except those with a higher token.
    pub(super) fn delete(collection: &Collection, filter: &Filter, token: Token) -> Self {
        let mut sql = Self::of("DELETE FROM ", collection);
        sql.versioned(filter, None, token);
        sql
    }

    /// The statement for the driver.
    pub(super) fn query(self) -> SqlQuery<'static, Postgres, PgArguments> {
        let query = sqlx::query(sqlx::AssertSqlSafe(self.text));
        self.parameters.into_iter().fold(query, |query, parameter| match parameter {
            Parameter::Text(text) => query.bind(text),
            Parameter::Texts(texts) => query.bind(texts),
            Parameter::Int(number) => query.bind(number),
            Parameter::Ints(numbers) => query.bind(numbers),
        })
    }

    fn of(start: &str, collection: &Collection) -> Self {
        Self { text: format!("{start}{}", table(collection)), parameters: Vec::new() }
    }

    fn parameter(&mut self, parameter: Parameter) {
        self.parameters.push(parameter);
        let _ = write!(self.text, "${}", self.parameters.len());
    }

    fn int(&mut self, number: Option<i64>) {
        self.parameter(Parameter::Int(number));
    }

    pub(super) fn value(&mut self, text: &str) {
        self.parameter(Parameter::Text(text.to_owned()));
    }

    pub(super) fn texts(&mut self, texts: Vec<String>) {
        self.parameter(Parameter::Texts(texts));
    }

    fn versioned(&mut self, filter: &Filter, versions: Option<&[u64]>, token: Token) {
        self.text.push_str(" WHERE ");
        self.condition(filter);
        if let Some(versions) = versions {
            self.text.push_str(" AND version = ANY(");
            // No document reaches 2⁶³ writes.
            let versions = versions.iter().filter_map(|version| i64::try_from(*version).ok()).collect();
            self.parameter(Parameter::Ints(versions));
            self.text.push(')');
        }
        if token.is_some() {
            self.text.push_str(" AND token <= ");
            self.token(token);
        }
    }

    /// Adds a token, 0 if there is none.
    fn token(&mut self, token: Token) {
        self.int(Some(stored(token.unwrap_or(0))));
    }

    fn filter(&mut self, filter: &Filter) {
        if *filter != Filter::All {
            self.text.push_str(" WHERE ");
            self.condition(filter);
        }
    }

    fn order(&mut self, sort: &Sort, texts: Texts) {
        self.text.push_str(" ORDER BY ");
        for (path, direction) in sort.fields() {
            let direction = if *direction == Direction::Descending { " DESC" } else { "" };
            let text = if texts == Texts::ByKey { field::key(path) } else { field::text(path) };
            let (rank, number) = (field::rank(path), field::number(path));
            let _ = write!(self.text, "{rank}{direction}, {number}{direction}, {text}{direction}, ");
        }
        self.text.push_str("id");
    }
}

/// A version or a token as PostgreSQL stores it: no document reaches 2⁶³ writes, and no token is higher.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

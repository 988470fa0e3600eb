//! Queries as SQL for PostgreSQL. Their meaning is defined in `query`, the expressions of a field are in `field`.
//!
//! A condition is never NULL, so `NOT` is the plain opposite: each tests the rank first, and a value is NULL only with
//! another rank. It also says that the number of a text is NULL, so that it names all the columns of an index up to the
//! one that it compares.
//!
//! Values are parameters. Names and paths have been checked; they are escaped all the same.

use std::fmt::Write as _;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query as SqlQuery;

use super::super::query::{Bound, Direction, Filter, Predicate, Query, Scalar, Sort, after_prefix};
use super::super::{Collection, Fields};
use super::field::{self, BOOL, NULL, NUMBER, TEXT};
use super::number;
use super::schema::table;
use crate::error::Result;

/// The columns of a document.
const COLUMNS: &str = "id, version, body";

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

impl Sql {
    /// The document of an id.
    pub(super) fn get(collection: &Collection, id: &str) -> Self {
        let mut sql = Self::of(&format!("SELECT {COLUMNS} FROM "), collection);
        sql.text.push_str(" WHERE id = ");
        sql.value(id);
        sql
    }

    /// The documents of a query. With [`Texts::ByKey`], the last column is `cut`.
    pub(super) fn find(collection: &Collection, query: &Query, texts: Texts) -> Self {
        let cut: Vec<String> = match texts {
            Texts::ByKey => query.sort.fields().iter().map(|(path, _)| field::is_cut(path)).collect(),
            Texts::Whole => Vec::new(),
        };
        let cut = if cut.is_empty() { String::new() } else { format!(", {} AS cut", cut.join(" OR ")) };
        let mut sql = Self::of(&format!("SELECT {COLUMNS}{cut} FROM "), collection);
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

    /// The number of documents that match.
    pub(super) fn count(collection: &Collection, filter: &Filter) -> Self {
        let mut sql = Self::of("SELECT count(*) FROM ", collection);
        sql.filter(filter);
        sql
    }

    /// Inserts documents with version 1.
    pub(super) fn insert<'a>(
        collection: &Collection,
        new: impl IntoIterator<Item = (&'a String, &'a Fields)>,
    ) -> Result<Self> {
        let (mut ids, mut bodies) = (Vec::new(), Vec::new());
        for (id, fields) in new {
            ids.push(id.clone());
            bodies.push(number::json(fields)?);
        }
        let mut sql = Self::of("INSERT INTO ", collection);
        sql.text.push_str(" (id, version, body) SELECT id, 1, body FROM unnest(");
        sql.texts(ids);
        sql.text.push_str(", ");
        sql.texts(bodies);
        sql.text.push_str(") AS new (id, body)");
        Ok(sql)
    }

    /// Inserts a document, or replaces the one of this id. Returns the version.
    pub(super) fn upsert(collection: &Collection, id: &str, fields: &Fields) -> Result<Self> {
        let mut sql = Self::of("INSERT INTO ", collection);
        sql.text.push_str(" AS old (id, version, body) VALUES (");
        sql.value(id);
        sql.text.push_str(", 1, ");
        sql.parameter(Parameter::Text(number::json(fields)?));
        sql.text.push_str(
            ") ON CONFLICT (id) DO UPDATE SET version = old.version + 1, body = excluded.body RETURNING version",
        );
        Ok(sql)
    }

    /// Replaces the documents that match, and have one of these versions, if some are given. Returns id and version.
    pub(super) fn replace(
        collection: &Collection,
        filter: &Filter,
        versions: Option<&[u64]>,
        fields: &Fields,
    ) -> Result<Self> {
        let mut sql = Self::of("UPDATE ", collection);
        sql.text.push_str(" SET version = version + 1, body = ");
        sql.parameter(Parameter::Text(number::json(fields)?));
        sql.versioned(filter, versions);
        sql.text.push_str(" RETURNING id, version");
        Ok(sql)
    }

    /// Deletes the documents that match, and have one of these versions, if some are given. Returns them.
    pub(super) fn delete_one(collection: &Collection, filter: &Filter, versions: Option<&[u64]>) -> Self {
        let mut sql = Self::of("DELETE FROM ", collection);
        sql.versioned(filter, versions);
        let _ = write!(sql.text, " RETURNING {COLUMNS}");
        sql
    }

    /// Deletes all documents that match.
    pub(super) fn delete(collection: &Collection, filter: &Filter) -> Self {
        let mut sql = Self::of("DELETE FROM ", collection);
        sql.filter(filter);
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

    fn value(&mut self, text: &str) {
        self.parameter(Parameter::Text(text.to_owned()));
    }

    fn texts(&mut self, texts: Vec<String>) {
        self.parameter(Parameter::Texts(texts));
    }

    fn versioned(&mut self, filter: &Filter, versions: Option<&[u64]>) {
        self.text.push_str(" WHERE ");
        self.condition(filter);
        if let Some(versions) = versions {
            self.text.push_str(" AND version = ANY(");
            // No document reaches 2⁶³ writes.
            let versions = versions.iter().filter_map(|version| i64::try_from(*version).ok()).collect();
            self.parameter(Parameter::Ints(versions));
            self.text.push(')');
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
            Filter::Ids(ids) if ids.len() == 1 => {
                self.text.push_str("id = ");
                self.value(&ids[0]);
            }
            // One parameter, whatever their number: PostgreSQL has at most 65,535.
            Filter::Ids(ids) => {
                self.text.push_str("id = ANY(");
                self.texts(ids.clone());
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
        for (index, filter) in filters.iter().enumerate() {
            if index > 0 {
                self.text.push_str(between);
            }
            self.condition(filter);
        }
        self.text.push(')');
    }

    fn predicate(&mut self, path: &str, predicate: &Predicate) {
        match predicate {
            Predicate::Exists => {
                let _ = write!(self.text, "({}) IS NOT NULL", field::value(path));
            }
            Predicate::StartsWith(prefix) => {
                self.of_type(path, TEXT);
                self.compare_text(path, ">=", prefix);
                if let Some(end) = after_prefix(prefix) {
                    self.compare_text(path, "<", &end);
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

    /// Opens a condition on values of one type.
    fn of_type(&mut self, path: &str, rank: u8) {
        let _ = write!(self.text, "({} = {rank}", field::rank(path));
        if rank == TEXT {
            let _ = write!(self.text, " AND {} IS NULL", field::number(path));
        }
    }

    /// One condition for each type in the list, with all values of that type.
    fn in_list(&mut self, path: &str, values: &[Scalar]) {
        let (mut numbers, mut bools, mut texts, mut long) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut null = false;
        for value in values {
            match value {
                Scalar::Null => null = true,
                Scalar::Text(text) if field::cut(text).is_some() => long.push(text),
                Scalar::Text(text) => texts.push(text.clone()),
                Scalar::Bool(_) => bools.push(numeric(value)),
                Scalar::Int(_) | Scalar::Float(_) => numbers.push(numeric(value)),
            }
        }
        self.text.push_str("(FALSE");
        if null {
            let _ = write!(self.text, " OR {} = {NULL}", field::rank(path));
        }
        for (rank, numbers) in [(NUMBER, numbers), (BOOL, bools)] {
            if !numbers.is_empty() {
                self.text.push_str(" OR ");
                self.of_type(path, rank);
                let _ = write!(self.text, " AND {} = ANY(", field::number(path));
                self.texts(numbers);
                self.text.push_str("::numeric[]))");
            }
        }
        if !texts.is_empty() {
            self.text.push_str(" OR ");
            self.of_type(path, TEXT);
            let _ = write!(self.text, " AND {} = ANY(", field::key(path));
            self.texts(texts);
            self.text.push_str("))");
        }
        for text in long {
            self.text.push_str(" OR ");
            self.of_type(path, TEXT);
            self.compare_text(path, "=", text);
            self.text.push(')');
        }
        self.text.push(')');
    }

    fn compare(&mut self, path: &str, scalar: &Scalar, operator: &str) {
        match scalar {
            // No value is less or greater than null. Null and missing are equal to it.
            Scalar::Null if operator.ends_with('=') => {
                let _ = write!(self.text, "{} = {NULL}", field::rank(path));
            }
            Scalar::Null => self.text.push_str("FALSE"),
            Scalar::Text(text) => {
                self.of_type(path, TEXT);
                self.compare_text(path, operator, text);
                self.text.push(')');
            }
            Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) => {
                self.of_type(path, if matches!(scalar, Scalar::Bool(_)) { BOOL } else { NUMBER });
                let _ = write!(self.text, " AND {} {operator} ", field::number(path));
                self.value(&numeric(scalar));
                self.text.push_str("::numeric)");
            }
        }
    }

    /// Adds a comparison of the text. The key alone decides when the operand is shorter than a key can be; else it only
    /// narrows the search.
    fn compare_text(&mut self, path: &str, operator: &str, operand: &str) {
        let Some(cut) = field::cut(operand) else {
            let _ = write!(self.text, " AND {} {operator} ", field::key(path));
            return self.value(operand);
        };
        let narrowing = match operator {
            "<" => "<=",
            ">" => ">=",
            other => other,
        };
        let _ = write!(self.text, " AND {} {narrowing} ", field::key(path));
        self.value(cut);
        let _ = write!(self.text, " AND {} {operator} ", field::text(path));
        self.value(operand);
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

/// The text of a number, or of a boolean as a number.
fn numeric(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Bool(value) => i64::from(*value).to_string(),
        Scalar::Int(value) => value.to_string(),
        Scalar::Float(value) => number::float(*value),
        // Neither is compared as a number.
        Scalar::Null | Scalar::Text(_) => String::new(),
    }
}

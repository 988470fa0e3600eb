//! The conditions of a filter as SQL. Their meaning is defined in `query`, the expressions of a field are in `field`.
//!
//! A condition is never NULL, so `NOT` is the plain opposite: each tests the rank first, and a value is NULL only with
//! another rank. It also says that the number of a text is NULL, so that it names all the columns of an index up to the
//! one that it compares.

use std::fmt::Write as _;

use super::super::query::{Bound, Filter, Needle, Predicate, Scalar, after_prefix, regex};
use super::field::{self, BOOL, NULL, NUMBER, TEXT};
use super::number;
use super::sql::Sql;

impl Sql {
    /// Adds the condition of a filter.
    pub(super) fn condition(&mut self, filter: &Filter) {
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
            Predicate::Contains(needle) => self.contains(path, needle),
            Predicate::Has(element) => self.has(path, element),
            Predicate::Type(types) => {
                let ranks: Vec<String> = types.iter().map(|of| (*of as u8).to_string()).collect();
                let _ = write!(self.text, "{} = ANY('{{{}}}')", field::rank(path), ranks.join(", "));
            }
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

    fn contains(&mut self, path: &str, needle: &Needle) {
        let _ = write!(self.text, "({} = {TEXT} AND ", field::rank(path));
        if needle.ignores_case() {
            let _ = write!(self.text, "{} ~ ", field::text(path));
            self.value(&regex(needle));
        } else {
            let _ = write!(self.text, "strpos({}, ", field::text(path));
            self.value(needle.text());
            self.text.push_str(") > 0");
        }
        self.text.push(')');
    }

    fn has(&mut self, path: &str, element: &Scalar) {
        let array = field::value(path);
        let _ = write!(
            self.text,
            "EXISTS (SELECT 1 FROM jsonb_array_elements(CASE jsonb_typeof({array}) WHEN 'array' THEN {array} END) \
             AS elements (element) WHERE "
        );
        match element {
            Scalar::Null => self.text.push_str("jsonb_typeof(element) = 'null'"),
            Scalar::Text(text) => {
                self.text
                    .push_str("jsonb_typeof(element) = 'string' AND (element #>> '{}') COLLATE \"C\" = ");
                self.value(text);
            }
            Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) => {
                let of = if matches!(element, Scalar::Bool(_)) { "boolean" } else { "number" };
                let number = field::number_of("element");
                let _ = write!(self.text, "jsonb_typeof(element) = '{of}' AND {number} = ");
                self.value(&numeric(element));
                self.text.push_str("::numeric");
            }
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

//! Where a page of a sorted list ends, as an opaque text, and the documents that come after it.
//!
//! A cursor holds the last document's id and its values at the paths of the sort: so the next page begins in the right
//! place also when that document has been changed or deleted. Values that are too long for a URL are left out; then they
//! are looked up by the id.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use twox_hash::XxHash3_128;

use super::query::{Bound, Direction, Predicate, Scalar, Type, value_at};
use super::{Document, Filter, Sort};
use crate::error::{Error, FieldError, Result};
use crate::json;

/// The most bytes of a cursor that holds values. A URL of 2,000 bytes passes everywhere.
const MAX_WITH_VALUES: usize = 1_000;
/// The most bytes of a cursor that is read: with an id of 1,024 bytes, each escaped in JSON.
const MAX: usize = 12_000;

/// The content of a cursor.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Cursor {
    /// The sort for which it was made.
    #[serde(rename = "s")]
    sort: u32,
    /// The id of the last document.
    #[serde(rename = "i")]
    pub(super) id: String,
    /// Its values at the paths of the sort.
    #[serde(rename = "v")]
    pub(super) values: Option<Vec<Value>>,
}

impl Cursor {
    /// The end of a page whose last document is this one.
    pub(super) fn at(document: &Document, sort: &Sort) -> Self {
        Self { sort: fingerprint(sort), id: document.id.clone(), values: Some(values(document, sort)) }
    }

    /// The cursor as a text of `A-Z a-z 0-9 - _`.
    pub(super) fn encode(mut self) -> Result<String> {
        let mut text = serde_json::to_vec(&self).map_err(Error::internal)?;
        if text.len() > MAX_WITH_VALUES {
            self.values = None;
            text = serde_json::to_vec(&self).map_err(Error::internal)?;
        }
        Ok(URL_SAFE_NO_PAD.encode(text))
    }

    /// Reads a cursor. It comes from a client: `BadRequest` when it was not made for this sort.
    pub(super) fn decode(text: &str, sort: &Sort) -> Result<Self> {
        if text.len() > MAX {
            return Err(invalid("is too long"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid("is not one that this list gave"))?;
        let cursor = json::parse(&bytes).ok().and_then(|cursor| serde_json::from_value::<Self>(cursor).ok());
        let cursor = cursor.ok_or_else(|| invalid("is not one that this list gave"))?;
        let fits = cursor.sort == fingerprint(sort)
            && cursor.values.as_ref().is_none_or(|values| values.len() == sort.fields().len());
        if fits { Ok(cursor) } else { Err(invalid("is one of another order")) }
    }
}

fn invalid(why: &str) -> Error {
    Error::bad_request("Invalid Cursor")
        .with_errors(vec![FieldError { pointer: "/after".to_owned(), message: why.to_owned() }])
}

/// The error of a cursor without values whose document is gone.
pub(super) fn outdated() -> Error {
    invalid("is outdated: its document is gone; begin again without it")
}

/// A number that differs for most other sorts.
fn fingerprint(sort: &Sort) -> u32 {
    let mut text = String::new();
    for (path, direction) in sort.fields() {
        text.push_str(path);
        text.push_str(if *direction == Direction::Descending { "-\0" } else { "+\0" });
    }
    // 32 bits are enough to notice a mistake.
    let [a, b, c, d, ..] = XxHash3_128::oneshot(text.as_bytes()).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The values of a document by which it is sorted. Of an object or an array, only the type counts.
pub(super) fn values(document: &Document, sort: &Sort) -> Vec<Value> {
    let value = |path: &str| match value_at(&document.fields, path) {
        None => Value::Null,
        Some(Value::Object(_)) => Value::Object(Map::new()),
        Some(Value::Array(_)) => Value::Array(Vec::new()),
        Some(scalar) => scalar.clone(),
    };
    sort.fields().iter().map(|(path, _)| value(path)).collect()
}

/// The documents that come after the end of a page: in one part for each type of the first value, in their order. An index
/// serves each part.
pub(super) fn parts_after(sort: &Sort, values: &[Value], id: &str) -> Vec<Filter> {
    let keys: Vec<Key<'_>> = sort
        .fields()
        .iter()
        .zip(values)
        .map(|((path, direction), value)| Key { path, descends: *direction == Direction::Descending, value })
        .collect();
    let Some((first, _)) = keys.split_first() else { return vec![Filter::After(id.to_owned())] };
    let mut after = Vec::with_capacity(keys.len() + 1);
    for (index, key) in keys.iter().enumerate() {
        let same = keys[..index].iter().map(Key::same);
        // Within the first part, the first values have one type.
        let later = if index == 0 { key.later_of_its_type() } else { key.later() };
        after.push(Filter::And(same.chain([later]).collect()));
    }
    let same = keys.iter().map(Key::same);
    after.push(Filter::And(same.chain([Filter::After(id.to_owned())]).collect()));
    let mut parts = vec![Filter::And(vec![first.not_earlier_of_its_type(), Filter::Or(after)])];
    parts.extend(first.later_types().into_iter().map(|of| first.field(Predicate::Type(vec![of]))));
    parts
}

/// One value of a sort.
struct Key<'a> {
    path: &'a str,
    descends: bool,
    value: &'a Value,
}

impl Key<'_> {
    fn field(&self, predicate: Predicate) -> Filter {
        Filter::Field(self.path.to_owned(), predicate)
    }

    fn type_of(&self) -> Type {
        Type::of(self.value)
    }

    /// The value as an operand; `None` for null, objects and arrays, whose type says all.
    fn operand(&self) -> Option<Scalar> {
        match self.value {
            Value::Null => None,
            // An integer above 2⁶³−1 is compared as the nearest float.
            Value::Number(number) if number.as_i64().is_none() => number.as_f64().map(Scalar::Float),
            scalar => Scalar::try_from(scalar.clone()).ok(),
        }
    }

    fn same(&self) -> Filter {
        match self.operand() {
            Some(value) => self.field(Predicate::In(vec![value])),
            None => self.field(Predicate::Type(vec![self.type_of()])),
        }
    }

    fn beyond(&self, bound: Bound) -> Option<Filter> {
        let value = self.operand()?;
        let predicate =
            if self.descends { Predicate::Below(value, bound) } else { Predicate::Above(value, bound) };
        Some(self.field(predicate))
    }

    fn later_of_its_type(&self) -> Filter {
        self.beyond(Bound::Excluded).unwrap_or(Filter::Or(Vec::new()))
    }

    fn not_earlier_of_its_type(&self) -> Filter {
        self.beyond(Bound::Included).unwrap_or_else(|| self.same())
    }

    fn later(&self) -> Filter {
        let later_types = self.field(Predicate::Type(self.later_types()));
        Filter::Or(vec![self.later_of_its_type(), later_types])
    }

    /// The types that come later, in their order.
    fn later_types(&self) -> Vec<Type> {
        let mut types: Vec<Type> = Type::ALL.to_vec();
        if self.descends {
            types.reverse();
        }
        types.into_iter().skip_while(|of| *of != self.type_of()).skip(1).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn document(fields: Value) -> Document {
        Document {
            id: "x".to_owned(),
            version: 1,
            token: 0,
            fields: Arc::new(serde_json::from_value(fields).unwrap()),
        }
    }

    fn sort() -> Sort {
        Sort::by("a", Direction::Ascending).then("b.c", Direction::Descending)
    }

    #[test]
    fn a_cursor_comes_back_and_is_a_part_of_a_url() {
        let document = document(json!({"a": 0.1, "b": {"c": [1]}, "d": 1}));
        let text = Cursor::at(&document, &sort()).encode().unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
        let cursor = Cursor::decode(&text, &sort()).unwrap();
        assert_eq!((cursor.id, cursor.values), ("x".to_owned(), Some(vec![json!(0.1), json!([])])));
    }

    #[test]
    fn long_values_are_left_out() {
        let document = document(json!({"a": "x".repeat(2_000)}));
        let text = Cursor::at(&document, &sort()).encode().unwrap();
        assert!(text.len() < 100);
        assert_eq!(Cursor::decode(&text, &sort()).unwrap().values, None);
    }

    #[test]
    fn what_is_no_cursor_of_this_sort_is_refused() {
        let text = Cursor::at(&document(json!({})), &sort()).encode().unwrap();
        let other = Sort::by("a", Direction::Descending).then("b.c", Direction::Descending);
        let of = |sort: u32, values: &str| {
            URL_SAFE_NO_PAD.encode(format!(r#"{{"s":{sort},"i":"x","v":{values}}}"#))
        };
        let foreign = of(1, "[]");
        // A key that `serde_json` interprets: the value would be the array in the text.
        let reserved = of(fingerprint(&sort()), r#"[{"$serde_json::private::RawValue":"[]"},1]"#);
        for (text, sort) in [
            (text.as_str(), &other),
            ("", &sort()),
            ("é", &sort()),
            ("AAAA", &sort()),
            (&foreign, &sort()),
            (&reserved, &sort()),
        ] {
            assert_eq!(Cursor::decode(text, sort).unwrap_err().reason(), "Invalid Cursor", "{text}");
        }
    }
}

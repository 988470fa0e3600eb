//! A document, and what an id and fields may hold. It knows no engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::fields::Fields;
use super::query;
use crate::error::{Error, FieldError, Result};
use crate::json;

/// The most levels of objects and arrays in a document: MongoDB's limit, and below the [`json::MAX_DEPTH`] at which
/// reading ends, so that what was written can be read.
pub const MAX_NESTING: usize = 100;

/// The most refused fields that one error names: a bound on the response to a hostile document.
const MAX_ERRORS: usize = 100;

/// What a caller is told of a text or a key with NUL. PostgreSQL cannot keep NUL, so no engine is given it.
const NUL: &str = "must not contain the character NUL (U+0000)";

/// The longest id in bytes; below the 2,704 at which PostgreSQL refuses an index entry.
pub const MAX_ID: usize = 1024;

/// The fencing token that a write carries, 2⁶³−1 at most; `None` for a write that is not guarded.
///
/// A document keeps the highest token that has written it, also when an unguarded write follows. A write to a document
/// with a higher token fails with `Conflict`, reason `Stale`, and `Write::DeleteAll` leaves such documents alone. A
/// deleted document takes its token with it.
pub type Token = Option<u64>;

/// What is stored under one id.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Unique in its collection; any text of 1 to [`MAX_ID`] bytes without NUL.
    pub id: String,
    /// Microseconds since 1970 when the document is created; each write adds 1. So a document that is created again under
    /// the id of a deleted one has none of its versions.
    pub version: u64,
    /// The highest fencing token that has written it; 0 when none has.
    pub token: u64,
    /// The fields; shared, so that a copy of the document is cheap.
    pub fields: Arc<Fields>,
}

impl Document {
    /// A document that is to be created, with its first version.
    pub fn new(id: String, fields: Arc<Fields>, token: Token) -> Self {
        Self { id, version: first_version(), token: token.unwrap_or(0), fields }
    }

    /// The document in a row of an SQL table; `body` is the JSON text of its fields.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn from_row(
        collection: &super::Collection,
        id: String,
        version: i64,
        token: i64,
        body: &str,
    ) -> Result<Self> {
        let name = || format!("{} {id:?}", collection.name());
        let version = u64::try_from(version).map_err(|cause| super::damaged(name(), cause))?;
        let token = u64::try_from(token).map_err(|cause| super::damaged(name(), cause))?;
        let fields = match json::parse(body.as_bytes()) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(super::damaged(name(), "it is not an object")),
            Err(cause) => return Err(super::damaged(name(), cause)),
        };
        Ok(Self { id, version, token, fields: Arc::new(fields) })
    }

    /// The document of a row that has the JSON text of the value at each path, or none where there is no value.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn from_values(
        collection: &super::Collection,
        id: String,
        version: i64,
        token: i64,
        values: Vec<(&String, Option<String>)>,
    ) -> Result<Self> {
        let name = || format!("{} {id:?}", collection.name());
        let version = u64::try_from(version).map_err(|cause| super::damaged(name(), cause))?;
        let token = u64::try_from(token).map_err(|cause| super::damaged(name(), cause))?;
        let mut fields = Fields::new();
        for (path, text) in values {
            if let Some(text) = text {
                let value = json::parse(text.as_bytes()).map_err(|cause| super::damaged(name(), cause))?;
                set(&mut fields, path, value);
            }
        }
        Ok(Self { id, version, token, fields: Arc::new(fields) })
    }

    /// This document with only the fields at these paths, in the order of the paths.
    pub(super) fn only(&self, paths: &[String]) -> Self {
        let mut fields = Fields::new();
        for path in paths {
            if let Some(value) = query::value_at(&self.fields, path) {
                set(&mut fields, path, value.clone());
            }
        }
        Self { id: self.id.clone(), version: self.version, token: self.token, fields: Arc::new(fields) }
    }

    /// This document with other fields, one version up. `Conflict`, reason `Stale`, when a higher token has written it.
    pub(super) fn next_version(&self, fields: Arc<Fields>, token: Token) -> Result<Self> {
        let token = self.next_token(token)?;
        Ok(Self { id: self.id.clone(), version: self.version + 1, token, fields })
    }

    /// The token after a write with this one. `Conflict`, reason `Stale`, when a higher token has written it.
    pub(super) fn next_token(&self, token: Token) -> Result<u64> {
        match token {
            Some(token) if token < self.token => Err(stale()),
            Some(token) => Ok(token),
            None => Ok(self.token),
        }
    }
}

/// The time in microseconds, and higher than any before it in this process, also when the clock is set back. It stays below
/// 2⁵³, up to which JavaScript is exact, until 2255.
fn first_version() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
    let now = u64::try_from(now).unwrap_or(0);
    let last = LAST.fetch_max(now, Ordering::Relaxed);
    if now > last { now } else { LAST.fetch_add(1, Ordering::Relaxed) + 1 }
}

/// `Internal` when a token is larger than the integers of SQL and BSON.
pub(super) fn check_token(token: Token) -> Result<()> {
    match token {
        Some(token) if i64::try_from(token).is_err() => {
            Err(Error::internal(format!("the fencing token {token} is above 2⁶³−1")))
        }
        _ => Ok(()),
    }
}

/// The error of a guarded write to a document that a higher token has written.
pub(super) fn stale() -> Error {
    Error::conflict("Stale")
}

/// Sets the value at a path, in objects that are made where they are missing.
pub(super) fn set(fields: &mut Fields, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(fields.insert(path.to_owned(), value)),
        Some((segment, rest)) => {
            let inner = fields.entry(segment).or_insert_with(|| Value::Object(Fields::new()));
            // Another value would be an object, since no path contains another.
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// `BadRequest` when a document cannot have this id.
pub(super) fn check_id(id: &str) -> Result<()> {
    match id.len() {
        0 => Err(Error::bad_request("Empty Id")),
        // Most request bodies have their id there.
        1..=MAX_ID if id.contains('\0') => Err(Error::bad_request("Id With NUL")
            .with_errors(vec![FieldError { pointer: "/id".to_owned(), message: NUL.to_owned() }])),
        1..=MAX_ID => Ok(()),
        _ => Err(Error::bad_request("Id Too Long")),
    }
}

/// `BadRequest` when a document is nested deeper than [`MAX_NESTING`], or holds NUL or a key that is reserved
/// ([`json::is_reserved_key`]). The error has the JSON pointer of each such field.
pub(super) fn check(fields: &Fields) -> Result<()> {
    let mut check = Check::default();
    check.object(fields, None, MAX_NESTING);
    check.result()
}

/// [`check`] for the value that a patch sets at a path. The nesting of the whole document is checked when the patch is
/// applied.
pub(super) fn check_at(path: &str, value: &Value) -> Result<()> {
    let mut check = Check::default();
    for segment in path.split('.') {
        json::push_segment(&mut check.base, segment);
    }
    check.value(value, None, MAX_NESTING);
    check.result()
}

/// One walk through a document.
#[derive(Default)]
struct Check {
    /// The pointer to the value at which the walk begins.
    base: String,
    errors: Vec<FieldError>,
    too_deep: bool,
}

/// A JSON pointer: its last segment, and the pointer to the outer value. Its text is built only for an error.
struct Pointer<'a> {
    outer: Option<&'a Pointer<'a>>,
    segment: Segment<'a>,
}

enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

impl Check {
    fn value(&mut self, value: &Value, at: Option<&Pointer<'_>>, levels: usize) {
        match value {
            Value::Object(fields) => self.object(fields, at, levels),
            Value::Array(items) => self.array(items, at, levels),
            Value::String(text) if text.contains('\0') => self.refuse(at, NUL),
            _ => {}
        }
    }

    fn object(&mut self, fields: &Fields, at: Option<&Pointer<'_>>, levels: usize) {
        let Some(levels) = self.enter(at, levels) else { return };
        for (key, value) in fields {
            let inner = Pointer { outer: at, segment: Segment::Key(key) };
            if json::is_reserved_key(key) {
                self.refuse(Some(&inner), json::RESERVED_KEY);
            }
            if key.contains('\0') {
                self.refuse(Some(&inner), NUL);
            }
            self.value(value, Some(&inner), levels);
        }
    }

    fn array(&mut self, items: &[Value], at: Option<&Pointer<'_>>, levels: usize) {
        let Some(levels) = self.enter(at, levels) else { return };
        for (index, item) in items.iter().enumerate() {
            self.value(item, Some(&Pointer { outer: at, segment: Segment::Index(index) }), levels);
        }
    }

    /// The levels that are left inside an object or array.
    fn enter(&mut self, at: Option<&Pointer<'_>>, levels: usize) -> Option<usize> {
        let left = levels.checked_sub(1);
        if left.is_none() {
            self.too_deep = true;
            self.refuse(at, "is nested too deeply");
        }
        left
    }

    fn refuse(&mut self, at: Option<&Pointer<'_>>, message: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError { pointer: self.pointer(at), message: message.to_owned() });
        }
    }

    fn pointer(&self, at: Option<&Pointer<'_>>) -> String {
        let Some(inner) = at else { return self.base.clone() };
        let mut pointer = self.pointer(inner.outer);
        match inner.segment {
            Segment::Key(key) => json::push_segment(&mut pointer, key),
            Segment::Index(index) => json::push_segment(&mut pointer, &index.to_string()),
        }
        pointer
    }

    fn result(self) -> Result<()> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let reason = if self.too_deep { "Document Nested Too Deeply" } else { "Invalid Document" };
        Err(Error::bad_request(reason).with_errors(self.errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        let Value::Object(fields) = value else { panic!("not an object") };
        fields
    }

    fn pointers(checked: Result<()>) -> Vec<String> {
        checked.unwrap_err().errors().iter().map(|error| error.pointer.clone()).collect()
    }

    #[test]
    fn a_document_is_nested_a_hundred_levels_and_no_more() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"in": inner}));
        assert!(check(&fields(nested(MAX_NESTING))).is_ok());
        let error = check(&fields(nested(MAX_NESTING + 1))).unwrap_err();
        assert_eq!(error.reason(), "Document Nested Too Deeply");
        assert_eq!(error.errors()[0].pointer, "/in".repeat(MAX_NESTING));
    }

    #[test]
    fn every_reserved_key_is_named() {
        let key = "$serde_json::private::RawValue";
        let document = fields(json!({"a": [0, {key: "1"}], key: {"~": {key: 1}}, "b": key}));
        let expected = [format!("/a/1/{key}"), format!("/{key}"), format!("/{key}/~0/{key}")];
        assert_eq!(pointers(check(&document)), expected);
        assert_eq!(pointers(check_at("x.y", &json!([{key: 1}]))), [format!("/x/y/0/{key}")]);
    }

    #[test]
    fn an_error_names_a_bounded_number_of_fields() {
        let items = vec![json!({"$serde_json::private::Number": "1"}); MAX_ERRORS + 1];
        assert_eq!(pointers(check(&fields(json!({ "a": items })))).len(), MAX_ERRORS);
    }
}

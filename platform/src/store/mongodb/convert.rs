//! Documents as MongoDB keeps them: `{_id, version, revision, body}` and, after a guarded write, `token`; and back.
//!
//! `body` has the fields in their order, with two differences, so that every document comes back as it was sent and no
//! path of a query leads into an array:
//!
//! * A key that MongoDB interprets (it is empty, has a dot or begins with `$`) is escaped with a backslash. No path can
//!   name such a key, nor one with a backslash, so an escaped key never hides a field from a query.
//! * An array that is the value of a key is `{"\[]": [...]}`. MongoDB would compare `tags: ["a"]` as if the field were
//!   "a", and sort it by its least element. Inside an array, where no path leads, arrays stay as they are.
//!
//! BSON has no unsigned integers. One above 2⁶³−1 is kept as the nearest double, by which it is compared, and the exact
//! number in `integers`, by its JSON pointer.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::{CString, RawArray, RawBson, RawBsonRef, RawDocument};
use mongodb::bson::{RawArrayBuf, RawDocumentBuf, cstr};
use serde_json::{Number, Value};

use super::super::{Collection, Document, Fields, damaged};
use crate::error::{Error, Result};
use crate::json;

/// The fields of a stored document.
pub(super) const ID: &str = "_id";
pub(super) const VERSION: &str = "version";
/// Absent when no guarded write has come.
pub(super) const TOKEN: &str = "token";
/// A random value of the last write. A version alone could be that of another document with the same id, which was
/// created after this one was deleted.
pub(super) const REVISION: &str = "revision";
pub(super) const BODY: &str = "body";
pub(super) const INTEGERS: &str = "integers";
/// The write of which the document is a part, until all of that write is there. Until then the document is not visible.
pub(super) const PENDING: &str = "pending";
/// Whether the pending write is an upsert.
pub(super) const UPSERT: &str = "upsert";

/// The key of an array that is the value of a key.
pub(super) const ARRAY: &str = r"\[]";

/// The most bytes of a stored document: MongoDB's limit, 16 MiB, less what its command needs.
const MAX_BYTES: usize = 16 * 1024 * 1024 - 1024;

/// The largest message about damage that quotes a value.
const MAX_QUOTED: usize = 40;

/// A document that was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) document: Document,
    pub(super) revision: Option<ObjectId>,
    pub(super) pending: Option<ObjectId>,
}

/// A document that is written as a part of a larger write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) write: ObjectId,
    pub(super) upsert: bool,
}

/// The document for MongoDB.
pub(super) fn encode(document: &Document, pending: Option<Pending>) -> Result<RawDocumentBuf> {
    let mut integers = Integers::default();
    let body = integers.object(&document.fields, false)?;
    let mut stored = RawDocumentBuf::new();
    stored.append(cstr!("_id"), document.id.as_str());
    // No document reaches 2⁶³ writes.
    stored.append(cstr!("version"), i64::try_from(document.version).unwrap_or(i64::MAX));
    if document.token > 0 {
        stored.append(cstr!("token"), i64::try_from(document.token).unwrap_or(i64::MAX));
    }
    stored.append(cstr!("revision"), ObjectId::new());
    stored.append(cstr!("body"), body);
    if !integers.found.is_empty() {
        let mut list = RawArrayBuf::new();
        for (pointer, number) in integers.found {
            let mut pair = RawArrayBuf::new();
            pair.push(pointer.as_str());
            pair.push(number.to_string());
            list.push(pair);
        }
        stored.append(cstr!("integers"), list);
    }
    if let Some(pending) = pending {
        stored.append(cstr!("pending"), pending.write);
        if pending.upsert {
            stored.append(cstr!("upsert"), true);
        }
    }
    if stored.as_bytes().len() > MAX_BYTES {
        return Err(Error::bad_request("Document Too Large"));
    }
    Ok(stored)
}

/// The integers above 2⁶³−1 of a document, each with its JSON pointer.
#[derive(Default)]
struct Integers {
    pointer: String,
    found: Vec<(String, u64)>,
}

impl Integers {
    fn object(&mut self, fields: &Fields, in_array: bool) -> Result<RawDocumentBuf> {
        let mut object = RawDocumentBuf::new();
        for (key, value) in fields {
            let outer = self.pointer.len();
            json::push_segment(&mut self.pointer, key);
            let value = match value {
                Value::Array(items) if !in_array => {
                    let mut wrapped = RawDocumentBuf::new();
                    wrapped.append(cstr!(r"\[]"), self.array(items)?);
                    RawBson::Document(wrapped)
                }
                value => self.value(value, in_array)?,
            };
            self.pointer.truncate(outer);
            let key = CString::try_from(escape(key).as_ref()).map_err(Error::internal)?;
            object.append(key, value);
        }
        Ok(object)
    }

    fn array(&mut self, items: &[Value]) -> Result<RawArrayBuf> {
        let mut array = RawArrayBuf::new();
        for (index, item) in items.iter().enumerate() {
            let outer = self.pointer.len();
            json::push_segment(&mut self.pointer, &index.to_string());
            array.push(self.value(item, true)?);
            self.pointer.truncate(outer);
        }
        Ok(array)
    }

    fn value(&mut self, value: &Value, in_array: bool) -> Result<RawBson> {
        Ok(match value {
            Value::Null => RawBson::Null,
            Value::Bool(value) => RawBson::Boolean(*value),
            Value::Number(number) => self.number(number),
            Value::String(text) => RawBson::String(text.clone()),
            Value::Array(items) => RawBson::Array(self.array(items)?),
            Value::Object(fields) => RawBson::Document(self.object(fields, in_array)?),
        })
    }

    fn number(&mut self, number: &Number) -> RawBson {
        if let Some(integer) = number.as_i64() {
            return RawBson::Int64(integer);
        }
        if let Some(integer) = number.as_u64() {
            self.found.push((self.pointer.clone(), integer));
        }
        // Every number of `serde_json` has a nearest float, without its feature `arbitrary_precision`.
        RawBson::Double(number.as_f64().unwrap_or_default())
    }
}

/// The key for MongoDB. A key without a special character stays as it is.
fn escape(key: &str) -> Cow<'_, str> {
    if key.is_empty() {
        return Cow::Borrowed(r"\e");
    }
    if !key.starts_with('$') && !key.contains(['.', '\\']) {
        return Cow::Borrowed(key);
    }
    let start = if key.starts_with('$') { r"\" } else { "" };
    Cow::Owned(format!("{start}{}", key.replace('\\', r"\\").replace('.', r"\d")))
}

/// The key before [`escape`]; `None` when it is no result of it.
fn unescape(key: &str) -> Option<Cow<'_, str>> {
    if !key.contains('\\') {
        return Some(Cow::Borrowed(key));
    }
    let mut text = String::with_capacity(key.len());
    let mut characters = key.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next()? {
            'd' => text.push('.'),
            'e' => {}
            same @ ('\\' | '$') => text.push(same),
            _ => return None,
        }
    }
    Some(Cow::Owned(text))
}

/// The document that MongoDB returned.
pub(super) fn decode(collection: &Collection, stored: &RawDocument) -> Result<Found> {
    let (mut id, mut version, mut body, mut integers) = (None, None, None, None);
    let (mut revision, mut pending, mut token) = (None, None, Some(0));
    let unread = |cause: &dyn Display| damaged(format!("a document of {}", collection.name()), cause);
    for element in stored {
        let (key, value) = element.map_err(|cause| unread(&cause))?;
        match (key.as_str(), value) {
            (ID, RawBsonRef::String(text)) => id = Some(text.to_owned()),
            (VERSION, RawBsonRef::Int64(number)) => version = u64::try_from(number).ok(),
            (VERSION, RawBsonRef::Int32(number)) => version = u64::try_from(number).ok(),
            (TOKEN, RawBsonRef::Int64(number)) => token = u64::try_from(number).ok(),
            (TOKEN, _) => token = None,
            (REVISION, RawBsonRef::ObjectId(value)) => revision = Some(value),
            (PENDING, RawBsonRef::ObjectId(value)) => pending = Some(value),
            (BODY, RawBsonRef::Document(fields)) => body = Some(fields),
            (INTEGERS, RawBsonRef::Array(list)) => integers = Some(list),
            _ => {}
        }
    }
    let id = id.ok_or_else(|| unread(&"its _id is not a text"))?;
    let name = || format!("{} {id:?}", collection.name());
    let version = version.ok_or_else(|| damaged(name(), "it has no version"))?;
    let token = token.ok_or_else(|| damaged(name(), "its token is not one"))?;
    let body = body.ok_or_else(|| damaged(name(), "it has no body"))?;
    let mut fields = Value::Object(object(body).map_err(|cause| damaged(name(), cause))?);
    if let Some(integers) = integers {
        restore(&mut fields, integers).map_err(|cause| damaged(name(), cause))?;
    }
    let Value::Object(fields) = fields else { return Err(damaged(name(), "it is not an object")) };
    Ok(Found { document: Document { id, version, token, fields: Arc::new(fields) }, revision, pending })
}

/// The fields of an object of BSON; the error says what is wrong with them.
fn object(raw: &RawDocument) -> Result<Fields, String> {
    let mut fields = Fields::new();
    for element in raw {
        let (key, value) = element.map_err(|error| error.to_string())?;
        let key = key.as_str();
        let Some(name) = unescape(key) else {
            return Err(format!("the key {key:.MAX_QUOTED$} is escaped in a way that is not known"));
        };
        fields.insert(name.into_owned(), from_bson(value)?);
    }
    Ok(fields)
}

fn array(raw: &RawArray) -> Result<Value, String> {
    raw.into_iter().map(|item| from_bson(item.map_err(|error| error.to_string())?)).collect()
}

/// The array in `{"\[]": [...]}`.
fn wrapped(raw: &RawDocument) -> Option<&RawArray> {
    let (key, value) = raw.into_iter().next()?.ok()?;
    if key.as_str() == ARRAY { value.as_array() } else { None }
}

/// The value of JSON; the error says what is wrong with it.
pub(super) fn from_bson(value: RawBsonRef<'_>) -> Result<Value, String> {
    Ok(match value {
        RawBsonRef::Null => Value::Null,
        RawBsonRef::Boolean(value) => Value::Bool(value),
        RawBsonRef::Int32(number) => Value::from(number),
        RawBsonRef::Int64(number) => Value::from(number),
        RawBsonRef::Double(number) => {
            Value::Number(Number::from_f64(number).ok_or("it has NaN or infinity")?)
        }
        RawBsonRef::String(text) => Value::String(text.to_owned()),
        RawBsonRef::Array(items) => array(items)?,
        RawBsonRef::Document(raw) => match wrapped(raw) {
            Some(items) => array(items)?,
            None => Value::Object(object(raw)?),
        },
        other => return Err(format!("it has a value of the type {:?}", other.element_type())),
    })
}

/// Puts the exact integers in the place of their nearest doubles. One whose double has been changed by another program
/// is left out.
fn restore(fields: &mut Value, integers: &RawArray) -> Result<(), String> {
    for pair in integers {
        let pair = pair.map_err(|error| error.to_string())?;
        let Value::Array(pair) = from_bson(pair)? else {
            return Err("its integers are not pairs".to_owned());
        };
        let [Value::String(pointer), Value::String(digits)] = &pair[..] else {
            return Err("its integers are not pairs of texts".to_owned());
        };
        let exact = Number::from(digits.parse::<u64>().map_err(|error| error.to_string())?);
        if let Some(Value::Number(number)) = fields.pointer_mut(pointer)
            && number.as_f64() == exact.as_f64()
        {
            *number = exact;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    static THINGS: Collection = Collection::new("things", &[]);

    fn stored(value: Value) -> RawDocumentBuf {
        let Value::Object(fields) = value else { panic!("not an object") };
        encode(&Document::new("x".to_owned(), Arc::new(fields), None), None).unwrap()
    }

    fn read(stored: &RawDocumentBuf) -> Result<String> {
        let found = decode(&THINGS, stored)?;
        Ok(serde_json::to_string(&*found.document.fields).unwrap())
    }

    #[test]
    fn every_key_comes_back_and_no_escaped_key_is_special_in_mongodb() {
        for key in
            ["", "$", "$set", "a.b", ".", "..", r"\", r"\e", r"\d", r"\[]", r"\\.$", "$.", "a$", "_id", "😀"]
        {
            let escaped = escape(key);
            assert!(!escaped.is_empty() && !escaped.contains('.') && !escaped.starts_with('$'), "{escaped}");
            assert_ne!(escaped, ARRAY);
            assert_eq!(unescape(&escaped).as_deref(), Some(key));
        }
        assert_eq!(unescape(r"a\x"), None);
        assert_eq!(unescape(r"a\"), None);
    }

    #[test]
    fn a_document_comes_back_exactly() {
        let value = json!({
            "z": u64::MAX, "a": [[], {}, [1, [u64::MAX - 1]], {"a": [2], "": u64::MAX}], "": {"$x": [1.0, -0.0]},
            "a.b": {"\\[]": [1]}, "\\[]": {"\\[]": {}}, "same": 18_446_744_073_709_551_615.0, "e": [], "~/": u64::MAX,
        });
        let expected = serde_json::to_string(&value).unwrap();
        assert_eq!(read(&stored(value)).unwrap(), expected);
    }

    #[test]
    fn no_path_leads_into_an_array() {
        let stored = stored(json!({"tags": [{"x": [1]}]}));
        let body = stored.get_document(BODY).unwrap();
        let tags = body.get_document("tags").unwrap();
        let items = tags.get_array(ARRAY).unwrap();
        // Inside the array, arrays are as they were sent.
        let RawBsonRef::Document(item) = items.get(0).unwrap().unwrap() else { panic!("not an object") };
        assert!(item.get_array("x").is_ok());
    }

    #[test]
    fn what_another_program_has_changed_is_read_or_named() {
        let with = |value: RawBson| {
            let mut body = RawDocumentBuf::new();
            body.append(cstr!("a"), value);
            let mut document = RawDocumentBuf::new();
            document.append(cstr!("_id"), "x");
            document.append(cstr!("version"), 1_i32);
            document.append(cstr!("body"), body);
            read(&document)
        };
        assert_eq!(with(RawBson::Int32(7)).unwrap(), r#"{"a":7}"#);
        let mut items = RawArrayBuf::new();
        items.push(1_i32);
        assert_eq!(with(RawBson::Array(items)).unwrap(), r#"{"a":[1]}"#);
        let error = with(RawBson::ObjectId(ObjectId::new())).unwrap_err();
        assert_eq!(error.cause(), "things \"x\" is damaged: it has a value of the type ObjectId");
        assert!(with(RawBson::Double(f64::NAN)).unwrap_err().cause().ends_with("NaN or infinity"));
    }

    #[test]
    fn a_document_beyond_the_limit_of_mongodb_is_refused() {
        let fields =
            |length: usize| Arc::new(Fields::from_iter([("a".to_owned(), "x".repeat(length).into())]));
        let large = Document::new("x".to_owned(), fields(MAX_BYTES), None);
        assert_eq!(encode(&large, None).unwrap_err().reason(), "Document Too Large");
        let small = Document::new("x".to_owned(), fields(MAX_BYTES - 200), None);
        assert!(encode(&small, None).is_ok());
    }
}

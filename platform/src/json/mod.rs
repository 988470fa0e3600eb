//! Reads JSON that others wrote: request bodies, and the documents of a store. It changes and interprets nothing in it.
//!
//! `serde_json` alone changes a document without an error in three cases:
//!
//! * An object has a key twice: it keeps the last value.
//! * An object begins with the key `$serde_json::private::RawValue`: with its feature `raw_value`, which axum switches
//!   on, it parses the string at that key as JSON, without any of the checks and to any depth. Its feature
//!   `arbitrary_precision` does the like with `…::Number`. Reading a `Value` from a `Value` does it too, so such a key
//!   must not get into one.
//! * An integer has more digits than a 64-bit integer or a double keeps: it rounds.

mod number;
mod words;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

pub use words::{in_words, type_name};

/// The most levels of arrays and objects within one another; `serde_json` itself stops there.
pub const MAX_DEPTH: usize = 127;

/// The prefix of the keys that `serde_json` interprets.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// The message for a caller who sends such a key.
pub const RESERVED_KEY: &str = "a key must not begin with `$serde_json::private::`";

/// Whether `serde_json` may interpret this key.
pub fn is_reserved_key(key: &str) -> bool {
    key.starts_with(RESERVED_PREFIX)
}

/// Why a text is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    /// JSON pointer (RFC 6901) to the key that is refused; empty for any other fault.
    pub pointer: String,
    /// What is wrong, and at which line and column.
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

/// The byte order mark that some editors and shells put in front of UTF-8. A parser may ignore it (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a document. Refuses duplicate keys, reserved keys and more than [`MAX_DEPTH`] levels.
pub fn parse(json: &[u8]) -> Result<Value, Invalid> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let mut path = None;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let parsed = NoDuplicateKeys { path: &mut path }.deserialize(&mut reader);
    parsed.and_then(|document| reader.end().map(|()| document)).map_err(|error| {
        let mut pointer = String::new();
        for segment in path.iter().flatten().rev() {
            push_segment(&mut pointer, segment);
        }
        Invalid { pointer, message: error.to_string() }
    })
}

/// Reads a document as [`parse`] does, and refuses also an integer that would be rounded.
pub fn parse_exact(json: &[u8]) -> Result<Value, Invalid> {
    match number::first_inexact(json) {
        None => parse(json),
        Some(byte) => {
            let message =
                format!("the integer at byte {byte} has more digits than are kept; send it as a string");
            Err(Invalid { pointer: String::new(), message })
        }
    }
}

/// Adds a key or an index to a JSON pointer.
pub fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for character in segment.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            _ => pointer.push(character),
        }
    }
}

/// Reads a value in which no object has a duplicate or a reserved key.
struct NoDuplicateKeys<'a> {
    /// The pointer to the refused key, innermost segment first; `None` until a key is refused.
    path: &'a mut Option<Vec<String>>,
}

impl NoDuplicateKeys<'_> {
    fn inner(&mut self) -> NoDuplicateKeys<'_> {
        NoDuplicateKeys { path: self.path }
    }

    fn refuse<E: Error>(self, key: String, message: fmt::Arguments<'_>) -> E {
        *self.path = Some(vec![key]);
        E::custom(message)
    }

    /// Passes an error on, and adds the segment at which it came from inside.
    fn pass_on<E>(self, segment: String, error: E) -> E {
        if let Some(path) = self.path {
            path.push(segment);
        }
        error
    }
}

impl<'de> DeserializeSeed<'de> for NoDuplicateKeys<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicateKeys<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            match items.next_element_seed(self.inner()) {
                Ok(Some(item)) => array.push(item),
                Ok(None) => return Ok(Value::Array(array)),
                Err(error) => return Err(self.pass_on(array.len().to_string(), error)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if is_reserved_key(&key) {
                return Err(self.refuse(key, format_args!("{RESERVED_KEY}")));
            }
            match object.entry(key) {
                Entry::Vacant(member) => match members.next_value_seed(self.inner()) {
                    Ok(value) => drop(member.insert(value)),
                    Err(error) => return Err(self.pass_on(member.key().clone(), error)),
                },
                Entry::Occupied(member) => {
                    let key = member.key().clone();
                    return Err(self.refuse(key.clone(), format_args!("duplicate field `{key}`")));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_comes_back_as_it_was() {
        for text in [
            r#"{"b":1,"a":[null,true,-1,18446744073709551615,0.1,"\u00e9",{}],"c":{"b":1}}"#,
            "null",
            "-0.0",
            "\"a\"",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            let parsed = parse(text.as_bytes()).unwrap();
            assert_eq!((parsed.to_string(), &parsed), (expected.to_string(), &expected), "{text}");
        }
    }

    #[test]
    fn a_byte_order_mark_in_front_is_no_part_of_the_document() {
        assert_eq!(parse("\u{feff}[1]".as_bytes()), parse(b"[1]"));
        assert_eq!(parse_exact("\u{feff}{}".as_bytes()), parse(b"{}"));
        for text in ["\u{feff}", "\u{feff}\u{feff}[1]", " \u{feff}[1]", "[1]\u{feff}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert_eq!(parse("\"\u{feff}\"".as_bytes()).unwrap(), "\u{feff}");
    }

    #[test]
    fn a_duplicate_key_is_refused_with_its_pointer() {
        let twice = br#"[{"a":1,"b":{"/":1,"\u002f":2}}]"#;
        let invalid = parse(twice).unwrap_err();
        assert_eq!(invalid.to_string(), "/0/b/~1: duplicate field `/` at line 1 column 27");
        // The control: serde_json keeps the last and says nothing.
        assert!(serde_json::from_slice::<Value>(twice).is_ok());
    }

    #[test]
    fn a_reserved_key_is_refused_with_its_pointer() {
        for key in
            ["$serde_json::private::RawValue", "$serde_json::private::Number", "$serde_json::private::New"]
        {
            for (json, pointer) in [
                (format!(r#"{{"{key}":"1"}}"#), format!("/{key}")),
                (format!(r#"{{"a":[1,{{"b":0,"{key}":{{}}}}]}}"#), format!("/a/1/{key}")),
                (format!(r#"[{{"\u0024{}":null}}]"#, &key[1..]), format!("/0/{key}")),
            ] {
                let invalid = parse(json.as_bytes()).unwrap_err();
                assert_eq!(invalid.pointer, pointer, "{json}");
                assert!(invalid.message.starts_with(RESERVED_KEY), "{invalid}");
            }
        }
        assert!(parse(br#"{"a":"$serde_json::private::RawValue"}"#).is_ok());
    }

    #[test]
    fn serde_json_interprets_such_a_key() {
        // The control: when this fails, keys need not be reserved any more.
        let value: Value = serde_json::from_str(r#"{"$serde_json::private::RawValue":"[1]"}"#).unwrap();
        assert_eq!(value, serde_json::json!([1]));
    }

    #[test]
    fn a_text_that_is_no_json_has_no_pointer() {
        let invalid = parse(br#"{"a":[1,}"#).unwrap_err();
        assert_eq!(
            invalid,
            Invalid { pointer: String::new(), message: "expected value at line 1 column 9".to_owned() }
        );
        assert!(parse(b"[1] 2").unwrap_err().message.starts_with("trailing characters"));
    }

    #[test]
    fn a_document_of_the_deepest_nesting_is_read_and_one_level_more_is_an_error() {
        let nested = |levels: usize| {
            let (objects, arrays) = (levels / 2, levels - levels / 2);
            let (open, close) = (r#"{"a":"#.repeat(objects), "}".repeat(objects));
            format!("{open}{}{}{close}", "[".repeat(arrays), "]".repeat(arrays))
        };
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        for levels in [MAX_DEPTH + 1, 100_000] {
            let invalid = parse(nested(levels).as_bytes()).unwrap_err();
            assert!(invalid.message.starts_with("recursion limit exceeded"), "{invalid}");
        }
    }

    #[test]
    fn only_an_exact_reader_refuses_an_integer_that_would_be_rounded() {
        let json = b"[1, 123456789012345678901234567890]";
        assert!(parse(json).is_ok());
        let message = "the integer at byte 4 has more digits than are kept; send it as a string".to_owned();
        assert_eq!(parse_exact(json), Err(Invalid { pointer: String::new(), message }));
        assert!(parse_exact(b"[1, 12345678901234567890]").is_ok());
    }
}

//! JSON as it came: what a parser would quietly change is refused, since what is stored must be what was sent.
//!
//! Parsers round a number with too many digits, and of two members with one name they keep the last.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The document, or why it is none that can be kept.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    if let Some(place) = inexact_number(bytes) {
        return Err(format!("the number at byte {place} has more digits than are kept; send it as a string"));
    }
    serde_json::from_slice(bytes).map(|Whole(document)| document).map_err(|error| error.to_string())
}

/// A value none of whose objects has a name twice.
struct Whole(Value);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(WholeVisitor).map(Self)
    }
}

struct WholeVisitor;

impl<'de> Visitor<'de> for WholeVisitor {
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Whole(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            let Whole(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// An IEEE 754 double holds any number of up to 15 decimal digits exactly (`f64::DIGITS`), unless it is so close
/// to 0 that digits are lost.
const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// The place of the first number that would not come back as it was sent: an integer beyond 64 bits, or a
/// decimal with more digits than a double holds. What is stored must be what was sent, so it is refused.
fn inexact_number(json: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < json.len() && matches!(json[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                if !is_exact(&json[start..at]) {
                    return Some(start);
                }
            }
            _ => at += 1,
        }
    }
    None
}

fn is_exact(number: &[u8]) -> bool {
    // So short, only an exponent can bring it close to 0.
    if number.len() <= EXACT_DIGITS && !number.contains(&b'-') {
        return true;
    }
    // Not a number at all: the parser says so better.
    let Ok(text) = std::str::from_utf8(number) else { return true };
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return true;
    }
    let Ok(value) = text.parse::<f64>() else { return true };
    // Rust writes the fewest digits that read back as this double; it is exact if those are the digits that came.
    !value.is_finite() || significant(text) == significant(&format!("{value:e}"))
}

/// The digits of a number without the zeros at both ends, and the power of ten of the first of them: how it is
/// spelt (`1e-05`, `0.00001`, `10.0e-6`) is not part of it.
fn significant(number: &str) -> (String, i64) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let kept = digits.trim_start_matches('0');
    if kept.is_empty() {
        return (String::new(), 0);
    }
    let place = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let first = place(whole.len()) - place(digits.len() - kept.len());
    // An exponent of more digits than an i64 makes it 0 or infinite, and the digits differ.
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    (kept.trim_end_matches('0').to_owned(), first.saturating_add(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn a_name_that_stands_twice_is_refused_with_its_place() {
        let twice = br#"[{"a":1,"b":{"c":1,"\u0063":2}}]"#;
        assert_eq!(parse(twice), Err("duplicate field `c` at line 1 column 27".to_owned()));
        // The control: serde_json keeps the last and says nothing.
        assert!(serde_json::from_slice::<Value>(twice).is_ok());
    }

    #[test]
    fn a_document_that_is_too_deep_is_an_error_and_not_the_end_of_the_stack() {
        assert!(parse("[".repeat(100_000).as_bytes()).unwrap_err().starts_with("recursion limit exceeded"));
    }

    #[test]
    fn a_number_that_would_change_is_found() {
        for changed in [
            "[1, 123456789012345678901234567890]",
            "{\"a\": 0.12345678901234567890123}",
            "-9223372036854775809000",
            "1.00000000000000000001",
            "1e-400",
            "-1.2345678901e-320",
            "1e-99999999999999999999",
            "100000000000000000001",
            "2.2092781970116111e-08",
        ] {
            assert!(inexact_number(changed.as_bytes()).is_some(), "{changed}");
        }
        assert_eq!(inexact_number(b"[1, 123456789012345678901234567890]"), Some(4));
    }

    #[test]
    fn a_number_that_comes_back_and_digits_in_a_string_are_left_alone() {
        for kept in [
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "1e300",
            "0.30000000000000004",
            "\"123456789012345678901234567890\"",
            "\"\\\"123456789012345678901234567890\"",
            "1.0000000000",
            "-1",
            "-0.0",
            "0e-999",
            "-1.5e-300",
            "-1e999",
            "5e-324",
            // As Python, JavaScript and C print ordinary doubles.
            "2.209278197011611e-08",
            "0.000002209278197011611",
            "1.7976931348623157e308",
            "1.7976931348623157E+308",
            "100000000000000000000",
            "-12345678901234568000000",
            "0.00",
            "\"unfinished",
            "\"\\",
        ] {
            assert_eq!(inexact_number(kept.as_bytes()), None, "{kept}");
        }
    }

    proptest! {
        /// In the spellings of Rust, and with the exponent that C and Python write.
        #[test]
        fn every_double_that_a_program_prints_is_kept(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            let short = format!("{value:e}");
            let padded = short.replace("e-", "e-0");
            for text in [short, padded, format!("{value}"), format!("{value:?}")] {
                prop_assert_eq!(inexact_number(text.as_bytes()), None, "{}", text);
            }
        }
    }
}

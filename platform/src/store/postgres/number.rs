//! Numbers as texts that PostgreSQL compares as `query` defines it.
//!
//! PostgreSQL compares numbers of JSON as decimals, exactly. The shortest text of a float, which is what JSON has, is not
//! always its value: that of 2⁶³ is 9223372036854776000. Between floats that changes no order, but it does between a
//! float and an integer. So floats among the large integers are written in full: `9223372036854775808.0`. Read back, it
//! is the same float. Smaller floats need nothing: the shortest text of a whole number below 2⁵³ is the number itself.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::super::Fields;
use crate::error::{Error, Result};

/// 2⁵³: above it, not every integer is a float.
const INTEGERS: f64 = 9_007_199_254_740_992.0;
/// 2⁶⁴: the float of the largest integer in a document.
const LARGEST: f64 = 18_446_744_073_709_551_616.0;

/// The JSON text of a document.
pub(super) fn json(fields: &Fields) -> Result<String> {
    let mut text = Vec::new();
    fields.serialize(&mut Serializer::with_formatter(&mut text, FullFloats)).map_err(Error::internal)?;
    String::from_utf8(text).map_err(Error::internal)
}

/// The text of a float as in a document.
pub(super) fn float(value: f64) -> String {
    if (INTEGERS..=LARGEST).contains(&value.abs()) {
        format!("{value:.1}")
    } else {
        serde_json::Value::from(value).to_string()
    }
}

struct FullFloats;

impl Formatter for FullFloats {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if (INTEGERS..=LARGEST).contains(&value.abs()) {
            writer.write_all(float(value).as_bytes())
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_among_the_large_integers_is_written_in_full_and_read_back_the_same() {
        for (value, text) in [
            (9_223_372_036_854_775_808.0, "9223372036854775808.0"),
            (-9_223_372_036_854_775_808.0, "-9223372036854775808.0"),
            (9_223_372_036_854_774_784.0, "9223372036854774784.0"),
            (18_446_744_073_709_551_616.0, "18446744073709551616.0"),
            (9_007_199_254_740_991.0, "9007199254740991.0"),
            (1e40, "1e+40"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
        ] {
            let fields: Fields = [("a".to_owned(), value.into())].into_iter().collect();
            let json = json(&fields).unwrap();
            assert_eq!(json, format!("{{\"a\":{text}}}"));
            assert_eq!(float(value), text);
            let read: Fields = serde_json::from_str(&json).unwrap();
            assert_eq!(read["a"].as_f64().unwrap().to_bits(), f64::to_bits(value));
            assert!(read["a"].is_f64());
        }
    }
}

//! Writes one record as one line, in any of the three formats. It knows their syntax, and not which fields a record
//! has.
//!
//! Every request writes a line, so nothing here allocates or calls `format!`, except for floats, which are rare. A name
//! of ours and the syntax around it are one constant text.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::escape;
use super::level::Level;
use super::settings::Format;
use super::timestamp::{self, digit};
use super::value::Value;

/// The field names of every record. A custom field with one of these names is written with a `_` before it.
const COMMON: [&str; 4] = ["time", "level", "logger", "msg"];

/// A constant field name with the syntax around it; made by [`name!`](name).
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) logfmt: &'static str,
    pub(super) json: &'static str,
}

/// The [`Name`] of this text. The text must not need escaping.
macro_rules! name {
    ($text:literal) => {
        $crate::logging::line::Name { logfmt: concat!(" ", $text, "="), json: concat!(",\"", $text, "\":") }
    };
}
pub(super) use name;

/// A record that is being written.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    reserved: &'static [&'static str],
}

impl<'a> Line<'a> {
    /// Writes time, level and logger. `reserved` are further names that a custom field must not take.
    pub(super) fn begin(
        out: &'a mut Vec<u8>,
        format: Format,
        (now, level, logger): (SystemTime, Level, &str),
        reserved: &'static [&'static str],
    ) -> Self {
        match format {
            Format::Logfmt => {
                out.extend_from_slice(b"time=");
                timestamp::write(out, now);
                out.extend_from_slice(b" level=");
                out.extend_from_slice(level.name().as_bytes());
                out.extend_from_slice(b" logger=");
                escape::logfmt(out, logger);
            }
            Format::Json => {
                out.extend_from_slice(b"{\"time\":\"");
                timestamp::write(out, now);
                out.extend_from_slice(b"\",\"level\":\"");
                out.extend_from_slice(level.name().as_bytes());
                out.extend_from_slice(b"\",\"logger\":");
                escape::json(out, logger);
            }
            Format::Human => {
                timestamp::write(out, now);
                out.push(b' ');
                out.extend_from_slice(level.padded().as_bytes());
                out.push(b' ');
                escape::logfmt(out, logger);
            }
        }
        Self { out, format, reserved }
    }

    /// Ends the line.
    pub(super) fn end(self) {
        self.out.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
    }

    /// A field with a text, which is escaped.
    pub(super) fn text(&mut self, name: Name, text: &str) {
        self.name(name);
        self.value(text);
    }

    /// A field with a whole number.
    pub(super) fn uint(&mut self, name: Name, number: u64) {
        self.name(name);
        decimal(self.out, number);
    }

    /// A field with a duration in milliseconds, with three decimals.
    pub(super) fn millis(&mut self, name: Name, duration: Duration) {
        self.name(name);
        let micros = micros(duration);
        decimal(self.out, micros / 1_000);
        self.out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
    }

    /// A field whose name comes from a handler or from `tracing`.
    pub(super) fn custom(&mut self, name: &str, value: &Value) {
        self.custom_name(name);
        match value {
            Value::Text(text) => self.value(text),
            Value::Int(number) => {
                if *number < 0 {
                    self.out.push(b'-');
                }
                decimal(self.out, number.unsigned_abs());
            }
            Value::Uint(number) => decimal(self.out, *number),
            Value::Float(number) if number.is_finite() => drop(write!(self.out, "{number}")),
            Value::Float(_) => self.out.extend_from_slice(b"null"),
            Value::Bool(value) => self.out.extend_from_slice(if *value { b"true" } else { b"false" }),
        }
    }

    /// The message of the record.
    pub(super) fn message(&mut self, text: &str) {
        if self.format == Format::Human {
            self.out.push(b' ');
            escape::human(self.out, text);
        } else {
            self.text(name!("msg"), text);
        }
    }

    /// A text without a name, for the human format: method and path of a request.
    pub(super) fn word(&mut self, text: &str) {
        self.out.push(b' ');
        escape::logfmt(self.out, text);
    }

    /// A status and a duration without names, for the human format.
    pub(super) fn outcome(&mut self, status: u16, duration: Duration) {
        self.out.push(b' ');
        decimal(self.out, u64::from(status));
        self.out.push(b' ');
        let micros = micros(duration);
        decimal(self.out, micros / 1_000);
        self.out.extend_from_slice(&[b'.', digit(micros / 100), b'm', b's']);
    }

    fn value(&mut self, text: &str) {
        match self.format {
            Format::Json => escape::json(self.out, text),
            Format::Logfmt | Format::Human => escape::logfmt(self.out, text),
        }
    }

    fn name(&mut self, name: Name) {
        let text = if self.format == Format::Json { name.json } else { name.logfmt };
        self.out.extend_from_slice(text.as_bytes());
    }

    fn custom_name(&mut self, name: &str) {
        self.out.extend_from_slice(if self.format == Format::Json { b",\"" } else { b" " });
        if COMMON.contains(&name) || self.reserved.contains(&name) {
            self.out.push(b'_');
        }
        escape::key(self.out, name);
        self.out.extend_from_slice(if self.format == Format::Json { b"\":" } else { b"=" });
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

/// Appends a whole number.
fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format, fields: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        let mut line =
            Line::begin(&mut out, format, (SystemTime::UNIX_EPOCH, Level::Warn, "here"), &["status"]);
        fields(&mut line);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_of_value_is_written_as_json_writes_it() {
        let values = [
            Value::from(i64::MIN),
            Value::from(u64::MAX),
            Value::from(0_usize),
            Value::from(-1.5),
            Value::from(f64::NAN),
            Value::from(true),
            Value::from(&b"a\xff"[..]),
        ];
        let text = line(Format::Json, |line| values.iter().for_each(|value| line.custom("v", value)));
        let expected = r#""v":-9223372036854775808,"v":18446744073709551615,"v":0,"v":-1.5,"v":null,"v":true,"v":"a\\xff"}"#;
        assert!(text.trim_end().ends_with(expected), "{text}");
    }

    #[test]
    fn a_custom_field_cannot_take_a_reserved_name() {
        let text = line(Format::Logfmt, |line| {
            for name in ["level", "status", "a b=c"] {
                line.custom(name, &Value::from("x"));
            }
        });
        assert_eq!(text, "time=1970-01-01T00:00:00.000Z level=warn logger=here _level=x _status=x a_b_c=x\n");
    }

    #[test]
    fn a_duration_has_three_decimals() {
        let text = line(Format::Logfmt, |line| {
            line.millis(name!("a"), Duration::from_nanos(12_345_678));
            line.millis(name!("b"), Duration::from_micros(7));
        });
        assert!(text.ends_with(" a=12.345 b=0.007\n"), "{text}");
    }
}

//! Types of settings: a number, a duration, a size and a host.
//!
//! The bounds are part of the type: a value out of range is refused while the configuration is read, with its file,
//! line and key, and never reaches the code that uses it.

mod host;
mod public_url;

use std::fmt;
use std::time::Duration;

use jiff::SpanRelativeTo;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use host::Host;
pub use public_url::PublicUrl;

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The value.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The value as a `usize`; a value that does not fit (32-bit machines) becomes the largest.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The value, or this where it is less; never less than `MIN`.
    pub(crate) fn at_most(self, most: u64) -> Self {
        Self(self.0.min(most).max(MIN))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = i128::from(i64::deserialize(deserializer)?);
        if value < i128::from(MIN) || value > i128::from(MAX) {
            return Err(de::Error::custom(format_args!("{value} is out of range, expected {MIN} to {MAX}")));
        }
        Ok(Self(u64::try_from(value).map_err(de::Error::custom)?))
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Count<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// A duration from `MIN` to `MAX` milliseconds, written as people do: `500ms`, `30s`, `5m`, `1h30m`, `30d`. A day has 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// The value.
    pub fn get(self) -> Duration {
        self.0
    }
}

/// What is expected of a duration.
const A_DURATION: &str = "a duration such as 500ms, 30s, 5m or 30d";

/// The duration as people write it, in the largest unit that gives a whole number.
fn written(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_nanos()) {
        // One day is written as 24h, as people do.
        (seconds, 0) if seconds > 86_400 && seconds.is_multiple_of(86_400) => {
            format!("{}d", seconds / 86_400)
        }
        (seconds, 0) if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        (seconds, 0) if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{duration:?}"),
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Span<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextOrNumber::deserialize(deserializer)?.text(A_DURATION)?;
        // Weeks and days, but no months: their length is not known.
        let duration = text
            .parse::<jiff::Span>()
            .ok()
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let duration =
            duration.ok_or_else(|| de::Error::custom(format_args!("'{text}' is not {A_DURATION}")))?;
        let (low, high) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        match Duration::try_from(duration) {
            Ok(duration) if (low..=high).contains(&duration) => Ok(Self(duration)),
            // A negative one too.
            _ => {
                let (low, high) = (written(low), written(high));
                Err(de::Error::custom(format_args!("{text} is out of range, expected {low} to {high}")))
            }
        }
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Span<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written(self.0))
    }
}

/// A number of bytes from `MIN` to `MAX`, written `512KiB`, `1MiB`, `100MB`, or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// The value in bytes.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The value as a `usize`; a value that does not fit (32-bit machines) becomes the largest.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Units of IEC 80000-13 (binary) and SI (decimal). The longest come first, so that `KiB` is not read as `B`.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

fn parse_size(text: &str) -> Option<u64> {
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))
        .unwrap_or((text, 1));
    digits.trim_end().parse::<u64>().ok()?.checked_mul(factor)
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Size<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextOrNumber::deserialize(deserializer)?.text("a size such as 64KiB, 1MiB or 100MB")?;
        let bytes = parse_size(&text).ok_or_else(|| {
            de::Error::custom(format_args!("'{text}' is not a size such as 64KiB, 1MiB or 100MB"))
        })?;
        if !(MIN..=MAX).contains(&bytes) {
            return Err(de::Error::custom(format_args!(
                "{text} is out of range, expected {MIN} to {MAX} bytes"
            )));
        }
        Ok(Self(bytes))
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Size<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unit =
            UNITS[..3].iter().rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => serializer.collect_str(&format_args!("{}{unit}", self.0 / factor)),
            None => serializer.serialize_u64(self.0),
        }
    }
}

/// A scalar of the YAML: `30s` is a string, `1024` a number; durations and sizes accept nothing else.
enum TextOrNumber {
    Text(String),
    Number(u64),
    Other,
}

impl TextOrNumber {
    fn text<E: de::Error>(self, expected: &str) -> Result<String, E> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(number) => Ok(number.to_string()),
            Self::Other => Err(E::custom(format_args!("expected {expected}"))),
        }
    }
}

impl<'de> Deserialize<'de> for TextOrNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = TextOrNumber;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Text(text.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Number(number))
            }
            fn visit_i64<E>(self, number: i64) -> Result<TextOrNumber, E> {
                Ok(u64::try_from(number).map_or(TextOrNumber::Other, TextOrNumber::Number))
            }
            fn visit_bool<E>(self, _: bool) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Other)
            }
            fn visit_unit<E>(self) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Other)
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_size_is_read_with_its_unit_and_printed_with_the_largest_that_fits() {
        let size: Size<0, { u64::MAX }> = from_value(json!("1MiB")).unwrap();
        assert_eq!(size.get(), 1_048_576);
        assert_eq!(to_value(size).unwrap(), json!("1MiB"));
        let size: Size<0, { u64::MAX }> = from_value(json!("100MB")).unwrap();
        assert_eq!(to_value(size).unwrap(), json!(100_000_000));
    }

    #[test]
    fn a_value_out_of_range_names_the_range() {
        let error = from_value::<Count<1, 65_535>>(json!(70_000)).unwrap_err().to_string();
        assert_eq!(error, "70000 is out of range, expected 1 to 65535");
        let error = from_value::<Span<1, 1_000>>(json!("2s")).unwrap_err().to_string();
        assert_eq!(error, "2s is out of range, expected 1ms to 1s");
        let error = from_value::<Span<1, 1_000>>(json!("-2s")).unwrap_err().to_string();
        assert_eq!(error, "-2s is out of range, expected 1ms to 1s");
        let error = from_value::<Span<0, 1_000>>(json!("-1ms")).unwrap_err().to_string();
        assert_eq!(error, "-1ms is out of range, expected 0s to 1s");
        let error = from_value::<Size<1, 10>>(json!("1KiB")).unwrap_err().to_string();
        assert_eq!(error, "1KiB is out of range, expected 1 to 10 bytes");
    }

    #[test]
    fn a_duration_is_printed_as_people_write_it_and_can_be_read_back() {
        for text in ["0s", "500ms", "1.5s", "30s", "90s", "5m", "90m", "2h", "24h", "30d"] {
            let span: Span<0, 10_000_000_000> = from_value(json!(text)).unwrap();
            assert_eq!(to_value(span).unwrap(), json!(text));
        }
        for (text, hours) in [("1d", 24), ("2w", 336), ("1d 12h", 36), ("1 day", 24), ("PT1H", 1)] {
            let span: Span<0, 10_000_000_000> = from_value(json!(text)).unwrap();
            assert_eq!(span.get(), Duration::from_hours(hours), "{text}");
        }
        for wrong in ["1mo", "1y", "30", "d", "1 fortnight", ""] {
            let error = from_value::<Span<0, 10_000_000_000>>(json!(wrong)).unwrap_err().to_string();
            assert_eq!(error, format!("'{wrong}' is not a duration such as 500ms, 30s, 5m or 30d"));
        }
    }

    #[test]
    fn a_wrong_type_says_what_was_expected() {
        let error = from_value::<Span<1, 1_000>>(json!(true)).unwrap_err().to_string();
        assert_eq!(error, "expected a duration such as 500ms, 30s, 5m or 30d");
        let error = from_value::<Size<1, 1_000>>(json!("lots")).unwrap_err().to_string();
        assert_eq!(error, "'lots' is not a size such as 64KiB, 1MiB or 100MB");
    }
}

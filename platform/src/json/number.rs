//! Integers in JSON that neither a 64-bit integer nor a double holds exactly.
//!
//! An integer is often a key of another system, so one that would come back as another number is refused. A decimal is a
//! measurement: it becomes the nearest double, as every reader of JSON does (RFC 8259, section 6).

/// A double holds every integer of up to 15 decimal digits exactly (`f64::DIGITS`).
const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// The position of the first integer that would be rounded. The text need not be valid JSON.
pub(super) fn first_inexact(json: &[u8]) -> Option<usize> {
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
                if !is_kept(&json[start..at]) {
                    return Some(start);
                }
            }
            _ => at += 1,
        }
    }
    None
}

fn is_kept(number: &[u8]) -> bool {
    if number.len() <= EXACT_DIGITS {
        return true;
    }
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    // A decimal, or no number: the parser refuses that with a better message.
    let (true, Ok(text)) = (digits.iter().all(u8::is_ascii_digit), std::str::from_utf8(number)) else {
        return true;
    };
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return true;
    }
    let Ok(value) = text.parse::<f64>() else { return true };
    // Rust prints the fewest digits that read back as this double, then zeros: the integer is kept when it is that. So
    // 2^70 as JavaScript prints it, 1180591620717411300000, comes back as it was sent.
    !value.is_finite() || format!("{value}") == text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_integer_that_would_change_is_found() {
        for changed in [
            "[1, 123456789012345678901234567890]",
            "{\"a\": 18446744073709551616}",
            "-9223372036854775809",
            "-9223372036854775809000",
            "100000000000000000001",
        ] {
            assert!(first_inexact(changed.as_bytes()).is_some(), "{changed}");
        }
        assert_eq!(first_inexact(b"[1, 123456789012345678901234567890]"), Some(4));
    }

    #[test]
    fn an_integer_that_comes_back_a_decimal_and_digits_in_a_string_are_left_alone() {
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
            // The nearest double.
            "3.14159265358979323846",
            "1.00000000000000000001",
            "0.12345678901234567890123",
            "123456789012345678901234567890.0",
            "123456789012345678901234567890e0",
            "-1.2345678901e-320",
            "1e-400",
            "\"unfinished",
            "\"\\",
        ] {
            assert_eq!(first_inexact(kept.as_bytes()), None, "{kept}");
        }
    }

    proptest! {
        /// In the spellings of Rust, and with the exponent that C and Python write.
        #[test]
        fn every_double_that_a_program_prints_is_kept(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            let short = format!("{value:e}");
            let padded = short.replace("e-", "e-0");
            for text in [short, padded, format!("{value}"), format!("{value:?}")] {
                prop_assert_eq!(first_inexact(text.as_bytes()), None, "{}", text);
            }
        }
    }
}

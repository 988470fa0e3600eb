//! Numbers in JSON that neither a 64-bit integer nor a double holds exactly.

/// A double holds every number of up to 15 decimal digits exactly (`f64::DIGITS`), except very close to 0.
const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// The position of the first number that would be rounded: an integer beyond 64 bits, or a decimal with more digits
/// than a double holds. The text need not be valid JSON.
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
    // A number this short is exact, unless a negative exponent brings it close to 0.
    if number.len() <= EXACT_DIGITS && !number.contains(&b'-') {
        return true;
    }
    // Not a number: the parser refuses it with a better message.
    let Ok(text) = std::str::from_utf8(number) else { return true };
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return true;
    }
    let Ok(value) = text.parse::<f64>() else { return true };
    // Rust prints the fewest digits that read back as this double: the number is kept when they are its own digits.
    !value.is_finite() || significant(text) == significant(&format!("{value:e}"))
}

/// The digits of a number without the zeros at both ends, and the power of ten of the first digit. Two spellings of one
/// number (`1e-05`, `0.00001`, `10.0e-6`) give the same.
fn significant(number: &str) -> (String, i64) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let kept = digits.trim_start_matches('0');
    if kept.is_empty() {
        return (String::new(), 0);
    }
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let first = length(whole) - (length(&digits) - length(kept));
    // An exponent beyond an i64 makes the double 0 or infinite: then the digits differ anyway.
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    (kept.trim_end_matches('0').to_owned(), first.saturating_add(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert!(first_inexact(changed.as_bytes()).is_some(), "{changed}");
        }
        assert_eq!(first_inexact(b"[1, 123456789012345678901234567890]"), Some(4));
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

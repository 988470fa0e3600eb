//! The words of an error: one line, of bounded length, safe for a terminal, without secrets.

use serde_json::Value as Json;

use crate::secret::MASK;

/// The text on one line: control characters escaped, cut after `max` characters.
pub(super) fn short(text: &str, max: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            line.push_str("...");
            break;
        }
        if is_safe(c) { line.push(c) } else { line.extend(c.escape_unicode()) }
    }
    line
}

/// False for a character that ends a line, drives a terminal or turns the writing direction (the bidirectional
/// controls of Unicode TR 9).
pub(super) fn is_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The path as people write it: `http.port`, `cors.origins.0`.
pub(super) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let joined = path.iter().map(|key| short(key.as_ref(), 60)).collect::<Vec<_>>().join(".");
    short(&joined, 200)
}

/// True where the name of a key says that its value may be, or may hold, a secret.
pub(super) fn may_hold_secret(path: &[String]) -> bool {
    let telling = ["password", "secret", "token", "key", "credential", "url", "dsn"];
    path.iter().any(|key| telling.iter().any(|word| key.to_ascii_lowercase().contains(word)))
}

/// A message of serde in the words of this program; `hidden` is a value that must not be in it.
pub(super) fn plain(message: &str, hidden: Option<&Json>) -> String {
    let mut text = message.to_owned();
    if let Some(value) = hidden {
        let bare = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let escaped = format!("{bare:?}");
        for form in [escaped.trim_matches('"'), &bare] {
            if !form.is_empty() {
                text = text.replace(form, MASK);
            }
        }
    }
    for (start, is_type) in [("invalid type: ", true), ("invalid value: ", false)] {
        let Some((found, expected)) =
            text.strip_prefix(start).and_then(|rest| rest.rsplit_once(", expected "))
        else {
            continue;
        };
        let found = if hidden.is_some() { MASK.to_owned() } else { bare_value(found) };
        let number_type =
            matches!(expected, "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize");
        if number_type && !is_type {
            return short(&format!("{found} is out of range"), 200);
        }
        let expected = match expected {
            _ if number_type => "a whole number",
            "f32" | "f64" => "a number",
            "a boolean" => "true or false",
            "a string" => "text (quotes make it one)",
            "a sequence" => "a list such as [a, b]",
            "a map" => "keys and values",
            other if other.starts_with("struct ") => "keys and values",
            other => other,
        };
        return format!("found {}, expected {}", short(&found, 60), short(expected, 120));
    }
    short(
        &text
            .replace("unknown field", "unknown key")
            .replace("there are no fields", "known here: none")
            .replace('`', "'"),
        200,
    )
}

/// What serde found, without the name that Rust gives to its type.
fn bare_value(found: &str) -> String {
    match found {
        "null" | "unit value" => "nothing".to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "keys and values".to_owned(),
        _ => match (found.strip_prefix("string "), found.split_once('`')) {
            (Some(text), _) => format!("text {text}"),
            (None, Some((_, value))) => value.trim_end_matches('`').to_owned(),
            (None, None) => found.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn message<T: serde::de::DeserializeOwned>(value: &Json) -> String {
        plain(&from_value::<T>(value.clone()).err().unwrap().to_string(), None)
    }

    #[test]
    fn type_errors_are_in_words_of_people() {
        assert_eq!(message::<u16>(&json!("abc")), "found text \"abc\", expected a whole number");
        assert_eq!(message::<u16>(&json!(70_000)), "70000 is out of range");
        assert_eq!(message::<u16>(&json!(-1)), "-1 is out of range");
        assert_eq!(message::<bool>(&json!("no")), "found text \"no\", expected true or false");
        assert_eq!(message::<String>(&json!(1.5)), "found 1.5, expected text (quotes make it one)");
        assert_eq!(message::<String>(&json!(null)), "found nothing, expected text (quotes make it one)");
        assert_eq!(message::<Vec<u8>>(&json!("a")), "found text \"a\", expected a list such as [a, b]");
        assert_eq!(message::<String>(&json!([1])), "found a list, expected text (quotes make it one)");
        assert_eq!(message::<u8>(&json!({"a": 1})), "found keys and values, expected a whole number");
    }

    #[test]
    fn a_message_is_one_short_line_whatever_is_in_it() {
        let nasty = format!("a\nb\u{1b}[31m\u{202e}{}", "x".repeat(1_000));
        let text = message::<u16>(&json!(nasty));
        assert!(text.chars().all(is_safe), "{text}");
        assert!(text.len() < 150, "{text}");
    }

    #[test]
    fn a_hidden_value_is_in_no_message() {
        for (message, value) in [
            ("invalid type: integer `1234567`, expected a string", json!(1_234_567)),
            ("invalid type: string \"hun\\\"ter\", expected u16", json!("hun\"ter")),
            ("'mongodb//a:hunter@h' is not a URL", json!("mongodb//a:hunter@h")),
            ("unknown variant `hunter`, expected `a`", json!("hunter")),
        ] {
            let text = plain(message, Some(&value));
            assert!(!text.contains("hun") && !text.contains("1234567"), "{text}");
            assert!(text.contains(MASK), "{text}");
            // The control: unhidden, the value is shown.
            let shown = plain(message, None);
            assert!(shown.contains("hun") || shown.contains("1234567"), "{shown}");
        }
    }
}

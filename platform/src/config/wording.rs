//! The text of an error: one line, of bounded length, safe for a terminal, without secrets.

use serde_json::Value as Json;

use crate::json;
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

/// False for a character that ends a line, controls a terminal or changes the writing direction (the bidirectional
/// controls of Unicode TR 9).
pub(super) fn is_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The path in dotted form: `http.port`, `cors.origins.0`.
pub(super) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let joined = path.iter().map(|key| short(key.as_ref(), 60)).collect::<Vec<_>>().join(".");
    short(&joined, 200)
}

/// True when a key in the path has a name that is usual for secrets, or for values that can hold one.
pub(super) fn may_hold_secret(path: &[String]) -> bool {
    let names = ["password", "secret", "token", "key", "credential", "url", "dsn"];
    path.iter().any(|key| names.iter().any(|name| key.to_ascii_lowercase().contains(name)))
}

/// A message of serde, made safe and short. `hidden` is a value that must not be in it.
pub(super) fn message(text: &str, hidden: Option<&Json>) -> String {
    let text = &json::in_words(text.to_owned());
    let Some(value) = hidden else { return short(text, 200) };
    // serde may quote a value in another form than the file has (1e3 as 1000.0), so the whole quotation is replaced.
    for start in ["invalid type: ", "invalid value: "] {
        if let Some((_, expected)) =
            text.strip_prefix(start).and_then(|quoted| quoted.rsplit_once(", expected "))
        {
            return short(&format!("{start}{MASK}, expected {expected}"), 200);
        }
    }
    let bare = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let escaped = format!("{bare:?}");
    let forms = [escaped.trim_matches('"'), &bare];
    let forms = forms.into_iter().filter(|form| !form.is_empty());
    short(&forms.fold(text.to_owned(), |text, form| text.replace(form, MASK)), 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn of_serde<T: serde::de::DeserializeOwned>(value: &Json) -> String {
        from_value::<T>(value.clone()).err().unwrap().to_string()
    }

    #[test]
    fn a_message_is_one_short_line_whatever_is_in_it() {
        let nasty = format!("a\nb\u{1b}[31m\u{202e}{}", "x".repeat(1_000));
        let text = message(&of_serde::<u16>(&json!(nasty)), None);
        assert!(text.chars().all(is_safe), "{text}");
        assert!(text.chars().count() <= 203, "{text}");
    }

    #[test]
    fn a_hidden_value_is_in_no_message() {
        for (text, value) in [
            (of_serde::<String>(&json!(1_234_567)), json!(1_234_567)),
            (of_serde::<u16>(&json!("hun\"ter")), json!("hun\"ter")),
            (of_serde::<u16>(&json!("hunter, expected hunter")), json!("hunter, expected hunter")),
            // serde writes it as 123456700.0.
            (of_serde::<String>(&json!(1.234_567e8)), json!(1.234_567e8)),
            (of_serde::<u8>(&json!(1_234_567)), json!(1_234_567)),
            ("'mongodb//a:hunter@h' is not a URL".to_owned(), json!("mongodb//a:hunter@h")),
            ("unknown variant `hunter`, expected `a`".to_owned(), json!("hunter")),
        ] {
            let hidden = message(&text, Some(&value));
            assert!(!hidden.contains("hun") && !hidden.contains("1234567"), "{hidden}");
            assert!(hidden.contains(MASK), "{hidden}");
            // The control: unhidden, the value is shown.
            let shown = message(&text, None);
            assert!(shown.contains("hun") || shown.contains("1234567"), "{shown}");
        }
    }
}

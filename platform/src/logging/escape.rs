//! Escapes text that comes from clients, handlers and libraries, for a log line.
//!
//! The escaped text has no line break, no control character and no character that reorders or hides text on a terminal,
//! and it cannot end the value it is in. A quoted value is a JSON string in every format, so any JSON parser gives the
//! original text back.

use std::borrow::Cow;
use std::fmt::Write;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A logfmt value: bare if it is one plain word, else quoted.
pub(super) fn logfmt(out: &mut Vec<u8>, text: &str) {
    if !text.is_empty() && is_plain(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.push(b'"');
        escape(out, text, true);
        out.push(b'"');
    }
}

/// A JSON string.
pub(super) fn json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        escape(out, text, false);
    }
    out.push(b'"');
}

/// Free text in the human format. It has no quotes around it, so `"` and `=` are escaped: they must not look like a
/// field.
pub(super) fn human(out: &mut Vec<u8>, text: &str) {
    escape(out, text, true);
}

/// A field name, in every format: any other byte becomes `_`, so that a name cannot hold a value.
pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    if name.is_empty() {
        out.push(b'_');
    }
    out.extend(name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => byte,
        _ => b'_',
    }));
}

/// Bytes as text: each byte that is not UTF-8 becomes `\xNN`, so that nothing is lost.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// The bytes that need no escaping in any format. A table, because most text of a request is plain, and checking it is
/// then most of the work.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\' | b'=');
        byte += 1;
    }
    plain
};

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| PLAIN[usize::from(byte)])
}

/// True for a character that must not reach a terminal unescaped: control characters (C0, DEL, C1: among them ESC and
/// CSI), line and paragraph separators, and the characters of general category Cf that reorder or hide text (Unicode
/// TR36 §2, "Trojan Source", CVE-2021-42574).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends `text` as the content of a JSON string. With `equals`, `=` is escaped as well: then even a reader that
/// splits at spaces and ignores quotes finds no pair that this program has not written.
fn escape(out: &mut Vec<u8>, text: &str, equals: bool) {
    let mut copied = 0;
    for (at, c) in text.char_indices() {
        let syntax = matches!(c, '"' | '\\') || (c == '=' && equals);
        if !syntax && !is_unsafe(c) {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[copied..at]);
        copied = at + c.len_utf8();
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', u8::try_from(c).unwrap_or(b'?')]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    let [high, low] = unit.to_be_bytes();
                    for nibble in [high >> 4, high & 15, low >> 4, low & 15] {
                        out.push(HEX[usize::from(nibble)]);
                    }
                }
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: fn(&mut Vec<u8>, &str), text: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// The characters that can harm a terminal or a reader of the log.
    fn harmful() -> impl Iterator<Item = char> {
        ('\0'..='\u{1f}')
            .chain('\u{7f}'..='\u{9f}')
            .chain(['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{feff}', '\u{e0041}'])
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
    }

    #[test]
    fn no_harmful_character_reaches_the_line_in_any_format() {
        let around = ["a".to_owned(), "a".repeat(20)];
        for (c, around) in harmful().flat_map(|c| around.iter().map(move |around| (c, around))) {
            let text = format!("{around}{c}{around}");
            for write in [logfmt, json, human, key] {
                let line = written(write, &text);
                assert!(!line.contains(c), "{c:?} in {line:?}");
            }
            assert_eq!(serde_json::from_str::<String>(&written(json, &text)).unwrap(), text);
            assert_eq!(serde_json::from_str::<String>(&written(logfmt, &text)).unwrap(), text);
        }
        // The control: Rust's own lossless form of JSON lets most of them through.
        let naive = serde_json::to_string("a\u{9b}31m\u{202e}b").unwrap();
        assert!(naive.contains('\u{9b}') && naive.contains('\u{202e}'));
    }

    #[test]
    fn a_plain_word_stays_as_it_is_and_anything_else_is_quoted() {
        assert_eq!(written(logfmt, "/addresses/1?"), "/addresses/1?");
        assert_eq!(written(logfmt, ""), r#""""#);
        assert_eq!(written(logfmt, "a b"), r#""a b""#);
        assert_eq!(written(logfmt, "x status=500"), r#""x status\u003d500""#);
        let long = "a".repeat(20);
        for c in ['"', '\\', '=', ' ', '\n', '\u{7f}', 'é'] {
            assert!(written(logfmt, &format!("{long}{c}{long}")).starts_with('"'), "{c:?}");
        }
        assert_eq!(written(logfmt, &long), long);
        assert_eq!(written(logfmt, r#"" level="error"#), r#""\" level\u003d\"error""#);
        assert_eq!(written(logfmt, "Zoë"), r#""Zoë""#);
        assert_eq!(written(human, "said \"a=b\"\nINFO"), r#"said \"a\u003db\"\nINFO"#);
        assert_eq!(written(json, "a=\"b\""), r#""a=\"b\"""#);
        assert_eq!(written(key, "a b=\"c\""), "a_b__c_");
        assert_eq!(written(key, ""), "_");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_shown_as_hexadecimal() {
        assert_eq!(lossy(b"ok"), "ok");
        assert_eq!(lossy(b"a\xff\xfeb\xc3"), "a\\xff\\xfeb\\xc3");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_a_quoted_value(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&written(json, &text)).unwrap(), text.clone());
            let line = written(logfmt, &text);
            if line.starts_with('"') {
                prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            } else {
                prop_assert_eq!(line, text);
            }
        }
    }
}

//! `server config`: the configuration in effect as YAML, with the origin of each value as a comment.
//!
//! The values come from the typed configuration, which serialises a secret as `***`. The order and the origins come
//! from the tree. A key that the typed configuration does not serialise is not printed.

use std::io::{self, Write};

use saphyr_parser::ScalarStyle;
use serde_json::Value as Json;

use super::tree::{Node, Value};
use super::wording::is_safe;
use super::yaml;
use crate::secret::mask_url;

/// The largest column of the comments. On a longer line, the comment follows after two spaces.
const MAX_COLUMN: usize = 50;

/// Writes the configuration.
pub(super) fn write(tree: &Node, typed: &Json, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Vec::new();
    section(tree, typed, 0, &mut lines);
    let width = |line: &str| line.chars().count();
    let widest = lines.iter().filter(|(_, origin)| origin.is_some()).map(|(text, _)| width(text)).max();
    let column = widest.unwrap_or(0).min(MAX_COLUMN);
    for (text, origin) in &lines {
        match origin {
            Some(origin) => {
                let gap = column.saturating_sub(width(text)) + 2;
                writeln!(out, "{text}{:gap$}# {origin}", "")?;
            }
            None => writeln!(out, "{text}")?,
        }
    }
    out.flush()
}

fn section(tree: &Node, typed: &Json, depth: usize, lines: &mut Vec<(String, Option<String>)>) {
    let (Value::Map(entries), Json::Object(values)) = (&tree.value, typed) else { return };
    for (key, node) in entries {
        let Some(value) = values.get(key) else { continue };
        let start = format!("{:indent$}{}:", "", scalar(key), indent = depth * 2);
        let is_section = matches!(&node.value, Value::Map(below) if !below.is_empty()) && value.is_object();
        if is_section {
            lines.push((start, None));
            section(node, value, depth + 1, lines);
        } else {
            lines.push((format!("{start} {}", flow(value)), Some(node.origin.to_string())));
        }
    }
}

/// A value on one line, in flow style.
fn flow(value: &Json) -> String {
    match value {
        Json::String(text) => scalar(text),
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A string as a YAML scalar: bare if it is read back as this string, else in double quotes.
fn scalar(text: &str) -> String {
    // A password in a URL is masked here too, in case the type of a setting does not mask it.
    let text = if text.contains("://") { mask_url(text) } else { text.to_owned() };
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.".contains(c));
    let bare = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@+%".contains(&b));
    if first && bare && !text.ends_with(':') && yaml::scalar(&text, ScalarStyle::Plain).is_string() {
        return text;
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if is_safe(c) => quoted.push(c),
            // Every unsafe character is below U+10000, so four digits are enough.
            c => quoted.extend(format!("\\u{:04X}", u32::from(c)).chars()),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Origin;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_value_is_printed_with_its_origin_in_the_order_of_the_file() {
        let mut tree = yaml::parse("b: {z: 1, a: text, on: {}}\na: [1, x]", &Origin::file("f.yaml")).unwrap();
        tree.overlay(yaml::parse("\nb: {z: 2}", &Origin::file("g.yaml")).unwrap());
        let typed = json!({"a": [1, "x y"], "b": {"a": "text", "on": {}, "z": 2}});
        let mut out = Vec::new();
        write(&tree, &typed, &mut out).unwrap();
        let expected = "\
b:
  z: 2         # g.yaml:2
  a: text      # f.yaml:1
  on: {}       # f.yaml:1
a: [1, \"x y\"]  # f.yaml:2
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_value_that_the_typed_configuration_hides_is_not_printed() {
        let tree = yaml::parse("a: {pin: 1234, url: x}", &Origin::file("f.yaml")).unwrap();
        let mut out = Vec::new();
        write(&tree, &json!({"a": {"url": "redis://u:hunter2@h"}}), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a:\n  url: \"redis://u:***@h\"  # f.yaml:1\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_printed_text_reads_back_as_itself(text in prop_oneof![".*", "[-a-z0-9.:#*&!%@ ]{0,8}", "[\\x00-\\x9f]{0,4}"]) {
            prop_assume!(!text.contains("://"));
            let line = format!("key: {}", flow(&json!([text])));
            prop_assert!(line.chars().all(is_safe), "{line:?}");
            let read = yaml::parse(&line, &Origin::file("f")).unwrap().to_json();
            prop_assert_eq!(read, json!({"key": [text]}));
        }
    }
}

//! Reads YAML into a tree of values, each with its line: YAML 1.2, core schema, one document.
//!
//! Anchors, aliases and tags are refused: settings do not need them, and they make a file mean something else than it
//! seems to. The events of the parser are read one by one, up to a largest depth, because `saphyr` builds its own tree
//! by recursion: 100,000 times `- ` overflow its stack.

use saphyr_parser::{BufferedInput, Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::Value as Json;

use super::tree::{Node, Origin, Value};
use super::wording;
use crate::error::StartError;

/// More than any settings need, and far less than the stack allows.
const MAX_DEPTH: usize = 32;

/// Reads the text of a file: a map, or nothing. The origin of each value is `file` with the line of the value.
pub(super) fn parse(text: &str, file: &Origin) -> Result<Node, StartError> {
    let root = document(text, file, true)?;
    match root.value {
        Value::Map(_) => Ok(root),
        _ if root.is_null() => Ok(Node::new(Value::Map(Vec::new()), file.clone())),
        _ => Err(root.origin.wrong("expected keys and values, such as 'server:'")),
    }
}

/// Reads the value of a variable or of a flag: a scalar, or a list or map in flow style.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Result<Node, StartError> {
    document(text, origin, false)
}

fn document(text: &str, origin: &Origin, has_lines: bool) -> Result<Node, StartError> {
    // Some editors for Windows write a byte order mark at the start.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let events = Parser::new(BufferedInput::new(text.chars()));
    let mut reader = Reader { events, origin, has_lines };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if root.is_some() => return Err(reader.at(span).wrong("a second document, expected only one")),
            event => root = Some(reader.node(event, span, 0)?),
        }
    }
    Ok(root.unwrap_or_else(|| Node::new(Value::Scalar(Json::Null), origin.clone())))
}

struct Reader<'a, I> {
    events: I,
    origin: &'a Origin,
    has_lines: bool,
}

impl<'t, I: Iterator<Item = Result<(Event<'t>, Span), ScanError>>> Reader<'_, I> {
    fn at(&self, span: Span) -> Origin {
        if self.has_lines { self.origin.at(span.start.line()) } else { self.origin.clone() }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), StartError> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let span = Span::empty(*error.marker());
                Err(self
                    .at(span)
                    .wrong(format_args!("not valid YAML: {}", wording::short(error.info(), 120))))
            }
            None => Err(self.origin.wrong("not valid YAML: it ends too early")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, StartError> {
        let origin = self.at(span);
        if depth > MAX_DEPTH {
            return Err(origin.wrong(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse(&origin, anchor, tag.is_some())?;
                Value::Scalar(scalar(&text, style))
            }
            Event::SequenceStart(anchor, tag) => {
                refuse(&origin, anchor, tag.is_some())?;
                self.list(depth)?
            }
            Event::MappingStart(anchor, tag) => {
                refuse(&origin, anchor, tag.is_some())?;
                self.map(depth)?
            }
            _ => return Err(origin.wrong("aliases (*name) are not supported; a string with * needs quotes")),
        };
        Ok(Node::new(value, origin))
    }

    fn list(&mut self, depth: usize) -> Result<Value, StartError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, StartError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let origin = self.at(span);
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, _, anchor, tag) => {
                    refuse(&origin, anchor, tag.is_some())?;
                    text.into_owned()
                }
                _ => return Err(origin.wrong("a key has to be a plain word")),
            };
            if entries.iter().any(|(name, _)| *name == key) {
                return Err(origin.wrong(format_args!("key '{}' is given twice", wording::short(&key, 60))));
            }
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, depth + 1)?;
            // The line of the key, because a map or a list starts on the line after its key.
            node.origin = origin;
            entries.push((key, node));
        }
    }
}

fn refuse(origin: &Origin, anchor: usize, tagged: bool) -> Result<(), StartError> {
    if anchor > 0 {
        return Err(
            origin.wrong("anchors (&name) are not supported; a string that starts with & needs quotes")
        );
    }
    if tagged {
        return Err(origin.wrong("tags (!name) are not supported; a string that starts with ! needs quotes"));
    }
    Ok(())
}

/// A scalar by the core schema of YAML 1.2 (section 10.3.2), where `no`, `off` and `yes` are strings.
pub(super) fn scalar(text: &str, style: ScalarStyle) -> Json {
    if style != ScalarStyle::Plain {
        return Json::from(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let radix = |digits: &str, radix| i64::from_str_radix(digits, radix).ok();
    let whole = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => radix(digits, 16),
        (_, Some(digits)) => radix(digits, 8),
        _ => text.parse::<i64>().ok(),
    };
    if let Some(whole) = whole {
        return Json::from(whole);
    }
    // `parse` also accepts words such as "inf" and "nan"; here a number starts with a digit.
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('.');
    let number =
        digits.starts_with(|first: char| first.is_ascii_digit()).then(|| text.parse::<f64>().ok()).flatten();
    number.and_then(serde_json::Number::from_f64).map_or_else(|| Json::from(text), Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn file() -> Origin {
        Origin::file("a.yaml")
    }

    fn read(text: &str) -> Json {
        parse(text, &file()).unwrap().to_json()
    }

    fn refused(text: &str) -> String {
        parse(text, &file()).unwrap_err().to_string()
    }

    #[test]
    fn scalars_are_those_of_the_core_schema() {
        for (text, expected) in [
            ("no", json!("no")),
            ("off", json!("off")),
            ("yes", json!("yes")),
            ("true", json!(true)),
            ("~", json!(null)),
            ("", json!(null)),
            ("5000", json!(5000)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            ("0755", json!(755)),
            ("0o17", json!(15)),
            ("0xff", json!(255)),
            ("1_000", json!("1_000")),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("1.2.3", json!("1.2.3")),
            ("30s", json!("30s")),
            (".inf", json!(".inf")),
            ("nan", json!("nan")),
            ("1e999", json!("1e999")),
            ("'5'", json!("5")),
            ("\"true\"", json!("true")),
        ] {
            assert_eq!(read(&format!("key: {text}")), json!({"key": expected}), "{text}");
        }
    }

    #[test]
    fn every_value_knows_the_line_of_its_key() {
        let tree = parse("# first\na:\n  b:\n    - 1\n    - 2\n  c: |\n    text\n", &file()).unwrap();
        let line = |path: &[&str]| tree.find(path).unwrap().origin.to_string();
        assert_eq!(line(&["a"]), "a.yaml:2");
        assert_eq!(line(&["a", "b"]), "a.yaml:3");
        assert_eq!(line(&["a", "b", "1"]), "a.yaml:5");
        assert_eq!(line(&["a", "c"]), "a.yaml:6");
    }

    #[test]
    fn a_file_without_content_has_no_keys() {
        for text in ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n", "\u{feff}", "~"] {
            assert_eq!(read(text), json!({}), "{text:?}");
        }
    }

    #[test]
    fn text_that_is_not_a_file_of_settings_is_refused_with_its_line() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3", "a.yaml:3: key 'a' is given twice"),
            ("a: {b: 1, b: 2}", "a.yaml:1: key 'b' is given twice"),
            ("a: 1\n---\nb: 2", "a.yaml:3: a second document, expected only one"),
            ("- a\n- b", "a.yaml:1: expected keys and values, such as 'server:'"),
            ("just text", "a.yaml:1: expected keys and values, such as 'server:'"),
            (
                "\na: &x 1",
                "a.yaml:2: anchors (&name) are not supported; a string that starts with & needs quotes",
            ),
            ("a: !x 1", "a.yaml:1: tags (!name) are not supported; a string that starts with ! needs quotes"),
            ("? [a]\n: 1", "a.yaml:1: a key has to be a plain word"),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\nc: 3\n", "a.yaml:3: "),
            ("a: 1\nb: c: d", "a.yaml:2: "),
            ("a: 1\n  b: 2", "a.yaml:2: "),
            ("\na: 'x", "a.yaml:2: "),
            ("a: 1\n\tb: 2", "a.yaml:"),
        ] {
            let message = refused(text);
            assert!(message.starts_with(line) && message.contains("not valid YAML"), "{message}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_overflows() {
        for text in ["[".repeat(1_000_000), "{a: ".repeat(200_000), "- ".repeat(400_000)] {
            let message = refused(&text);
            // The parser limits nested brackets to 255 itself, but not `- - -`.
            let expected = ["nested deeper than 32 levels", "recursion limit exceeded"];
            assert!(expected.iter().any(|reason| message.contains(reason)), "{message}");
        }
    }

    /// Text that is nearly YAML finds more errors than random characters do.
    fn nearly_yaml() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("a: ".to_owned()),
            Just("\n  ".to_owned()),
            Just("\n".to_owned()),
            "[-?:,{}\\[\\]&*!|>'\"%@`#~.\t \r]{1,3}",
            "[a-z0-9]{1,3}",
            "\\PC{1,3}",
            ".{1,3}",
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic_and_every_error_is_one_line(text in nearly_yaml()) {
            for result in [parse(&text, &file()), parse_value(&text, &file())] {
                if let Err(error) = result {
                    let message = error.to_string();
                    prop_assert!(!message.contains(char::is_control), "{message:?}");
                    prop_assert!(message.starts_with("a.yaml") && message.len() < 400, "{message:?}");
                }
            }
        }
    }
}

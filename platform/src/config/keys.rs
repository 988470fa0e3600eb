//! Checks keys against the known ones, and finds the known key that was probably meant.
//!
//! The known keys are those of the defaults: a key that is not there cannot be set. One without a value has no default, and
//! has to be set. An empty map in the defaults
//! (`levels: {}`) is a free map, below which any key is allowed.

use axum::http::HeaderName;
use serde_json::Value as Json;
use strsim::osa_distance;

use super::tree::{Node, Origin, Value};
use super::wording::{dotted, short};
use super::yaml;
use crate::error::StartError;

/// Separates the parts of the name of a variable. Two underscores, because for a service with the name `server`
/// Kubernetes sets `SERVER_PORT=tcp://...` and similar variables in every pod.
pub(super) const SEPARATOR: &str = "__";
/// How the names of the variables of this program start.
pub(super) const PREFIX: &str = "SERVER__";

/// The sections that accept further keys beside those of the defaults: a response can have any header.
const OPEN: [&str; 2] = ["http.api_headers", "http.security_headers"];

/// Whether the keys directly below this path are header names.
pub(super) fn is_open(path: &[String]) -> bool {
    OPEN.contains(&dotted(path).as_str())
}

/// Refuses upper case: two spellings of one header would be two keys.
fn check_header(name: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::try_from(&lower).is_err() {
        return Err("is not a header name".to_owned());
    }
    if lower != name {
        return Err(format!("header names are written in lower case here: '{lower}'"));
    }
    Ok(())
}

/// Refuses every key of `given` that the known keys do not have.
pub(super) fn check(known: &Node, given: &Node) -> Result<(), StartError> {
    check_below(known, known, given, &mut Vec::new())
}

fn check_below(all: &Node, known: &Node, given: &Node, path: &mut Vec<String>) -> Result<(), StartError> {
    let Value::Map(known_entries) = &known.value else { return Ok(()) };
    if known_entries.is_empty() || given.is_null() {
        return Ok(());
    }
    let Value::Map(entries) = &given.value else {
        path.push(known_entries[0].0.clone());
        let example = dotted(path);
        path.pop();
        let section = dotted(path);
        return Err(given
            .origin
            .wrong(format_args!("{section}: expected keys below it, such as '{example}'")));
    };
    for (key, node) in entries {
        path.push(key.clone());
        let Some(known) = known.child(key) else {
            if is_open(&path[..path.len() - 1]) {
                let named = |why| node.origin.wrong(format_args!("{}: {why}", dotted(path)));
                check_header(key).map_err(named)?;
                path.pop();
                continue;
            }
            return Err(node.origin.wrong(unknown(all, known_entries, path)));
        };
        check_below(all, known, node, path)?;
        path.pop();
    }
    Ok(())
}

fn unknown(all: &Node, siblings: &[(String, Node)], path: &[String]) -> String {
    let key = dotted(path);
    if let Some(found) = path.last().filter(|last| last.contains('.')) {
        let parts: Vec<_> =
            path[..path.len() - 1].iter().map(String::as_str).chain(found.split('.')).collect();
        if all.find(&parts).is_some() {
            let (name, section) = (parts[parts.len() - 1], dotted(&parts[..parts.len() - 1]));
            return format!("unknown key '{key}', did you mean '{name}' below '{section}'?");
        }
    }
    if let Some(path) = nearest(all, path) {
        return format!("unknown key '{key}', did you mean '{}'?", dotted(&path));
    }
    format!("unknown key '{key}', known here: {}", names(siblings))
}

/// The keys of a map as a list for a message.
pub(super) fn names(entries: &[(String, Node)]) -> String {
    short(&entries.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "), 200)
}

/// The known key that is nearest to this path: with a similar path, or with a similar name in another section.
pub(super) fn nearest(all: &Node, path: &[String]) -> Option<Vec<String>> {
    let mut known = Vec::new();
    collect(all, &mut Vec::new(), &mut known);
    let wanted = path.join(".");
    let last = path.last()?;
    let scored = known.into_iter().filter_map(|candidate| {
        let whole = (osa_distance(&wanted, &candidate.join(".")), wanted.len());
        // One more, so that the same distance in the right section wins.
        let moved = (osa_distance(last, candidate.last()?) + 1, last.len());
        [whole, moved]
            .into_iter()
            // At most a third of the letters may differ, as in rustc; one difference is always allowed.
            .filter(|(distance, length)| *distance <= (length / 3).max(1))
            .map(|(distance, _)| distance)
            .min()
            .map(|distance| (distance, candidate))
    });
    // Of equally near keys, the first one in the order of the files.
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

fn collect(node: &Node, path: &mut Vec<String>, into: &mut Vec<Vec<String>>) {
    let Value::Map(entries) = &node.value else { return };
    for (key, child) in entries {
        path.push(key.clone());
        into.push(path.clone());
        collect(child, path, into);
        path.pop();
    }
}

/// The path of a dotted key. Only for constant keys, whose parts hold no dots.
pub(super) fn split(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

/// A tree that sets this key to a word of the command line or of the environment. If the default is a string or there is
/// none, the word is taken literally (a password may look like a number), else it is read as YAML.
pub(super) fn set(known: &Node, path: &[String], word: &str, origin: Origin) -> Result<Node, StartError> {
    let leaf = match known.find(path).map(|node| &node.value) {
        Some(Value::Scalar(Json::String(_) | Json::Null)) => Node::text(word, origin),
        _ => yaml::parse_value(word, &origin)?,
    };
    let tree = Node::nested(path, leaf);
    check(known, &tree)?;
    Ok(tree)
}

/// The name of the variable that sets this key.
pub(super) fn variable(path: &[String]) -> String {
    let words: Vec<String> = path.iter().map(|key| word(key)).collect();
    format!("{PREFIX}{}", words.join(SEPARATOR))
}

/// A key as part of the name of a variable. Shells allow no hyphen in it.
pub(super) fn word(key: &str) -> String {
    key.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: &str) -> String {
        let defaults = "
http: {port: 5000, body_limit: 1MiB, tls: {cert: a}}
logging: {levels: {}, udp: {host: ''}}
shutdown: {deadline: 30s}
list: [{a: 1}]";
        let defaults = yaml::parse(defaults, &Origin::file("default.yaml")).unwrap();
        let given = yaml::parse(given, &Origin::file("my.yaml")).unwrap();
        check(&defaults, &given).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_known_key_and_any_key_of_a_free_map_are_accepted() {
        for text in
            ["http: {port: 1}", "http:", "{}", "logging: {levels: {any.thing: warn}}", "list: [{b: 2}]"]
        {
            assert_eq!(refused(text), "", "{text}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_line_and_the_nearest_known_key() {
        for (text, expected) in [
            ("http:\n  prot: 1", "my.yaml:2: unknown key 'http.prot', did you mean 'http.port'?"),
            ("htpp:\n  port: 1", "my.yaml:1: unknown key 'htpp', did you mean 'http'?"),
            ("\nport: 1", "my.yaml:2: unknown key 'port', did you mean 'http.port'?"),
            (
                "http: {deadline: 1s}",
                "my.yaml:1: unknown key 'http.deadline', did you mean 'shutdown.deadline'?",
            ),
            (
                "http: {body-limit: 1}",
                "my.yaml:1: unknown key 'http.body-limit', did you mean 'http.body_limit'?",
            ),
            ("http: {tls: {crt: b}}", "my.yaml:1: unknown key 'http.tls.crt', did you mean 'http.tls.cert'?"),
            ("http.port: 1", "my.yaml:1: unknown key 'http.port', did you mean 'port' below 'http'?"),
            (
                "http: {tls.cert: b}",
                "my.yaml:1: unknown key 'http.tls.cert', did you mean 'cert' below 'http.tls'?",
            ),
            ("http: {zzzzzz: 1}", "my.yaml:1: unknown key 'http.zzzzzz', known here: port, body_limit, tls"),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_where_a_section_belongs_is_refused_without_showing_it() {
        let message = refused("http: hunter2");
        assert_eq!(message, "my.yaml:1: http: expected keys below it, such as 'http.port'");
    }

    #[test]
    fn control_characters_in_a_key_are_escaped() {
        let message = refused("\"a\\e[31m\\nb\": 1");
        assert!(message.starts_with("my.yaml:1: unknown key 'a\\u{1b}[31m\\u{a}b'"), "{message}");
    }
}

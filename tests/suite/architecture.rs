//! The arrows of the house point one way: a file imports only from rooms below its own.

mod paths;

use std::fs;
use std::path::{Path, PathBuf};

use paths::{module_of, named};

/// The rooms of the platform, from the ground up. A file imports from lower rows, and from its own room; two
/// rooms of one row do not import each other.
const RANKS: [&[&str]; 7] = [
    &["error", "json", "secret", "setting", "shutdown"],
    &["cli", "logging", "schema", "store", "views"],
    &["services"],
    &["http"],
    &["config"],
    &["app"],
    &["lifecycle", "mod"],
];

fn rank(room: &str) -> Option<usize> {
    RANKS.iter().position(|row| row.contains(&room))
}

/// The files below a folder with their texts; text of unit tests counts too: they live by the same rules.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// What is wrong with one file of the platform, if anything.
fn wrong_arrows(inner: &str, text: &str) -> Vec<String> {
    let module = module_of(Path::new(inner));
    let room = module.get(1).map_or("mod", String::as_str);
    let own = rank(room).unwrap_or_else(|| panic!("platform/{room} has no rank: add it to RANKS"));
    let mut wrong = Vec::new();
    for path in named(&module, text) {
        match [path.first(), path.get(1)].map(|part| part.map(String::as_str)) {
            [Some("platform"), Some(other)]
                if other != room && rank(other).is_some_and(|other| other >= own) =>
            {
                wrong.push(format!("{room} imports {other}"));
            }
            // All of it: a way around this test.
            [None, _] | [Some("platform"), None] if room != "mod" => {
                wrong.push(format!("{room} imports more than it may"));
            }
            [Some("app"), _] => wrong.push(format!("{room} names the app")),
            _ => {}
        }
    }
    wrong
}

/// The other examples that one of them names.
fn named_examples(inner: &str, text: &str) -> Vec<String> {
    let module = module_of(Path::new(inner));
    let others = named(&module, text).into_iter().filter_map(|path| match &path[..] {
        [app, examples, other, ..] if app == "app" && examples == "examples" => Some(other.clone()),
        _ => None,
    });
    others.filter(|other| module.get(2) != Some(other)).collect()
}

#[test]
fn the_platform_imports_downwards_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (path, text) in sources(&src.join("platform")) {
        let inner = path.strip_prefix(&src).unwrap().to_str().unwrap();
        wrong.extend(wrong_arrows(inner, &text).into_iter().map(|what| format!("{inner}: {what}")));
    }
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn an_example_names_no_other_example() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let root = src.join("app/examples");
    if !root.exists() {
        return; // The examples have been removed.
    }
    for (path, text) in sources(&root) {
        let inner = path.strip_prefix(&src).unwrap().to_str().unwrap();
        // Their list has to name them all.
        if inner != "app/examples/mod.rs" {
            assert!(
                named_examples(inner, &text).is_empty(),
                "{inner} names {:?}",
                named_examples(inner, &text)
            );
        }
    }
}

#[test]
fn an_arrow_that_points_the_wrong_way_is_found() {
    // The control of the tests above.
    let dao = |text| wrong_arrows("platform/store/dao.rs", text);
    for text in [
        "use crate::platform::http::Json;",
        "use crate::platform::{error::{Error, Kind}, http::Json};",
        "use {crate::platform::http::Json, std::fmt};",
        "use super::super::http;",
        "use super::super::{error::Error, http as web};",
        "mod tests { use super::super::super::http::Json; }",
        "fn f() { super::super::http::x() }",
        "fn f() { tracing::info!(a = \"\\\"\", '\"', crate::platform::http::x()) }",
        "/* \" */ use crate::platform::http::Json;",
        "const A: &str = r#\"\"\"#; use crate::platform::http::Json;",
    ] {
        assert_eq!(dao(text), ["store imports http"], "{text}");
    }
    assert_eq!(dao("use crate::platform::{error::Error, logging::Logging};"), ["store imports logging"]);
    assert_eq!(
        wrong_arrows("platform/views.rs", "use super::services::Services;"),
        ["views imports services"]
    );
    for text in
        ["use crate::app::AppState;", "use crate::{app::AppState};", "use super::super::app::AppState;"]
    {
        assert_eq!(wrong_arrows("platform/http/mod.rs", text), ["http names the app"], "{text}");
    }
    for text in
        ["use crate::platform as p;", "use crate::*;", "use super::super::*;", "use crate::platform::*;"]
    {
        assert_eq!(dao(text), ["store imports more than it may"], "{text}");
    }
    for text in [
        "use crate::platform::{error::{Error, Kind}, setting::Span};",
        "// use crate::platform::config::Config;",
        "/// [`crate::app`]",
        "const A: &str = \"crate::app\";",
        "mod tests { use super::super::fields::Fields; mod more { use super::super::*; } } use super::query;",
    ] {
        assert!(dao(text).is_empty(), "{text}: {:?}", dao(text));
    }
    let todo = |text| named_examples("app/examples/todo_list.rs", text);
    assert_eq!(todo("use super::cors_demo;"), ["cors_demo"]);
    assert_eq!(todo("use crate::{app::examples::{cors_demo::routes}};"), ["cors_demo"]);
    assert!(todo("use crate::app::AppState; mod tests { use super::*; }").is_empty());
}

#[test]
fn no_source_file_is_longer_than_five_hundred_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, text) in ["src", "tests"].iter().flat_map(|folder| sources(&root.join(folder))) {
        assert!(text.lines().count() <= 500, "{} has {} lines", path.display(), text.lines().count());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}

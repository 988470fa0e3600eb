//! The arrows of the house point one way: a file imports only from rooms below its own.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the platform, from the ground up. A file imports from lower rows, and from its own room; two
/// rooms of one row do not import each other.
const RANKS: [&[&str]; 6] = [
    &["error", "secret", "setting", "shutdown"],
    &["cli", "logging", "schema", "store", "views"],
    &["services"],
    &["http"],
    &["config"],
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

/// The modules that a text names right behind `prefix`, also within braces.
fn named_after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let word =
        |text: &'a str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                names.extend(list.split('}').next().unwrap_or_default().split(',').map(str::trim).map(word));
            }
            None => names.push(word(rest)),
        }
    }
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// What is wrong with one file of the platform, if anything.
fn wrong_arrows(room: &str, depth: usize, text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut wrong = Vec::new();
    if code.contains("crate::app") {
        wrong.push(format!("{room} names the app"));
    }
    let own = rank(room).unwrap_or_else(|| panic!("platform/{room} has no rank: add it to RANKS"));
    let up = format!("use {}", "super::".repeat(depth));
    let mut imports = named_after(&code, "crate::platform::");
    imports.extend(named_after(&code, &up));
    for name in imports {
        let Some(other) = rank(name) else { continue };
        if name != room && other >= own {
            wrong.push(format!("{room} imports {name}"));
        }
    }
    wrong
}

#[test]
fn the_platform_imports_downwards_only() {
    let platform = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/platform");
    let mut wrong = Vec::new();
    for (path, text) in sources(&platform) {
        let inner = path.strip_prefix(&platform).unwrap();
        let room = inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let depth = inner.iter().count();
        let found = wrong_arrows(&room, depth, &text);
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", inner.display())));
    }
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn an_example_names_no_other_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app/examples");
    if !root.exists() {
        return; // The examples have been removed.
    }
    for (path, text) in sources(&root) {
        let inner = path.strip_prefix(&root).unwrap();
        let own = inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        for other in named_after(&text, "examples::") {
            assert_eq!(other, own, "{} names another example", inner.display());
        }
    }
}

#[test]
fn an_arrow_that_points_the_wrong_way_is_found() {
    // The control of the tests above.
    assert_eq!(wrong_arrows("store", 2, "use crate::platform::http::Json;"), ["store imports http"]);
    assert_eq!(
        wrong_arrows("store", 2, "use crate::platform::{error::Error, logging::Logging};"),
        ["store imports logging"]
    );
    assert_eq!(wrong_arrows("views", 1, "use super::services::Services;"), ["views imports services"]);
    assert_eq!(wrong_arrows("http", 2, "use crate::app::AppState;"), ["http names the app"]);
    assert!(wrong_arrows("http", 2, "use crate::platform::services::Services;").is_empty());
    assert!(wrong_arrows("http", 2, "// use crate::platform::config::Config;").is_empty());
}

#[test]
fn no_source_file_is_longer_than_five_hundred_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, text) in ["src", "tests"].iter().flat_map(|folder| sources(&root.join(folder))) {
        assert!(text.lines().count() <= 500, "{} has {} lines", path.display(), text.lines().count());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}

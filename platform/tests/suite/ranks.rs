//! A file of the platform imports only from lower ranks, and the files of one room import each other in no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::paths::{module_of, named};

/// The rooms of the platform, from the ground up. A file imports from lower rows, and from its own room; two
/// rooms of one row do not import each other.
const RANKS: [&[&str]; 8] = [
    &["error", "json", "secret", "setting", "shutdown"],
    &["cli", "logging", "schema", "store", "views"],
    &["services"],
    &["http"],
    &["config"],
    &["app"],
    &["lifecycle"],
    &["lib", "testing"],
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

/// All files of the platform: their paths below `src`, and their texts.
fn platform() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inner = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    sources(&src).into_iter().map(|(path, text)| (inner(&path), text)).collect()
}

/// What is wrong with one file of the platform, if anything.
fn wrong_arrows(inner: &str, text: &str) -> Vec<String> {
    let module = module_of(Path::new(inner));
    let room = module.first().map_or("lib", String::as_str);
    let own = rank(room).unwrap_or_else(|| panic!("{room} has no rank: add it to RANKS"));
    let mut wrong = Vec::new();
    for path in named(&module, text) {
        match path.first().map(String::as_str) {
            Some(other) if other != room && rank(other).is_some_and(|other| other >= own) => {
                wrong.push(format!("{room} imports {other}"));
            }
            // All of it: a way around this test.
            None if room != "lib" => wrong.push(format!("{room} imports more than it may")),
            _ => {}
        }
    }
    wrong
}

#[test]
fn the_platform_imports_downwards_only() {
    let wrong = platform().into_iter().flat_map(|(inner, text)| {
        wrong_arrows(&inner, &text).into_iter().map(move |what| format!("{inner}: {what}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), [""; 0], "arrows that point the wrong way");
}

/// Which file of a room imports which others of it.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The imports of the files of one room; a folder in it counts as one file.
fn imports_within(room: &str, files: &[(String, String)]) -> Imports {
    let mut imports = Imports::new();
    let modules = files.iter().map(|(inner, text)| (module_of(Path::new(inner)), text));
    for (module, text) in modules.filter(|(module, _)| module.len() > 1 && module[0] == room) {
        // What a unit test imports makes no circle in what is shipped.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let named = named(&module, code).into_iter().filter(|path| path.len() > 1 && path[0] == room);
        let others = named.map(|path| path[1].clone()).filter(|other| *other != module[1]);
        imports.entry(module[1].clone()).or_default().extend(others);
    }
    let known: BTreeSet<String> = imports.keys().cloned().collect();
    for others in imports.values_mut() {
        others.retain(|other| known.contains(other));
    }
    imports
}

/// The files that are left when all are taken away that import none of those that are left: those in circles, and
/// those that import them.
fn in_circles(mut imports: Imports) -> BTreeSet<String> {
    loop {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        imports.retain(|_, others| others.iter().any(|other| left.contains(other)));
        if imports.len() == left.len() {
            return left;
        }
    }
}

#[test]
fn the_files_of_a_room_import_each_other_in_no_circle() {
    let files = platform();
    for room in RANKS.iter().copied().flatten() {
        assert_eq!(in_circles(imports_within(room, &files)), BTreeSet::new(), "{room}");
    }
}

#[test]
fn a_circle_is_found() {
    // The control of the test above.
    let file = |name: &str, text: &str| (format!("http/{name}.rs"), text.to_owned());
    let circle = [
        file("a", "use super::b::B;"),
        file("b", "use crate::http::c::C;"),
        file("c", "use super::a::A; use super::d::D;"),
        file("d", "use crate::error::Error;"),
    ];
    let found = in_circles(imports_within("http", &circle));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(in_circles(imports_within("http", &circle[1..])).is_empty());
}

#[test]
fn an_arrow_that_points_the_wrong_way_is_found() {
    // The control of the tests above.
    let dao = |text| wrong_arrows("store/dao.rs", text);
    for text in [
        "use crate::http::Json;",
        "use crate::{error::{Error, Kind}, http::Json};",
        "use {crate::http::Json, std::fmt};",
        "use super::super::http;",
        "use super::super::{error::Error, http as web};",
        "mod tests { use super::super::super::http::Json; }",
        "fn f() { super::super::http::x() }",
        "fn f() { tracing::info!(a = \"\\\"\", '\"', crate::http::x()) }",
        "/* \" */ use crate::http::Json;",
        "const A: &str = r#\"\"\"#; use crate::http::Json;",
    ] {
        assert_eq!(dao(text), ["store imports http"], "{text}");
    }
    assert_eq!(dao("use crate::{error::Error, logging::Logging};"), ["store imports logging"]);
    assert_eq!(wrong_arrows("views.rs", "use super::services::Services;"), ["views imports services"]);
    for text in ["use crate as p;", "use crate::*;", "use super::super::*;"] {
        assert_eq!(dao(text), ["store imports more than it may"], "{text}");
    }
    for text in [
        "use crate::{error::{Error, Kind}, setting::Span};",
        "// use crate::config::Config;",
        "/// [`crate::http`]",
        "const A: &str = \"crate::http\";",
        "mod tests { use super::super::fields::Fields; mod more { use super::super::*; } } use super::query;",
    ] {
        assert!(dao(text).is_empty(), "{text}: {:?}", dao(text));
    }
}

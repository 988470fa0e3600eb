//! A file of the platform imports only from modules of lower ranks, and the files of one folder do not import each
//! other in a circle. A module here is a file or a folder directly below `src`; the rooms of HTTP have ranks of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::paths::{module_of, paths_in};

/// The modules of the platform by rank, the lowest first. A file imports from lower ranks, and from its own module. Two
/// modules of one rank do not import each other.
const RANKS: [&[&str]; 9] = [
    &[
        "clock",
        "error",
        "file_name",
        "json",
        "network",
        "new_file",
        "regular_file",
        "retry",
        "secret",
        "setting",
        "shutdown",
    ],
    &[
        "cache",
        "cli",
        "connector",
        "lock",
        "logging",
        "metrics",
        "process",
        "schema",
        "store",
        "tls",
        "traces",
        "views",
    ],
    &["auth", "mail", "scheduler"],
    &["services"],
    &["http"],
    &["config"],
    &["app", "doctor"],
    &["lifecycle"],
    &["lib", "testing"],
];

/// The rooms of `http` by rank, the lowest first: the same rules hold between them.
const ROOMS: [&[&str]; 5] =
    [&["settings"], &["routing"], &["request"], &["extract", "middleware"], &["own_routes", "server"]];

fn rank(ranks: &[&[&str]], module: &str) -> Option<usize> {
    ranks.iter().position(|modules| modules.contains(&module))
}

/// The files below a folder with their texts. Unit tests are included: the same rules hold for them.
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

/// The imports of one file of the platform that are not allowed.
fn wrong_imports(inner: &str, text: &str) -> Vec<String> {
    let path = module_of(Path::new(inner));
    let module = path.first().map_or("lib", String::as_str);
    let own = rank(&RANKS, module).unwrap_or_else(|| panic!("{module} has no rank: add it to RANKS"));
    let room = path.get(1).filter(|_| module == "http").map(String::as_str);
    let mut wrong = Vec::new();
    for imported in paths_in(&path, text) {
        match imported.first().map(String::as_str) {
            Some("http") if room.is_some() => wrong.extend(wrong_room(room.unwrap(), imported.get(1))),
            Some(other) if other != module && rank(&RANKS, other).is_some_and(|other| other >= own) => {
                wrong.push(format!("{module} imports {other}"));
            }
            // The crate itself: this would be a way around the test.
            None if module != "lib" => wrong.push(format!("{module} imports the whole crate")),
            _ => {}
        }
    }
    wrong
}

/// What is wrong with an import of a room of HTTP from within HTTP. What `http` itself exports is for the others.
fn wrong_room(room: &str, imported: Option<&String>) -> Option<String> {
    let own = rank(&ROOMS, room).unwrap_or_else(|| panic!("the room {room} has no rank: add it to ROOMS"));
    let other = imported.map_or("http", String::as_str);
    let is_lower = other == room || rank(&ROOMS, other).is_some_and(|other| other < own);
    (!is_lower).then(|| format!("{room} imports {other}"))
}

#[test]
fn the_platform_imports_from_lower_ranks_only() {
    let wrong = platform().into_iter().flat_map(|(inner, text)| {
        wrong_imports(&inner, &text).into_iter().map(move |what| format!("{inner}: {what}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), [""; 0], "imports from the same rank or a higher one");
}

/// The files of one folder, each with those that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The imports between the files of one folder, given as the path of its module. A folder in it counts as one file.
fn imports_within(parent: &[String], files: &[(String, String)]) -> Imports {
    let mut imports = Imports::new();
    let depth = parent.len();
    let modules = files.iter().map(|(inner, text)| (module_of(Path::new(inner)), text));
    for (module, text) in modules.filter(|(module, _)| module.len() > depth && module.starts_with(parent)) {
        // Imports of unit tests do not count: they make no circle in the program.
        let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
        let named = paths_in(&module, code).into_iter();
        let inside = named.filter(|path| path.len() > depth && path.starts_with(parent));
        let others = inside.map(|path| path[depth].clone()).filter(|other| *other != module[depth]);
        imports.entry(module[depth].clone()).or_default().extend(others);
    }
    let known: BTreeSet<String> = imports.keys().cloned().collect();
    for others in imports.values_mut() {
        others.retain(|other| known.contains(other));
    }
    imports
}

/// The files in circles, and the files that import them. Removes all files that import none of the others, as often as
/// there are such files.
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
fn the_files_of_a_folder_do_not_import_each_other_in_a_circle() {
    let files = platform();
    let modules = files.iter().map(|(inner, _)| module_of(Path::new(inner)));
    let folders: BTreeSet<_> =
        modules.flat_map(|module| (1..module.len()).map(move |depth| module[..depth].to_vec())).collect();
    assert!(folders.contains(&vec!["http".to_owned(), "routing".to_owned()]));
    for folder in folders {
        let circle = in_circles(imports_within(&folder, &files));
        assert_eq!(circle, BTreeSet::new(), "{}", folder.join("/"));
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
    let http = ["http".to_owned()];
    let found = in_circles(imports_within(&http, &circle));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(in_circles(imports_within(&http, &circle[1..])).is_empty());
    let deep = [file("r/a", "use super::b::B;"), file("r/b", "use crate::http::r::a::A;")];
    assert!(in_circles(imports_within(&http, &deep)).is_empty());
    assert_eq!(in_circles(imports_within(&["http".to_owned(), "r".to_owned()], &deep)).len(), 2);
}

#[test]
fn an_import_that_is_not_allowed_is_found() {
    // The control of the tests above.
    let dao = |text| wrong_imports("store/dao.rs", text);
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
    assert_eq!(wrong_imports("views.rs", "use super::services::Services;"), ["views imports services"]);
    for text in ["use crate as p;", "use crate::*;", "use super::super::*;"] {
        assert_eq!(dao(text), ["store imports the whole crate"], "{text}");
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

#[test]
fn a_room_that_imports_a_higher_one_is_found() {
    // The control of the test above.
    let request = |text| wrong_imports("http/request/context.rs", text);
    assert_eq!(request("use crate::http::server::Server;"), ["request imports server"]);
    assert_eq!(
        request("use super::super::{extract::Json, routing::route::Route};"),
        ["request imports extract"]
    );
    assert_eq!(request("use crate::http::Route;"), ["request imports Route"]);
    assert_eq!(request("use crate::http;"), ["request imports http"]);
    assert_eq!(
        wrong_imports("http/extract/mod.rs", "use crate::http::middleware::Stack;"),
        ["extract imports middleware"]
    );
    assert!(request("use super::peer::Peer; use crate::http::settings::Settings;").is_empty());
}

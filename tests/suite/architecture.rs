//! The rules that keep the examples removable and the files short. The compiler keeps the rule that the platform names
//! nothing of the app: it is a crate of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Rust files below a folder with their texts.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The name of an example from the path of one of its files below `examples`.
fn example_of(path: &Path) -> String {
    let first = path.iter().next().unwrap_or_default().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Which of these names are words of the text, outside of comments.
fn names_in<'a>(names: &[&'a str], text: &str) -> Vec<&'a str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let words: Vec<&str> =
        code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    names.iter().copied().filter(|name| words.contains(name)).collect()
}

#[test]
fn an_example_names_no_other_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app/examples");
    let files = sources(&root);
    let of = |path: &Path| example_of(path.strip_prefix(&root).unwrap());
    let all: Vec<String> = files.iter().map(|(path, _)| of(path)).filter(|name| name != "mod").collect();
    for (path, text) in &files {
        let own = of(path);
        // `mod.rs` lists them all.
        if own != "mod" {
            let others: Vec<&str> = all.iter().map(String::as_str).filter(|name| *name != own).collect();
            assert_eq!(names_in(&others, text), [""; 0], "{}", path.display());
        }
    }
}

/// With both crates as default members, it could not determine which package to modify.
#[test]
fn cargo_add_means_the_app() {
    let dependency = tempfile::tempdir().unwrap();
    fs::create_dir(dependency.path().join("src")).unwrap();
    fs::write(dependency.path().join("src/lib.rs"), "").unwrap();
    fs::write(dependency.path().join("Cargo.toml"), "[package]\nname = \"some\"\n").unwrap();
    let mut add = Command::new(env!("CARGO"));
    add.args(["add", "--dry-run", "--offline", "--path"]).arg(dependency.path());
    let added = add.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
}

#[test]
fn a_name_of_another_example_is_found() {
    // The control of the test above.
    for text in
        ["use super::other_slice;", "use crate::{app::examples::{other_slice::routes}};", "x(other_slice::y)"]
    {
        assert_eq!(names_in(&["other_slice"], text), ["other_slice"], "{text}");
    }
    for text in ["use super::other_slices;", "// other_slice", "let x = 1; // as other_slice"] {
        assert!(names_in(&["other_slice"], text).is_empty(), "{text}");
    }
}

#[test]
fn no_source_file_is_longer_than_five_hundred_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "platform/src", "platform/tests"];
    for (path, text) in folders.iter().flat_map(|folder| sources(&root.join(folder))) {
        assert!(text.lines().count() <= 500, "{} has {} lines", path.display(), text.lines().count());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}

//! The paths that a source file names, wherever they stand: in a `use` tree, in an expression, in a macro.
//!
//! Not a parser of Rust: it reads words, `::` and braces, as `proc-macro2` finds them.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file's place in the crate, such as `["platform", "store", "dao"]`.
pub type Module = Vec<String>;

/// The module that a file below `src` is.
pub fn module_of(inner: &std::path::Path) -> Module {
    let mut module: Module = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let file = module.pop().unwrap_or_default();
    match file.trim_end_matches(".rs") {
        "mod" | "lib" | "main" => {}
        name => module.push(name.to_owned()),
    }
    module
}

/// Every path that starts with `crate`, `self` or `super`, from the root of the crate.
pub fn named(module: &[String], text: &str) -> Vec<Module> {
    let words = words(text);
    let mut found = Vec::new();
    // The modules that are open, each with the depth of its brace.
    let mut here = module.to_vec();
    let mut open: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < words.len() {
        match (words[at].as_str(), words.get(at + 1).map(String::as_str)) {
            ("mod", Some(name)) if words.get(at + 2).is_some_and(|word| word == "{") => {
                here.push(name.to_owned());
                depth += 1;
                open.push(depth);
                at += 3;
                continue;
            }
            ("crate" | "self" | "super", Some("::")) if at == 0 || words[at - 1] != "::" => {
                let first = if words[at] == "crate" { Vec::new() } else { here.clone() };
                let next = if words[at] == "crate" { at + 2 } else { at };
                at = tree(&words, next, first, &mut found);
                continue;
            }
            // The whole crate under another name.
            ("crate", Some("as")) => found.push(Vec::new()),
            ("{", _) => depth += 1,
            ("}", _) => {
                if open.last() == Some(&depth) {
                    open.pop();
                    here.pop();
                }
                depth -= 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one tree of paths below `prefix` and returns where it ends.
fn tree(words: &[String], mut at: usize, mut path: Module, found: &mut Vec<Module>) -> usize {
    loop {
        match words.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while words.get(at).is_some_and(|word| word != "}") {
                    at = if words[at] == "," {
                        at + 1
                    } else {
                        tree(words, at, path.clone(), found).max(at + 1)
                    };
                }
                return at + 1;
            }
            Some("super") => drop(path.pop()),
            Some("crate" | "self" | "*") => {}
            Some(word) if is_name(word) => path.push(word.to_owned()),
            _ => break,
        }
        at += 1;
        match words.get(at).map(String::as_str) {
            Some("::") => at += 1,
            // Another name for it.
            Some("as") => {
                at += 2;
                break;
            }
            _ => break,
        }
    }
    found.push(path);
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names, braces and single marks of a text, with `::` as one; without comments and literals.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    collect(text.parse().unwrap(), &mut words);
    words
}

fn collect(tokens: TokenStream, words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let braces = group.delimiter() == Delimiter::Brace;
                words.push(if braces { "{" } else { "(" }.to_owned());
                collect(group.stream(), words);
                words.push(if braces { "}" } else { ")" }.to_owned());
            }
            TokenTree::Ident(name) => words.push(name.to_string()),
            TokenTree::Punct(mark) => match words.last_mut() {
                Some(last) if mark.as_char() == ':' && last == ":" => last.push(':'),
                _ => words.push(mark.to_string()),
            },
            TokenTree::Literal(_) => words.push(String::new()),
        }
    }
}

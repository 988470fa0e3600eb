//! Finds the paths that a source file names: in a `use` tree, in an expression, in a macro.
//!
//! It is not a parser of Rust. It reads the tokens of `proc-macro2`: names, `::` and braces.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The path of a module in its crate, such as `["store", "dao"]`.
pub type Module = Vec<String>;

/// The module of a file below `src`.
pub fn module_of(inner: &std::path::Path) -> Module {
    let mut module: Module = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let file = module.pop().unwrap_or_default();
    match file.trim_end_matches(".rs") {
        "mod" | "lib" | "main" => {}
        name => module.push(name.to_owned()),
    }
    module
}

/// Every path that starts with `crate`, `self` or `super`, as a path from the root of the crate.
pub fn paths_in(module: &[String], text: &str) -> Vec<Module> {
    let tokens = tokens_of(text);
    let mut found = Vec::new();
    // The path of the innermost module, and the depth of the brace of each inline module around it.
    let mut current = module.to_vec();
    let mut braces: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match (tokens[at].as_str(), tokens.get(at + 1).map(String::as_str)) {
            ("mod", Some(name)) if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                current.push(name.to_owned());
                depth += 1;
                braces.push(depth);
                at += 3;
                continue;
            }
            ("crate" | "self" | "super", Some("::")) if at == 0 || tokens[at - 1] != "::" => {
                let first = if tokens[at] == "crate" { Vec::new() } else { current.clone() };
                let next = if tokens[at] == "crate" { at + 2 } else { at };
                at = tree(&tokens, next, first, &mut found);
                continue;
            }
            // The crate itself under another name.
            ("crate", Some("as")) => found.push(Vec::new()),
            ("{", _) => depth += 1,
            ("}", _) => {
                if braces.last() == Some(&depth) {
                    braces.pop();
                    current.pop();
                }
                depth -= 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one tree of paths, which starts with `path`. Returns the index of the token after it.
fn tree(tokens: &[String], mut at: usize, mut path: Module, found: &mut Vec<Module>) -> usize {
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = if tokens[at] == "," {
                        at + 1
                    } else {
                        tree(tokens, at, path.clone(), found).max(at + 1)
                    };
                }
                return at + 1;
            }
            Some("super") => drop(path.pop()),
            Some("crate" | "self" | "*") => {}
            Some(token) if is_name(token) => path.push(token.to_owned()),
            _ => break,
        }
        at += 1;
        match tokens.get(at).map(String::as_str) {
            Some("::") => at += 1,
            // A path under another name.
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

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a text: names, braces and single punctuation marks, but `::` as one. Comments are left out, and a
/// literal is an empty text.
fn tokens_of(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    collect(text.parse().unwrap(), &mut tokens);
    tokens
}

fn collect(stream: TokenStream, tokens: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                let braces = group.delimiter() == Delimiter::Brace;
                tokens.push(if braces { "{" } else { "(" }.to_owned());
                collect(group.stream(), tokens);
                tokens.push(if braces { "}" } else { ")" }.to_owned());
            }
            TokenTree::Ident(name) => tokens.push(name.to_string()),
            TokenTree::Punct(mark) => match tokens.last_mut() {
                Some(last) if mark.as_char() == ':' && last == ":" => last.push(':'),
                _ => tokens.push(mark.to_string()),
            },
            TokenTree::Literal(_) => tokens.push(String::new()),
        }
    }
}

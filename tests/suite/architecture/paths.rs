//! The paths that a source file names, wherever they stand: in a `use` tree, in an expression, in a macro.
//!
//! Not a parser of Rust: it reads words, `::` and braces, and leaves comments and literals out.

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

/// The words, `::` and single marks of a text; without comments and literals.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw(rest)
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            let length = match rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            if !first.is_whitespace() {
                words.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    words
}

/// The length of a text in double quotes.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw text, or of the `r#` before a name.
fn raw(rest: &str) -> usize {
    let marks = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let start = 1 + marks + 1;
    if !rest[1 + marks..].starts_with('"') {
        return 1 + marks;
    }
    let end = format!("\"{}", "#".repeat(marks));
    rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
}

/// The length of a character in quotes, or of the mark before the name of a lifetime.
fn character(rest: &str) -> usize {
    let mut inner = rest[1..].chars();
    let Some(first) = inner.next() else { return 1 };
    if first == '\\' {
        return rest[3..].find('\'').map_or(rest.len(), |end| 3 + end + 1);
    }
    if inner.next() == Some('\'') { 1 + first.len_utf8() + 1 } else { 1 }
}

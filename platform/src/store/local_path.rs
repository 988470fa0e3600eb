//! The path in the URL of a store on this machine, `sqlite:PATH` and `file:DIR`: taken letter by letter, also after the
//! two slashes of other tools (`sqlite://var/x`).
//!
//! What another tool would not take letter by letter is refused, or understood: `~`, `%20`, `?mode=rwc`, a host, a
//! variable. Otherwise the server would start with a new, empty store of a strange name, and the documents would seem to be
//! lost.

use std::path::PathBuf;

const NO_PATH: &str = "it names no path";

/// The path after `SCHEME:`; the error says what to write.
pub(super) fn local_path(scheme: &str, rest: &str) -> Result<PathBuf, String> {
    let rest = without_mode(scheme, rest)?;
    let path = match rest.strip_prefix("//") {
        // `file://localhost/srv/x` (RFC 8089), and the absolute path of `file:///srv/x`.
        Some(path) => {
            let path =
                path.strip_prefix("localhost/").map_or_else(|| path.to_owned(), |path| format!("/{path}"));
            check_authority(scheme, &path)?;
            path
        }
        None => rest.to_owned(),
    };
    check(scheme, &path)?;
    Ok(PathBuf::from(path))
}

/// `?mode=rwc` is what `sqlx` needs to create a file, and what happens here anyway.
fn without_mode<'a>(scheme: &str, rest: &'a str) -> Result<&'a str, String> {
    match rest.split_once('?') {
        None => Ok(rest),
        Some((path, "mode=rwc")) if scheme == "sqlite" => Ok(path),
        Some((_, options)) if options.contains("mode=memory") => {
            Err("write memory: for a store in memory".to_owned())
        }
        Some((path, options)) => Err(format!("it takes no options ('?{options}'): write {scheme}:{path}")),
    }
}

/// What is between `//` and the next slash of a URL is a host for many tools, and part of a path for some.
fn check_authority(scheme: &str, path: &str) -> Result<(), String> {
    if path.trim_start_matches('/').is_empty() {
        return Err(NO_PATH.to_owned());
    }
    let (first, further) = path.split_once('/').unwrap_or((path, ""));
    if first.contains(['@', ':']) && path != ":memory:" {
        return Err(format!("it names a server, but {scheme}: is a path on this machine"));
    }
    if scheme == "file" && !first.is_empty() {
        return Err(format!("'{first}' is a host there: write file:{path} or file:///{path}"));
    }
    // Three slashes: the root folder for most tools, this folder for SQLAlchemy and Django.
    if first.is_empty() && !further.trim_start_matches('/').contains('/') && !further.starts_with('/') {
        return Err(format!(
            "write {scheme}:{further} for a path in this folder, {scheme}:/{further} for one in /"
        ));
    }
    Ok(())
}

fn check(scheme: &str, path: &str) -> Result<(), String> {
    let write_as =
        |what: &str| format!("{what}: the path is taken letter by letter, as {scheme}:var/my data");
    match path {
        "" => return Err(NO_PATH.to_owned()),
        ":memory:" | "memory:" => return Err("write memory: for a store in memory".to_owned()),
        _ => {}
    }
    if path.starts_with('~') {
        return Err(
            "~ is a word of the shell: write the whole path, or ./~ for a name that begins so".to_owned()
        );
    }
    if path.split('/').any(|part| part.starts_with('$')) || path.contains("${") {
        return Err("it has a variable, which nothing replaces here: write the whole path".to_owned());
    }
    if ["file:", "sqlite:", "sqlite3:"].iter().any(|other| path.starts_with(other)) {
        return Err(format!("it has two schemes: write {scheme}:PATH"));
    }
    if let Some(code) = percent_code(path) {
        return Err(write_as(&format!("'{code}' is not decoded")));
    }
    if path.contains('\\') {
        return Err("a path here has / and no \\".to_owned());
    }
    if path.chars().any(char::is_control) || path.trim() != path {
        return Err(write_as("it has a space at an end, or a control character such as the end of a line"));
    }
    if path.contains(['"', '\'']) {
        return Err(write_as("it has a quotation mark"));
    }
    if scheme == "sqlite" && path.ends_with('/') {
        return Err("it names a folder: write the path of a file".to_owned());
    }
    Ok(())
}

/// The first `%` with two hexadecimal digits behind it.
fn percent_code(path: &str) -> Option<&str> {
    path.match_indices('%').find_map(|(at, _)| {
        let code = path.get(at..at + 3)?;
        code[1..].bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_meaning_is_a_path() {
        for (scheme, rest, path) in [
            ("sqlite", "var/server.sqlite", "var/server.sqlite"),
            ("sqlite", "var/server.sqlite?mode=rwc", "var/server.sqlite"),
            ("sqlite", "//var/x?mode=rwc", "var/x"),
            ("sqlite", "///srv/x", "/srv/x"),
            ("sqlite", "////srv/x", "//srv/x"),
            ("sqlite", "//localhost/srv/x", "/srv/x"),
            ("sqlite", "/x", "/x"),
            ("sqlite", "var/my data/100%.sqlite", "var/my data/100%.sqlite"),
            ("sqlite", "var/x~", "var/x~"),
            ("sqlite", "./~x", "./~x"),
            ("sqlite", "a$b/c", "a$b/c"),
            ("sqlite", "var/ada@home:1#2.sqlite", "var/ada@home:1#2.sqlite"),
            ("file", "var/store/", "var/store/"),
            ("file", "///srv/store", "/srv/store"),
            ("file", "//localhost/srv/store", "/srv/store"),
        ] {
            assert_eq!(local_path(scheme, rest), Ok(PathBuf::from(path)), "{scheme}:{rest}");
        }
    }

    #[test]
    fn what_another_tool_would_read_in_another_way_is_refused_with_what_to_write() {
        for (url, why) in [
            ("sqlite:", "names no path"),
            ("sqlite://", "names no path"),
            ("file:///", "names no path"),
            ("sqlite:?mode=rwc", "names no path"),
            ("sqlite:x.sqlite?mode=ro", "takes no options ('?mode=ro'): write sqlite:x.sqlite"),
            ("sqlite:x.sqlite?mode=rwc&cache=shared", "takes no options"),
            ("sqlite:x?immutable=1", "takes no options"),
            ("file:x?mode=rwc", "takes no options ('?mode=rwc'): write file:x"),
            ("sqlite:x?mode=memory", "write memory:"),
            ("sqlite::memory:", "write memory:"),
            ("sqlite://:memory:", "write memory:"),
            ("sqlite:memory:", "write memory:"),
            ("file::memory:?cache=shared", "takes no options"),
            ("sqlite:~/x", "~ is a word of the shell"),
            ("sqlite:~ada/x", "~ is a word of the shell"),
            ("sqlite://~/x", "~ is a word of the shell"),
            ("file:~", "~ is a word of the shell"),
            ("sqlite:$HOME/x", "it has a variable"),
            ("sqlite:/srv/${NAME}.sqlite", "it has a variable"),
            ("sqlite:file:x.sqlite", "two schemes"),
            ("sqlite:sqlite:x", "two schemes"),
            ("sqlite:var/my%20data", "'%20' is not decoded"),
            ("file:%2Fsrv/x", "'%2F' is not decoded"),
            ("file://srv/store", "'srv' is a host there: write file:srv/store or file:///srv/store"),
            ("file://var", "'var' is a host there"),
            ("sqlite://ada:hunter2@h/db", "names a server"),
            ("sqlite://h:1/db", "names a server"),
            ("sqlite:///db.sqlite3", "write sqlite:db.sqlite3 for a path in this folder, sqlite:/db.sqlite3"),
            ("file:///store", "write file:store for a path in this folder"),
            ("sqlite:var\\x", "has / and no \\"),
            ("sqlite:x.sqlite\n", "a control character"),
            ("sqlite: x", "a space at an end"),
            ("sqlite:\"x\"", "a quotation mark"),
            ("sqlite:var/", "names a folder"),
        ] {
            let (scheme, rest) = url.split_once(':').unwrap();
            let refused = local_path(scheme, rest).unwrap_err();
            assert!(refused.contains(why), "{url}: {refused}");
        }
    }
}

//! The names of the collections that a store holds, also of those that the app does not declare. It knows no engine.

use super::Collection;

/// The names that a [`Collection`] can have, sorted: what else an engine holds is not of this program.
pub(super) fn of_collections(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().filter(|name| is_name(name)).collect();
    names.sort_unstable();
    names
}

/// Whether [`Collection::new`] takes this name.
fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && !name.starts_with("sqlite_")
        && !name.starts_with("pg_")
}

/// A collection without indexes, of a name from [`of_collections`].
///
/// Engines want a collection that lives as long as the program, and the name of one that the app does not declare is
/// known only now. So it is leaked: some 50 bytes for each collection of a store, in a command that ends soon.
pub(super) fn leaked(name: &str) -> &'static Collection {
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    Box::leak(Box::new(Collection::new(name, &[])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_a_collection_can_have() {
        let long = "a".repeat(41);
        let names =
            ["a", "a_1", &long[1..], &long, "", "1a", "_writes", "A", "a-b", "é", "sqlite_x", "pg_x", "pga"];
        for name in names {
            let taken = std::panic::catch_unwind(|| leaked(name)).is_ok();
            assert_eq!(is_name(name), taken, "{name}");
        }
        assert_eq!(of_collections(["b", "_x", "a"].map(str::to_owned)), ["a", "b"]);
    }
}

//! The SQL expressions of a field. Conditions, sorts and indexes are made of these texts, and PostgreSQL uses an index
//! only for the expressions that it was made of.
//!
//! A field is three values: the rank of its type in a sort, its number, and its text; the number of a boolean is 0 or 1.
//! An index holds them with the id, so one index serves every filter and every sort by its field.
//!
//! PostgreSQL refuses an index entry above 2,704 bytes, so an index has only the first 256 characters of a text, the
//! **key**. The key of a shorter text is the text.

use std::fmt::Write as _;

/// The ranks of types in the order of `query`.
pub(super) const NULL: u8 = 0;
pub(super) const NUMBER: u8 = 1;
pub(super) const TEXT: u8 = 2;
pub(super) const BOOL: u8 = 5;

/// The most characters of a key. With up to 4 bytes each, and an id of 1,024 bytes, an index entry is small enough.
const KEY: usize = 256;

/// The value at a path, or NULL. `->` with a text finds nothing in an array.
pub(super) fn value(path: &str) -> String {
    path.split('.').fold(String::from("fields"), |mut sql, segment| {
        let _ = write!(sql, " -> {}", literal(segment));
        sql
    })
}

/// The JSON text of the value at a path, as it was sent, or NULL when it is missing.
pub(super) fn json(path: &str) -> String {
    let value = path.split('.').fold(String::from("body::json"), |mut sql, segment| {
        let _ = write!(sql, " -> {}", literal(segment));
        sql
    });
    format!("({value})::text")
}

/// The rank of the type.
pub(super) fn rank(path: &str) -> String {
    format!(
        "CASE jsonb_typeof({}) WHEN 'number' THEN 1 WHEN 'string' THEN 2 WHEN 'object' THEN 3 WHEN 'array' THEN 4 \
         WHEN 'boolean' THEN 5 ELSE 0 END",
        value(path)
    )
}

/// The number, or NULL. An integer above 2⁶³−1 counts as the nearest float, a multiple of 2,048.
pub(super) fn number(path: &str) -> String {
    number_of(&value(path))
}

/// The number of a value of JSON.
pub(super) fn number_of(value: &str) -> String {
    format!(
        "CASE jsonb_typeof({value}) WHEN 'number' THEN CASE \
         WHEN ({value})::numeric BETWEEN 9223372036854775808 AND 18446744073709551615 \
         THEN (({value})::numeric::float8 / 2048)::bigint::numeric * 2048 ELSE ({value})::numeric END \
         WHEN 'boolean' THEN ({value})::boolean::integer::numeric END"
    )
}

/// The text, or NULL, compared bytewise.
pub(super) fn text(path: &str) -> String {
    let (value, text) = (value(path), unquoted(path));
    format!("(CASE jsonb_typeof({value}) WHEN 'string' THEN {text} END COLLATE \"C\")")
}

/// The key of the text, or NULL, compared bytewise.
pub(super) fn key(path: &str) -> String {
    let (value, text) = (value(path), unquoted(path));
    format!("(CASE jsonb_typeof({value}) WHEN 'string' THEN left({text}, {KEY}) END COLLATE \"C\")")
}

/// The SHA-256 of the text, or NULL. A text becomes bytes by the format `escape`, in which only the backslash needs an
/// escape: `convert_to` is not immutable, as an index needs it.
pub(super) fn digest(path: &str) -> String {
    let (value, text) = (value(path), unquoted(path));
    format!(
        "CASE jsonb_typeof({value}) WHEN 'string' THEN \
         sha256(decode(replace({text} COLLATE \"C\", chr(92), repeat(chr(92), 2)), 'escape')) END"
    )
}

/// Whether the key may be shorter than the text; never NULL.
pub(super) fn is_cut(path: &str) -> String {
    format!("coalesce(length({}) >= {KEY}, FALSE)", text(path))
}

/// The key of an operand, if it may be shorter than the operand.
pub(super) fn cut(operand: &str) -> Option<&str> {
    let mut characters = operand.char_indices();
    characters.nth(KEY - 1).map(|_| characters.next().map_or(operand, |(end, _)| &operand[..end]))
}

/// The last step as a text without quotes.
fn unquoted(path: &str) -> String {
    let (parents, last) =
        path.rsplit_once('.').map_or(("fields".to_owned(), path), |(parents, last)| (value(parents), last));
    format!("({parents} ->> {})", literal(last))
}

/// A text as an SQL literal. A path has no backslash.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_its_quotes() {
        assert_eq!(value("a.b"), "fields -> 'a' -> 'b'");
        assert_eq!(value("x' OR '1"), "fields -> 'x'' OR ''1'");
    }

    #[test]
    fn an_operand_is_cut_at_a_character() {
        assert_eq!(cut(&"é".repeat(255)), None);
        assert_eq!(cut(&"é".repeat(256)), Some(&*"é".repeat(256)));
        assert_eq!(cut(&"é".repeat(257)), Some(&*"é".repeat(256)));
    }
}

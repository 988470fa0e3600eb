//! The SQL expressions of a field.
//!
//! A field is two expressions: the rank of its type in a sort, and its value if that is a scalar. A condition tests the
//! rank and compares the value, a sort orders by both, and an index holds both and the id. So one index serves every
//! filter and every sort by its field. SQLite uses the index only if an expression has exactly the text that the index
//! was made of, so [`rank`] and [`value`] are the only sources of these texts.

use std::fmt::Write as _;

use super::super::query::Scalar;

/// The ranks of types in the order of `query`.
pub(super) const NULL: u8 = 0;
pub(super) const NUMBER: u8 = 1;
pub(super) const TEXT: u8 = 2;
pub(super) const ARRAY: u8 = 4;
pub(super) const BOOL: u8 = 5;

/// The path as an SQL literal, such as `'$."address"."city"'`. With a parameter, SQLite could not use the index.
pub(super) fn json_path(path: &str) -> String {
    let mut text = String::from("'$");
    for segment in path.split('.') {
        let _ = write!(text, ".{}", serde_json::Value::from(segment).to_string().replace('\'', "''"));
    }
    text + "'"
}

/// The rank of a field's type in a sort.
pub(super) fn rank(path: &str) -> String {
    format!(
        "CASE json_type(body, {}) WHEN 'integer' THEN 1 WHEN 'real' THEN 1 WHEN 'text' THEN 2 WHEN 'object' THEN 3 \
         WHEN 'array' THEN 4 WHEN 'true' THEN 5 WHEN 'false' THEN 5 ELSE 0 END",
        json_path(path)
    )
}

/// The value of a field if it is a scalar, else NULL.
pub(super) fn value(path: &str) -> String {
    let path = json_path(path);
    format!(
        "CASE WHEN json_type(body, {path}) IN ('object', 'array') THEN NULL ELSE json_extract(body, {path}) END"
    )
}

/// The JSON text of a field, as it was sent, or NULL when it is missing.
pub(super) fn text(path: &str) -> String {
    format!("body -> {}", json_path(path))
}

/// The rank of an operand.
pub(super) fn rank_of(scalar: &Scalar) -> u8 {
    match scalar {
        Scalar::Null => NULL,
        Scalar::Int(_) | Scalar::Float(_) => NUMBER,
        Scalar::Text(_) => TEXT,
        Scalar::Bool(_) => BOOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_end_its_quotes() {
        assert_eq!(json_path("a.b"), r#"'$."a"."b"'"#);
        assert_eq!(json_path(r#"x' OR "1"#), r#"'$."x'' OR \"1"'"#);
    }
}

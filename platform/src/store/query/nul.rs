//! NUL (U+0000) in a query. No stored id or text holds it (`document::check`), since PostgreSQL can neither keep it nor
//! take it as a parameter. So the DAO replaces an operand with NUL by one without it that has the same meaning.

use super::filter::{Bound, Filter, Predicate};
use super::scalar::Scalar;

impl Filter {
    /// A filter without NUL that matches the same documents.
    pub(in super::super) fn without_nul(self) -> Self {
        match self {
            Self::Ids(mut ids) => {
                ids.retain(|id| !id.contains('\0'));
                Self::Ids(ids)
            }
            Self::After(id) => Self::After(before_nul(&id).map_or(id.clone(), str::to_owned)),
            Self::Field(path, predicate) => Self::Field(path, predicate.without_nul()),
            Self::And(filters) => Self::And(filters.into_iter().map(Self::without_nul).collect()),
            Self::Or(filters) => Self::Or(filters.into_iter().map(Self::without_nul).collect()),
            Self::Not(filter) => Self::Not(Box::new(filter.without_nul())),
            Self::All => Self::All,
        }
    }
}

impl Predicate {
    fn without_nul(self) -> Self {
        match self {
            Self::In(mut values) => {
                values.retain(|value| !matches!(value, Scalar::Text(text) if text.contains('\0')));
                Self::In(values)
            }
            Self::StartsWith(prefix) if prefix.contains('\0') => Self::In(Vec::new()),
            Self::Contains(needle) if needle.text().contains('\0') => Self::In(Vec::new()),
            Self::Has(Scalar::Text(text)) if text.contains('\0') => Self::In(Vec::new()),
            // NUL is the least character. So a text without NUL is less than `a\0b` when it is less than or equal to
            // `a`, and else greater.
            Self::Below(Scalar::Text(text), bound) => match before_nul(&text) {
                Some(start) => Self::Below(start.into(), Bound::Included),
                None => Self::Below(Scalar::Text(text), bound),
            },
            Self::Above(Scalar::Text(text), bound) => match before_nul(&text) {
                Some(start) => Self::Above(start.into(), Bound::Excluded),
                None => Self::Above(Scalar::Text(text), bound),
            },
            Self::Below(..)
            | Self::Above(..)
            | Self::Exists
            | Self::StartsWith(_)
            | Self::Contains(_)
            | Self::Has(_)
            | Self::Type(_) => self,
        }
    }
}

/// The text before the first NUL, when there is one.
fn before_nul(text: &str) -> Option<&str> {
    text.split_once('\0').map(|(start, _)| start)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::super::Document;
    use super::super::field;
    use super::*;

    #[test]
    fn a_filter_without_nul_means_the_same() {
        let texts = ["", "a", "a\u{1}", "ab", "b", "\u{1}", "nul"];
        let with_nul = ["\0", "a\0", "a\0b", "\0\0", "nul\0"];
        for operand in with_nul {
            for filter in [
                field("a").eq(operand),
                field("a").ne(operand),
                field("a").is_in([operand, "b"]),
                field("a").lt(operand),
                field("a").lte(operand),
                field("a").gt(operand),
                field("a").gte(operand),
                field("a").starts_with(operand),
                field("a").contains(operand),
                field("a").contains_ignoring_case(operand),
                field("a").has(operand),
                !field("a").starts_with(operand),
                Filter::id(operand),
                !Filter::Ids(vec![operand.to_owned(), "b".to_owned()]),
                Filter::After(operand.to_owned()),
                Filter::After(operand.to_owned()).and(field("a").lt(operand)).or(Filter::id("b")),
            ] {
                let replaced = filter.clone().without_nul();
                assert!(!format!("{replaced:?}").contains(r"\0"), "{replaced:?}");
                for text in texts {
                    let fields = Arc::new(serde_json::from_value(json!({ "a": text })).unwrap());
                    let document = Document { id: text.to_owned(), version: 1, token: 0, fields };
                    assert_eq!(replaced.matches(&document), filter.matches(&document), "{text:?} {filter:?}");
                }
            }
        }
        // The control: a filter without NUL stays as it is.
        let plain = field("a").lt("b").and(Filter::id("x")).or(!Filter::After("x".to_owned()));
        assert_eq!(plain.clone().without_nul(), plain);
    }
}

//! Equality as a key: two values are equal if and only if their keys are.

use serde_json::{Number, Value};

use super::super::Fields;
use super::sort_key::lookup;

/// The key of a value that can be equal to another one. Its order is of no meaning: it only has to be the same for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) enum ValueKey {
    Bool(bool),
    /// A whole number in the range of `i64`, of whatever type.
    Int(i64),
    /// The bits of any other number.
    Float(u64),
    Text(String),
}

impl ValueKey {
    /// The key of the value at a path; `None` for what equals nothing but itself: null, a missing field, an object, an
    /// array.
    pub(in super::super) fn at(fields: &Fields, path: &str) -> Option<Self> {
        match lookup(fields, path)? {
            Value::Null | Value::Object(_) | Value::Array(_) => None,
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(number) => Some(Self::of_number(number)),
            Value::String(text) => Some(Self::Text(text.clone())),
        }
    }

    fn of_number(number: &Number) -> Self {
        if let Some(integer) = number.as_i64() {
            return Self::Int(integer);
        }
        // An integer above 2⁶³−1 counts as the nearest float.
        let float = number.as_f64().unwrap_or_default();
        whole(float).map_or(Self::Float(float.to_bits()), Self::Int)
    }
}

/// A float as an integer, where it is a whole number in range.
pub(super) fn whole(float: f64) -> Option<i64> {
    /// 2⁶³: the first float above every `i64`.
    const ABOVE: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number from -2^63 to below 2^63 is an i64")]
    let integer = float as i64;
    ((-ABOVE..ABOVE).contains(&float) && float.fract() == 0.0).then_some(integer)
}

#[cfg(test)]
mod tests {
    use super::super::sort_key::SortKey;
    use super::*;
    use serde_json::json;
    use std::cmp::Ordering;

    #[test]
    fn two_values_have_the_same_key_exactly_when_a_filter_finds_them_equal() {
        let values = [
            json!(null),
            json!({}),
            json!([]),
            json!(false),
            json!(true),
            json!(0),
            json!(-0.0),
            json!(1),
            json!(1.0),
            json!(1.5),
            json!("1"),
            json!(""),
            json!("é"),
            json!("e\u{301}"),
            json!(9_007_199_254_740_992_i64),
            json!(9_007_199_254_740_992.0),
            json!(9_007_199_254_740_993_i64),
            json!(i64::MAX),
            json!(9_223_372_036_854_775_807_u64),
            json!(9_223_372_036_854_775_808_u64),
            json!(9_223_372_036_854_775_808.0),
            json!(9_223_372_036_854_775_809_u64),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(-9_223_372_036_854_775_808.0),
            json!(1e300),
            json!(-1e300),
            json!(5e-324),
        ];
        let fields = |value: &Value| -> Fields { [("a".to_owned(), value.clone())].into_iter().collect() };
        let mut equal = 0;
        for left in &values {
            for right in &values {
                let keys = [left, right].map(|value| ValueKey::at(&fields(value), "a"));
                let same = keys[0].is_some() && keys[0] == keys[1];
                let scalar = !left.is_null() && !left.is_object() && !left.is_array();
                let order = SortKey::of(Some(left)).compare(&SortKey::of(Some(right)));
                assert_eq!(same, scalar && order == Some(Ordering::Equal), "{left} {right}");
                equal += usize::from(same && left != right);
            }
        }
        assert!(equal > 10, "{equal}");
        assert_eq!(ValueKey::at(&fields(&json!({"b": [{"c": 1}]})), "a.b.c"), None);
    }
}

//! What a query means, by examples.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn document(id: &str, fields: Value) -> Document {
    Document {
        id: id.to_owned(),
        version: 1,
        token: 0,
        fields: Arc::new(serde_json::from_value(fields).unwrap()),
    }
}

fn holds(filter: Filter, fields: Value) -> bool {
    filter.check().unwrap();
    filter.matches(&document("x", fields))
}

#[test]
fn a_path_goes_through_objects_only() {
    let fields = json!({"a": {"b": [1, 2], "0": "zero"}, "a.b": "dotted"});
    assert!(holds(field("a.0").eq("zero"), fields.clone()));
    assert!(!holds(field("a.b.0").exists(), fields.clone()));
    assert!(!holds(field("a.b").eq("dotted"), fields.clone()));
    assert!(!holds(field("a.b").eq(1), fields));
}

#[test]
fn an_invalid_path_is_refused() {
    for path in ["", ".", "a.", ".a", "a..b", "$a", "a.$b", "a\"b", "a\\b", "a\0", &"a".repeat(MAX_PATH + 1)]
    {
        assert_eq!(field(path).eq(1).check().unwrap_err().reason(), "Invalid Field Path", "{path:?}");
        assert!(Sort::by(path, Direction::Ascending).check().is_err());
    }
    for path in ["a", "a.b", "a$", "pin code", "größe", "0", "a'b", "a-b_c"] {
        field(path).eq(1).check().unwrap();
    }
}

#[test]
fn null_and_missing_are_equal_and_exists_distinguishes_them() {
    for fields in [json!({"a": null}), json!({}), json!({"a": {"c": 1}})] {
        assert!(holds(field("a.b").eq(None::<i64>), fields.clone()));
        assert!(holds(field("a.b").ne(1), fields.clone()));
        assert!(!holds(field("a.b").lt(1), fields));
    }
    assert!(holds(field("a").exists(), json!({"a": null})));
    assert!(!holds(field("a").exists(), json!({})));
}

#[test]
fn a_comparison_is_true_only_within_one_type() {
    assert!(!holds(field("a").eq(1), json!({"a": "1"})));
    assert!(!holds(field("a").eq(1), json!({"a": true})));
    assert!(!holds(field("a").eq(true), json!({"a": 1})));
    assert!(!holds(field("a").gt(0), json!({"a": "5"})));
    assert!(!holds(field("a").gte(""), json!({"a": [1]})));
    assert!(holds(field("a").gt(false), json!({"a": true})));
    assert!(holds(field("a").lt("b"), json!({"a": "B"})));
    assert!(holds(field("a").starts_with("é"), json!({"a": "été"})));
    assert!(!holds(field("a").starts_with("e"), json!({"a": "été"})));
}

#[test]
fn integers_and_floats_are_compared_without_rounding() {
    const EXACT: i64 = 1 << 53;
    assert!(holds(field("a").eq(1.0), json!({"a": 1})));
    assert!(holds(field("a").eq(0), json!({"a": -0.0})));
    // As a float, 2^53 + 1 would be 2^53.
    assert!(holds(field("a").gt(9_007_199_254_740_992.0), json!({"a": EXACT + 1})));
    assert!(!holds(field("a").eq(EXACT + 1), json!({"a": 9_007_199_254_740_992.0_f64})));
    assert!(holds(field("a").lt(9_223_372_036_854_775_808.0), json!({"a": i64::MAX})));
    assert!(holds(field("a").gte(-9_223_372_036_854_775_808.0), json!({"a": i64::MIN})));
    assert!(holds(field("a").gt(i64::MAX), json!({"a": u64::MAX})));
    assert!(holds(field("a").lt(-1), json!({"a": -1.5})));
    assert!(holds(field("a").gt(-2), json!({"a": -1.5})));
}

#[test]
fn a_value_becomes_an_operand_only_when_it_is_a_scalar() {
    assert_eq!(Scalar::try_from(json!(5)).unwrap(), Scalar::Int(5));
    assert_eq!(Scalar::try_from(json!(0.5)).unwrap(), Scalar::Float(0.5));
    for value in [json!({"$ne": null}), json!([1]), json!(u64::MAX)] {
        assert_eq!(Scalar::try_from(value).unwrap_err().status(), 400);
    }
    assert!(field("a").eq(f64::NAN).check().is_err());
    let name = "Ada".to_owned();
    assert_eq!((Scalar::from(&name), Scalar::from(7_u64)), (Scalar::Text(name), Scalar::Int(7)));
}

#[test]
fn an_unsigned_operand_is_compared_as_a_stored_number_is() {
    const ABOVE: u64 = 1 << 63;
    for value in [0, ABOVE - 1, ABOVE, u64::MAX] {
        assert!(holds(field("a").eq(value), json!({"a": value})));
    }
    assert!(!holds(field("a").eq(ABOVE - 1), json!({"a": ABOVE - 2})));
    assert!(holds(field("a").gt(ABOVE - 1), json!({"a": ABOVE})));
    // Above 2^63 - 1, both are the nearest float.
    assert!(holds(field("a").eq(ABOVE), json!({"a": ABOVE + 1})));
}

#[test]
fn a_sort_takes_its_direction_as_a_value() {
    let documents =
        [json!({"a": 1}), json!({"a": 2})].map(|fields| document(&fields["a"].to_string(), fields));
    for (direction, first) in [(Direction::Ascending, "1"), (Direction::Descending, "2")] {
        let query = Query { filter: Filter::All, sort: Sort::by("a", direction), page: Page::first(1) };
        assert_eq!(select(documents.iter(), &query)[0].id, first);
    }
}

#[test]
fn a_filter_has_limits() {
    let deep = (0..MAX_DEPTH).fold(field("a").eq(1), |filter, _| !filter);
    let wide = Filter::Or((0..MAX_NODES).map(|_| field("a").eq(1)).collect());
    let long = field("a").is_in(0..=10_000);
    // The server has built them: no fault of a client.
    for (filter, cause) in [(deep, "32 levels"), (wide, "257 conditions"), (long, "10001 ids and values")] {
        let error = filter.check().unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Internal);
        assert!(error.cause().contains(cause), "{}", error.cause());
    }
}

#[test]
fn a_sort_goes_by_type_then_value_then_id() {
    let values = [
        json!({}),
        json!({"a": null}),
        json!({"a": -1}),
        json!({"a": 0.5}),
        json!({"a": u64::MAX}),
        json!({"a": ""}),
        json!({"a": "B"}),
        json!({"a": "a"}),
        json!({"a": {"z": 1}}),
        json!({"a": {"a": 1}}),
        json!({"a": [2]}),
        json!({"a": [1]}),
        json!({"a": false}),
        json!({"a": true}),
    ];
    let in_order: Vec<_> =
        values.into_iter().enumerate().map(|(n, fields)| document(&format!("{n:02}"), fields)).collect();
    let sort = Sort::by("a", Direction::Ascending);
    let query = Query { filter: Filter::All, sort, page: Page::all() };
    let sorted = select(in_order.iter().rev(), &query);
    assert!(sorted.into_iter().eq(in_order.iter()));
}

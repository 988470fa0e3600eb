//! Filters, sorts and pages over documents of all shapes, with results written by hand. `model` compares far more of
//! them with the store in memory.

use std::sync::Arc;

use platform::store::Direction::{self, Ascending, Descending};
use platform::store::query::{MAX_NEEDLE, MAX_NODES, MAX_OPERANDS, Type};
use platform::store::{DocumentStore, Filter, Page, Sort, field};
use serde_json::{Value, json};

use super::{anything, things};

/// Stores documents with the ids `00`, `01` and so on.
pub(super) async fn insert_all(store: &Arc<dyn DocumentStore>, values: impl IntoIterator<Item = Value>) {
    for (n, value) in values.into_iter().enumerate() {
        things(store).insert_with_id(&format!("{n:02}"), &anything(value)).await.unwrap();
    }
}

async fn ids(store: &Arc<dyn DocumentStore>, filter: Filter) -> String {
    sorted(store, filter, Sort::by_id()).await
}

async fn sorted(store: &Arc<dyn DocumentStore>, filter: Filter, sort: Sort) -> String {
    let found = things(store).get_all_sorted(filter.clone(), sort).await.unwrap();
    assert_eq!(things(store).count(filter).await.unwrap(), found.len() as u64);
    found.into_iter().map(|stored| stored.id).collect::<Vec<_>>().join(" ")
}

pub(super) fn one_of_each() -> [Value; 14] {
    [
        json!({}),
        json!({"a": null}),
        json!({"a": -1}),
        json!({"a": 0.5}),
        json!({"a": 1}),
        json!({"a": u64::MAX}),
        json!({"a": ""}),
        json!({"a": "1"}),
        json!({"a": "true"}),
        json!({"a": {"x": 1}}),
        json!({"a": {}}),
        json!({"a": [1]}),
        json!({"a": false}),
        json!({"a": true}),
    ]
}

pub(super) async fn a_sort_over_mixed_types_is_the_same_everywhere(store: Arc<dyn DocumentStore>) {
    insert_all(&store, one_of_each()).await;
    for path in ["a", "a.x"] {
        let sort = |direction: Direction| Sort::by(path, direction);
        let up = sorted(&store, Filter::all(), sort(Ascending)).await;
        let down = sorted(&store, Filter::all(), sort(Descending)).await;
        if path == "a" {
            assert_eq!(up, "00 01 02 03 04 05 06 07 08 09 10 11 12 13");
            assert_eq!(down, "13 12 11 09 10 08 07 06 05 04 03 02 00 01");
        } else {
            assert_eq!(up, "00 01 02 03 04 05 06 07 08 10 11 12 13 09");
            assert_eq!(down, "09 00 01 02 03 04 05 06 07 08 10 11 12 13");
        }
    }
}

pub(super) async fn a_filter_over_mixed_types_is_the_same_everywhere(store: Arc<dyn DocumentStore>) {
    insert_all(&store, one_of_each()).await;
    for (filter, expected) in [
        (field("a").eq(1), "04"),
        (field("a").eq("1"), "07"),
        (field("a").eq(true), "13"),
        (field("a").eq("true"), "08"),
        (field("a").ne(1), "00 01 02 03 05 06 07 08 09 10 11 12 13"),
        (field("a").gt(0), "03 04 05"),
        (field("a").lte(0.5), "02 03"),
        (field("a").gte(""), "06 07 08"),
        (field("a").lt("1"), "06"),
        (field("a").lt(true), "12"),
        (field("a").gte(false), "12 13"),
        (field("a").is_in([1, 2, -1]), "02 04"),
        (field("a").is_in(Vec::<i64>::new()), ""),
        (!field("a").is_in(Vec::<i64>::new()), "00 01 02 03 04 05 06 07 08 09 10 11 12 13"),
        (field("a").starts_with(""), "06 07 08"),
        (field("a").starts_with("t"), "08"),
        (!field("a").gt(0), "00 01 02 06 07 08 09 10 11 12 13"),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(super) async fn an_element_of_an_array_is_found(store: Arc<dyn DocumentStore>) {
    let values = [
        json!({"a": ["bug", "ui", 1, null, true]}),
        json!({"a": [1.0, ["bug"], {"x": "bug"}, u64::MAX]}),
        json!({"a": "bug"}),
        json!({"a": {"x": "bug", "0": 1}}),
        json!({"a": []}),
        json!({}),
        json!({"a": [false, 9_007_199_254_740_993_i64]}),
    ];
    insert_all(&store, values).await;
    for (filter, expected) in [
        (field("a").has("bug"), "00"),
        (field("a").has("BUG"), ""),
        (field("a").has(1), "00 01"),
        (field("a").has(1.0), "00 01"),
        (field("a").has("1"), ""),
        (field("a").has(true), "00"),
        (field("a").has(false), "06"),
        (field("a").has(None::<i64>), "00"),
        (field("a").has(18_446_744_073_709_551_615.0), "01"),
        (field("a").has(9_007_199_254_740_992_i64), ""),
        (field("a").has(9_007_199_254_740_993_i64), "06"),
        (field("a").has("bug\0"), ""),
        (!field("a").has(1), "02 03 04 05 06"),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(super) async fn a_text_is_found_in_another(store: Arc<dyn DocumentStore>) {
    let values = [
        json!({"a": "Rust in Action"}),
        json!({"a": "trust"}),
        json!({"a": ["rust"]}),
        json!({"a": "100 % *sure* [a-z] \\d \"q\" ^$ (x|y) {1}"}),
        json!({"a": "CAFÉ\nΛΌΓΟΣ"}),
        json!({"a": 1}),
        json!({"a": ""}),
        json!({"a": "😀 it's 😀"}),
    ];
    insert_all(&store, values).await;
    for (text, exact, ignoring_case) in [
        ("rust", "01", "00 01"),
        ("Rust", "00", "00 01"),
        ("", "00 01 03 04 06 07", "00 01 03 04 06 07"),
        ("%", "03", "03"),
        ("*", "03", "03"),
        ("_", "", ""),
        ("?", "", ""),
        ("[a-z]", "03", "03"),
        ("\\d \"q\" ^$ (X|y) {1}", "", "03"),
        ("café", "", "04"),
        ("É\n", "04", "04"),
        ("λόγος", "", "04"),
        ("IT'S 😀", "", "07"),
        ("it's 😀", "07", "07"),
        ("t\0", "", ""),
    ] {
        assert_eq!(ids(&store, field("a").contains(text)).await, exact, "{text}");
        assert_eq!(ids(&store, field("a").contains_ignoring_case(text)).await, ignoring_case, "{text}");
    }
    let longest = "éÉkKſ*[\\]abcd".repeat(MAX_NEEDLE / 16);
    assert_eq!(longest.len(), MAX_NEEDLE);
    assert_eq!(ids(&store, field("a").contains_ignoring_case(&longest)).await, "");
    let error = things(&store).count(field("a").contains(format!("{longest}x"))).await.unwrap_err();
    assert_eq!(error.reason(), "Text To Find Too Long");
}

pub(super) async fn documents_are_found_by_the_type_of_a_value(store: Arc<dyn DocumentStore>) {
    insert_all(&store, one_of_each()).await;
    for (types, expected) in [
        (vec![Type::Null], "00 01"),
        (vec![Type::Number], "02 03 04 05"),
        (vec![Type::Text, Type::Bool], "06 07 08 12 13"),
        (vec![Type::Object], "09 10"),
        (vec![Type::Array], "11"),
        (vec![], ""),
    ] {
        assert_eq!(ids(&store, field("a").is_of(types.clone())).await, expected, "{types:?}");
    }
}

pub(super) async fn numbers_are_compared_exactly(store: Arc<dyn DocumentStore>) {
    const EXACT: i64 = 1 << 53;
    let values = [
        json!(EXACT),
        json!(EXACT + 1),
        json!(9_007_199_254_740_992.0_f64),
        json!(i64::MAX),
        json!(9_223_372_036_854_775_808.0_f64),
        json!(i64::MIN),
        json!(-0.0),
        json!(0),
        json!(0.1),
        json!(u64::MAX),
        json!(1.234_567_890_123_456_7e-300),
        json!(1e300),
    ];
    insert_all(&store, values.map(|number| json!({ "a": number }))).await;
    for (filter, expected) in [
        (field("a").eq(EXACT), "00 02"),
        (field("a").eq(EXACT + 1), "01"),
        (field("a").eq(9_007_199_254_740_992.0), "00 02"),
        (field("a").gt(9_007_199_254_740_992.0).and(field("a").lt(1e17)), "01"),
        (field("a").eq(i64::MAX), "03"),
        (field("a").lt(9_223_372_036_854_775_808.0).and(field("a").gte(i64::MAX)), "03"),
        (field("a").gt(i64::MAX), "04 09 11"),
        (field("a").lte(i64::MIN), "05"),
        (field("a").eq(-9_223_372_036_854_775_808.0), "05"),
        (field("a").eq(0), "06 07"),
        (field("a").eq(-0.0), "06 07"),
        (field("a").eq(0.1), "08"),
        (field("a").eq(1.234_567_890_123_456_7e-300), "10"),
        (field("a").gte(1e300), "11"),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
    let all = sorted(&store, Filter::all(), Sort::by("a", Ascending)).await;
    assert_eq!(all, "05 06 07 10 08 00 02 01 03 04 09 11");
}

pub(super) async fn an_integer_above_the_range_of_64_bits_with_sign_counts_as_the_nearest_float(
    store: Arc<dyn DocumentStore>,
) {
    const ABOVE: u64 = 1 << 63;
    // Floats are 2,048 apart there. The last bit of the nearest one is 0 in the middle between two.
    let values = [u64::MAX, u64::MAX - 1, ABOVE, ABOVE + 1024, ABOVE + 1025, ABOVE + 2048, ABOVE + 3072];
    insert_all(&store, values.map(|number| json!({ "a": number }))).await;
    for (filter, expected) in [
        (field("a").eq(18_446_744_073_709_551_616.0), "00 01"),
        (field("a").eq(ABOVE), "02 03"),
        (field("a").eq(9_223_372_036_854_775_808.0), "02 03"),
        (field("a").eq(9_223_372_036_854_777_856.0), "04 05"),
        (field("a").gt(9_223_372_036_854_777_856.0), "00 01 06"),
        (field("a").lt(i64::MAX), ""),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
    let all = sorted(&store, Filter::all(), Sort::by("a", Ascending)).await;
    assert_eq!(all, "02 03 04 05 06 00 01");
}

pub(super) async fn null_missing_and_present_are_distinct(store: Arc<dyn DocumentStore>) {
    insert_all(
        &store,
        [json!({}), json!({"a": null}), json!({"a": {"b": null}}), json!({"a": {"b": 0}}), json!({"a": [0]})],
    )
    .await;
    let null = None::<i64>;
    for (filter, expected) in [
        (field("a").eq(null), "00 01"),
        (field("a").ne(null), "02 03 04"),
        (field("a").exists(), "01 02 03 04"),
        (field("a.b").eq(null), "00 01 02 04"),
        (field("a.b").exists(), "02 03"),
        (!field("a.b").exists(), "00 01 04"),
        (field("a.0").exists(), ""),
        (field("a").lte(null), "00 01"),
        (field("a").lt(null), ""),
        (field("a").is_in([Some(1), None]), "00 01"),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(super) async fn texts_are_compared_bytewise(store: Arc<dyn DocumentStore>) {
    let texts = ["B", "a", "a\u{1}", "ab", "é", "e\u{301}", "\u{ffff}", "😀", "'; --", "%_", "\u{10ffff}x"];
    insert_all(&store, texts.map(|text| json!({ "a": text }))).await;
    for (filter, expected) in [
        (field("a").eq("é"), "04"),
        (field("a").eq("a\u{1}"), "02"),
        (field("a").eq("A"), ""),
        (field("a").starts_with("a"), "01 02 03"),
        (field("a").starts_with("%"), "09"),
        (field("a").starts_with("\u{10ffff}"), "10"),
        (field("a").starts_with("e"), "05"),
        (field("a").lt("a"), "00 08 09"),
        (field("a").eq("'; --"), "08"),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
    let all = sorted(&store, Filter::all(), Sort::by("a", Ascending)).await;
    assert_eq!(all, "09 08 00 01 02 03 05 04 06 07 10");
}

pub(super) async fn an_operand_with_nul_is_compared_as_any_other(store: Arc<dyn DocumentStore>) {
    insert_all(&store, ["", "a", "a\u{1}", "b"].map(|text| json!({ "a": text }))).await;
    for (filter, expected) in [
        (field("a").eq("a\0"), ""),
        (field("a").ne("a\0"), "00 01 02 03"),
        (field("a").is_in(["a\0", "b"]), "03"),
        (field("a").lt("a\0"), "00 01"),
        (field("a").gte("a\0"), "02 03"),
        (field("a").starts_with("a\0"), ""),
        (field("a").starts_with("\0"), ""),
        (Filter::id("00\0"), ""),
        (!Filter::id("00\0"), "00 01 02 03"),
        (Filter::After("01\0".into()), "02 03"),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(super) async fn filters_can_be_combined(store: Arc<dyn DocumentStore>) {
    insert_all(&store, (0..6).map(|n| json!({"a": n % 2, "b": {"c": n % 3}}))).await;
    for (filter, expected) in [
        (field("a").eq(0).and(field("b.c").eq(0)), "00"),
        (field("a").eq(0).or(field("b.c").eq(0)), "00 02 03 04"),
        ((!field("a").eq(0)).or(field("b.c").eq(0)), "00 01 03 05"),
        (!(field("a").eq(0).or(field("b.c").eq(0))), "01 05"),
        (Filter::all().and(field("a").eq(1)), "01 03 05"),
        (Filter::id("03").and(field("a").eq(1)), "03"),
        (Filter::id("03").and(field("a").eq(0)), ""),
        (Filter::id("03").or(Filter::id("01")), "01 03"),
        (Filter::Ids(vec!["05".into(), "01".into(), "05".into()]), "01 05"),
        (!Filter::Ids(vec!["05".into(), "01".into()]), "00 02 03 04"),
        (Filter::After("02".into()).and(field("a").eq(1)), "03 05"),
        (Filter::And(vec![]), "00 01 02 03 04 05"),
        (Filter::Or(vec![]), ""),
        (!Filter::all(), ""),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(super) async fn a_page_beyond_the_end_is_empty(store: Arc<dyn DocumentStore>) {
    insert_all(&store, (0..5).map(|n| json!({"a": -n}))).await;
    for (sort, all) in [
        (Sort::by_id(), ["00", "01", "02", "03", "04"]),
        (Sort::by("a", Ascending), ["04", "03", "02", "01", "00"]),
    ] {
        for (offset, limit) in
            [(0, Some(0)), (0, Some(2)), (3, Some(9)), (4, None), (5, None), (u64::MAX, Some(u64::MAX))]
        {
            let listing =
                things(&store).page(Filter::all(), sort.clone(), Page { offset, limit }).await.unwrap();
            let start = usize::try_from(offset).unwrap().min(5);
            let end = limit.map_or(5, |limit| start.saturating_add(usize::try_from(limit).unwrap()).min(5));
            let ids: Vec<_> = listing.items.iter().map(|stored| stored.id.as_str()).collect();
            assert_eq!(ids, all[start..end]);
            assert_eq!(listing.total, 5);
        }
    }
}

pub(super) async fn a_path_may_have_any_letters_that_are_allowed(store: Arc<dyn DocumentStore>) {
    for path in
        ["pin code", "größe", "a'b", "0", "a$", "[0]", "#-1", "*", "a-b", "x' OR '1'='1", "select", "😀"]
    {
        let dao = things(&store);
        dao.delete_all(Filter::all()).await.unwrap();
        dao.insert(&anything(json!({"z": 0, path: {path: 7}}))).await.unwrap();
        dao.insert(&anything(json!({"z": 0, "other": 7}))).await.unwrap();
        let nested = format!("{path}.{path}");
        assert_eq!(dao.count(field(&nested).eq(7)).await.unwrap(), 1, "{path}");
        let listing = dao.get_all_sorted(Filter::all(), Sort::by(nested, Descending)).await.unwrap();
        assert!(listing[0].value.0.contains_key(path), "{path}");
    }
}

pub(super) async fn a_text_that_looks_like_a_query_is_a_text(store: Arc<dyn DocumentStore>) {
    insert_all(&store, [json!({"a": "x"}), json!({"a": "{\"$ne\": null}"}), json!({"a": "' OR 1=1 --"})])
        .await;
    assert_eq!(ids(&store, field("a").eq("{\"$ne\": null}")).await, "01");
    assert_eq!(ids(&store, field("a").eq("' OR 1=1 --")).await, "02");
    assert_eq!(ids(&store, Filter::id("' OR 1=1 --")).await, "");
}

pub(super) async fn a_query_beyond_a_limit_is_refused(store: Arc<dyn DocumentStore>) {
    let dao = things(&store);
    let deep = (0..100).fold(field("a").eq(1), |filter, _| !filter);
    let long = field("a").is_in(0..=10_000);
    for (filter, status) in [
        // The server's code makes a filter so large: a client can do nothing about it.
        (deep, 500),
        (long, 500),
        (field("a..b").eq(1), 400),
        (field("a").eq(f64::INFINITY), 400),
        (field("").exists(), 400),
    ] {
        assert_eq!(dao.get_all(filter.clone()).await.unwrap_err().status(), status);
        assert_eq!(dao.count(filter.clone()).await.unwrap_err().status(), status);
        assert_eq!(dao.delete_all(filter.clone()).await.unwrap_err().status(), status);
        assert_eq!(dao.exists(filter).await.unwrap_err().status(), status);
    }
    let sort = Sort::by("$where", Ascending);
    assert_eq!(dao.get_all_sorted(Filter::all(), sort).await.unwrap_err().reason(), "Invalid Field Path");
}

pub(super) async fn the_largest_allowed_filter_works(store: Arc<dyn DocumentStore>) {
    insert_all(&store, [json!({"a": 1})]).await;
    let wide = Filter::Or(
        (1..MAX_NODES).map(|_| field("a").starts_with("x").or(field("a").eq(1))).take(85).collect(),
    );
    assert_eq!(ids(&store, wide).await, "00");
    let flat = Filter::And((1..MAX_NODES).map(|_| field("a").eq(1)).collect());
    assert_eq!(ids(&store, flat).await, "00");
    let deep = (1..32).fold(field("a").eq(1), |filter, _| !filter);
    assert_eq!(ids(&store, deep).await, "");
    let many = (0..MAX_OPERANDS).map(|n| n.to_string()).chain([]).collect();
    assert_eq!(ids(&store, Filter::Ids(many)).await, "");
}

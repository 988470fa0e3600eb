//! Pages of a sorted list, one after the other by a cursor.

use std::sync::Arc;

use platform::store::Direction::{Ascending, Descending};
use platform::store::{Dao, DocumentStore, Filter, Sort, field};
use serde_json::{Value, json};

use super::queries::{insert_all, one_of_each};
use super::{Anything, anything, things};

/// The ids of all pages, read one after the other.
async fn walk(things: &Dao<Anything>, filter: &Filter, sort: &Sort, limit: u64) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let chunk = things.page_after(filter.clone(), sort.clone(), cursor.as_deref(), limit).await.unwrap();
        assert!(chunk.items.len() as u64 <= limit);
        ids.extend(chunk.items.into_iter().map(|stored| stored.id));
        cursor = chunk.next;
        if cursor.is_none() {
            return ids;
        }
        assert_eq!(ids.len() as u64 % limit, 0);
    }
}

/// Every pair of values of [`one_of_each`], at `a` and `b`.
async fn insert_pairs(store: &Arc<dyn DocumentStore>) {
    let values = one_of_each();
    let pairs = values.iter().flat_map(|one| {
        values.iter().map(move |other| {
            let mut pair = one.clone();
            if let Some(value) = other.get("a") {
                pair["b"] = value.clone();
            }
            pair
        })
    });
    let pairs: Vec<Value> = pairs.collect();
    for (n, value) in pairs.iter().enumerate() {
        // Not in the order of the values.
        things(store)
            .insert_with_id(&format!("{:03}", (n * 37) % pairs.len()), &anything(value.clone()))
            .await
            .unwrap();
    }
}

pub(super) async fn pages_of_a_sort_are_the_whole_list(store: Arc<dyn DocumentStore>) {
    insert_pairs(&store).await;
    let things = things(&store);
    for sort in [
        Sort::by_id(),
        Sort::by("a", Ascending),
        Sort::by("a", Descending),
        Sort::by("b", Descending),
        Sort::by("a", Ascending).then("b", Descending),
        Sort::by("b", Descending).then("a", Ascending),
        Sort::by("a", Descending).then("b", Descending),
        Sort::by("a.x", Ascending),
        Sort::by("nothing", Ascending),
        Sort::by("a", Ascending).then("a", Descending),
    ] {
        for (filter, limits) in [(Filter::all(), [7, 50, 196]), (field("b").gte(0), [1, 5, 200])] {
            let all = things.get_all_sorted(filter.clone(), sort.clone()).await.unwrap();
            let expected: Vec<String> = all.into_iter().map(|stored| stored.id).collect();
            for limit in limits {
                assert_eq!(
                    walk(&things, &filter, &sort, limit).await,
                    expected,
                    "{sort:?} {filter:?} {limit}"
                );
            }
        }
    }
}

pub(super) async fn a_page_begins_in_the_right_place_whatever_is_written_meanwhile(
    store: Arc<dyn DocumentStore>,
) {
    insert_all(&store, (0..10).map(|n| json!({ "a": n }))).await;
    let things = things(&store);
    let sort = Sort::by("a", Descending);
    let page = async |cursor: Option<&str>| {
        let chunk = things.page_after(Filter::all(), sort.clone(), cursor, 3).await.unwrap();
        let ids: Vec<String> = chunk.items.into_iter().map(|stored| stored.id).collect();
        (ids.join(" "), chunk.next)
    };
    let (first, next) = page(None).await;
    assert_eq!(first, "09 08 07");
    // The last document of the page is deleted, and others come before and after its place.
    things.delete_with_ids(&["07"]).await.unwrap();
    for (id, value) in [("x", json!(99)), ("y", json!(6.5)), ("z", json!(7))] {
        things.insert_with_id(id, &anything(json!({ "a": value }))).await.unwrap();
    }
    let (second, next) = page(next.as_deref()).await;
    // `z` has the value of the one that was the last, and a greater id.
    assert_eq!(second, "z y 06");
    // The last document moves to the front: its old place still counts.
    things.upsert(Filter::id("06"), &anything(json!({"a": 100}))).await.unwrap();
    let (third, next) = page(next.as_deref()).await;
    assert_eq!(third, "05 04 03");
    assert_eq!(page(next.as_deref()).await, ("02 01 00".to_owned(), None));
}

pub(super) async fn values_too_long_for_a_cursor_are_looked_up(store: Arc<dyn DocumentStore>) {
    let long = "é".repeat(5_000);
    insert_all(&store, (0..6).map(|n| json!({"a": format!("{long}{}", n % 3)}))).await;
    let things = things(&store);
    let sort = Sort::by("a", Ascending);
    assert_eq!(walk(&things, &Filter::all(), &sort, 1).await, ["00", "03", "01", "04", "02", "05"]);
    let chunk = things.page_after(Filter::all(), sort.clone(), None, 2).await.unwrap();
    let cursor = chunk.next.unwrap();
    assert!(cursor.len() < 1_500, "{}", cursor.len());
    things.delete_with_ids(&["03"]).await.unwrap();
    let error = things.page_after(Filter::all(), sort, Some(&cursor), 2).await.unwrap_err();
    assert_eq!(error.reason(), "Invalid Cursor");
    assert!(error.errors()[0].message.contains("outdated"), "{:?}", error.errors());
}

pub(super) async fn a_page_without_a_next_one_has_no_cursor(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let page = async |cursor: Option<String>, limit| {
        let sort = Sort::by("a", Ascending);
        let chunk = things.page_after(Filter::all(), sort, cursor.as_deref(), limit).await.unwrap();
        (chunk.items.len(), chunk.next)
    };
    assert_eq!(page(None, 5).await, (0, None));
    insert_all(&store, (0..4).map(|n| json!({ "a": n }))).await;
    assert_eq!(page(None, 4).await, (4, None));
    assert_eq!(page(None, 0).await, (0, None));
    assert_eq!(page(None, u64::MAX).await, (4, None));
    let (_, next) = page(None, 3).await;
    assert_eq!(page(next, 3).await, (1, None));
    let other = things.page_after(Filter::all(), Sort::by_id(), None, 1).await.unwrap().next;
    for cursor in ["", "nonsense", other.as_deref().unwrap()] {
        let error =
            things.page_after(Filter::all(), Sort::by("a", Ascending), Some(cursor), 1).await.unwrap_err();
        assert_eq!(error.reason(), "Invalid Cursor", "{cursor}");
    }
}

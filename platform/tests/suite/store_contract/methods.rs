//! The methods of the DAO.

use std::sync::Arc;

use futures_util::TryStreamExt;
use platform::error::Kind;
use platform::store::Direction::{Ascending, Descending};
use platform::store::query::MAX_DEPTH;
use platform::store::{
    Collection, Dao, Document, DocumentStore, Expected, Filter, Page, Patch, Query, Scalar, Sort, Stored,
    Total, Write, field,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Person, anything, people, person, things, version};

async fn three(store: &Arc<dyn DocumentStore>) -> (Dao<Person>, Vec<String>) {
    let people = people(store);
    let ids = people.insert_many(&[person("Ada", 36), person("Bob", 20), person("Cid", 36)]).await.unwrap();
    (people, ids)
}

fn names(found: Vec<Stored<Person>>) -> Vec<String> {
    found.into_iter().map(|stored| stored.value.name).collect()
}

pub(super) async fn get_first_returns_the_oldest(store: Arc<dyn DocumentStore>) {
    let (people, ids) = three(&store).await;
    let first = people.get_first(field("age").eq(36)).await.unwrap().unwrap();
    assert_eq!((first.id, first.value.name.as_str()), (ids[0].clone(), "Ada"));
    assert!(people.get_first(field("age").eq(99)).await.unwrap().is_none());
}

pub(super) async fn get_all_is_in_the_order_of_the_ids(store: Arc<dyn DocumentStore>) {
    let (people, ids) = three(&store).await;
    let all = people.get_all(Filter::all()).await.unwrap();
    assert_eq!(all.into_iter().map(|stored| stored.id).collect::<Vec<_>>(), ids);
    assert_eq!(names(people.get_all(field("age").eq(36)).await.unwrap()), ["Ada", "Cid"]);
}

pub(super) async fn get_all_sorted_is_in_the_order_asked_for(store: Arc<dyn DocumentStore>) {
    let (people, _) = three(&store).await;
    let sorted = async |sort| names(people.get_all_sorted(Filter::all(), sort).await.unwrap());
    assert_eq!(sorted(Sort::by("name", Descending)).await, ["Cid", "Bob", "Ada"]);
    assert_eq!(sorted(Sort::by("age", Ascending).then("name", Descending)).await, ["Bob", "Cid", "Ada"]);
    // Equal documents are in the order of their ids in both directions.
    assert_eq!(sorted(Sort::by("age", Descending)).await, ["Ada", "Cid", "Bob"]);
}

pub(super) async fn insert_with_id_refuses_an_id_that_exists(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    people.insert_with_id("ada", &person("Ada", 36)).await.unwrap();
    let error = people.insert_with_id("ada", &person("Other", 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "Document Exists"));
    assert_eq!(people.get("ada").await.unwrap().unwrap().value.name, "Ada");
}

pub(super) async fn insert_many_stores_all(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let many: Vec<Person> = (0..300).map(|age| person("Twin", age)).collect();
    let ids = people.insert_many(&many).await.unwrap();
    assert_eq!(ids.len(), 300);
    assert_eq!(people.get(&ids[123]).await.unwrap().unwrap().value.age, 123);
    assert_eq!(people.count(Filter::all()).await.unwrap(), 300);
    assert!(people.insert_many(&[]).await.unwrap().is_empty());
}

pub(super) async fn insert_many_stores_none_when_one_is_refused(store: Arc<dyn DocumentStore>) {
    static PEOPLE: Collection = Collection::new("people", &["name"]);
    let people = people(&store);
    people.insert_with_id("exists", &person("Ada", 36)).await.unwrap();
    let body = Arc::new(anything(serde_json::json!({"name": "New", "age": 1})).0);
    for ids in [["new", "exists"], ["exists", "new"], ["new", "new"]] {
        let new = ids.map(|id| Document::new(id.to_owned(), Arc::clone(&body), None)).to_vec();
        let error = store.write(&PEOPLE, Write::Insert(new)).await.unwrap_err();
        assert_eq!(error.reason(), "Document Exists");
        assert_eq!(names(people.get_all(Filter::all()).await.unwrap()), ["Ada"]);
    }
}

pub(super) async fn upsert_creates_then_replaces(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let created = people.upsert(field("name").eq("Ada"), &person("Ada", 36)).await.unwrap();
    assert!(created.created);
    let again = people.upsert(field("name").eq("Ada"), &person("Ada", 37)).await.unwrap();
    assert_eq!((&again.id, again.version, again.created), (&created.id, created.version + 1, false));
    let named = people.upsert(Filter::id("bob"), &person("Bob", 20)).await.unwrap();
    assert_eq!((named.id.as_str(), named.created), ("bob", true));
    assert_eq!(people.count(Filter::all()).await.unwrap(), 2);
    assert_eq!(people.get(&created.id).await.unwrap().unwrap().value.age, 37);
}

pub(super) async fn update_first_changes_the_fields_named_and_no_other(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let value = serde_json::json!({"c": 1, "b": {"x": 1, "y": 2}, "a": 3});
    let id = things.insert(&anything(value)).await.unwrap();
    let patch = Patch::new().set("b.z", "new").unset("b.x").set("c", true).set("d", vec![1, 2]);
    let version = version(&things, &id).await;
    let updated = things.update_first(field("a").eq(3), patch).await.unwrap().unwrap();
    let expected = r#"{"c":true,"b":{"y":2,"z":"new"},"a":3,"d":[1,2]}"#;
    assert_eq!(serde_json::to_string(&updated.value).unwrap(), expected);
    assert_eq!(updated.version, version + 1);
    let read = things.get(&id).await.unwrap().unwrap();
    assert_eq!(serde_json::to_string(&read.value).unwrap(), expected);
    assert!(things.update_first(field("a").eq(99), Patch::new().set("a", 1)).await.unwrap().is_none());
    let error = things.update_first(Filter::all(), Patch::new().set("a", 1).set("a.b", 2)).await.unwrap_err();
    assert_eq!(error.reason(), "Overlapping Field Paths");
}

pub(super) async fn update_first_of_a_path_through_a_value_changes_nothing(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let id = things.insert(&anything(serde_json::json!({"a": 1, "b": 2}))).await.unwrap();
    let version = version(&things, &id).await;
    let patch = Patch::new().set("b", 3).set("a.x", 1);
    let error = things.update(&id, Expected::Any, patch).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::BadRequest, "Field Path Through A Value"));
    let read = things.get(&id).await.unwrap().unwrap();
    assert_eq!((read.version, read.value), (version, anything(serde_json::json!({"a": 1, "b": 2}))));
}

pub(super) async fn delete_first_deletes_one(store: Arc<dyn DocumentStore>) {
    let (people, _) = three(&store).await;
    assert!(people.delete_first(field("age").eq(36)).await.unwrap());
    assert_eq!(names(people.get_all(Filter::all()).await.unwrap()), ["Bob", "Cid"]);
    assert!(!people.delete_first(field("age").eq(99)).await.unwrap());
}

pub(super) async fn delete_all_deletes_what_matches(store: Arc<dyn DocumentStore>) {
    let (people, _) = three(&store).await;
    assert_eq!(people.delete_all(field("age").eq(36)).await.unwrap(), 2);
    assert_eq!(people.delete_all(field("age").eq(36)).await.unwrap(), 0);
    assert_eq!(people.delete_all(Filter::all()).await.unwrap(), 1);
    assert_eq!(people.count(Filter::all()).await.unwrap(), 0);
}

pub(super) async fn delete_with_ids_counts_the_existing_documents(store: Arc<dyn DocumentStore>) {
    let (people, ids) = three(&store).await;
    let given = [ids[0].as_str(), "nobody", &ids[2], &ids[0]];
    assert_eq!(people.delete_with_ids(&given).await.unwrap(), 2);
    assert_eq!(names(people.get_all(Filter::all()).await.unwrap()), ["Bob"]);
    assert_eq!(people.delete_with_ids::<&str>(&[]).await.unwrap(), 0);
    assert_eq!(people.count(Filter::all()).await.unwrap(), 1);
}

pub(super) async fn replace_changes_an_existing_document_and_creates_none(store: Arc<dyn DocumentStore>) {
    let (people, ids) = three(&store).await;
    let first = version(&people, &ids[1]).await;
    assert_eq!(people.replace(&ids[1], Expected::Any, &person("Bert", 21)).await.unwrap(), Some(first + 1));
    assert_eq!(people.get(&ids[1]).await.unwrap().unwrap().value, person("Bert", 21));
    assert_eq!(people.replace("nobody", Expected::Any, &person("X", 1)).await.unwrap(), None);
    assert_eq!(people.replace("nobody", Expected::Version(1), &person("X", 1)).await.unwrap(), None);
    assert!(!people.delete("nobody", Expected::Version(1)).await.unwrap());
    assert_eq!(people.count(Filter::all()).await.unwrap(), 3);
}

pub(super) async fn a_page_comes_with_the_total_count(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    people.insert_many(&(0..10).map(|age| person("P", age)).collect::<Vec<_>>()).await.unwrap();
    let page = Page { offset: 2, limit: Some(3) };
    let listing = people.page(field("age").lt(8), Sort::by("age", Descending), page).await.unwrap();
    assert_eq!(listing.total, 8);
    assert_eq!(listing.items.into_iter().map(|stored| stored.value.age).collect::<Vec<_>>(), [5, 4, 3]);
}

pub(super) async fn a_walk_in_chunks_sees_each_document_once(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    people.insert_many(&(0..25).map(|age| person("P", age)).collect::<Vec<_>>()).await.unwrap();
    for (filter, expected) in
        [(Filter::all(), 0..25), (field("age").gte(7), 7..25), (field("age").gt(99), 0..0)]
    {
        for limit in [1, 5, 7, 25, 26, u64::MAX] {
            let (mut ages, mut after, mut chunks) = (Vec::new(), None, 0);
            loop {
                let chunk = people.get_page_after(filter.clone(), after.as_deref(), limit).await.unwrap();
                assert!(chunk.items.len() as u64 <= limit);
                ages.extend(chunk.items.into_iter().map(|stored| stored.value.age));
                chunks += 1;
                after = chunk.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(ages, expected.clone().collect::<Vec<_>>(), "{limit}");
            assert_eq!(chunks, (expected.clone().count() as u64).div_ceil(limit).max(1), "{limit}");
        }
    }
}

pub(super) async fn a_walk_in_chunks_continues_while_others_write(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    for id in ["b", "d", "f", "h"] {
        things.insert_with_id(id, &anything(serde_json::json!({}))).await.unwrap();
    }
    let first = things.get_page_after(Filter::all(), None, 2).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("d"));
    // The last document of a chunk may be deleted, and others inserted before and after it.
    things.delete_with_ids(&["d"]).await.unwrap();
    for id in ["a", "e"] {
        things.insert_with_id(id, &anything(serde_json::json!({}))).await.unwrap();
    }
    let second = things.get_page_after(Filter::all(), first.next.as_deref(), 9).await.unwrap();
    assert_eq!(second.items.iter().map(|stored| stored.id.as_str()).collect::<Vec<_>>(), ["e", "f", "h"]);
    assert_eq!(second.next, None);
}

pub(super) async fn a_chunk_says_whether_there_is_a_next_one(store: Arc<dyn DocumentStore>) {
    let (people, ids) = three(&store).await;
    let chunk = async |after: Option<&str>, limit| {
        let chunk = people.get_page_after(Filter::all(), after, limit).await.unwrap();
        (chunk.items.len(), chunk.next)
    };
    assert_eq!(chunk(None, 2).await, (2, Some(ids[1].clone())));
    // Exactly as many as there are: there is no next chunk.
    assert_eq!(chunk(None, 3).await, (3, None));
    assert_eq!(chunk(Some(&ids[0]), 2).await, (2, None));
    assert_eq!(chunk(Some(&ids[2]), 2).await, (0, None));
    assert_eq!(chunk(None, 0).await, (0, None));
    // `after` is any text, and need not be an id: "z" is greater than any of these.
    assert_eq!(chunk(Some(""), 9).await, (3, None));
    assert_eq!(chunk(Some("z\0"), 9).await, (0, None));
    // A filter of the deepest nesting: `after` does not count.
    let deepest = (1..MAX_DEPTH).fold(field("age").eq(99), |filter, _| !filter);
    let chunk = people.get_page_after(deepest, Some(""), 9).await.unwrap();
    assert_eq!(chunk.items.len(), 3);
    let error = people.get_page_after(field("a..b").eq(1), None, 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadRequest);
}

pub(super) async fn a_stream_ends_after_the_last_document(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    // Twice the size of a chunk, so that the last chunk is full.
    people.insert_many(&(0..512).map(|age| person("P", age)).collect::<Vec<_>>()).await.unwrap();
    let all: Vec<_> =
        people.stream(Filter::all()).map_ok(|stored| stored.value.age).try_collect().await.unwrap();
    assert_eq!(all, (0..512).collect::<Vec<_>>());
    let some: Vec<_> = people.stream(field("age").gte(500)).try_collect().await.unwrap();
    assert_eq!(some.len(), 12);
    let none: Vec<_> = people.stream(field("age").gte(600)).try_collect().await.unwrap();
    assert!(none.is_empty());
}

pub(super) async fn count_and_exists_agree(store: Arc<dyn DocumentStore>) {
    let (people, ids) = three(&store).await;
    for (filter, count) in [
        (Filter::all(), 3),
        (field("age").eq(36), 2),
        (field("age").eq(99), 0),
        (Filter::id(&*ids[0]), 1),
        (Filter::id("nobody"), 0),
    ] {
        assert_eq!(people.count(filter.clone()).await.unwrap(), count);
        assert_eq!(people.exists(filter).await.unwrap(), count > 0);
    }
}

pub(super) async fn a_count_stops_at_its_bound(store: Arc<dyn DocumentStore>) {
    let (people, _) = three(&store).await;
    for (bound, total) in [
        (0, Total::AtLeast(0)),
        (2, Total::AtLeast(2)),
        (3, Total::Exactly(3)),
        (u64::MAX, Total::Exactly(3)),
    ] {
        assert_eq!(people.count_up_to(Filter::all(), bound).await.unwrap(), total);
    }
    assert_eq!(people.count_up_to(field("age").eq(99), 0).await.unwrap(), Total::Exactly(0));
}

pub(super) async fn documents_are_counted_by_a_value(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let values = [
        json!({"a": "bug"}),
        json!({"a": 1}),
        json!({"a": "bug"}),
        json!({"a": 1.0}),
        json!({"a": null}),
        json!({}),
        json!({"a": "bug"}),
        json!({"a": [1]}),
        json!({"a": {"x": 1}}),
        json!({"a": true}),
        json!({"a": 0.1}),
        json!({"a": 1e40}),
        json!({"a": i64::MAX}),
        json!({"a": "Bug"}),
    ];
    things.insert_many(&values.map(anything)).await.unwrap();
    let all: Vec<(Scalar, u64)> = vec![
        ("bug".into(), 3),
        (Scalar::Null, 2),
        (1.into(), 2),
        (0.1.into(), 1),
        (i64::MAX.into(), 1),
        (1e40.into(), 1),
        ("Bug".into(), 1),
        (true.into(), 1),
    ];
    assert_eq!(things.count_by(Filter::all(), "a", 99).await.unwrap(), all);
    assert_eq!(things.count_by(Filter::all(), "a", 4).await.unwrap(), all[..4]);
    assert_eq!(things.count_by(field("a").gt(0), "a", 1).await.unwrap(), [(1.into(), 2)]);
    assert_eq!(things.count_by(Filter::all(), "a.x", 9).await.unwrap(), [(Scalar::Null, 13), (1.into(), 1)]);
    assert_eq!(things.count_by(Filter::all(), "a", 0).await.unwrap(), []);
    assert_eq!(things.count_by(Filter::all(), "$a", 9).await.unwrap_err().reason(), "Invalid Field Path");
}

pub(super) async fn some_fields_are_read(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let text =
        r#"{"z": {"k": 1.0, "j": [1, {"q": 2}], "n": null}, "a": 18446744073709551615, "b": "x", "e": {}}"#;
    things.insert_with_id("1", &anything(serde_json::from_str(text).unwrap())).await.unwrap();
    things.insert_with_id("2", &anything(json!({"z": 7, "a": -0.0}))).await.unwrap();
    let versions = [version(&things, "1").await, version(&things, "2").await];
    let read = async |paths: &[&str], sort: Sort, page: Page| {
        let found = things.find_fields::<Value>(paths, Filter::all(), sort, page).await.unwrap();
        let texts = found.into_iter().map(|stored| {
            assert_eq!(stored.version, versions[usize::from(stored.id == "2")]);
            format!("{} {}", stored.id, stored.value)
        });
        texts.collect::<Vec<_>>()
    };
    assert_eq!(
        read(&["a", "z.n", "z.k", "nothing.here"], Sort::by_id(), Page::all()).await,
        [r#"1 {"a":18446744073709551615,"z":{"n":null,"k":1.0}}"#, r#"2 {"a":-0.0}"#]
    );
    // An object and a number at the path of the sort, which is not read.
    assert_eq!(read(&["b"], Sort::by("z", Descending), Page::all()).await, [r#"1 {"b":"x"}"#, "2 {}"]);
    assert_eq!(
        read(&["z.j"], Sort::by("z.k", Descending), Page::first(1)).await,
        [r#"1 {"z":{"j":[1,{"q":2}]}}"#]
    );
    assert_eq!(read(&["e"], Sort::by_id(), Page { offset: 1, limit: None }).await, ["2 {}"]);
    let people = people(&store);
    people.insert(&person("Ada", 36)).await.unwrap();
    let names = people
        .find_fields::<Name>(&["name"], field("age").eq(36), Sort::by("age", Ascending), Page::all())
        .await
        .unwrap();
    assert_eq!(names[0].value, Name { name: "Ada".to_owned() });
    for (paths, kind, reason) in [
        (vec![], Kind::Internal, "Internal Server Error"),
        (vec!["a", "a.b"], Kind::BadRequest, "Overlapping Field Paths"),
        (vec!["a..b"], Kind::BadRequest, "Invalid Field Path"),
    ] {
        let refused = things.find_fields::<Value>(&paths, Filter::all(), Sort::by_id(), Page::all()).await;
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (kind, reason));
    }
}

/// A part of a person.
#[derive(Debug, Deserialize, PartialEq)]
struct Name {
    name: String,
}

pub(super) async fn an_empty_collection_accepts_every_method(store: Arc<dyn DocumentStore>) {
    static EMPTY: Collection = Collection::new("never_written", &["a"]);
    let query = Query { filter: Filter::all(), sort: Sort::by("a", Ascending), page: Page::all() };
    assert!(store.find(&EMPTY, query).await.unwrap().is_empty());
    let people = people(&store);
    assert!(people.get("x").await.unwrap().is_none());
    assert_eq!(people.delete_all(Filter::all()).await.unwrap(), 0);
    assert!(people.update_first(Filter::all(), Patch::new().set("a", 1)).await.unwrap().is_none());
    assert!(!people.delete_first(Filter::all()).await.unwrap());
}

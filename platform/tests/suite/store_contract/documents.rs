//! A document and its id.

use std::sync::Arc;

use platform::error::Kind;
use platform::store::{Dao, DocumentStore, Entity, Expected, Fields, Filter, Patch};
use serde_json::{Value, json};

use super::{Anything, anything, people, person, things};

pub(super) async fn a_created_document_can_be_read_back(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let id = people.insert(&person("Ada", 36)).await.unwrap();
    let stored = people.get(&id).await.unwrap().unwrap();
    assert_eq!((stored.id, stored.value), (id, person("Ada", 36)));
    assert!(people.get("nobody").await.unwrap().is_none());
    assert!(people.get("").await.unwrap().is_none());
}

pub(super) async fn a_document_comes_back_exactly_as_it_was_sent(store: Arc<dyn DocumentStore>) {
    let sent = concat!(
        r#"{"zip":"01234","b":1,"a":{"y":null,"x":[1,1.0,-0.0,[],{}]},"":"empty key","a.b":"dotted","$set":1,"#,
        r#""big":18446744073709551615,"small":-9223372036854775808,"tiny":5e-324,"huge":1.7976931348623157e308,"#,
        r#""text":"\u0001\u001b\"\\é é 😀 '","__proto__":true}"#
    );
    let things = things(&store);
    let value: Anything = serde_json::from_str(sent).unwrap();
    let id = things.insert(&value).await.unwrap();
    let read = things.get(&id).await.unwrap().unwrap().value;
    assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&value).unwrap());
    let found = things.get_all(Filter::all()).await.unwrap().remove(0).value;
    assert_eq!(serde_json::to_string(&found).unwrap(), serde_json::to_string(&value).unwrap());
}

pub(super) async fn a_random_float_comes_back_to_the_last_bit(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let numbers: Vec<f64> = std::iter::repeat_with(|| f64::from_bits(fastrand::u64(..)))
        .filter(|n| n.is_finite())
        .take(1000)
        .collect();
    let id = things.insert(&anything(json!({ "numbers": numbers }))).await.unwrap();
    let read = things.get(&id).await.unwrap().unwrap().value;
    let read: Vec<f64> = serde_json::from_value(read.0["numbers"].clone()).unwrap();
    let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read), bits(&numbers));
}

/// Ids that have a meaning in a file system, a shell, SQL or JSON.
pub(super) fn hostile_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a\u{1}b",
        "a\u{1}",
        "\u{1}",
        "A",
        "a",
        "é",
        "e\u{301}",
        "ß",
        "SS",
        "ss",
        ".lock",
        "x.json",
        "~x",
        "CON",
        "nul",
        " ",
        "a ",
        "a\n",
        "%2e%2e",
        "' OR 1=1 --",
        "\"",
        "$ne",
        "{}",
        "?",
        "*",
        "\u{202e}",
        "😀",
        "\u{10ffff}",
        "-rf",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.extend([
        "x".repeat(300),
        "x".repeat(301),
        "X".repeat(300),
        "é".repeat(512),
        "a".repeat(64),
        "a".repeat(65),
    ]);
    ids
}

pub(super) async fn hostile_ids_do_not_collide(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let ids = hostile_ids();
    for (age, id) in (0..).zip(&ids) {
        people.insert_with_id(id, &person(id, age)).await.unwrap();
    }
    for (age, id) in (0..).zip(&ids) {
        let stored = people.get(id).await.unwrap().unwrap();
        assert_eq!((&stored.id, &stored.value), (id, &person(id, age)));
    }
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let all = people.get_all(Filter::all()).await.unwrap();
    assert_eq!(all.into_iter().map(|stored| stored.id).collect::<Vec<_>>(), sorted);
    for id in &ids {
        assert_eq!(people.delete_with_ids(&[id]).await.unwrap(), 1, "{id:?}");
    }
    assert_eq!(people.count(Filter::all()).await.unwrap(), 0);
}

pub(super) async fn an_id_that_is_empty_or_too_long_is_refused(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    for (id, reason) in [("", "Empty Id"), (&*"x".repeat(1025), "Id Too Long")] {
        let error = people.insert_with_id(id, &person("Ada", 1)).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (Kind::BadRequest, reason));
        let error = people.upsert(Filter::id(id), &person("Ada", 1)).await.unwrap_err();
        assert_eq!(error.reason(), reason);
    }
    assert_eq!(people.count(Filter::all()).await.unwrap(), 0);
}

fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({"in": inner}))
}

pub(super) async fn a_document_nested_too_deeply_is_refused(store: Arc<dyn DocumentStore>) {
    let error = things(&store).insert(&anything(nested(101))).await.unwrap_err();
    assert_eq!(error.reason(), "Document Nested Too Deeply");
}

pub(super) async fn a_document_of_the_deepest_nesting_comes_back(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let id = things.insert(&anything(nested(100))).await.unwrap();
    assert_eq!(things.get(&id).await.unwrap().unwrap().value, anything(nested(100)));
}

pub(super) async fn a_key_that_serde_json_would_interpret_is_refused(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let id = things.insert(&anything(json!({"a": 1}))).await.unwrap();
    for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        // A value that a handler made: a request body with such a key is refused before it reaches the store.
        let mut object = Fields::new();
        object.insert(key.to_owned(), json!("[1]"));
        let value = Value::Array(vec![Value::Object(object)]);
        let mut bad = Anything(Fields::new());
        bad.0.insert("a".to_owned(), value.clone());
        for error in [
            things.insert(&bad).await.unwrap_err(),
            things.insert_many(&[anything(json!({})), bad.clone()]).await.unwrap_err(),
            things.upsert(Filter::all(), &bad).await.unwrap_err(),
            things.replace(&id, Expected::Any, &bad).await.unwrap_err(),
            things.update(&id, Expected::Any, Patch::new().set("a", value)).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.reason()), (Kind::BadRequest, "Invalid Document"));
            assert_eq!(error.errors()[0].pointer, format!("/a/0/{key}"));
        }
    }
    let all = things.get_all(Filter::all()).await.unwrap();
    assert_eq!((all.len(), &all[0].value), (1, &anything(json!({"a": 1}))));
}

pub(super) async fn keys_that_other_formats_interpret_are_kept(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    // TOML, MongoDB's extended JSON, YAML; the control: almost a key of serde_json.
    for key in ["$__toml_private_datetime", "$oid", "$numberLong", "<<", "serde_json::private::RawValue"] {
        let sent = anything(json!({"a": {key: "1"}, key: {"b": "2"}}));
        let id = things.insert(&sent).await.unwrap();
        assert_eq!(things.get(&id).await.unwrap().unwrap().value, sent);
    }
}

pub(super) async fn nul_in_a_document_is_refused_with_its_pointer(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let id = things.insert(&anything(json!({"a": 1}))).await.unwrap();
    let bad = anything(json!({"a": ["ok", "x\0y"], "b": {"\0": 1}, "c": "\0"}));
    for error in [
        things.insert(&bad).await.unwrap_err(),
        things.insert_many(&[anything(json!({})), bad.clone()]).await.unwrap_err(),
        things.upsert(Filter::all(), &bad).await.unwrap_err(),
        things.replace(&id, Expected::Any, &bad).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.reason()), (Kind::BadRequest, "Invalid Document"));
        let pointers: Vec<_> = error.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a/1", "/b/\0", "/c"]);
        assert!(error.errors()[0].message.contains("NUL"), "{:?}", error.errors());
    }
    for (path, value, pointer) in [("b.c", json!("\0"), "/b/c"), ("b", json!([{"x": "\0"}]), "/b/0/x")] {
        let patch = || Patch::new().set("a", 2).set(path, value.clone());
        for error in [
            things.update(&id, Expected::Any, patch()).await.unwrap_err(),
            things.update_first(Filter::all(), patch()).await.unwrap_err(),
        ] {
            assert_eq!(error.errors()[0].pointer, pointer);
        }
    }
    let all = things.get_all(Filter::all()).await.unwrap();
    assert_eq!((all.len(), &all[0].value), (1, &anything(json!({"a": 1}))));
}

pub(super) async fn nul_in_an_id_is_refused_and_names_no_document(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    for id in ["\0", "a\0", "a\0b"] {
        for error in [
            people.insert_with_id(id, &person("Ada", 1)).await.unwrap_err(),
            people.upsert(Filter::id(id), &person("Ada", 1)).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.reason()), (Kind::BadRequest, "Id With NUL"));
            assert_eq!(error.errors()[0].pointer, "/id");
        }
    }
    assert_eq!(people.count(Filter::all()).await.unwrap(), 0);
    let version = people.insert_with_id("a", &person("Ada", 1)).await.unwrap();
    assert!(people.get("a\0").await.unwrap().is_none());
    assert_eq!(people.replace("a\0", Expected::Any, &person("Eve", 1)).await.unwrap(), None);
    assert!(people.update("a\0", Expected::Any, Patch::new().set("age", 2)).await.unwrap().is_none());
    assert!(!people.delete("a\0", Expected::Any).await.unwrap());
    assert_eq!(people.delete_with_ids(&["a\0", "\0"]).await.unwrap(), 0);
    assert_eq!(people.get("a").await.unwrap().unwrap().version, version);
}

pub(super) async fn collections_are_separate(store: Arc<dyn DocumentStore>) {
    people(&store).insert_with_id("x", &person("Ada", 1)).await.unwrap();
    things(&store).insert_with_id("x", &anything(json!({"a": 1}))).await.unwrap();
    assert_eq!(things(&store).delete_all(Filter::all()).await.unwrap(), 1);
    assert_eq!(people(&store).get("x").await.unwrap().unwrap().value, person("Ada", 1));
}

pub(super) async fn a_document_that_is_not_the_entity_is_an_internal_error(store: Arc<dyn DocumentStore>) {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Other {
        nickname: String,
    }
    impl Entity for Other {
        const COLLECTION: &'static str = "people";
    }
    let id = Dao::<Other>::new(Arc::clone(&store)).insert(&Other { nickname: "A".to_owned() }).await.unwrap();
    let error = people(&store).get(&id).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Internal, "Internal Server Error"));
    assert!(error.cause().contains(&id) && error.cause().contains("missing field"), "{}", error.cause());
}

pub(super) async fn a_ping_succeeds(store: Arc<dyn DocumentStore>) {
    store.ping().await.unwrap();
}

//! What survives a restart, and what several processes share.

use platform::error::Kind;
use platform::store::{Document, Expected, Filter, Write};

use super::batches::opposite_order;
use super::concurrency::race;
use super::documents::hostile_ids;
use super::unique::{PLAIN, UNIQUE, account, accounts, assert_clash, assert_names_both, of, write_clashing};
use super::{TestStore, people, person, unique, version};

pub(super) async fn stored_documents_survive_a_restart(test_store: TestStore) {
    let store = test_store.open().await;
    let id = people(&store).insert(&person("Ada", 36)).await.unwrap();
    let version = people(&store).replace(&id, Expected::Any, &person("Ada", 37)).await.unwrap().unwrap();
    let gone = people(&store).insert(&person("Bob", 20)).await.unwrap();
    people(&store).delete_with_ids(&[gone]).await.unwrap();
    store.close().await;
    drop(store);
    let store = test_store.open().await;
    let all = people(&store).get_all(Filter::all()).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0].id, all[0].version, &all[0].value), (&id, version, &person("Ada", 37)));
    test_store.remove().await;
}

pub(super) async fn two_handles_see_the_writes_of_each_other(test_store: TestStore) {
    let (one, other) = (test_store.open().await, test_store.open().await);
    let id = people(&one).insert(&person("Ada", 36)).await.unwrap();
    assert_eq!(people(&other).get(&id).await.unwrap().unwrap().value, person("Ada", 36));
    let first = Expected::Version(version(&people(&one), &id).await);
    people(&other).replace(&id, first.clone(), &person("Ada", 37)).await.unwrap();
    let error = people(&one).replace(&id, first, &person("Ada", 38)).await.unwrap_err();
    assert_eq!(error.reason(), "Version Conflict");
    assert_eq!(people(&one).get(&id).await.unwrap().unwrap().value.age, 37);
    test_store.remove().await;
}

pub(super) async fn compare_and_set_over_two_handles_loses_no_write(test_store: TestStore) {
    let (one, other) = (test_store.open().await, test_store.open().await);
    people(&one).insert_with_id("counter", &person("Counter", 0)).await.unwrap();
    race(vec![people(&one), people(&other), people(&one), people(&other)], 10).await;
    assert_eq!(people(&other).get("counter").await.unwrap().unwrap().value.age, 40);
    test_store.remove().await;
}

/// Not on a stand-alone MongoDB, which has no batches.
pub(super) async fn batches_over_two_handles_lose_no_write(test_store: TestStore) {
    let handles = [test_store.open().await, test_store.open().await];
    opposite_order(&handles).await;
    test_store.remove().await;
}

pub(super) async fn hostile_ids_stay_inside_the_folder(test_store: TestStore) {
    let store = test_store.open().await;
    for id in hostile_ids() {
        people(&store).upsert(Filter::id(id), &person("P", 1)).await.unwrap();
    }
    store.close().await;
    let outside: Vec<_> = std::fs::read_dir(test_store.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
    assert!(outside[0].to_str().unwrap().starts_with("store"));
}

pub(super) async fn a_value_is_unique_over_two_handles(test_store: TestStore) {
    let (one, other) = (test_store.open().await, test_store.open().await);
    accounts(&one).insert_with_id("ada", &of("ada@x")).await.unwrap();
    assert_clash(accounts(&other).insert(&of("ada@x")).await, "/email");
    accounts(&other).replace("ada", Expected::Any, &of("bob@x")).await.unwrap();
    accounts(&one).insert(&of("ada@x")).await.unwrap();
    accounts(&one).delete_all(Filter::all()).await.unwrap();
    unique::race(&[accounts(&one), accounts(&other)]).await;
    test_store.remove().await;
}

pub(super) async fn a_start_over_documents_that_clash_fails_and_names_two(test_store: TestStore) {
    let store = test_store.open().await;
    write_clashing(&store).await;
    store.close().await;
    drop(store);
    let store = test_store.open().await;
    assert_names_both(&store.prepare(&UNIQUE).await.unwrap_err());
    store.close().await;
    drop(store);
    // Without the declaration, it starts and changes the data.
    let store = test_store.open().await;
    store.prepare(&PLAIN).await.unwrap();
    store.write(&PLAIN, Write::DeleteAll(Filter::id("a"))).await.unwrap();
    store.close().await;
    drop(store);
    let (one, other) = (test_store.open().await, test_store.open().await);
    // Two processes that start at the same time create the same indexes.
    let (first, second) = tokio::join!(one.prepare(&UNIQUE), other.prepare(&UNIQUE));
    first.unwrap();
    second.unwrap();
    for store in [one, other] {
        assert_clash(accounts(&store).insert(&of("same@x")).await, "/email");
        assert_clash(
            accounts(&store).insert(&account(serde_json::json!({"key": {"it's": 1.0}}))).await,
            "/key/it's",
        );
    }
    test_store.remove().await;
}

/// An index that an older release has left refuses what clashes. This release does not know its path.
pub(super) async fn a_path_that_is_no_longer_declared_stays_unique(test_store: TestStore) {
    let store = test_store.open().await;
    accounts(&store).insert_with_id("ada", &of("ada@x")).await.unwrap();
    store.close().await;
    drop(store);
    let store = test_store.open().await;
    let bob = Document::new("bob".to_owned(), std::sync::Arc::new(of("ada@x").fields()), None);
    let insert = Write::Insert(vec![bob.clone()]);
    let error = store.write(&PLAIN, insert).await.unwrap_err();
    assert_eq!((error.kind(), error.reason(), error.errors()), (Kind::Conflict, "Value Exists", &[][..]));
    assert!(error.cause().contains("which no UNIQUE declares"), "{}", error.cause());
    let upsert = Write::Upsert { filter: Filter::id("bob"), new: bob };
    assert_eq!(store.write(&PLAIN, upsert).await.unwrap_err().reason(), "Value Exists");
    test_store.remove().await;
}

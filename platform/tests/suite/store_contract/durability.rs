//! What survives a restart, and what several processes share.

use platform::store::{Expected, Filter};

use super::concurrency::race;
use super::documents::hostile_ids;
use super::{TestStore, people, person};

pub(super) async fn stored_documents_survive_a_restart(test_store: TestStore) {
    let store = test_store.open().await;
    let id = people(&store).insert(&person("Ada", 36)).await.unwrap();
    people(&store).replace(&id, Expected::Any, &person("Ada", 37)).await.unwrap();
    let gone = people(&store).insert(&person("Bob", 20)).await.unwrap();
    people(&store).delete_with_ids(&[gone]).await.unwrap();
    store.close().await;
    drop(store);
    let store = test_store.open().await;
    let all = people(&store).get_all(Filter::all()).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((&all[0].id, all[0].version, &all[0].value), (&id, 2, &person("Ada", 37)));
    test_store.remove().await;
}

pub(super) async fn two_handles_see_the_writes_of_each_other(test_store: TestStore) {
    let (one, other) = (test_store.open().await, test_store.open().await);
    let id = people(&one).insert(&person("Ada", 36)).await.unwrap();
    assert_eq!(people(&other).get(&id).await.unwrap().unwrap().value, person("Ada", 36));
    people(&other).replace(&id, Expected::Version(1), &person("Ada", 37)).await.unwrap();
    let error = people(&one).replace(&id, Expected::Version(1), &person("Ada", 38)).await.unwrap_err();
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

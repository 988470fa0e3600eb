//! Versions, and many writers at the same time.

use std::sync::Arc;

use platform::error::{Error, Kind};
use platform::store::{Dao, DocumentStore, Expected, Filter, Patch, field};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Person, anything, people, person, things, version};

const WRITERS: i64 = 8;

pub(super) async fn every_write_raises_the_version(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let first = people.insert_with_id("ada", &person("Ada", 1)).await.unwrap();
    assert_eq!(people.get("ada").await.unwrap().unwrap().version, first);
    let replaced = people.replace("ada", Expected::Version(first), &person("Ada", 2)).await.unwrap();
    assert_eq!(replaced, Some(first + 1));
    let patch = || Patch::new().set("age", 3);
    assert_eq!(people.update_first(Filter::all(), patch()).await.unwrap().unwrap().version, first + 2);
    let updated = people.update("ada", Expected::Version(first + 2), patch()).await.unwrap().unwrap();
    assert_eq!(updated.version, first + 3);
    assert_eq!(people.upsert(Filter::id("ada"), &person("Ada", 4)).await.unwrap().version, first + 4);
    assert_eq!(people.get("ada").await.unwrap().unwrap().version, first + 4);
    assert!(people.delete("ada", Expected::OneOf(vec![first + 3, first + 4])).await.unwrap());
}

/// Else a precondition that was meant for the former document would hold for the new one.
pub(super) async fn a_version_is_never_used_twice_for_one_id(store: Arc<dyn DocumentStore>) {
    let (people, ada, mut used) = (people(&store), person("Ada", 1), Vec::new());
    for upsert in [false, true, false] {
        let first = if upsert {
            people.upsert(Filter::id("ada"), &ada).await.unwrap().version
        } else {
            people.insert_with_id("ada", &ada).await.unwrap()
        };
        assert_eq!(version(&people, "ada").await, first);
        let stale = people.replace("ada", Expected::OneOf(used.clone()), &person("Eve", 9)).await;
        assert_eq!(stale.unwrap_err().reason(), "Version Conflict", "{used:?}");
        used.extend([first, people.replace("ada", Expected::Version(first), &ada).await.unwrap().unwrap()]);
        assert!(people.delete("ada", Expected::Any).await.unwrap());
    }
    assert!(used.is_sorted_by(|one, next| one < next), "{used:?}");
}

pub(super) async fn a_write_that_expects_another_version_is_refused(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let first = people.insert_with_id("ada", &person("Ada", 1)).await.unwrap();
    people.replace("ada", Expected::Any, &person("Ada", 2)).await.unwrap();
    for stale in [0, 1, first, first + 2, u64::MAX] {
        for expected in [Expected::Version(stale), Expected::OneOf(vec![stale, 77])] {
            let errors = [
                people.replace("ada", expected.clone(), &person("Eve", 9)).await.unwrap_err(),
                people.update("ada", expected.clone(), Patch::new().set("age", 9)).await.unwrap_err(),
                people.delete("ada", expected).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "Version Conflict"));
            }
        }
    }
    let stored = people.get("ada").await.unwrap().unwrap();
    assert_eq!((stored.version, stored.value), (first + 1, person("Ada", 2)));
}

/// Each writer adds 1 to the age, `rounds` times: it reads the document, and writes if the version is still the same.
pub(super) async fn race(daos: Vec<Dao<Person>>, rounds: i64) {
    let mut writers = JoinSet::new();
    for people in daos {
        writers.spawn(async move {
            let mut done = 0;
            while done < rounds {
                let stored = people.get("counter").await.unwrap().unwrap();
                let next = person("Counter", stored.value.age + 1);
                match people.replace("counter", Expected::Version(stored.version), &next).await {
                    Ok(Some(_)) => done += 1,
                    Ok(None) => panic!("the counter is gone"),
                    Err(error) => assert_eq!(error.reason(), "Version Conflict"),
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
}

pub(super) async fn compare_and_set_loses_no_write(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let first = people.insert_with_id("counter", &person("Counter", 0)).await.unwrap();
    race((0..WRITERS).map(|_| people.clone()).collect(), 10).await;
    let stored = people.get("counter").await.unwrap().unwrap();
    assert_eq!((stored.value.age, stored.version), (WRITERS * 10, first + 80));
}

pub(super) async fn update_first_hands_out_each_document_once(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let mut ids =
        people.insert_many(&(0..20).map(|age| person("free", age)).collect::<Vec<_>>()).await.unwrap();
    let mut workers = JoinSet::new();
    for _ in 0..WRITERS {
        let people = people.clone();
        workers.spawn(async move {
            let mut taken = Vec::new();
            let free = || field("name").eq("free");
            while let Some(got) =
                people.update_first(free(), Patch::new().set("name", "taken")).await.unwrap()
            {
                assert_eq!(got.value.name, "taken");
                taken.push(got.id);
            }
            taken
        });
    }
    let mut taken: Vec<String> = workers.join_all().await.concat();
    taken.sort_unstable();
    ids.sort_unstable();
    assert_eq!(taken, ids);
}

pub(super) async fn one_of_many_inserts_of_an_id_wins(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let mut writers = JoinSet::new();
    for age in 0..WRITERS {
        let people = people.clone();
        writers.spawn(async move { people.insert_with_id("one", &person("P", age)).await.map(|_| age) });
    }
    let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.into_iter().all(|result| result.unwrap_err().kind() == Kind::Conflict));
    assert_eq!(people.get("one").await.unwrap().unwrap().value.age, *won[0].as_ref().unwrap());
}

pub(super) async fn concurrent_upserts_of_an_id_make_one_document(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let mut writers = JoinSet::new();
    for age in 0..WRITERS {
        let people = people.clone();
        writers
            .spawn(async move { people.upsert(field("name").eq("One"), &person("One", age)).await.unwrap() });
    }
    let results = writers.join_all().await;
    assert_eq!(results.iter().filter(|upserted| upserted.created).count(), 1);
    let mut versions: Vec<u64> = results.iter().map(|upserted| upserted.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (versions[0]..versions[0] + 8).collect::<Vec<u64>>());
    assert_eq!(people.count(Filter::all()).await.unwrap(), 1);
}

/// 50 clients number 200 documents by one counter, each time by a function of what the counter is now.
pub(super) async fn modify_loses_no_change_and_refuses_none(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    assert!(people.modify("counter", |_| Ok(())).await.unwrap().is_none());
    people.insert_with_id("counter", &person("Counter", 0)).await.unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let people = people.clone();
        clients.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..4 {
                let next = people.modify("counter", |counter| {
                    counter.age += 1;
                    Ok(counter.age)
                });
                numbers.push(next.await.unwrap().unwrap());
            }
            numbers
        });
    }
    let mut numbers: Vec<i64> = clients.join_all().await.into_iter().flatten().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    // An error of the function changes nothing.
    let refused = people.modify::<()>("counter", |counter| {
        counter.age = 0;
        Err(Error::bad_request("Not Allowed"))
    });
    assert_eq!(refused.await.unwrap_err().reason(), "Not Allowed");
    assert_eq!(people.get("counter").await.unwrap().unwrap().value.age, 200);
}

/// Additions and appends of many writers at one time are all there at the end.
pub(super) async fn patches_of_many_writers_are_all_applied(store: Arc<dyn DocumentStore>) {
    let things = things(&store);
    let first = things.insert_with_id("a", &anything(json!({"n": 0}))).await.unwrap();
    let mut writers = JoinSet::new();
    for number in 0..40 {
        let things = things.clone();
        writers.spawn(async move {
            let patch = Patch::new().add("n", 1).append("list", number).remove("gone", number);
            things.update("a", Expected::Any, patch).await.unwrap().unwrap();
        });
    }
    writers.join_all().await;
    let stored = things.get("a").await.unwrap().unwrap();
    assert_eq!((stored.version, &stored.value.0["n"]), (first + 40, &json!(40)));
    let mut list: Vec<i64> = serde_json::from_value(stored.value.0["list"].clone()).unwrap();
    list.sort_unstable();
    assert_eq!(list, (0..40).collect::<Vec<_>>());
}

pub(super) async fn several_documents_of_one_insert_are_seen_together(store: Arc<dyn DocumentStore>) {
    const EACH: usize = 7;
    let people = people(&store);
    people.insert(&person("Before", 0)).await.unwrap();
    let writer = {
        let people = people.clone();
        tokio::spawn(async move {
            for round in 0..30 {
                people.insert_many(&vec![person("Together", round); EACH]).await.unwrap();
            }
        })
    };
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let people = people.clone();
        readers.spawn(async move {
            let (mut seen, together) = (0, || field("name").eq("Together"));
            while seen < 30 * EACH {
                let count = people.count(together()).await.unwrap();
                let found = people.get_all(together()).await.unwrap();
                assert_eq!((count % EACH as u64, found.len() % EACH), (0, 0), "{count} {}", found.len());
                // Time does not run backwards.
                assert!(count >= seen as u64 && found.len() as u64 >= count);
                seen = found.len();
            }
        });
    }
    writer.await.unwrap();
    readers.join_all().await;
}

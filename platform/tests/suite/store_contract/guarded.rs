//! Writes that carry a fencing token.

use std::sync::Arc;

use platform::error::{Error, Kind};
use platform::store::{Dao, DocumentStore, Expected, Filter, Page, Patch, Query, Sort, field};
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::unique::{UNIQUE, account, accounts, assert_clash, of};
use super::{Person, people, person, version};

/// The holders of one lock, one after the other: their tokens are 1 to this.
const HOLDERS: u32 = 20;

fn assert_stale<T>(result: Result<T, Error>) {
    let Err(error) = result else { panic!("it was not refused") };
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "Stale"));
}

/// Ada, written with the token 5, and the documents with an older token and a newer one.
async fn ada(store: &Arc<dyn DocumentStore>) -> (Dao<Person>, Dao<Person>, Dao<Person>) {
    let people = people(store);
    people.guarded(5).insert_with_id("ada", &person("Ada", 5)).await.unwrap();
    let (older, newer) = (people.guarded(4), people.guarded(6));
    (people, older, newer)
}

async fn assert_unchanged(people: &Dao<Person>, version: u64) {
    let stored = people.get("ada").await.unwrap().unwrap();
    assert_eq!((stored.version, stored.value), (version, person("Ada", 5)));
    assert_eq!(people.count(Filter::all()).await.unwrap(), 1);
}

pub(super) async fn an_older_token_is_refused_by_every_write_and_changes_nothing(
    store: Arc<dyn DocumentStore>,
) {
    let (people, older, _) = ada(&store).await;
    let version = version(&people, "ada").await;
    let (eve, patch, name) = (person("Eve", 9), || Patch::new().set("age", 9), || field("name").eq("Ada"));
    for expected in [Expected::Any, Expected::Version(version), Expected::Version(7)] {
        assert_stale(older.replace("ada", expected.clone(), &eve).await);
        assert_stale(older.update("ada", expected.clone(), patch()).await);
        assert_stale(older.delete("ada", expected).await);
    }
    assert_stale(older.update_first(name(), patch()).await);
    assert_stale(older.delete_first(name()).await);
    assert_stale(older.upsert(Filter::id("ada"), &eve).await);
    assert_stale(older.upsert(name(), &eve).await);
    let change = |ada: &mut Person| {
        ada.age = 9;
        Ok(())
    };
    assert_stale(older.modify("ada", change).await);
    assert_stale(people.guarded(0).replace("ada", Expected::Any, &eve).await);
    // It exists, whatever the token is.
    assert_eq!(older.insert_with_id("ada", &eve).await.unwrap_err().reason(), "Document Exists");
    assert_eq!(older.delete_with_ids(&["ada"]).await.unwrap(), 0);
    assert_unchanged(&people, version).await;
    // Where there is no document, there is nothing to refuse.
    assert_eq!(older.replace("bob", Expected::Any, &eve).await.unwrap(), None);
    assert!(!older.delete_first(field("name").eq("Bob")).await.unwrap());
    let error = people.guarded(1 << 63).replace("ada", Expected::Any, &eve).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert_unchanged(&people, version).await;
}

pub(super) async fn an_equal_or_newer_token_writes_and_is_kept(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let (ada, name) = (person("Ada", 5), || field("name").eq("Ada"));
    let largest = u64::try_from(i64::MAX).unwrap();
    let mut version = people.insert_with_id("ada", &ada).await.unwrap();
    for (way, token) in [5, 5, 6, 7, 8, 9, largest].into_iter().enumerate() {
        let people = people.guarded(token);
        match way % 5 {
            0 => {
                people.upsert(Filter::id("ada"), &ada).await.unwrap();
            }
            1 => {
                people.replace("ada", Expected::Version(version), &ada).await.unwrap().unwrap();
            }
            2 => {
                people.update("ada", Expected::Any, Patch::new().set("age", 5)).await.unwrap().unwrap();
            }
            3 => {
                people.upsert(name(), &ada).await.unwrap();
            }
            _ => {
                people.update_first(name(), Patch::new().set("age", 5)).await.unwrap().unwrap();
            }
        }
        version += 1;
        assert_unchanged(&people, version).await;
        assert_stale(people.guarded(token - 1).replace("ada", Expected::Any, &ada).await);
    }
    // Also the token of a document that a guarded write has created is kept.
    people.guarded(3).upsert(Filter::id("bob"), &ada).await.unwrap();
    people.guarded(3).upsert(field("name").eq("Eve"), &person("Eve", 1)).await.unwrap();
    let ids = people.guarded(3).insert_many(&[ada.clone(), ada.clone()]).await.unwrap();
    for id in ["bob", &ids[0], &ids[1]] {
        assert_stale(people.guarded(2).replace(id, Expected::Any, &ada).await);
    }
    assert_stale(people.guarded(2).delete_first(field("name").eq("Eve")).await);
    assert!(people.guarded(largest).delete("ada", Expected::Any).await.unwrap());
}

pub(super) async fn an_unguarded_write_keeps_the_token(store: Arc<dyn DocumentStore>) {
    let (people, older, newer) = ada(&store).await;
    let (ada, name) = (person("Ada", 5), || field("name").eq("Ada"));
    let first = version(&people, "ada").await;
    for way in 0..5 {
        match way {
            0 => {
                people.replace("ada", Expected::Any, &ada).await.unwrap();
            }
            1 => {
                people.update("ada", Expected::Any, Patch::new().set("age", 5)).await.unwrap();
            }
            2 => {
                people.upsert(Filter::id("ada"), &ada).await.unwrap();
            }
            3 => {
                people.upsert(name(), &ada).await.unwrap();
            }
            _ => {
                people.update_first(name(), Patch::new().set("age", 5)).await.unwrap();
            }
        }
        assert_stale(older.replace("ada", Expected::Any, &person("Eve", 9)).await);
        assert_unchanged(&people, first + way + 1).await;
    }
    newer.replace("ada", Expected::Any, &ada).await.unwrap();
    assert!(people.delete("ada", Expected::Any).await.unwrap());
}

pub(super) async fn a_guarded_delete_all_leaves_what_a_newer_token_has_written(
    store: Arc<dyn DocumentStore>,
) {
    let people = people(&store);
    people.insert_with_id("none", &person("P", 1)).await.unwrap();
    for token in 1..=6 {
        let id = token.to_string();
        people.guarded(token).insert_with_id(&id, &person("P", 1)).await.unwrap();
    }
    let two = people.guarded(2);
    assert_eq!(two.delete_all(field("name").eq("P").and(field("age").eq(1))).await.unwrap(), 3);
    assert_eq!(people.guarded(4).delete_with_ids(&["3", "4", "5"]).await.unwrap(), 2);
    let left = people.get_all(Filter::all()).await.unwrap();
    assert_eq!(left.iter().map(|stored| stored.id.as_str()).collect::<Vec<_>>(), ["5", "6"]);
    assert_eq!(people.guarded(5).delete_all(Filter::all()).await.unwrap(), 1);
    assert_eq!(people.delete_all(Filter::all()).await.unwrap(), 1);
}

pub(super) async fn a_deleted_document_takes_its_token_with_it(store: Arc<dyn DocumentStore>) {
    let (people, older, newer) = ada(&store).await;
    assert!(newer.delete("ada", Expected::Any).await.unwrap());
    let version = older.insert_with_id("ada", &person("Ada", 5)).await.unwrap();
    assert_unchanged(&people, version).await;
    assert_stale(people.guarded(3).delete("ada", Expected::Any).await);
}

/// Holders of the tokens 1 to [`HOLDERS`] write their tokens, all at the same time and each several times. Returns the
/// tokens of the writes that have returned, each with the version that it made, in the order of the versions.
async fn race(people: Dao<Person>, guarded: bool) -> Vec<(u64, u64)> {
    let first = people.insert_with_id("ada", &person("Ada", 0)).await.unwrap();
    let barrier = Arc::new(Barrier::new(HOLDERS.try_into().unwrap()));
    let mut holders = JoinSet::new();
    for token in 1..=u64::from(HOLDERS) {
        let people = if guarded { people.guarded(token) } else { people.clone() };
        let barrier = Arc::clone(&barrier);
        holders.spawn(async move {
            let (ada, mut versions) = (person("Ada", token.cast_signed()), Vec::new());
            for round in 0..5 {
                barrier.wait().await;
                let written = match round % 3 {
                    0 => people.replace("ada", Expected::Any, &ada).await.map(|version| version.unwrap()),
                    1 => people.upsert(Filter::id("ada"), &ada).await.map(|upserted| upserted.version),
                    _ => {
                        let patch = Patch::new().set("age", ada.age);
                        people.update("ada", Expected::Any, patch).await.map(|stored| stored.unwrap().version)
                    }
                };
                match written {
                    Ok(version) => versions.push((version, token)),
                    Err(error) => assert_eq!(error.reason(), "Stale"),
                }
            }
            versions
        });
    }
    let mut committed: Vec<(u64, u64)> = holders.join_all().await.concat();
    committed.sort_unstable();
    let versions: Vec<u64> = committed.iter().map(|(version, _)| *version).collect();
    assert_eq!(
        versions,
        (first + 1..=first + committed.len() as u64).collect::<Vec<_>>(),
        "a write was lost"
    );
    let (version, token) = committed[committed.len() - 1];
    let stored = people.get("ada").await.unwrap().unwrap();
    assert_eq!((stored.version, stored.value.age), (version, token.cast_signed()));
    committed
}

fn falls(committed: &[(u64, u64)]) -> bool {
    !committed.is_sorted_by_key(|(_, token)| *token)
}

pub(super) async fn of_concurrent_writers_the_token_never_falls(store: Arc<dyn DocumentStore>) {
    let people = people(&store);
    let committed = race(people.clone(), true).await;
    assert!(!falls(&committed), "{committed:?}");
    // The last holder is never refused.
    assert_eq!(committed.iter().filter(|(_, token)| *token == u64::from(HOLDERS)).count(), 5);
    assert_stale(people.guarded(u64::from(HOLDERS) - 1).delete("ada", Expected::Any).await);
}

/// The control of the test above. It cannot miss it: all begin the second round together, when the newest has written, so the
/// oldest writes after it.
pub(super) async fn without_a_guard_an_older_writer_overwrites_a_newer_one(store: Arc<dyn DocumentStore>) {
    let committed = race(people(&store), false).await;
    assert_eq!(committed.len() as u64, u64::from(HOLDERS) * 5);
    assert!(falls(&committed), "{committed:?}");
}

pub(super) async fn a_guarded_write_of_a_taken_value_is_refused_and_an_older_token_goes_first(
    store: Arc<dyn DocumentStore>,
) {
    let accounts = accounts(&store);
    let (older, newer) = (accounts.guarded(4), accounts.guarded(6));
    let version = accounts.guarded(5).insert_with_id("ada", &of("ada@x")).await.unwrap();
    accounts.insert_with_id("bob", &of("bob@x")).await.unwrap();
    let (taken, patch) = (of("bob@x"), || Patch::new().set("email", "bob@x"));
    for expected in [Expected::Any, Expected::Version(version)] {
        assert_stale(older.replace("ada", expected.clone(), &taken).await);
        assert_stale(older.update("ada", expected.clone(), patch()).await);
        assert_clash(newer.replace("ada", expected.clone(), &taken).await, "/email");
        assert_clash(newer.update("ada", expected, patch()).await, "/email");
    }
    assert_stale(older.upsert(Filter::id("ada"), &taken).await);
    assert_stale(older.upsert(field("email").eq("ada@x"), &taken).await);
    assert_clash(newer.upsert(Filter::id("ada"), &taken).await, "/email");
    assert_clash(newer.upsert(field("email").eq("ada@x"), &taken).await, "/email");
    assert_clash(newer.upsert(Filter::id("eve"), &taken).await, "/email");
    assert_clash(newer.insert_with_id("eve", &taken).await, "/email");
    assert_clash(newer.insert_many(&[of("eve@x"), taken]).await, "/email");
    // A refused write has left no token.
    accounts.guarded(5).replace("ada", Expected::Version(version), &of("eve@x")).await.unwrap();
    let ids = newer.insert_many(&[of("ada@x"), of("cid@x")]).await.unwrap();
    for id in ids {
        assert_eq!(store.get(&UNIQUE, &id).await.unwrap().unwrap().token, 6);
        assert_stale(accounts.guarded(5).delete(&id, Expected::Any).await);
    }
}

pub(super) async fn some_fields_come_with_the_token(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    let value = account(json!({"email": "ada@x", "n": 1, "m": 2}));
    accounts.guarded(5).insert_with_id("ada", &value).await.unwrap();
    accounts.insert_with_id("bob", &of("bob@x")).await.unwrap();
    let query = Query { filter: Filter::all(), sort: Sort::by_id(), page: Page::all() };
    let found = store.find_fields(&UNIQUE, query, &["n".to_owned()]).await.unwrap();
    let found: Vec<_> =
        found.iter().map(|found| (found.id.as_str(), found.token, found.fields.len())).collect();
    assert_eq!(found, [("ada", 5, 1), ("bob", 0, 0)]);
}

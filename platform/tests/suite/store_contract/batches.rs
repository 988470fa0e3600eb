//! Batches: writes of several documents in one commit.

use std::sync::Arc;
use std::time::Duration;

use platform::error::{Error, Kind};
use platform::store::batch::MAX_STEPS;
use platform::store::{Batch, Dao, DocumentStore, Entity, Expected, Filter, Patch, RefusedStep, field};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Anything, Person, TestStore, anything, people, person, things, version};

/// A document that belongs to a [`Person`].
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Child {
    parent: String,
}

impl Entity for Child {
    const COLLECTION: &'static str = "children";
    const INDEXES: &'static [&'static str] = &["parent"];
}

fn children(store: &Arc<dyn DocumentStore>) -> Dao<Child> {
    Dao::new(Arc::clone(store))
}

fn child(parent: &str) -> Child {
    Child { parent: parent.to_owned() }
}

fn batch(store: &Arc<dyn DocumentStore>) -> Batch {
    Batch::new(Arc::clone(store))
}

/// Ada and Bob, and a thing `t` with the number 1 after two writes.
async fn filled(store: &Arc<dyn DocumentStore>) -> (Dao<Person>, Dao<Anything>) {
    let (people, things) = (people(store), things(store));
    people.insert_with_id("ada", &person("Ada", 36)).await.unwrap();
    people.insert_with_id("bob", &person("Bob", 20)).await.unwrap();
    things.insert_with_id("t", &anything(json!({"n": 0}))).await.unwrap();
    things.update("t", Expected::Any, Patch::new().set("n", 1)).await.unwrap();
    (people, things)
}

/// All documents: collection, id, version and value.
async fn contents(store: &Arc<dyn DocumentStore>) -> Vec<String> {
    let people = people(store).get_all(Filter::all()).await.unwrap();
    let things = things(store).get_all(Filter::all()).await.unwrap();
    let children = children(store).get_all(Filter::all()).await.unwrap();
    let mut lines: Vec<String> = people.iter().map(|stored| format!("{stored:?}")).collect();
    lines.extend(things.iter().map(|stored| format!("{stored:?}")));
    lines.extend(children.iter().map(|stored| format!("{stored:?}")));
    lines
}

pub(super) async fn a_batch_writes_to_several_collections(store: Arc<dyn DocumentStore>) {
    let (people, things) = filled(&store).await;
    let mut batch = batch(&store);
    let eve = batch.insert(&people, &person("Eve", 9)).unwrap();
    batch.insert_with_id(&children(&store), "c", &child("ada")).unwrap();
    let (ada, t) = (version(&people, "ada").await, version(&things, "t").await);
    batch.replace(&people, "ada", Expected::Version(ada), &person("Ada", 37)).unwrap();
    batch.update(&things, "t", Expected::OneOf(vec![t - 1, t]), Patch::new().add("n", 1)).unwrap();
    batch.delete(&people, "bob", Expected::Any).unwrap();
    let bob = version(&people, "bob").await;
    batch.require(&things, "t").unwrap();
    assert_eq!(contents(&store).await.len(), 3, "nothing is written before the commit");
    let versions = batch.commit().await.unwrap();
    assert_eq!(versions[2..], [ada + 1, t + 1, bob, t + 1]);
    let mut found = people.get_all(Filter::all()).await.unwrap();
    found.sort_by_key(|stored| stored.value.age);
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0].id, found[0].version, &found[0].value), (&eve, versions[0], &person("Eve", 9)));
    assert_eq!(
        (found[1].id.as_str(), found[1].version, &found[1].value),
        ("ada", ada + 1, &person("Ada", 37))
    );
    let thing = things.get("t").await.unwrap().unwrap();
    assert_eq!((thing.version, thing.value), (t + 1, anything(json!({"n": 2}))));
    assert_eq!(children(&store).get("c").await.unwrap().unwrap().value, child("ada"));
}

/// What adds a step to a batch.
type Add<'a> = &'a dyn Fn(&mut Batch) -> Result<(), Error>;

pub(super) async fn a_refused_step_is_named_and_undoes_all_others(store: Arc<dyn DocumentStore>) {
    let (people, things) = filled(&store).await;
    people.guarded(7).replace("bob", Expected::Any, &person("Bob", 21)).await.unwrap();
    let before = contents(&store).await;
    let eve = person("Eve", 9);
    let t = version(&things, "t").await;
    let steps: [(Add<'_>, Kind, &str, &str); 8] = [
        (
            &|b| b.replace(&people, "ada", Expected::Version(2), &eve),
            Kind::Conflict,
            "Version Conflict",
            "ada",
        ),
        (&|b| b.insert_with_id(&people, "ada", &eve), Kind::Conflict, "Document Exists", "ada"),
        (&|b| b.replace(&people.guarded(6), "bob", Expected::Any, &eve), Kind::Conflict, "Stale", "bob"),
        (&|b| b.replace(&people, "x", Expected::Any, &eve), Kind::NotFound, "No Such Document", "x"),
        (
            &|b| b.update(&people, "x", Expected::Any, Patch::new().set("age", 1)),
            Kind::NotFound,
            "No Such Document",
            "x",
        ),
        (&|b| b.delete(&people, "x", Expected::Version(1)), Kind::NotFound, "No Such Document", "x"),
        (&|b| b.require(&people, "x"), Kind::NotFound, "No Such Document", "x"),
        (
            &|b| b.update(&people, "ada", Expected::Any, Patch::new().add("name", 1)),
            Kind::BadRequest,
            "Patch Not Applicable",
            "ada",
        ),
    ];
    for (add, kind, reason, id) in steps {
        let mut batch = batch(&store);
        batch.insert_with_id(&children(&store), "c", &child("ada")).unwrap();
        batch.update(&things, "t", Expected::Version(t), Patch::new().set("n", 5)).unwrap();
        batch.delete(&people, "ada", Expected::Any).unwrap();
        batch.insert_with_id(&people, "ada", &person("Ada", 1)).unwrap();
        add(&mut batch).unwrap();
        batch.insert_with_id(&people, "late", &eve).unwrap();
        let error = batch.commit().await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (kind, reason), "{id}");
        let expected = RefusedStep { index: 4, collection: "people", id: id.to_owned() };
        assert_eq!(RefusedStep::of(&error), Some(&expected));
        assert_eq!(error.cause(), format!("step 4 of the batch was refused: people {id:?}"));
        assert_eq!(contents(&store).await, before, "{reason}");
    }
    // No document has such an id, so that is clear at once.
    for id in ["", "a\0b"] {
        let mut batch = batch(&store);
        let error = batch.require(&people, id).unwrap_err();
        assert_eq!((error.kind(), RefusedStep::of(&error).unwrap().index), (Kind::NotFound, 0));
        assert_eq!(batch.insert_with_id(&people, id, &eve).unwrap_err().kind(), Kind::BadRequest);
    }
}

pub(super) async fn the_steps_of_one_document_happen_in_order(store: Arc<dyn DocumentStore>) {
    let (people, _) = filled(&store).await;
    let mut first = batch(&store);
    first.insert_with_id(&people, "eve", &person("Eve", 1)).unwrap();
    first.update(&people, "eve", Expected::Any, Patch::new().add("age", 1)).unwrap();
    first.require(&people, "eve").unwrap();
    first.replace(&people, "eve", Expected::Any, &person("Eva", 3)).unwrap();
    first.delete(&people, "ada", Expected::Any).unwrap();
    first.insert_with_id(&people, "ada", &person("Ada", 1)).unwrap();
    first.insert_with_id(&people, "gone", &person("Gone", 1)).unwrap();
    first.delete(&people, "gone", Expected::Any).unwrap();
    let old = version(&people, "ada").await;
    let versions = first.commit().await.unwrap();
    let eve = versions[0];
    assert_eq!(versions[..5], [eve, eve + 1, eve + 1, eve + 2, old]);
    assert!(versions[5] > old && versions[6] == versions[7], "{versions:?}");
    let eve = people.get("eve").await.unwrap().unwrap();
    assert_eq!((eve.version, eve.value), (versions[3], person("Eva", 3)));
    let ada = people.get("ada").await.unwrap().unwrap();
    assert_eq!((ada.version, ada.value), (versions[5], person("Ada", 1)));
    assert!(people.get("gone").await.unwrap().is_none());
    let before = contents(&store).await;
    let mut twice = batch(&store);
    twice.insert_with_id(&people, "x", &person("X", 1)).unwrap();
    twice.insert_with_id(&people, "x", &person("X", 2)).unwrap();
    let error = twice.commit().await.unwrap_err();
    assert_eq!((error.reason(), RefusedStep::of(&error).unwrap().index), ("Document Exists", 1));
    let mut orphan = batch(&store);
    orphan.delete(&people, "ada", Expected::Any).unwrap();
    orphan.insert(&children(&store), &child("ada")).unwrap();
    orphan.require(&people, "ada").unwrap();
    let error = orphan.commit().await.unwrap_err();
    assert_eq!((error.kind(), RefusedStep::of(&error).unwrap().index), (Kind::NotFound, 2));
    assert_eq!(contents(&store).await, before);
}

pub(super) async fn a_batch_has_limits_and_a_store(store: Arc<dyn DocumentStore>) {
    let (people, _) = filled(&store).await;
    let before = contents(&store).await;
    assert_eq!(batch(&store).commit().await.unwrap(), [0; 0]);
    let mut dropped = batch(&store);
    dropped.delete(&people, "ada", Expected::Any).unwrap();
    drop(dropped);
    let mut invalid = batch(&store);
    let error = invalid.insert(&people, &person("a\0b", 1)).unwrap_err();
    assert_eq!(error.errors()[0].pointer, "/name");
    assert_eq!(
        invalid.delete(&people.guarded(1 << 63), "ada", Expected::Any).unwrap_err().kind(),
        Kind::Internal
    );
    let other = super::people(&TestStore::memory().open().await);
    assert_eq!(invalid.insert(&other, &person("Eve", 1)).unwrap_err().kind(), Kind::Internal);
    let mut many = batch(&store);
    for _ in 0..MAX_STEPS {
        many.insert(&people, &person("Many", 1)).unwrap();
    }
    let mut too_many = many.clone();
    too_many.require(&people, "ada").unwrap();
    assert_eq!(too_many.commit().await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(contents(&store).await, before);
    assert_eq!(many.commit().await.unwrap().len(), MAX_STEPS);
    assert_eq!(people.count(field("name").eq("Many")).await.unwrap(), 100);
}

pub(super) async fn a_guarded_step_leaves_its_token(store: Arc<dyn DocumentStore>) {
    let (people, _) = filled(&store).await;
    let mut batch = batch(&store);
    batch.replace(&people.guarded(3), "ada", Expected::Any, &person("Ada", 1)).unwrap();
    batch.insert_with_id(&people.guarded(4), "eve", &person("Eve", 1)).unwrap();
    batch.update(&people, "ada", Expected::Any, Patch::new().set("age", 2)).unwrap();
    batch.commit().await.unwrap();
    for (id, token) in [("ada", 3), ("eve", 4)] {
        let older = people.guarded(token - 1).delete(id, Expected::Any).await;
        assert_eq!(older.unwrap_err().reason(), "Stale");
        assert!(people.guarded(token).delete(id, Expected::Any).await.unwrap());
    }
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_micros(fastrand::u64(..5000))).await;
}

/// Deletes a parent, and then its children.
async fn delete_family(store: &Arc<dyn DocumentStore>, parent: &str) {
    assert!(people(store).delete(parent, Expected::Any).await.unwrap());
    children(store).delete_all(field("parent").eq(parent)).await.unwrap();
}

async fn orphans(store: &Arc<dyn DocumentStore>) -> usize {
    let parents: Vec<String> =
        people(store).get_all(Filter::all()).await.unwrap().into_iter().map(|parent| parent.id).collect();
    let children = children(store).get_all(Filter::all()).await.unwrap();
    children.iter().filter(|child| !parents.contains(&child.value.parent)).count()
}

pub(super) async fn a_child_is_stored_only_while_its_parent_is_there(store: Arc<dyn DocumentStore>) {
    let (mut stored, mut refused) = (0, 0);
    for round in 0..200 {
        let parent = format!("p{round}");
        people(&store).insert_with_id(&parent, &person("Parent", 1)).await.unwrap();
        let mut batch = batch(&store);
        if round % 2 == 0 {
            batch.require(&people(&store), &parent).unwrap();
            batch.insert(&children(&store), &child(&parent)).unwrap();
        } else {
            batch.insert(&children(&store), &child(&parent)).unwrap();
            batch.require(&people(&store), &parent).unwrap();
        }
        let (committing, committed) = tokio::sync::oneshot::channel::<()>();
        let deletion = {
            let (store, parent) = (Arc::clone(&store), parent.clone());
            tokio::spawn(async move {
                if round % 3 == 1 {
                    a_moment().await;
                }
                // The last but one: the child is stored first.
                if round == 198 {
                    let _ = committed.await;
                }
                delete_family(&store, &parent).await;
            })
        };
        // Now and then the one has a start, now and then the other.
        if round % 3 == 0 {
            a_moment().await;
        }
        // The last: the parent is deleted first.
        let result = if round == 199 {
            deletion.await.unwrap();
            batch.commit().await
        } else {
            let result = batch.commit().await;
            drop(committing);
            deletion.await.unwrap();
            result
        };
        match result {
            Ok(_) => stored += 1,
            Err(error) => {
                assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
                refused += 1;
            }
        }
        assert_eq!(orphans(&store).await, 0, "round {round}");
    }
    assert!(stored > 0 && refused > 0, "{stored} stored, {refused} refused");
    // The control: without a batch, what was looked up may be gone at the insert.
    people(&store).insert_with_id("p", &person("Parent", 1)).await.unwrap();
    let found = people(&store).get("p").await.unwrap().is_some();
    delete_family(&store, "p").await;
    assert!(found);
    children(&store).insert(&child("p")).await.unwrap();
    assert_eq!(orphans(&store).await, 1);
}

pub(super) async fn batches_in_opposite_order_all_succeed(store: Arc<dyn DocumentStore>) {
    opposite_order(&[store]).await;
}

/// Writers with these handles, in turn, add to the same two documents: half of them in the opposite order.
pub(super) async fn opposite_order(handles: &[Arc<dyn DocumentStore>]) {
    const WRITERS: usize = 8;
    const ROUNDS: i64 = 15;
    let all = things(&handles[0]);
    let mut first = Vec::new();
    for id in ["a", "b"] {
        first.push(all.insert_with_id(id, &anything(json!({"n": 0}))).await.unwrap());
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&handles[writer / 2 % handles.len()]);
        writers.spawn(async move {
            let things = things(&store);
            let ids = if writer % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
            for round in 0..ROUNDS {
                let mut batch = batch(&store);
                for (number, id) in ids.into_iter().enumerate() {
                    // Some require first what they change.
                    if number == 0 && round % 3 == 0 {
                        batch.require(&things, id).unwrap();
                    }
                    batch.update(&things, id, Expected::Any, Patch::new().add("n", 1)).unwrap();
                }
                batch.commit().await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let sum = i64::try_from(WRITERS).unwrap() * ROUNDS;
    for (id, first) in ["a", "b"].into_iter().zip(first) {
        let stored = all.get(id).await.unwrap().unwrap();
        assert_eq!(
            (stored.value, stored.version),
            (anything(json!({"n": sum})), first + sum.cast_unsigned())
        );
    }
}

/// Of several batches that expect the same versions of the same documents, one is committed.
pub(super) async fn one_of_many_batches_with_the_same_version_wins(store: Arc<dyn DocumentStore>) {
    let (people, things) = filled(&store).await;
    let t = version(&things, "t").await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let mut batch = batch(&store);
        batch.update(&things, "t", Expected::Version(t), Patch::new().set("n", writer)).unwrap();
        batch.insert(&children(&store), &child(&writer.to_string())).unwrap();
        batch.replace(&people, "ada", Expected::Any, &person("Ada", writer)).unwrap();
        writers.spawn(async move { batch.commit().await.map(|_| writer) });
    }
    let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.into_iter().all(|result| result.unwrap_err().reason() == "Version Conflict"));
    let winner = *won[0].as_ref().unwrap();
    assert_eq!(things.get("t").await.unwrap().unwrap().value, anything(json!({"n": winner})));
    assert_eq!(people.get("ada").await.unwrap().unwrap().value.age, winner);
    let children = children(&store).get_all(Filter::all()).await.unwrap();
    assert_eq!(children.iter().map(|one| &one.value).collect::<Vec<_>>(), [&child(&winner.to_string())]);
}

/// Not for files, which say that readers may see the middle.
pub(super) async fn readers_see_both_documents_of_a_batch_or_none(store: Arc<dyn DocumentStore>) {
    const ROUNDS: usize = 40;
    let (people, kids) = (people(&store), children(&store));
    // Before the race: the tables are there.
    assert_eq!(people.count(Filter::all()).await.unwrap() + kids.count(Filter::all()).await.unwrap(), 0);
    let writer = {
        let (store, people, kids) = (Arc::clone(&store), people.clone(), kids.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let mut batch = batch(&store);
                for half in ["x", "y"] {
                    batch.insert_with_id(&people, &format!("{round}{half}"), &person("Both", 1)).unwrap();
                    batch.insert_with_id(&kids, &format!("{round}{half}"), &child("Both")).unwrap();
                }
                batch.commit().await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while seen < 2 * ROUNDS {
        let here = people.count(Filter::all()).await.unwrap();
        // What is read later has at least all that was read before.
        let there = kids.get_all(Filter::all()).await.unwrap().len();
        let here_again = people.get_all(Filter::all()).await.unwrap().len();
        assert!(here % 2 == 0 && there % 2 == 0 && here_again % 2 == 0, "{here} {there} {here_again}");
        assert!(here <= there as u64 && there <= here_again, "{here} {there} {here_again}");
        seen = here_again;
    }
    writer.await.unwrap();
}

/// What an engine without transactions does.
#[cfg(feature = "mongodb")]
pub(super) async fn assert_refused(store: &Arc<dyn DocumentStore>, url: &str, refusal: Error) {
    use platform::App;
    use platform::http::Routes;
    use platform::services::Services;
    use platform::testing::{NoSettings, SERVICE};

    assert_eq!(refusal.kind(), Kind::Internal);
    assert!(refusal.cause().contains("make it a replica set"), "{}", refusal.cause());
    let mut batch = batch(store);
    batch.insert(&people(store), &person("Ada", 36)).unwrap();
    let error = batch.commit().await.unwrap_err();
    assert_eq!((error.kind(), error.cause()), (Kind::Internal, refusal.cause()));
    assert_eq!(people(store).count(Filter::all()).await.unwrap(), 0);
    // An app that needs batches does not start; the control does.
    let app = || App::new(async |services, _| Ok(services), |_: &NoSettings| Routes::<Services>::new());
    let environment = || [("SERVER__STORE__URL".into(), url.into())];
    let error = app().needs_batches().into_router(&SERVICE, environment()).await.unwrap_err();
    assert_eq!(error.exit_code, 1);
    let message = error.to_string();
    assert!(message.starts_with("this app needs batches: store mongodb://"), "{message}");
    assert!(message.contains("make it a replica set") && !message.contains('\n'), "{message}");
    drop(app().into_router(&SERVICE, environment()).await.unwrap());
    // A server that does not respond is not refused.
    let environment = [
        ("SERVER__STORE__URL".into(), "mongodb://127.0.0.1:9/none".into()),
        ("SERVER__STORE__TIMEOUT".into(), "200ms".into()),
    ];
    drop(app().needs_batches().into_router(&SERVICE, environment).await.unwrap());
}

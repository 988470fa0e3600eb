//! Unique paths inside of a batch.

use std::sync::Arc;

use platform::error::Error;
use platform::store::{Batch, Dao, DocumentStore, Entity as _, Expected, Filter, Patch, RefusedStep, Stored};
use serde_json::json;
use tokio::task::JoinSet;

use super::unique::{Account, account, accounts, assert_clash, of};
use super::{anything, things, version};

fn batch(store: &Arc<dyn DocumentStore>) -> Batch {
    Batch::new(Arc::clone(store))
}

/// Ada and Bob.
async fn filled(store: &Arc<dyn DocumentStore>) -> Dao<Account> {
    let accounts = accounts(store);
    let ada = account(json!({"email": "ada@x", "key": {"it's": 7}}));
    accounts.insert_with_id("ada", &ada).await.unwrap();
    accounts.insert_with_id("bob", &of("bob@x")).await.unwrap();
    accounts
}

async fn all(accounts: &Dao<Account>) -> Vec<Stored<Account>> {
    accounts.get_all(Filter::all()).await.unwrap()
}

/// Asserts that a batch was refused because of the value of this step at this pointer.
#[track_caller]
fn assert_step_clashes(result: Result<Vec<u64>, Error>, index: usize, id: &str, pointer: &str) {
    let Err(error) = result else { panic!("{id}: not refused") };
    let expected = RefusedStep { index, collection: Account::COLLECTION, id: id.to_owned() };
    assert_eq!(RefusedStep::of(&error), Some(&expected));
    assert_clash(Err::<(), _>(error), pointer);
}

pub(super) async fn a_step_with_the_value_of_a_stored_document_is_refused(store: Arc<dyn DocumentStore>) {
    let (accounts, things) = (filled(&store).await, things(&store));
    let before = all(&accounts).await;
    for (pointer, taken) in [
        ("/email", json!({"email": "ada@x"})),
        ("/key/it's", json!({"email": "new@x", "key": {"it's": 7.0}})),
    ] {
        let new = account(taken.clone());
        let patch = taken
            .as_object()
            .unwrap()
            .iter()
            .fold(Patch::new(), |patch, (key, value)| patch.set(key, value.clone()));
        let start = || {
            let mut batch = batch(&store);
            batch.insert_with_id(&things, "t", &anything(json!({"a": 1}))).unwrap();
            batch.insert_with_id(&accounts, "eve", &of("eve@x")).unwrap();
            batch
        };
        let mut insert = start();
        insert.insert_with_id(&accounts, "cid", &new).unwrap();
        insert.insert_with_id(&accounts, "dan", &of("dan@x")).unwrap();
        assert_step_clashes(insert.commit().await, 2, "cid", pointer);
        let mut replace = start();
        let bob = version(&accounts, "bob").await;
        replace.replace(&accounts, "bob", Expected::Version(bob), &new).unwrap();
        assert_step_clashes(replace.commit().await, 2, "bob", pointer);
        let mut update = start();
        update.update(&accounts.guarded(3), "bob", Expected::Any, patch).unwrap();
        update.delete(&accounts, "bob", Expected::Any).unwrap();
        assert_step_clashes(update.commit().await, 2, "bob", pointer);
        assert_eq!(all(&accounts).await, before);
        assert!(things.get("t").await.unwrap().is_none());
    }
    // A document may keep its own value.
    let ada = version(&accounts, "ada").await;
    let mut same = batch(&store);
    same.update(&accounts, "ada", Expected::Any, Patch::new().set("email", "ada@x")).unwrap();
    same.replace(&accounts, "ada", Expected::Version(ada + 1), &of("ada@x")).unwrap();
    assert_eq!(same.commit().await.unwrap(), [ada + 1, ada + 2]);
}

pub(super) async fn two_steps_with_the_same_value_are_refused(store: Arc<dyn DocumentStore>) {
    let accounts = filled(&store).await;
    let before = all(&accounts).await;
    let mut inserts = batch(&store);
    inserts.insert_with_id(&accounts, "cid", &of("cid@x")).unwrap();
    inserts.insert_with_id(&accounts, "dan", &of("cid@x")).unwrap();
    assert_step_clashes(inserts.commit().await, 1, "dan", "/email");
    let mut changes = batch(&store);
    changes.update(&accounts, "ada", Expected::Any, Patch::new().set("email", "cid@x")).unwrap();
    changes.require(&accounts, "ada").unwrap();
    changes.replace(&accounts, "bob", Expected::Any, &of("cid@x")).unwrap();
    assert_step_clashes(changes.commit().await, 2, "bob", "/email");
    // Two documents cannot exchange their values at once: the first step clashes before the second one.
    let mut exchange = batch(&store);
    exchange.replace(&accounts, "ada", Expected::Any, &of("bob@x")).unwrap();
    exchange.replace(&accounts, "bob", Expected::Any, &of("ada@x")).unwrap();
    assert_step_clashes(exchange.commit().await, 0, "ada", "/email");
    assert_eq!(all(&accounts).await, before);
    // What never clashes in a store does not in a batch.
    let mut nulls = batch(&store);
    nulls.insert_with_id(&accounts, "cid", &of(json!(null))).unwrap();
    nulls.insert_with_id(&accounts, "dan", &of(json!(null))).unwrap();
    nulls.insert_with_id(&accounts, "eve", &of(json!([1]))).unwrap();
    nulls.insert_with_id(&accounts, "fay", &of(json!([1]))).unwrap();
    assert_eq!(nulls.commit().await.unwrap().len(), 4);
}

pub(super) async fn a_value_that_an_earlier_step_has_freed_can_be_taken(store: Arc<dyn DocumentStore>) {
    let accounts = filled(&store).await;
    let (ada, bob) = (version(&accounts, "ada").await, version(&accounts, "bob").await);
    let mut moved = batch(&store);
    moved.update(&accounts, "ada", Expected::Any, Patch::new().unset("email")).unwrap();
    moved.insert_with_id(&accounts, "cid", &of("ada@x")).unwrap();
    moved.delete(&accounts, "bob", Expected::Any).unwrap();
    moved.update(&accounts, "ada", Expected::Any, Patch::new().set("email", "bob@x")).unwrap();
    let versions = moved.commit().await.unwrap();
    assert_eq!((versions[0], versions[2], versions[3]), (ada + 1, bob, ada + 2));
    let emails = async || {
        let found = all(&accounts).await.into_iter();
        found.map(|stored| (stored.id, stored.value.fields()["email"].clone())).collect::<Vec<_>>()
    };
    let expected = [("ada".to_owned(), json!("bob@x")), ("cid".to_owned(), json!("ada@x"))];
    assert_eq!(emails().await, expected);
    // An exchange by way of no value.
    let mut exchange = batch(&store);
    exchange.update(&accounts, "ada", Expected::Any, Patch::new().unset("email")).unwrap();
    exchange.replace(&accounts, "cid", Expected::Any, &of("bob@x")).unwrap();
    exchange.update(&accounts, "ada", Expected::Any, Patch::new().set("email", "ada@x")).unwrap();
    exchange.commit().await.unwrap();
    let exchanged = [("ada".to_owned(), json!("ada@x")), ("cid".to_owned(), json!("bob@x"))];
    assert_eq!(emails().await, exchanged);
    // A refused batch gives back what it had freed: to its document, and not to anybody else.
    let mut refused = batch(&store);
    refused.delete(&accounts, "ada", Expected::Any).unwrap();
    refused.replace(&accounts, "cid", Expected::Any, &of("ada@x")).unwrap();
    refused.require(&accounts, "nobody").unwrap();
    assert_eq!(RefusedStep::of(&refused.commit().await.unwrap_err()).unwrap().index, 2);
    assert_eq!(emails().await, exchanged);
    assert_clash(accounts.insert(&of("ada@x")).await, "/email");
    assert_clash(accounts.insert(&of("bob@x")).await, "/email");
}

pub(super) async fn of_several_reasons_to_refuse_a_step_the_value_is_the_last(store: Arc<dyn DocumentStore>) {
    let accounts = filled(&store).await;
    accounts.guarded(5).replace("bob", Expected::Any, &of("bob@x")).await.unwrap();
    let taken = of("ada@x");
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(batch(&store));
    }
    steps[0].insert_with_id(&accounts, "bob", &taken).unwrap();
    steps[1].replace(&accounts.guarded(4), "bob", Expected::Any, &taken).unwrap();
    steps[2].replace(&accounts, "bob", Expected::Version(1), &taken).unwrap();
    steps[3].replace(&accounts, "nobody", Expected::Any, &taken).unwrap();
    for (batch, reason) in
        steps.into_iter().zip(["Document Exists", "Stale", "Version Conflict", "No Such Document"])
    {
        assert_eq!(batch.commit().await.unwrap_err().reason(), reason);
    }
}

/// Half of the batches store the values in the opposite order.
pub(super) async fn one_of_many_batches_with_the_same_values_wins(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    for round in 0..5 {
        let mut writers = JoinSet::new();
        for writer in 0..6 {
            let mut values = [of(format!("a{round}@x")), of(format!("b{round}@x"))];
            if writer % 2 == 0 {
                values.reverse();
            }
            let mut batch = batch(&store);
            for value in &values {
                batch.insert(&accounts, value).unwrap();
            }
            writers.spawn(batch.commit());
        }
        let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 5), "{lost:?}");
        for refused in lost {
            assert_clash(refused, "/email");
        }
        assert_eq!(accounts.count(Filter::all()).await.unwrap(), 2 * (round + 1));
    }
}

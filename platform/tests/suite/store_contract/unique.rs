//! Unique paths: what clashes, on each kind of write, and with many writers at the same time.

use std::pin::Pin;
use std::sync::Arc;

use platform::error::{Error, Kind};
use platform::store::query::Predicate;
use platform::store::{
    Change, Collection, Dao, Document, DocumentStore, Entity, Expected, Fields, Filter, Patch, Stored, Write,
    field,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::version;

/// Any object, with two unique paths.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Account(Fields);

impl Entity for Account {
    const COLLECTION: &'static str = "accounts";
    const INDEXES: &'static [&'static str] = &["email"];
    const UNIQUE: &'static [&'static str] = &["email", "key.it's"];
}

impl Account {
    pub(super) fn fields(self) -> Fields {
        self.0
    }
}

/// The accounts as they were before a path was declared unique.
pub(super) static PLAIN: Collection = Collection::new("accounts", &["email"]);
/// The accounts as [`Account`] declares them.
pub(super) static UNIQUE: Collection = Collection::new("accounts", &["email"]).unique(&["email", "key.it's"]);

pub(super) fn accounts(store: &Arc<dyn DocumentStore>) -> Dao<Account> {
    Dao::new(Arc::clone(store))
}

pub(super) fn account(value: Value) -> Account {
    serde_json::from_value(value).unwrap()
}

pub(super) fn of(email: impl Into<Value>) -> Account {
    account(json!({"email": email.into()}))
}

/// Asserts that a write was refused because of this pointer, and that its error does not tell the value.
#[track_caller]
pub(super) fn assert_clash<T>(result: Result<T, Error>, pointer: &str) {
    let Err(error) = result else { panic!("{pointer}: not refused") };
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, "Value Exists"), "{error:?}");
    let pointers: Vec<&str> = error.errors().iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, [pointer], "{error:?}");
    let told = format!("{error:?} {:?}", error.errors());
    assert!(!told.contains("ada@") && !told.contains("bob@"), "{told}");
}

async fn all(accounts: &Dao<Account>) -> Vec<Stored<Account>> {
    accounts.get_all(Filter::all()).await.unwrap()
}

pub(super) async fn a_value_of_another_document_is_refused_by_every_write(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    let ada = account(json!({"email": "ada@x", "key": {"it's": 7}}));
    accounts.insert_with_id("ada", &ada).await.unwrap();
    accounts.insert_with_id("bob", &of("bob@x")).await.unwrap();
    let before = all(&accounts).await;
    for (pointer, taken) in [
        ("/email", json!({"email": "ada@x"})),
        ("/key/it's", json!({"email": "new@x", "key": {"it's": 7.0}})),
        ("/email", json!({"email": "ada@x", "key": {"it's": 8}})),
    ] {
        let new = account(taken.clone());
        let patch = || {
            let fields = taken.as_object().unwrap().iter();
            fields.fold(Patch::new(), |patch, (key, value)| patch.set(key, value.clone()))
        };
        assert_clash(accounts.insert(&new).await, pointer);
        assert_clash(accounts.insert_with_id("cid", &new).await, pointer);
        assert_clash(accounts.insert_many(&[of("cid@x"), new.clone(), of("dan@x")]).await, pointer);
        assert_clash(accounts.replace("bob", Expected::Any, &new).await, pointer);
        let bob = version(&accounts, "bob").await;
        assert_clash(accounts.replace("bob", Expected::Version(bob), &new).await, pointer);
        assert_clash(accounts.update("bob", Expected::Any, patch()).await, pointer);
        assert_clash(accounts.update_first(field("email").eq("bob@x"), patch()).await, pointer);
        assert_clash(accounts.upsert(Filter::id("bob"), &new).await, pointer);
        assert_clash(accounts.upsert(Filter::id("cid"), &new).await, pointer);
        assert_clash(accounts.upsert(field("email").eq("bob@x"), &new).await, pointer);
        assert_clash(accounts.upsert(field("email").eq("nobody@x"), &new).await, pointer);
        let modified = accounts.modify("bob", |bob| {
            *bob = new.clone();
            Ok(())
        });
        assert_clash(modified.await, pointer);
        assert_eq!(all(&accounts).await, before);
    }
    // A document may keep its own value, by every write.
    let first = version(&accounts, "ada").await;
    accounts.replace("ada", Expected::Version(first), &ada).await.unwrap();
    accounts.update("ada", Expected::Any, Patch::new().set("email", "ada@x").set("n", 1)).await.unwrap();
    accounts.upsert(Filter::id("ada"), &ada).await.unwrap();
    assert!(!accounts.upsert(field("email").eq("ada@x"), &ada).await.unwrap().created);
    assert_eq!(version(&accounts, "ada").await, first + 4);
}

pub(super) async fn an_id_that_exists_goes_before_a_value_that_exists(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    accounts.insert_with_id("ada", &of("ada@x")).await.unwrap();
    let refused = accounts.insert_with_id("ada", &of("ada@x")).await.unwrap_err();
    assert_eq!(refused.reason(), "Document Exists");
    let insert = |emails: &[(&str, &str)]| {
        let new =
            emails.iter().map(|(id, email)| Document::new((*id).to_owned(), Arc::new(of(*email).0), None));
        store.write(&UNIQUE, Write::Insert(new.collect()))
    };
    for new in [
        [("bob", "ada@x"), ("ada", "bob@x")],
        [("ada", "bob@x"), ("bob", "ada@x")],
        [("bob", "ada@x"), ("bob", "bob@x")],
        [("bob", "bob@x"), ("ada", "bob@x")],
    ] {
        assert_eq!(insert(&new).await.unwrap_err().reason(), "Document Exists", "{new:?}");
    }
    assert_eq!(accounts.count(Filter::all()).await.unwrap(), 1);
    assert_clash(insert(&[("bob", "ada@x"), ("cid", "cid@x")]).await, "/email");
}

pub(super) async fn values_that_no_filter_finds_never_clash(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    let values = [
        json!({"email": null}),
        json!({}),
        json!({"email": {}}),
        json!({"email": {"a": 1}}),
        json!({"email": []}),
        json!({"email": ["ada@x"]}),
        json!({"email": [null]}),
        json!({"email": [[]]}),
        json!({"email": {"a": ["ada@x"]}}),
        json!({"key": null}),
        json!({"key": []}),
        json!({"key": [{"it's": 1}]}),
        json!({"key": {"it's": [1]}}),
        json!({"key": "it's"}),
    ];
    let values: Vec<Account> = values.into_iter().map(account).collect();
    accounts.insert_many(&values).await.unwrap();
    accounts.insert_many(&values).await.unwrap();
    for value in &values {
        accounts.insert(value).await.unwrap();
        let id = accounts.upsert(Filter::id("one"), value).await.unwrap().id;
        accounts.update(&id, Expected::Any, Patch::new().set("email", Value::Null)).await.unwrap();
    }
    // The element of an array is not the value of the field.
    accounts.insert(&of("ada@x")).await.unwrap();
    accounts.insert(&account(json!({"key": {"it's": 1}}))).await.unwrap();
    assert_eq!(accounts.count(Filter::all()).await.unwrap(), 3 * values.len() as u64 + 3);
}

pub(super) async fn equality_is_that_of_a_filter(store: Arc<dyn DocumentStore>) {
    const LARGE: i64 = 9_007_199_254_740_992;
    let accounts = accounts(&store);
    let values = [
        json!(0),
        json!(-0.0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!("1"),
        json!("1.0"),
        json!(true),
        json!(false),
        json!("true"),
        json!(""),
        json!("ada"),
        json!("Ada"),
        json!("ada "),
        json!("é"),
        json!("e\u{301}"),
        json!(r"\141da"),
        json!(r"\\141da"),
        json!("\\"),
        json!("\\\\"),
        json!("\u{10ffff}"),
        json!(LARGE),
        json!(9_007_199_254_740_992.0_f64),
        json!(LARGE + 1),
        json!(-LARGE - 1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(9_223_372_036_854_775_808.0_f64),
        json!(9_223_372_036_854_775_808_u64),
        json!(u64::MAX),
        json!(u64::MAX - 1),
        json!(1e40),
        json!(1.000_000_1e40),
        json!(1e-40),
    ];
    let mut equal = 0;
    for one in &values {
        accounts.delete_all(Filter::all()).await.unwrap();
        accounts.insert_with_id("one", &of(one.clone())).await.unwrap();
        for other in &values {
            // Two operands above 2⁶³−1 cannot be in a filter: such a value is found by its float.
            let operand = match other.as_u64().filter(|integer| i64::try_from(*integer).is_err()) {
                Some(_) => json!(other.as_f64().unwrap()),
                None => other.clone(),
            };
            let same = accounts
                .exists(Filter::Field("email".to_owned(), Predicate::In(vec![operand.try_into().unwrap()])));
            let same = same.await.unwrap();
            let inserted = accounts.insert_with_id("other", &of(other.clone())).await;
            if same {
                assert_clash(inserted, "/email");
                equal += usize::from(one != other);
            } else {
                inserted.unwrap_or_else(|error| panic!("{one} and {other}: {error:?}"));
                accounts.delete("other", Expected::Any).await.unwrap();
            }
        }
    }
    // 0 and −0.0, 1 and 1.0, 2⁵³ twice, 2⁶³ twice, the two largest integers: each in both orders.
    assert_eq!(equal, 10);
}

pub(super) async fn texts_of_any_length_are_compared_to_their_end(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    for length in [299, 3_000, 100_000] {
        // Text that cannot be compressed much.
        let start: String = (0..length).map(|_| fastrand::alphanumeric()).collect();
        accounts.insert(&of(format!("{start}a"))).await.unwrap();
        accounts.insert(&of(format!("{start}b"))).await.unwrap();
        accounts.insert(&of(start.clone())).await.unwrap();
        for taken in [format!("{start}a"), format!("{start}b"), start] {
            assert_clash(accounts.insert(&of(taken)).await, "/email");
        }
    }
    assert_eq!(accounts.count(Filter::all()).await.unwrap(), 9);
}

pub(super) async fn a_value_is_free_again_when_its_document_has_lost_it(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    let free = async |step: &str| {
        accounts
            .insert_with_id("next", &of("ada@x"))
            .await
            .unwrap_or_else(|error| panic!("{step}: {error:?}"));
        assert_clash(accounts.insert(&of("ada@x")).await, "/email");
        accounts.delete_all(Filter::all()).await.unwrap();
        accounts.insert_with_id("ada", &of("ada@x")).await.unwrap();
        assert_clash(accounts.insert(&of("ada@x")).await, "/email");
    };
    accounts.insert_with_id("ada", &of("ada@x")).await.unwrap();
    accounts.delete("ada", Expected::Any).await.unwrap();
    free("delete").await;
    accounts.delete_first(field("email").eq("ada@x")).await.unwrap();
    free("delete_first").await;
    accounts.delete_all(field("email").eq("ada@x")).await.unwrap();
    free("delete_all").await;
    accounts.replace("ada", Expected::Any, &of("other@x")).await.unwrap();
    free("replace").await;
    accounts.update("ada", Expected::Any, Patch::new().unset("email")).await.unwrap();
    free("update").await;
    accounts.upsert(Filter::id("ada"), &of(Value::Null)).await.unwrap();
    free("upsert").await;
    // What was refused holds nothing either.
    assert_clash(accounts.insert_many(&[of("a"), of("ada@x")]).await, "/email");
    assert_clash(accounts.insert_many(&[of("b"), of("b")]).await, "/email");
    accounts.insert_many(&[of("a"), of("b")]).await.unwrap();
}

pub(super) async fn an_insert_of_many_that_clashes_stores_none(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    assert_clash(accounts.insert_many(&[of("x"), of("y"), of("x")]).await, "/email");
    let keys = [1, 2, 1].map(|n| account(json!({"email": null, "key": {"it's": n}})));
    assert_clash(accounts.insert_many(&keys).await, "/key/it's");
    assert_eq!(accounts.count(Filter::all()).await.unwrap(), 0);
    let many: Vec<Account> = (0..300).map(of).collect();
    accounts.insert_many(&many).await.unwrap();
    let more: Vec<Account> = (299..600).map(of).collect();
    assert_clash(accounts.insert_many(&more).await, "/email");
    assert_eq!(accounts.count(Filter::all()).await.unwrap(), 300);
    accounts.insert_many(&more[1..]).await.unwrap();
}

type WriteResult = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
/// The name of a race, and what a writer does with its document and its number.
type Race = (&'static str, fn(Dao<Account>, String, usize) -> WriteResult);

/// 50 writers of one value: one has it, and the others are refused. The accounts of `daos` are one collection.
pub(super) async fn race(daos: &[Dao<Account>]) {
    let accounts = &daos[0];
    let ids = accounts.insert_many(&(0..50).map(of).collect::<Vec<_>>()).await.unwrap();
    let races: [Race; 6] = [
        ("insert", |accounts, _, _| Box::pin(async move { accounts.insert(&of("one")).await.map(drop) })),
        ("upsert", |accounts, _, n| {
            let id = Filter::id(format!("new-{n}"));
            Box::pin(async move { accounts.upsert(id, &of("one")).await.map(drop) })
        }),
        ("upsert of another", |accounts, _, n| {
            let none = field("email").eq(format!("none-{n}"));
            Box::pin(async move { accounts.upsert(none, &of("one")).await.map(drop) })
        }),
        ("replace", |accounts, id, _| {
            Box::pin(async move { accounts.replace(&id, Expected::Any, &of("one")).await.map(drop) })
        }),
        ("update", |accounts, id, _| {
            let patch = Patch::new().set("email", "one");
            Box::pin(async move { accounts.update(&id, Expected::Any, patch).await.map(drop) })
        }),
        ("insert_many", |accounts, _, n| {
            let many = [of(format!("beside-{n}")), of("one")];
            Box::pin(async move { accounts.insert_many(&many).await.map(drop) })
        }),
    ];
    for (name, write) in races {
        let mut writers = JoinSet::new();
        for (n, id) in ids.iter().enumerate() {
            writers.spawn(write(daos[n % daos.len()].clone(), id.clone(), n));
        }
        let (won, lost): (Vec<_>, Vec<_>) = writers.join_all().await.into_iter().partition(Result::is_ok);
        for lost in lost {
            assert_clash(lost, "/email");
        }
        assert_eq!((name, won.len()), (name, 1));
        assert_eq!(accounts.count(field("email").eq("one")).await.unwrap(), 1, "{name}");
        let beside = accounts.count(field("email").starts_with("beside-")).await.unwrap();
        assert_eq!(beside, u64::from(name == "insert_many"));
        accounts.delete_all(Filter::all()).await.unwrap();
        for (n, id) in ids.iter().enumerate() {
            accounts.insert_with_id(id, &of(n)).await.unwrap();
        }
    }
}

pub(super) async fn one_of_many_writers_of_a_value_wins(store: Arc<dyn DocumentStore>) {
    race(&[accounts(&store)]).await;
}

/// Inserts of three values each, which overlap in every way and come in every order. `account` makes the document of a
/// value, the position of that in the insert, and the number of the writer.
async fn insert_overlapping(
    store: &Arc<dyn DocumentStore>,
    writers: usize,
    account: fn(usize, usize, usize) -> Account,
) {
    let accounts = accounts(store);
    let mut inserts = JoinSet::new();
    for n in 0..writers {
        let accounts = accounts.clone();
        inserts.spawn(async move {
            let values = [n % 13, n * 5 % 13, n * 7 % 13];
            let many = [0, 1, 2].map(|position| account(values[position], position, n));
            (n, values, accounts.insert_many(&many).await)
        });
    }
    let mut stored = Vec::new();
    for (n, values, result) in inserts.join_all().await {
        match result {
            Ok(_) => stored.push((n, values)),
            Err(error) => assert_eq!(error.reason(), "Value Exists", "{error:?}"),
        }
    }
    assert!(!stored.is_empty());
    let mut expected: Vec<_> =
        stored.iter().flat_map(|(n, values)| values.map(|value| (value, *n))).collect();
    let number = |account: &Account, key: &str| usize::try_from(account.0[key].as_u64().unwrap()).unwrap();
    let found = all(&accounts).await;
    let mut found: Vec<_> = found
        .iter()
        .map(|stored| (number(&stored.value, "value"), number(&stored.value, "writer")))
        .collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    let mut values: Vec<_> = found.into_iter().map(|(value, _)| value).collect();
    values.dedup();
    assert_eq!(values.len(), expected.len());
    accounts.delete_all(Filter::all()).await.unwrap();
}

pub(super) async fn concurrent_inserts_of_many_store_all_or_none(store: Arc<dyn DocumentStore>) {
    insert_overlapping(&store, 40, |value, _, writer| {
        account(json!({"email": value, "value": value, "writer": writer}))
    })
    .await;
    // Where the first path gives the documents another order for each writer, two can wait for each other.
    insert_overlapping(&store, 12, |value, position, writer| {
        let email = format!("{position} of {writer}");
        account(json!({"email": email, "key": {"it's": value}, "value": value, "writer": writer}))
    })
    .await;
}

/// An upsert by a unique value finds the document, also when that is created at the same moment.
pub(super) async fn an_upsert_by_a_unique_value_never_clashes_with_it(store: Arc<dyn DocumentStore>) {
    let accounts = accounts(&store);
    for round in 0..10 {
        let email = format!("{round}@x");
        let mut upserts = JoinSet::new();
        let mut inserts = JoinSet::new();
        for n in 0..6 {
            let value = account(json!({"email": email, "n": n}));
            let (accounts, email) = (accounts.clone(), email.clone());
            if n % 2 == 0 {
                upserts.spawn(async move { accounts.upsert(field("email").eq(email), &value).await });
            } else {
                inserts.spawn(async move { accounts.insert(&value).await });
            }
        }
        let upserted = upserts.join_all().await;
        let created: Vec<_> = upserted.into_iter().map(|upserted| upserted.unwrap().created).collect();
        let mut inserted = 0;
        for result in inserts.join_all().await {
            match result {
                Ok(_) => inserted += 1,
                refused => assert_clash(refused, "/email"),
            }
        }
        assert_eq!(inserted + created.iter().filter(|created| **created).count(), 1);
        assert_eq!(accounts.count(field("email").eq(email.as_str())).await.unwrap(), 1);
    }
    // Also by the id.
    let mut upserts = JoinSet::new();
    for _ in 0..20 {
        let accounts = accounts.clone();
        upserts.spawn(async move { accounts.upsert(Filter::id("one"), &of("one@x")).await.unwrap().created });
    }
    assert_eq!(upserts.join_all().await.into_iter().filter(|created| *created).count(), 1);
}

/// Writes two documents that clash, and others, as an older release could.
pub(super) async fn write_clashing(store: &Arc<dyn DocumentStore>) {
    let new = |id: &str, account: Account| Document::new(id.to_owned(), Arc::new(account.0), None);
    let new = vec![
        new("a", of("same@x")),
        new("b", of("other@x")),
        new("c", of(Value::Null)),
        new("d", account(json!({"email": null, "key": {"it's": 1}}))),
        new("e", of("same@x")),
    ];
    store.write(&PLAIN, Write::Insert(new)).await.unwrap();
}

/// Asserts that the cause names the collection, the path and the two ids, and not the value.
#[track_caller]
pub(super) fn assert_names_both(error: &Error) {
    let cause = error.cause();
    let expected = "the documents \"a\" and \"e\" of accounts have the same value at \"email\", which is declared UNIQUE";
    assert!(cause.contains(expected) && !cause.contains("same@x"), "{cause}");
    assert_eq!(error.kind(), Kind::Internal);
}

pub(super) async fn a_path_is_unique_only_when_the_stored_documents_allow_it(store: Arc<dyn DocumentStore>) {
    write_clashing(&store).await;
    assert_names_both(&store.prepare(&UNIQUE).await.unwrap_err());
    // So does every call that needs it, and other collections are not affected.
    let accounts = accounts(&store);
    assert_names_both(&accounts.insert(&of("new@x")).await.unwrap_err());
    assert_names_both(&accounts.upsert(Filter::id("e"), &of("new@x")).await.unwrap_err());
    super::people(&store).insert(&super::person("Ada", 1)).await.unwrap();
    let change = Change::Replace(Arc::new(of("fixed@x").0));
    let fix = Write::Change { filter: Filter::id("e"), expected: Expected::Any, change };
    store.write(&PLAIN, fix).await.unwrap();
    store.prepare(&UNIQUE).await.unwrap();
    assert_clash(accounts.insert(&of("same@x")).await, "/email");
    assert_clash(accounts.insert(&account(json!({"key": {"it's": 1}}))).await, "/key/it's");
    assert_eq!(accounts.count(Filter::all()).await.unwrap(), 5);
}

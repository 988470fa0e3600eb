//! Migrations of the shape of documents.

use std::sync::Arc;
use std::time::Duration;

use platform::App;
use platform::error::{Error, Result};
use platform::http::Routes;
use platform::store::bulk::{Migrated, Progress, Watch, migrate};
use platform::store::{
    Collection, Dao, Declared, Document, DocumentStore, Entity, Fields, Filter, Migration, Patch, field,
};
use platform::testing::{NoSettings, SERVICE, TestApp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Anything, TestStore, anything, things, version};
use crate::events::Events;

static ANYTHING: Collection = Collection::new(Anything::COLLECTION, Anything::INDEXES);

/// Several chunks.
const DOCUMENTS: u64 = 150;
const LEASE: Duration = Duration::from_secs(30);

/// `n` becomes `count`.
#[expect(clippy::unnecessary_wraps, reason = "a step may fail")]
fn rename(mut fields: Fields) -> Result<Fields> {
    if let Some(n) = fields.shift_remove("n") {
        fields.insert("count".to_owned(), n);
    }
    Ok(fields)
}

fn refuse_texts(mut fields: Fields) -> Result<Fields> {
    if fields["count"].is_string() {
        return Err(Error::internal("count is a text"));
    }
    fields.insert("checked".to_owned(), Value::Bool(true));
    Ok(fields)
}

const RENAME: Migration = Migration::new("n is count", rename);
const CHECK: Migration = Migration::new("checked", refuse_texts);
const ONE: Declared = Declared { collection: &ANYTHING, migrations: &[RENAME] };
const OTHER: Declared = Declared { collection: &ANYTHING, migrations: &[Migration::new("other", rename)] };
const BOTH: Declared = Declared { collection: &ANYTHING, migrations: &[RENAME, CHECK] };

async fn fill(store: &Arc<dyn DocumentStore>) {
    let document = |at| {
        let Value::Object(fields) = json!({"n": at, "x": -0.0}) else { panic!("not an object") };
        Document { id: format!("n{at:04}"), version: 1, token: 0, fields: Arc::new(fields) }
    };
    store.restore(&ANYTHING, (0..DOCUMENTS).map(document).collect()).await.unwrap();
}

async fn run(store: &Arc<dyn DocumentStore>, declared: &[Declared]) -> Result<Vec<Migrated>, String> {
    let stop = CancellationToken::new();
    migrate(store, declared, LEASE, &stop, &()).await.map_err(|error| error.to_string())
}

fn done(step: &'static str, seen: u64, changed: u64) -> Migrated {
    Migrated { collection: "anything", step, seen, changed }
}

pub(super) async fn a_step_runs_once_on_each_document_and_is_recorded(test_store: TestStore) {
    let store = test_store.open().await;
    fill(&store).await;
    let things = things(&store);
    let present = things.insert(&anything(json!({"count": 7}))).await.unwrap();
    let first = version(&things, &present).await;
    // Declared twice, as by two slices.
    let ran = run(&store, &[ONE, ONE]).await.unwrap();
    assert_eq!(ran, [done("n is count", DOCUMENTS + 1, DOCUMENTS)]);
    for found in things.get_all(Filter::all()).await.unwrap() {
        assert_eq!(found.version, if found.id == present { first } else { 2 }, "{}", found.id);
        assert!(found.value.0.contains_key("count") && !found.value.0.contains_key("n"));
    }
    // It is recorded: a document of the former shape stays. A later step runs.
    let former = things.insert(&anything(json!({"n": 1, "count": 0}))).await.unwrap();
    let first = version(&things, &former).await;
    assert_eq!(run(&store, &[ONE]).await.unwrap(), []);
    assert_eq!(run(&store, &[BOTH]).await.unwrap(), [done("checked", DOCUMENTS + 2, DOCUMENTS + 2)]);
    let former = things.get(&former).await.unwrap().unwrap();
    assert_eq!((former.version, &former.value.0["n"]), (first + 1, &json!(1)));
    store.close().await;
    test_store.remove().await;
}

/// The lease of a migration, as it is in the store.
#[derive(Deserialize, Serialize)]
struct LeaseRecord {
    holder: String,
    expires: u64,
}

impl Entity for LeaseRecord {
    const COLLECTION: &'static str = "platform_leases";
}

/// Tells when so many documents are done.
struct Until(u64, Notify);

impl Watch for Until {
    fn at(&self, progress: &Progress) {
        if progress.done >= self.0 {
            self.1.notify_one();
        }
    }
}

pub(super) async fn a_run_that_was_killed_goes_on_when_its_lease_has_ended(test_store: TestStore) {
    let store = test_store.open().await;
    fill(&store).await;
    let (watch, stop) = (Until(60, Notify::new()), CancellationToken::new());
    tokio::select! {
        biased;
        () = watch.1.notified() => {}
        ran = migrate(&store, &[BOTH], LEASE, &stop, &watch) => panic!("not stopped: {ran:?}"),
    }
    let left = things(&store).count(field("n").exists()).await.unwrap();
    assert!((1..DOCUMENTS).contains(&left), "{left}");
    let error = run(&store, &[BOTH]).await.unwrap_err();
    assert!(error.contains("another process migrates this store; if it was killed, try again in"), "{error}");
    // The time of the lease passes: a busy machine cannot be late for it.
    let leases = Dao::<LeaseRecord>::new(Arc::clone(&store));
    let ended = leases.update_first(Filter::all(), Patch::new().set("expires", 0)).await.unwrap();
    assert!(ended.is_some(), "the killed run has left a lease");
    let ran = run(&store, &[BOTH]).await.unwrap();
    assert_eq!(
        (ran.len(), ran[0].seen, ran[1].clone()),
        (2, DOCUMENTS, done("checked", DOCUMENTS, DOCUMENTS))
    );
    for found in things(&store).get_all(Filter::all()).await.unwrap() {
        assert_eq!(found.version, 3, "each step has written {} once", found.id);
    }
    store.close().await;
    test_store.remove().await;
}

pub(super) async fn a_document_that_a_step_refuses_is_named_and_the_rest_can_be_done_later(
    test_store: TestStore,
) {
    let store = test_store.open().await;
    fill(&store).await;
    let things = things(&store);
    let first = things.insert_with_id("n0100a", &anything(json!({"n": "text"}))).await.unwrap();
    let error = run(&store, &[BOTH]).await.unwrap_err();
    let expected = "anything/checked: the step refuses the document \"n0100a\": count is a text.";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(things.count(Filter::all()).await.unwrap(), DOCUMENTS + 1);
    let refused = things.get("n0100a").await.unwrap().unwrap();
    assert_eq!((refused.version, Value::from(refused.value.0)), (first + 1, json!({"count": "text"})));
    // Nobody has to wait for the lease.
    things.delete_first(Filter::id("n0100a")).await.unwrap();
    let ran = run(&store, &[BOTH]).await.unwrap();
    assert_eq!((ran.len(), ran[0].step), (1, "checked"));
    assert_eq!(things.count(field("checked").eq(true)).await.unwrap(), DOCUMENTS);
    // What has been stopped says so, and gives its lease back too.
    let stop = CancellationToken::new();
    stop.cancel();
    let error = migrate(&store, &[OTHER], LEASE, &stop, &()).await.unwrap_err();
    assert!(error.to_string().contains("stopped; the same command goes on"), "{error}");
    assert_eq!(run(&store, &[OTHER]).await.unwrap().len(), 1);
    store.close().await;
    test_store.remove().await;
}

pub(super) async fn a_migration_loses_no_write_of_others(test_store: TestStore) {
    const WRITES: i64 = 40;
    let store = test_store.open().await;
    fill(&store).await;
    let writers = (0..4).map(|writer| {
        let things = things(&store);
        tokio::spawn(async move {
            for at in 0..WRITES {
                let id = format!("n{:04}", (at * 4 + writer) % 10);
                let raised = things.modify(&id, |value| {
                    let key = if value.0.contains_key("n") { "n" } else { "count" };
                    value.0[key] = (value.0[key].as_i64().unwrap() + 1).into();
                    Ok(())
                });
                assert!(raised.await.unwrap().is_some());
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    assert_eq!(run(&store, &[ONE]).await.unwrap().len(), 1);
    for writer in writers {
        writer.await.unwrap();
    }
    let all = things(&store).get_all(Filter::all()).await.unwrap();
    let sum: i64 = all.iter().map(|found| found.value.0["count"].as_i64().unwrap()).sum();
    let count = i64::try_from(DOCUMENTS).unwrap();
    assert_eq!(sum, count * (count - 1) / 2 + 4 * WRITES);
    assert!(all.iter().all(|found| !found.value.0.contains_key("n")));
    store.close().await;
    test_store.remove().await;
}

pub(super) async fn of_two_processes_at_once_each_document_is_changed_once(test_store: TestStore) {
    let (one, other) = (test_store.open().await, test_store.open().await);
    // Memory is not shared: it is one process there, and two tasks.
    fill(&one).await;
    let shared = things(&other).count(Filter::all()).await.unwrap() > 0;
    let second = if shared { &other } else { &one };
    let declared = [BOTH];
    let (first, second) = tokio::join!(run(&one, &declared), run(second, &declared));
    let ran = |result: &Result<Vec<Migrated>, String>| result.as_ref().is_ok_and(|steps| steps.len() == 2);
    let both = [&first, &second];
    assert!(both.iter().filter(|result| ran(result)).count() == 1, "{both:?}");
    let lost = both.into_iter().find(|result| !ran(result)).unwrap();
    match lost {
        Ok(steps) => assert_eq!(steps, &[]),
        Err(error) => assert!(error.starts_with("another process migrates this store"), "{error}"),
    }
    for found in things(&one).get_all(Filter::all()).await.unwrap() {
        assert_eq!(found.version, 3, "{}", found.id);
    }
    one.close().await;
    other.close().await;
    test_store.remove().await;
}

/// `Anything` with a former shape.
#[derive(serde::Deserialize, serde::Serialize)]
struct Changed(Fields);

impl Entity for Changed {
    const COLLECTION: &'static str = "anything";
    const MIGRATIONS: &'static [Migration] = &[RENAME];
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_server_with_documents_of_a_former_shape_says_once_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("x.sqlite").display());
    let warnings = async || {
        let app =
            App::new(async |services, _: NoSettings| Ok(services), |_| Routes::new()).entity::<Changed>();
        let (events, _guard) = Events::keep();
        let app = TestApp::start(&SERVICE, app, &[("SERVER__STORE__URL", &url)]).await;
        app.close().await;
        let lines = events.all().into_iter();
        lines.filter(|line| line.contains("store migrate")).collect::<Vec<_>>()
    };
    // Nothing is stored, so nothing has a former shape.
    assert_eq!(warnings().await, [""; 0]);
    let store = super::open(&url, 1).await.unwrap();
    fill(&store).await;
    let warned = warnings().await;
    assert!(warned.len() == 1 && warned[0].contains("anything/n is count"), "{warned:?}");
    assert_eq!(run(&store, &[ONE]).await.unwrap().len(), 1);
    store.close().await;
    assert_eq!(warnings().await, [""; 0]);
}

//! Copies between engines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use platform::error::Result;
use platform::store::bulk::{self, Ends, Progress, Watch};
use platform::store::{
    BatchOutcome, Collection, Dao, Document, DocumentStore, Entity as _, Expected, Filter, Page, Query,
    Scalar, Sort, Step, Token, Write, WriteOutcome,
};
use serde_json::{Value, json};

use super::documents::hostile_ids;
use super::{Anything, Person, TestStore, anything, people, person, things};

static ANYTHING: Collection = Collection::new(Anything::COLLECTION, Anything::INDEXES);
static PEOPLE: Collection = Collection::new(Person::COLLECTION, Person::INDEXES);
/// One that no app declares.
static OLD: Collection = Collection::new("old_things", &[]);

fn document(id: impl Into<String>, version: u64, value: Value) -> Document {
    let Value::Object(fields) = value else { panic!("not an object") };
    Document { id: id.into(), version, token: 0, fields: Arc::new(fields) }
}

/// Documents of which an engine could keep something otherwise than it was sent.
fn nasty() -> Vec<Document> {
    let value = json!({
        "z": u64::MAX, "a": i64::MIN, "floats": [-0.0, 0.0, 1.0, 1e40, 5e-324, 1.797_693_134_862_315_7e308, 0.1],
        "same": 18_446_744_073_709_551_615.0, "2^63": 9_223_372_036_854_775_808.0, "int": 9_223_372_036_854_775_808_u64,
        "": {"$set": {"a.b": [[], {}, null, true]}}, "\\[]": ["\\"], "_id": 1, "body": {"body": []}, "version": "x",
        "text": "é e\u{301} 😀 \u{1} ' \" \\ %", "__proto__": null,
    });
    let ids = hostile_ids().into_iter().chain(["x".repeat(1024)]);
    let with_ids = ids.enumerate().map(|(at, id)| document(id, 1 + at as u64, value.clone()));
    let mut all: Vec<Document> = with_ids.collect();
    all.push(document("empty", 1 << 53, json!({})));
    all.push(Document { token: 7, ..document("guarded", 3, json!({"a": "b"})) });
    all.push(Document { token: i64::MAX.cast_unsigned(), ..document("guarded to the end", 1, json!({})) });
    all.push(document("large", 2, json!({"text": "x".repeat(1_000_000)})));
    // Several chunks.
    all.extend((0..700).map(|at| document(format!("n{at:04}"), at + 1, json!({"n": at, "a": at % 7}))));
    all
}

/// Everything that a store holds, as text: so -0.0 is not 0, and the order of keys counts.
async fn contents(store: &Arc<dyn DocumentStore>) -> Vec<String> {
    let mut contents = Vec::new();
    for name in store.collections().await.unwrap() {
        let collection = [&ANYTHING, &PEOPLE, &OLD].into_iter().find(|known| known.name() == name).unwrap();
        let query = Query { filter: Filter::all(), sort: Sort::by_id(), page: Page::all() };
        for found in store.find(collection, query).await.unwrap() {
            let fields = serde_json::to_string(&*found.fields).unwrap();
            contents.push(format!("{name} {} {} {} {fields}", found.id, found.version, found.token));
        }
    }
    contents
}

async fn copy(
    from: &Arc<dyn DocumentStore>,
    to: &Arc<dyn DocumentStore>,
    overwrite: bool,
) -> Result<Vec<bulk::Row>, String> {
    let ends = Ends { from: Arc::clone(from), to: Arc::clone(to) };
    let copied = bulk::copy(&ends, &[&ANYTHING, &PEOPLE], overwrite, &()).await;
    copied.map_err(|error| error.to_string())
}

async fn fill(store: &Arc<dyn DocumentStore>) {
    store.restore(&ANYTHING, nasty()).await.unwrap();
    store.restore(&OLD, vec![document("a", 3, json!({"b": 1, "a": 2}))]).await.unwrap();
    people(store).insert(&person("Ada", 36)).await.unwrap();
}

/// Copies from files through this engine and back to files.
pub(super) async fn a_copy_there_and_back_is_equal(test_store: TestStore) {
    let engine = test_store.open().await;
    let (first, last) = (TestStore::json_file(), TestStore::json_file());
    let (first, last) = (first.open().await, last.open().await);
    fill(&first).await;
    let expected = contents(&first).await;
    for (from, to) in [(&first, &engine), (&engine, &last)] {
        let rows = copy(from, to, false).await.unwrap();
        assert!(rows.len() == 3 && rows.iter().all(bulk::Row::is_same), "{rows:#?}");
        assert_eq!(contents(to).await, expected);
    }
    let older = things(&engine).guarded(6).delete("guarded", Expected::Any).await;
    assert_eq!(older.unwrap_err().reason(), "Stale");
    // What was copied is found by a query with an index, and can be changed.
    let seventh = things(&engine).count(platform::store::field("a").eq(3)).await.unwrap();
    assert_eq!(seventh, 100);
    engine.close().await;
    test_store.remove().await;
}

pub(super) async fn a_restored_document_replaces_the_one_of_its_id(test_store: TestStore) {
    let store = test_store.open().await;
    assert_eq!(store.collections().await.unwrap(), [""; 0]);
    let things = things(&store);
    things.insert_with_id("a", &anything(json!({"x": 1}))).await.unwrap();
    let version = things.insert_with_id("b", &anything(json!({"x": 1}))).await.unwrap();
    store
        .restore(
            &ANYTHING,
            vec![document("c", 9, json!({})), Document { token: 4, ..document("a", 5, json!({"y": 2})) }],
        )
        .await
        .unwrap();
    let found = things.get_all(Filter::all()).await.unwrap();
    let found: Vec<_> =
        found.iter().map(|it| (it.id.as_str(), it.version, Value::from(it.value.0.clone()))).collect();
    assert_eq!(store.get(&ANYTHING, "a").await.unwrap().unwrap().token, 4);
    assert_eq!(found, [("a", 5, json!({"y": 2})), ("b", version, json!({"x": 1})), ("c", 9, json!({}))]);
    assert_eq!(store.collections().await.unwrap(), ["anything"]);
    store.close().await;
    test_store.remove().await;
}

pub(super) async fn a_target_with_other_documents_is_refused_and_can_be_overwritten(test_store: TestStore) {
    let to = test_store.open().await;
    let from: Arc<dyn DocumentStore> = TestStore::memory().open().await;
    let target = things(&to);
    let documents = ["a", "b", "c"].map(|id| document(id, 1, json!({"id": id})));
    from.restore(&ANYTHING, documents.into()).await.unwrap();
    let same = document("b", 1, json!({"id": "b"}));
    let other_version = document("b", 2, json!({"id": "b"}));
    for (wrong, why) in [
        (document("bb", 1, json!({})), "the document \"bb\" of anything is not in FROM"),
        (document("d", 1, json!({})), "the document \"d\" of anything is not in FROM"),
        (Document { token: 1, ..same.clone() }, "the document \"b\" of anything differs"),
        (other_version, "the document \"b\" of anything differs"),
        (document("a", 1, json!({"id": -0.0})), "the document \"a\" of anything differs"),
    ] {
        target.delete_all(Filter::all()).await.unwrap();
        to.restore(&ANYTHING, vec![same.clone()]).await.unwrap();
        to.restore(&ANYTHING, vec![wrong]).await.unwrap();
        let before = contents(&to).await;
        let error = copy(&from, &to, false).await.unwrap_err();
        assert!(error.contains(why) && error.contains("--overwrite"), "{error}");
        assert_eq!(contents(&to).await, before, "{why}");
        assert!(copy(&from, &to, true).await.unwrap().iter().all(bulk::Row::is_same));
        assert_eq!(contents(&to).await, contents(&from).await, "{why}");
    }
    // The control: a part of the source is no other document.
    target.delete_first(Filter::id("a")).await.unwrap();
    copy(&from, &to, false).await.unwrap();
    people(&to).insert(&person("Ada", 36)).await.unwrap();
    let error = copy(&from, &to, false).await.unwrap_err();
    assert!(error.contains("of people is in a collection that FROM does not have"), "{error}");
    copy(&from, &to, true).await.unwrap();
    assert_eq!(people(&to).count(Filter::all()).await.unwrap(), 1);
    to.close().await;
    test_store.remove().await;
}

/// A unique value is at another id than in the source: the one that has it now is not in the source, or is in it with
/// another value, before or behind the one that is to have it.
pub(super) async fn an_overwrite_takes_unique_values_back_from_the_documents_that_have_them(
    test_store: TestStore,
) {
    static MEMBERS: Collection = Collection::new("members", &[]).unique(&["email"]);
    let to = test_store.open().await;
    let member = |id: &str, email: &str| document(id, 1, json!({"email": email}));
    let source = [member("a", "x"), member("b", "y"), member("c", "z"), member("e", "w")];
    for target in [
        // Deleted, and created again with a new id.
        vec![member("d", "x"), member("b", "y"), member("c", "z"), member("e", "w")],
        // In a circle.
        vec![member("a", "y"), member("b", "z"), member("c", "x")],
        vec![member("a", "z"), member("b", "x"), member("c", "y"), member("e", "v"), member("f", "w")],
    ] {
        let from = TestStore::memory().open().await;
        from.restore(&MEMBERS, source.to_vec()).await.unwrap();
        to.write(&MEMBERS, Write::DeleteAll(Filter::all())).await.unwrap();
        to.restore(&MEMBERS, target).await.unwrap();
        let ends = Ends { from: Arc::clone(&from), to: Arc::clone(&to) };
        let rows = bulk::copy(&ends, &[&MEMBERS], true, &()).await.unwrap();
        assert!(rows.len() == 1 && rows[0].is_same() && rows[0].to.count == 4, "{rows:#?}");
        // The control: the paths are unique in the target still.
        let again = Write::Insert(vec![member("g", "x")]);
        assert!(to.write(&MEMBERS, again).await.is_err());
    }
    to.close().await;
    test_store.remove().await;
}

#[tokio::test]
async fn an_overwrite_takes_unique_values_back_in_memory() {
    an_overwrite_takes_unique_values_back_from_the_documents_that_have_them(TestStore::memory()).await;
}

/// A store that counts what is restored, and does something at a certain read.
struct Hooked {
    inner: Arc<dyn DocumentStore>,
    restored: AtomicUsize,
    finds: AtomicUsize,
    /// A document that is inserted at the read of this number.
    late: Mutex<Option<(usize, String)>>,
}

impl Hooked {
    fn new(inner: Arc<dyn DocumentStore>, late: Option<(usize, String)>) -> Arc<Self> {
        let (restored, finds) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner, restored, finds, late: Mutex::new(late) })
    }
}

#[async_trait]
impl DocumentStore for Hooked {
    async fn prepare(&self, collection: &'static Collection) -> Result<()> {
        self.inner.prepare(collection).await
    }

    async fn get(&self, collection: &'static Collection, id: &str) -> Result<Option<Document>> {
        self.inner.get(collection, id).await
    }

    async fn find(&self, collection: &'static Collection, query: Query) -> Result<Vec<Document>> {
        let at = self.finds.fetch_add(1, Ordering::Relaxed);
        let late = self.late.lock().unwrap().take_if(|(when, _)| *when == at);
        if let Some((_, id)) = late {
            let insert = Write::Insert(vec![Document::new(id, Arc::default(), None)]);
            self.inner.write(collection, insert).await?;
        }
        self.inner.find(collection, query).await
    }

    async fn count(
        &self,
        collection: &'static Collection,
        filter: Filter,
        bound: Option<u64>,
    ) -> Result<u64> {
        self.inner.count(collection, filter, bound).await
    }

    async fn count_by(
        &self,
        collection: &'static Collection,
        filter: Filter,
        path: &str,
        limit: u64,
    ) -> Result<Vec<(Scalar, u64)>> {
        self.inner.count_by(collection, filter, path, limit).await
    }

    async fn guarded_write(
        &self,
        collection: &'static Collection,
        write: Write,
        token: Token,
    ) -> Result<WriteOutcome> {
        self.inner.guarded_write(collection, write, token).await
    }

    async fn batch(&self, steps: Vec<Step>) -> Result<BatchOutcome> {
        self.inner.batch(steps).await
    }

    async fn collections(&self) -> Result<Vec<String>> {
        self.inner.collections().await
    }

    async fn restore(&self, collection: &'static Collection, documents: Vec<Document>) -> Result<()> {
        self.restored.fetch_add(documents.len(), Ordering::Relaxed);
        self.inner.restore(collection, documents).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// Tells when so many documents are done.
struct Until(u64, tokio::sync::Notify);

impl Watch for Until {
    fn at(&self, progress: &Progress) {
        if progress.what.starts_with("copying") && progress.done == self.0 {
            self.1.notify_one();
        }
    }
}

pub(super) async fn a_copy_that_was_stopped_goes_on_where_it_was(test_store: TestStore) {
    // So many that some are left also when a write that was in progress ends after the stop.
    const DOCUMENTS: usize = 5000;
    let to = test_store.open().await;
    let from = TestStore::memory().open().await;
    let new = (0..DOCUMENTS).map(|at| document(format!("n{at:05}"), 1, json!({"n": at})));
    from.restore(&ANYTHING, new.collect()).await.unwrap();
    let (watch, ends) =
        (Until(1700, tokio::sync::Notify::new()), Ends { from: Arc::clone(&from), to: Arc::clone(&to) });
    let declared = [&ANYTHING];
    tokio::select! {
        biased;
        () = watch.1.notified() => {}
        copied = bulk::copy(&ends, &declared, false, &watch) => panic!("not stopped: {copied:?}"),
    }
    let dao: Dao<Anything> = things(&to);
    let there = usize::try_from(dao.count(Filter::all()).await.unwrap()).unwrap();
    assert!((1..DOCUMENTS).contains(&there), "{there}");
    let counting = Hooked::new(Arc::clone(&to), None);
    let target: Arc<dyn DocumentStore> = counting.clone();
    copy(&from, &target, false).await.unwrap();
    assert_eq!(contents(&to).await, contents(&from).await);
    // A write that was in progress may still have been executed.
    let restored = counting.restored.load(Ordering::Relaxed);
    assert!(restored <= DOCUMENTS - there && restored > 0, "{restored} of {DOCUMENTS}, {there} were there");
    // Once more: nothing is left to do.
    copy(&from, &target, false).await.unwrap();
    assert_eq!(counting.restored.load(Ordering::Relaxed), restored);
    to.close().await;
    test_store.remove().await;
}

#[tokio::test]
async fn a_write_to_the_source_during_the_copy_is_seen_at_the_end() {
    // Before what was read already, and behind it: the second one is copied too.
    for (late, same) in [("a", false), ("z", true)] {
        let inner = TestStore::memory().open().await;
        let new = (0..100).map(|at| document(format!("n{at:05}"), 1, json!({"n": at})));
        inner.restore(&ANYTHING, new.collect()).await.unwrap();
        let from: Arc<dyn DocumentStore> = Hooked::new(Arc::clone(&inner), Some((1, late.to_owned())));
        let to = TestStore::memory().open().await;
        let rows = copy(&from, &to, false).await.unwrap();
        assert_eq!((rows.len(), rows[0].is_same(), rows[0].from.count), (1, same, 101), "{late}");
        // What to do then.
        assert!(copy(&from, &to, true).await.unwrap()[0].is_same());
    }
}

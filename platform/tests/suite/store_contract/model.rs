//! Random operations: an engine must give exactly the same results as the store in memory.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;

use platform::error::{Error, Kind};
use platform::store::query::{Bound, Needle, Predicate, Type};
use platform::store::{
    self, Action, BatchOutcome, Change, Collection, Direction, Document, DocumentStore, Expected, Fields,
    Filter, Page, Patch, Query, Scalar, Sort, Token, Write,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::TestStore;
use crate::proofs::rounds;

/// How many operations an engine executes at least: enough for a second or two, and with `make test-long` for more.
fn operations() -> u32 {
    rounds(2_000, 10_000)
}

/// How many sequences are run before the operations are counted again.
const CASES: u32 = 32;

static COLLECTION: Collection = Collection::new("model", &["a", "b.x"]).unique(&["c"]);
/// Only batches write to it.
static OTHER: Collection = Collection::new("model_other", &["a"]).unique(&["a", "c"]);

#[derive(Clone, Debug)]
enum Step {
    Get(String),
    Find(Query),
    Count(Filter, Option<u64>),
    CountBy(Filter, String, u64),
    FindFields(Query, Vec<String>),
    Write(Write, Token),
    Batch(Vec<store::Step>),
}

fn ids() -> impl Strategy<Value = String> {
    select(vec!["a", "A", "b", "../x", "n\u{1}l", "é", "e\u{301}"]).prop_map(str::to_owned)
}

fn paths() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "b.x", "b.x.y", "a.0", "c"]).prop_map(str::to_owned)
}

fn scalars() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(false),
        json!(true),
        json!(-1),
        json!(0),
        json!(-0.0),
        json!(0.5),
        json!(1),
        json!(1.0),
        json!(9_007_199_254_740_992.0_f64),
        json!(9_007_199_254_740_993_i64),
        json!(i64::MAX),
        json!(9_223_372_036_854_775_808.0_f64),
        json!(i64::MIN),
        json!(1e40),
        json!(""),
        json!("1"),
        json!("a"),
        json!("a\u{1}"),
        json!("ab"),
        json!("b"),
        json!("B"),
        json!("é"),
        json!("\u{10ffff}"),
    ])
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => scalars(),
        1 => select(vec![json!([]), json!([1, "a"]), json!({}), json!(u64::MAX), json!(u64::MAX - 1)]),
        2 => scalars().prop_map(|value| json!({ "x": value })),
        1 => scalars().prop_map(|value| json!({"x": {"y": value}, "0": 1})),
        1 => vec(scalars(), 0..3).prop_map(Value::from),
    ]
}

fn fields() -> impl Strategy<Value = Arc<Fields>> {
    vec((select(vec!["a", "b", "c"]), values()), 0..4)
        .prop_map(|fields| Arc::new(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

/// New documents, all with the same first version, so that two stores can be compared.
fn documents() -> impl Strategy<Value = Document> {
    (ids(), fields()).prop_map(|(id, fields)| Document { id, version: 1, token: 0, fields })
}

fn operands() -> impl Strategy<Value = Scalar> {
    scalars().prop_map(|value| Scalar::try_from(value).unwrap())
}

fn predicates() -> impl Strategy<Value = Predicate> {
    let bound = select(vec![Bound::Included, Bound::Excluded]);
    prop_oneof![
        3 => vec(operands(), 0..4).prop_map(Predicate::In),
        2 => (operands(), bound.clone()).prop_map(|(value, bound)| Predicate::Below(value, bound)),
        2 => (operands(), bound).prop_map(|(value, bound)| Predicate::Above(value, bound)),
        1 => Just(Predicate::Exists),
        1 => select(vec!["", "a", "é", "\u{10ffff}"]).prop_map(|prefix| Predicate::StartsWith(prefix.to_owned())),
        1 => (select(vec!["", "a", "B", "É", "\u{1}", "*", "[", "\\"]), any::<bool>()).prop_map(|(text, exact)| {
            Predicate::Contains(if exact { Needle::exact(text) } else { Needle::ignoring_case(text) })
        }),
        1 => operands().prop_map(Predicate::Has),
        1 => vec(select(Type::ALL.to_vec()), 0..3).prop_map(Predicate::Type),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        1 => Just(Filter::All),
        2 => vec(ids(), 0..3).prop_map(Filter::Ids),
        1 => ids().prop_map(Filter::After),
        6 => (paths(), predicates()).prop_map(|(path, predicate)| Filter::Field(path, predicate)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Filter::And),
            vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|filter| !filter),
        ]
    })
}

fn queries() -> impl Strategy<Value = Query> {
    let sort = vec((paths(), select(vec![Direction::Ascending, Direction::Descending])), 0..3)
        .prop_map(|fields| fields.into_iter().fold(Sort::by_id(), |sort, (path, to)| sort.then(path, to)));
    let page = (0..3_u64, proptest::option::of(0..5_u64)).prop_map(|(offset, limit)| Page { offset, limit });
    (filters(), sort, page).prop_map(|(filter, sort, page)| Query { filter, sort, page })
}

fn patches() -> impl Strategy<Value = Patch> {
    vec((paths(), 0..6, values()), 1..3)
        .prop_map(|steps| {
            steps.into_iter().fold(Patch::new(), |patch, (path, kind, value)| match (kind, value) {
                (0, _) => patch.unset(path),
                (1, Value::Number(number)) => patch.add(path, number),
                (2, value) => patch.append(path, value),
                (3, value) => patch.remove(path, value),
                (_, value) => patch.set(path, value),
            })
        })
        .prop_filter("the DAO refuses it", |patch| patch.check().is_ok())
}

fn writes() -> impl Strategy<Value = Write> {
    let change = prop_oneof![
        fields().prop_map(Change::Replace),
        patches().prop_map(Change::Merge),
        Just(Change::Delete),
    ];
    let expected = prop_oneof![3 => Just(Expected::Any), 1 => (1..4_u64).prop_map(Expected::Version)];
    prop_oneof![
        4 => vec(documents(), 1..4).prop_map(Write::Insert),
        4 => (filters(), expected, change)
            .prop_map(|(filter, expected, change)| Write::Change { filter, expected, change }),
        2 => (filters(), documents()).prop_map(|(filter, new)| Write::Upsert { filter, new }),
        1 => filters().prop_map(Write::DeleteAll),
    ]
}

fn batches() -> impl Strategy<Value = Vec<store::Step>> {
    let change = prop_oneof![
        2 => fields().prop_map(Change::Replace),
        2 => patches().prop_map(Change::Merge),
        1 => Just(Change::Delete),
    ];
    let expected = prop_oneof![5 => Just(Expected::Any), 1 => (1..4_u64).prop_map(Expected::Version)];
    let action = prop_oneof![
        4 => documents().prop_map(Action::Insert),
        4 => (expected, change).prop_map(|(expected, change)| Action::Change(expected, change)),
        1 => Just(Action::Require),
    ];
    let step = (select(vec![&COLLECTION, &OTHER]), ids(), action, proptest::option::of(0..4_u64));
    let step = step.prop_map(|(collection, id, mut action, token)| {
        if let Action::Insert(new) = &mut action {
            new.id.clone_from(&id);
        }
        store::Step { collection, id, action, token }
    });
    vec(step, 1..5)
}

fn steps_with_batches() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => queries().prop_map(Step::Find),
        2 => writes().prop_map(|write| Step::Write(write, None)),
        6 => batches().prop_map(Step::Batch),
    ];
    vec(step, 1..30)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => ids().prop_map(Step::Get),
        5 => queries().prop_map(Step::Find),
        1 => (filters(), proptest::option::of(0..4_u64)).prop_map(|(filter, bound)| Step::Count(filter, bound)),
        1 => (filters(), paths(), 0..9_u64).prop_map(|(filter, path, limit)| Step::CountBy(filter, path, limit)),
        1 => (queries(), select(vec![vec!["a"], vec!["b.x.y", "a", "c"], vec!["b", "nothing"], vec!["b.x"]]))
            .prop_map(|(query, paths)| Step::FindFields(query, paths.into_iter().map(str::to_owned).collect())),
        5 => (writes(), proptest::option::of(0..4_u64)).prop_map(|(write, token)| Step::Write(write, token)),
    ];
    vec(step, 1..30)
}

/// The result as text, in which the order of keys and the last bit of each number count.
fn as_text(result: Result<impl Debug, Error>) -> Result<String, TestCaseError> {
    match result {
        Ok(value) => Ok(format!("{value:?}")),
        Err(error) if matches!(error.kind(), Kind::BadRequest | Kind::Conflict | Kind::NotFound) => {
            Ok(error.reason().to_owned())
        }
        Err(error) => Err(TestCaseError::fail(error.trace())),
    }
}

async fn run(store: &dyn DocumentStore, step: Step) -> Result<String, TestCaseError> {
    match step {
        Step::Get(id) => as_text(store.get(&COLLECTION, &id).await),
        Step::Find(query) => as_text(store.find(&COLLECTION, query).await),
        Step::Count(filter, bound) => as_text(store.count(&COLLECTION, filter, bound).await),
        Step::CountBy(filter, path, limit) => {
            as_text(store.count_by(&COLLECTION, filter, &path, limit).await)
        }
        Step::FindFields(query, paths) => as_text(store.find_fields(&COLLECTION, query, &paths).await),
        Step::Batch(steps) => {
            let (done, all) = (
                store.batch(steps).await,
                Query { filter: Filter::All, sort: Sort::by_id(), page: Page::all() },
            );
            let done = match done {
                Ok(BatchOutcome::Refused(step, error)) => {
                    format!("{step}: {}", as_text(Err::<(), _>(error))?)
                }
                done => as_text(done)?,
            };
            Ok(done + &as_text(store.find(&OTHER, all).await)?)
        }
        Step::Write(write, token) => as_text(store.guarded_write(&COLLECTION, write, token).await),
    }
}

async fn compare(
    store: &dyn DocumentStore,
    model: &dyn DocumentStore,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let all = Query { filter: Filter::All, sort: Sort::by_id(), page: Page::all() };
    let start = Step::Write(Write::DeleteAll(Filter::All), None);
    run(store, start.clone()).await?;
    run(model, start).await?;
    for store in [store, model] {
        as_text(store.write(&OTHER, Write::DeleteAll(Filter::All)).await)?;
    }
    for step in steps.into_iter().chain([Step::Find(all)]) {
        let expected = run(model, step.clone()).await?;
        prop_assert_eq!(run(store, step.clone()).await?, expected, "{:?}", step);
    }
    Ok(())
}

pub(super) async fn random_operations_give_the_same_results_as_memory(store: Arc<dyn DocumentStore>) {
    compare_all(store, steps).await;
}

pub(super) async fn random_batches_give_the_same_results_as_memory(store: Arc<dyn DocumentStore>) {
    compare_all(store, steps_with_batches).await;
}

async fn compare_all<S: Strategy<Value = Vec<Step>> + 'static>(
    store: Arc<dyn DocumentStore>,
    steps: fn() -> S,
) {
    let model = TestStore::memory().open().await;
    let runtime = Handle::current();
    // proptest is synchronous: it runs on a thread of its own, and each case in the runtime.
    let run_all = move || {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let done = Cell::new(0);
        while done.get() < operations() as usize {
            // A runner counts its cases, and runs no more than that.
            TestRunner::new(config.clone()).run(&steps(), |steps| {
                done.set(done.get() + steps.len());
                runtime.block_on(compare(&*store, &*model, steps))
            })?;
        }
        Ok::<(), TestError<Vec<Step>>>(())
    };
    if let Err(failure) = tokio::task::spawn_blocking(run_all).await.unwrap() {
        panic!("{failure}");
    }
}

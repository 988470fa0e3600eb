//! A batch: writes of several documents, of one collection or several, in one commit. It knows no engine.

use std::fmt;
use std::sync::Arc;

use super::dao::{Dao, Entity, encode, new_id};
use super::document::{self, Document};
use super::patch::Patch;
use super::step::{Action, BatchOutcome, Step, no_such_document};
use super::write::{Change, Expected};
use super::{Collection, DocumentStore};
use crate::error::{Error, Result};

/// The most steps in a batch. While a batch is written, its documents are locked, and in SQLite and in files no other
/// write happens. With PostgreSQL and MongoDB each step is a round trip, and all of them must fit into `store.timeout`.
pub const MAX_STEPS: usize = 100;

/// Writes of several documents, of one collection or several, that are committed together: all or none.
///
/// The methods only note the steps, and check their arguments as those of [`Dao`] do; [`Batch::commit`] performs them in
/// this order, so a later step sees what an earlier one has done. The steps of a [`Dao::guarded`] carry its token.
/// Dropped without a commit, a batch does nothing.
///
/// A stand-alone MongoDB has no batches: there, a commit fails with `Internal`, and the log names the remedy. An app that
/// needs them calls `App::needs_batches`.
#[derive(Clone)]
pub struct Batch {
    store: Arc<dyn DocumentStore>,
    steps: Vec<Step>,
}

/// Which step of a batch was refused. It is the source of the error: [`RefusedStep::of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedStep {
    /// The number of the step; the first is 0.
    pub index: usize,
    /// The collection of its document.
    pub collection: &'static str,
    /// The id of its document.
    pub id: String,
}

impl RefusedStep {
    /// The step for which a batch was refused; `None` for other errors.
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl fmt::Display for RefusedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, collection, id } = self;
        write!(f, "step {index} of the batch was refused: {collection} {id:?}")
    }
}

impl std::error::Error for RefusedStep {}

impl Batch {
    /// A batch without steps.
    pub fn new(store: Arc<dyn DocumentStore>) -> Self {
        Self { store, steps: Vec::new() }
    }

    /// Stores a value under a new id, and returns the id.
    pub fn insert<T: Entity>(&mut self, dao: &Dao<T>, value: &T) -> Result<String> {
        let id = new_id();
        self.insert_with_id(dao, &id, value)?;
        Ok(id)
    }

    /// Stores a value under this id. The commit is refused with `Conflict` when a document has it.
    pub fn insert_with_id<T: Entity>(&mut self, dao: &Dao<T>, id: &str, value: &T) -> Result<()> {
        document::check_id(id)?;
        self.add(dao, id, Action::Insert(Document::new(id.to_owned(), encode(value)?, dao.token())))
    }

    /// Replaces the value of this id. The commit is refused with `NotFound` when there is none, and with `Conflict` when
    /// it has not the expected version.
    pub fn replace<T: Entity>(
        &mut self,
        dao: &Dao<T>,
        id: &str,
        expected: Expected,
        value: &T,
    ) -> Result<()> {
        self.add(dao, id, Action::Change(expected, Change::Replace(encode(value)?)))
    }

    /// Changes some fields of the value of this id. Refused as [`Batch::replace`] is.
    pub fn update<T: Entity>(
        &mut self,
        dao: &Dao<T>,
        id: &str,
        expected: Expected,
        patch: Patch,
    ) -> Result<()> {
        patch.check()?;
        self.add(dao, id, Action::Change(expected, Change::Merge(patch)))
    }

    /// Deletes the value of this id. Refused as [`Batch::replace`] is.
    pub fn delete<T: Entity>(&mut self, dao: &Dao<T>, id: &str, expected: Expected) -> Result<()> {
        self.add(dao, id, Action::Change(expected, Change::Delete))
    }

    /// The value of this id must exist, and nobody deletes it before the commit: a child is stored only with its parent.
    /// The commit is refused with `NotFound` when there is none.
    pub fn require<T: Entity>(&mut self, dao: &Dao<T>, id: &str) -> Result<()> {
        self.add(dao, id, Action::Require)
    }

    /// Performs all steps, or none. Returns for each step the version of its document after it; of a deleted one, the
    /// last.
    ///
    /// A step that is refused is the source of the error ([`RefusedStep::of`]), whose kind is that of the same write of a
    /// [`Dao`], and `NotFound` where there is no document. A batch of more than [`MAX_STEPS`] steps is `Internal`. A
    /// commit that fails with `Unavailable` may have happened.
    pub async fn commit(self) -> Result<Vec<u64>> {
        if self.steps.is_empty() {
            return Ok(Vec::new());
        }
        if self.steps.len() > MAX_STEPS {
            let given = self.steps.len();
            return Err(Error::internal(format!("a batch of {given} steps: at most {MAX_STEPS}")));
        }
        let names: Vec<(&str, String)> =
            self.steps.iter().map(|step| (step.collection.name(), step.id.clone())).collect();
        match self.store.batch(self.steps).await? {
            BatchOutcome::Committed(versions) => Ok(versions),
            BatchOutcome::Refused(index, error) => Err(match names.into_iter().nth(index) {
                Some((collection, id)) => error.with_source(RefusedStep { index, collection, id }),
                None => error,
            }),
        }
    }

    fn add<T: Entity>(&mut self, dao: &Dao<T>, id: &str, action: Action) -> Result<()> {
        if !Arc::ptr_eq(&self.store, dao.store()) {
            return Err(Error::internal("a batch cannot write to another store than its own"));
        }
        document::check_token(dao.token())?;
        let collection: &Collection = Dao::<T>::COLLECTION;
        if document::check_id(id).is_err() {
            // No document has such an id.
            let (index, collection, id) = (self.steps.len(), collection.name(), id.to_owned());
            return Err(no_such_document().with_source(RefusedStep { index, collection, id }));
        }
        self.steps.push(Step { collection, id: id.to_owned(), action, token: dao.token() });
        Ok(())
    }
}

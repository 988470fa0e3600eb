//! Runs the steps that bring documents of a former shape into the present one.
//!
//! Each step runs once, recorded in the store itself with the position, so that a run that was stopped goes on. A document
//! is written by compare-and-set: a concurrent writer loses nothing, and its document is changed from what it has
//! written. One process at a time does it, under a lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::super::migration::{Declared, Migration};
use super::super::query::{Page, Query, Sort};
use super::super::write::{Change, Expected, VERSION_CONFLICT, Write};
use super::super::{Collection, Dao, Document, DocumentStore, Entity, Filter, document};
use super::patiently;
use super::progress::{Progress, Watch};
use super::store_lease::{StoreLease, Taken};
use super::walk::Walk;
use crate::error::{Error, Result, StartError};

/// How long the lease lasts without being renewed: what a run after a killed one may have to wait.
pub const LEASE: Duration = Duration::from_secs(30);

/// How many documents are written at the same time.
const AT_ONCE: usize = 32;

const NAME: &str = "migrate";

/// What is recorded of a step; its id is `COLLECTION/STEP`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Record {
    /// The id of the last document that it has seen.
    position: String,
    seen: u64,
    changed: u64,
    finished: bool,
}

impl Entity for Record {
    const COLLECTION: &'static str = "platform_migrations";
}

/// A step that has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The collection.
    pub collection: &'static str,
    /// The name of the step.
    pub step: &'static str,
    /// How many documents it has seen.
    pub seen: u64,
    /// How many of them it has changed.
    pub changed: u64,
}

/// The steps that have not run yet, in their order.
async fn pending(
    records: &Dao<Record>,
    declared: &[Declared],
) -> Result<Vec<(&'static Collection, Migration)>> {
    let mut pending: Vec<(&'static Collection, Migration)> = Vec::new();
    for Declared { collection, migrations } in declared {
        for migration in *migrations {
            // Several slices may declare one entity.
            let known = |other: &(&Collection, Migration)| {
                (other.0.name(), other.1.name()) == (collection.name(), migration.name())
            };
            let id = id(collection, migration);
            let record = records.get(&id).await?;
            if !record.is_some_and(|record| record.value.finished) && !pending.iter().any(known) {
                pending.push((collection, *migration));
            }
        }
    }
    Ok(pending)
}

fn id(collection: &Collection, migration: &Migration) -> String {
    format!("{}/{}", collection.name(), migration.name())
}

/// The steps that have not run, `COLLECTION/STEP`, of collections that hold documents.
pub(crate) async fn missing(store: &Arc<dyn DocumentStore>, declared: &[Declared]) -> Result<Vec<String>> {
    if declared.iter().all(|one| one.migrations.is_empty()) {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    for (collection, migration) in pending(&Dao::new(Arc::clone(store)), declared).await? {
        let query = Query { filter: Filter::All, sort: Sort::by_id(), page: Page::first(1) };
        if !store.find(collection, query).await?.is_empty() {
            missing.push(id(collection, &migration));
        }
    }
    Ok(missing)
}

/// Runs the steps that have not run yet, one after the other. `lease` is how long another process waits for this one if
/// it is killed ([`LEASE`]). Once `stop` is cancelled, it ends after the documents in progress; a later run goes on
/// there.
pub async fn migrate(
    store: &Arc<dyn DocumentStore>,
    declared: &[Declared],
    lease: Duration,
    stop: &CancellationToken,
    watch: &dyn Watch,
) -> Result<Vec<Migrated>, StartError> {
    let records = Dao::<Record>::new(Arc::clone(store));
    if pending(&records, declared).await?.is_empty() {
        return Ok(Vec::new());
    }
    let mut lease = match StoreLease::take(store, NAME, lease).await? {
        Taken::Lease(lease) => lease,
        Taken::Held(left) => {
            return Err(StartError::failed(format!(
                "another process migrates this store; if it was killed, try again in {} s",
                left.as_secs() + 1
            )));
        }
    };
    let mut run = Run { store, records, lease: &mut lease, stop, watch };
    let done = run.all(declared).await;
    lease.end().await;
    done
}

struct Run<'a> {
    store: &'a Arc<dyn DocumentStore>,
    records: Dao<Record>,
    lease: &'a mut StoreLease,
    stop: &'a CancellationToken,
    watch: &'a dyn Watch,
}

impl Run<'_> {
    async fn all(&mut self, declared: &[Declared]) -> Result<Vec<Migrated>, StartError> {
        let mut done = Vec::new();
        // Another process may have run some until now.
        for (collection, migration) in pending(&self.records, declared).await? {
            let ran = self.step(collection, migration).await;
            done.push(ran.map_err(|error| {
                let cause = error.cause();
                let why = if cause.is_empty() { error.message() } else { &cause };
                StartError::failed(format!("{}: {why}", id(collection, &migration)))
            })?);
        }
        Ok(done)
    }

    async fn step(&mut self, collection: &'static Collection, migration: Migration) -> Result<Migrated> {
        let id = id(collection, &migration);
        let record = patiently(|| self.records.get(&id)).await?;
        let mut record = record.map(|stored| stored.value).unwrap_or_default();
        patiently(|| self.store.check_readable(collection)).await?;
        let total = patiently(|| self.store.count(collection, Filter::All, None)).await?;
        let mut walk = Walk::after(&**self.store, collection, record.position.clone());
        loop {
            let chunk = walk.next_chunk().await?;
            for documents in chunk.chunks(AT_ONCE) {
                if self.stop.is_cancelled() {
                    return Err(Error::unavailable("stopped; the same command goes on where this one was"));
                }
                self.lease.renew().await.map_err(|error| {
                    error.with_source("another process has taken over, because this one was too slow")
                })?;
                let changed = documents.iter().map(|one| self.change(collection, migration, one));
                let changed = try_join_all(changed).await?;
                record.changed += changed.into_iter().filter(|changed| *changed).count() as u64;
                record.seen += documents.len() as u64;
                if let Some(last) = documents.last() {
                    record.position.clone_from(&last.id);
                }
                let what = format!("migrating {id}");
                self.watch.at(&Progress { what, done: record.seen, total });
            }
            record.finished = chunk.is_empty();
            patiently(|| self.records.upsert(Filter::id(id.as_str()), &record)).await?;
            if record.finished {
                let (seen, changed) = (record.seen, record.changed);
                return Ok(Migrated { collection: collection.name(), step: migration.name(), seen, changed });
            }
        }
    }

    /// Changes one document; false when it has the present shape, or is gone.
    async fn change(
        &self,
        collection: &'static Collection,
        migration: Migration,
        document: &Document,
    ) -> Result<bool> {
        let mut document = document.clone();
        loop {
            let id = document.id.clone();
            let fields = migration.apply((*document.fields).clone()).and_then(|fields| {
                document::check(&fields)?;
                Ok(fields)
            });
            let fields = fields.map_err(|error| {
                let cause = error.cause();
                let why = if cause.is_empty() { error.message() } else { &cause };
                Error::internal(format!(
                    "the step refuses the document {id:?}: {why}. It is unchanged, and so are those after it"
                ))
            })?;
            if fields == *document.fields {
                return Ok(false);
            }
            let fields = Arc::new(fields);
            let written = patiently(|| {
                let change = Change::Replace(Arc::clone(&fields));
                let (filter, expected) = (Filter::id(id.as_str()), Expected::Version(document.version));
                self.store.write(collection, Write::Change { filter, expected, change })
            });
            match written.await {
                Ok(outcome) => return Ok(outcome.count > 0),
                Err(error) if error.reason() == VERSION_CONFLICT => {}
                Err(error) => return Err(error),
            }
            match patiently(|| self.store.get(collection, &id)).await? {
                Some(newer) => document = newer,
                None => return Ok(false),
            }
        }
    }
}

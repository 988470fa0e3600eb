//! Writes of several steps without a transaction: an insert of several documents, and an upsert that may create one.
//!
//! Their documents are first stored `pending`, with the id of the write, and are not visible.
//!
//! * An **insert of several documents** stores all of them pending. When one is refused, it deletes them again. When all
//!   are there, a record in the collection `_writes` commits the write, and one `updateMany` removes `pending`. From that
//!   record on they are visible or become so, even if this process is killed.
//! * An **upsert** that finds no document stores its own pending one, and looks again, for documents and for pending
//!   upserts that match. With neither, its document becomes visible. So of several upserts at the same time, of which
//!   none sees the other's document yet, one creates a document and the others replace it: of two that see each other,
//!   the one with the greater id withdraws.
//!
//! A **read** gets pending documents too, and in most cases there is none. When it gets one, it looks up the records of
//! those writes: it completes those that are committed, hides the others, and reads again, until none of the hidden ones
//! has been committed meanwhile ([`View`]). So it sees all documents of a write or none. Only a page with an offset cannot
//! do that, and may be one of the middle of a write.
//!
//! What a killed process has left is finished by the next process that starts, or by a write that needs the same id:
//! what is committed becomes visible. (Or by a write that needs a value of it at a unique path.) What is not, and is older than every caller waits, is deleted, with a record that
//! the write is abandoned: its process, should it be alive, cannot commit any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mongodb::IndexModel;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::RawBsonRef;
use mongodb::bson::{DateTime, Document as Bdoc, doc};
use mongodb::options::IndexOptions;
use tokio::runtime::Handle;

use super::super::query::Filter;
use super::super::unique::{UniqueIndex, values};
use super::super::write::document_exists;
use super::super::{Collection, Document};
use super::convert::{ID, PENDING, Pending, UPSERT, encode};
use super::server::{is_duplicate, store_error};
use super::unique::broken;
use super::writes::Created;
use super::{Inner, Stored, query};
use crate::error::{Error, Result};

/// The collection of the writes that are committed or abandoned. No entity can have this name.
const WRITES: &str = "_writes";
/// Whether a write was abandoned; else it is committed.
const ABANDONED: &str = "abandoned";
/// When a write was abandoned, or all its documents were visible.
const ENDED: &str = "ended";
/// The age at which a write that is not committed is abandoned: the longest `store.timeout`, twice, for clocks that
/// differ.
const ABANDONED_AFTER: Duration = Duration::from_mins(2);
/// How long a record is kept after the end of its write: much longer than its process can still try to commit, and than
/// a read takes that hides its documents. MongoDB deletes it by a TTL index, and refuses the index with another time
/// where it exists: do not change this.
const KEPT: Duration = Duration::from_hours(1);
/// How often a write waits for another one.
const POLL: Duration = Duration::from_millis(5);
/// How long the driver may need to remove what a dropped write has left.
const CLEAN_UP: Duration = Duration::from_mins(1);

/// What a read sees: visible documents, and pending ones except those of the writes that are known not to be committed.
#[derive(Default)]
pub(super) struct View {
    hidden: Vec<ObjectId>,
}

impl View {
    pub(super) fn condition(&self, filter: &Filter) -> Bdoc {
        let mut condition = query::condition(filter);
        if !self.hidden.is_empty() {
            condition.insert(PENDING, doc! { "$nin": self.hidden.as_slice() });
        }
        condition
    }
}

/// A write with pending documents. Dropped before its end, it is abandoned; if it was committed, it is completed.
struct Unfinished {
    store: Arc<Inner>,
    stored: Stored,
    id: ObjectId,
    ended: bool,
}

impl Unfinished {
    fn new(store: &Arc<Inner>, stored: &Stored) -> Self {
        Self { store: Arc::clone(store), stored: stored.clone(), id: ObjectId::new(), ended: false }
    }

    /// Deletes the pending documents.
    async fn withdraw(mut self) -> Result<()> {
        self.stored.delete_many(doc! { PENDING: self.id }).await.map_err(store_error)?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Without a runtime, or when this fails too, the next process does it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (store, stored, id) = (Arc::clone(&self.store), self.stored.clone(), self.id);
        runtime.spawn(async move {
            let ended = async {
                store.abandon(id).await?;
                store.settle(&stored, id).await
            };
            drop(tokio::time::timeout(CLEAN_UP, ended).await);
        });
    }
}

impl Inner {
    /// Inserts all documents, or none.
    pub(super) async fn insert_many(
        self: &Arc<Self>,
        collection: &Collection,
        stored: &Stored,
        new: &mut [Document],
    ) -> Result<()> {
        let ids: HashSet<&str> = new.iter().map(|document| document.id.as_str()).collect();
        if ids.len() < new.len() {
            return Err(document_exists());
        }
        // With one order for all, of two inserts that clash one goes on.
        new.sort_by_cached_key(|document| values(collection, &document.fields));
        let new = &*new;
        if let Err(error) = UniqueIndex::new(collection.unique_paths()).check(new) {
            let exists = self.has_one_of(stored, new).await?;
            return Err(if exists { document_exists() } else { error });
        }
        loop {
            let mut write = Unfinished::new(self, stored);
            let pending = Some(Pending { write: write.id, upsert: false });
            let documents =
                new.iter().map(|document| encode(document, pending)).collect::<Result<Vec<_>>>()?;
            match stored.insert_many(documents).await {
                Ok(_) => {}
                Err(error) => {
                    let Some(broken) = broken(collection, &error) else { return Err(store_error(error)) };
                    // Withdrawn before it waits: two inserts that wait for each other would wait for ever.
                    write.withdraw().await?;
                    if self.has_one_of(stored, new).await? {
                        return Err(document_exists());
                    }
                    self.refuse_or_wait(stored, broken, new).await?;
                    // Not all at the same time.
                    tokio::time::sleep(POLL.mul_f64(fastrand::f64())).await;
                    continue;
                }
            }
            let committed = self.writes().await?.insert_one(doc! { ID: write.id, ABANDONED: false }).await;
            committed.map_err(|error| {
                if is_duplicate(&error) {
                    Error::unavailable("the write took so long that another process has abandoned it")
                } else {
                    store_error(error)
                }
            })?;
            self.complete(stored, write.id).await?;
            write.ended = true;
            return Ok(());
        }
    }

    /// Creates a document if there is still none that matches.
    pub(super) async fn create_if_none(
        self: &Arc<Self>,
        collection: &'static Collection,
        stored: &Stored,
        filter: &Filter,
        new: &Document,
    ) -> Result<Created> {
        let mut write = Unfinished::new(self, stored);
        let document = encode(new, Some(Pending { write: write.id, upsert: true }))?;
        match stored.insert_one(document).await {
            Ok(_) => {}
            Err(error) => match broken(collection, &error) {
                None => return Err(store_error(error)),
                Some(broken) => {
                    write.ended = true;
                    return Ok(Created::refused(broken));
                }
            },
        }
        loop {
            // The other upserts first: one that has ended in between has left a document.
            let others = self.other_upserts(stored, filter, write.id).await?;
            if others.is_empty() {
                if self.first(collection, stored, filter).await?.is_some() {
                    write.withdraw().await?;
                    return Ok(Created::Again);
                }
                let mine = doc! { ID: &new.id, PENDING: write.id };
                let shown = stored.update_one(mine, visible()).await.map_err(store_error)?;
                write.ended = true;
                return Ok(if shown.matched_count > 0 { Created::Yes } else { Created::Again });
            }
            if others.iter().any(|other| *other < write.id) {
                write.withdraw().await?;
                self.wait_for(stored, others).await?;
                return Ok(Created::Again);
            }
            self.wait_for(stored, others).await?;
        }
    }

    /// The pending upserts whose documents match.
    async fn other_upserts(&self, stored: &Stored, filter: &Filter, own: ObjectId) -> Result<Vec<ObjectId>> {
        let mut matching = query::condition(filter);
        matching.insert(UPSERT, true);
        let mut writes = self.pending(stored, matching).await?.0;
        writes.retain(|write| *write != own);
        Ok(writes)
    }

    /// Whether one of these ids belongs to a document that is visible. If they belong to pending ones only, waits a
    /// moment for those.
    pub(super) async fn has_one_of(&self, stored: &Stored, new: &[Document]) -> Result<bool> {
        let ids: Vec<&str> = new.iter().map(|document| document.id.as_str()).collect();
        let (pending, visible) = self.pending(stored, doc! { ID: { "$in": ids } }).await?;
        if visible {
            return Ok(true);
        }
        self.wait_for(stored, pending).await?;
        Ok(false)
    }

    /// The writes of the pending documents that match, and whether a visible one matches.
    pub(super) async fn pending(&self, stored: &Stored, matching: Bdoc) -> Result<(Vec<ObjectId>, bool)> {
        let found = stored.find(matching).projection(doc! { PENDING: 1 });
        let mut cursor = found.await.map_err(store_error)?;
        let (mut writes, mut visible) = (Vec::new(), false);
        while cursor.advance().await.map_err(store_error)? {
            match cursor.current().get(PENDING).map_err(Error::internal)? {
                Some(RawBsonRef::ObjectId(write)) => writes.push(write),
                _ => visible = true,
            }
        }
        writes.sort_unstable();
        writes.dedup();
        Ok((writes, visible))
    }

    pub(super) async fn wait_for(&self, stored: &Stored, writes: Vec<ObjectId>) -> Result<()> {
        let mut in_progress = false;
        for write in writes {
            in_progress |= !self.settle(stored, write).await?;
        }
        if in_progress {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Finishes the writes that killed processes have left in a collection.
    pub(super) async fn finish_abandoned(&self, stored: &Stored) -> Result<()> {
        let options = IndexOptions::builder().expire_after(KEPT).build();
        let index = IndexModel::builder().keys(doc! { ENDED: 1 }).options(options).build();
        self.writes().await?.create_index(index).await.map_err(store_error)?;
        let pending = doc! { PENDING: { "$gt": ObjectId::from_bytes([0; 12]) } };
        for write in self.pending(stored, pending).await?.0 {
            self.settle(stored, write).await?;
        }
        Ok(())
    }

    /// Completes a write that is committed, and deletes the documents of one that is abandoned or too old. False when it
    /// is in progress.
    async fn settle(&self, stored: &Stored, write: ObjectId) -> Result<bool> {
        let record = self.writes().await?.find_one(doc! { ID: write }).await.map_err(store_error)?;
        match record {
            Some(record) if is_abandoned(&record) => {
                stored.delete_many(doc! { PENDING: write }).await.map_err(store_error)?;
                Ok(true)
            }
            Some(_) => self.complete(stored, write).await.map(|()| true),
            None if is_too_old(write) => {
                self.abandon(write).await?;
                // By now it is one or the other.
                Box::pin(self.settle(stored, write)).await
            }
            None => Ok(false),
        }
    }

    /// Makes the documents of a committed write visible.
    async fn complete(&self, stored: &Stored, write: ObjectId) -> Result<()> {
        stored.update_many(doc! { PENDING: write }, visible()).await.map_err(store_error)?;
        let ended = doc! { "$set": { ENDED: DateTime::now() } };
        self.writes().await?.update_one(doc! { ID: write }, ended).await.map(drop).map_err(store_error)
    }

    /// Records that a write is abandoned, unless it is committed.
    async fn abandon(&self, write: ObjectId) -> Result<()> {
        let record = doc! { ID: write, ABANDONED: true, ENDED: DateTime::now() };
        match self.writes().await?.insert_one(record).await {
            Err(error) if !is_duplicate(&error) => Err(store_error(error)),
            _ => Ok(()),
        }
    }

    /// Whether what was read under a view is a state between two writes. `pending` are the writes of the pending documents
    /// in it. If it is not, the view is changed for the next attempt.
    pub(super) async fn is_consistent(
        &self,
        stored: &Stored,
        view: &mut View,
        pending: impl IntoIterator<Item = ObjectId>,
    ) -> Result<bool> {
        let seen = view.hidden.len();
        for write in pending {
            if !view.hidden.contains(&write) {
                view.hidden.push(write);
            }
        }
        if view.hidden.is_empty() {
            return Ok(true);
        }
        let hidden = doc! { ID: { "$in": view.hidden.as_slice() } };
        let mut records = self.writes().await?.find(hidden).await.map_err(store_error)?;
        let mut committed = Vec::new();
        while records.advance().await.map_err(store_error)? {
            let record = records.deserialize_current().map_err(store_error)?;
            if !is_abandoned(&record) {
                committed.push(record.get_object_id(ID).map_err(Error::internal)?);
            }
        }
        for write in view.hidden.iter().filter(|write| is_too_old(**write) && !committed.contains(write)) {
            // A killed process has left it. Without this, every read that meets it would come here.
            self.settle(stored, *write).await?;
        }
        // Without a record now, a hidden write was not committed while it was read.
        if committed.is_empty() && view.hidden.len() == seen {
            return Ok(true);
        }
        for write in &committed {
            self.complete(stored, *write).await?;
        }
        view.hidden.retain(|write| !committed.contains(write));
        Ok(false)
    }

    async fn writes(&self) -> Result<mongodb::Collection<Bdoc>> {
        Ok(self.server.database().await?.collection(WRITES))
    }
}

fn is_abandoned(record: &Bdoc) -> bool {
    record.get_bool(ABANDONED).unwrap_or_default()
}

/// The update that makes a pending document visible.
fn visible() -> Bdoc {
    doc! { "$unset": { PENDING: "", UPSERT: "" } }
}

/// Whether a write began so long ago that its caller does not wait any more.
fn is_too_old(write: ObjectId) -> bool {
    let age = SystemTime::now().duration_since(write.timestamp().to_system_time());
    age.is_ok_and(|age| age > ABANDONED_AFTER)
}

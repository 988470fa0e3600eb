//! A copy of all documents of a store in another one.
//!
//! Both are walked by id side by side, and what the target lacks is written. So a copy that was killed goes on where it
//! was, and a second one costs reads only, where nothing has changed. Nothing of a target is lost by surprise: before
//! anything is written, it is compared with the source, and other documents in it are refused, unless they shall be
//! overwritten: then they are deleted first. At the end both are read again and compared.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::super::collections::leaked;
use super::super::{Collection, Document, DocumentStore, Filter, Write};
use super::progress::{Progress, Watch};
use super::summary::Summary;
use super::walk::{Sized, Walk};
use super::{CHUNK, CHUNK_BYTES, Ends, patiently};
use crate::error::{Error, StartError};

/// What there is of one collection at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name of the collection.
    pub collection: String,
    /// What the source holds.
    pub from: Summary,
    /// What the target holds.
    pub to: Summary,
}

impl Row {
    /// Whether both hold the same.
    pub fn is_same(&self) -> bool {
        self.from == self.to
    }
}

/// Copies all documents, and compares. The indexes of the `declared` collections are created in the target. The target
/// must hold nothing but documents of the source; with `overwrite`, it may: then those of the source's collections that
/// differ are replaced, and those that the source does not have are deleted. Collections that only the target has stay as
/// they are. A copy that is stopped in between leaves less in the target than there was; the next one goes on from there.
///
/// Nobody else may write to the target meanwhile. A write to the source shows in a [`Row`] that is not the same.
pub async fn copy(
    ends: &Ends,
    declared: &[&'static Collection],
    overwrite: bool,
    watch: &dyn Watch,
) -> Result<Vec<Row>, StartError> {
    let mut copy = Copy { from: &*ends.from, to: &*ends.to, declared, overwrite, watch, pairs: Vec::new() };
    copy.find_collections().await?;
    copy.check_source().await?;
    if !overwrite {
        copy.check_target().await?;
    }
    for pair in &copy.pairs {
        copy.copy(pair).await?;
    }
    // Some may be new.
    copy.find_collections().await?;
    let mut rows = Vec::new();
    for pair in &copy.pairs {
        rows.push(copy.compare(pair).await?);
    }
    Ok(rows)
}

struct Copy<'a> {
    from: &'a dyn DocumentStore,
    to: &'a dyn DocumentStore,
    declared: &'a [&'static Collection],
    overwrite: bool,
    watch: &'a dyn Watch,
    pairs: Vec<Pair>,
}

/// A collection of the source.
struct Pair {
    /// Without indexes: a source is only read, and a read creates the indexes that are missing.
    from: &'static Collection,
    to: &'static Collection,
}

impl Copy<'_> {
    async fn find_collections(&mut self) -> Result<(), StartError> {
        for name in patiently(|| self.from.collections()).await.map_err(|error| failed("FROM", "", &error))? {
            if !self.pairs.iter().any(|pair| pair.from.name() == name) {
                let from = leaked(&name);
                let to = self.declared.iter().find(|declared| declared.name() == name).unwrap_or(&from);
                self.pairs.push(Pair { from, to });
            }
        }
        Ok(())
    }

    /// Refuses a source of which a part would be left out.
    async fn check_source(&self) -> Result<(), StartError> {
        for pair in &self.pairs {
            let checked = patiently(|| self.from.check_readable(pair.from)).await;
            checked.map_err(|error| failed("FROM", pair.from.name(), &error))?;
        }
        Ok(())
    }

    /// Refuses a target that holds something that the source does not.
    async fn check_target(&self) -> Result<(), StartError> {
        let names = patiently(|| self.to.collections()).await.map_err(|error| failed("TO", "", &error))?;
        let known: BTreeSet<&str> = self.pairs.iter().map(|pair| pair.from.name()).collect();
        for name in names.iter().filter(|name| !known.contains(name.as_str())) {
            let mut walk = Walk::new(self.to, leaked(name));
            if let Some(other) = walk.peek().await.map_err(|error| failed("TO", name, &error))? {
                return Err(refused(name, &other.id, "is in a collection that FROM does not have"));
            }
        }
        for pair in &self.pairs {
            let name = pair.from.name();
            let total = self.count(pair).await?;
            let (mut from, mut to) = (Walk::new(self.from, pair.from), Walk::new(self.to, pair.to));
            let mut progress = Progress { what: format!("comparing {name}"), done: 0, total };
            while let Some(Sized { document: other, .. }) =
                to.next().await.map_err(|error| failed("TO", name, &error))?
            {
                let same = loop {
                    let next = from.peek().await.map_err(|error| failed("FROM", name, &error))?;
                    match next.map(|next| next.id.cmp(&other.id)) {
                        Some(Ordering::Less) => {
                            from.next().await.map_err(|error| failed("FROM", name, &error))?;
                            progress.done += 1;
                            self.watch.at(&progress);
                        }
                        Some(Ordering::Equal) => break next == Some(&other),
                        Some(Ordering::Greater) | None => {
                            return Err(refused(name, &other.id, "is not in FROM"));
                        }
                    }
                };
                if !same {
                    return Err(refused(name, &other.id, DIFFERS));
                }
            }
        }
        Ok(())
    }

    async fn count(&self, pair: &Pair) -> Result<u64, StartError> {
        let counted = patiently(|| self.from.count(pair.from, Filter::All, None)).await;
        counted.map_err(|error| failed("FROM", pair.from.name(), &error))
    }

    async fn copy(&self, pair: &Pair) -> Result<(), StartError> {
        let name = pair.from.name();
        patiently(|| self.to.prepare(pair.to)).await.map_err(|error| failed("TO", name, &error))?;
        if self.overwrite {
            self.clear(pair).await?;
        }
        let mut progress =
            Progress { what: format!("copying {name}"), done: 0, total: self.count(pair).await? };
        let (mut missing, mut bytes) = (Vec::new(), 0);
        let mut both = self.side_by_side(pair);
        // Whatever is written has an id that was taken: so the walk of the target never meets it.
        while let Some(next) = both.next().await? {
            if let Some(other) = next.other().filter(|_| !self.overwrite) {
                return Err(refused(name, &other.id, DIFFERS));
            }
            progress.done += u64::from(next.from.is_some());
            // Here `to` differs only when somebody has written meanwhile.
            if !next.is_same()
                && let Some(from) = next.from
            {
                bytes += from.bytes;
                missing.push(from.document);
            }
            if missing.len() >= CHUNK || bytes >= CHUNK_BYTES {
                self.restore(pair, std::mem::take(&mut missing)).await?;
                bytes = 0;
            }
            self.watch.at(&progress);
        }
        self.restore(pair, missing).await
    }

    /// Deletes from the target what is not in the source, or differs. This comes before anything is written: a unique value
    /// may have moved to another document, and then it is taken until the one that had it is gone.
    async fn clear(&self, pair: &Pair) -> Result<(), StartError> {
        let name = pair.from.name();
        let total = self.count(pair).await?;
        let mut progress = Progress { what: format!("comparing {name}"), done: 0, total };
        let mut others = Vec::new();
        let mut both = self.side_by_side(pair);
        while let Some(next) = both.next().await? {
            progress.done += u64::from(next.from.is_some());
            others.extend(next.other().map(|other| other.id.clone()));
            if others.len() >= CHUNK {
                self.delete(pair, std::mem::take(&mut others)).await?;
            }
            self.watch.at(&progress);
        }
        self.delete(pair, others).await
    }

    fn side_by_side(&self, pair: &Pair) -> SideBySide<'_> {
        let (from, to) = (Walk::new(self.from, pair.from), Walk::new(self.to, pair.to));
        SideBySide { name: pair.from.name(), from, to }
    }

    async fn restore(&self, pair: &Pair, documents: Vec<Document>) -> Result<(), StartError> {
        if documents.is_empty() {
            return Ok(());
        }
        // The documents are cheap to clone: their fields are shared.
        let restored = patiently(|| self.to.restore(pair.to, documents.clone())).await;
        restored.map_err(|error| failed("TO", pair.to.name(), &error))
    }

    async fn delete(&self, pair: &Pair, ids: Vec<String>) -> Result<(), StartError> {
        if ids.is_empty() {
            return Ok(());
        }
        let deleted = patiently(|| {
            let write = Write::DeleteAll(Filter::Ids(ids.clone()));
            self.to.write(pair.to, write)
        });
        deleted.await.map(drop).map_err(|error| failed("TO", pair.to.name(), &error))
    }

    async fn compare(&self, pair: &Pair) -> Result<Row, StartError> {
        let name = pair.from.name();
        let progress = Progress { what: format!("checking {name}"), done: 0, total: self.count(pair).await? };
        let (from, to) = tokio::join!(
            Summary::of(self.from, pair.from, &progress, self.watch),
            Summary::of(self.to, pair.to, &progress, &()),
        );
        // Damaged meanwhile, or in the target before.
        let checked = patiently(|| self.from.check_readable(pair.from)).await;
        checked.map_err(|error| failed("FROM", name, &error))?;
        let checked = patiently(|| self.to.check_readable(pair.to)).await;
        checked.map_err(|error| failed("TO", name, &error))?;
        let from = from.map_err(|error| failed("FROM", name, &error))?;
        let to = to.map_err(|error| failed("TO", name, &error))?;
        Ok(Row { collection: name.to_owned(), from, to })
    }
}

/// A walk through a collection of both stores, by id.
struct SideBySide<'a> {
    name: &'static str,
    from: Walk<'a>,
    to: Walk<'a>,
}

/// What there is of one id.
struct Next {
    from: Option<Sized>,
    to: Option<Sized>,
}

impl SideBySide<'_> {
    async fn next(&mut self) -> Result<Option<Next>, StartError> {
        let (from_failed, to_failed) =
            (|error| failed("FROM", self.name, &error), |error| failed("TO", self.name, &error));
        let next = self.from.peek().await.map_err(from_failed)?;
        let other = self.to.peek().await.map_err(to_failed)?;
        let order = match (next, other) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(next), Some(other)) => next.id.cmp(&other.id),
        };
        let from = if order.is_le() { self.from.next().await.map_err(from_failed)? } else { None };
        let to = if order.is_ge() { self.to.next().await.map_err(to_failed)? } else { None };
        Ok(Some(Next { from, to }))
    }
}

impl Next {
    fn is_same(&self) -> bool {
        self.from.as_ref().map(|from| &from.document) == self.to.as_ref().map(|to| &to.document)
    }

    /// The document of the target, when it is not that of the source.
    fn other(&self) -> Option<&Document> {
        self.to.as_ref().map(|to| &to.document).filter(|_| !self.is_same())
    }
}

const DIFFERS: &str = "differs from that of FROM";

fn refused(collection: &str, id: &str, why: &str) -> StartError {
    StartError::failed(format!(
        "TO: the document {id:?} of {collection} {why}. Copy into an empty store, or give --overwrite: then what differs \
         is replaced, and what FROM does not have is deleted from the collections of FROM"
    ))
}

fn failed(side: &str, collection: &str, error: &Error) -> StartError {
    let cause = error.cause();
    let why = if cause.is_empty() { error.message() } else { &cause };
    let collection = if collection.is_empty() { String::new() } else { format!(", collection {collection}") };
    StartError::failed(format!("{side}{collection}: {why}"))
}

//! A walk through the documents of a collection by id, in chunks that are bounded in number and in size.

use std::collections::VecDeque;
use std::io;

use super::super::query::{Page, Query, Sort};
use super::super::{Collection, Document, DocumentStore, Filter};
use super::{CHUNK, CHUNK_BYTES, patiently};
use crate::error::{Error, Result};

/// The first chunk, while the size of the documents is not known.
const FIRST_CHUNK: usize = 16;

/// A document with the size of its JSON text.
pub(super) struct Sized {
    pub(super) document: Document,
    pub(super) bytes: usize,
}

/// The documents of a collection that have not been taken yet. One that is written meanwhile may or may not be seen; none
/// is seen twice.
pub(super) struct Walk<'a> {
    store: &'a dyn DocumentStore,
    collection: &'static Collection,
    /// The id of the last document that was read.
    position: String,
    chunk: VecDeque<Sized>,
    /// How many documents the next chunk has. Those of the last one say how large they are; the first larger ones may
    /// exceed the size, by as much as they are larger.
    limit: usize,
    ended: bool,
}

impl<'a> Walk<'a> {
    /// All documents.
    pub(super) fn new(store: &'a dyn DocumentStore, collection: &'static Collection) -> Self {
        Self::after(store, collection, String::new())
    }

    /// Those whose ids are greater.
    pub(super) fn after(
        store: &'a dyn DocumentStore,
        collection: &'static Collection,
        position: String,
    ) -> Self {
        Self { store, collection, position, chunk: VecDeque::new(), limit: FIRST_CHUNK, ended: false }
    }

    /// The next document.
    pub(super) async fn peek(&mut self) -> Result<Option<&Document>> {
        self.fill().await?;
        Ok(self.chunk.front().map(|sized| &sized.document))
    }

    /// Takes the next document.
    pub(super) async fn next(&mut self) -> Result<Option<Sized>> {
        self.fill().await?;
        Ok(self.chunk.pop_front())
    }

    /// Takes all documents of a chunk; none at the end.
    pub(super) async fn next_chunk(&mut self) -> Result<Vec<Document>> {
        self.fill().await?;
        Ok(self.chunk.drain(..).map(|sized| sized.document).collect())
    }

    async fn fill(&mut self) -> Result<()> {
        if self.ended || !self.chunk.is_empty() {
            return Ok(());
        }
        let mut limit = self.limit;
        let (store, collection, position) = (self.store, self.collection, &self.position);
        let found = patiently(|| {
            let page = Page::first(limit as u64);
            let query = Query { filter: Filter::After(position.clone()), sort: Sort::by_id(), page };
            self.limit = limit;
            // It may have been too much for the time.
            limit = (limit / 4).max(1);
            store.find(collection, query)
        })
        .await?;
        self.ended = found.len() < self.limit;
        let mut total = 0;
        for document in found {
            let bytes = size(&document)?;
            total += bytes;
            self.chunk.push_back(Sized { document, bytes });
        }
        if let Some(last) = self.chunk.back() {
            self.position.clone_from(&last.document.id);
            let average = (total / self.chunk.len()).max(1);
            self.limit = (CHUNK_BYTES / average).clamp(1, CHUNK);
        }
        Ok(())
    }
}

fn size(document: &Document) -> Result<usize> {
    let mut length = Length(document.id.len());
    serde_json::to_writer(&mut length, &*document.fields).map_err(Error::internal)?;
    Ok(length.0)
}

/// Counts what is written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

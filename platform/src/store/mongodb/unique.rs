//! The unique paths of a collection in MongoDB: their indexes, and which of them a failed write has broken.
//!
//! An index is partial: it has only the documents with a text, a number or a boolean at the path. MongoDB compares them as
//! `query` does. A pending document is in the index too (`pending`), so a write that clashes with one waits until that is
//! visible or gone.

use std::fmt::Write as _;
use std::sync::Arc;

use mongodb::IndexModel;
use mongodb::bson::{Bson, Document as Bdoc, doc};
use mongodb::error::Error as DriverError;
use mongodb::options::IndexOptions;
use sha2::{Digest, Sha256};

use super::super::query::ValueKey;
use super::super::unique::{stored_clash, value_exists, value_exists_in};
use super::super::{Collection, Document};
use super::convert::{ID, PENDING};
use super::query::stored_path;
use super::server::{duplicate_message, is_duplicate, store_error};
use super::{Inner, Stored};
use crate::error::{Error, Result};

/// MongoDB's own index of the ids.
const ID_INDEX: &str = "_id_";

/// A unique index that a write has broken.
pub(super) enum Broken {
    Id,
    Path(&'static str),
    /// One that this program does not declare.
    Other(String),
}

/// The documents whose value at a path can clash.
fn clashing(path: &str) -> Bdoc {
    doc! { stored_path(path): { "$type": ["bool", "number", "string"] } }
}

/// The name of the index of a path. It has no special character, so that it can be found in a message.
fn name(path: &str) -> String {
    let mut name = String::from("unique_");
    for byte in Sha256::digest(path).iter().take(8) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The unique index that a write has broken; `None` for any other error.
pub(super) fn broken(collection: &Collection, error: &DriverError) -> Option<Broken> {
    duplicate_message(error).map(|message| broken_in(collection, message))
}

/// The index in a message such as `E11000 duplicate key error collection: app.people index: _id_ dup key: { _id: "x" }`.
/// The first part is the name of the index: the value, which may be any text, comes later.
fn broken_in(collection: &Collection, message: &str) -> Broken {
    let index = message.split_once(" index: ").and_then(|(_, rest)| rest.split(' ').next());
    match index {
        None | Some(ID_INDEX) => Broken::Id,
        Some(index) => {
            let path = collection.unique_paths().iter().find(|path| name(path) == index);
            path.map_or_else(|| Broken::Other(index.to_owned()), |path| Broken::Path(path))
        }
    }
}

impl Inner {
    /// Creates the unique indexes that are missing. What killed processes have left must have been removed.
    pub(super) async fn create_unique(&self, collection: &'static Collection, stored: &Stored) -> Result<()> {
        if collection.unique_paths().is_empty() {
            return Ok(());
        }
        let guard = Arc::clone(&self.indexing).lock_owned().await;
        let stored = stored.clone();
        // A task of its own, one at a time: over many documents it takes longer than a caller waits.
        let task = tokio::spawn(async move {
            let _guard = guard;
            let created = create_indexes(collection, &stored).await;
            if let Err(error) = &created {
                // Its caller may be gone.
                tracing::warn!(target: "server", cause = error.cause(), "cannot create {}", collection.name());
            }
            created
        });
        task.await.map_err(Error::internal)?
    }

    /// Decides on a write of documents that has broken a unique index. `Conflict` when another visible document has the
    /// value; if a pending one has it, waits a moment for that. Then the write can be tried again.
    pub(super) async fn refuse_or_wait(
        &self,
        stored: &Stored,
        broken: Broken,
        new: &[Document],
    ) -> Result<()> {
        let path = match broken {
            Broken::Path(path) => path,
            Broken::Other(index) => return Err(value_exists_in(&index)),
            Broken::Id => return Ok(()),
        };
        let values: Vec<Bson> =
            new.iter().filter_map(|document| ValueKey::at(&document.fields, path)).map(bson).collect();
        let ids: Vec<&str> = new.iter().map(|document| document.id.as_str()).collect();
        // With the condition of the index, so that MongoDB can use it.
        let mut others = clashing(path);
        others.insert("$and", [doc! { stored_path(path): { "$in": values } }, doc! { ID: { "$nin": ids } }]);
        let (pending, visible) = self.pending(stored, others).await?;
        if visible {
            return Err(value_exists(path));
        }
        self.wait_for(stored, pending).await
    }
}

async fn create_indexes(collection: &Collection, stored: &Stored) -> Result<()> {
    for path in collection.unique_paths() {
        let options = IndexOptions::builder().name(name(path)).unique(true);
        let options = options.partial_filter_expression(clashing(path)).build();
        let index = IndexModel::builder().keys(doc! { stored_path(path): 1 }).options(options).build();
        match stored.create_index(index).await {
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => return Err(why_not_created(collection, stored, path).await),
            Err(error) => return Err(store_error(error)),
        }
    }
    Ok(())
}

fn bson(value: ValueKey) -> Bson {
    match value {
        ValueKey::Bool(value) => Bson::Boolean(value),
        ValueKey::Int(value) => Bson::Int64(value),
        ValueKey::Float(bits) => Bson::Double(f64::from_bits(bits)),
        ValueKey::Text(text) => Bson::String(text),
    }
}

/// The error of a unique index that could not be created.
async fn why_not_created(collection: &Collection, stored: &Stored, path: &str) -> Error {
    match find_clash(stored, path).await {
        Ok(Some([one, other])) => stored_clash(collection, path, [&one, &other]),
        // Documents that are pending: they will be visible or gone.
        Ok(None) => Error::unavailable(format!("a write in progress clashes at {path:?}")),
        Err(error) => error,
    }
}

/// The ids of two visible documents with the same value.
async fn find_clash(stored: &Stored, path: &str) -> Result<Option<[String; 2]>> {
    let mut visible = clashing(path);
    visible.insert(PENDING, Bson::Null);
    let group = doc! {
        ID: format!("${}", stored_path(path)), "count": { "$sum": 1 },
        "first": { "$min": format!("${ID}") }, "last": { "$max": format!("${ID}") },
    };
    let pipeline = [
        doc! { "$match": visible },
        doc! { "$group": group },
        doc! { "$match": { "count": { "$gt": 1 } } },
        doc! { "$sort": { "first": 1 } },
        doc! { "$limit": 1 },
    ];
    let mut found = stored.aggregate(pipeline).allow_disk_use(true).await.map_err(store_error)?;
    if !found.advance().await.map_err(store_error)? {
        return Ok(None);
    }
    let clash = found.deserialize_current().map_err(store_error)?;
    let id = |key| clash.get_str(key).map(str::to_owned).map_err(Error::internal);
    Ok(Some([id("first")?, id("last")?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_message_is_found_whatever_the_value_is() {
        static PEOPLE: Collection = Collection::new("people", &[]).unique(&["a", "b.c"]);
        let of = |index: &str, value: &str| {
            let message = format!(
                "E11000 duplicate key error collection: app.people index: {index} dup key: {{ x: \"{value}\" }}"
            );
            match broken_in(&PEOPLE, &message) {
                Broken::Id => "id".to_owned(),
                Broken::Path(path) => format!("path {path}"),
                Broken::Other(name) => format!("other {name}"),
            }
        };
        let hostile = format!(" index: {} dup key: ", name("a"));
        assert_eq!(of("_id_", &hostile), "id");
        assert_eq!(of(&name("b.c"), &hostile), "path b.c");
        assert_eq!(of("by_hand", " index: _id_ dup key"), "other by_hand");
    }
}

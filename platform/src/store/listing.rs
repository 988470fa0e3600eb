//! What the methods of a DAO return.

use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// A value with the id and version of its document.
///
/// It serialises as one object: `id`, `version`, then the fields of the value. A value that is no object, or that has one of
/// these fields itself, cannot be serialised so: then write a type for the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The id of the document.
    pub id: String,
    /// 1 when it was created; each write adds 1.
    pub version: u64,
    /// The value.
    pub value: T,
}

impl<T: Serialize> Serialize for Stored<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(fields) = serde_json::to_value(&self.value).map_err(S::Error::custom)? else {
            return Err(S::Error::custom("a stored value that is no object has no place for its id"));
        };
        if let Some(own) = ["id", "version"].into_iter().find(|name| fields.contains_key(*name)) {
            return Err(S::Error::custom(format_args!("the stored value has a field `{own}` of its own")));
        }
        let mut object = serializer.serialize_map(Some(fields.len() + 2))?;
        object.serialize_entry("id", &self.id)?;
        object.serialize_entry("version", &self.version)?;
        for (name, value) in &fields {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

/// One page of the values that match, and how many match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The values of the page.
    pub items: Vec<Stored<T>>,
    /// How many there are on all pages. They are counted after the page was read: a write may have come between.
    pub total: u64,
}

/// How many values match, as [`Dao::count_up_to`](super::Dao::count_up_to) counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// So many.
    Exactly(u64),
    /// More than so many.
    AtLeast(u64),
}

/// Some of the values that match, and where the next ones begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<T> {
    /// The values, in their order.
    pub items: Vec<Stored<T>>,
    /// Where the next chunk begins: an id for [`Dao::get_page_after`](super::Dao::get_page_after), a cursor for [`Dao::page_after`](super::Dao::page_after). `None` when this
    /// is the last one.
    pub next: Option<String>,
}

/// What [`Dao::upsert`](super::Dao::upsert) did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// The id of the document.
    pub id: String,
    /// Its version now.
    pub version: u64,
    /// Whether it is new.
    pub created: bool,
}

//! Queries, and what they mean. It reads no storage.
//!
//! A query is a small tree of types, never a text, so that nothing can be injected into it. Every engine must give
//! the results that the functions here define:
//!
//! * A **path** is `city` or `address.city`. It goes through objects only: an array has no fields, so `tags.0` finds
//!   nothing in one. A segment is not empty, does not begin with `$`, and has no dot, quote, backslash or control
//!   character. A field with such a name can be stored, but no query can name it.
//! * A **comparison** is true only between values of one type: a number is never less than a text. An object or an
//!   array is equal to nothing and less than nothing. `eq(null)` is true when the field is null *or* missing; `exists`
//!   is true when the field is there, null or not. `ne` is `not(eq)`, so it is true when the field is missing.
//! * **Numbers** are compared by value: `1` equals `1.0`, and 64-bit integers are compared with floats exactly. A
//!   stored integer above 2⁶³−1 is compared as the nearest float. (SQLite parses floats above some 10⁶⁰ or below 10⁻⁶⁰
//!   with an error of up to two units in the last place, so two floats next to each other may be equal there.)
//! * **Texts** are compared byte by byte in UTF-8: letter case counts, languages and Unicode forms do not. No stored
//!   text holds NUL (U+0000); an operand may, and then equals nothing.
//! * `contains` looks for a text in a text, byte by byte or ignoring the case of letters ([`Needle`]). `has` looks for an
//!   element of an array, with the equality of a comparison. `is_of` asks for the type.
//! * A **sort** puts null and missing first, then numbers, texts, objects, arrays, `false`, `true`: MongoDB's order
//!   of types. Two objects are equal in it, and two arrays. Equal documents, and the documents of a query without sort,
//!   are in the order of their ids, bytewise.

mod filter;
mod groups;
mod needle;
mod nul;
mod path;
#[cfg(any(feature = "mongodb", feature = "postgres", feature = "sqlite"))]
mod prefix;
mod scalar;
mod sort_key;
mod value_key;

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::Document;
use crate::error::{Error, Result};
use sort_key::{SortKey, lookup};

pub use filter::{Bound, Field, Filter, MAX_DEPTH, MAX_NODES, MAX_OPERANDS, Predicate, field};
pub(super) use groups::Groups;
#[cfg(any(feature = "mongodb", feature = "postgres"))]
pub(super) use needle::regex;
pub use needle::{MAX_NEEDLE, Needle};
pub use path::MAX_PATH;
pub(super) use path::{check_disjoint, check_path, is_path};
#[cfg(any(feature = "mongodb", feature = "postgres", feature = "sqlite"))]
pub(super) use prefix::after_prefix;
pub use scalar::Scalar;
pub use sort_key::Type;
pub(super) use sort_key::{equal, lookup as value_at};
pub(super) use value_key::ValueKey;

/// The most fields in a sort: MongoDB's limit is 32, and the id is the last one.
pub const MAX_SORT: usize = 31;

/// The order of the documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sort(Vec<(String, Direction)>);

/// The direction of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The least first.
    Ascending,
    /// The greatest first. Equal documents are still in the order of their ids.
    Descending,
}

impl Sort {
    /// By id alone.
    pub fn by_id() -> Self {
        Self::default()
    }

    /// By the value at a path, then by id.
    pub fn by(path: impl Into<String>, direction: Direction) -> Self {
        Self::default().then(path, direction)
    }

    /// Documents that are equal so far: by the value at another path.
    pub fn then(mut self, path: impl Into<String>, direction: Direction) -> Self {
        self.0.push((path.into(), direction));
        self
    }

    /// The paths, in their order.
    pub fn fields(&self) -> &[(String, Direction)] {
        &self.0
    }

    /// `BadRequest` when a path is invalid, or there are more than [`MAX_SORT`].
    pub fn check(&self) -> Result<()> {
        if self.0.len() > MAX_SORT {
            Err(Error::bad_request("Sort Too Long"))
        } else {
            self.0.iter().try_for_each(|(path, _)| check_path(path))
        }
    }

    /// Whether an object or an array is at one of the paths of a document.
    #[cfg(feature = "mongodb")]
    pub(super) fn has_compound(&self, document: &Document) -> bool {
        self.0.iter().any(|(path, _)| {
            matches!(SortKey::of(lookup(&document.fields, path)), SortKey::Object | SortKey::Array)
        })
    }

    fn compare(&self, left: &Document, right: &Document) -> Ordering {
        let fields = self.0.iter().map(|(path, direction)| {
            let order =
                SortKey::of(lookup(&left.fields, path)).order(&SortKey::of(lookup(&right.fields, path)));
            if *direction == Direction::Descending { order.reverse() } else { order }
        });
        fields.fold(Ordering::Equal, Ordering::then).then_with(|| left.id.cmp(&right.id))
    }
}

/// Which part of the documents that match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many are skipped.
    pub offset: u64,
    /// How many follow at most; `None`: no limit.
    pub limit: Option<u64>,
}

impl Page {
    /// All documents.
    pub fn all() -> Self {
        Self::default()
    }

    /// The first documents.
    pub fn first(limit: u64) -> Self {
        Self { offset: 0, limit: Some(limit) }
    }
}

/// A filter, a sort and a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which documents.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// Which part of them.
    pub page: Page,
}

/// The result of a query. This defines what a query means. The documents must come in the order of their ids.
pub(super) fn select<D: Borrow<Document>>(documents: impl Iterator<Item = D>, query: &Query) -> Vec<D> {
    let offset = usize::try_from(query.page.offset).unwrap_or(usize::MAX);
    let limit = query.page.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let matching = documents.filter(|document| query.filter.matches(document.borrow()));
    if query.sort.fields().is_empty() {
        return matching.skip(offset).take(limit).collect();
    }
    let mut sorted: Vec<D> = matching.collect();
    sorted.sort_by(|left, right| query.sort.compare(left.borrow(), right.borrow()));
    sorted.into_iter().skip(offset).take(limit).collect()
}

#[cfg(test)]
mod tests;

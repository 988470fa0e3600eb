//! The questions that can be put to a store, and the one meaning they have. It reads no storage.
//!
//! A query is a small tree of types, never a text, so that nothing can be injected into it. Every engine must
//! answer as the functions of this file do:
//!
//! * A **path** is `city` or `address.city`: it goes through objects only. An array has no fields, so
//!   `tags.0` finds nothing in it. A segment is not empty, does not begin with `$`, and has no dot, quote,
//!   backslash or control character; a field with such a name can be stored, and cannot be asked for.
//! * A **comparison** holds only between values of one type: a number is never less than a text. An object
//!   or an array equals and precedes nothing. `eq(null)` holds where the field is null *or* missing;
//!   `exists` tells the two apart. `ne` is `not(eq)`, so it holds where the field is missing.
//! * **Numbers** are compared by their value, `1` equals `1.0`, and 64-bit integers and floats exactly. A
//!   stored integer above 2⁶³−1 counts as the nearest float. (SQLite reads a float of more than about 10⁶⁰
//!   or less than 10⁻⁶⁰ up to two units off in its last place, so that two neighbours there may be equal.)
//! * **Texts** are compared byte by byte in UTF-8: no letter case, no language, no Unicode form. No stored text holds
//!   NUL (U+0000); an operand that does is compared as any other, and so equals nothing.
//! * A **sort** puts null and missing first, then numbers, texts, objects, arrays, `false`, `true` (MongoDB's
//!   order of types). Two objects tie, and two arrays. Ties, and a query without sort, are in the order of
//!   the id, bytewise.

mod filter;
mod key;
mod nul;
mod path;
mod scalar;

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::Document;
use crate::error::{Error, Result};
use key::{Key, lookup};

pub use filter::{Bound, Field, Filter, MAX_DEPTH, MAX_NODES, MAX_OPERANDS, Test, field};
pub use path::MAX_PATH;
pub(super) use path::{check_path, is_path};
pub use scalar::Scalar;

/// The most fields in a sort: MongoDB's limit.
pub const MAX_SORT: usize = 32;

/// The order of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sort(Vec<(String, Direction)>);

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Least first.
    Ascending,
    /// Greatest first; ties are still by ascending id.
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

    /// And where that ties, by the value at another path.
    pub fn then(mut self, path: impl Into<String>, direction: Direction) -> Self {
        self.0.push((path.into(), direction));
        self
    }

    /// The paths, the first to count first.
    pub fn fields(&self) -> &[(String, Direction)] {
        &self.0
    }

    /// `BadRequest` when a path is none or there are more than [`MAX_SORT`].
    pub fn check(&self) -> Result<()> {
        if self.0.len() > MAX_SORT {
            Err(Error::bad_request("Sort Too Long"))
        } else {
            self.0.iter().try_for_each(|(path, _)| check_path(path))
        }
    }

    fn compare(&self, left: &Document, right: &Document) -> Ordering {
        let fields = self.0.iter().map(|(path, direction)| {
            let order = Key::of(lookup(&left.body, path)).order(&Key::of(lookup(&right.body, path)));
            if *direction == Direction::Descending { order.reverse() } else { order }
        });
        fields.fold(Ordering::Equal, Ordering::then).then_with(|| left.id.cmp(&right.id))
    }
}

/// Which part of an answer is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many documents are left out at its beginning.
    pub offset: u64,
    /// How many follow at most; `None` is all.
    pub limit: Option<u64>,
}

impl Page {
    /// The whole answer.
    pub fn all() -> Self {
        Self::default()
    }

    /// The first documents of the answer.
    pub fn first(limit: u64) -> Self {
        Self { offset: 0, limit: Some(limit) }
    }
}

/// All that a store is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which documents.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// Which part of them.
    pub page: Page,
}

/// The answer to a query from documents that come in the order of their ids: the meaning of a query.
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

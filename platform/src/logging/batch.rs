//! Records that a sink writes together, each one line.

use super::level::Level;

/// A buffer whose capacity is at most this is kept; 64 KiB holds a few hundred lines.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Records, each one line.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// The end of each record in `bytes`, and its level.
    ends: Vec<(usize, Level)>,
}

impl Batch {
    /// Appends a record, which ends with a line feed.
    pub(super) fn push(&mut self, level: Level, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push((self.bytes.len(), level));
    }

    /// All lines, each with its line feed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of records.
    pub(super) fn len(&self) -> u64 {
        count(self.ends.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The number of records that are not complete within the first `written` bytes.
    pub(super) fn unwritten(&self, written: usize) -> u64 {
        count(self.ends.iter().filter(|(end, _)| *end > written).count())
    }

    /// Each record without its line feed.
    pub(super) fn records(&self) -> impl Iterator<Item = (Level, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, level)| {
            let record = &self.bytes[start..end];
            start = end;
            (level, record.strip_suffix(b"\n").unwrap_or(record))
        })
    }

    /// Removes all records. Frees memory that a burst has taken and that this batch has not needed.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_CAPACITY && self.bytes.len() < self.bytes.capacity() / 4 {
            self.bytes = Vec::with_capacity(self.bytes.len().max(KEPT_CAPACITY));
            self.ends.shrink_to(self.ends.len());
        }
        self.bytes.clear();
        self.ends.clear();
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

//! A log that a test can read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::sink::{Failure, Output, Sink};

/// Much longer than the thread of the sink needs for the records of a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lines that were logged so far, in logfmt.
#[derive(Clone)]
pub struct MemoryLog {
    pub(super) sink: Sink,
    pub(super) lines: Lines,
}

impl MemoryLog {
    /// All lines that were logged before this call, without their line feeds.
    pub fn lines(&self) -> Vec<String> {
        self.sink.flush(Instant::now() + PATIENCE);
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The output behind a [`MemoryLog`].
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<String>>>);

impl Output for Lines {
    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let lines = batch.records().map(|(_, record)| String::from_utf8_lossy(record).into_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(lines);
        Ok(())
    }

    fn destination(&self) -> String {
        "memory".to_owned()
    }
}

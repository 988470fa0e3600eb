//! Files that are no documents: broken, copied, or a folder with the name of a file. What looks at all documents leaves them
//! out, and the log names each of them once, until it has been mended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// How many of them are named at a time.
const NAMED: usize = 20;

/// Why a file gives no document.
pub(super) enum Unread {
    /// This file is damaged. Others may be whole.
    Damaged(Error),
    /// The disk does not respond, or the process may not read. It is not the file.
    Failed(Error),
}

impl From<Unread> for Error {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Damaged(error) | Unread::Failed(error) => error,
        }
    }
}

/// The damaged files that were met.
#[derive(Default)]
pub(super) struct Damaged(Mutex<State>);

#[derive(Default)]
struct State {
    met: BTreeSet<PathBuf>,
    /// What the log has to say of those that are new.
    unsaid: Vec<String>,
}

impl Damaged {
    /// Notes a file that was left out.
    pub(super) fn note(&self, path: PathBuf, error: &Error) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.met.insert(path) {
            state.unsaid.push(error.cause());
        }
    }

    /// Notes a file that is whole, or gone.
    pub(super) fn forget(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).met.remove(path);
    }

    /// Logs what is new. Called by the request and not by the thread that reads, so the record has the request's id.
    pub(super) fn report(&self) {
        let unsaid = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).unsaid);
        for cause in unsaid.iter().take(NAMED) {
            tracing::warn!(target: "server", "left out, and in no list until it is mended or deleted: {cause}");
        }
        if let Some(more) = unsaid.len().checked_sub(NAMED + 1) {
            tracing::warn!(target: "server", more = more + 1, "more damaged files were left out");
        }
    }
}

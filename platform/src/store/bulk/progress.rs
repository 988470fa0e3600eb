//! How far a long command is.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a line is written, and how often the line of a terminal is written anew.
const LINE_EVERY: Duration = Duration::from_secs(3);
const BAR_EVERY: Duration = Duration::from_millis(100);
/// The characters of the bar of a terminal.
const BAR: u64 = 30;

/// A state of the work.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is done, and with which collection.
    pub what: String,
    /// How many documents are done.
    pub done: u64,
    /// How many there are; a writer may have added some.
    pub total: u64,
}

/// Who is told.
pub trait Watch: Send + Sync {
    /// The work is here now.
    fn at(&self, progress: &Progress);
}

/// Nobody.
impl Watch for () {
    fn at(&self, _: &Progress) {}
}

/// Standard error: a bar on a terminal, else a line every three seconds.
pub struct OnStandardError {
    terminal: bool,
    last: Mutex<Instant>,
}

impl OnStandardError {
    /// A terminal is found by itself.
    pub fn new() -> Self {
        Self { terminal: stderr().is_terminal(), last: Mutex::new(Instant::now()) }
    }

    /// Removes the bar of a terminal.
    pub fn clear(&self) {
        if self.terminal {
            // Without standard error, there is nobody to tell.
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Default for OnStandardError {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch for OnStandardError {
    fn at(&self, progress: &Progress) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < if self.terminal { BAR_EVERY } else { LINE_EVERY } {
            return;
        }
        *last = Instant::now();
        let line = line(progress, self.terminal);
        let _ = if self.terminal { write!(stderr(), "\r{line}\x1b[K") } else { writeln!(stderr(), "{line}") };
    }
}

/// `copying tasks [######    ]  60 % 600 of 1000`.
fn line(progress: &Progress, bar: bool) -> String {
    let Progress { what, done, total } = progress;
    let of = |whole: u64| (done * whole).checked_div(*total).unwrap_or(whole).min(whole);
    let filled = usize::try_from(of(BAR)).unwrap_or_default();
    let width = usize::try_from(BAR).unwrap_or_default();
    let bar = if bar { format!(" [{:width$}]", "#".repeat(filled)) } else { String::new() };
    format!("{what}{bar} {:3} % {done} of {total}", of(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let at = |done, total| line(&Progress { what: "copying tasks".to_owned(), done, total }, false);
        assert_eq!(at(600, 1000), "copying tasks  60 % 600 of 1000");
        assert_eq!(at(0, 0), "copying tasks 100 % 0 of 0");
        // More have come since they were counted.
        assert_eq!(at(11, 10), "copying tasks 100 % 11 of 10");
        let half = Progress { what: "x".to_owned(), done: 1, total: 2 };
        assert_eq!(line(&half, true), format!("x [{}{}]  50 % 1 of 2", "#".repeat(15), " ".repeat(15)));
    }
}

//! The signals that end the server, and how everything in it learns of the end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. From then on the signals no longer end the process by themselves.
    pub fn take() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal. Returns its name, and the exit code of a process that it ends (128 and its number).
    pub async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 143),
            _ = self.interrupt.recv() => ("SIGINT", 130),
        }
    }
}

/// Tells that the server drains. As an extractor and as the argument of a background task it is what a long-lived
/// response or a loop waits for, so that it ends in time. A clone is one more handle on the same.
#[derive(Clone, Debug)]
pub struct Shutdown {
    begun: watch::Sender<bool>,
    deadline: CancellationToken,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { begun: watch::Sender::new(false), deadline: CancellationToken::new() }
    }
}

impl Shutdown {
    /// Waits until the server drains; at once when it does already.
    pub async fn begun(&self) {
        // There is no error while `self` holds the sender.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Whether the server drains.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Begins the drain.
    pub(crate) fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// A receiver that sees a new version when the drain begins; to ask it costs one atomic load.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// Cancelled when the time of the drain is over.
    pub(crate) fn deadline(&self) -> CancellationToken {
        self.deadline.clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn every_handle_learns_that_the_drain_has_begun_early_and_late_ones() {
        let shutdown = Shutdown::default();
        let early = shutdown.clone();
        assert!(!early.has_begun() && early.begun().now_or_never().is_none());
        shutdown.begin();
        assert!(early.has_begun() && early.begun().now_or_never().is_some());
        assert!(shutdown.clone().begun().now_or_never().is_some());
    }
}

//! The signals that end the server, and how everything in it learns of the end.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The exit codes of a server that a signal has ended.
pub mod exit {
    /// Everything in flight was finished.
    pub const CLEAN: u8 = 0;
    /// Something in flight was cut at the deadline.
    pub const CUT: u8 = 3;
}

/// A signal that a server reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGHUP because the terminal of the server was closed.
    TerminalClosed,
    /// SIGHUP otherwise.
    Hangup,
    /// SIGUSR2.
    User2,
}

impl Notice {
    /// The name of the signal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::TerminalClosed | Self::Hangup => "SIGHUP",
            Self::User2 => "SIGUSR2",
        }
    }

    /// The exit code of a process that the signal ends (128 and its number); `None` when it does not end the server.
    pub fn exit_code(self) -> Option<u8> {
        match self {
            Self::Terminate => Some(143),
            Self::Interrupt => Some(130),
            Self::Quit => Some(131),
            Self::TerminalClosed => Some(129),
            Self::Hangup | Self::User2 => None,
        }
    }
}

/// The signals that a server reacts to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// None where it is ignored.
    hangup: Option<Signal>,
    user2: Signal,
    at_terminal: bool,
}

impl Signals {
    /// Installs the handlers. From then on the signals no longer end the process by themselves.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
            user2: signal(SignalKind::user_defined2())?,
            at_terminal: at_terminal(),
        })
    }

    /// Waits for the next signal that ends a process. Returns its name, and the exit code of a process that it ends.
    pub async fn next_ending(&mut self) -> (&'static str, u8) {
        loop {
            let notice = self.next().await;
            if let Some(code) = notice.exit_code() {
                return (notice.name(), code);
            }
        }
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Notice {
        tokio::select! {
            _ = self.terminate.recv() => Notice::Terminate,
            _ = self.interrupt.recv() => Notice::Interrupt,
            _ = self.quit.recv() => Notice::Quit,
            _ = self.user2.recv() => Notice::User2,
            // A terminal that was closed is none any more.
            Some(()) = async { self.hangup.as_mut()?.recv().await } => {
                if self.at_terminal && !at_terminal() { Notice::TerminalClosed } else { Notice::Hangup }
            }
        }
    }
}

/// Makes a write beyond the largest size of a file (`ulimit -f`) an error, as that of a full disk is. Without it, the signal
/// that comes with it (SIGXFSZ) ends the process. It is for the whole process, and has to be called within a runtime.
pub(crate) fn survive_large_files() -> io::Result<()> {
    // There is a handler from now on. That nobody waits for it changes nothing.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// Whether this process was started to ignore SIGHUP, as `nohup` does. Told by Linux only.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is that of signal 1, SIGHUP.
    ignored.is_some_and(|mask| mask.trim_end().ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']))
}

/// Whether a person sees what this process writes.
fn at_terminal() -> bool {
    io::stderr().is_terminal() || io::stdout().is_terminal()
}

/// Tells that the server drains. As an extractor and as the argument of a background task it is what a long-lived
/// response or a loop waits for, so that it ends in time. A clone is one more handle on the same.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Whether a signal has come: the drain begins `server.shutdown.linger` later.
    announced: Arc<AtomicBool>,
    begun: watch::Sender<bool>,
    deadline: CancellationToken,
}

impl Default for Shutdown {
    fn default() -> Self {
        let (begun, deadline) = (watch::Sender::new(false), CancellationToken::new());
        Self { announced: Arc::default(), begun, deadline }
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

    /// Whether the server will drain soon, or does already.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed) || self.has_begun()
    }

    /// Says that the server will drain soon.
    pub(crate) fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
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

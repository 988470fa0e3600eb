//! A thread that ends the process when the rest of it does not: a file call that never returns (NFS, FUSE, a pipe), or code
//! that never awaits, can hold every other thread, and then nobody would see a signal, nor the end of a deadline.

use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::watch;

use super::{BLOCKED_GRACE, FLUSH_DEADLINE};
use crate::error::StartError;
use crate::logging::Logging;
use crate::shutdown::{Signals, exit};

/// How long a start may take to end after a signal: it flushes the log, and waits for threads that are blocked.
const START_GRACE: Duration =
    FLUSH_DEADLINE.saturating_add(BLOCKED_GRACE).saturating_add(Duration::from_secs(1));

/// How long a stop at once may take: it flushes the log.
const AT_ONCE: Duration = FLUSH_DEADLINE.saturating_add(Duration::from_secs(1));

/// What it is told.
#[derive(Clone, Copy)]
struct Limits {
    /// How long the process may take after a signal.
    after_signal: Duration,
    /// When it has to be gone.
    ends_at: Option<Instant>,
}

/// The thread. It goes on when this is dropped.
pub(super) struct ForcedExit(watch::Sender<Limits>);

impl ForcedExit {
    /// Starts the thread. From now on it sees each signal.
    pub(super) fn start(logging: &Logging) -> Result<Self, StartError> {
        let failed =
            |error| StartError::failed(format!("cannot start the thread that ends the process: {error}"));
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let entered = runtime.enter();
        let signals = Signals::take().map_err(failed)?;
        drop(entered);
        let (sender, limits) = watch::channel(Limits { after_signal: START_GRACE, ends_at: None });
        let logging = logging.clone();
        let thread = std::thread::Builder::new().name("forced exit".to_owned());
        let started = thread.spawn(move || {
            let code = runtime.block_on(watch(signals, limits));
            // The log may be what hangs.
            std::thread::spawn(move || {
                tracing::error!(target: "server", code, "the process has not ended in time, and is ended now");
                logging.finish(FLUSH_DEADLINE);
                std::process::exit(i32::from(code));
            });
            std::thread::sleep(FLUSH_DEADLINE + BLOCKED_GRACE);
            std::process::exit(i32::from(code));
        });
        started.map_err(failed)?;
        Ok(Self(sender))
    }

    /// The process may take as long as this after a signal.
    pub(super) fn allow(&self, time: Duration) {
        self.0.send_modify(|limits| limits.after_signal = limits.after_signal.max(time));
    }

    /// The process has to be gone within this time.
    pub(super) fn ends_within(&self, time: Duration) {
        self.0.send_modify(|limits| limits.ends_at = Instant::now().checked_add(time));
    }
}

/// Waits until the process should have ended. Returns its exit code.
async fn watch(mut signals: Signals, mut limits: watch::Receiver<Limits>) -> u8 {
    let (mut ends_at, mut seen, mut code) = (None::<Instant>, 0, exit::CUT);
    loop {
        let until = ends_at.unwrap_or_else(Instant::now);
        tokio::select! {
            (_, of_signal) = signals.next_ending() => {
                seen += 1;
                let time = if seen == 1 { limits.borrow().after_signal } else { AT_ONCE };
                if seen > 1 {
                    code = of_signal;
                }
                ends_at = earlier(ends_at, Instant::now().checked_add(time));
            }
            Ok(()) = limits.changed() => ends_at = earlier(ends_at, limits.borrow_and_update().ends_at),
            () = tokio::time::sleep_until(until.into()), if ends_at.is_some() => return code,
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

//! What makes a server shut down: a signal, or its supervisor.

use std::time::Duration;

use super::ReadAgain;
use crate::logging::Logging;
use crate::process::manager::{self, Told};
use crate::process::{Order, Worker};
use crate::shutdown::{Notice, Signals, exit};

/// How long a drain may go on without the supervisor. Its workers end within 5 s.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(3);

/// How long the connections of a worker that was replaced may go on, each until its next response, before the idle ones
/// are closed. Clients that are at work send their next request long before; one that sends it just when its connection
/// is closed has to send it again.
const RETIRE_TIME: Duration = Duration::from_secs(5);

/// Waits for what ends this server.
pub(super) struct ShutdownTrigger<'a> {
    signals: Signals,
    reload: Option<Reload<'a>>,
    pub(super) worker: Option<Worker>,
    /// The signals that came to this process itself.
    signals_seen: u32,
    /// The service manager knows that this process serves.
    is_ready: bool,
}

/// What one process can do of a reload: the levels of its log.
pub(super) struct Reload<'a> {
    pub(super) read: &'a ReadAgain<'a>,
    pub(super) logging: Logging,
}

impl Reload<'_> {
    /// `is_ready`: during the start, the service manager has not been told that the server serves, and is not told of a
    /// reload, whose end would say so.
    fn run(&self, notice: Notice, is_ready: bool) {
        let signal = notice.name();
        if notice != Notice::Hangup {
            tracing::warn!(target: "server", signal, "one process cannot replace itself: start it with --proc 2, or restart it");
            return;
        }
        let tell = |told| {
            if is_ready {
                manager::tell(told);
            }
        };
        tell(Told::Reloading);
        match (self.read)() {
            Ok(settings) => {
                self.logging.set_levels(&settings);
                tracing::warn!(
                    target: "server", signal,
                    "the levels of the log are as configured now; all else needs a restart, or --proc 2 from the start"
                );
            }
            Err(error) => tracing::error!(target: "server", signal, %error, "no reload: nothing has changed"),
        }
        tell(Told::Ready);
    }
}

/// Why a server ends.
pub(super) struct Cause {
    /// The name of the signal, or what the supervisor wants.
    pub(super) name: &'static str,
    order: Option<Order>,
}

impl Cause {
    /// How long new requests are accepted from now on.
    pub(super) fn linger(&self, configured: Duration) -> Duration {
        match self.order {
            Some(Order::Orphaned | Order::Retire) => Duration::ZERO,
            Some(Order::Drain) | None => configured,
        }
    }

    /// How long connections may wait for their next request, although there are no new ones.
    pub(super) fn retire_time(&self) -> Option<Duration> {
        (self.order == Some(Order::Retire)).then_some(RETIRE_TIME)
    }

    /// How long requests in flight have.
    pub(super) fn deadline(&self, configured: Duration) -> Duration {
        if self.order == Some(Order::Orphaned) { configured.min(ORPHAN_DEADLINE) } else { configured }
    }
}

impl<'a> ShutdownTrigger<'a> {
    pub(super) fn new(signals: Signals, worker: Option<Worker>, reload: Option<Reload<'a>>) -> Self {
        Self { signals, reload, worker, signals_seen: 0, is_ready: false }
    }

    /// Tells the service manager that this process serves.
    pub(super) fn tell_ready(&mut self) {
        self.is_ready = true;
        manager::tell(Told::Ready);
    }

    /// Waits until the server has to end.
    pub(super) async fn cause(&mut self) -> Cause {
        loop {
            let notice = match &mut self.worker {
                None => self.signals.next().await,
                Some(worker) => tokio::select! {
                    order = worker.next_order() => return Cause { name: name_of(order), order: Some(order) },
                    notice = self.signals.next() => notice,
                },
            };
            if notice.exit_code().is_some() {
                self.signals_seen += 1;
                return Cause { name: notice.name(), order: None };
            }
            // A worker gets it when it goes to the whole group, and its supervisor gets it too.
            if let Some(reload) = &self.reload {
                reload.run(notice, self.is_ready);
            }
        }
    }

    /// Waits for what ends a drain at once: a second signal to this process, or the death of the supervisor. The first
    /// signal may come after the order of the supervisor, when it was sent to the whole group (Ctrl-C). Returns its name
    /// and the exit code.
    pub(super) async fn at_once(&mut self) -> (&'static str, u8) {
        loop {
            let notice = match &mut self.worker {
                None => self.signals.next().await,
                Some(worker) => tokio::select! {
                    order = worker.next_order() => {
                        if order == Order::Orphaned {
                            tokio::time::sleep(ORPHAN_DEADLINE).await;
                            return (name_of(order), exit::CUT);
                        }
                        continue;
                    }
                    notice = self.signals.next() => notice,
                },
            };
            if let Some(code) = notice.exit_code() {
                self.signals_seen += 1;
                if self.signals_seen > 1 {
                    return (notice.name(), code);
                }
            }
        }
    }
}

fn name_of(order: Order) -> &'static str {
    match order {
        Order::Drain => "the supervisor stops",
        Order::Retire => "a successor has taken over",
        Order::Orphaned => "the supervisor has died",
    }
}

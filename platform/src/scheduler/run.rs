//! One run of a job, and its line in the log.

use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::Error;
use crate::shutdown::Shutdown;

/// One run of a job, as the job sees it.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) tick: Timestamp,
    pub(super) token: Option<u64>,
    pub(super) shutdown: Shutdown,
}

impl Run {
    /// The time at which it should have begun. Every process that runs the job gets the same.
    pub fn tick(&self) -> Timestamp {
        self.tick
    }

    /// The fencing token of the lock of a job that runs in one process ([`Job::single_process`](super::Job)), for
    /// `dao.guarded(token)`.
    pub fn fencing_token(&self) -> Option<u64> {
        self.token
    }

    /// Tells that the server drains: a job that takes long ends soon after it.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

/// Writes the one line of a run when it has ended, however that is.
pub(super) struct Line<'a> {
    job: &'static str,
    tick: Timestamp,
    /// The process, of a job that runs in one only.
    owner: Option<&'a str>,
    token: Option<u64>,
    begun: Instant,
    ended: bool,
}

/// How a run has ended.
pub(super) enum Outcome {
    Done,
    Failed(Error),
    Panicked,
    LockLost,
}

impl<'a> Line<'a> {
    pub(super) fn begin(
        job: &'static str,
        tick: Timestamp,
        owner: Option<&'a str>,
        token: Option<u64>,
    ) -> Self {
        Self { job, tick, owner, token, begun: Instant::now(), ended: false }
    }

    pub(super) fn end(mut self, outcome: &Outcome, quiet: bool) {
        self.ended = true;
        let Self { job, tick, owner, token, .. } = self;
        let ms = self.milliseconds();
        self.count(match outcome {
            Outcome::Done => "done",
            Outcome::Failed(_) => "failed",
            Outcome::Panicked => "panicked",
            Outcome::LockLost => "lock lost",
        });
        match outcome {
            Outcome::Done if quiet => {
                tracing::trace!(target: "server.job", job, %tick, owner, token, ms, outcome = "done", "job");
            }
            Outcome::Done => {
                tracing::info!(target: "server.job", job, %tick, owner, token, ms, outcome = "done", "job");
            }
            Outcome::Failed(error) => {
                let cause = error.cause();
                tracing::error!(target: "server.job", job, %tick, owner, token, ms, outcome = "failed", cause, "job");
            }
            Outcome::Panicked => {
                tracing::error!(target: "server.job", job, %tick, owner, token, ms, outcome = "panicked", "job");
            }
            Outcome::LockLost => {
                tracing::error!(target: "server.job", job, %tick, owner, token, ms, outcome = "lock lost", "job");
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("job_runs_total", "job" => self.job, "outcome" => outcome).increment(1);
        metrics::histogram!("job_run_duration_seconds", "job" => self.job).record(self.begun.elapsed());
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let Self { job, tick, owner, token, .. } = *self;
            let ms = self.milliseconds();
            self.count("dropped");
            tracing::warn!(target: "server.job", job, %tick, owner, token, ms, outcome = "dropped", "job");
        }
    }
}

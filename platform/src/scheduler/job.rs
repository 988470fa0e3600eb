//! A job: its schedule, its function, and the loop that runs it.

use std::collections::HashSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use super::run::{Line, Outcome, Run};
use super::schedule::Schedule;
use super::single_run::{Claim, SingleRun};
use crate::clock::{Clock, STEP_BACK, Woken};
use crate::error::{Result, StartError};
use crate::lock::{Lease, LockManager, Wait};
use crate::shutdown::Shutdown;

/// A run that begins so much after its time is late: more than a busy machine needs to wake.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// A time that was run so much before it comes: another clock is ahead of this one, or was.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);

/// The most late runs that are made up for, the oldest ones: a day of a job that runs each minute.
const MOST_LATE: usize = 1_440;

/// What happens with a run whose time has passed: the job still ran, the process was paused, the machine slept. After a
/// restart, only a job of a [single process](Job::single_process) knows when it ran last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// It is left out, and the log says so.
    #[default]
    Skip,
    /// It runs as soon as it can, one after the other, the oldest first. Of more than 1,440, the others are left out. A job
    /// of a single process also makes up for the times at which no process ran, each of them once in all.
    MakeUp,
}

type Function<S> = Arc<dyn Fn(S, Run) -> BoxFuture<'static, Result<()>> + Send + Sync>;

type Condition<S> = Box<dyn Fn(&S) -> bool + Send + Sync>;

/// A job of an app with the state `S`.
pub struct Job<S> {
    name: &'static str,
    schedule: Schedule,
    function: Function<S>,
    late: Late,
    single_process: bool,
    quiet: bool,
    is_on: Option<Condition<S>>,
}

impl<S: Clone + Send + Sync + 'static> Job<S> {
    /// A job that calls a function at the times of a schedule. The name is for the log, and must be unique.
    ///
    /// A run that fails or panics has its line in the log, and the job runs again at its next time. A drain waits for a run
    /// within its deadline, then drops it.
    pub fn new<F>(
        name: &'static str,
        schedule: Schedule,
        function: impl Fn(S, Run) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let function: Function<S> = Arc::new(move |state, run| Box::pin(function(state, run)));
        Self {
            name,
            schedule,
            function,
            late: Late::default(),
            single_process: false,
            quiet: false,
            is_on: None,
        }
    }

    /// Says what happens with runs that are late.
    pub fn late(mut self, late: Late) -> Self {
        self.late = late;
        self
    }

    /// Each run is in one of all processes that share the locks (docs/LOCKS.md): a process that is killed in the middle of it
    /// does not give it to another one. A run whose lock is lost is dropped where it waits; the fencing token of the
    /// [`Run`] keeps what it writes later from doing harm. Not with [`after`](super::after()): that is another time in each
    /// process, and the start refuses it.
    pub fn single_process(mut self) -> Self {
        self.single_process = true;
        self
    }

    /// A run that succeeds has its line at the level trace: for a job that runs every few seconds.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Whether the job runs at all, asked once, at the start: a job that the configuration switches on.
    pub fn only_if(mut self, is_on: impl Fn(&S) -> bool + Send + Sync + 'static) -> Self {
        self.is_on = Some(Box::new(is_on));
        self
    }

    /// Whether the job runs.
    pub(crate) fn is_on(&self, state: &S) -> bool {
        self.is_on.as_ref().is_none_or(|is_on| is_on(state))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The job with the state of the app. Refuses a schedule that is none.
    pub(crate) fn open(self, state: S, clock: Clock, locks: &LockManager) -> Result<OpenJob, StartError> {
        if let Err(why) = self.schedule.check() {
            return Err(StartError::failed(format!("job {}: {why}", self.name)));
        }
        if self.single_process && self.schedule.is_once() {
            return Err(StartError::failed(format!(
                "job {}: after() is another time in each process, so single_process() cannot make one run of them: \
                 leave single_process() out, or use every(), daily_at() or cron()",
                self.name
            )));
        }
        let function = self.function;
        Ok(OpenJob {
            name: self.name,
            schedule: self.schedule,
            late: self.late,
            quiet: self.quiet,
            clock,
            single_run: self.single_process.then(|| SingleRun::new(self.name, locks.clone())),
            function: Arc::new(move |run| function(state.clone(), run)),
        })
    }
}

/// A job that can run.
pub(crate) struct OpenJob {
    pub(crate) name: &'static str,
    schedule: Schedule,
    late: Late,
    quiet: bool,
    clock: Clock,
    /// Of a job that runs in one process only.
    single_run: Option<SingleRun>,
    function: Arc<dyn Fn(Run) -> BoxFuture<'static, Result<()>> + Send + Sync>,
}

impl OpenJob {
    /// Runs the job at its times, until there are none left or the server drains.
    pub(crate) async fn serve(self, shutdown: Shutdown) {
        let start = self.clock.now();
        let mut last = tokio::select! {
            () = shutdown.begun() => return,
            last = self.begin_after(start) => last,
        };
        loop {
            // During a run nobody looked at the clock.
            let now = self.clock.now();
            if now < last - STEP_BACK {
                self.report_moved_back();
                last = now;
            }
            let Some(next) = self.schedule.next(start, last) else { break };
            let woken = tokio::select! {
                () = shutdown.begun() => return,
                woken = self.clock.sleep_until(next) => woken,
            };
            if woken == Woken::MovedBack {
                self.report_moved_back();
                last = self.clock.now();
                continue;
            }
            let due = self.due(start, next);
            // With more than that, what is left of them is left out.
            last = if due.len() > MOST_LATE { self.clock.now() } else { *due.last().unwrap_or(&next) };
            for tick in self.to_run(&due) {
                if shutdown.has_begun() {
                    return;
                }
                self.run(start, tick, &shutdown).await;
            }
            if self.schedule.is_once() {
                break;
            }
        }
        shutdown.begun().await;
    }

    /// The time after which the first run is.
    async fn begin_after(&self, start: Timestamp) -> Timestamp {
        let Some(single_run) = self.single_run.as_ref().filter(|_| self.late == Late::MakeUp) else {
            return start;
        };
        match single_run.ran_last().await {
            Ok(Some(last)) => last.min(self.clock.now()),
            Ok(None) => start,
            Err(error) => {
                let (job, cause) = (self.name, error.cause());
                tracing::error!(target: "server.job", job, cause, "nobody knows when the job ran last: it begins now");
                start
            }
        }
    }

    fn report_moved_back(&self) {
        tracing::warn!(target: "server.job", job = self.name, "the clock was moved back");
    }

    /// The times that have come, from this one on, and not many more than [`MOST_LATE`].
    fn due(&self, start: Timestamp, first: Timestamp) -> Vec<Timestamp> {
        let now = self.clock.now();
        let next = |last: &Timestamp| self.schedule.next(start, *last).filter(|next| *next <= now);
        std::iter::successors(Some(first), next).take(MOST_LATE + 1).collect()
    }

    /// Which of the times that have come are run.
    fn to_run(&self, due: &[Timestamp]) -> Vec<Timestamp> {
        if self.late == Late::MakeUp {
            return due.iter().copied().take(MOST_LATE).collect();
        }
        let now = self.clock.now();
        let run: Vec<Timestamp> =
            due.last().copied().filter(|tick| *tick >= now - LATE).into_iter().collect();
        let skipped = due.len() - run.len();
        if let Some(first) = due.first().filter(|_| skipped > 0) {
            tracing::warn!(target: "server.job", job = self.name, skipped, first = %first, "late runs are skipped");
        }
        run
    }

    async fn run(&self, start: Timestamp, tick: Timestamp, shutdown: &Shutdown) {
        let Some(single_run) = &self.single_run else { return self.call(tick, None, shutdown).await };
        let locked = match self.late {
            Late::Skip => single_run.lock(Wait::No).await,
            Late::MakeUp => tokio::select! {
                () = shutdown.begun() => return,
                locked = single_run.lock(Wait::Forever) => locked,
            },
        };
        let claimed = match locked {
            Ok(Some(lease)) => single_run.claim(lease, tick).await,
            Ok(None) => return,
            Err(error) => Err(error),
        };
        match claimed {
            Ok(Claim::Given(lease, before)) => {
                if let Some(before) = before {
                    self.report_missed(start, before, tick);
                }
                self.call(tick, Some(&lease), shutdown).await;
                // A release that fails means nothing: the lock ends by itself.
                let _ = lease.release().await;
            }
            Ok(Claim::OfAnother(mark)) if mark > self.clock.now() + AHEAD => {
                let job = self.name;
                tracing::warn!(target: "server.job", job, %tick, %mark, "a clock that is ahead has run the job: here it runs after that time");
            }
            Ok(Claim::OfAnother(_)) => {}
            Err(error) => {
                let (job, cause) = (self.name, error.cause());
                metrics::counter!("job_runs_total", "job" => job, "outcome" => "not run").increment(1);
                tracing::error!(target: "server.job", job, %tick, outcome = "not run", cause, "job");
            }
        }
    }

    /// Says that there were times at which no process ran the job.
    fn report_missed(&self, start: Timestamp, before: Timestamp, tick: Timestamp) {
        let next = |last: &Timestamp| self.schedule.next(start, *last).filter(|next| *next < tick);
        let missed = std::iter::successors(next(&before), next).take(MOST_LATE).count();
        if missed > 0 {
            tracing::warn!(target: "server.job", job = self.name, missed, after = %before, "no process ran the job");
        }
    }

    async fn call(&self, tick: Timestamp, lease: Option<&Lease>, shutdown: &Shutdown) {
        let owner = self.single_run.as_ref().map(SingleRun::owner);
        let token = lease.map(Lease::fencing_token);
        let line = Line::begin(self.name, tick, owner, token);
        let run = Run { tick, token, shutdown: shutdown.clone() };
        // The call itself may panic too.
        let called = AssertUnwindSafe(async { (self.function)(run).await }).catch_unwind();
        let lost = async {
            match lease {
                Some(lease) => lease.lost().await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = lost => Outcome::LockLost,
            result = called => match result {
                Ok(Ok(())) => Outcome::Done,
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_) => Outcome::Panicked,
            },
        };
        line.end(&outcome, self.quiet);
    }
}

/// An error when two jobs have one name.
pub(crate) fn check_names(names: impl Iterator<Item = &'static str>) -> Result<(), StartError> {
    let mut known = HashSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(StartError::failed(format!("job {name}: another job has this name")));
        }
    }
    Ok(())
}

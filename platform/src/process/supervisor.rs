//! The supervisor: starts the workers, replaces those that die, rolls a new configuration out, and ends them all.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::channel::{DRAIN, RETIRE};
use super::crashes::Verdict;
use super::manager::{self, Told};
use super::plan::{Plan, Program};
use super::table::{self, News, Reported, Slot, State, Worker, describe};
use crate::error::StartError;
use crate::shutdown::{Notice, Signals, exit};

/// How much longer than `linger` and `deadline` a worker may need to end: its log, its services, and what the app does at
/// the end, each of which has at least a second.
const END_GRACE: Duration = Duration::from_secs(15);

/// What the supervisor does.
enum Phase {
    /// Not all workers of the first start are ready.
    Starting,
    Serving,
    /// All workers end. From `stop_listening` on, nobody takes connections: they must not wait in a queue.
    Ending {
        stop_listening: Option<Instant>,
        cut: bool,
        failure: Option<StartError>,
    },
}

/// New workers take the slots of the old ones, one slot after the other.
struct Roll {
    plan: Arc<Plan>,
    program: Program,
    /// The slot that gets a new worker.
    slot: usize,
    successor: Pid,
}

/// What a supervisor is made of.
pub struct Supervisor<L, A> {
    /// The socket that all workers accept from.
    pub listener: TcpListener,
    /// What the workers are started with.
    pub plan: Plan,
    /// Reads the configuration anew.
    pub load: L,
    /// Called with the number of workers when all are ready.
    pub announce: A,
    /// Takes what the workers report.
    pub reported: Reported,
}

/// Supervises until a signal ends the server. Returns the exit code.
pub async fn supervise<L, A>(supervisor: Supervisor<L, A>, mut signals: Signals) -> Result<u8, StartError>
where
    L: FnMut() -> Result<Plan, StartError>,
    A: FnMut(usize),
{
    let failed = |error| StartError::failed(format!("cannot supervise: {error}"));
    let mut ended = signal(SignalKind::child()).map_err(failed)?;
    let program = Program::running().map_err(failed)?;
    manager::start_watchdog();
    let (sender, mut news) = mpsc::unbounded_channel();
    let plan = Arc::new(supervisor.plan);
    let mut state = Running {
        listener: Some(supervisor.listener.into()),
        slots: Vec::new(),
        workers: Vec::new(),
        phase: Phase::Starting,
        roll: None,
        reload_again: None,
        plan,
        load: supervisor.load,
        announce: supervisor.announce,
        reported: supervisor.reported,
        news: sender,
    };
    for slot in 0..usize::from(state.plan.workers) {
        state.slots.push(Slot::new(Arc::clone(&state.plan), program.clone()));
        state.start(slot);
    }
    loop {
        if let Phase::Ending { cut, failure, .. } = &mut state.phase
            && state.workers.is_empty()
        {
            return match failure.take() {
                Some(failure) => Err(failure),
                None => Ok(if *cut { exit::CUT } else { exit::CLEAN }),
            };
        }
        let timer = state.next_time().map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            notice = signals.next() => {
                if let Some(code) = state.notice(notice) {
                    state.workers.iter_mut().for_each(Worker::kill);
                    return Ok(code);
                }
            }
            Some((pid, heard)) = news.recv() => state.heard(pid, heard),
            _ = ended.recv() => {
                while let Some((pid, status)) = table::next_ended() {
                    state.ended(pid, status);
                }
            }
            () = tokio::time::sleep_until(timer.unwrap_or_else(tokio::time::Instant::now)), if timer.is_some() => {
                state.on_time();
            }
        }
    }
}

struct Running<L, A> {
    listener: Option<OwnedFd>,
    slots: Vec<Slot>,
    workers: Vec<Worker>,
    phase: Phase,
    roll: Option<Roll>,
    /// Signals that came while the last reload was under way.
    reload_again: Option<Notice>,
    plan: Arc<Plan>,
    load: L,
    announce: A,
    reported: Reported,
    news: mpsc::UnboundedSender<(Pid, News)>,
}

impl<L, A> Running<L, A>
where
    L: FnMut() -> Result<Plan, StartError>,
    A: FnMut(usize),
{
    /// Reacts to a signal. Returns the exit code when it ends everything at once.
    fn notice(&mut self, notice: Notice) -> Option<u8> {
        let signal = notice.name();
        let Some(code) = notice.exit_code() else {
            self.reload(notice);
            return None;
        };
        if matches!(self.phase, Phase::Ending { .. }) {
            tracing::warn!(target: "server", signal, "the workers were killed by a second signal");
            return Some(code);
        }
        tracing::info!(target: "server", signal, workers = self.workers.len(), "stopping all workers");
        self.end(None);
        None
    }

    /// Ends all workers. They go on accepting for `linger`.
    fn end(&mut self, failure: Option<StartError>) {
        if matches!(self.phase, Phase::Ending { .. }) {
            return;
        }
        manager::tell(Told::Stopping);
        let linger = self.plan.linger;
        self.phase =
            Phase::Ending { stop_listening: Instant::now().checked_add(linger), cut: false, failure };
        self.roll = None;
        let time = self.time_to_end();
        self.slots.iter_mut().for_each(|slot| slot.start_at = None);
        self.workers.iter_mut().for_each(|worker| worker.dismiss(DRAIN, time));
    }

    fn time_to_end(&self) -> Duration {
        self.plan.linger + self.plan.deadline + END_GRACE
    }

    /// The next time at which there is something to do.
    fn next_time(&self) -> Option<Instant> {
        let starts = self.slots.iter().filter_map(|slot| slot.start_at);
        let kills = self.workers.iter().filter_map(|worker| worker.kill_at);
        let stop = match &self.phase {
            Phase::Ending { stop_listening, .. } => *stop_listening,
            _ => None,
        };
        starts.chain(kills).chain(stop).min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if let Phase::Ending { stop_listening, .. } = &mut self.phase
            && is_due(*stop_listening)
        {
            *stop_listening = None;
            self.listener = None;
        }
        for worker in self.workers.iter_mut().filter(|worker| is_due(worker.kill_at)) {
            let reason = if worker.state == State::Starting { "was not ready" } else { "did not end" };
            let pid = worker.pid.as_raw_nonzero().get();
            tracing::error!(target: "server", worker = worker.number(), pid, "killed: a worker {reason} in time");
            worker.kill();
        }
        for slot in 0..self.slots.len() {
            if is_due(self.slots[slot].start_at) {
                self.start(slot);
            }
        }
    }

    /// Starts the worker of a slot.
    fn start(&mut self, slot: usize) {
        let Some(listener) = &self.listener else { return };
        let of = &mut self.slots[slot];
        of.start_at = None;
        match table::start(slot, (&of.plan, &of.program), listener, &self.news, &self.reported) {
            Ok(worker) => self.workers.push(worker),
            Err(error) => {
                tracing::error!(target: "server", worker = slot + 1, %error, "cannot start a worker");
                self.replace(slot, None, &error.to_string());
            }
        }
    }

    /// Sees to it that the slot gets a worker after the death of one.
    fn replace(&mut self, slot: usize, ready: Option<Instant>, reason: &str) {
        let of = &mut self.slots[slot];
        let settings = &of.plan.settings;
        let (limit, window) = (settings.crash_limit.as_usize(), settings.crash_window.get());
        match of.crashes.died(ready, Instant::now(), limit, window) {
            Verdict::After(delay) => of.start_at = Instant::now().checked_add(delay),
            Verdict::GiveUp => self.end(Some(StartError::failed(format!(
                "worker {} has died more than {limit} times within {window:?}, each time as soon as it was started \
                 (the last time: {reason}); the log has the reason",
                slot + 1
            )))),
        }
    }

    fn heard(&mut self, pid: Pid, heard: News) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.pid == pid) else { return };
        let (number, of_pid) = (worker.number(), pid.as_raw_nonzero().get());
        match heard {
            News::Silent => {
                tracing::error!(target: "server", worker = number, pid = of_pid, "killed: a worker hangs");
                worker.kill();
            }
            News::Ready if worker.state == State::Starting => {
                worker.state = State::Serving { since: Instant::now() };
                worker.kill_at = None;
                if self.roll.as_ref().is_some_and(|roll| roll.successor == pid) {
                    self.advance();
                } else if matches!(self.phase, Phase::Starting) {
                    let serving = |worker: &Worker| matches!(worker.state, State::Serving { .. });
                    if self.workers.iter().filter(|worker| serving(worker)).count() == self.slots.len() {
                        self.phase = Phase::Serving;
                        manager::tell(Told::Ready);
                        (self.announce)(self.slots.len());
                    }
                } else {
                    tracing::info!(target: "server", worker = number, pid = of_pid, "a worker was replaced");
                }
            }
            News::Ready => {}
        }
    }

    /// A process has ended.
    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        let Some(index) = self.workers.iter().position(|worker| worker.pid == pid) else { return };
        let worker = self.workers.swap_remove(index);
        let (number, ended, code) = (worker.number(), describe(status), status.exit_status());
        let pid_of_it = pid.as_raw_nonzero().get();
        if let Phase::Ending { cut, .. } = &mut self.phase {
            *cut |= code != Some(0);
            return;
        }
        if worker.state == State::Leaving {
            if code != Some(0) {
                tracing::warn!(target: "server", worker = number, pid = pid_of_it, %ended, "an old worker was cut");
            }
            return;
        }
        if self.roll.as_ref().is_some_and(|roll| roll.successor == pid) {
            self.abandon(&ended);
            return;
        }
        let ready = match worker.state {
            State::Serving { since } => Some(since),
            _ => None,
        };
        tracing::error!(target: "server", worker = number, pid = pid_of_it, %ended, "a worker has died");
        metrics::counter!("worker_deaths_total").increment(1);
        match code.and_then(|code| u8::try_from(code).ok()) {
            // It says itself why it cannot start. As with one process, that is the end of a start.
            Some(code) if matches!(self.phase, Phase::Starting) && ready.is_none() => {
                let message = format!("worker {number} did not start ({ended})");
                let error = if code == 2 { StartError::config(message) } else { StartError::failed(message) };
                self.end(Some(error));
            }
            _ => self.replace(worker.slot, ready, &ended),
        }
    }

    /// Begins to replace all workers, by those of a new configuration or of a new program.
    fn reload(&mut self, notice: Notice) {
        if self.roll.is_some() {
            self.reload_again = Some(notice);
            return;
        }
        let signal = notice.name();
        if !matches!(self.phase, Phase::Serving) {
            tracing::warn!(target: "server", signal, "no reload while the server starts or ends");
            return;
        }
        manager::tell(Told::Reloading);
        let program = if notice == Notice::User2 {
            self.slots[0].program.on_disk().map_err(|error| format!("cannot read the program: {error}"))
        } else {
            Ok(self.slots[0].program.clone())
        };
        let loaded = program.and_then(|program| match (self.load)() {
            Ok(plan) => Ok((plan, program)),
            Err(error) => Err(error.to_string()),
        });
        match loaded {
            Err(error) => {
                tracing::error!(target: "server", signal, %error, "no reload: the workers go on as they are");
                metrics::counter!("server_reloads_total", "outcome" => "refused").increment(1);
                manager::tell(Told::Ready);
            }
            Ok((plan, program)) => {
                let file = program.file.display();
                tracing::info!(target: "server", signal, workers = plan.workers, program = %file, "reloading");
                self.start_successor(Arc::new(plan), program, 0);
            }
        }
    }

    /// Starts the new worker of a slot, beside the old one.
    fn start_successor(&mut self, plan: Arc<Plan>, program: Program, slot: usize) {
        let Some(listener) = &self.listener else { return };
        match table::start(slot, (&plan, &program), listener, &self.news, &self.reported) {
            Ok(worker) => {
                self.roll = Some(Roll { plan, program, slot, successor: worker.pid });
                self.workers.push(worker);
            }
            Err(error) => self.gave_up(slot, &error.to_string()),
        }
    }

    /// The successor is ready: the old worker of its slot goes, and the next slot is next.
    fn advance(&mut self) {
        let Some(roll) = self.roll.take() else { return };
        let renewed = Slot::new(Arc::clone(&roll.plan), roll.program.clone());
        match self.slots.get_mut(roll.slot) {
            Some(slot) => *slot = renewed,
            None => self.slots.push(renewed),
        }
        self.dismiss_where(|worker| worker.slot == roll.slot && worker.pid != roll.successor);
        let (next, wanted) = (roll.slot + 1, usize::from(roll.plan.workers));
        if next < wanted {
            self.start_successor(roll.plan, roll.program, next);
            return;
        }
        self.slots.truncate(wanted);
        self.dismiss_where(|worker| worker.slot >= wanted);
        self.plan = roll.plan;
        tracing::info!(target: "server", workers = wanted, "reloaded");
        metrics::counter!("server_reloads_total", "outcome" => "done").increment(1);
        manager::tell(Told::Ready);
        if let Some(notice) = self.reload_again.take() {
            self.reload(notice);
        }
    }

    fn dismiss_where(&mut self, is_old: impl Fn(&Worker) -> bool) {
        let time = self.time_to_end();
        let old = |worker: &&mut Worker| worker.state != State::Leaving && is_old(worker);
        self.workers.iter_mut().filter(old).for_each(|worker| worker.dismiss(RETIRE, time));
    }

    /// The successor has died before it was ready.
    fn abandon(&mut self, reason: &str) {
        if let Some(roll) = self.roll.take() {
            self.gave_up(roll.slot, reason);
        }
    }

    fn gave_up(&mut self, slot: usize, reason: &str) {
        self.reload_again = None;
        metrics::counter!("server_reloads_total", "outcome" => "failed").increment(1);
        tracing::error!(
            target: "server", worker = slot + 1, reason, renewed = slot,
            "the reload has ended: a new worker did not start, and those that were not replaced yet go on"
        );
        manager::tell(Told::Ready);
    }
}

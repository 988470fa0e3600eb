//! A sink: a bounded buffer, and one thread that writes it to an output.
//!
//! A caller that logs appends bytes under a lock. It never waits for a disk, a terminal or a network. A record that
//! does not fit into the buffer is dropped and counted, and so is one that the output refuses. The thread writes the
//! number of dropped records to the output as soon as that works again.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::batch::Batch;
use super::level::{Filter, Level, Threshold};
use super::line::{Line, name};
use super::settings::Format;
use super::{LOGGER, canonical};
use crate::error::StartError;

/// The pause after a failed write; the buffer takes new records meanwhile.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A batch of this size is written before the delay is over, so that the buffers stay small and in the processor's
/// cache under load. With half of `logging.buffer` instead, a server under load used 14.0 MB instead of 12.5 and was no
/// faster.
const EARLY_BATCH: usize = 64 * 1024;

/// A write that failed.
pub(super) struct Failure {
    /// How many records of the batch are lost.
    pub(super) lost: u64,
    pub(super) error: io::Error,
}

/// Where a sink writes to. Only the thread of the sink calls it, so it may block.
pub(super) trait Output: Send + 'static {
    /// Writes every record of the batch.
    fn write(&mut self, batch: &Batch) -> Result<(), Failure>;

    /// What it writes to, for a message about a failure: a path, an address.
    fn destination(&self) -> String;
}

/// Called after each failed write, with the destination of the output and the error.
pub(super) type OnFailure = Box<dyn FnMut(&str, &io::Error) + Send>;

/// What a sink is started with.
pub(super) struct SinkConfig {
    pub(super) name: &'static str,
    pub(super) filter: Filter,
    pub(super) format: Format,
    /// The most bytes in the buffer.
    pub(super) limit: usize,
    /// How long records are collected before they are written together.
    pub(super) delay: Duration,
    pub(super) on_failure: OnFailure,
}

/// The callers' side of a sink. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sink {
    pub(super) name: &'static str,
    pub(super) format: Format,
    thresholds: Arc<Thresholds>,
    queue: Arc<Queue>,
}

/// What passes. It changes when the configuration is read again.
struct Thresholds {
    /// For the lines of requests; computed once, because every request asks for it.
    access: AtomicU8,
    filter: RwLock<Filter>,
}

impl Sink {
    /// Starts the thread.
    pub(super) fn start(config: SinkConfig, output: Box<dyn Output>) -> Result<Self, StartError> {
        let queue = Arc::new(Queue {
            limit: config.limit,
            early: EARLY_BATCH.min(config.limit / 2),
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            settled: Condvar::new(),
        });
        let sink = Self {
            name: config.name,
            format: config.format,
            thresholds: Arc::new(Thresholds {
                access: AtomicU8::new(config.filter.threshold(canonical::LOGGER).code()),
                filter: RwLock::new(config.filter),
            }),
            queue: Arc::clone(&queue),
        };
        let (name, format, delay, on_failure) = (config.name, config.format, config.delay, config.on_failure);
        let writer = Writer { format, delay, on_failure, output, queue, under_load: false };
        thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || writer.run())
            .map_err(|error| StartError::failed(format!("cannot start the log thread '{name}': {error}")))?;
        Ok(sink)
    }

    /// Whether the line of a request passes.
    pub(super) fn allows_access(&self, level: Level) -> bool {
        Threshold::of_code(self.thresholds.access.load(Ordering::Relaxed)).allows(level)
    }

    /// Whether a record of this logger passes.
    pub(super) fn allows(&self, logger: &str, level: Level) -> bool {
        self.filter().threshold(logger).allows(level)
    }

    /// The lowest threshold of all loggers.
    pub(super) fn most_verbose(&self) -> Threshold {
        self.filter().most_verbose()
    }

    /// Changes what passes.
    pub(super) fn set_filter(&self, filter: Filter) {
        self.thresholds.access.store(filter.threshold(canonical::LOGGER).code(), Ordering::Relaxed);
        *self.thresholds.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
    }

    fn filter(&self) -> RwLockReadGuard<'_, Filter> {
        self.thresholds.filter.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record (one line with its line feed), or counts it as dropped. Never waits for the output.
    pub(super) fn append(&self, level: Level, record: &[u8]) {
        let mut state = self.queue.lock();
        state.received += 1;
        if state.batch.bytes().len() + record.len() > self.queue.limit {
            state.unreported_drops += 1;
            state.dropped += 1;
        } else {
            state.batch.push(level, record);
        }
        // Waking the thread is a system call, so it is done only when needed: at most twice in one delay.
        let wake = match state.waiting {
            Waiting::ForFirst => true,
            Waiting::ForMore => state.batch.bytes().len() > self.queue.early,
            Waiting::No => false,
        };
        if wake {
            state.waiting = Waiting::No;
            drop(state);
            self.queue.work.notify_one();
        }
    }

    /// Makes the thread write what is in the buffer without waiting for more.
    pub(super) fn request_flush(&self) {
        self.queue.lock().flush_requested = true;
        self.queue.work.notify_one();
    }

    /// Waits until every record that was appended before is written or counted as dropped. False when that is not done
    /// at `until`.
    pub(super) fn flush(&self, until: Instant) -> bool {
        let mut state = self.queue.lock();
        let target = state.received;
        while state.settled < target {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state.flush_requested = true;
            self.queue.work.notify_one();
            state = self.queue.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Makes the thread write what is left and end.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.queue.work.notify_one();
    }

    /// The number of records that were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// The number of dropped records that the sink has not reported to its output yet.
    pub(super) fn unreported_drops(&self) -> u64 {
        self.queue.lock().unreported_drops
    }

    /// False after a batch that could not be written completely.
    pub(super) fn is_working(&self) -> bool {
        !self.queue.lock().failing
    }
}

/// What callers and the thread share.
struct Queue {
    limit: usize,
    /// A batch of more bytes than this is written before the delay is over.
    early: usize,
    state: Mutex<State>,
    /// Wakes the thread: there is work.
    work: Condvar,
    /// Wakes those who flush: a batch is settled.
    settled: Condvar,
}

#[derive(Default)]
struct State {
    batch: Batch,
    waiting: Waiting,
    flush_requested: bool,
    closing: bool,
    /// Records that were appended, including those that were dropped.
    received: u64,
    /// How many of these are written or dropped.
    settled: u64,
    /// Records that were dropped since the start.
    dropped: u64,
    /// How many of these the sink has not reported to its output yet.
    unreported_drops: u64,
    /// The last batch could not be written completely.
    failing: bool,
}

/// What the thread waits for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Waiting {
    /// Nothing: it writes, or it pauses after a failure.
    #[default]
    No,
    /// The first record of a batch.
    ForFirst,
    /// More records of a batch, until the delay is over.
    ForMore,
}

impl Queue {
    /// A thread that panics leaves the state valid, so a poisoned lock can be used.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side of a sink.
struct Writer {
    format: Format,
    delay: Duration,
    on_failure: OnFailure,
    output: Box<dyn Output>,
    queue: Arc<Queue>,
    /// The last batch was written early. More records will come soon, so the thread waits for the delay at once: being
    /// woken by the first record would cost the caller a system call.
    under_load: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            let (received, unreported_drops, closing) = self.next(&mut batch);
            let (reported, written) = self.write(&batch, unreported_drops);
            let lost = written.err().unwrap_or(0);
            batch.clear();
            let mut state = self.queue.lock();
            state.settled = received;
            state.unreported_drops = state.unreported_drops - reported + lost;
            state.dropped += lost;
            state.failing = written.is_err();
            drop(state);
            self.queue.settled.notify_all();
            if closing {
                return;
            }
        }
    }

    /// Waits for records and takes them. Returns the numbers of received and of unreported records, and whether the
    /// sink is closing.
    fn next(&mut self, batch: &mut Batch) -> (u64, u64, bool) {
        let mut state = self.queue.lock();
        if state.failing {
            state = self.wait(state, RETRY_AFTER, |_| true);
        } else {
            while !self.under_load
                && state.batch.is_empty()
                && state.unreported_drops == 0
                && !state.flush_requested
                && !state.closing
            {
                state.waiting = Waiting::ForFirst;
                state = self.queue.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting = Waiting::ForMore;
            state = self.wait(state, self.delay, |state| state.waiting == Waiting::ForMore);
            self.under_load = state.batch.bytes().len() > self.queue.early;
        }
        state.waiting = Waiting::No;
        state.flush_requested = false;
        std::mem::swap(&mut state.batch, batch);
        (state.received, state.unreported_drops, state.closing)
    }

    /// Waits for `time`, or until `condition` is false, or until the sink is flushed or closed.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.queue
            .work
            .wait_timeout_while(state, time, |state| {
                condition(state) && !state.flush_requested && !state.closing
            })
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Reports what was dropped, then writes the batch. Returns how many drops were reported, and as an error how many
    /// records of the batch are lost.
    fn write(&mut self, batch: &Batch, unreported_drops: u64) -> (u64, Result<(), u64>) {
        let mut notice = Ok(());
        if unreported_drops > 0 {
            let mut record = Batch::default();
            record.push(Level::Warn, &drop_notice(self.format, unreported_drops));
            notice = self.output.write(&record);
        }
        let reported = if notice.is_ok() { unreported_drops } else { 0 };
        let written = match notice {
            Ok(()) if batch.is_empty() => Ok(()),
            Ok(()) => self.output.write(batch),
            Err(failure) => Err(Failure { lost: batch.len(), ..failure }),
        };
        let written = written.map_err(|Failure { lost, error }| {
            (self.on_failure)(&self.output.destination(), &error);
            lost
        });
        (reported, written)
    }
}

/// The record with the number of records that are missing.
fn drop_notice(format: Format, count: u64) -> Vec<u8> {
    let mut record = Vec::new();
    let mut line = Line::begin(&mut record, format, (SystemTime::now(), Level::Warn, LOGGER), &[]);
    line.message("log records dropped");
    line.uint(name!("dropped"), count);
    line.end();
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const SOON: Duration = Duration::from_secs(10);

    /// An output that waits for a result before each batch and returns it; after the last one it always succeeds.
    struct Scripted {
        results: Receiver<Result<(), u64>>,
        lines: Sender<String>,
    }

    impl Output for Scripted {
        fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
            if let Ok(Err(lost)) = self.results.recv() {
                return Err(Failure { lost, error: io::Error::other("scripted") });
            }
            for (_, record) in batch.records() {
                let _ = self.lines.send(String::from_utf8(record.to_vec()).unwrap());
            }
            Ok(())
        }

        fn destination(&self) -> String {
            "a channel".to_owned()
        }
    }

    fn sink(limit: usize, delay: Duration) -> (Sink, Sender<Result<(), u64>>, Receiver<String>) {
        let ((results, scripted), (written, lines)) = (channel(), channel());
        let config = SinkConfig {
            name: "scripted",
            filter: Filter::new(Threshold::ALL, &BTreeMap::new()),
            format: Format::Logfmt,
            limit,
            delay,
            on_failure: Box::new(|_, _| {}),
        };
        let output = Scripted { results: scripted, lines: written };
        (Sink::start(config, Box::new(output)).unwrap(), results, lines)
    }

    fn next(lines: &Receiver<String>) -> String {
        lines.recv_timeout(SOON).unwrap()
    }

    #[test]
    fn a_sink_that_hangs_blocks_no_caller_and_reports_what_it_dropped() {
        let (sink, results, lines) = sink(10, Duration::ZERO);
        for _ in 0..1_000 {
            sink.append(Level::Info, b"four\n");
        }
        // The thread hangs with a batch of at most two records; two more are in the buffer.
        let dropped = sink.dropped();
        assert!((996..=998).contains(&dropped), "{dropped}");
        assert!(!sink.flush(Instant::now() + Duration::from_millis(10)), "the time is over first");

        drop(results);
        assert!(sink.flush(Instant::now() + SOON));
        let all: Vec<_> = lines.try_iter().collect();
        let reported: u64 = all
            .iter()
            .filter_map(|line| line.split_once(" msg=\"log records dropped\" dropped="))
            .map(|(_, number)| number.parse::<u64>().unwrap())
            .sum();
        let written = all.iter().filter(|line| *line == "four").count() as u64;
        assert_eq!((reported, written + reported), (dropped, 1_000), "{all:?}");
    }

    #[test]
    fn what_an_output_refuses_is_counted_and_reported_when_it_works_again() {
        let (sink, results, lines) = sink(1_000, Duration::ZERO);
        sink.append(Level::Info, b"one\n");
        results.send(Err(1)).unwrap();
        assert!(sink.flush(Instant::now() + SOON), "the record is dropped, so nothing waits for it");
        assert_eq!(sink.dropped(), 1);
        sink.append(Level::Info, b"two\n");
        // The notice fails as well. The first drop is still unreported, and the notice itself is not counted.
        results.send(Err(1)).unwrap();
        assert!(sink.flush(Instant::now() + SOON));
        assert_eq!(sink.dropped(), 2);
        results.send(Ok(())).unwrap();
        // The drops are reported although no further record comes.
        let notice = next(&lines);
        assert!(notice.contains("level=warn logger=server.logging"), "{notice}");
        assert!(notice.ends_with(" msg=\"log records dropped\" dropped=2"), "{notice}");
    }

    #[test]
    fn records_are_collected_for_one_delay_and_a_flush_does_not_wait_for_it() {
        let (sink, results, lines) = sink(1_000, Duration::from_hours(1));
        sink.append(Level::Info, b"one\n");
        sink.append(Level::Info, b"two\n");
        results.send(Ok(())).unwrap();
        assert!(sink.flush(Instant::now() + SOON));
        assert_eq!([next(&lines), next(&lines)], ["one", "two"], "one result, so one batch");
        assert!(sink.flush(Instant::now()), "nothing is waiting");
    }

    #[test]
    fn a_buffer_that_is_half_full_does_not_wait_for_the_delay() {
        let (sink, results, lines) = sink(10, Duration::from_hours(1));
        sink.append(Level::Info, b"123456\n");
        results.send(Ok(())).unwrap();
        // Whether the thread was waiting for the first record or for more, the second record wakes it.
        while lines.try_recv().is_err() {
            sink.append(Level::Info, b"1\n");
            thread::yield_now();
        }
    }

    #[test]
    fn a_sink_that_is_closed_writes_what_is_left() {
        let (sink, results, lines) = sink(1_000, Duration::from_hours(1));
        sink.append(Level::Info, b"last\n");
        sink.close();
        drop(results);
        assert_eq!(next(&lines), "last");
        assert!(
            lines
                .recv_timeout(SOON)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}

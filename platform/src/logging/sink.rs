//! Between those who log and what is slow: a bounded buffer, and one thread that empties it.
//!
//! Who logs appends bytes under a lock and goes on; it never waits for a disk, a terminal or a network. What does not
//! fit is dropped and counted, and so is what an output refuses. The thread says the count in the sink itself as soon
//! as that works, and says an outage once on the console.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::alarm::Alarm;
use super::level::{Filter, Level, Threshold};
use super::line::{Line, name};
use super::settings::Format;
use super::{LOGGER, canonical};
use crate::error::StartError;

/// How long a sink that failed is left alone; meanwhile its buffer takes what comes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Buffers below this size are kept at their size; 64 KiB is a few hundred lines.
const SMALL: usize = 64 * 1024;
/// A batch of this size waits for no more: under load the buffers stay small, and warm in the processor's cache. With
/// half of `logging.buffer` a server under load had 14.0 MB instead of 12.5, and was no faster.
const ENOUGH: usize = 64 * 1024;

/// Records, each one line.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where each record ends, and its level.
    marks: Vec<(usize, Level)>,
}

impl Batch {
    pub(super) fn push(&mut self, level: Level, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.marks.push((self.bytes.len(), level));
    }

    /// All lines, each with its line feed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u64 {
        count(self.marks.len())
    }

    /// How many records end after the first `written` bytes.
    pub(super) fn after(&self, written: usize) -> u64 {
        count(self.marks.iter().filter(|(end, _)| *end > written).count())
    }

    /// Each record without its line feed.
    pub(super) fn records(&self) -> impl Iterator<Item = (Level, &[u8])> {
        let mut from = 0;
        self.marks.iter().map(move |&(end, level)| {
            let record = &self.bytes[from..end];
            from = end;
            (level, record.strip_suffix(b"\n").unwrap_or(record))
        })
    }

    /// Empties it, and gives memory back that a burst took and the last batch did not need.
    fn clear(&mut self) {
        if self.bytes.capacity() > SMALL && self.bytes.len() < self.bytes.capacity() / 4 {
            self.bytes = Vec::with_capacity(self.bytes.len().max(SMALL));
            self.marks.shrink_to(self.marks.len());
        }
        self.bytes.clear();
        self.marks.clear();
    }
}

/// What went wrong, and how many records of the batch are gone.
pub(super) struct Failure {
    pub(super) lost: u64,
    pub(super) error: io::Error,
}

/// Where lines go. Called by the thread of the sink only, and may take its time.
pub(super) trait Output: Send + 'static {
    /// Writes every record, or says how many it could not write.
    fn write(&mut self, batch: &Batch) -> Result<(), Failure>;

    /// What it writes to, in words of a person who has to mend it.
    fn place(&self) -> String;
}

/// What makes a sink.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) filter: Filter,
    pub(super) format: Format,
    /// Bytes that the buffer holds at most.
    pub(super) limit: usize,
    /// How long records are gathered.
    pub(super) delay: Duration,
    pub(super) alarm: Alarm,
}

/// The side of those who log. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sink {
    pub(super) name: &'static str,
    pub(super) format: Format,
    /// What passes of the lines of requests; looked up once, as it is asked for every one.
    pub(super) access: Threshold,
    pub(super) filter: Filter,
    queue: Arc<Queue>,
}

impl Sink {
    /// Starts the thread.
    pub(super) fn start(plan: Plan, output: Box<dyn Output>) -> Result<Self, StartError> {
        let queue = Arc::new(Queue {
            limit: plan.limit,
            enough: ENOUGH.min(plan.limit / 2),
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            settled: Condvar::new(),
        });
        let sink = Self {
            name: plan.name,
            format: plan.format,
            access: plan.filter.threshold(canonical::LOGGER),
            filter: plan.filter.clone(),
            queue: Arc::clone(&queue),
        };
        let name = plan.name;
        thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || Writer { plan, output, queue, busy: false }.run())
            .map_err(|error| StartError::failed(format!("cannot start the log thread '{name}': {error}")))?;
        Ok(sink)
    }

    /// Takes a record (one line with its line feed) or counts it as dropped. Never waits for the output.
    pub(super) fn append(&self, level: Level, record: &[u8]) {
        let mut state = self.queue.lock();
        state.seen += 1;
        if state.batch.bytes.len() + record.len() > self.queue.limit {
            state.unsaid += 1;
            state.dropped += 1;
        } else {
            state.batch.push(level, record);
        }
        // A call of the kernel, so only where it is needed: at most twice a delay.
        let wake = match state.waiting {
            Waiting::ForWork => true,
            Waiting::ForMore => state.batch.bytes.len() > self.queue.enough,
            Waiting::No => false,
        };
        if wake {
            state.waiting = Waiting::No;
            drop(state);
            self.queue.wake.notify_one();
        }
    }

    /// Has the thread write what there is without gathering more.
    pub(super) fn hurry(&self) {
        self.queue.lock().hurry = true;
        self.queue.wake.notify_one();
    }

    /// Waits until all that was appended before is written or counted as dropped; false when that takes too long.
    pub(super) fn flush(&self, until: Instant) -> bool {
        let mut state = self.queue.lock();
        let target = state.seen;
        while state.done < target {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state.hurry = true;
            self.queue.wake.notify_one();
            state = self.queue.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Lets the thread write what is left and end.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.queue.wake.notify_one();
    }

    /// How many records were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// How many of them it has not said yet.
    pub(super) fn unsaid(&self) -> u64 {
        self.queue.lock().unsaid
    }

    /// False after a batch that could not be written whole.
    pub(super) fn is_working(&self) -> bool {
        !self.queue.lock().failing
    }
}

struct Queue {
    limit: usize,
    /// What is written before the delay is over.
    enough: usize,
    state: Mutex<State>,
    /// For the thread: there is work.
    wake: Condvar,
    /// For those who flush: a batch is done.
    settled: Condvar,
}

#[derive(Default)]
struct State {
    batch: Batch,
    waiting: Waiting,
    hurry: bool,
    closing: bool,
    /// Records that came, dropped ones included.
    seen: u64,
    /// Of these, those that are written or given up.
    done: u64,
    /// Dropped since the start.
    dropped: u64,
    /// Dropped and not yet said.
    unsaid: u64,
    /// The last batch could not be written whole.
    failing: bool,
}

/// What the thread waits for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Waiting {
    /// Nothing: it is at work, or leaves an output alone that failed.
    #[default]
    No,
    /// A first record.
    ForWork,
    /// More records, for one delay.
    ForMore,
}

impl Queue {
    /// A panic of another thread cannot leave the state half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side of the thread.
struct Writer {
    plan: Plan,
    output: Box<dyn Output>,
    queue: Arc<Queue>,
    /// The last batch was full before its time. More is on its way then, and to be woken for its first record would
    /// only cost those who log.
    busy: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            let (seen, unsaid, closing) = self.next(&mut batch);
            let (said, written) = self.write(&batch, unsaid);
            let lost = written.err().unwrap_or(0);
            batch.clear();
            let mut state = self.queue.lock();
            state.done = seen;
            state.unsaid = state.unsaid - said + lost;
            state.dropped += lost;
            state.failing = written.is_err();
            drop(state);
            self.queue.settled.notify_all();
            if closing {
                return;
            }
        }
    }

    /// Waits for records and takes them.
    fn next(&mut self, batch: &mut Batch) -> (u64, u64, bool) {
        let mut state = self.queue.lock();
        if state.failing {
            state = self.wait(state, RETRY_AFTER, |_| true);
        } else {
            while !self.busy
                && state.batch.marks.is_empty()
                && state.unsaid == 0
                && !state.hurry
                && !state.closing
            {
                state.waiting = Waiting::ForWork;
                state = self.queue.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting = Waiting::ForMore;
            state = self.wait(state, self.plan.delay, |state| state.waiting == Waiting::ForMore);
            self.busy = state.batch.bytes.len() > self.queue.enough;
        }
        state.waiting = Waiting::No;
        state.hurry = false;
        std::mem::swap(&mut state.batch, batch);
        (state.seen, state.unsaid, state.closing)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
        still: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.queue
            .wake
            .wait_timeout_while(state, time, |state| still(state) && !state.hurry && !state.closing)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Says what was dropped, then writes the batch. Returns how many it has said, and as an error how many are lost.
    fn write(&mut self, batch: &Batch, unsaid: u64) -> (u64, Result<(), u64>) {
        let mut notice = Ok(());
        if unsaid > 0 {
            let mut record = Batch::default();
            record.push(Level::Warn, &dropped(self.plan.format, unsaid));
            notice = self.output.write(&record);
        }
        let said = if notice.is_ok() { unsaid } else { 0 };
        let written = match notice {
            Ok(()) if batch.marks.is_empty() => Ok(()),
            Ok(()) => self.output.write(batch),
            Err(failure) => Err(Failure { lost: batch.len(), ..failure }),
        };
        let written = written.map_err(|Failure { lost, error }| {
            self.plan.alarm.raise(self.plan.name, &self.output.place(), &error);
            lost
        });
        (said, written)
    }
}

/// The record that says how many are missing.
fn dropped(format: Format, count: u64) -> Vec<u8> {
    let mut record = Vec::new();
    let mut line = Line::begin(&mut record, format, (SystemTime::now(), Level::Warn, LOGGER), &[]);
    line.message("log records dropped");
    line.uint(name!("dropped"), count);
    line.end();
    record
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const SOON: Duration = Duration::from_secs(10);

    /// An output that waits for a word before each batch, and then does as it is told.
    struct Told {
        orders: Receiver<Result<(), u64>>,
        lines: Sender<String>,
    }

    impl Output for Told {
        fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
            if let Ok(Err(lost)) = self.orders.recv() {
                return Err(Failure { lost, error: io::Error::other("told to fail") });
            }
            for (_, record) in batch.records() {
                let _ = self.lines.send(String::from_utf8(record.to_vec()).unwrap());
            }
            Ok(())
        }

        fn place(&self) -> String {
            "a channel".to_owned()
        }
    }

    fn sink(limit: usize, delay: Duration) -> (Sink, Sender<Result<(), u64>>, Receiver<String>) {
        let ((orders, obeyed), (written, lines)) = (channel(), channel());
        let plan = Plan {
            name: "told",
            filter: Filter::new(Threshold::ALL, &BTreeMap::new()),
            format: Format::Logfmt,
            limit,
            delay,
            alarm: Alarm::default(),
        };
        let output = Told { orders: obeyed, lines: written };
        (Sink::start(plan, Box::new(output)).unwrap(), orders, lines)
    }

    fn next(lines: &Receiver<String>) -> String {
        lines.recv_timeout(SOON).unwrap()
    }

    #[test]
    fn a_sink_that_hangs_holds_nobody_up_and_says_what_it_dropped() {
        let (sink, orders, lines) = sink(10, Duration::ZERO);
        for _ in 0..1_000 {
            sink.append(Level::Info, b"four\n");
        }
        // The thread hangs in at most one batch of two; two more wait in the buffer.
        let dropped = sink.dropped();
        assert!((996..=998).contains(&dropped), "{dropped}");
        assert!(!sink.flush(Instant::now() + Duration::from_millis(10)), "the deadline comes first");

        drop(orders);
        assert!(sink.flush(Instant::now() + SOON));
        let all: Vec<_> = lines.try_iter().collect();
        let said: u64 = all
            .iter()
            .filter_map(|line| line.split_once(" msg=\"log records dropped\" dropped="))
            .map(|(_, number)| number.parse::<u64>().unwrap())
            .sum();
        let written = count(all.iter().filter(|line| *line == "four").count());
        assert_eq!((said, written + said), (dropped, 1_000), "{all:?}");
    }

    #[test]
    fn what_an_output_refuses_is_counted_and_said_when_it_works_again() {
        let (sink, orders, lines) = sink(1_000, Duration::ZERO);
        sink.append(Level::Info, b"one\n");
        orders.send(Err(1)).unwrap();
        assert!(sink.flush(Instant::now() + SOON), "given up, so nothing waits for it");
        assert_eq!(sink.dropped(), 1);
        sink.append(Level::Info, b"two\n");
        // The notice fails as well: nothing is forgotten, and the notice itself is not counted.
        orders.send(Err(1)).unwrap();
        assert!(sink.flush(Instant::now() + SOON));
        assert_eq!(sink.dropped(), 2);
        orders.send(Ok(())).unwrap();
        // No record comes, and it is said all the same.
        let notice = next(&lines);
        assert!(notice.contains("level=warn logger=server.logging"), "{notice}");
        assert!(notice.ends_with(" msg=\"log records dropped\" dropped=2"), "{notice}");
    }

    #[test]
    fn records_are_gathered_for_one_delay_and_a_flush_does_not_wait_for_it() {
        let (sink, orders, lines) = sink(1_000, Duration::from_hours(1));
        sink.append(Level::Info, b"one\n");
        sink.append(Level::Info, b"two\n");
        orders.send(Ok(())).unwrap();
        assert!(sink.flush(Instant::now() + SOON));
        assert_eq!([next(&lines), next(&lines)], ["one", "two"], "one order, so one batch");
        assert!(sink.flush(Instant::now()), "nothing is waiting");
    }

    #[test]
    fn a_buffer_that_is_half_full_does_not_wait_for_the_delay() {
        let (sink, orders, lines) = sink(10, Duration::from_hours(1));
        sink.append(Level::Info, b"123456\n");
        orders.send(Ok(())).unwrap();
        // Whether the thread was still asleep or already gathering at the first record, the second one wakes it.
        while lines.try_recv().is_err() {
            sink.append(Level::Info, b"1\n");
            thread::yield_now();
        }
    }

    #[test]
    fn a_sink_that_is_closed_writes_what_is_left() {
        let (sink, orders, lines) = sink(1_000, Duration::from_hours(1));
        sink.append(Level::Info, b"last\n");
        sink.close();
        drop(orders);
        assert_eq!(next(&lines), "last");
        assert!(
            lines
                .recv_timeout(SOON)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}

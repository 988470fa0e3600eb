//! The time of day: that of the machine, or one that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How often a sleep looks at the clock again: it may have been moved, and a machine may have slept.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// An adjustment by NTP steps back less than this; what is more was set.
pub(crate) const STEP_BACK: SignedDuration = SignedDuration::from_secs(1);

/// The time of day. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<OfTest>);

/// The clock of a test.
#[derive(Clone, Debug)]
struct OfTest {
    start: Timestamp,
    since: Instant,
    /// By how many milliseconds it was moved.
    moved: Arc<AtomicI64>,
}

/// What a sleep until a time has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The time has come.
    InTime,
    /// The clock has been moved back.
    MovedBack,
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows this time now and goes on with the clock of tokio. In a test with `tokio::time::pause`, each
    /// sleep moves it: so a year passes in a second.
    pub fn starting_at(time: Timestamp) -> Self {
        Self(Some(OfTest { start: time, since: Instant::now(), moved: Arc::default() }))
    }

    /// Moves the clock of a test and its clones, as somebody who sets the time of a machine does. A sleep that is under way
    /// does not see it before its end. The clock of the machine stays as it is.
    pub fn move_by(&self, by: SignedDuration) {
        if let Some(OfTest { moved, .. }) = &self.0 {
            moved.fetch_add(i64::try_from(by.as_millis()).unwrap_or_default(), Ordering::SeqCst);
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::now(),
            Some(OfTest { start, since, moved }) => {
                let passed = SignedDuration::try_from(since.elapsed()).unwrap_or_default();
                *start + passed + SignedDuration::from_millis(moved.load(Ordering::SeqCst))
            }
        }
    }

    /// The time in milliseconds since 1970-01-01 UTC, as it is kept in the store.
    pub(crate) fn millis(&self) -> i64 {
        self.now().as_millisecond()
    }

    /// Sleeps until a time. A clock that is moved forward ends it early, as it should.
    pub(crate) async fn sleep_until(&self, time: Timestamp) -> Woken {
        let mut last = self.now();
        loop {
            let now = self.now();
            if now < last - STEP_BACK {
                return Woken::MovedBack;
            }
            last = now;
            // Negative when the time has come.
            let left = Duration::try_from(time.duration_since(now)).unwrap_or_default();
            if left.is_zero() {
                return Woken::InTime;
            }
            // A test may sleep for a year: it does not look again.
            tokio::time::sleep(if self.0.is_some() { left } else { left.min(LOOK_AGAIN) }).await;
        }
    }
}

/// A duration in milliseconds.
#[cfg(feature = "auth")]
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

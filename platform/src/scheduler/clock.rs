//! The time of day, for jobs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How often a sleep looks at the clock again: it may have been moved, and a machine may have slept.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The time of day. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<(Timestamp, Instant)>);

/// What a sleep until a time has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
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
        Self(Some((time, Instant::now())))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::now(),
            Some((start, since)) => {
                SignedDuration::try_from(since.elapsed()).map_or(*start, |passed| *start + passed)
            }
        }
    }

    /// Sleeps until a time. A clock that is moved forward ends it early, as it should.
    pub(super) async fn sleep_until(&self, time: Timestamp) -> Woken {
        let mut last = self.now();
        loop {
            let now = self.now();
            // What the adjustment of a clock by NTP steps back is less than that.
            if now < last - SignedDuration::from_secs(1) {
                return Woken::MovedBack;
            }
            last = now;
            // Negative when the time has come.
            let left = Duration::try_from(time.duration_since(now)).unwrap_or_default();
            if left.is_zero() {
                return Woken::InTime;
            }
            // Nobody moves the clock of a test.
            tokio::time::sleep(if self.0.is_some() { left } else { left.min(LOOK_AGAIN) }).await;
        }
    }
}

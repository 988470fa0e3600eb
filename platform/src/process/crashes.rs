//! When a worker that has died is started again, and when the supervisor gives up. It knows no processes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A worker that dies within this time after it was ready, or before it was, has died at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The first delay; each one after it is twice as long. The first replacement is not delayed.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay: a worker whose database comes back must not be away for long after it.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The deaths of the workers that had one number.
#[derive(Default)]
pub(super) struct Crashes {
    /// The deaths at once, within the window.
    at_once: VecDeque<Instant>,
    /// How many there were in a row.
    in_a_row: u32,
}

/// What follows a death.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next worker is started after this time.
    After(Duration),
    /// There were too many deaths within the window.
    GiveUp,
}

impl Crashes {
    /// Notes that a worker has died. `ready` is when it became ready.
    pub(super) fn died(
        &mut self,
        ready: Option<Instant>,
        now: Instant,
        limit: usize,
        window: Duration,
    ) -> Verdict {
        if ready.is_some_and(|ready| now.saturating_duration_since(ready) > AT_ONCE) {
            self.in_a_row = 0;
            return Verdict::After(Duration::ZERO);
        }
        self.at_once.retain(|death| now.saturating_duration_since(*death) < window);
        self.at_once.push_back(now);
        if self.at_once.len() > limit {
            return Verdict::GiveUp;
        }
        self.in_a_row += 1;
        let doubled = |row: u32| FIRST_DELAY.saturating_mul(1 << row.min(16)).min(LONGEST_DELAY);
        Verdict::After(self.in_a_row.checked_sub(2).map_or(Duration::ZERO, doubled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(1);

    /// How many workers die, each at once after its delay, until the supervisor gives up; and how long that takes.
    fn until_given_up(limit: usize) -> (usize, Duration) {
        let (start, mut crashes) = (Instant::now(), Crashes::default());
        let mut now = start;
        for deaths in 1..1_000 {
            match crashes.died(None, now, limit, WINDOW) {
                Verdict::After(delay) => now += delay,
                Verdict::GiveUp => return (deaths, now - start),
            }
        }
        (usize::MAX, now - start)
    }

    #[test]
    fn the_delay_doubles_up_to_a_longest_one_and_a_worker_that_served_ends_the_row() {
        let (now, mut crashes) = (Instant::now(), Crashes::default());
        let mut delay = |ready| match crashes.died(ready, now, 100, WINDOW) {
            Verdict::After(delay) => delay.as_millis(),
            Verdict::GiveUp => panic!("given up"),
        };
        let delays: Vec<_> = (0..9).map(|_| delay(None)).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(delay(Some(now)), 5_000);
        assert_eq!(delay(now.checked_sub(AT_ONCE * 2)), 0);
        assert_eq!([delay(None), delay(None)], [0, 100]);
    }

    #[test]
    fn a_crash_loop_is_a_number_of_deaths_within_the_window_and_not_for_life() {
        let (deaths, time) = until_given_up(10);
        assert!(deaths == 11 && time < WINDOW, "{deaths} deaths in {time:?}");
        // One death each ten seconds, for an hour: never more than six in a minute.
        let (start, mut crashes) = (Instant::now(), Crashes::default());
        for number in 0..360 {
            let now = start + Duration::from_secs(10) * number;
            assert_ne!(crashes.died(None, now, 10, WINDOW), Verdict::GiveUp, "{number}");
        }
        // Workers that served before they died are no crash loop, however many they are.
        let mut crashes = Crashes::default();
        for _ in 0..1_000 {
            let verdict = crashes.died(start.checked_sub(AT_ONCE * 2), start, 10, WINDOW);
            assert_eq!(verdict, Verdict::After(Duration::ZERO));
        }
    }
}

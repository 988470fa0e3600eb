//! The circuit breaker of one upstream: after too many failures it lets nothing through for a while, then one probe at a
//! time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Breaker as Settings;

/// The parts of the window: a part is forgotten as a whole.
const PARTS: u32 = 10;

pub(super) struct Breaker {
    settings: Settings,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Grows with each change of the phase. An outcome of an earlier phase is not counted.
    generation: u64,
    epoch: Instant,
    parts: [Part; PARTS as usize],
}

#[derive(Clone, Copy)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    /// A probe is on its way; from `until` on another one may be.
    HalfOpen {
        until: Instant,
    },
}

/// The outcomes of a tenth of the window.
#[derive(Clone, Copy, Default)]
struct Part {
    number: u64,
    calls: u64,
    failures: u64,
}

/// The permission for one attempt. Dropped without an outcome, it counts for nothing.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    generation: u64,
    settled: bool,
}

impl Breaker {
    pub(super) fn new(settings: Settings) -> Self {
        let parts = [Part::default(); PARTS as usize];
        let state = State { phase: Phase::Closed, generation: 0, epoch: Instant::now(), parts };
        Self { settings, state: Mutex::new(state) }
    }

    /// Lets an attempt through; the error is the time after which it may let one through.
    pub(super) fn pass(&self) -> Result<Pass<'_>, Duration> {
        let mut state = self.state();
        let now = Instant::now();
        let half_open = Phase::HalfOpen { until: now + self.settings.open_for.get() };
        match state.phase {
            Phase::Closed => {}
            Phase::Open { until } | Phase::HalfOpen { until } if now < until => return Err(until - now),
            Phase::Open { .. } => state.enter(half_open),
            // The probe takes long, as a slow upload does. The first outcome counts.
            Phase::HalfOpen { .. } => state.phase = half_open,
        }
        Ok(Pass { breaker: self, generation: state.generation, settled: false })
    }

    /// Whether it has opened with this outcome, for the log.
    fn settle(&self, generation: u64, failed: Option<bool>) -> bool {
        let mut state = self.state();
        if state.generation != generation {
            return false;
        }
        let open = Phase::Open { until: Instant::now() + self.settings.open_for.get() };
        match (state.phase, failed) {
            (Phase::HalfOpen { .. }, Some(false)) => {
                state.enter(Phase::Closed);
                state.parts = [Part::default(); PARTS as usize];
                false
            }
            (Phase::HalfOpen { .. }, Some(true)) => {
                state.enter(open);
                true
            }
            // The probe was cut off by its caller: the next caller probes.
            (Phase::HalfOpen { .. }, None) => {
                state.enter(Phase::Open { until: Instant::now() });
                false
            }
            (Phase::Closed, Some(failed)) => {
                let (calls, failures) = state.count(failed, self.settings.window.get());
                let opens = failed
                    && calls >= self.settings.min_calls.get()
                    && failures * 100 >= calls * self.settings.failure_percent.get();
                if opens {
                    state.enter(open);
                }
                opens
            }
            (Phase::Closed | Phase::Open { .. }, _) => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }

    /// Counts an outcome; returns the calls and failures of the window.
    fn count(&mut self, failed: bool, window: Duration) -> (u64, u64) {
        let part = (window / PARTS).max(Duration::from_millis(1));
        let number = u64::try_from(self.epoch.elapsed().as_nanos() / part.as_nanos()).unwrap_or(u64::MAX);
        let index = usize::try_from(number % u64::from(PARTS)).unwrap_or_default();
        let current = &mut self.parts[index];
        if current.number != number {
            *current = Part { number, calls: 0, failures: 0 };
        }
        current.calls += 1;
        current.failures += u64::from(failed);
        let recent = self.parts.iter().filter(|part| part.number + u64::from(PARTS) > number);
        recent.fold((0, 0), |(calls, failures), part| (calls + part.calls, failures + part.failures))
    }
}

impl Pass<'_> {
    /// The upstream has responded.
    pub(super) fn succeeded(mut self) {
        self.settled = true;
        self.breaker.settle(self.generation, Some(false));
    }

    /// The upstream has failed. True when the breaker has opened with it.
    pub(super) fn failed(mut self) -> bool {
        self.settled = true;
        self.breaker.settle(self.generation, Some(true))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.breaker.settle(self.generation, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        let settings = serde_json::json!({
            "window": "10s", "min_calls": 4, "failure_percent": 50, "open_for": "5s",
        });
        Breaker::new(serde_json::from_value(settings).unwrap())
    }

    fn outcomes(breaker: &Breaker, failed: &[bool]) -> Vec<bool> {
        failed
            .iter()
            .map(|failed| {
                let pass = breaker.pass().unwrap_or_else(|wait| panic!("open for {wait:?}"));
                if *failed {
                    return pass.failed();
                }
                pass.succeeded();
                false
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_share_of_failures_and_half_opens_with_exactly_one_probe() {
        let breaker = breaker();
        assert_eq!(outcomes(&breaker, &[true, false, false, true]), [false, false, false, true]);
        assert_eq!(breaker.pass().err(), Some(5 * SECOND));
        tokio::time::advance(5 * SECOND).await;
        let probe = breaker.pass().unwrap_or_else(|wait| panic!("{wait:?}"));
        assert!((0..10).all(|_| breaker.pass().is_err()));
        // It fails: open again.
        assert!(probe.failed());
        assert!(breaker.pass().is_err());
        tokio::time::advance(5 * SECOND).await;
        breaker.pass().unwrap_or_else(|wait| panic!("{wait:?}")).succeeded();
        // Closed, and the failures are forgotten.
        assert_eq!(outcomes(&breaker, &[true, true, false]), [false; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_the_probe_to_the_next() {
        let breaker = breaker();
        outcomes(&breaker, &[true; 4]);
        tokio::time::advance(5 * SECOND).await;
        drop(breaker.pass());
        assert!(breaker.pass().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_takes_long_keeps_nobody_from_the_next_and_the_first_outcome_counts() {
        let breaker = breaker();
        outcomes(&breaker, &[true; 4]);
        tokio::time::advance(5 * SECOND).await;
        let (slow, early) = (breaker.pass(), breaker.pass());
        assert!(slow.is_ok() && early.is_err());
        tokio::time::advance(5 * SECOND).await;
        breaker.pass().unwrap_or_else(|wait| panic!("{wait:?}")).succeeded();
        assert!(!slow.unwrap_or_else(|wait| panic!("{wait:?}")).failed());
        assert!(breaker.pass().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn few_calls_and_old_failures_do_not_open_it() {
        let breaker = breaker();
        assert_eq!(outcomes(&breaker, &[true; 3]), [false; 3]);
        tokio::time::advance(11 * SECOND).await;
        assert_eq!(outcomes(&breaker, &[true; 3]), [false; 3]);
        // The control: within the window it does.
        assert_eq!(outcomes(&breaker, &[true]), [true]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_began_before_a_change_does_not_count_after_it() {
        let breaker = breaker();
        let (late, later) = (breaker.pass(), breaker.pass());
        outcomes(&breaker, &[true; 4]);
        late.unwrap_or_else(|wait| panic!("{wait:?}")).succeeded();
        assert!(breaker.pass().is_err());
        tokio::time::advance(5 * SECOND).await;
        let probe = breaker.pass();
        assert!(!later.unwrap_or_else(|wait| panic!("{wait:?}")).failed());
        assert!(breaker.pass().is_err());
        probe.unwrap_or_else(|wait| panic!("{wait:?}")).succeeded();
        assert!(breaker.pass().is_ok());
    }
}

//! Trying again: any operation, as often and at such intervals as a policy says. Knows nothing of HTTP.

use std::future::Future;
use std::time::Duration;

/// How often an operation is tried, and how long is waited in between.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    attempts: u32,
    backoff: Duration,
    max_backoff: Duration,
    jitter: bool,
}

impl Policy {
    /// Waits a random time from zero up to `backoff`, then up to twice that, and so on, at most `max_backoff`: exponential
    /// backoff with full jitter, so that callers that failed together do not come back together
    /// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog). `attempts` counts the first one.
    pub fn exponential(attempts: u32, backoff: Duration, max_backoff: Duration) -> Self {
        Self { attempts, backoff, max_backoff, jitter: true }
    }

    /// Waits the same time after each attempt.
    pub fn fixed(attempts: u32, wait: Duration) -> Self {
        Self { attempts, backoff: wait, max_backoff: wait, jitter: false }
    }

    /// The same times, whole and not random.
    pub fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// The most attempts, with the first one.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long to wait after so many failed attempts, 1 or more.
    pub fn wait(&self, failed: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.backoff.saturating_mul(factor).min(self.max_backoff);
        if self.jitter { longest.mul_f64(fastrand::f64()) } else { longest }
    }
}

/// Runs the operation until it succeeds, at most as often as the policy says. The error is that of the last attempt.
///
/// An attempt has no time limit of its own, and what it has done before it failed stays done: give this only operations
/// that can be repeated.
pub async fn retry<T, E, F>(policy: &Policy, operation: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    retry_if(policy, operation, |_| true).await
}

/// As [`retry`], but an error for which `retryable` is false ends it. `retryable` is called for each failed attempt, so it
/// is also the place for a log line.
pub async fn retry_if<T, E, F>(
    policy: &Policy,
    mut operation: impl FnMut() -> F,
    mut retryable: impl FnMut(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut failed = 0;
    loop {
        match operation().await {
            Err(error) if retryable(&error) && failed + 1 < policy.attempts => {
                failed += 1;
                tokio::time::sleep(policy.wait(failed)).await;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::Cell;

    use tokio::time::Instant;

    const HALF: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn five_attempts_half_a_second_apart_and_the_last_error() {
        let (started, tried) = (Instant::now(), Cell::new(0));
        let failing = async || {
            tried.set(tried.get() + 1);
            Err::<(), _>(tried.get())
        };
        assert_eq!(retry(&Policy::fixed(5, HALF), failing).await, Err(5));
        assert_eq!(started.elapsed(), 4 * HALF);
        tried.set(0);
        let third = async || {
            tried.set(tried.get() + 1);
            if tried.get() == 3 { Ok(3) } else { Err(()) }
        };
        assert_eq!(retry(&Policy::fixed(5, HALF), third).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_cannot_be_retried_ends_it() {
        let tried = Cell::new(0);
        let failing = async || {
            tried.set(tried.get() + 1);
            Err::<(), _>(tried.get())
        };
        assert_eq!(retry_if(&Policy::fixed(5, HALF), failing, |error| *error < 2).await, Err(2));
    }

    #[test]
    fn a_wait_is_random_up_to_a_bound_that_doubles_and_has_a_cap() {
        let policy = Policy::exponential(10, Duration::from_millis(100), Duration::from_secs(1));
        for (failed, most) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (40, 1_000)] {
            let waits: Vec<_> = (0..1_000).map(|_| policy.wait(failed)).collect();
            let most = Duration::from_millis(most);
            assert!(waits.iter().all(|wait| *wait <= most), "{failed}");
            // Full jitter: all of the range is used.
            assert!(
                waits.iter().any(|wait| *wait < most / 5) && waits.iter().any(|wait| *wait > most / 5 * 4)
            );
            assert_eq!(policy.without_jitter().wait(failed), most);
        }
    }
}

//! The budget of retries of one upstream: a token bucket that requests fill and retries empty, as Finagle's `RetryBudget`
//! and gRPC's retry throttling (gRFC A6). A dead upstream gets no more than its share of additional requests.

use std::sync::{Mutex, PoisonError};

/// What a retry costs; a request puts in its percentage.
const RETRY: u64 = 100;

pub(super) struct Budget {
    percent: u64,
    most: u64,
    left: Mutex<u64>,
}

impl Budget {
    /// Each request allows this percentage of a retry; `reserve` retries are allowed at first, and saved up at most.
    pub(super) fn new(percent: u64, reserve: u64) -> Self {
        let most = reserve.saturating_mul(RETRY);
        Self { percent, most, left: Mutex::new(most) }
    }

    /// Counts a request.
    pub(super) fn deposit(&self) {
        self.change(|left| (Some((left + self.percent).min(self.most.max(self.percent))), ()));
    }

    /// Takes one retry; false when none is left.
    pub(super) fn withdraw(&self) -> bool {
        self.change(|left| match left.checked_sub(RETRY) {
            Some(rest) => (Some(rest), true),
            None => (None, false),
        })
    }

    fn change<T>(&self, change: impl FnOnce(u64) -> (Option<u64>, T)) -> T {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (new, result) = change(*left);
        if let Some(new) = new {
            *left = new;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_requests_after_the_reserve_is_used() {
        let budget = Budget::new(20, 10);
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.deposit();
            while budget.withdraw() {
                retries += 1;
            }
        }
        // The reserve is full at the start, so the first deposit adds nothing.
        assert_eq!(retries, 10 + 999 / 5);
    }

    #[test]
    fn no_more_than_the_reserve_is_saved_up_and_none_is_none() {
        let budget = Budget::new(20, 3);
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!((0..10).filter(|_| budget.withdraw()).count(), 3);
        let none = Budget::new(0, 0);
        none.deposit();
        assert!(!none.withdraw());
        // More retries than requests: every request brings its own.
        let many = Budget::new(400, 0);
        many.deposit();
        assert_eq!((0..10).filter(|_| many.withdraw()).count(), 4);
    }
}

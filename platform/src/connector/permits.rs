//! How many calls of an upstream are open at a time.
//!
//! A response that is passed on counts while its body comes. But a client that takes no more of it must not hold the permit of
//! others for as long as it likes: such a response loses its permit when another call needs one. It is asked for nothing until
//! then, so this needs no timer.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub(super) struct Permits {
    free: Arc<Semaphore>,
    /// How long a reader may take nothing.
    patience: Duration,
    /// The responses whose bodies are read piece by piece.
    read: Mutex<Vec<Weak<Mutex<RevocablePermit>>>>,
}

/// One call.
pub(super) struct Permit(Arc<Mutex<RevocablePermit>>);

struct RevocablePermit {
    /// `None` when another call has got it.
    permit: Option<OwnedSemaphorePermit>,
    /// Since when its reader has something to read. `None` while the upstream is waited for.
    given: Option<Instant>,
}

impl Permits {
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), patience, read: Mutex::default() }
    }

    /// A permit, if one is free.
    pub(super) fn take(&self) -> Option<Permit> {
        let free = || Arc::clone(&self.free).try_acquire_owned().ok();
        let permit = free().or_else(|| {
            self.take_back();
            free()
        })?;
        Some(Permit(Arc::new(Mutex::new(RevocablePermit { permit: Some(permit), given: None }))))
    }

    /// The body of this call is read piece by piece from now on.
    pub(super) fn watch(&self, permit: &Permit) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() == read.capacity() {
            // Before it would grow.
            read.retain(|permit| permit.strong_count() > 0);
        }
        read.push(Arc::downgrade(&permit.0));
    }

    /// Takes the permits of the responses that nobody reads.
    fn take_back(&self) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.retain(|permit| {
            let Some(shared) = permit.upgrade() else { return false };
            let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if held.given.is_some_and(|given| given.elapsed() >= self.patience) {
                held.permit = None;
            }
            held.permit.is_some()
        });
    }
}

impl Permit {
    /// Its reader has got something, or waits for the upstream.
    pub(super) fn note(&self, has_given: bool) {
        let given = has_given.then(Instant::now);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).given = given;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_response_that_nobody_reads_loses_its_permit_to_another_call_only() {
        let permits = Permits::new(2, PATIENCE);
        let [read, whole] = [(); 2].map(|()| permits.take().unwrap());
        permits.watch(&read);
        read.note(true);
        assert!(permits.take().is_none());
        tokio::time::advance(PATIENCE / 2).await;
        // It is read, and then the upstream is waited for, however long.
        read.note(false);
        tokio::time::advance(PATIENCE * 2).await;
        assert!(permits.take().is_none());
        read.note(true);
        tokio::time::advance(PATIENCE).await;
        let third = permits.take().unwrap();
        // A call that is not read piece by piece ends by its own deadline.
        assert!(permits.take().is_none());
        // No permit is given back twice.
        drop((read, third));
        let _fourth = permits.take().unwrap();
        assert!(permits.take().is_none());
        drop(whole);
        assert!(permits.take().is_some());
    }

    #[test]
    fn responses_that_have_ended_are_forgotten() {
        let permits = Permits::new(10, PATIENCE);
        for _ in 0..1_000 {
            permits.watch(&permits.take().unwrap());
        }
        assert!(permits.read.lock().unwrap().capacity() < 100);
    }
}

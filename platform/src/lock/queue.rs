//! The waiters of this process, one queue for each lock: they come in the order in which they have asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as Queue, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use super::Wait;

/// After how many turns of one process the others get a chance. They try a lock every now and then, and would have to be
/// lucky to hit the moment between two turns of a queue.
const TURNS: u32 = 8;

/// The queue of a lock counts its turns.
type Entries = Arc<Mutex<HashMap<String, Arc<Queue<u32>>>>>;

/// The queues of all locks that somebody waits for or holds.
#[derive(Default)]
pub(super) struct Queues(Entries);

/// A place in a queue. As long as it has its turn, no other place has.
pub(super) struct Turn {
    entries: Entries,
    name: String,
    queue: Arc<Queue<u32>>,
    guard: Option<OwnedMutexGuard<u32>>,
}

impl Queues {
    /// Waits for the turn; `None` when it does not come in time.
    pub(super) async fn wait(&self, name: &str, wait: Wait, deadline: Option<Instant>) -> Option<Turn> {
        let mut place = self.join(name);
        let queue = Arc::clone(&place.queue);
        let guard = match (wait, deadline) {
            (Wait::No, _) => queue.try_lock_owned().ok()?,
            (_, Some(deadline)) => timeout_at(deadline, queue.lock_owned()).await.ok()?,
            (_, None) => queue.lock_owned().await,
        };
        place.guard = Some(guard);
        Some(place)
    }

    fn join(&self, name: &str) -> Turn {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = Arc::clone(entries.entry(name.to_owned()).or_default());
        Turn { entries: Arc::clone(&self.0), name: name.to_owned(), queue, guard: None }
    }
}

impl Turn {
    /// Whether this process has had so many turns without a break that others should get one now.
    pub(super) fn is_for_others(&mut self) -> bool {
        let Some(turns) = &mut self.guard else { return false };
        **turns += 1;
        turns.is_multiple_of(TURNS)
    }
}

impl Drop for Turn {
    /// The last place of a queue removes it.
    fn drop(&mut self) {
        self.guard = None;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // The map and this place have it.
        if Arc::strong_count(&self.queue) == 2 {
            entries.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn length(queues: &Queues) -> usize {
        queues.0.lock().unwrap().len()
    }

    #[tokio::test]
    async fn turns_come_in_order_and_every_eighth_is_preceded_by_a_break() {
        let queues = Queues::default();
        let mut turn = queues.wait("a", Wait::Forever, None).await.unwrap();
        assert!(queues.wait("a", Wait::No, None).await.is_none());
        assert!(queues.wait("b", Wait::No, None).await.is_some(), "another queue");
        let mut waiting: Vec<_> = (0..16).map(|_| Box::pin(queues.wait("a", Wait::Forever, None))).collect();
        assert!(waiting.iter_mut().all(|next| next.now_or_never().is_none()));
        let mut breaks = vec![turn.is_for_others()];
        for mut next in waiting {
            drop(turn);
            turn = (&mut next).now_or_never().unwrap().unwrap();
            breaks.push(turn.is_for_others());
        }
        let expected: Vec<bool> = (1..=17).map(|number| number % 8 == 0).collect();
        assert_eq!(breaks, expected);
    }

    #[tokio::test]
    async fn a_queue_goes_with_its_last_place_also_of_a_waiter_that_gives_up() {
        let queues = Queues::default();
        let turn = queues.wait("a", Wait::Forever, None).await.unwrap();
        let mut waiting = Box::pin(queues.wait("a", Wait::Forever, None));
        assert!((&mut waiting).now_or_never().is_none());
        let past = Some(Instant::now());
        assert!(queues.wait("a", Wait::UpTo(std::time::Duration::ZERO), past).await.is_none());
        assert_eq!(length(&queues), 1);
        // The turn is on its way to the waiter when it gives up.
        drop(turn);
        assert_eq!(length(&queues), 1);
        drop(waiting);
        assert_eq!(length(&queues), 0);
    }
}

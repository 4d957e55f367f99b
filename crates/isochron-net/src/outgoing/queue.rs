//! What waits for one who takes it, in the order in which it came.
//!
//! Whoever puts something in never waits: a full queue drops its oldest. Numbers are
//! given on entry, so that what was lost is seen by the gap.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A queue that holds so many.
#[derive(Debug)]
pub struct Queue<T> {
    limit: usize,
    waiting: Mutex<Waiting<T>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<Queued<T>>,
    next: u64,
    /// Whether something was dropped since something was taken last.
    dropping: bool,
    closed: bool,
}

/// Something that waited.
#[derive(Debug)]
pub struct Queued<T> {
    /// Its number: how many came before it.
    pub number: u64,
    /// What it is.
    pub item: T,
}

impl<T> Queue<T> {
    /// An empty one that holds `limit`, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            waiting: Mutex::new(Waiting {
                items: VecDeque::new(),
                next: 0,
                dropping: false,
                closed: false,
            }),
            arrived: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many it holds.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Puts something at the end. True when the oldest had to be dropped for it, and was
    /// the first since something was taken: what is worth a line in the log.
    pub fn push(&self, item: T) -> bool {
        let begins_to_drop = {
            let mut waiting = self.waiting();
            let number = waiting.next;
            waiting.next += 1;
            let full = waiting.items.len() >= self.limit;
            if full {
                waiting.items.pop_front();
            }
            waiting.items.push_back(Queued { number, item });
            full && !std::mem::replace(&mut waiting.dropping, full)
        };
        self.arrived.notify_one();
        begins_to_drop
    }

    /// Waits until there is something; false if there is nothing and nothing will come.
    pub async fn ready(&self) -> bool {
        loop {
            // Before it is looked, so that nothing is missed in between.
            let arrived = self.arrived.notified();
            {
                let waiting = self.waiting();
                if !waiting.items.is_empty() {
                    return true;
                }
                if waiting.closed {
                    return false;
                }
            }
            arrived.await;
        }
    }

    /// Takes the oldest, if there is one.
    pub fn take(&self) -> Option<Queued<T>> {
        self.take_if(|_| true)
    }

    /// Takes the oldest, if there is one and it is wanted.
    pub fn take_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<Queued<T>> {
        let mut waiting = self.waiting();
        if !wanted(&waiting.items.front()?.item) {
            return None;
        }
        waiting.dropping = false;
        waiting.items.pop_front()
    }

    /// Nothing comes any more; what waits can still be taken.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.arrived.notify_waiters();
    }

    /// Nothing comes any more, and what waits is gone.
    pub fn clear(&self) {
        self.waiting().items.clear();
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_is_dropped_and_its_number_is_missing() {
        let queue = Queue::new(2);
        let dropped: Vec<bool> = (0..5).map(|item| queue.push(item)).collect();
        assert_eq!(dropped, [false, false, true, false, false]);
        let mut taken = Vec::new();
        assert!(queue.take_if(|item| *item != 3).is_none());
        while let Some(queued) = queue.take() {
            taken.push((queued.number, queued.item));
        }
        assert_eq!(taken, [(3, 3), (4, 4)]);
        // It is said again after something was taken.
        assert!(!queue.push(5) && !queue.push(6) && queue.push(7));
    }

    #[tokio::test]
    async fn who_waits_learns_of_what_comes_and_of_the_end() {
        let queue = Queue::new(2);
        let (there, ()) = tokio::join!(queue.ready(), async {
            tokio::task::yield_now().await;
            queue.push(());
        });
        assert!(there);
        queue.close();
        assert!(queue.ready().await, "what is there can still be taken");
        queue.take().unwrap();
        let queue = Queue::<()>::new(2);
        let (there, ()) = tokio::join!(queue.ready(), async {
            tokio::task::yield_now().await;
            queue.clear();
        });
        assert!(!there);
    }
}

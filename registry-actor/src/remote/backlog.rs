//! A bounded queue of news from one who never waits to one who may be slow. What does not fit is not kept: everything that is
//! queued becomes one word, that something was missed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The queue. There is one taker.
pub(super) struct Backlog<T> {
    state: Mutex<State<T>>,
    /// Exclusive upper bound of what the queued news weigh together.
    limit: usize,
    changed: Notify,
}

struct State<T> {
    /// Each with its weight.
    news: VecDeque<(T, usize)>,
    weight: usize,
    missed: bool,
}

/// What is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// Something was left out since the last one: it comes before what is queued now.
    Missed,
    /// The next one.
    News(T),
}

impl<T> Backlog<T> {
    /// An empty one.
    pub(super) const fn new(limit: usize) -> Self {
        let state = State { news: VecDeque::new(), weight: 0, missed: false };
        Self { state: Mutex::new(state), limit, changed: Notify::const_new() }
    }

    /// Queues, or leaves out; never waits.
    pub(super) fn push(&self, news: T, weight: usize) {
        let mut state = self.lock();
        let heavier = state.weight.saturating_add(weight);
        if heavier < self.limit {
            state.weight = heavier;
            state.news.push_back((news, weight));
            drop(state);
            self.changed.notify_one();
        } else {
            drop(state);
            self.miss();
        }
    }

    /// Notes that something was missed, and lets go of what is queued: whoever reads everything anew needs none of it.
    pub(super) fn miss(&self) {
        let dropped = {
            let mut state = self.lock();
            state.weight = 0;
            state.missed = true;
            std::mem::take(&mut state.news)
        };
        drop(dropped);
        self.changed.notify_one();
    }

    /// Waits for the next. May be dropped at any time, and loses nothing then.
    pub(super) async fn take(&self) -> Taken<T> {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    /// The next, if there is one.
    pub(super) fn try_take(&self) -> Option<Taken<T>> {
        let mut state = self.lock();
        if std::mem::take(&mut state.missed) {
            return Some(Taken::Missed);
        }
        let (news, weight) = state.news.pop_front()?;
        state.weight -= weight;
        Some(Taken::News(news))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fits_is_taken_in_order() {
        let backlog = Backlog::new(10);
        backlog.push(1, 4);
        backlog.push(2, 5);
        assert_eq!(backlog.take().await, Taken::News(1));
        assert_eq!(backlog.take().await, Taken::News(2));
        assert_eq!(backlog.try_take(), None);
        backlog.push(3, 9);
        assert_eq!(backlog.take().await, Taken::News(3), "what was taken weighs nothing any more");
    }

    #[tokio::test]
    async fn what_does_not_fit_becomes_one_word_and_frees_the_rest() {
        let backlog = Backlog::new(10);
        for news in 0..100 {
            backlog.push(news, 3);
        }
        assert!(backlog.lock().news.len() <= 3);
        assert_eq!(backlog.take().await, Taken::Missed);
        // 100 = 25 times three that fit and one that does not.
        assert_eq!(backlog.try_take(), None);
        backlog.push(7, 10);
        backlog.push(8, 1);
        assert_eq!(backlog.take().await, Taken::Missed, "it comes before what was queued after it");
        assert_eq!(backlog.take().await, Taken::News(8));
    }
}

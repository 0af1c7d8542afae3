//! A hand-over between two threads: one lock, held for a few moves, and two bells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry_actor::domain::{ProcessEvent, Tombstone};
use registry_actor::port::MissedEvents;
use tokio::sync::Notify;

use crate::hand_over::{Delivery, HandOver, Take};
use crate::report::SinkReport;

/// A hand-over between two threads. Whoever hands over never waits; there is one consumer.
#[derive(Debug)]
pub(crate) struct Line {
    hand_over: Mutex<HandOver>,
    /// Rung for the consumer when something was handed over, and when the line was closed.
    arrived: Notify,
    /// Rung for those who flush when something was settled or given up.
    settled: Notify,
}

/// What the consumer was given. If it goes away otherwise than by [`delivered`](Self::delivered), as when the consumer panics
/// or is killed, the delivery has failed.
#[derive(Debug)]
pub(crate) struct InHand {
    line: Arc<Line>,
    delivery: Option<Delivery>,
}

impl Line {
    pub(crate) fn new(capacity: usize, gap_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            hand_over: Mutex::new(HandOver::new(capacity, gap_limit)),
            arrived: Notify::new(),
            settled: Notify::new(),
        })
    }

    /// Hands events over, all under one lock.
    pub(crate) fn offer<'a>(&self, events: impl IntoIterator<Item = &'a Arc<ProcessEvent>>) {
        {
            let mut hand_over = self.lock();
            for event in events {
                hand_over.offer(Arc::clone(event));
            }
        }
        self.arrived.notify_one();
    }

    pub(crate) fn prune(&self, tombstones: &[Tombstone]) {
        {
            let mut hand_over = self.lock();
            for tombstone in tombstones {
                hand_over.prune(tombstone.clone());
            }
        }
        self.arrived.notify_one();
    }

    pub(crate) fn resync(&self) {
        self.lock().resync();
        self.arrived.notify_one();
    }

    pub(crate) fn miss(&self, missed: &MissedEvents) {
        self.lock().miss(missed);
        self.arrived.notify_one();
    }

    /// Takes no more events in. What waits still goes out.
    pub(crate) fn close(&self) {
        self.lock().close();
        self.arrived.notify_one();
    }

    /// Gives up what waits.
    pub(crate) fn give_up(&self) {
        let discarded = self.lock().give_up();
        drop(discarded);
        self.arrived.notify_one();
        self.settled.notify_waiters();
    }

    pub(crate) fn restarted(&self) {
        self.lock().restarted();
    }

    pub(crate) fn report(&self) -> SinkReport {
        self.lock().report()
    }

    pub(crate) fn mark(&self) -> u64 {
        self.lock().mark()
    }

    /// What comes next; `None` when nothing will come any more. Dropping the future takes nothing.
    pub(crate) async fn next(self: &Arc<Self>, limit: usize) -> Option<InHand> {
        loop {
            match self.take(limit) {
                Take::Deliver(delivery) => {
                    return Some(InHand { line: Arc::clone(self), delivery: Some(delivery) });
                }
                // One consumer, and the bell remembers one ring: nothing is overheard between the look and the wait.
                Take::Nothing => self.rung().await,
                Take::Ended => return None,
            }
        }
    }

    /// What comes next, if there is something.
    pub(crate) fn take(&self, limit: usize) -> Take {
        self.lock().take(limit)
    }

    /// Settles what was taken as delivered.
    pub(crate) fn delivered(&self) {
        self.lock().delivered();
        self.settled.notify_waiters();
    }

    /// Waits until everything up to a mark is settled. May be dropped at any time.
    pub(crate) async fn settled(&self, mark: u64) {
        self.until(|hand_over| hand_over.is_settled(mark)).await;
    }

    /// Waits until what waited was given up. May be dropped at any time.
    pub(crate) async fn given_up(&self) {
        self.until(HandOver::is_given_up).await;
    }

    /// Whether nothing goes out any more.
    pub(crate) fn is_ended(&self) -> bool {
        self.lock().is_ended()
    }

    /// Makes the consumer look again.
    pub(crate) fn ring(&self) {
        self.arrived.notify_one();
    }

    /// Waits until the consumer has to look again.
    pub(crate) async fn rung(&self) {
        self.arrived.notified().await;
    }

    async fn until(&self, reached: impl Fn(&HandOver) -> bool) {
        loop {
            // First the wait begins, then the look: a change between the two ends the wait.
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if reached(&self.lock()) {
                return;
            }
            settled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HandOver> {
        self.hand_over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InHand {
    pub(crate) fn delivery(&self) -> Option<&Delivery> {
        self.delivery.as_ref()
    }

    pub(crate) fn delivered(mut self) {
        self.delivery = None;
        self.line.delivered();
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.line.lock().delivery_failed(&delivery);
            self.line.settled.notify_waiters();
        }
    }
}

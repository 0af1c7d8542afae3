//! The gate between the incarnations of one process and the log.
//!
//! A new incarnation may load its process only when every batch of its predecessor is stored or refused, and a
//! predecessor that still runs somewhere, orphaned by the death of its shard, must not write beside it. The gate
//! outlives actors and shards. `admitted incarnation = latest incarnation`, and `load begins > last ticket dropped`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Admits the batches of the latest incarnation of one process.
#[derive(Debug, Default)]
pub(super) struct SubmissionGate {
    state: Mutex<GateState>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct GateState {
    latest: u64,
    outstanding: u32,
}

/// Number of one life of a process's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incarnation(u64);

/// A batch at the log. Its drop says that the batch is stored or refused.
#[derive(Debug)]
pub(super) struct Ticket(Arc<SubmissionGate>);

impl SubmissionGate {
    /// Shuts every earlier incarnation out and names the next.
    pub(super) fn begin_incarnation(&self) -> Incarnation {
        let mut state = self.lock();
        state.latest += 1;
        Incarnation(state.latest)
    }

    /// Waits until no batch of any incarnation is at the log. May be dropped at any time.
    pub(super) async fn settled(&self) {
        loop {
            // The waiter registers before it looks, so that a ticket dropped in between still wakes it.
            let mut dropped = std::pin::pin!(self.settled.notified());
            dropped.as_mut().enable();
            if self.lock().outstanding == 0 {
                return;
            }
            dropped.await;
        }
    }

    /// Lets a batch through, unless a later incarnation has begun.
    pub(super) fn admit(self: &Arc<Self>, incarnation: Incarnation) -> Option<Ticket> {
        let mut state = self.lock();
        if state.latest != incarnation.0 {
            return None;
        }
        state.outstanding += 1;
        Some(Ticket(Arc::clone(self)))
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.lock().outstanding -= 1;
        self.0.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_incarnation_shuts_the_old_one_out_and_waits_for_its_batches() {
        let gate = Arc::new(SubmissionGate::default());
        let old = gate.begin_incarnation();
        let ticket = gate.admit(old).expect("the latest is admitted");
        let new = gate.begin_incarnation();
        assert!(gate.admit(old).is_none(), "the old one is shut out at once");
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.settled().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "a batch of the old one is still at the log");
        drop(ticket);
        waiting.await.expect("the wait ends with the ticket");
        assert!(gate.admit(new).is_some());
    }
}

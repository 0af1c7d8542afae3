//! The deliveries of the log in memory: one for each target and wake id, pending until it is settled.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use crate::domain::{ProcessWakeDelivery, SessionScope};

/// Deliveries by position of their event.
#[derive(Default)]
pub(super) struct Wakes {
    deliveries: HashMap<u64, ProcessWakeDelivery>,
    /// Targets and wake ids that have a delivery, settled or not.
    known: HashSet<(SessionScope, String)>,
    pending: BTreeMap<SessionScope, BTreeSet<u64>>,
}

impl Wakes {
    /// Stores a delivery; answers whether its wake is new to its target.
    pub(super) fn store(&mut self, position: u64, delivery: ProcessWakeDelivery) -> bool {
        let is_new = self.known.insert((delivery.target.clone(), delivery.wake_id.clone()));
        if is_new {
            self.pending.entry(delivery.target.clone()).or_default().insert(position);
            self.deliveries.insert(position, delivery);
        }
        is_new
    }

    pub(super) fn settle(&mut self, position: u64) {
        if let Some(delivery) = self.deliveries.get(&position)
            && let Some(pending) = self.pending.get_mut(&delivery.target)
        {
            pending.remove(&position);
        }
    }

    /// Settles what is pending for a session and all of its frames; answers how many.
    pub(super) fn settle_session(&mut self, session_id: &str) -> u64 {
        let of_session = self.pending.iter_mut().filter(|(target, _)| target.session_id() == session_id);
        of_session.map(|(_, pending)| std::mem::take(pending).len() as u64).sum()
    }

    /// Forgets a delivery with its process.
    pub(super) fn remove(&mut self, position: u64) {
        self.settle(position);
        if let Some(delivery) = self.deliveries.remove(&position) {
            self.known.remove(&(delivery.target, delivery.wake_id));
        }
    }

    /// The target of the delivery at a position.
    pub(super) fn target(&self, position: u64) -> Option<&SessionScope> {
        self.deliveries.get(&position).map(|delivery| &delivery.target)
    }

    /// What is pending for a target after a position.
    pub(super) fn pending(
        &self,
        target: &SessionScope,
        after: u64,
    ) -> impl Iterator<Item = (u64, &ProcessWakeDelivery)> {
        let pending = self.pending.get(target).into_iter();
        pending
            .flat_map(move |pending| pending.range((Bound::Excluded(after), Bound::Unbounded)))
            .filter_map(|position| Some((*position, self.deliveries.get(position)?)))
    }
}

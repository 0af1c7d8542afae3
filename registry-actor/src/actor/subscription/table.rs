//! Who is subscribed to which process. An entry lives exactly as long as its subscription, however that ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{ActorRef, Message};

use super::inbox::Inbox;
use super::{ProcessNews, ProcessSubscription, Subscriber};
use crate::domain::{ProcessId, Tombstone};
use crate::port::{CommitListener, CommittedBatch};

/// Who is subscribed to which process. It hears of commits from the publisher and knows no process actor, so it neither
/// wakes one nor keeps one alive.
#[derive(Default)]
pub(in crate::actor) struct SubscriptionTable {
    /// Held for look-ups only: whatever is sent, or dropped, is sent and dropped outside of it.
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    closed: bool,
    next_number: u64,
    /// The subscribers of one process in the order in which they came.
    by_process: BTreeMap<ProcessId, BTreeMap<u64, Arc<Subscriber>>>,
}

impl SubscriptionTable {
    pub(in crate::actor) fn subscribe<M: Message>(
        self: &Arc<Self>,
        process_id: &ProcessId,
        limit: usize,
        subscriber: ActorRef<M>,
        wrap: impl Fn(ProcessNews) -> M + Send + Sync + 'static,
    ) -> ProcessSubscription {
        let mut entries = self.entries();
        let number = entries.next_number;
        entries.next_number += 1;
        let table = Arc::downgrade(self);
        let subscriber = Subscriber::new(process_id.clone(), number, table, Inbox::new(limit), subscriber, wrap);
        let subscriber = Arc::new(subscriber);
        if entries.closed {
            drop(entries);
            subscriber.tell(Inbox::closed);
        } else {
            entries.by_process.entry(process_id.clone()).or_default().insert(number, Arc::clone(&subscriber));
        }
        ProcessSubscription { subscriber, _table: Arc::clone(self) }
    }

    pub(super) fn remove(&self, process_id: &ProcessId, number: u64) {
        let _dropped_after_the_lock = {
            let mut entries = self.entries();
            let Some(subscribers) = entries.by_process.get_mut(process_id) else { return };
            let removed = subscribers.remove(&number);
            if subscribers.is_empty() {
                entries.by_process.remove(process_id);
            }
            removed
        };
    }

    /// How many subscriptions there are. A process without one has no place here and would count too.
    pub(in crate::actor) fn len(&self) -> usize {
        self.entries().by_process.values().map(|subscribers| subscribers.len().max(1)).sum()
    }

    fn tell<T>(&self, all: &[T], process_id: impl Fn(&T) -> &ProcessId, gather: impl Fn(&mut Inbox, &T)) {
        let told: Vec<(Arc<Subscriber>, &T)> = {
            let entries = self.entries();
            if entries.by_process.is_empty() {
                return;
            }
            let subscribers = |one| entries.by_process.get(process_id(one)).into_iter().flat_map(BTreeMap::values);
            all.iter().flat_map(|one| subscribers(one).map(move |subscriber| (Arc::clone(subscriber), one))).collect()
        };
        for (subscriber, one) in told {
            subscriber.tell(|inbox| gather(inbox, one));
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitListener for SubscriptionTable {
    fn committed(&self, batches: &[CommittedBatch]) {
        self.tell(batches, |batch| &batch.process_id, Inbox::committed);
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        self.tell(tombstones, |tombstone| &tombstone.process_id, Inbox::pruned);
    }

    fn resync(&self) {
        let told: Vec<_> = self.entries().by_process.values().flat_map(BTreeMap::values).cloned().collect();
        for subscriber in told {
            subscriber.tell(Inbox::resync);
        }
    }

    fn closed(&self) {
        let told = {
            let mut entries = self.entries();
            entries.closed = true;
            std::mem::take(&mut entries.by_process)
        };
        for subscriber in told.into_values().flat_map(BTreeMap::into_values) {
            subscriber.tell(Inbox::closed);
        }
    }
}

impl std::fmt::Debug for SubscriptionTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SubscriptionTable").field("subscriptions", &self.len()).finish_non_exhaustive()
    }
}

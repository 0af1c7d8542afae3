//! Ticks by key, whatever the key names. An entry lives exactly as long as it has subscriptions, however they end.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::watch;

use super::sync::{Mutex, MutexGuard, PoisonError};

/// Ticks of the keys that somebody watches.
pub(crate) struct TickMap<K> {
    entries: Mutex<Entries<K>>,
}

struct Entries<K> {
    closed: bool,
    by_key: HashMap<K, Entry>,
}

struct Entry {
    ticks: watch::Sender<u64>,
    subscriptions: usize,
}

fn send(ticks: &watch::Sender<u64>) {
    ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
}

impl<K> Default for TickMap<K> {
    fn default() -> Self {
        Self { entries: Mutex::new(Entries { closed: false, by_key: HashMap::new() }) }
    }
}

impl<K: Clone + Ord + Hash> TickMap<K> {
    /// Watches a key. The subscription has seen all ticks so far.
    pub(crate) fn subscribe(self: &Arc<Self>, key: &K) -> HubSubscription<K> {
        let mut entries = self.entries();
        let entry = entries
            .by_key
            .entry(key.clone())
            .or_insert_with(|| Entry { ticks: watch::Sender::new(0), subscriptions: 0 });
        entry.subscriptions += 1;
        let ticks = entry.ticks.subscribe();
        if entries.closed {
            entries.by_key.remove(key);
        }
        drop(entries);
        HubSubscription { map: Arc::clone(self), key: key.clone(), ticks }
    }

    /// Ticks a key. Ticks that nobody has seen yet are one.
    pub(crate) fn tick(&self, key: &K) {
        // Outside of the lock: a waker may do anything.
        let ticks = self.entries().by_key.get(key).map(|entry| entry.ticks.clone());
        if let Some(ticks) = ticks {
            send(&ticks);
        }
    }

    /// Ticks every key, in their order, so that two runs of one history wake in one order.
    pub(crate) fn tick_all(&self) {
        let mut all: Vec<_> =
            self.entries().by_key.iter().map(|(key, entry)| (key.clone(), entry.ticks.clone())).collect();
        all.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        all.iter().for_each(|(_, ticks)| send(ticks));
    }

    /// Dropping the senders wakes every waiter, which then sees that its source has ended.
    pub(crate) fn close(&self) {
        let dropped_after_the_lock = {
            let mut entries = self.entries();
            entries.closed = true;
            std::mem::take(&mut entries.by_key)
        };
        let mut in_order: Vec<_> = dropped_after_the_lock.into_iter().collect();
        in_order.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        drop(in_order);
    }

    /// How many keys are watched.
    pub(crate) fn len(&self) -> usize {
        self.entries().by_key.len()
    }

    fn entries(&self) -> MutexGuard<'_, Entries<K>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watch of one key: of a process, or of the wakes of a session scope. Its drop releases the entry.
pub struct HubSubscription<K: Clone + Ord + Hash> {
    map: Arc<TickMap<K>>,
    key: K,
    ticks: watch::Receiver<u64>,
}

/// The hub's source has ended: no tick will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source of changes has ended")]
pub struct HubClosed;

impl<K: Clone + Ord + Hash> HubSubscription<K> {
    /// Waits for a tick after the last one seen. May be dropped at any time; a tick is not lost by it.
    ///
    /// # Errors
    /// [`HubClosed`] when no tick will come any more.
    pub async fn ticked(&mut self) -> Result<(), HubClosed> {
        self.ticks.changed().await.map_err(|_| HubClosed)
    }

    /// Whether a tick came that no wait has answered yet.
    #[must_use]
    pub fn has_ticked(&self) -> bool {
        self.ticks.has_changed().unwrap_or(true)
    }
}

impl<K: Clone + Ord + Hash + fmt::Debug> fmt::Debug for HubSubscription<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HubSubscription").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<K: Clone + Ord + Hash> Drop for HubSubscription<K> {
    fn drop(&mut self) {
        let mut entries = self.map.entries();
        if let Some(entry) = entries.by_key.get_mut(&self.key)
            && entry.ticks.subscribe().same_channel(&self.ticks)
        {
            entry.subscriptions -= 1;
            if entry.subscriptions == 0 {
                entries.by_key.remove(&self.key);
            }
        }
    }
}

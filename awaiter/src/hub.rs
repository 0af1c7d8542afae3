//! The change hub: a tick for each process that somebody watches.
//!
//! It carries no data and knows no registry: a tick means "read again".

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry_actor::domain::ProcessId;
use registry_actor::port::{ChangeSource, CommitListener, CommittedBatch};
use tokio::sync::watch;

/// Ticks by process. Clones are one hub.
///
/// An entry lives exactly as long as it has subscriptions, however they end.
#[derive(Clone, Default)]
pub struct ProcessChangeHub {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    entries: Mutex<Entries>,
    source: Mutex<Option<ChangeSource>>,
}

#[derive(Default)]
struct Entries {
    closed: bool,
    by_process: HashMap<ProcessId, Entry>,
}

struct Entry {
    ticks: watch::Sender<u64>,
    subscriptions: usize,
}

impl ProcessChangeHub {
    /// A hub that is ticked by hand.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A hub that is ticked by every commit of a source.
    #[must_use]
    pub fn attached_to(source: &ChangeSource) -> Self {
        let hub = Self::new();
        *hub.shared.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source.clone());
        let listener: Arc<dyn CommitListener> = Arc::clone(&hub.shared) as Arc<dyn CommitListener>;
        source.attach(&listener);
        hub
    }

    /// Whether every commit of this source ticks the hub, so that a waiter need not poll.
    #[must_use]
    pub fn is_attached_to(&self, source: &ChangeSource) -> bool {
        let own = self.shared.source.lock().unwrap_or_else(PoisonError::into_inner);
        own.as_ref().is_some_and(|own| own.is_same_source(source))
    }

    /// Watches a process. The subscription has seen all ticks so far: subscribe first, then read.
    #[must_use]
    pub fn subscribe(&self, process_id: &ProcessId) -> HubSubscription {
        let mut entries = self.shared.entries();
        let entry = entries
            .by_process
            .entry(process_id.clone())
            .or_insert_with(|| Entry { ticks: watch::Sender::new(0), subscriptions: 0 });
        entry.subscriptions += 1;
        let ticks = entry.ticks.subscribe();
        if entries.closed {
            entries.by_process.remove(process_id);
        }
        drop(entries);
        HubSubscription { shared: Arc::clone(&self.shared), process_id: process_id.clone(), ticks }
    }

    /// Ticks a process. Ticks that nobody has seen yet are one.
    pub fn notify(&self, process_id: &ProcessId) {
        self.shared.tick(process_id);
    }

    /// How many processes are watched.
    #[must_use]
    pub fn watched_processes(&self) -> usize {
        self.shared.entries().by_process.len()
    }
}

impl fmt::Debug for ProcessChangeHub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProcessChangeHub").field("watched_processes", &self.watched_processes()).finish()
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, process_id: &ProcessId) {
        if let Some(entry) = self.entries().by_process.get(process_id) {
            entry.ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
        }
    }
}

impl CommitListener for Shared {
    fn committed(&self, batches: &[CommittedBatch]) {
        for batch in batches {
            self.tick(&batch.process_id);
        }
    }

    fn resync(&self) {
        for entry in self.entries().by_process.values() {
            entry.ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
        }
    }

    /// Dropping the senders wakes every waiter, which then sees that its source has ended.
    fn closed(&self) {
        let mut entries = self.entries();
        entries.closed = true;
        entries.by_process.clear();
    }
}

/// One watch of one process. Its drop releases the entry.
pub struct HubSubscription {
    shared: Arc<Shared>,
    process_id: ProcessId,
    ticks: watch::Receiver<u64>,
}

/// The hub's source has ended: no tick will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubClosed;

impl HubSubscription {
    /// Waits for a tick after the last one seen. May be dropped at any time; a tick is not lost by it.
    pub(crate) async fn ticked(&mut self) -> Result<(), HubClosed> {
        self.ticks.changed().await.map_err(|_| HubClosed)
    }

    /// Whether a tick came that no wait has answered yet.
    #[must_use]
    pub fn has_ticked(&self) -> bool {
        self.ticks.has_changed().unwrap_or(true)
    }
}

impl fmt::Debug for HubSubscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HubSubscription").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

impl Drop for HubSubscription {
    fn drop(&mut self) {
        let mut entries = self.shared.entries();
        if let Some(entry) = entries.by_process.get_mut(&self.process_id)
            && entry.ticks.subscribe().same_channel(&self.ticks)
        {
            entry.subscriptions -= 1;
            if entry.subscriptions == 0 {
                entries.by_process.remove(&self.process_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ProcessId {
        ProcessId::new(text).expect("an id")
    }

    #[tokio::test]
    async fn a_tick_between_subscription_and_wait_is_not_lost() {
        let hub = ProcessChangeHub::new();
        let mut subscription = hub.subscribe(&id("a"));
        assert!(!subscription.has_ticked(), "a fresh subscription has seen everything so far");
        hub.notify(&id("a"));
        hub.notify(&id("b"));
        assert!(subscription.has_ticked());
        assert_eq!(subscription.ticked().await, Ok(()));
        assert!(!subscription.has_ticked(), "ticks coalesce");
    }

    /// With the peer an entry whose last subscriber went away without a later notify stayed for ever.
    #[test]
    fn an_entry_goes_with_its_last_subscription() {
        let hub = ProcessChangeHub::new();
        let first = hub.subscribe(&id("a"));
        let second = hub.subscribe(&id("a"));
        assert_eq!(hub.watched_processes(), 1);
        drop(first);
        assert_eq!(hub.watched_processes(), 1);
        drop(second);
        assert_eq!(hub.watched_processes(), 0);
    }

    #[tokio::test]
    async fn a_source_that_ends_wakes_everybody_and_stays_ended() {
        let source = ChangeSource::default();
        let hub = ProcessChangeHub::attached_to(&source);
        let mut before = hub.subscribe(&id("a"));
        source.close();
        assert_eq!(before.ticked().await, Err(HubClosed));
        let mut after = hub.subscribe(&id("a"));
        assert_eq!(after.ticked().await, Err(HubClosed));
        drop((before, after));
        assert_eq!(hub.watched_processes(), 0);
    }

    #[test]
    fn a_resync_ticks_every_entry() {
        let source = ChangeSource::default();
        let hub = ProcessChangeHub::attached_to(&source);
        let subscriptions = [hub.subscribe(&id("a")), hub.subscribe(&id("b"))];
        for listener in source.listeners() {
            listener.resync();
        }
        assert!(subscriptions.iter().all(HubSubscription::has_ticked));
    }
}

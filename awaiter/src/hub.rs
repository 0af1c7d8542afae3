//! The change hub: a tick for each process and for the wakes of each session scope that somebody watches.
//!
//! It carries no data and knows no registry: a tick means "read again".

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use registry_actor::domain::{ProcessId, SessionScope, Tombstone};
use registry_actor::port::{ChangeSource, CommitListener, CommittedBatch};

use crate::tick_map::{HubSubscription, TickMap};

/// Ticks by process, and by target of wakes. Clones are one hub.
///
/// An entry lives exactly as long as it has subscriptions, however they end.
#[derive(Clone, Default)]
pub struct ProcessChangeHub {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    processes: Arc<TickMap<ProcessId>>,
    targets: Arc<TickMap<SessionScope>>,
    source: Mutex<Option<ChangeSource>>,
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
    pub fn subscribe(&self, process_id: &ProcessId) -> HubSubscription<ProcessId> {
        self.shared.processes.subscribe(process_id)
    }

    /// Watches the wakes of exactly this target: a tick means that there may be a new pending one. Subscribe first, then
    /// read.
    #[must_use]
    pub fn subscribe_wakes(&self, target: &SessionScope) -> HubSubscription<SessionScope> {
        self.shared.targets.subscribe(target)
    }

    /// Ticks a process. Ticks that nobody has seen yet are one.
    pub fn notify(&self, process_id: &ProcessId) {
        self.shared.processes.tick(process_id);
    }

    /// Ticks a target of wakes.
    pub fn notify_wakes(&self, target: &SessionScope) {
        self.shared.targets.tick(target);
    }

    /// Ticks every target of wakes: somebody may have been woken, and nobody knows who.
    pub(crate) fn notify_all_wakes(&self) {
        self.shared.targets.tick_all();
    }

    /// How many processes are watched.
    #[must_use]
    pub fn watched_processes(&self) -> usize {
        self.shared.processes.len()
    }

    /// How many targets of wakes are watched.
    #[must_use]
    pub fn watched_targets(&self) -> usize {
        self.shared.targets.len()
    }
}

impl fmt::Debug for ProcessChangeHub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProcessChangeHub")
            .field("watched_processes", &self.watched_processes())
            .field("watched_targets", &self.watched_targets())
            .finish()
    }
}

impl CommitListener for Shared {
    fn committed(&self, batches: &[CommittedBatch]) {
        for batch in batches {
            self.processes.tick(&batch.process_id);
            batch.woken.iter().for_each(|target| self.targets.tick(target));
        }
    }

    /// A prune is no change of a process and does not tick, as with the peer. Whoever has to learn of it parks in the
    /// source, as an awaiter does.
    fn pruned(&self, _tombstones: &[Tombstone]) {}

    fn resync(&self) {
        self.processes.tick_all();
        self.targets.tick_all();
    }

    fn closed(&self) {
        self.processes.close();
        self.targets.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick_map::HubClosed;

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

    /// A waker may do anything, also subscribe: it is called outside of the hub's lock.
    #[test]
    fn a_waker_may_subscribe() {
        struct Subscribing(ProcessChangeHub);
        impl std::task::Wake for Subscribing {
            fn wake(self: Arc<Self>) {
                drop(self.0.subscribe(&id("a")));
            }
        }
        let source = ChangeSource::default();
        let hub = ProcessChangeHub::attached_to(&source);
        let waker = std::task::Waker::from(Arc::new(Subscribing(hub.clone())));
        let ticks: [&dyn Fn(); 3] = [&|| hub.notify(&id("a")), &|| hub.shared.resync(), &|| source.close()];
        for tick in ticks {
            let mut subscription = hub.subscribe(&id("a"));
            let mut ticked = Box::pin(subscription.ticked());
            assert!(ticked.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            tick();
            assert!(ticked.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready());
        }
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

    #[test]
    fn a_commit_ticks_its_process_and_whom_it_woke() {
        let source = ChangeSource::default();
        let hub = ProcessChangeHub::attached_to(&source);
        let frame = SessionScope::frame("s", "f");
        let (process, other) = (hub.subscribe(&id("a")), hub.subscribe(&id("b")));
        let (woken, session) = (hub.subscribe_wakes(&frame), hub.subscribe_wakes(&SessionScope::session("s")));
        let record = serde_json::from_value(serde_json::json!({
            "registration": {
                "id": "a", "input": { "kind": "k" }, "disposition": "rerunnable", "identity": { "kind": "k" }
            },
            "registration_hash": "v1:", "created_at_ms": 0, "updated_at_ms": 0,
        }));
        let batch = CommittedBatch {
            process_id: id("a"),
            record: record.expect("a record"),
            events: Vec::new(),
            woken: vec![frame],
        };
        for listener in source.listeners() {
            listener.committed(std::slice::from_ref(&batch));
        }
        assert!(process.has_ticked() && woken.has_ticked());
        assert!(!other.has_ticked() && !session.has_ticked(), "a frame is not its session");
        drop((woken, session));
        assert_eq!(hub.watched_targets(), 0);
    }
}

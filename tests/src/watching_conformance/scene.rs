//! What a case is given: a registry that is not watched yet, and means to know that everything was heard.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use awaiter::{HubSubscription, ProcessAwaiter, ProcessChangeHub, watch_process_registry_with_sink};
use registry_actor::domain::{ProcessAwaitOutput, ProcessEvent, ProcessId};
use registry_actor::port::{ProcessEventSink, ProcessRegistry, ProcessRegistryExt};
use serde_json::json;

use super::beneath::Beneath;
use super::recording_sink::RecordingSink;
use crate::example_process::{note, process_id, registration};
use crate::manual_clock::ManualClock;
use crate::registry_backend::{OpenRegistry, RegistryBackend};

/// A test that waits longer has failed. It is the measure of none.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a case is played on.
pub struct Scene {
    /// The registry under what is watched.
    pub beneath: Arc<Beneath>,
    /// Where it takes time from.
    pub clock: Arc<ManualClock>,
    backend: RegistryBackend,
    open: OpenRegistry,
    markers: AtomicUsize,
}

/// A registry, watched.
pub struct Watched {
    /// What the cases call.
    pub registry: Arc<dyn ProcessRegistry>,
    /// What ticks.
    pub hub: ProcessChangeHub,
}

impl Scene {
    /// An empty store of this backend.
    pub async fn empty(mut backend: RegistryBackend) -> Self {
        let clock = Arc::new(ManualClock::default());
        let open = backend.open(&clock).await;
        let beneath = Arc::new(Beneath::new(Arc::clone(&open.registry)));
        Self { beneath, clock, backend, open, markers: AtomicUsize::new(0) }
    }

    /// Ends the registry.
    pub async fn close(self) {
        self.open.close().await;
    }

    /// Whether the registry is listened to, and not wrapped.
    #[must_use]
    pub const fn tells_commits(&self) -> bool {
        self.backend.tells_changes()
    }

    pub(super) fn port(&self) -> Arc<dyn ProcessRegistry> {
        Arc::clone(&self.beneath) as Arc<dyn ProcessRegistry>
    }

    pub(super) fn watch(&self) -> Watched {
        let (registry, hub) = watch_process_registry_with_sink(self.port(), None);
        Watched { registry, hub }
    }

    pub(super) fn watch_with(&self, sink: &Arc<RecordingSink>) -> Watched {
        let sink = Arc::clone(sink) as Arc<dyn ProcessEventSink>;
        let (registry, hub) = watch_process_registry_with_sink(self.port(), Some(sink));
        Watched { registry, hub }
    }

    /// That a call which has returned has ticked. A wrapper ticks before it returns; a source is heard soon after.
    ///
    /// # Panics
    /// If it has not.
    pub(super) async fn assert_ticked<K>(&self, subscription: &mut HubSubscription<K>, what: &str)
    where
        K: Clone + Ord + Hash,
    {
        assert!(self.tells_commits() || subscription.has_ticked(), "{what} has not ticked");
        let ticked = tokio::time::timeout(PATIENCE, subscription.ticked()).await;
        ticked.unwrap_or_else(|_| panic!("{what} has not ticked")).expect("the registry lives");
    }

    /// Waits until everything that was committed before has ticked: commits are heard in order.
    pub(super) async fn all_ticked(&self, watched: &Watched) {
        let marker = self.next_marker();
        let mut ticked = watched.hub.subscribe(&marker);
        watched.registry.register_process(registration(&marker)).await.expect("a marker");
        self.assert_ticked(&mut ticked, "a marker").await;
    }

    /// What a sink was told in all, once everything that was committed before was told.
    pub(super) async fn all_emitted(&self, watched: &Watched, sink: &RecordingSink) -> Vec<Arc<ProcessEvent>> {
        let marker = self.next_marker();
        watched.registry.register_process(registration(&marker)).await.expect("a marker");
        watched.registry.append_event(&marker, note(1)).await.expect("an append");
        let is_marker = |event: &Arc<ProcessEvent>| event.process_id == marker;
        let mut told = 1;
        loop {
            let events = tokio::time::timeout(PATIENCE, sink.events(told)).await.expect("the marker is told");
            if events.iter().any(is_marker) {
                return events.into_iter().filter(|event| !event.process_id.as_str().starts_with("marker")).collect();
            }
            told = events.len() + 1;
        }
    }

    fn next_marker(&self) -> ProcessId {
        process_id(&format!("marker {}", self.markers.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Watched {
    pub(super) fn awaiter(&self) -> ProcessAwaiter {
        ProcessAwaiter::new(Arc::clone(&self.registry), self.hub.clone())
    }

    pub(super) async fn registered(&self, id: &str) -> ProcessId {
        registered(&*self.registry, id).await
    }

    pub(super) async fn completed(&self, id: &str) -> ProcessId {
        let id = self.registered(id).await;
        self.registry.complete_process(&id, success(1)).await.expect("an outcome");
        id
    }
}

pub(super) async fn registered(registry: &dyn ProcessRegistry, id: &str) -> ProcessId {
    let id = process_id(id);
    registry.register_process(registration(&id)).await.expect("a registration");
    id
}

pub(super) fn success(value: u64) -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!({ "value": value }))
}

pub(super) fn sequences(events: &[Arc<ProcessEvent>]) -> Vec<u64> {
    events.iter().map(|event| event.sequence.0).collect()
}

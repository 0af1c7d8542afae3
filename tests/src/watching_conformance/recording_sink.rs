//! A sink that keeps what it is told.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use awaiter::HubSubscription;
use registry_actor::domain::{ProcessEvent, ProcessId, Tombstone};
use registry_actor::port::{CommitListener, CommittedBatch, ProcessEventSink, is_emitted};
use tokio::sync::watch;

/// Keeps what it is told, whichever way.
pub struct RecordingSink {
    kept: Arc<Kept>,
    hears_commits: bool,
}

struct Kept {
    events: watch::Sender<Vec<Arc<ProcessEvent>>>,
    /// Which events are not lost.
    keeps: fn(&ProcessEvent) -> bool,
    /// Has to have ticked when an event comes.
    ticks_first: Mutex<Option<HubSubscription<ProcessId>>>,
}

impl RecordingSink {
    /// One that hears the commits of a registry that tells of them.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { kept: Kept::keeping(|_| true), hears_commits: true })
    }

    /// One that has to be told by whoever appends.
    pub(super) fn told_by_callers() -> Arc<Self> {
        Arc::new(Self { kept: Kept::keeping(|_| true), hears_commits: false })
    }

    /// One that loses what it does not keep.
    pub(super) fn keeping(keeps: fn(&ProcessEvent) -> bool) -> Arc<Self> {
        Arc::new(Self { kept: Kept::keeping(keeps), hears_commits: true })
    }

    /// From now on an event must find that this has ticked.
    pub(super) fn demand_a_tick_first(&self, subscription: HubSubscription<ProcessId>) {
        *self.kept.ticks_first.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscription);
    }

    /// Waits until so many events came.
    pub(super) async fn events(&self, count: usize) -> Vec<Arc<ProcessEvent>> {
        let mut events = self.kept.events.subscribe();
        events.wait_for(|events| events.len() >= count).await.expect("the sink lives").clone()
    }

    pub(super) fn so_far(&self) -> Vec<Arc<ProcessEvent>> {
        self.kept.events.borrow().clone()
    }
}

impl Kept {
    fn keeping(keeps: fn(&ProcessEvent) -> bool) -> Arc<Self> {
        Arc::new(Self { events: watch::Sender::default(), keeps, ticks_first: Mutex::default() })
    }

    fn keep(&self, event: &Arc<ProcessEvent>) {
        let ticks_first = self.ticks_first.lock().unwrap_or_else(PoisonError::into_inner);
        let in_order = ticks_first.as_ref().is_none_or(HubSubscription::has_ticked);
        if (self.keeps)(event) && in_order {
            self.events.send_modify(|events| events.push(Arc::clone(event)));
        }
    }
}

#[async_trait]
impl ProcessEventSink for RecordingSink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        self.kept.keep(event);
    }

    fn commit_listener(&self) -> Option<Arc<dyn CommitListener>> {
        self.hears_commits.then(|| Arc::clone(&self.kept) as Arc<dyn CommitListener>)
    }
}

impl CommitListener for Kept {
    fn committed(&self, batches: &[CommittedBatch]) {
        let events = batches.iter().flat_map(|batch| &batch.events);
        events.filter(|event| is_emitted(event)).for_each(|event| self.keep(event));
    }

    fn pruned(&self, _tombstones: &[Tombstone]) {}

    fn resync(&self) {}

    fn closed(&self) {}
}

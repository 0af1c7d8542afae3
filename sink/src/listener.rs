//! The end of a line that hears a registry's commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use registry_actor::domain::{ProcessEvent, Sequence, Tombstone};
use registry_actor::port::{CommitListener, CommittedBatch, is_emitted};

use crate::line::Line;

/// Which events of a registry a sink is told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SinkEvents {
    /// Those that hosts appended, and not the end of a process: [`is_emitted`].
    #[default]
    Appended,
    /// All that pages of events return: the registry's own facts and the end too, the registration not.
    All,
}

impl SinkEvents {
    fn includes(self, event: &ProcessEvent) -> bool {
        match self {
            Self::Appended => is_emitted(event),
            Self::All => event.sequence > Sequence(0),
        }
    }
}

/// Hands over what a source of commits tells.
#[derive(Debug)]
pub(crate) struct SinkListener {
    line: Arc<Line>,
    events: SinkEvents,
    /// How many sources it was attached to.
    begun: AtomicUsize,
    /// How many of them have ended.
    ended: AtomicUsize,
}

impl SinkListener {
    pub(crate) fn new(line: Arc<Line>, events: SinkEvents) -> Arc<Self> {
        Arc::new(Self { line, events, begun: AtomicUsize::new(0), ended: AtomicUsize::new(0) })
    }

    /// Whether it was attached to a source, and every source that it was attached to has ended.
    pub(crate) fn source_has_ended(&self) -> bool {
        // The ended ones first: one that begins and ends between the two looks then counts as begun only.
        let ended = self.ended.load(Ordering::SeqCst);
        ended > 0 && ended >= self.begun.load(Ordering::SeqCst)
    }
}

impl CommitListener for SinkListener {
    fn attached(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    fn committed(&self, batches: &[CommittedBatch]) {
        let events = batches.iter().flat_map(|batch| &batch.events).filter(|event| self.events.includes(event));
        self.line.offer(events);
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        self.line.prune(tombstones);
    }

    fn resync(&self) {
        self.line.resync();
    }

    fn closed(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        self.line.ring();
    }
}

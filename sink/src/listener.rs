//! The end of a line that hears a registry's commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    source_ended: AtomicBool,
}

impl SinkListener {
    pub(crate) fn new(line: Arc<Line>, events: SinkEvents) -> Arc<Self> {
        Arc::new(Self { line, events, source_ended: AtomicBool::new(false) })
    }

    pub(crate) fn source_has_ended(&self) -> bool {
        self.source_ended.load(Ordering::SeqCst)
    }

    /// Another source is attached.
    pub(crate) fn begin_source(&self) {
        self.source_ended.store(false, Ordering::SeqCst);
    }
}

impl CommitListener for SinkListener {
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
        self.source_ended.store(true, Ordering::SeqCst);
        self.line.ring();
    }
}

//! Observers of events: best effort, and never in the way of an append.

use std::sync::Arc;

use async_trait::async_trait;

use super::change::CommitListener;
use crate::domain::{CoreEventType, ProcessEvent, ProcessId, Sequence, Tombstone};

/// Watches events as they are appended.
///
/// # Contract
/// 1. A sink is told after the commit. It cannot fail the write, and it cannot take it back.
/// 2. It hears [`is_emitted`] events only, unless it was installed to hear all.
/// 3. As long as the registry lives, delivery is at least once: each event is emitted, or known to be missing and told as
///    [`MissedEvents`] before the next event of that process. A sink can see an event twice: where whoever tells of commits
///    dies between telling and noting that it has told, its successor tells the same events once more. Whoever must
///    count each once goes by the sequence, or stands behind a catch-up that does.
/// 4. Nothing is told again after a crash of the host, and what it had not been told by then is not told at all.
/// 5. Events of one process come in the order of their sequences; a repetition begins at an earlier one and goes on from there.
/// 6. Nobody waits for an outcome here. The log has all events; a sink reconciles itself from pages of it.
#[async_trait]
pub trait ProcessEventSink: Send + Sync {
    /// An event.
    async fn emit(&self, event: &Arc<ProcessEvent>);

    /// Several events at once; by default one after the other. Whoever writes this says so by
    /// [`batch_limit`](Self::batch_limit).
    async fn emit_batch(&self, events: &[Arc<ProcessEvent>]) {
        for event in events {
            self.emit(event).await;
        }
    }

    /// How many events [`emit_batch`](Self::emit_batch) takes at once. With 1 each event is emitted by itself.
    fn batch_limit(&self) -> usize {
        1
    }

    /// Events that were not delivered and will not be.
    async fn missed(&self, missed: &MissedEvents) {
        let _ = missed;
    }

    /// A process was pruned. If its id lives again, its events are numbered from 1 again.
    async fn pruned(&self, tombstone: &Tombstone) {
        let _ = tombstone;
    }

    /// The end of this sink that hears a registry's own source of changes, if it has one. A sink without one is told of
    /// events by whoever appends them.
    fn commit_listener(&self) -> Option<Arc<dyn CommitListener>> {
        None
    }
}

/// Events that a sink was not told of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MissedEvents {
    /// Of one process. The bounds are inclusive; not every number between them needs to be an emitted event.
    Of {
        /// The process.
        process_id: ProcessId,
        /// The first event that is missing.
        from: Sequence,
        /// The last event that is missing.
        to: Sequence,
    },
    /// Of any process: nobody knows which.
    Unknown,
}

/// Whether an event is one that sinks are told of: one that a host appended, and not the end of its process.
#[must_use]
pub fn is_emitted(event: &ProcessEvent) -> bool {
    let is_internal = event.core_type().is_some_and(|core| CoreEventType::INTERNAL.contains(&core));
    !is_internal && event.semantics.terminal.is_none()
}

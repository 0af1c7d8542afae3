//! The state of one process, as far as deciding needs it.

use std::sync::Arc;

use super::{LeaseRow, ProcessId, ProcessRecord, Refusal, ReplayWindow, Sequence};

/// What [`decide`](fn@super::decide) looks at. A clone is cheap: commands are decided on a scratch copy, which takes
/// the place of the state only when its events are durable.
#[derive(Debug, Clone)]
pub struct ProcessState {
    /// The process.
    pub process_id: ProcessId,
    /// Its record; absent before registration.
    pub record: Option<Arc<ProcessRecord>>,
    /// Sequence of its last event; meaningless before registration.
    pub sequence: Sequence,
    /// Sequence of the last event that changed more of the record than `updated_at_ms`.
    pub body_sequence: Sequence,
    /// How many lives of the id were pruned.
    pub pruned_generations: u32,
    /// Its lease row.
    pub lease: Arc<LeaseRow>,
    /// What is known of its replay keys.
    pub replays: ReplayWindow,
}

impl ProcessState {
    /// The state of a process that is not registered.
    #[must_use]
    pub fn unregistered(process_id: ProcessId) -> Self {
        Self {
            process_id,
            record: None,
            sequence: Sequence::REGISTRATION,
            body_sequence: Sequence::REGISTRATION,
            pruned_generations: 0,
            lease: Arc::default(),
            replays: ReplayWindow::complete(),
        }
    }

    /// The record of a registered process.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] before registration.
    pub fn registered(&self) -> Result<&Arc<ProcessRecord>, Refusal> {
        self.record.as_ref().ok_or_else(|| Refusal::Unknown { process_id: self.process_id.clone() })
    }

    /// The sequence of the next event.
    #[must_use]
    pub const fn next_sequence(&self) -> Sequence {
        if self.record.is_none() { Sequence::REGISTRATION } else { self.sequence.next() }
    }
}

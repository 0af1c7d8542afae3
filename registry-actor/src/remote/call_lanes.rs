//! How many calls may be under way, in two lanes: a flood of reads and output must not cost a healthy run its lease, at either
//! end of the line as in the log behind it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::message::Call;

/// One bound for urgent commands, and one of the same size for everything else.
pub(super) struct CallLanes {
    urgent: Arc<Semaphore>,
    plain: Arc<Semaphore>,
}

impl CallLanes {
    pub(super) fn new(limit: usize) -> Self {
        let lane = || Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)));
        Self { urgent: lane(), plain: lane() }
    }

    /// The lane of a call.
    pub(super) const fn of(&self, call: &Call) -> &Arc<Semaphore> {
        match call {
            Call::Execute { command, .. } if command.is_urgent() => &self.urgent,
            Call::Execute { .. } | Call::ExecuteAcross { .. } | Call::Query { .. } => &self.plain,
        }
    }
}

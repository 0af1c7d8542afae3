//! What all actors of one registry share.

use std::sync::Arc;

use super::directory::Directory;
use super::options::RegistryOptions;
use crate::domain::{DecisionContext, ObservedProcess, OperationId, ProcessId};
use crate::port::{FaultPoint, ProcessLog};

/// What all actors of one registry share.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) log: Arc<dyn ProcessLog>,
    pub(super) options: RegistryOptions,
    pub(super) directory: Directory,
    /// Zero of the scale on which restarts and idleness are measured; under a paused runtime it stands still too.
    started: tokio::time::Instant,
}

impl Environment {
    pub(super) fn new(log: Arc<dyn ProcessLog>, options: RegistryOptions) -> Self {
        Self { log, options, directory: Directory::default(), started: tokio::time::Instant::now() }
    }

    pub(super) fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn reached(&self, point: FaultPoint, process_id: &ProcessId) {
        self.options.faults.reached(point, process_id);
    }

    pub(super) fn context(&self, operation: OperationId, observed: ObservedProcess) -> DecisionContext {
        let now = self.options.clock.now();
        DecisionContext {
            epoch_ms: now.epoch_ms,
            monotonic_ms: now.monotonic_ms,
            session: self.log.session().clone(),
            operation,
            observed,
            wake: None,
            unfenced_writes: self.options.unfenced_writes,
        }
    }

    pub(super) fn shard_of(&self, process_id: &ProcessId) -> usize {
        process_id.shard_of(self.options.shards)
    }
}

//! Tombstones: what is left of a pruned process. No payload, so that retention can be about payloads.

use serde::{Deserialize, Serialize};

use super::{ProcessId, ProcessTerminalState};

/// What is left of a pruned process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The process.
    pub process_id: ProcessId,
    /// Which life of the id this was, from 1.
    pub generation: u32,
    /// How it ended.
    pub terminal_state: ProcessTerminalState,
    /// When it was registered, in ms since the Unix epoch.
    pub created_at_ms: u64,
    /// When it ended, in ms since the Unix epoch.
    pub terminal_at_ms: u64,
    /// When it was pruned, in ms since the Unix epoch.
    pub pruned_at_ms: u64,
}

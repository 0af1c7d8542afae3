//! What a running process waits for: a facet for people and recovery, never a status.

use serde::{Deserialize, Serialize};

use super::{ProcessId, ProcessSignal};

/// That a running process waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitState {
    /// For what.
    pub kind: WaitKind,
    /// Since when, in ms since the Unix epoch.
    pub since_ms: u64,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitKind {
    /// The nth signal of a name.
    Signal {
        /// Name of the signal.
        name: String,
        /// Type of its events: `signal.{name}`.
        event_type: String,
        /// Key of this wait: `process:{process}:signal.{name}:{ordinal}`.
        key: String,
        /// Which signal of the name, counted from 1.
        ordinal: u64,
    },
}

impl WaitState {
    /// A wait for the nth signal of a name.
    #[must_use]
    pub fn signal(process_id: &ProcessId, signal: &ProcessSignal, ordinal: u64, since_ms: u64) -> Self {
        Self {
            kind: WaitKind::Signal {
                name: signal.name().to_owned(),
                event_type: signal.event_type(),
                key: signal.wait_key(process_id, ordinal),
                ordinal,
            },
            since_ms,
        }
    }
}

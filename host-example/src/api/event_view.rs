//! An event as the API shows it.

use registry_actor::domain::ProcessEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An event of a process.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// Its process.
    pub(crate) process_id: String,
    /// Its place in the process's log, from 1.
    pub(crate) sequence: u64,
    /// Its type.
    pub(crate) event_type: String,
    /// What it says.
    #[schema(value_type = Value)]
    pub(crate) payload: Value,
    /// When it was stored, in ms since the Unix epoch.
    pub(crate) occurred_at_ms: u64,
    /// What makes one event of several sendings, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replay_key: Option<String>,
    /// Whether it came after the end of its process.
    pub(crate) late: bool,
}

impl EventView {
    /// The view of an event.
    pub(crate) fn new(event: &ProcessEvent) -> Self {
        Self {
            process_id: event.process_id.to_string(),
            sequence: event.sequence.0,
            event_type: event.event_type.to_string(),
            payload: event.payload.clone(),
            occurred_at_ms: event.occurred_at_ms,
            replay_key: event.replay_key.as_ref().map(ToString::to_string),
            late: event.late,
        }
    }
}

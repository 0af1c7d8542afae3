//! A sink that writes log lines.

use std::sync::Arc;

use async_trait::async_trait;
use registry_actor::domain::{ProcessEvent, Tombstone};
use registry_actor::port::{MissedEvents, ProcessEventSink};

/// Logs each event through `tracing`, at the level INFO and the target `sink::tracing_sink`, and gaps as warnings.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingSink {
    payloads: LoggedPayloads,
}

/// How much of payloads is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoggedPayloads {
    /// Nothing: payloads may hold secrets, and logs travel far.
    #[default]
    Withheld,
    /// Their size as JSON, in bytes.
    Size,
    /// All of them.
    Whole,
}

impl TracingSink {
    /// Logs no payloads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs so much of payloads.
    #[must_use]
    pub const fn with_payloads(payloads: LoggedPayloads) -> Self {
        Self { payloads }
    }
}

#[async_trait]
impl ProcessEventSink for TracingSink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        let (process_id, sequence, event_type) = (&event.process_id, event.sequence.0, &*event.event_type);
        match self.payloads {
            LoggedPayloads::Withheld => tracing::info!(%process_id, sequence, event_type, "event"),
            LoggedPayloads::Size => {
                let payload_bytes = event.payload.to_string().len();
                tracing::info!(%process_id, sequence, event_type, payload_bytes, "event");
            }
            LoggedPayloads::Whole => {
                tracing::info!(%process_id, sequence, event_type, payload = %event.payload, "event");
            }
        }
    }

    async fn missed(&self, missed: &MissedEvents) {
        match missed {
            MissedEvents::Of { process_id, from, to } => {
                tracing::warn!(%process_id, from = from.0, to = to.0, "events of a process were missed");
            }
            MissedEvents::Unknown => tracing::warn!("events of unknown processes were missed"),
        }
    }

    async fn pruned(&self, tombstone: &Tombstone) {
        let (process_id, generation) = (&tombstone.process_id, tombstone.generation);
        tracing::info!(%process_id, generation, "process pruned");
    }
}

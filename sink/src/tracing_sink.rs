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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    use serde_json::json;

    use super::*;
    use crate::testing::{event, missed, tombstone};

    /// What was logged, for the one thread of a test.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<u8>>>);

    impl Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Logged {
        fn take(&self) -> String {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
            String::from_utf8(bytes).expect("log lines are text")
        }
    }

    #[tokio::test]
    async fn events_and_gaps_are_logged_and_payloads_only_as_far_as_asked() {
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let secret = ProcessEvent { payload: json!({ "token": "hush" }), ..ProcessEvent::clone(&event("p", 7)) };
        let secret = Arc::new(secret);
        TracingSink::new().emit(&secret).await;
        let line = logged.take();
        assert!(line.contains("INFO") && line.contains("process_id=p sequence=7 event_type=\"note\""), "{line}");
        assert!(!line.contains("hush") && !line.contains("payload"), "{line}");
        TracingSink::with_payloads(LoggedPayloads::Size).emit(&secret).await;
        let line = logged.take();
        assert!(line.contains("payload_bytes=16") && !line.contains("hush"), "{line}");
        TracingSink::with_payloads(LoggedPayloads::Whole).emit(&secret).await;
        assert!(logged.take().contains(r#"payload={"token":"hush"}"#));
        TracingSink::new().missed(&missed("p", 8, 9)).await;
        let line = logged.take();
        assert!(line.contains("WARN") && line.contains("process_id=p from=8 to=9"), "{line}");
        TracingSink::new().missed(&MissedEvents::Unknown).await;
        assert!(logged.take().contains("WARN"));
        TracingSink::new().pruned(&tombstone("p")).await;
        assert!(logged.take().contains("process_id=p generation=1"));
    }
}

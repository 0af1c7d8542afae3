//! Events and tombstones for the tests of this crate.

use std::sync::Arc;

use registry_actor::domain::{ProcessEvent, ProcessId, ProcessTerminalState, Sequence, Tombstone};
use registry_actor::port::MissedEvents;
use serde_json::Value;

pub(crate) fn process(name: &str) -> ProcessId {
    ProcessId::new(name).expect("tests use proper ids")
}

pub(crate) fn event(name: &str, sequence: u64) -> Arc<ProcessEvent> {
    Arc::new(ProcessEvent {
        process_id: process(name),
        sequence: Sequence(sequence),
        event_type: Arc::from("note"),
        payload: Value::Null,
        replay_key: None,
        semantics: Default::default(),
        occurred_at_ms: 0,
        late: false,
    })
}

pub(crate) fn missed(name: &str, from: u64, to: u64) -> MissedEvents {
    MissedEvents::Of { process_id: process(name), from: Sequence(from), to: Sequence(to) }
}

pub(crate) fn tombstone(name: &str) -> Tombstone {
    Tombstone {
        process_id: process(name),
        generation: 1,
        terminal_state: ProcessTerminalState::Completed,
        created_at_ms: 0,
        terminal_at_ms: 0,
        pruned_at_ms: 0,
    }
}

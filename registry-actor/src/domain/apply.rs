//! `apply`: what an event makes of a state. Used live, in recovery and by the fold check; it never fails, never looks at
//! a clock and never evaluates a selector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    CoreEventType, ProcessEvent, ProcessRecord, ProcessRegistration, ProcessStarted, ProcessState, ProcessStatus,
    RegistrationHash,
};

/// Payload of `process.registered`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Registered {
    pub(crate) registration: Arc<ProcessRegistration>,
    pub(crate) registration_hash: RegistrationHash,
}

/// The state after the event.
///
/// Total: an internal event whose payload cannot be read, which only a damaged log can hold, moves the sequence and
/// nothing else; the chain reports the damage.
#[must_use]
pub fn apply(mut state: ProcessState, event: &Arc<ProcessEvent>) -> ProcessState {
    state.sequence = event.sequence;
    state.replays.record(event);
    let Some(record) = state.record.as_mut() else {
        state.record = registered(event);
        state.body_sequence = event.sequence;
        return state;
    };
    // An acknowledged wake says nothing about the process itself.
    let core = event.core_type();
    if core == Some(CoreEventType::WakeAcknowledged) {
        return state;
    }
    let record = Arc::make_mut(record);
    record.updated_at_ms = record.updated_at_ms.max(event.occurred_at_ms);
    if let Some(terminal) = &event.semantics.terminal
        && !record.status.is_terminal()
    {
        record.status = Arc::new(ProcessStatus::terminal(terminal.state, terminal.await_output.clone()));
        record.terminal_at_ms = Some(event.occurred_at_ms);
        state.body_sequence = event.sequence;
    }
    if core == Some(CoreEventType::FirstStarted)
        && record.first_started.is_none()
        && let Ok(started) = ProcessStarted::deserialize(&event.payload)
    {
        record.first_started = Some(Arc::new(started));
        state.body_sequence = event.sequence;
    }
    state
}

fn registered(event: &ProcessEvent) -> Option<Arc<ProcessRecord>> {
    let Registered { registration, registration_hash } = Registered::deserialize(&event.payload).ok()?;
    Some(Arc::new(ProcessRecord {
        wake_target: registration.wake_target.clone().map(Arc::new),
        registration,
        registration_hash,
        created_at_ms: event.occurred_at_ms,
        updated_at_ms: event.occurred_at_ms,
        terminal_at_ms: None,
        first_started: None,
        status: Arc::default(),
    }))
}

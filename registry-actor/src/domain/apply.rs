//! `apply`: what an event makes of a state. Used live, in recovery and by the fold check; it never fails, never looks at
//! a clock and never evaluates a selector.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::{first_generation, is_first_generation};
use super::{
    AbandonRequest, AttemptFailed, AttemptStarted, CoreEventType, ProcessAttempts, ProcessEvent, ProcessExternalRef,
    ProcessRecord, ProcessRegistration, ProcessStarted, ProcessState, ProcessStatus, RegistrationHash, WaitState,
};

/// Payload of `process.registered`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Registered {
    pub(crate) registration: Arc<ProcessRegistration>,
    pub(crate) registration_hash: RegistrationHash,
    #[serde(default = "first_generation", skip_serializing_if = "is_first_generation")]
    pub(crate) generation: u32,
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
    if project(record, core, event) {
        state.body_sequence = event.sequence;
    }
    state
}

/// What an event changes besides `updated_at_ms`; answers whether it changes anything.
fn project(record: &mut ProcessRecord, core: Option<CoreEventType>, event: &ProcessEvent) -> bool {
    let running = !record.status.is_terminal();
    if let Some(terminal) = &event.semantics.terminal
        && running
    {
        record.status = Arc::new(ProcessStatus::terminal(terminal.state, terminal.await_output.clone()));
        record.terminal_at_ms = Some(record.updated_at_ms);
        record.wait = None;
        return true;
    }
    match core {
        Some(CoreEventType::FirstStarted) => {
            set_once(&mut record.first_started, || ProcessStarted::deserialize(&event.payload).ok())
        }
        Some(CoreEventType::AttemptStarted) => {
            let started = AttemptStarted::deserialize(&event.payload).ok();
            let changes = started.is_some();
            if let Some(started) = started {
                record.attempts.begun = started.attempt;
                record.attempts.latest = Some(Arc::new(started));
            }
            changes
        }
        Some(CoreEventType::AttemptFailed) => {
            let failed = AttemptFailed::deserialize(&event.payload).ok().map(Arc::new);
            let changes = failed.is_some();
            record.attempts.failure = failed.or_else(|| record.attempts.failure.take());
            changes
        }
        Some(CoreEventType::ExternalRefSet) => {
            set_once(&mut record.external_ref, || ProcessExternalRef::deserialize(&event.payload).ok())
        }
        Some(CoreEventType::AbandonRequested) => {
            set_once(&mut record.abandon_request, || AbandonRequest::deserialize(&event.payload).ok())
        }
        // The second of each pair is what a runner appends itself; its payload is its own affair unless it is a wait.
        Some(CoreEventType::WaitSet | CoreEventType::Waiting) if running => {
            let wait = WaitState::deserialize(&event.payload).ok().filter(|wait| record.wait.as_deref() != Some(wait));
            let changes = wait.is_some();
            record.wait = wait.map(Arc::new).or_else(|| record.wait.take());
            changes
        }
        Some(CoreEventType::WaitCleared | CoreEventType::Resumed) => record.wait.take().is_some(),
        Some(CoreEventType::WakeTargetCleared) => record.wake_target.take().is_some(),
        _ => false,
    }
}

fn set_once<T>(fact: &mut Option<Arc<T>>, read: impl FnOnce() -> Option<T>) -> bool {
    if fact.is_none() {
        *fact = read().map(Arc::new);
        return fact.is_some();
    }
    false
}

fn registered(event: &ProcessEvent) -> Option<Arc<ProcessRecord>> {
    let Registered { registration, registration_hash, generation } = Registered::deserialize(&event.payload).ok()?;
    Some(Arc::new(ProcessRecord {
        wake_target: registration.wake_target.clone().map(Arc::new),
        registration,
        registration_hash,
        generation,
        created_at_ms: event.occurred_at_ms,
        updated_at_ms: event.occurred_at_ms,
        terminal_at_ms: None,
        first_started: None,
        attempts: ProcessAttempts::default(),
        external_ref: None,
        abandon_request: None,
        wait: None,
        status: Arc::default(),
    }))
}

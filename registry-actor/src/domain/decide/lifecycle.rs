//! Registration and first start.

use std::sync::Arc;

use super::super::apply::Registered;
use super::super::event::fact_key;
use super::super::{
    CoreEventType, ProcessEvent, ProcessEventSemantics, ProcessRegistration, ProcessStarted, ProcessState,
    ReceiptEvent, Refusal, ReplayKey, WriteAuthority,
};
use super::{Decision, DecisionContext, sole_writer};

pub(super) fn register(
    state: &ProcessState,
    registration: &ProcessRegistration,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    if registration.id != state.process_id {
        return Err(Refusal::MisroutedRegistration {
            expected: state.process_id.clone(),
            found: registration.id.clone(),
        });
    }
    let (prepared, registration_hash) = registration.clone().prepare()?;
    if let Some(record) = &state.record {
        return if record.registration_hash == registration_hash {
            Ok(Decision::default())
        } else {
            Err(Refusal::RegistrationConflict {
                process_id: state.process_id.clone(),
                stored: record.registration_hash.clone(),
                offered: registration_hash,
            })
        };
    }
    let generation = state.pruned_generations.saturating_add(1);
    let fact = Registered { registration: Arc::new(prepared), registration_hash, generation };
    let payload = serde_json::to_value(&fact).map_err(|error| Refusal::RegistrationHasNoJson {
        process_id: state.process_id.clone(),
        reason: error.to_string(),
    })?;
    Ok(inserted(internal_event(state, CoreEventType::Registered, payload, None, context)))
}

pub(super) fn record_first_started(
    state: &ProcessState,
    started: &ProcessStarted,
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    if let Some(existing) = record.status.await_output() {
        return Err(Refusal::AlreadyTerminal {
            process_id: state.process_id.clone(),
            existing: Box::new(existing.clone()),
        });
    }
    sole_writer(state, authority, context)?;
    if record.first_started.is_some() {
        return Ok(Decision::default());
    }
    started.owner.check()?;
    let key = fact_key(&state.process_id, CoreEventType::FirstStarted, None);
    let payload = serde_json::json!({ "owner": started.owner, "started_at_ms": started.started_at_ms });
    Ok(inserted(internal_event(state, CoreEventType::FirstStarted, payload, key, context)))
}

pub(super) fn internal_event(
    state: &ProcessState,
    core: CoreEventType,
    payload: serde_json::Value,
    replay_key: Option<ReplayKey>,
    context: &DecisionContext,
) -> ProcessEvent {
    ProcessEvent {
        process_id: state.process_id.clone(),
        sequence: state.next_sequence(),
        event_type: Arc::from(core.name()),
        payload,
        replay_key,
        semantics: ProcessEventSemantics::default(),
        occurred_at_ms: context.epoch_ms,
        late: state.record.as_ref().is_some_and(|record| record.status.is_terminal()),
    }
}

pub(super) fn inserted(event: ProcessEvent) -> Decision {
    let event = Arc::new(event);
    let mut decision = Decision { events: vec![Arc::clone(&event)], ..Decision::default() };
    decision.reply.events.push(ReceiptEvent::Inserted(event));
    decision
}

//! Facts about a process beside its events of the host: external reference, abandon request, wait, acknowledged wakes.

use std::sync::Arc;

use serde::Serialize;

use super::super::event::fact_key;
use super::super::json_size::check_written_size;
use super::super::name::check_name;
use super::super::nesting::{MAX_LEVELS, nests_within, too_deep};
use super::super::{
    AbandonRequest, CoreEventType, ProcessExternalRef, ProcessState, ReceiptEvent, Refusal, Sequence, WaitKind,
    WaitState, WriteAuthority,
};
use super::append::stored_under;
use super::lifecycle::{inserted, internal_event};
use super::{Decision, DecisionContext, check_fence};

/// The first reference stays; ended processes take one too.
pub(super) fn set_external_ref(
    state: &ProcessState,
    external_ref: &ProcessExternalRef,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    match &record.external_ref {
        Some(stored) if **stored == *external_ref => return Ok(Decision::default()),
        Some(stored) => {
            return Err(Refusal::ExternalRefConflict {
                process_id: state.process_id.clone(),
                stored: Box::new(ProcessExternalRef::clone(stored)),
            });
        }
        None => {}
    }
    check_name("backend of an external ref", &external_ref.backend)?;
    check_name("id of an external ref", &external_ref.id)?;
    if external_ref.metadata.as_ref().is_some_and(|metadata| !nests_within(metadata, MAX_LEVELS)) {
        return Err(Refusal::TooDeep { what: "metadata of an external ref".to_owned(), reason: too_deep() });
    }
    check_written_size("external ref", external_ref)?;
    set(state, CoreEventType::ExternalRefSet, external_ref, context)
}

/// The first request stays. That the process has ended comes before that, as with the peer.
pub(super) fn request_abandon(
    state: &ProcessState,
    request: &AbandonRequest,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    if let Some(existing) = record.status.await_output() {
        let existing = Box::new(existing.clone());
        return Err(Refusal::AbandonOfTerminal { process_id: state.process_id.clone(), existing });
    }
    if record.abandon_request.is_some() {
        return Ok(Decision::default());
    }
    check_name("requester of an abandonment", &request.requested_by)?;
    check_written_size("abandon request", request)?;
    set(state, CoreEventType::AbandonRequested, request, context)
}

/// Deduplicated by state and not by key: a run that starts over sets a wait again that was cleared before.
pub(super) fn set_wait(
    state: &ProcessState,
    wait: &WaitState,
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    if let WriteAuthority::Holder(fence) = authority {
        check_fence(state, fence)?;
    }
    if let Some(existing) = record.status.await_output() {
        let existing = Box::new(existing.clone());
        return Err(Refusal::WaitOfTerminal { process_id: state.process_id.clone(), existing });
    }
    if record.wait.as_deref() == Some(wait) {
        return Ok(Decision::default());
    }
    check_wait(wait)?;
    fact(state, CoreEventType::WaitSet, wait, None, context)
}

/// Refuses a wait that nobody could show.
pub(super) fn check_wait(wait: &WaitState) -> Result<(), Refusal> {
    let WaitKind::Signal { name, event_type, .. } = &wait.kind;
    check_name("signal", name)?;
    check_name("event type", event_type)?;
    check_written_size("wait", wait)
}

pub(super) fn clear_wait(
    state: &ProcessState,
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    if let WriteAuthority::Holder(fence) = authority {
        check_fence(state, fence)?;
    }
    if record.wait.is_none() {
        return Ok(Decision::default());
    }
    fact(state, CoreEventType::WaitCleared, &serde_json::json!({}), None, context)
}

/// An acknowledgement names a wake that exists.
pub(super) fn ack_wake(
    state: &ProcessState,
    sequence: Sequence,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    state.registered()?;
    let key = fact_key(&state.process_id, CoreEventType::WakeAcknowledged, Some(sequence));
    if let Some(key) = &key
        && let Some(stored) = stored_under(state, key)?
    {
        let mut decision = Decision::default();
        decision.reply.events.push(ReceiptEvent::Replayed(Arc::clone(stored)));
        return Ok(decision);
    }
    let woke = context.wake.as_ref().is_some_and(|event| event.sequence == sequence && event.semantics.wake.is_some());
    if !woke {
        return Err(Refusal::NoSuchWake { process_id: state.process_id.clone(), sequence });
    }
    let payload = serde_json::json!({ "sequence": sequence });
    Ok(inserted(internal_event(state, CoreEventType::WakeAcknowledged, payload, key, context)))
}

fn set(
    state: &ProcessState,
    core: CoreEventType,
    value: &impl Serialize,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let key = fact_key(&state.process_id, core, None);
    fact(state, core, value, key, context)
}

pub(super) fn fact(
    state: &ProcessState,
    core: CoreEventType,
    value: &impl Serialize,
    key: Option<super::super::ReplayKey>,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let payload = serde_json::to_value(value)
        .map_err(|error| Refusal::InvalidPayload { event_type: core.name().to_owned(), reason: error.to_string() })?;
    Ok(inserted(internal_event(state, core, payload, key, context)))
}

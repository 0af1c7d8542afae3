//! Appending events, the terminal one included.

use std::sync::Arc;

use serde::Deserialize;

use super::super::event::{deterministic_key, is_reserved_key};
use super::super::json_size::check_size;
use super::super::limits::check_items;
use super::super::nesting::{MAX_LEVELS, nests_within, too_deep};
use super::super::replay::ReplayLookup;
use super::super::semantics::materialize;
use super::super::{
    CoreEventType, LeaseRelease, Limits, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessId,
    ProcessRecord, ProcessState, ProcessWakeDelivery, ReceiptEvent, Refusal, ReplayKey, WaitState, WriteAuthority,
    apply,
};
use super::facts::check_wait;
use super::{Decision, DecisionContext, check_fence, sole_writer};

/// Appends all requests or none. A later request sees what an earlier one appended.
pub(super) fn append(
    state: &ProcessState,
    requests: &[ProcessEventAppendRequest],
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    state.registered()?;
    if let WriteAuthority::Holder(fence) = authority {
        check_fence(state, fence)?;
    }
    check_items("an append", requests.len(), Limits::EVENTS_PER_COMMAND)?;
    let mut decision = Decision::default();
    // Only a batch needs a scratch state: the common single append must not pay for one.
    let mut scratch: Option<ProcessState> = None;
    for (index, request) in requests.iter().enumerate() {
        let current = scratch.as_ref().unwrap_or(state);
        let (event, delivery) = append_one(current, request, authority, context)?;
        if let ReceiptEvent::Inserted(event) = &event {
            decision.events.push(Arc::clone(event));
            decision.deliveries.extend(delivery.clone());
            if index + 1 < requests.len() {
                scratch = Some(apply(scratch.take().unwrap_or_else(|| state.clone()), event));
            }
        }
        decision.reply.deliveries.extend(delivery);
        decision.reply.events.push(event);
    }
    Ok(decision)
}

fn append_one(
    state: &ProcessState,
    request: &ProcessEventAppendRequest,
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<(ReceiptEvent, Option<ProcessWakeDelivery>), Refusal> {
    let record = state.registered()?;
    if let Some(key) = &request.replay_key
        && is_reserved_key(&state.process_id, request)
    {
        return Err(Refusal::ReservedReplayKey { replay_key: key.clone() });
    }
    if let Some(target) = &request.wake_target_scope {
        target.check()?;
    }
    if let Some(key) = &request.replay_key
        && let Some(stored) = stored_under(state, key)?
    {
        if *stored.event_type != *request.event_type || stored.payload != request.payload {
            return Err(Refusal::ReplayConflict { replay_key: key.clone() });
        }
        let delivery = ProcessWakeDelivery::of(stored, record, request.wake_target_scope.as_ref());
        return Ok((ReceiptEvent::Replayed(Arc::clone(stored)), delivery));
    }
    let event = insertion(state, record, request, authority, context)?;
    let delivery = ProcessWakeDelivery::of(&event, record, request.wake_target_scope.as_ref());
    Ok((ReceiptEvent::Inserted(Arc::new(event)), delivery))
}

pub(super) fn stored_under<'state>(
    state: &'state ProcessState,
    key: &ReplayKey,
) -> Result<Option<&'state Arc<ProcessEvent>>, Refusal> {
    match state.replays.look_up(key) {
        ReplayLookup::Absent => Ok(None),
        ReplayLookup::Stored(event) => Ok(Some(event)),
        ReplayLookup::Unresolved => Err(Refusal::ReplayUnresolved { replay_key: key.clone() }),
    }
}

fn insertion(
    state: &ProcessState,
    record: &ProcessRecord,
    request: &ProcessEventAppendRequest,
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<ProcessEvent, Refusal> {
    let declared =
        record.registration.event_type(&request.event_type).ok_or_else(|| {
            match CoreEventType::from_name(&request.event_type) {
                Some(_) => Refusal::ReservedEventType { event_type: request.event_type.clone() },
                None => Refusal::UndeclaredEventType {
                    process_id: state.process_id.clone(),
                    event_type: request.event_type.clone(),
                },
            }
        })?;
    if declared.requires_replay_key() && request.replay_key.is_none() {
        return Err(Refusal::ReplayKeyRequired { event_type: declared.name.clone() });
    }
    if !nests_within(&request.payload, MAX_LEVELS) {
        return Err(Refusal::InvalidPayload { event_type: declared.name.clone(), reason: too_deep() });
    }
    check_size("payload", &request.payload)?;
    if CoreEventType::from_name(&declared.name) == Some(CoreEventType::Waiting)
        && let Ok(wait) = WaitState::deserialize(&request.payload)
    {
        check_wait(&wait)?;
    }
    declared
        .payload_schema
        .validate(&request.payload)
        .map_err(|reason| Refusal::InvalidPayload { event_type: declared.name.clone(), reason })?;
    let ends = declared.semantics.terminal.is_some();
    let terminal_authority = if ends {
        if let Some(existing) = record.status.await_output() {
            return Err(already_terminal(state, existing));
        }
        Some(sole_writer(state, authority, context)?)
    } else {
        None
    };
    let sequence = state.next_sequence();
    let semantics = materialize(declared, &request.payload, &state.process_id, sequence, terminal_authority)?;
    Ok(ProcessEvent {
        process_id: state.process_id.clone(),
        sequence,
        event_type: Arc::from(request.event_type.as_str()),
        payload: request.payload.clone(),
        replay_key: request.replay_key.clone(),
        semantics,
        occurred_at_ms: context.epoch_ms,
        late: record.status.is_terminal(),
    })
}

pub(super) fn already_terminal(state: &ProcessState, existing: &ProcessAwaitOutput) -> Refusal {
    Refusal::AlreadyTerminal { process_id: state.process_id.clone(), existing: Box::new(existing.clone()) }
}

/// The append that a completion is.
pub(crate) fn completion(process_id: &ProcessId, output: &ProcessAwaitOutput) -> ProcessEventAppendRequest {
    let event_type = CoreEventType::of_terminal_state(output.terminal_state()).name();
    ProcessEventAppendRequest {
        event_type: event_type.to_owned(),
        payload: output.to_event_payload(),
        replay_key: deterministic_key(process_id, &format!("terminal:{event_type}")),
        wake_target_scope: None,
    }
}

/// Writes the outcome. The same outcome again is answered with the stored record; any other is refused with the
/// outcome that stands, whichever way it was written.
pub(super) fn complete(
    state: &ProcessState,
    output: &ProcessAwaitOutput,
    authority: &WriteAuthority,
    lease: LeaseRelease,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    let request = completion(&state.process_id, output);
    let mut decision = Decision::default();
    let stored = match &request.replay_key {
        Some(key) => stored_under(state, key)?,
        None => None,
    };
    match (record.status.await_output(), stored) {
        (Some(existing), Some(stored)) if existing == output && stored.payload == request.payload => {
            decision.reply.events.push(ReceiptEvent::Replayed(Arc::clone(stored)));
        }
        (Some(existing), _) => return Err(already_terminal(state, existing)),
        (None, _) => decision = append(state, std::slice::from_ref(&request), authority, context)?,
    }
    if let (LeaseRelease::Release, WriteAuthority::Holder(fence)) = (lease, authority)
        && check_fence(state, fence).is_ok()
    {
        decision.lease = Some(state.lease.released());
    }
    Ok(decision)
}

//! Answers in the form in which both can be compared: errors as classes, wake ids as classes, and without what the
//! documents leave to the registry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use registry_actor::domain::{
    Command, ProcessEvent, ProcessLeaseClaimOutcome, ProcessWakeDelivery, Receipt, ReceiptEvent, Refusal,
};
use registry_actor::port::{ProcessChange, RegistryError};
use serde_json::{Value, json};

use super::model::{No, is_internal};

/// The class of an error.
pub(super) fn class(error: &RegistryError) -> No {
    let RegistryError::Refused(refusal) = error else { return No(format!("no refusal: {error:?}")) };
    let with = |class: &str, outcome| format!("{class}: {}", json!(outcome));
    No(match refusal {
        Refusal::Unknown { .. } => "unknown".to_owned(),
        Refusal::RegistrationConflict { .. } => "registration conflict".to_owned(),
        Refusal::InvalidExecutionTerms { .. } => "invalid execution terms".to_owned(),
        Refusal::NotExecutedHere { .. } => "not executed here".to_owned(),
        Refusal::AlreadyStarted { owner, .. } => {
            format!("already started by {}/{}", owner.owner_id, owner.incarnation_id)
        }
        Refusal::AttemptsExhausted { max_attempts, .. } => format!("all {max_attempts} attempts made"),
        Refusal::NoAttemptBegun { .. } => "no attempt begun".to_owned(),
        Refusal::EnvironmentRequired { .. } => "environment required".to_owned(),
        Refusal::EnvironmentForbidden { .. } => "environment forbidden".to_owned(),
        Refusal::EmptyEventType { .. } => "empty event type".to_owned(),
        Refusal::DuplicateEventType { .. } => "duplicate event type".to_owned(),
        Refusal::ReservedEventType { .. } => "reserved event type".to_owned(),
        Refusal::AwaitOutputUndeclared { .. } => "await output undeclared".to_owned(),
        Refusal::UndeclaredEventType { .. } => "undeclared event type".to_owned(),
        Refusal::ReplayKeyRequired { .. } => "replay key required".to_owned(),
        Refusal::ReplayConflict { .. } => "replay conflict".to_owned(),
        Refusal::InvalidPayload { .. } => "invalid payload".to_owned(),
        Refusal::SelectorMissed { .. } => "selector missed".to_owned(),
        Refusal::OutcomeContradictsType { .. } => "outcome contradicts type".to_owned(),
        Refusal::AlreadyTerminal { existing, .. } => with("already terminal", existing),
        Refusal::LeaseHeld { holder, .. } => {
            format!("lease held by {}/{}", holder.owner.owner_id, holder.owner.incarnation_id)
        }
        Refusal::LeaseLost { .. } => "lease lost".to_owned(),
        Refusal::ExternalRefConflict { stored, .. } => format!("external ref conflict with {}", json!(stored)),
        Refusal::AbandonOfTerminal { existing, .. } => with("abandon of terminal", existing),
        Refusal::WaitOfTerminal { existing, .. } => with("wait of terminal", existing),
        Refusal::NoSuchWake { .. } => "no such wake".to_owned(),
        Refusal::ReservedReplayKey { .. } => "reserved replay key".to_owned(),
        Refusal::HandleNotGranted { .. } => "handle not granted".to_owned(),
        Refusal::EmptyName { .. } => "empty name".to_owned(),
        Refusal::EmptyPage => "empty page".to_owned(),
        other => format!("unexpected: {other:?}"),
    })
}

/// An event without the payload and the key of the registry's own facts.
pub(super) fn plain(event: &Arc<ProcessEvent>) -> Arc<ProcessEvent> {
    if is_internal(&event.event_type) {
        Arc::new(ProcessEvent { payload: Value::Null, replay_key: None, ..(**event).clone() })
    } else {
        Arc::clone(event)
    }
}

pub(super) fn plain_change(change: ProcessChange) -> ProcessChange {
    match change {
        ProcessChange::Event(event) => ProcessChange::Event(plain(&event)),
        other => other,
    }
}

/// Which wake ids stand for which classes: one each, whatever event or process they come from.
#[derive(Debug, Default)]
pub(super) struct WakeIds {
    by_class: BTreeMap<String, String>,
    by_id: BTreeMap<String, String>,
}

impl WakeIds {
    /// The delivery with the class of its id in the place of the id.
    pub(super) fn plain(&mut self, delivery: &ProcessWakeDelivery) -> ProcessWakeDelivery {
        let class = format!("{}|{}", delivery.target_scope_id, delivery.dedupe_key);
        let known_id = self.by_class.entry(class.clone()).or_insert_with(|| delivery.wake_id.clone());
        let known_class = self.by_id.entry(delivery.wake_id.clone()).or_insert_with(|| class.clone());
        let agrees = *known_id == delivery.wake_id && *known_class == class;
        let wake_id = if agrees { class } else { format!("{} instead of {known_id}", delivery.wake_id) };
        ProcessWakeDelivery { wake_id, ..delivery.clone() }
    }

    /// What is promised of a receipt. Whether a repeated fact is told as replayed or not at all is not.
    pub(super) fn plain_receipt(&mut self, command: &Command, receipt: &Receipt) -> Receipt {
        let tells_replays = matches!(
            command,
            Command::Append { .. }
                | Command::RequestCancel { .. }
                | Command::Complete { .. }
                | Command::FailAttempt { .. }
        );
        let mut events = Vec::new();
        for event in &receipt.events {
            match event {
                ReceiptEvent::Inserted(event) => events.push(ReceiptEvent::Inserted(plain(event))),
                ReceiptEvent::Replayed(event) if tells_replays => events.push(ReceiptEvent::Replayed(plain(event))),
                ReceiptEvent::Replayed(_) => {}
            }
        }
        let deliveries = receipt.deliveries.iter().map(|delivery| self.plain(delivery)).collect();
        Receipt { events, deliveries, ..receipt.clone() }
    }
}

/// A receipt in one line.
pub(super) fn in_short(receipt: &Receipt) -> String {
    let mut text = String::new();
    for event in &receipt.events {
        let sign = if event.is_inserted() { '+' } else { '=' };
        let event = event.event();
        let late = if event.late { " late" } else { "" };
        write!(text, "{sign}{} {}{late} ", event.sequence, event.event_type).expect("a string takes it");
    }
    for delivery in &receipt.deliveries {
        write!(text, "wakes {} of {} ", delivery.wake_id, delivery.sequence).expect("a string takes it");
    }
    match &receipt.lease {
        Some(ProcessLeaseClaimOutcome::Acquired { lease, displaced }) => {
            let displaced =
                displaced.as_ref().map_or(String::new(), |lease| format!(" after {}", lease.owner.owner_id));
            write!(text, "lease {} of {}{displaced} ", lease.fencing_token, lease.owner.owner_id)
        }
        Some(ProcessLeaseClaimOutcome::Busy { holder }) => {
            write!(text, "busy with {} of {} ", holder.fencing_token, holder.owner.owner_id)
        }
        None => Ok(()),
    }
    .expect("a string takes it");
    let status = receipt.record.as_ref().map_or("unknown", |record| record.status.label());
    text + status
}

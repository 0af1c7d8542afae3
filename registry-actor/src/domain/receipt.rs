//! Receipts: what a caller gets for a command that was carried out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::replay::ReplayLookup;
use super::{Command, ProcessEvent, ProcessLeaseClaimOutcome, ProcessRecord, ProcessWakeDelivery, ReplayWindow};

/// Answer to a command. Everything in it is durable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The record after the command; absent only where a release met an unknown process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Arc<ProcessRecord>>,
    /// The events of the command, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<ReceiptEvent>,
    /// Answer to a claim, reclaim or renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<ProcessLeaseClaimOutcome>,
    /// The wakes that its events made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<ProcessWakeDelivery>,
}

/// An event of a receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptEvent {
    /// This command appended it.
    Inserted(Arc<ProcessEvent>),
    /// It was there already, under the same replay key.
    Replayed(Arc<ProcessEvent>),
}

impl ReceiptEvent {
    /// The event, whoever appended it.
    #[must_use]
    pub const fn event(&self) -> &Arc<ProcessEvent> {
        match self {
            Self::Inserted(event) | Self::Replayed(event) => event,
        }
    }

    /// Whether this command appended it.
    #[must_use]
    pub const fn is_inserted(&self) -> bool {
        matches!(self, Self::Inserted(_))
    }
}

impl Receipt {
    /// The receipt of a command that was carried out before, from the events that it stored.
    ///
    /// For an append, requests that were answered by older events at that time are answered by them again, through
    /// `replays`, which has to know the keys of the command.
    #[must_use]
    pub fn of_stored(
        command: &Command,
        record: Arc<ProcessRecord>,
        stored: Vec<Arc<ProcessEvent>>,
        replays: &ReplayWindow,
    ) -> Self {
        let mut inserted = stored.into_iter().peekable();
        let mut receipt = Self::default();
        if let Command::Append { events: requests, .. } = command {
            for request in requests {
                let is_next = |event: &Arc<ProcessEvent>| {
                    *event.event_type == *request.event_type
                        && event.replay_key == request.replay_key
                        && event.payload == request.payload
                };
                let older = || match replays.look_up(request.replay_key.as_ref()?) {
                    ReplayLookup::Stored(event) => Some(ReceiptEvent::Replayed(Arc::clone(event))),
                    ReplayLookup::Absent | ReplayLookup::Unresolved => None,
                };
                let Some(event) = inserted.next_if(is_next).map(ReceiptEvent::Inserted).or_else(older) else {
                    continue;
                };
                let target = request.wake_target_scope.as_ref();
                receipt.deliveries.extend(ProcessWakeDelivery::of(event.event(), &record, target));
                receipt.events.push(event);
            }
        }
        receipt.events.extend(inserted.map(ReceiptEvent::Inserted));
        receipt.record = Some(record);
        receipt
    }
}

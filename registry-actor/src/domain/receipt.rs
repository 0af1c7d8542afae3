//! Receipts: what a caller gets for a command that was carried out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ProcessEvent, ProcessLeaseClaimOutcome, ProcessRecord, ProcessWakeDelivery};

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

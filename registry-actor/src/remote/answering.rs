//! Carries requests out, and makes their answers fit into a frame.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio_util::bytes::Bytes;

use super::claimant::StoreSessionOwners;
use super::frame;
use super::message::{Call, Outcome, ServerMessage};
use crate::domain::OperationId;
use crate::port::{LogError, ProcessRegistry, Query, RegistryError};

/// What requests of one connection are answered with.
#[derive(Clone)]
pub(super) struct Answering {
    pub(super) registry: Arc<dyn ProcessRegistry>,
    pub(super) store_session_owners: StoreSessionOwners,
    /// The longest answer, in bytes, inclusive.
    pub(super) answer_bytes: usize,
}

/// What an error has to name if the answer is lost.
enum Asked {
    Command(crate::domain::ProcessId),
    Across(String),
    Read,
}

impl Answering {
    /// The frame that answers a request. There always is one: a registry that panics has not said what became of the command.
    pub(super) async fn answer(&self, id: u64, call: Call) -> Bytes {
        let asked = Asked::of(&call);
        match self.fitting(id, call).await {
            Ok(frame) => frame,
            Err(reason) => {
                let error = asked.lost(id, reason);
                // An error of a few words always has a JSON form.
                frame::encode(&ServerMessage::Answer { id, outcome: Box::new(Outcome::Error(error)) })
                    .unwrap_or_default()
            }
        }
    }

    /// A page that is too long is asked for anew with half of its entries, until it fits: what is cut says so itself.
    async fn fitting(&self, id: u64, mut call: Call) -> Result<Bytes, String> {
        loop {
            let again = match &call {
                Call::Query { query } => smaller(query),
                Call::Execute { .. } | Call::ExecuteAcross { .. } => None,
            };
            let carried_out = AssertUnwindSafe(self.carry_out(call)).catch_unwind().await;
            let outcome = carried_out.map_err(|_| "the registry panicked".to_owned())?;
            let frame = frame::encode(&ServerMessage::Answer { id, outcome: Box::new(outcome) })
                .map_err(|error| error.to_string())?;
            if frame.len() <= self.answer_bytes {
                return Ok(frame);
            }
            let Some(query) = again else {
                let (found, limit) = (frame.len(), self.answer_bytes);
                return Err(format!("its answer has {found} bytes, and at most {limit} are sent"));
            };
            call = Call::Query { query };
        }
    }

    async fn carry_out(&self, call: Call) -> Outcome {
        let outcome = match call {
            Call::Execute { process_id, command } => match self.store_session_owners.check(&command) {
                Ok(()) => self.registry.execute(&process_id, command).await.map(Outcome::Receipt),
                Err(refusal) => Err(refusal.into()),
            },
            Call::ExecuteAcross { command } => {
                self.registry.execute_across(command).await.map(Outcome::RegistryReceipt)
            }
            Call::Query { query } => self.registry.query(query).await.map(Outcome::Answer),
        };
        outcome.unwrap_or_else(Outcome::Error)
    }
}

impl Asked {
    fn of(call: &Call) -> Self {
        match call {
            Call::Execute { process_id, .. } => Self::Command(process_id.clone()),
            Call::ExecuteAcross { command } => Self::Across(command.name().to_owned()),
            Call::Query { .. } => Self::Read,
        }
    }

    fn lost(self, id: u64, reason: String) -> RegistryError {
        // The registry's own number of the call is not known here; the connection's is.
        let operation = OperationId { issuer: 0, number: id };
        match self {
            Self::Command(process_id) => RegistryError::OutcomeUnknown { process_id, operation, reason },
            Self::Across(command) => RegistryError::AcrossOutcomeUnknown { command, operation, reason },
            Self::Read => RegistryError::Store(LogError::Unreadable { reason }),
        }
    }
}

/// The same read of half as many entries; `None` if it reads no pages, or pages of one.
fn smaller(query: &Query) -> Option<Query> {
    let mut query = query.clone();
    match &mut query {
        Query::RecentEvents { limit, .. }
        | Query::WakeEvents { limit, .. }
        | Query::Events { limit, .. }
        | Query::PendingWakes { limit, .. }
        | Query::Changes { limit, .. } => *limit = (*limit).min(crate::domain::Limits::EVENTS_PER_PAGE) / 2,
        Query::HandleGrants { limit, .. }
        | Query::GrantsOfProcess { limit, .. }
        | Query::Processes { limit, .. }
        | Query::RecentProcesses { limit, .. } => {
            *limit = (*limit).min(crate::domain::Limits::RECORDS_PER_PAGE) / 2;
        }
        Query::Process { .. }
        | Query::Tombstone { .. }
        | Query::CountEventsThrough { .. }
        | Query::FirstEventOfType { .. }
        | Query::Lease { .. }
        | Query::HandleGrant { .. } => return None,
    }
    query.check().is_ok().then_some(query)
}

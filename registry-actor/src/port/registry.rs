//! The registry, as hosts see it: two methods that an implementation writes, and named operations over them.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::change::ChangeSource;
use super::log::LogError;
use super::query::{Answer, EventPage, ProcessListFilter, ProcessPage, Query};
use crate::domain::{
    Command, LeaseFence, LeaseOwnerIdentity, LeaseRelease, OperationId, ProcessAwaitOutput, ProcessEvent,
    ProcessEventAppendRequest, ProcessId, ProcessLease, ProcessLeaseClaimOutcome, ProcessRecord, ProcessRegistration,
    ProcessStarted, Receipt, Refusal, Sequence, WriteAuthority,
};

/// A registry of durable processes.
///
/// # Contract
/// 1. A receipt is durable.
/// 2. A [`Refusal`] changed nothing.
/// 3. Commands of one process are carried out one after the other.
/// 4. A read that starts after a receipt sees what the receipt says.
#[async_trait]
pub trait ProcessRegistry: Send + Sync {
    /// Carries a command out.
    ///
    /// Cancellation: a dropped future does not take the command back; it may still be carried out.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError>;

    /// Answers a read from the log. Never wakes a process. May be dropped at any time.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn query(&self, query: Query) -> Result<Answer, RegistryError>;

    /// Where this registry's commits can be heard; `None` if it does not tell.
    fn change_source(&self) -> Option<ChangeSource> {
        None
    }
}

/// Why a call was not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", content = "detail", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistryError {
    /// The command was refused. Nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many commands are under way. Nothing changed; try again.
    #[error("the registry is busy: {limit} commands are under way")]
    Busy {
        /// How many it takes.
        limit: usize,
    },
    /// The process is quarantined after repeated failures. Nothing changed.
    #[error("process `{process_id}` is unavailable until {retry_at_ms} ms: {reason}")]
    Unavailable {
        /// The process.
        process_id: ProcessId,
        /// When it is tried again, in ms since the Unix epoch.
        retry_at_ms: u64,
        /// What failed last.
        reason: String,
    },
    /// The command may or may not have been carried out.
    #[error("whether operation {operation} on process `{process_id}` was carried out is unknown: {reason}")]
    OutcomeUnknown {
        /// The process.
        process_id: ProcessId,
        /// The call.
        operation: OperationId,
        /// Why.
        reason: String,
    },
    /// The store did not take the command. Nothing changed.
    #[error("the store did not take the command: {reason}")]
    NotStored {
        /// Why.
        reason: String,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(LogError),
    /// An implementation answered a read with something else than was asked: its fault.
    #[error("the registry answered {query} with something else")]
    WrongAnswer {
        /// What was asked.
        query: String,
    },
    /// The registry is shut down. Nothing changed.
    #[error("the registry is closed")]
    Closed,
}

impl From<LogError> for RegistryError {
    fn from(error: LogError) -> Self {
        match error.into_refusal() {
            Ok(refusal) => Self::Refused(refusal),
            Err(error) => Self::Store(error),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<R: super::ProcessRegistry + ?Sized> Sealed for R {}
}

/// The operations by their names, over [`ProcessRegistry::execute`] and [`ProcessRegistry::query`]. Sealed: there is
/// one implementation, so that no decorator can lose an override.
///
/// Errors are those of the two methods, and are not repeated at each operation.
#[async_trait]
pub trait ProcessRegistryExt: sealed::Sealed + ProcessRegistry {
    /// Makes a process exist, or answers the stored record if the same registration made it exist before.
    async fn register_process(&self, registration: ProcessRegistration) -> Result<Arc<ProcessRecord>, RegistryError> {
        let id = registration.id.clone();
        let receipt = self.execute(&id, Command::Register { registration: Box::new(registration) }).await?;
        record_of(receipt, &id)
    }

    /// Appends one event.
    async fn append_event(
        &self,
        process_id: &ProcessId,
        request: ProcessEventAppendRequest,
    ) -> Result<Receipt, RegistryError> {
        self.append_events(process_id, vec![request]).await
    }

    /// Appends events, all or none, in order.
    async fn append_events(
        &self,
        process_id: &ProcessId,
        events: Vec<ProcessEventAppendRequest>,
    ) -> Result<Receipt, RegistryError> {
        self.execute(process_id, Command::Append { events, authority: WriteAuthority::Unfenced }).await
    }

    /// Appends events as the lease holder.
    async fn append_events_fenced(
        &self,
        process_id: &ProcessId,
        events: Vec<ProcessEventAppendRequest>,
        fence: LeaseFence,
    ) -> Result<Receipt, RegistryError> {
        self.execute(process_id, Command::Append { events, authority: WriteAuthority::Holder(fence) }).await
    }

    /// Asks that the process stop.
    async fn request_process_cancel(
        &self,
        process_id: &ProcessId,
        reason: Option<String>,
    ) -> Result<Receipt, RegistryError> {
        self.execute(process_id, Command::RequestCancel { reason }).await
    }

    /// Writes the outcome without a lease: for processes that are owned elsewhere.
    async fn complete_process(
        &self,
        process_id: &ProcessId,
        output: ProcessAwaitOutput,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::Complete { output, authority: WriteAuthority::Unfenced, lease: LeaseRelease::Keep };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Writes the outcome as the lease holder, and says what becomes of the lease.
    async fn complete_process_fenced(
        &self,
        process_id: &ProcessId,
        output: ProcessAwaitOutput,
        fence: LeaseFence,
        lease: LeaseRelease,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::Complete { output, authority: WriteAuthority::Holder(fence), lease };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Records without a lease that execution began.
    async fn record_first_started(
        &self,
        process_id: &ProcessId,
        started: ProcessStarted,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::RecordFirstStarted { started, authority: WriteAuthority::Unfenced };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Records as the lease holder that execution began.
    async fn record_first_started_fenced(
        &self,
        process_id: &ProcessId,
        started: ProcessStarted,
        fence: LeaseFence,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::RecordFirstStarted { started, authority: WriteAuthority::Holder(fence) };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Takes the lease if it is free, released or expired.
    async fn claim_process_lease(
        &self,
        process_id: &ProcessId,
        owner: LeaseOwnerIdentity,
        ttl_ms: u64,
    ) -> Result<ProcessLeaseClaimOutcome, RegistryError> {
        lease_of(self.execute(process_id, Command::ClaimLease { owner, ttl_ms }).await?, "claim_process_lease")
    }

    /// Takes a lease in force from a holder that is provably dead.
    async fn reclaim_process_lease(
        &self,
        process_id: &ProcessId,
        owner: LeaseOwnerIdentity,
        observed: ProcessLease,
        ttl_ms: u64,
    ) -> Result<ProcessLeaseClaimOutcome, RegistryError> {
        let command = Command::ReclaimLease { owner, observed: Box::new(observed), ttl_ms };
        lease_of(self.execute(process_id, command).await?, "reclaim_process_lease")
    }

    /// Prolongs a lease in force.
    async fn renew_process_lease(&self, lease: ProcessLease, ttl_ms: u64) -> Result<ProcessLease, RegistryError> {
        let process_id = lease.process_id.clone();
        let receipt = self.execute(&process_id, Command::RenewLease { lease: Box::new(lease), ttl_ms }).await?;
        lease_of(receipt, "renew_process_lease")?
            .acquired()
            .ok_or(RegistryError::Refused(Refusal::LeaseLost { process_id }))
    }

    /// Gives a lease up. Stale and repeated releases change nothing.
    async fn complete_process_lease(&self, lease: &ProcessLease) -> Result<(), RegistryError> {
        let command = Command::ReleaseLease { lease_token: lease.lease_token.clone() };
        self.execute(&lease.process_id, command).await.map(drop)
    }

    /// The lease as it is stored, expired or not.
    async fn get_process_lease(&self, process_id: &ProcessId) -> Result<Option<ProcessLease>, RegistryError> {
        match self.query(Query::Lease { process_id: process_id.clone() }).await? {
            Answer::Lease(lease) => Ok(lease.map(|lease| *lease)),
            _ => Err(wrong_answer("lease")),
        }
    }

    /// The record, or `None` if the process is unknown. A fault of the store is never "unknown".
    async fn get_process(&self, process_id: &ProcessId) -> Result<Option<Arc<ProcessRecord>>, RegistryError> {
        match self.query(Query::Process { process_id: process_id.clone() }).await? {
            Answer::Process(record) => Ok(record),
            _ => Err(wrong_answer("process")),
        }
    }

    /// Events after a cursor, ascending, at most `limit`.
    async fn events_page(
        &self,
        process_id: &ProcessId,
        after: Sequence,
        limit: u32,
    ) -> Result<EventPage, RegistryError> {
        match self.query(Query::Events { process_id: process_id.clone(), after, limit }).await? {
            Answer::Events(page) => Ok(page),
            _ => Err(wrong_answer("events")),
        }
    }

    /// The first event of a type after a cursor.
    async fn first_event_of_type(
        &self,
        process_id: &ProcessId,
        event_type: &str,
        after: Sequence,
    ) -> Result<Option<Arc<ProcessEvent>>, RegistryError> {
        let query =
            Query::FirstEventOfType { process_id: process_id.clone(), event_type: event_type.to_owned(), after };
        match self.query(query).await? {
            Answer::Event(event) => Ok(event),
            _ => Err(wrong_answer("first event of type")),
        }
    }

    /// Records after a cursor, ascending by id, at most `limit`.
    async fn list_page(
        &self,
        filter: ProcessListFilter,
        after: Option<ProcessId>,
        limit: u32,
    ) -> Result<ProcessPage, RegistryError> {
        match self.query(Query::Processes { filter, after, limit }).await? {
            Answer::Processes(page) => Ok(page),
            _ => Err(wrong_answer("processes")),
        }
    }
}

impl<R: ProcessRegistry + ?Sized> ProcessRegistryExt for R {}

fn record_of(receipt: Receipt, process_id: &ProcessId) -> Result<Arc<ProcessRecord>, RegistryError> {
    receipt.record.ok_or_else(|| RegistryError::Refused(Refusal::Unknown { process_id: process_id.clone() }))
}

fn lease_of(receipt: Receipt, operation: &str) -> Result<ProcessLeaseClaimOutcome, RegistryError> {
    receipt.lease.ok_or_else(|| wrong_answer(operation))
}

fn wrong_answer(query: &str) -> RegistryError {
    RegistryError::WrongAnswer { query: query.to_owned() }
}

//! The registry, as hosts see it: the few methods that an implementation writes, and named operations over them.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::change::ChangeSource;
use super::log::LogError;
use super::query::{Answer, ChangePage, EventPage, PendingWakePage, ProcessPage, Query, RecentProcessPage};
use crate::domain::{
    AbandonRequest, AttemptFailure, ChangeCursor, Command, LeaseFence, LeaseOwnerIdentity, LeaseRelease, Limits,
    OperationId, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessExternalRef,
    ProcessHandleDescriptor, ProcessHandleGrant, ProcessId, ProcessLease, ProcessLeaseClaimOutcome, ProcessListFilter,
    ProcessPruneReport, ProcessRecord, ProcessRegistration, ProcessSessionDeleteReport, ProcessSignal, ProcessStarted,
    ProjectionWatermark, PruneFilter, Receipt, Refusal, RegistrationCursor, RegistryCommand, RegistryReceipt, Sequence,
    SessionScope, Tombstone, WaitState, WakeCursor, WriteAuthority,
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

    /// Carries out a command that concerns several processes, or a session, as one transaction.
    ///
    /// Cancellation: a dropped future does not take the command back; it may still be carried out.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError>;

    /// Answers a read from the log. Never wakes a process. May be dropped at any time.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn query(&self, query: Query) -> Result<Answer, RegistryError>;

    /// What survives of what this registry answers with success.
    fn durability_tier(&self) -> DurabilityTier;

    /// Where this registry's commits can be heard; `None` if it does not tell.
    fn change_source(&self) -> Option<ChangeSource> {
        None
    }
}

/// What survives of what a registry answers with success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurabilityTier {
    /// Nothing beyond the host's process.
    Inline,
    /// A crash of the host and a loss of power.
    Durable,
}

/// Answer to a signal.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalReceipt {
    /// The receipt of the append.
    pub receipt: Receipt,
    /// Which signal of its name it is, counted from 1: how many there are up to its own event.
    pub ordinal: u64,
    /// Key of the wait that it answers.
    pub wait_key: String,
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
    /// A command across processes may or may not have been carried out. Nothing finds it again by its id; all of them may be
    /// repeated without harm, and a repeated transfer that had succeeded is refused as not granted.
    #[error("whether operation {operation} ({command}) was carried out is unknown: {reason}")]
    AcrossOutcomeUnknown {
        /// The command.
        command: String,
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

impl RegistryError {
    /// Whether it says that the command changed nothing, so that it may be sent again. One that does not say so may have been
    /// carried out; of a read nothing ever changes.
    #[must_use]
    pub const fn changed_nothing(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Busy { .. } | Self::Unavailable { .. } | Self::NotStored { .. } | Self::Closed => {
                true
            }
            Self::OutcomeUnknown { .. }
            | Self::AcrossOutcomeUnknown { .. }
            | Self::Store(_)
            | Self::WrongAnswer { .. } => false,
        }
    }

    /// Whether the same may be answered otherwise later, without anybody changing what was asked: too much was under way, the
    /// process was quarantined, or the store did not take it or could not be read.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Unavailable { .. }
            | Self::NotStored { .. }
            | Self::OutcomeUnknown { .. }
            | Self::AcrossOutcomeUnknown { .. }
            | Self::Store(LogError::Unreadable { .. }) => true,
            Self::Refused(_) | Self::Store(_) | Self::WrongAnswer { .. } | Self::Closed => false,
        }
    }
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

/// The operations by their names, over [`ProcessRegistry::execute`], [`ProcessRegistry::execute_across`] and
/// [`ProcessRegistry::query`]. Sealed: there is
/// one implementation, so that no decorator can lose an override.
///
/// Errors are those of these methods, and are not repeated at each operation.
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

    /// Begins an attempt as the lease holder, and with the first one the execution. One acquisition of the lease makes
    /// one attempt, however often this is called.
    ///
    /// # Errors
    /// [`Refusal`](crate::domain::Refusal)`::{NotExecutedHere, AlreadyStarted, AttemptsExhausted}` where what the process
    /// declares forbids it, whoever asks; `LeaseLost` once the lease was released or displaced.
    async fn begin_process_attempt(
        &self,
        process_id: &ProcessId,
        started: ProcessStarted,
        fence: LeaseFence,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        record_of(self.execute(process_id, Command::BeginAttempt { started, fence }).await?, process_id)
    }

    /// Ends the attempt of this lease with a failure and gives the lease up, in one transaction. The record that is
    /// answered tells whether the process ended with it, or when the next attempt is due.
    ///
    /// # Errors
    /// [`Refusal`](crate::domain::Refusal)`::{LeaseLost, NoAttemptBegun, AlreadyTerminal, LimitExceeded}`.
    async fn fail_process_attempt(
        &self,
        process_id: &ProcessId,
        failure: AttemptFailure,
        fence: LeaseFence,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        record_of(self.execute(process_id, Command::FailAttempt { failure, fence }).await?, process_id)
    }

    /// Records under which name a foreign backend knows the process. Set once.
    async fn set_external_ref(
        &self,
        process_id: &ProcessId,
        external_ref: ProcessExternalRef,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        record_of(self.execute(process_id, Command::SetExternalRef { external_ref }).await?, process_id)
    }

    /// Authorises that the process be abandoned once nobody holds its lease. The first request stays.
    async fn request_process_abandon(
        &self,
        process_id: &ProcessId,
        request: AbandonRequest,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        record_of(self.execute(process_id, Command::RequestAbandon { request }).await?, process_id)
    }

    /// Records that the process waits.
    async fn set_process_wait(
        &self,
        process_id: &ProcessId,
        wait: WaitState,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::SetWait { wait, authority: WriteAuthority::Unfenced };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Records as the lease holder that the process waits.
    async fn set_process_wait_fenced(
        &self,
        process_id: &ProcessId,
        wait: WaitState,
        fence: LeaseFence,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::SetWait { wait, authority: WriteAuthority::Holder(fence) };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Records that the process no longer waits.
    async fn clear_process_wait(&self, process_id: &ProcessId) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::ClearWait { authority: WriteAuthority::Unfenced };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Records as the lease holder that the process no longer waits.
    async fn clear_process_wait_fenced(
        &self,
        process_id: &ProcessId,
        fence: LeaseFence,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = Command::ClearWait { authority: WriteAuthority::Holder(fence) };
        record_of(self.execute(process_id, command).await?, process_id)
    }

    /// Sends a signal: an event of the type `signal.{name}`, which the process must declare. The same `signal_id` is one
    /// signal, however often it is sent: an error may come after it was stored, and then it is sent again.
    async fn signal_process(
        &self,
        process_id: &ProcessId,
        signal: &ProcessSignal,
        signal_id: &str,
        payload: Value,
    ) -> Result<SignalReceipt, RegistryError> {
        let request = signal.request(process_id, signal_id, payload);
        let receipt = self.append_event(process_id, request).await?;
        let event = receipt.events.first().ok_or_else(|| wrong_answer("signal"))?.event();
        let ordinal = self.count_events_through(process_id, &signal.event_type(), event.sequence).await?;
        Ok(SignalReceipt { wait_key: signal.wait_key(process_id, ordinal), ordinal, receipt })
    }

    /// Records that a wake was taken, and settles its delivery.
    async fn ack_wake(&self, process_id: &ProcessId, sequence: Sequence) -> Result<(), RegistryError> {
        self.execute(process_id, Command::AckWake { sequence }).await.map(drop)
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

    /// What is left of a pruned process.
    async fn get_tombstone(&self, process_id: &ProcessId) -> Result<Option<Tombstone>, RegistryError> {
        match self.query(Query::Tombstone { process_id: process_id.clone() }).await? {
            Answer::Tombstone(tombstone) => Ok(tombstone),
            _ => Err(wrong_answer("tombstone")),
        }
    }

    /// All events after a cursor, ascending: as many as there are, so prefer [`events_page`](Self::events_page).
    async fn events_after(
        &self,
        process_id: &ProcessId,
        after: Sequence,
    ) -> Result<Vec<Arc<ProcessEvent>>, RegistryError> {
        let (mut events, mut after) = (Vec::new(), after);
        loop {
            let page = self.events_page(process_id, after, EventPage::MAX_LIMIT).await?;
            after = page.events.last().map_or(after, |last| last.sequence);
            events.extend(page.events);
            if !page.has_more {
                return Ok(events);
            }
        }
    }

    /// The last events, ascending, at most `limit`.
    async fn recent_events(&self, process_id: &ProcessId, limit: u32) -> Result<Vec<Arc<ProcessEvent>>, RegistryError> {
        match self.query(Query::RecentEvents { process_id: process_id.clone(), limit }).await? {
            Answer::Events(page) => Ok(page.events),
            _ => Err(wrong_answer("recent events")),
        }
    }

    /// How many events of a type there are up to a sequence, inclusive.
    async fn count_events_through(
        &self,
        process_id: &ProcessId,
        event_type: &str,
        through: Sequence,
    ) -> Result<u64, RegistryError> {
        let query =
            Query::CountEventsThrough { process_id: process_id.clone(), event_type: event_type.to_owned(), through };
        match self.query(query).await? {
            Answer::Count(count) => Ok(count),
            _ => Err(wrong_answer("count of events")),
        }
    }

    /// Events after a cursor that woke somebody and are not acknowledged, ascending, at most `limit`.
    async fn wake_events_after(
        &self,
        process_id: &ProcessId,
        after: Sequence,
        limit: u32,
    ) -> Result<EventPage, RegistryError> {
        match self.query(Query::WakeEvents { process_id: process_id.clone(), after, limit }).await? {
            Answer::Events(page) => Ok(page),
            _ => Err(wrong_answer("wake events")),
        }
    }

    /// The wakes of exactly this target that are not settled, at most `limit`.
    async fn pending_wakes(
        &self,
        target: &SessionScope,
        after: Option<WakeCursor>,
        limit: u32,
    ) -> Result<PendingWakePage, RegistryError> {
        match self.query(Query::PendingWakes { target: target.clone(), after, limit }).await? {
            Answer::PendingWakes(page) => Ok(page),
            _ => Err(wrong_answer("pending wakes")),
        }
    }

    /// What changed in the store after a cursor, in commit order, at most `limit`.
    async fn changes_since(&self, after: Option<ChangeCursor>, limit: u32) -> Result<ChangePage, RegistryError> {
        match self.query(Query::Changes { after, limit }).await? {
            Answer::Changes(page) => Ok(page),
            _ => Err(wrong_answer("changes")),
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

    /// Records before a cursor, the last registered first, at most `limit`.
    async fn recent_processes(
        &self,
        filter: ProcessListFilter,
        before: Option<RegistrationCursor>,
        limit: u32,
    ) -> Result<RecentProcessPage, RegistryError> {
        match self.query(Query::RecentProcesses { filter, before, limit }).await? {
            Answer::RecentProcesses(page) => Ok(page),
            _ => Err(wrong_answer("recent processes")),
        }
    }

    /// All records that a filter shows, ascending by id: as many as there are, so prefer [`list_page`](Self::list_page), which names
    /// the damaged ones as well.
    async fn list_processes(&self, filter: ProcessListFilter) -> Result<Vec<Arc<ProcessRecord>>, RegistryError> {
        let mut records: Vec<Arc<ProcessRecord>> = Vec::new();
        loop {
            let after = records.last().map(|last| last.id().clone());
            let page = self.list_page(filter.clone(), after, ProcessPage::MAX_LIMIT).await?;
            records.extend(page.records);
            if !page.has_more {
                return Ok(records);
            }
        }
    }

    /// All records of processes that have not ended, ascending by id.
    async fn list_non_terminal(&self) -> Result<Vec<Arc<ProcessRecord>>, RegistryError> {
        self.list_processes(ProcessListFilter::default()).await
    }

    /// Lets a scope address a process, or changes how the scope sees it.
    async fn grant_handle(
        &self,
        scope: SessionScope,
        process_id: &ProcessId,
        descriptor: ProcessHandleDescriptor,
    ) -> Result<ProcessHandleGrant, RegistryError> {
        let grant = ProcessHandleGrant::new(scope, process_id.clone(), descriptor);
        match self.execute_across(RegistryCommand::GrantHandle { grant }).await? {
            RegistryReceipt::Granted(grant) => Ok(grant),
            _ => Err(wrong_answer("grant_handle")),
        }
    }

    /// Ends a grant; answers whether there was one.
    async fn revoke_handle(&self, scope: SessionScope, process_id: &ProcessId) -> Result<bool, RegistryError> {
        let command = RegistryCommand::RevokeHandle { scope, process_id: process_id.clone() };
        match self.execute_across(command).await? {
            RegistryReceipt::Revoked(existed) => Ok(existed),
            _ => Err(wrong_answer("revoke_handle")),
        }
    }

    /// Moves grants from one scope to another, all or none.
    async fn transfer_handle_grants(
        &self,
        from: SessionScope,
        to: SessionScope,
        process_ids: Vec<ProcessId>,
    ) -> Result<Vec<ProcessHandleGrant>, RegistryError> {
        match self.execute_across(RegistryCommand::TransferHandleGrants { from, to, process_ids }).await? {
            RegistryReceipt::Transferred(grants) => Ok(grants),
            _ => Err(wrong_answer("transfer_handle_grants")),
        }
    }

    /// All grants of exactly this scope, each with its process, ascending by process.
    async fn list_handle_grants(
        &self,
        scope: &SessionScope,
    ) -> Result<Vec<(ProcessHandleGrant, Arc<ProcessRecord>)>, RegistryError> {
        grants_of_scope(self, scope, false).await
    }

    /// The same for processes that have not ended.
    async fn list_live_handle_grants(
        &self,
        scope: &SessionScope,
    ) -> Result<Vec<(ProcessHandleGrant, Arc<ProcessRecord>)>, RegistryError> {
        grants_of_scope(self, scope, true).await
    }

    /// Whether exactly this scope may address a process.
    async fn has_handle_grant(&self, scope: &SessionScope, process_id: &ProcessId) -> Result<bool, RegistryError> {
        let query = Query::HandleGrant { scope: scope.clone(), process_id: process_id.clone() };
        match self.query(query).await? {
            Answer::HandleGrant(grant) => Ok(grant.is_some()),
            _ => Err(wrong_answer("handle grant")),
        }
    }

    /// All grants of a process, ascending by scope.
    async fn handle_grants_for_process(
        &self,
        process_id: &ProcessId,
    ) -> Result<Vec<ProcessHandleGrant>, RegistryError> {
        let mut grants: Vec<ProcessHandleGrant> = Vec::new();
        loop {
            let after = grants.last().map(|last| last.scope.clone());
            let limit = ProcessPage::MAX_LIMIT;
            match self.query(Query::GrantsOfProcess { process_id: process_id.clone(), after, limit }).await? {
                Answer::GrantsOfProcess(page) => {
                    grants.extend(page.grants);
                    if !page.has_more {
                        return Ok(grants);
                    }
                }
                _ => return Err(wrong_answer("grants of process")),
            }
        }
    }

    /// Removes what a session could address and be told. Cancels nothing.
    async fn delete_session_process_state(
        &self,
        session_id: &str,
    ) -> Result<ProcessSessionDeleteReport, RegistryError> {
        let command = RegistryCommand::DeleteSession { session_id: session_id.to_owned() };
        match self.execute_across(command).await? {
            RegistryReceipt::SessionDeleted(report) => Ok(report),
            _ => Err(wrong_answer("delete_session_process_state")),
        }
    }

    /// Removes all ended processes that the filter means, and leaves tombstones. A transaction for every
    /// [`Limits::PRUNED_PER_COMMAND`] processes: what an error leaves undone, the next call does.
    async fn prune_terminal_processes(
        &self,
        filter: PruneFilter,
        watermark: ProjectionWatermark,
    ) -> Result<ProcessPruneReport, RegistryError> {
        let mut total = ProcessPruneReport::default();
        loop {
            let command = RegistryCommand::Prune {
                filter: filter.clone(),
                watermark: watermark.clone(),
                limit: Limits::PRUNED_PER_COMMAND,
            };
            let RegistryReceipt::Pruned(report) = self.execute_across(command).await? else {
                return Err(wrong_answer("prune_terminal_processes"));
            };
            total.pruned_processes += report.pruned_processes;
            total.pruned_events += report.pruned_events;
            // What stays is met again by every command.
            total.kept_leased = report.kept_leased;
            total.kept_unprojected = report.kept_unprojected;
            total.kept_damaged = report.kept_damaged;
            if !report.more {
                return Ok(total);
            }
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

async fn grants_of_scope<R: ProcessRegistry + ?Sized>(
    registry: &R,
    scope: &SessionScope,
    live_only: bool,
) -> Result<Vec<(ProcessHandleGrant, Arc<ProcessRecord>)>, RegistryError> {
    let mut entries: Vec<(ProcessHandleGrant, Arc<ProcessRecord>)> = Vec::new();
    loop {
        let after = entries.last().map(|(grant, _)| grant.process_id.clone());
        let query = Query::HandleGrants { scope: scope.clone(), live_only, after, limit: ProcessPage::MAX_LIMIT };
        match registry.query(query).await? {
            Answer::HandleGrants(page) => {
                entries.extend(page.entries);
                if !page.has_more {
                    return Ok(entries);
                }
            }
            _ => return Err(wrong_answer("handle grants")),
        }
    }
}

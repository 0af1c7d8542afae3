//! `decide`: what a command does to a process, as a value. It changes nothing itself.

mod across;
mod append;
mod attempt;
mod facts;
mod lease;
mod lifecycle;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use across::{PruneVerdict, RevokedGrant, check_across, clear_wake_target, prune_verdict, session_report};
pub(crate) use append::completion;

use super::{
    Command, LeaseFence, LeaseRow, ObservedProcess, OperationId, ProcessEvent, ProcessEventAppendRequest, ProcessLease,
    ProcessLeaseClaimOutcome, ProcessState, ProcessWakeDelivery, ReceiptEvent, Refusal, StoreSession,
    TerminalAuthority, WriteAuthority,
};

/// What deciding needs besides state and command: time, identity of the call, and facts that the edge looked up.
#[derive(Debug, Clone)]
pub struct DecisionContext {
    /// The wall clock, in ms since the Unix epoch.
    pub epoch_ms: u64,
    /// A suspend-aware monotonic clock, in ms since an instant that is fixed for the store session.
    pub monotonic_ms: u64,
    /// The session in which the store is open.
    pub session: StoreSession,
    /// The call. A new lease token is derived from it, so that a command which is sent again finds its own lease.
    pub operation: OperationId,
    /// What was seen under the pid of the observed holder; only a reclaim asks.
    pub observed: ObservedProcess,
    /// The event that an acknowledgement names, as the log has it; only an acknowledgement asks.
    pub wake: Option<Arc<ProcessEvent>>,
    /// Whether unfenced terminal facts and first starts pass while another's lease is in force.
    pub unfenced_writes: UnfencedWrites,
}

/// Policy for unfenced terminal facts and first starts while a lease is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnfencedWrites {
    /// They are refused.
    #[default]
    RefusedWhileLeased,
    /// They pass, as with the peer, and are recorded as unfenced.
    Allowed,
}

/// What a command does. Only when all of it is durable has any of it happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The events to append, in order; their sequences follow the state's.
    pub events: Vec<Arc<ProcessEvent>>,
    /// The new lease row.
    pub lease: Option<LeaseRow>,
    /// The wakes that the events make, to be stored with them.
    pub deliveries: Vec<ProcessWakeDelivery>,
    /// What the caller is told besides the record.
    pub reply: Reply,
}

/// What the caller is told besides the record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The events of the command, inserted and replayed.
    pub events: Vec<ReceiptEvent>,
    /// The wakes of these events, those of replayed ones included.
    pub deliveries: Vec<ProcessWakeDelivery>,
    /// Answer to a claim, reclaim or renewal.
    pub lease: Option<ProcessLeaseClaimOutcome>,
}

/// Works out what a command does to a process.
///
/// Commands that carry replay keys expect that the state answers for them: see
/// [`ReplayWindow::must_look_up`](super::ReplayWindow::must_look_up).
///
/// # Errors
/// A [`Refusal`]; the state is as it was.
pub fn decide(state: &ProcessState, command: &Command, context: &DecisionContext) -> Result<Decision, Refusal> {
    match command {
        Command::Register { registration } => lifecycle::register(state, registration, context),
        Command::Append { events, authority } => append::append(state, events, authority, context),
        Command::RequestCancel { reason } => {
            let request = ProcessEventAppendRequest::cancel_requested(&state.process_id, reason.as_deref());
            append::append(state, std::slice::from_ref(&request), &WriteAuthority::Unfenced, context)
        }
        Command::Complete { output, authority, lease } => append::complete(state, output, authority, *lease, context),
        Command::RecordFirstStarted { started, authority } => {
            lifecycle::record_first_started(state, started, authority, context)
        }
        Command::BeginAttempt { started, fence } => attempt::begin(state, started, fence, context),
        Command::FailAttempt { failure, fence } => attempt::fail(state, failure, fence, context),
        Command::SetExternalRef { external_ref } => facts::set_external_ref(state, external_ref, context),
        Command::RequestAbandon { request } => facts::request_abandon(state, request, context),
        Command::SetWait { wait, authority } => facts::set_wait(state, wait, authority, context),
        Command::ClearWait { authority } => facts::clear_wait(state, authority, context),
        Command::AckWake { sequence } => facts::ack_wake(state, *sequence, context),
        Command::ClaimLease { owner, ttl_ms } => lease::claim(state, owner, *ttl_ms, context),
        Command::ReclaimLease { owner, observed, ttl_ms } => lease::reclaim(state, owner, observed, *ttl_ms, context),
        Command::RenewLease { lease, ttl_ms } => lease::renew(state, lease, *ttl_ms, context),
        Command::ReleaseLease { lease_token } => Ok(lease::release(state, lease_token)),
    }
}

impl DecisionContext {
    /// The lease in force, if there is one.
    fn live_lease<'state>(&self, state: &'state ProcessState) -> Option<&'state ProcessLease> {
        self.live_holder(&state.lease)
    }

    fn live_holder<'row>(&self, row: &'row LeaseRow) -> Option<&'row ProcessLease> {
        let holder = row.holder.as_ref()?;
        holder.is_live(&self.session, self.epoch_ms, self.monotonic_ms).then_some(holder)
    }
}

/// Refuses a writer whose lease was released or displaced. Expiry alone does not end the right to write: nobody else
/// has begun.
fn check_fence<'state>(state: &'state ProcessState, fence: &LeaseFence) -> Result<&'state ProcessLease, Refusal> {
    state
        .lease
        .holder
        .as_ref()
        .filter(|holder| holder.fence() == *fence)
        .ok_or_else(|| Refusal::LeaseLost { process_id: state.process_id.clone() })
}

/// The right by which a fact that only one writer may establish is written.
fn sole_writer(
    state: &ProcessState,
    authority: &WriteAuthority,
    context: &DecisionContext,
) -> Result<TerminalAuthority, Refusal> {
    match authority {
        WriteAuthority::Holder(fence) => {
            let holder = check_fence(state, fence)?;
            Ok(TerminalAuthority::Holder { owner: holder.owner.clone(), fencing_token: holder.fencing_token })
        }
        WriteAuthority::Unfenced => match (context.unfenced_writes, context.live_lease(state)) {
            (UnfencedWrites::RefusedWhileLeased, Some(holder)) => {
                Err(Refusal::LeaseHeld { process_id: state.process_id.clone(), holder: Box::new(holder.clone()) })
            }
            (UnfencedWrites::RefusedWhileLeased, None) | (UnfencedWrites::Allowed, _) => {
                Ok(TerminalAuthority::Unfenced)
            }
        },
    }
}

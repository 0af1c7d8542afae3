//! Claim, reclaim, renewal and release of the lease.

use super::super::{
    LeaseOwnerIdentity, LeaseRow, LeaseToken, OperationId, ProcessLease, ProcessLeaseClaimOutcome, ProcessRecord,
    ProcessState, Refusal,
};
use super::{Decision, DecisionContext};

pub(super) fn claim(
    state: &ProcessState,
    owner: &LeaseOwnerIdentity,
    ttl_ms: u64,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    refuse_terminal(state, state.registered()?)?;
    owner.check()?;
    if let Some(acquired) = acquired_by_this_operation(state, context) {
        return Ok(acquired);
    }
    match context.live_lease(state) {
        Some(holder) if holder.owner.same_incarnation(owner) => {
            Ok(granted(state, ProcessLease { owner: owner.clone(), ..prolonged(holder, ttl_ms, context) }))
        }
        Some(holder) => Ok(busy(holder)),
        None => acquire(state, owner, ttl_ms, context),
    }
}

pub(super) fn reclaim(
    state: &ProcessState,
    owner: &LeaseOwnerIdentity,
    observed: &ProcessLease,
    ttl_ms: u64,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    refuse_terminal(state, state.registered()?)?;
    owner.check()?;
    if let Some(acquired) = acquired_by_this_operation(state, context) {
        return Ok(acquired);
    }
    let Some(holder) = context.live_lease(state) else {
        return acquire(state, owner, ttl_ms, context);
    };
    let is_the_observed_one = observed.process_id == state.process_id
        && holder.owner.same_incarnation(&observed.owner)
        && holder.fence() == observed.fence();
    if is_the_observed_one
        && holder.owner.liveness.is_definitely_dead_for(&owner.liveness, &context.session, &context.observed)
    {
        acquire(state, owner, ttl_ms, context)
    } else {
        Ok(busy(holder))
    }
}

pub(super) fn renew(
    state: &ProcessState,
    lease: &ProcessLease,
    ttl_ms: u64,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    match context.live_lease(state) {
        Some(holder) if holder.owner.same_incarnation(&lease.owner) && holder.fence() == lease.fence() => {
            Ok(granted(state, prolonged(holder, ttl_ms, context)))
        }
        _ => Err(Refusal::LeaseLost { process_id: state.process_id.clone() }),
    }
}

pub(super) fn release(state: &ProcessState, lease_token: &LeaseToken) -> Decision {
    let held_by_caller = state.lease.holder.as_ref().is_some_and(|holder| holder.lease_token == *lease_token);
    Decision { lease: held_by_caller.then(|| state.lease.released()), ..Decision::default() }
}

fn refuse_terminal(state: &ProcessState, record: &ProcessRecord) -> Result<(), Refusal> {
    match record.status.await_output() {
        Some(existing) => {
            Err(Refusal::AlreadyTerminal { process_id: state.process_id.clone(), existing: Box::new(existing.clone()) })
        }
        None => Ok(()),
    }
}

fn token_of(operation: OperationId, state: &ProcessState) -> Result<LeaseToken, Refusal> {
    LeaseToken::new(format!("lease:{operation}"))
        .map_err(|_| Refusal::LeaseLost { process_id: state.process_id.clone() })
}

/// A claim that is sent again because its answer was lost finds the lease that it took, and the holder that it
/// displaced, in the row.
fn acquired_by_this_operation(state: &ProcessState, context: &DecisionContext) -> Option<Decision> {
    let holder = state.lease.holder.as_ref()?;
    if holder.lease_token.as_str() != format!("lease:{}", context.operation) {
        return None;
    }
    Some(answered(ProcessLeaseClaimOutcome::Acquired {
        lease: holder.clone(),
        displaced: state.lease.displaced.clone(),
    }))
}

fn acquire(
    state: &ProcessState,
    owner: &LeaseOwnerIdentity,
    ttl_ms: u64,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let lease = ProcessLease {
        schema_version: ProcessLease::SCHEMA_VERSION,
        process_id: state.process_id.clone(),
        owner: owner.clone(),
        lease_token: token_of(context.operation, state)?,
        fencing_token: state.lease.fence.next(),
        claimed_at_epoch_ms: context.epoch_ms,
        expires_at_epoch_ms: context.epoch_ms.saturating_add(ttl_ms),
        granted_in: context.session.clone(),
        expires_at_monotonic_ms: context.monotonic_ms.saturating_add(ttl_ms),
    };
    let displaced = state.lease.holder.clone().map(Box::new);
    let row = LeaseRow {
        revision: state.lease.revision.saturating_add(1),
        fence: lease.fencing_token,
        holder: Some(lease.clone()),
        displaced: displaced.clone(),
    };
    Ok(Decision { lease: Some(row), ..answered(ProcessLeaseClaimOutcome::Acquired { lease, displaced }) })
}

fn prolonged(holder: &ProcessLease, ttl_ms: u64, context: &DecisionContext) -> ProcessLease {
    ProcessLease {
        expires_at_epoch_ms: context.epoch_ms.saturating_add(ttl_ms),
        granted_in: context.session.clone(),
        expires_at_monotonic_ms: context.monotonic_ms.saturating_add(ttl_ms),
        ..holder.clone()
    }
}

fn granted(state: &ProcessState, lease: ProcessLease) -> Decision {
    let row = LeaseRow {
        revision: state.lease.revision.saturating_add(1),
        fence: state.lease.fence,
        holder: Some(lease.clone()),
        displaced: state.lease.displaced.clone(),
    };
    Decision { lease: Some(row), ..answered(ProcessLeaseClaimOutcome::Acquired { lease, displaced: None }) }
}

fn busy(holder: &ProcessLease) -> Decision {
    answered(ProcessLeaseClaimOutcome::Busy { holder: holder.clone() })
}

fn answered(outcome: ProcessLeaseClaimOutcome) -> Decision {
    let mut decision = Decision::default();
    decision.reply.lease = Some(outcome);
    decision
}

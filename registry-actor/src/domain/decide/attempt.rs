//! Attempts at a process: who begins one, and what becomes of the process when one fails.

use std::sync::Arc;

use super::super::json_size::check_size;
use super::super::{
    AttemptFailed, AttemptFailure, AttemptStarted, CoreEventType, LeaseFence, LeaseRelease, ProcessStarted,
    ProcessState, RecoveryDisposition, Refusal, WriteAuthority, apply,
};
use super::append::{already_terminal, complete, completion};
use super::facts::fact;
use super::lifecycle::record_first_started;
use super::{Decision, DecisionContext, check_fence};

/// Begins an attempt, and with the first one the execution. One acquisition of the lease makes one attempt, so that a
/// call which is made again begins nothing twice. This is where the declared disposition binds: what it forbids is
/// refused here, whoever asks.
pub(super) fn begin(
    state: &ProcessState,
    started: &ProcessStarted,
    fence: &LeaseFence,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    if let Some(existing) = record.status.await_output() {
        return Err(already_terminal(state, existing));
    }
    let holder = check_fence(state, fence)?;
    let attempts = &record.attempts;
    if attempts.latest_is_of(fence.fencing_token) {
        return Ok(Decision::default());
    }
    match (record.registration.disposition, &record.first_started) {
        (RecoveryDisposition::ExternallyOwned, _) => {
            return Err(Refusal::NotExecutedHere { process_id: state.process_id.clone() });
        }
        (RecoveryDisposition::OwnerBound, Some(first)) => {
            return Err(Refusal::AlreadyStarted {
                process_id: state.process_id.clone(),
                owner: Box::new(first.owner.clone()),
            });
        }
        (RecoveryDisposition::OwnerBound, None) | (RecoveryDisposition::Rerunnable, _) => {}
    }
    if let Some(retry) = record.registration.retry.filter(|retry| !retry.allows_after(attempts.begun)) {
        return Err(Refusal::AttemptsExhausted {
            process_id: state.process_id.clone(),
            max_attempts: retry.max_attempts,
        });
    }
    let first = record_first_started(state, started, &WriteAuthority::Holder(fence.clone()), context)?;
    let begun = AttemptStarted {
        attempt: attempts.begun.saturating_add(1),
        owner: holder.owner.clone(),
        fencing_token: holder.fencing_token,
        started_at_ms: started.started_at_ms,
    };
    let started_before = first.events.iter().fold(state.clone(), apply);
    Ok(both(first, fact(&started_before, CoreEventType::AttemptStarted, &begun, None, context)?))
}

/// Ends the attempt of this holder with a failure, and gives the lease up in the same transaction. It is that of the lease, or
/// one that the same incarnation began under an earlier lease, which ran out and was taken up again. Whether another
/// attempt follows, or the process ends with the failure, is what its registration declares. A holder that began no
/// attempt has none that another could follow: it would fail for ever and use none up. That the process ends with the
/// failure, where no other may follow, is an outcome like any other, and every holder may write it.
pub(super) fn fail(
    state: &ProcessState,
    failure: &AttemptFailure,
    fence: &LeaseFence,
    context: &DecisionContext,
) -> Result<Decision, Refusal> {
    let record = state.registered()?;
    let attempts = &record.attempts;
    let retry = record.registration.retry.filter(|retry| retry.allows_after(attempts.begun));
    let Some(retry) = retry else {
        let authority = WriteAuthority::Holder(fence.clone());
        return complete(state, &failure.to_await_output(), &authority, LeaseRelease::Release, context);
    };
    if let Some(existing) = record.status.await_output() {
        return Err(already_terminal(state, existing));
    }
    // The lease is gone with the failure: who sends it again, because the answer was lost, is told that it stands.
    if attempts.latest_failed_under(fence.fencing_token).is_some_and(|told| told.failure == *failure) {
        return Ok(Decision::default());
    }
    let began_under_it = attempts.latest_is_of(fence.fencing_token);
    let holder = check_fence(state, fence)?;
    let goes_on = attempts.pending_retry().is_none()
        && attempts.latest.as_ref().is_some_and(|latest| latest.owner.same_incarnation(&holder.owner));
    if !began_under_it && !goes_on {
        return Err(Refusal::NoAttemptBegun { process_id: state.process_id.clone() });
    }
    // As the outcome that it would be: whether a failure is taken does not depend on which attempt it is of.
    check_size("payload", &completion(&state.process_id, &failure.to_await_output()).payload)?;
    let failed = AttemptFailed {
        attempt: attempts.begun,
        failure: failure.clone(),
        retry_at_ms: context.epoch_ms.saturating_add(retry.backoff_ms(attempts.begun)),
        fencing_token: (!began_under_it).then_some(fence.fencing_token),
    };
    let decision = fact(state, CoreEventType::AttemptFailed, &failed, None, context)?;
    Ok(Decision { lease: Some(state.lease.released()), ..decision })
}

fn both(mut first: Decision, second: Decision) -> Decision {
    first.events.extend(second.events.iter().map(Arc::clone));
    first.reply.events.extend(second.reply.events);
    first
}

//! Attempts: a lease that was acquired gives the right to one, and what a process declares says how many there may be.

use std::sync::Arc;

use registry_actor::domain::{
    AttemptFailed, AttemptFailure, AttemptStarted, LeaseFence, LeaseRelease, ProcessAwaitOutput, ProcessId,
    ProcessStarted, RecoveryDisposition, RetryPolicy, WriteAuthority,
};

use super::{Model, No, Receipt, Try};

impl Model {
    /// Whoever is in an attempt already, under this very lease, is left in it.
    pub(super) fn begin(
        &mut self,
        id: &ProcessId,
        started: &ProcessStarted,
        fence: &LeaseFence,
        receipt: &mut Receipt,
    ) -> Result<(), No> {
        self.refuse_ended(id)?;
        self.check_right(id, &WriteAuthority::Holder(fence.clone()))?;
        let life = self.life(id)?;
        if life.tries.iter().any(|made| made.fence == fence.fencing_token.0) {
            return Ok(());
        }
        let registration = &life.record.registration;
        if registration.disposition == RecoveryDisposition::ExternallyOwned {
            return Err(No::new("not executed here"));
        }
        if registration.disposition == RecoveryDisposition::OwnerBound
            && let Some(first) = &life.record.first_started
        {
            return Err(No::new(format!("already started by {}/{}", first.owner.owner_id, first.owner.incarnation_id)));
        }
        if may_follow(registration.retry.as_ref(), life.tries.len()) == Some(false) {
            return Err(No::new(format!("all {} attempts made", life.tries.len())));
        }
        let owner = life.holder.as_ref().expect("the fence is the holder's").owner.clone();
        if life.record.first_started.is_none() {
            self.life_mut(id)?.record.first_started = Some(Arc::new(started.clone()));
            receipt.events.push(self.fact(id, "process.first_started")?);
        }
        let life = self.life_mut(id)?;
        life.tries.push(Try { fence: fence.fencing_token.0, failed: None });
        let attempt = u32::try_from(life.tries.len()).expect("few");
        let (fencing_token, started_at_ms) = (fence.fencing_token, started.started_at_ms);
        life.record.attempts.begun = attempt;
        life.record.attempts.latest = Some(Arc::new(AttemptStarted { attempt, owner, fencing_token, started_at_ms }));
        receipt.events.push(self.fact(id, "process.attempt_started")?);
        Ok(())
    }

    /// The last failure that there may be is how the process ends.
    pub(super) fn fail(
        &mut self,
        id: &ProcessId,
        failure: &AttemptFailure,
        fence: &LeaseFence,
        receipt: &mut Receipt,
    ) -> Result<(), No> {
        let authority = WriteAuthority::Holder(fence.clone());
        let life = self.life(id)?;
        let retry = life.record.registration.retry;
        if may_follow(retry.as_ref(), life.tries.len()) != Some(true) {
            let AttemptFailure { class, code, message } = failure.clone();
            let output = ProcessAwaitOutput::Failure { class, code, message, raw: None, control: None };
            return self.complete(id, &output, &authority, LeaseRelease::Release, receipt);
        }
        self.refuse_ended(id)?;
        let last = self.life(id)?.tries.last();
        if last.is_some_and(|made| made.failed.as_ref() == Some(&(failure.clone(), fence.fencing_token.0))) {
            return Ok(());
        }
        let is_of_this_lease = last.is_some_and(|made| made.fence == fence.fencing_token.0);
        self.check_right(id, &authority)?;
        // Whoever lost the lease by delay alone and has it again is still in its attempt.
        let life = self.life(id)?;
        let began_it = life.record.attempts.latest.as_ref().map(|latest| &latest.owner);
        let is_in_it = life.tries.last().is_some_and(|made| made.failed.is_none())
            && began_it.zip(life.holder.as_ref()).is_some_and(|(began, holder)| {
                (&began.owner_id, &began.incarnation_id) == (&holder.owner.owner_id, &holder.owner.incarnation_id)
            });
        if !is_of_this_lease && !is_in_it {
            return Err(No::new("no attempt begun"));
        }
        let wait_ms = retry.map_or(0, |retry| wait_after(&retry, self.life(id).map_or(0, |life| life.tries.len())));
        let retry_at_ms = self.now.epoch_ms.saturating_add(wait_ms);
        let life = self.life_mut(id)?;
        let attempt = u32::try_from(life.tries.len()).expect("few");
        life.tries.last_mut().expect("it was begun").failed = Some((failure.clone(), fence.fencing_token.0));
        let fencing_token = (!is_of_this_lease).then_some(fence.fencing_token);
        let failed = AttemptFailed { attempt, failure: failure.clone(), retry_at_ms, fencing_token };
        life.record.attempts.failure = Some(Arc::new(failed));
        receipt.events.push(self.fact(id, "process.attempt_failed")?);
        self.release(id, &fence.lease_token);
        Ok(())
    }
}

/// Whether one more may follow so many, if the process says how many there may be.
fn may_follow(retry: Option<&RetryPolicy>, made: usize) -> Option<bool> {
    retry.map(|retry| u64::try_from(made).expect("few") < u64::from(retry.max_attempts))
}

fn wait_after(retry: &RetryPolicy, failed: usize) -> u64 {
    let doubled = (1..failed).fold(retry.initial_backoff_ms, |wait, _| wait.saturating_mul(2));
    doubled.min(retry.max_backoff_ms)
}

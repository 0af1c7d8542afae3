//! What a run writes to its process: fenced by its lease, and patient with a registry that does not take it for the moment.
//!
//! It owns the fence and the patience. It does not know what the writes mean.

use std::sync::Arc;

use tokio::time::sleep;

use super::lease_keeper::LeaseKeeper;
use crate::domain::{
    AttemptFailure, Command, LeaseFence, LeaseRelease, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessId,
    ProcessRecord, ProcessStarted, Receipt, Refusal, WaitState, WriteAuthority,
};
use crate::port::{Backoff, ProcessRegistry, ProcessRegistryExt, RegistryError};

/// The writing end of one run.
#[derive(Clone)]
pub(super) struct Journal {
    registry: Arc<dyn ProcessRegistry>,
    process_id: ProcessId,
    keeper: Arc<LeaseKeeper>,
}

/// Whether a write may be made again when nobody knows if it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// To make it twice is to make it once.
    Harmless,
    /// To make it twice is to have it twice.
    Doubles,
}

impl Journal {
    pub(super) fn new(registry: Arc<dyn ProcessRegistry>, process_id: ProcessId, keeper: Arc<LeaseKeeper>) -> Self {
        Self { registry, process_id, keeper }
    }

    pub(super) async fn append(&self, events: Vec<ProcessEventAppendRequest>) -> Result<Receipt, RegistryError> {
        let repeat =
            if events.iter().all(|event| event.replay_key.is_some()) { Repeat::Harmless } else { Repeat::Doubles };
        let command = |fence| Command::Append { events: events.clone(), authority: WriteAuthority::Holder(fence) };
        self.execute(command, repeat).await
    }

    /// Begins the attempt of this lease, and answers the record that says so.
    pub(super) async fn begin_attempt(&self, started: &ProcessStarted) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = |fence| Command::BeginAttempt { started: started.clone(), fence };
        self.execute(command, Repeat::Harmless).await.and_then(|receipt| self.record_of(receipt))
    }

    /// Writes the outcome and gives the lease up, in one transaction.
    pub(super) async fn complete(&self, output: &ProcessAwaitOutput) -> Result<Arc<ProcessRecord>, RegistryError> {
        let command = |fence| Command::Complete {
            output: output.clone(),
            authority: WriteAuthority::Holder(fence),
            lease: LeaseRelease::Release,
        };
        self.last_write(command).await
    }

    /// Ends the attempt with a failure and gives the lease up, in one transaction.
    pub(super) async fn fail_attempt(&self, failure: &AttemptFailure) -> Result<Arc<ProcessRecord>, RegistryError> {
        self.last_write(|fence| Command::FailAttempt { failure: failure.clone(), fence }).await
    }

    pub(super) async fn set_wait(&self, wait: WaitState) -> Result<(), RegistryError> {
        let command = |fence| Command::SetWait { wait: wait.clone(), authority: WriteAuthority::Holder(fence) };
        self.execute(command, Repeat::Harmless).await.map(drop)
    }

    pub(super) async fn clear_wait(&self) -> Result<(), RegistryError> {
        let command = |fence| Command::ClearWait { authority: WriteAuthority::Holder(fence) };
        self.execute(command, Repeat::Harmless).await.map(drop)
    }

    /// Gives the lease up without an outcome. If this fails the lease runs out by itself.
    pub(super) async fn release(&self) -> Result<(), RegistryError> {
        // A renewal after this would find the lease gone and could not know that this is what was wanted.
        self.keeper.stop();
        let lease = self.keeper.lease();
        let mut backoff = Backoff::default();
        for _ in 0..RELEASE_TRIES {
            match self.registry.complete_process_lease(&lease).await {
                Err(error) if passes(&error, Repeat::Harmless) => sleep(backoff.delay()).await,
                answered => return answered,
            }
        }
        self.registry.complete_process_lease(&lease).await
    }

    /// A write that gives the lease up. It is not known to a renewal that comes after it that this was wanted: so the
    /// renewals end when it has been made, or cannot be.
    async fn last_write(
        &self,
        command: impl Fn(LeaseFence) -> Command + Send + Sync,
    ) -> Result<Arc<ProcessRecord>, RegistryError> {
        self.keeper.expect_release();
        let (mut unknown, mut backoff) = (false, Backoff::default());
        loop {
            match self.execute(&command, Repeat::Doubles).await {
                Err(error @ RegistryError::OutcomeUnknown { .. }) if !self.keeper.is_lost() => {
                    tracing::warn!(process_id = %self.process_id, %error, "whether the end of a run was written is unknown");
                    unknown = true;
                    sleep(backoff.delay()).await;
                }
                // It was made the first time, and with it went the lease.
                Err(RegistryError::Refused(Refusal::LeaseLost { .. } | Refusal::AlreadyTerminal { .. })) if unknown => {
                    self.keeper.stop();
                    let record = self.registry.get_process(&self.process_id).await?;
                    return record.ok_or_else(|| Refusal::Unknown { process_id: self.process_id.clone() }.into());
                }
                answered => {
                    self.keeper.stop();
                    return answered.and_then(|receipt| self.record_of(receipt));
                }
            }
        }
    }

    fn record_of(&self, receipt: Receipt) -> Result<Arc<ProcessRecord>, RegistryError> {
        receipt.record.ok_or_else(|| Refusal::Unknown { process_id: self.process_id.clone() }.into())
    }

    /// Tries as long as the lease is held: a store that is full for less than its lease lasts costs that time, and not the work.
    async fn execute(
        &self,
        command: impl Fn(LeaseFence) -> Command + Send + Sync,
        repeat: Repeat,
    ) -> Result<Receipt, RegistryError> {
        let mut backoff = Backoff::default();
        loop {
            let fence = self.keeper.fence();
            match self.registry.execute(&self.process_id, command(fence.clone())).await {
                // The lease ran out and was taken up again just then: nobody else has written.
                Err(RegistryError::Refused(Refusal::LeaseLost { .. })) if self.keeper.fence() != fence => {}
                Err(error) if passes(&error, repeat) && !self.keeper.is_lost() => {
                    tracing::warn!(process_id = %self.process_id, %error, "a write of a run is tried again");
                    sleep(backoff.delay()).await;
                }
                answered => return answered,
            }
        }
    }
}

/// How often the release of a lease is tried: it runs out by itself.
const RELEASE_TRIES: usize = 5;

/// Whether the error may pass, and the write may be made again then.
const fn passes(error: &RegistryError, repeat: Repeat) -> bool {
    error.may_pass() && (error.changed_nothing() || matches!(repeat, Repeat::Harmless))
}

/// Makes a write again that may be made again, some times.
pub(super) async fn passes_soon<F>(mut write: impl FnMut() -> F) -> Result<Receipt, RegistryError>
where
    F: Future<Output = Result<Receipt, RegistryError>>,
{
    let mut backoff = Backoff::default();
    for _ in 0..RELEASE_TRIES {
        match write().await {
            Err(error) if passes(&error, Repeat::Harmless) => sleep(backoff.delay()).await,
            answered => return answered,
        }
    }
    write().await
}

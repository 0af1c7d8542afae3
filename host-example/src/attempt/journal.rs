//! What a run writes to its process: fenced by its lease, and patient with a store that is busy for a moment.
//!
//! It owns the fence and the patience. It does not know what the events mean.

use std::{sync::Arc, time::Duration};

use registry_actor::{
    actor::ActorRegistry,
    domain::{
        Command, CoreEventType, LeaseRelease, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessId, ProcessStarted,
        Receipt, Refusal, Sequence, WriteAuthority,
    },
    port::{ProcessRegistry, ProcessRegistryExt, RegistryError},
};
use tokio::time::sleep;

use crate::lease_keeper::LeaseKeeper;

/// How often a write is tried that the registry does not take for the moment.
const TRIES: u32 = 30;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// The writing end of one run.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    registry: ActorRegistry,
    process_id: ProcessId,
    keeper: Arc<LeaseKeeper>,
}

/// Whether a write may be tried again when nobody knows if it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repeat {
    /// To make it twice is to make it once.
    Harmless,
    /// To make it twice is to have it twice.
    Doubles,
}

impl Journal {
    /// The journal of a run under this lease.
    pub(crate) fn new(registry: ActorRegistry, process_id: ProcessId, keeper: Arc<LeaseKeeper>) -> Self {
        Self { registry, process_id, keeper }
    }

    /// Appends events, all or none.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn append(&self, events: Vec<ProcessEventAppendRequest>) -> Result<(), RegistryError> {
        self.execute(|authority| Command::Append { events: events.clone(), authority }, Repeat::Doubles).await.map(drop)
    }

    /// Records that the execution began, unless that is known.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn record_first_started(&self, started_at_ms: u64) -> Result<(), RegistryError> {
        let started = ProcessStarted { owner: self.keeper.lease().owner.clone(), started_at_ms };
        let command = |authority| Command::RecordFirstStarted { started: started.clone(), authority };
        self.execute(command, Repeat::Harmless).await.map(drop)
    }

    /// Records the wish that the process stop.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn request_cancel(&self, reason: &str) -> Result<(), RegistryError> {
        self.registry.request_process_cancel(&self.process_id, Some(reason.to_owned())).await.map(drop)
    }

    /// Whether somebody has ever asked that the process stop.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn is_cancel_requested(&self) -> Result<bool, RegistryError> {
        let event_type = CoreEventType::CancelRequested.name();
        let request = self.registry.first_event_of_type(&self.process_id, event_type, Sequence::REGISTRATION).await?;
        Ok(request.is_some())
    }

    /// Writes the outcome and gives the lease up, in one transaction. Answers the sequence of the last event, which is
    /// the count of events.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn complete(&self, output: ProcessAwaitOutput) -> Result<u64, RegistryError> {
        let command = |authority| Command::Complete { output: output.clone(), authority, lease: LeaseRelease::Release };
        let receipt = self.execute(command, Repeat::Harmless).await?;
        Ok(receipt.events.last().map_or(0, |event| event.event().sequence.0))
    }

    /// Gives the lease up without an outcome.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub(crate) async fn release(&self) -> Result<(), RegistryError> {
        // A renewal after this would find the lease gone and could not know that this is what we wanted.
        self.keeper.stop();
        self.registry.complete_process_lease(&self.keeper.lease()).await
    }

    async fn execute(
        &self,
        command: impl Fn(WriteAuthority) -> Command,
        repeat: Repeat,
    ) -> Result<Receipt, RegistryError> {
        let mut tries = 1;
        loop {
            let fence = self.keeper.fence();
            let answered =
                self.registry.execute(&self.process_id, command(WriteAuthority::Holder(fence.clone()))).await;
            match answered {
                // The lease ran out and was taken up again just then: nobody else has written.
                Err(RegistryError::Refused(Refusal::LeaseLost { .. })) if self.keeper.fence() != fence => {}
                Err(error) if tries < TRIES && may_try_again(&error, repeat) => {
                    tracing::warn!(process_id = %self.process_id, %error, "trying again");
                    tries += 1;
                    sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
    }
}

fn may_try_again(error: &RegistryError, repeat: Repeat) -> bool {
    match error {
        RegistryError::Busy { .. } | RegistryError::Unavailable { .. } => true,
        RegistryError::OutcomeUnknown { .. } => repeat == Repeat::Harmless,
        _ => false,
    }
}

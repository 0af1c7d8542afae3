//! A command on its way to the actor of its process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::domain::{Command, OperationId, Receipt, Sequence};
use crate::port::RegistryError;

/// A command with everything that its answer needs. If it is dropped unanswered, the caller sees a closed channel and
/// sends the command again under the same operation.
#[derive(Debug)]
pub(super) struct Envelope {
    /// What is shared by all sendings of one call.
    pub(super) call: Arc<Call>,
    reply: oneshot::Sender<Result<Receipt, RegistryError>>,
}

/// One call of a caller.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) operation: OperationId,
    pub(super) command: Command,
    /// Zero until a batch with this command is handed to the log: from then on "nothing changed" cannot be promised
    /// without asking the log. Then one more than the first sequence that an event of the command may have.
    submitted: AtomicU64,
    /// The life of the process that the batch was for.
    generation: AtomicU32,
    /// Whether the answer to such a batch was lost: from then on only the log knows whether it is stored.
    lost: AtomicBool,
    /// Comes back when the last sending is gone, also when an actor dies with a full mailbox.
    _permit: OwnedSemaphorePermit,
}

impl Call {
    pub(super) const fn new(operation: OperationId, command: Command, permit: OwnedSemaphorePermit) -> Self {
        let (submitted, generation, lost) = (AtomicU64::new(0), AtomicU32::new(0), AtomicBool::new(false));
        Self { operation, command, submitted, generation, lost, _permit: permit }
    }

    /// The first of several submissions counts: whoever looks for the events of all of them has to begin there.
    pub(super) fn mark_submitted(&self, first: Sequence, generation: u32) {
        let mark = first.0.saturating_add(1);
        // A mark that stands already is left alone.
        if self.submitted.compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.generation.store(generation, Ordering::Relaxed);
        }
    }

    /// Another writer came first: nothing of the batch is stored. What an earlier one stored is another matter.
    pub(super) fn mark_conflicted(&self) {
        if !self.was_lost() {
            self.submitted.store(0, Ordering::Relaxed);
        }
    }

    /// Nobody will say any more what became of the batch.
    pub(super) fn mark_lost(&self) {
        if self.was_submitted() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn was_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether a batch with the command may be stored in a life that is over. Such a life has taken its operations with it.
    pub(super) fn may_be_of_a_life_before(&self, lived: u32) -> bool {
        self.was_submitted() && self.generation.load(Ordering::Relaxed) < lived
    }

    pub(super) fn mark_not_stored(&self) {
        self.submitted.store(0, Ordering::Relaxed);
    }

    pub(super) fn was_submitted(&self) -> bool {
        self.submitted_from().is_some()
    }

    /// The first sequence that an event of the command may have, if the command may be stored.
    pub(super) fn submitted_from(&self) -> Option<Sequence> {
        self.submitted.load(Ordering::Relaxed).checked_sub(1).map(Sequence)
    }
}

impl Envelope {
    /// A sending of the call, and where its answer arrives.
    pub(super) fn new(call: Arc<Call>) -> (Self, oneshot::Receiver<Result<Receipt, RegistryError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { call, reply }, answer)
    }

    /// Answers the caller. A caller that has gone away is no matter: what was done is in the log.
    pub(super) fn answer(self, result: Result<Receipt, RegistryError>) {
        drop(self.reply.send(result));
    }
}

//! Waiting for an outcome by message: for an actor, which must not stand still while it waits.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ractor::{ActorRef, Message};
use tokio::task::AbortHandle;

use crate::domain::{ProcessAwaitOutput, ProcessId};
use crate::port::{EngineError, ProcessAttach};

/// Waits for the outcome of a process and sends it to an actor, once: as what `wrap` makes of it.
///
/// The wait ends by itself when the answer was sent or the actor has died. It costs a task, whose size is about that of the
/// attach's own future, and what the attach keeps for a waiter; it does not poll if the attach does not. An attach that
/// panics is answered as an [`EngineError`]: an actor that waits for a message has no other way to learn of it. A `wrap` that
/// panics leaves it without an answer.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn await_by_message<M: Message>(
    attach: Arc<dyn ProcessAttach>,
    process_id: &ProcessId,
    subscriber: ActorRef<M>,
    wrap: impl FnOnce(Result<ProcessAwaitOutput, EngineError>) -> M + Send + 'static,
) -> ActorWait {
    let process_id = process_id.clone();
    let task = tokio::spawn(async move {
        let subscriber_ends = subscriber.get_cell();
        tokio::select! {
            biased;
            _ = subscriber_ends.wait(None) => {}
            outcome = outcome_of(&*attach, &process_id) => {
                // One that died meanwhile needs no answer.
                drop(subscriber.cast(wrap(outcome)));
            }
        }
    });
    ActorWait { task: task.abort_handle() }
}

async fn outcome_of(attach: &dyn ProcessAttach, process_id: &ProcessId) -> Result<ProcessAwaitOutput, EngineError> {
    let mut waiting = pin!(attach.await_terminal(process_id));
    poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| waiting.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(EngineError::engine("whoever was asked for the outcome panicked"))))
    })
    .await
}

/// A wait of an actor, made by [`await_by_message`]. Its drop gives the wait up; an answer that is on its way may still
/// arrive.
#[must_use = "its drop gives the wait up"]
#[derive(Debug)]
pub struct ActorWait {
    task: AbortHandle,
}

impl ActorWait {
    /// Whether the wait has ended: answered, given up, or without anybody to answer.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for ActorWait {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! The registry as something to attach to: its waiters are told by its own source of changes.

use async_trait::async_trait;

use super::registry::ActorRegistry;
use crate::domain::{ProcessAwaitOutput, ProcessId};
use crate::port::{EngineError, ProcessAttach, ProcessWait, RegistryError, WaitAnswer, WaitError};

#[async_trait]
impl ProcessAttach for ActorRegistry {
    async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, EngineError> {
        match self.wait(&ProcessWait::outcome(process_id.clone())).await {
            Ok(WaitAnswer::NoLongerRetained { tombstone }) => Err(EngineError::NoLongerRetained { tombstone }),
            Ok(answer) => answer.output().cloned().ok_or_else(|| {
                RegistryError::WrongAnswer { query: format!("the wait for the outcome of {process_id}") }.into()
            }),
            Err(WaitError::Registry(error)) => Err(error.into()),
            Err(WaitError::SourceClosed { .. }) => Err(RegistryError::Closed.into()),
        }
    }
}

//! Foreign owners of processes: who can be asked for an outcome, and who can be told to look for work.

use async_trait::async_trait;

use super::registry::RegistryError;
use crate::domain::{ProcessAwaitOutput, ProcessId, Tombstone};

/// Something that knows how processes end, and tells without being polled: an engine that runs them, or a registry
/// whose actors own them.
#[async_trait]
pub trait ProcessAttach: Send + Sync {
    /// Waits for the outcome. There is no timeout. May be dropped at any time.
    ///
    /// # Errors
    /// [`EngineError`].
    async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, EngineError>;
}

/// Starts what can be started.
///
/// # Contract
/// 1. Idempotent: processes that are leased or have ended are passed over.
/// 2. The call returns when the work was started, not when it was done.
#[async_trait]
pub trait ProcessRunHandle: Send + Sync {
    /// Claims and runs what nobody runs. `reason` says for logs why this is the moment: `process_start`, `timer`.
    ///
    /// # Errors
    /// [`EngineError`] if it could not look for work. What becomes of one process is no error of the call.
    async fn claim_and_run_pending(&self, reason: &str) -> Result<(), EngineError>;
}

/// What runs processes could not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The registry could not.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The process was pruned: it has ended, and its outcome is gone.
    #[error("process `{}` is no longer retained: it ended as {}", .tombstone.process_id, .tombstone.terminal_state)]
    NoLongerRetained {
        /// What is left of it.
        tombstone: Box<Tombstone>,
    },
    /// An engine outside of it could not.
    #[error("{message}")]
    Engine {
        /// What it said.
        message: String,
    },
}

impl EngineError {
    /// The error of an engine outside of the registry.
    #[must_use]
    pub fn engine(message: impl Into<String>) -> Self {
        Self::Engine { message: message.into() }
    }
}

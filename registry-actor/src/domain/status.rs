//! Whether a process has ended, and how.

use serde::{Deserialize, Serialize};

use super::{ProcessAwaitOutput, ProcessTerminalState};

/// Status of a process. Waiting is not a status: a process that waits is running.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ProcessStatus {
    /// Not ended.
    #[default]
    Running,
    /// Ended well.
    Completed {
        /// The outcome.
        await_output: ProcessAwaitOutput,
    },
    /// Ended badly.
    Failed {
        /// The outcome.
        await_output: ProcessAwaitOutput,
    },
    /// Ended on request.
    Cancelled {
        /// The outcome.
        await_output: ProcessAwaitOutput,
    },
    /// Ended because nobody can finish it.
    Abandoned {
        /// The outcome.
        await_output: ProcessAwaitOutput,
    },
}

impl ProcessStatus {
    /// The terminal status of a declared state with its outcome.
    #[must_use]
    pub const fn terminal(state: ProcessTerminalState, await_output: ProcessAwaitOutput) -> Self {
        match state {
            ProcessTerminalState::Completed => Self::Completed { await_output },
            ProcessTerminalState::Failed => Self::Failed { await_output },
            ProcessTerminalState::Cancelled => Self::Cancelled { await_output },
            ProcessTerminalState::Abandoned => Self::Abandoned { await_output },
        }
    }

    /// Whether the process has ended.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        !matches!(self, Self::Running)
    }

    /// The terminal state, if it has ended.
    #[must_use]
    pub const fn terminal_state(&self) -> Option<ProcessTerminalState> {
        match self {
            Self::Running => None,
            Self::Completed { .. } => Some(ProcessTerminalState::Completed),
            Self::Failed { .. } => Some(ProcessTerminalState::Failed),
            Self::Cancelled { .. } => Some(ProcessTerminalState::Cancelled),
            Self::Abandoned { .. } => Some(ProcessTerminalState::Abandoned),
        }
    }

    /// The outcome, if it has ended.
    #[must_use]
    pub const fn await_output(&self) -> Option<&ProcessAwaitOutput> {
        match self {
            Self::Running => None,
            Self::Completed { await_output }
            | Self::Failed { await_output }
            | Self::Cancelled { await_output }
            | Self::Abandoned { await_output } => Some(await_output),
        }
    }

    /// The name that JSON, filters and columns use.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self.terminal_state() {
            None => "running",
            Some(state) => state.label(),
        }
    }
}

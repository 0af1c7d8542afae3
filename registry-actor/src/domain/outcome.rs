//! The one terminal outcome of a process.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LeaseOwnerIdentity;
use super::explicit_null::present;

/// How a process ended, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessTerminalState {
    /// It succeeded.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Nobody can finish it any more.
    Abandoned,
}

impl ProcessTerminalState {
    /// All of them, in declaration order.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Cancelled, Self::Abandoned];

    /// The name that JSON, filters and columns use.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
        }
    }
}

impl std::fmt::Display for ProcessTerminalState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.label())
    }
}

/// What an awaiter receives: the terminal outcome with its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ProcessAwaitOutput {
    /// It succeeded.
    Success {
        /// The result.
        value: Value,
        /// Passed through unread.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        control: Option<Value>,
    },
    /// It failed.
    Failure {
        /// What kind of failure.
        class: ProcessFailureClass,
        /// Stable code for machines.
        code: String,
        /// Text for people.
        message: String,
        /// The failure as its source reported it.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        raw: Option<Value>,
        /// Passed through unread.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        control: Option<Value>,
    },
    /// It was cancelled.
    Cancelled {
        /// Text for people.
        message: String,
        /// The cancellation as its source reported it.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        raw: Option<Value>,
        /// Passed through unread.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        control: Option<Value>,
    },
    /// Nobody can finish it any more.
    Abandoned {
        /// Who said so, and why.
        evidence: Box<AbandonEvidence>,
        /// Passed through unread.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
        control: Option<Value>,
    },
}

impl ProcessAwaitOutput {
    /// A success with its value.
    #[must_use]
    pub const fn success(value: Value) -> Self {
        Self::Success { value, control: None }
    }

    /// A failure without a raw form.
    #[must_use]
    pub fn failure(class: ProcessFailureClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Failure { class, code: code.into(), message: message.into(), raw: None, control: None }
    }

    /// A cancellation.
    #[must_use]
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::Cancelled { message: message.into(), raw: None, control: None }
    }

    /// An abandonment with its evidence.
    #[must_use]
    pub fn abandoned(evidence: AbandonEvidence) -> Self {
        Self::Abandoned { evidence: Box::new(evidence), control: None }
    }

    /// The state that this outcome stands for.
    #[must_use]
    pub const fn terminal_state(&self) -> ProcessTerminalState {
        match self {
            Self::Success { .. } => ProcessTerminalState::Completed,
            Self::Failure { .. } => ProcessTerminalState::Failed,
            Self::Cancelled { .. } => ProcessTerminalState::Cancelled,
            Self::Abandoned { .. } => ProcessTerminalState::Abandoned,
        }
    }

    /// The payload of the core terminal event that carries this outcome.
    #[must_use]
    pub fn to_event_payload(&self) -> Value {
        json!({ "await_output": self })
    }
}

/// What kind of failure it was; decides whether another try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProcessFailureClass {
    /// The request could never have worked.
    InvalidRequest,
    /// What it needs is not there now.
    Unavailable,
    /// It may not.
    PermissionDenied,
    /// It took too long.
    Timeout,
    /// It ran and failed.
    Execution,
    /// A foreign system failed.
    External,
    /// A limit was reached.
    ResourceLimit,
    /// A fault of the host itself.
    Internal,
}

/// Why a process counts as abandoned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbandonEvidence {
    /// Which path wrote it.
    pub writer: AbandonWriter,
    /// The owner that is gone, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<LeaseOwnerIdentity>,
    /// When it was decided, in ms since the Unix epoch.
    pub epoch_ms: u64,
    /// What was proved about the owner and what it left behind, in the words of the writer.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub detail: Option<Value>,
}

/// Which path abandoned a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AbandonWriter {
    /// The owner itself, on its way out.
    OwnerDrain,
    /// Recovery, with a proof of the owner's death.
    Sweep,
    /// Recovery, on somebody's request.
    ReconciledRequest,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Some(Null)` was written as `null` and read as absent. A failure whose raw form is null, which is what a custom
    /// terminal type makes of a null payload, was then another outcome after a restart than before it, and its owner's
    /// second completion with the very same outcome was refused as contradicting the first.
    #[test]
    fn an_outcome_with_explicit_nulls_reads_back_as_it_was_written() {
        let evidence =
            AbandonEvidence { writer: AbandonWriter::Sweep, owner: None, epoch_ms: 1, detail: Some(Value::Null) };
        let null = || Some(Value::Null);
        for output in [
            ProcessAwaitOutput::Success { value: Value::Null, control: null() },
            ProcessAwaitOutput::Failure {
                class: ProcessFailureClass::Execution,
                code: "c".into(),
                message: "m".into(),
                raw: null(),
                control: null(),
            },
            ProcessAwaitOutput::Cancelled { message: "m".into(), raw: null(), control: null() },
            ProcessAwaitOutput::Abandoned { evidence: Box::new(evidence), control: null() },
            ProcessAwaitOutput::success(Value::Null),
            ProcessAwaitOutput::cancelled("without"),
        ] {
            let text = serde_json::to_string(&output).expect("an outcome has a JSON form");
            assert_eq!(serde_json::from_str::<ProcessAwaitOutput>(&text).expect("reads back"), output, "{text}");
        }
    }
}

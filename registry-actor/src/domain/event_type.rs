//! Event types: what a process declares about the events that may be appended to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nesting::nests_within;
use super::{PayloadSchema, ProcessTerminalState, ProcessValueSelector};

/// A declared event type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessEventType {
    /// Name, unique within the process.
    pub name: String,
    /// What a payload must look like.
    pub payload_schema: PayloadSchema,
    /// What an event of this type means beyond being stored.
    #[serde(default)]
    pub semantics: ProcessEventSemanticsSpec,
}

impl ProcessEventType {
    /// A type that accepts every payload and means nothing more.
    #[must_use]
    pub fn plain(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            payload_schema: PayloadSchema::any(),
            semantics: ProcessEventSemanticsSpec::default(),
        }
    }

    /// Whether an append of this type must carry a replay key.
    #[must_use]
    pub fn requires_replay_key(&self) -> bool {
        self.semantics.terminal.is_some() || self.name == CoreEventType::CancelRequested.name()
    }

    /// Whether its schema and its selectors have at most so many levels each.
    pub(crate) fn nests_within(&self, levels: usize) -> bool {
        let terminal = self.semantics.terminal.as_ref().and_then(|terminal| terminal.await_output.as_ref());
        let wake = self.semantics.wake.as_ref();
        let dedupe = wake.and_then(|wake| match &wake.dedupe_key {
            ProcessWakeDedupeKey::Selector(selector) => Some(selector),
            ProcessWakeDedupeKey::EventIdentity | ProcessWakeDedupeKey::Const(_) => None,
        });
        let selectors = [terminal, wake.and_then(|wake| wake.when.as_ref()), wake.map(|wake| &wake.input), dedupe];
        nests_within(self.payload_schema.as_value(), levels)
            && selectors.into_iter().flatten().all(|selector| selector.nests_within(levels))
    }
}

/// What events of a type mean. The default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessEventSemanticsSpec {
    /// Ends the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<ProcessTerminalSpec>,
    /// Wakes a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<ProcessWakeSpec>,
}

/// How an event ends its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessTerminalSpec {
    /// The state that it ends in.
    pub state: ProcessTerminalState,
    /// Where the outcome is. Mandatory unless the state is completed, whose default is the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub await_output: Option<ProcessValueSelector>,
}

/// How an event wakes a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessWakeSpec {
    /// Wakes only if this holds. A pointer that names nothing does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<ProcessValueSelector>,
    /// What the session is told.
    pub input: ProcessValueSelector,
    /// Which wakes count as one.
    #[serde(default)]
    pub dedupe_key: ProcessWakeDedupeKey,
}

/// Which wakes count as one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessWakeDedupeKey {
    /// Each event is a wake of its own.
    #[default]
    EventIdentity,
    /// Wakes with an equal selected value.
    Selector(ProcessValueSelector),
    /// All wakes with this text.
    Const(String),
}

/// The registry's own event types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CoreEventType {
    /// Somebody asks that the process stop.
    CancelRequested,
    /// The process waits for a signal.
    Waiting,
    /// The process no longer waits.
    Resumed,
    /// It succeeded.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Nobody can finish it.
    Abandoned,
    /// It exists: sequence 0, the base of fold and chain.
    Registered,
    /// Execution began.
    FirstStarted,
    /// Somebody began to execute it, for the first time or again.
    AttemptStarted,
    /// An attempt failed, and another is to follow.
    AttemptFailed,
    /// A foreign backend knows it under a name.
    ExternalRefSet,
    /// It waits, said by the runner through a command.
    WaitSet,
    /// It no longer waits, said by the runner through a command.
    WaitCleared,
    /// Somebody authorises its abandonment.
    AbandonRequested,
    /// Nobody is woken by it any more.
    WakeTargetCleared,
    /// A wake was taken.
    WakeAcknowledged,
}

impl CoreEventType {
    /// Those that every process declares, in the order in which they are added to a registration. Callers may append
    /// them under the rules of their kind.
    pub const DECLARED: [Self; 7] = [
        Self::CancelRequested,
        Self::Waiting,
        Self::Resumed,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Abandoned,
    ];

    /// Those that only the registry appends. They cannot be declared.
    pub const INTERNAL: [Self; 10] = [
        Self::Registered,
        Self::FirstStarted,
        Self::AttemptStarted,
        Self::AttemptFailed,
        Self::ExternalRefSet,
        Self::WaitSet,
        Self::WaitCleared,
        Self::AbandonRequested,
        Self::WakeTargetCleared,
        Self::WakeAcknowledged,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CancelRequested => "process.cancel_requested",
            Self::Waiting => "process.waiting",
            Self::Resumed => "process.resumed",
            Self::Completed => "process.completed",
            Self::Failed => "process.failed",
            Self::Cancelled => "process.cancelled",
            Self::Abandoned => "process.abandoned",
            Self::Registered => "process.registered",
            Self::FirstStarted => "process.first_started",
            Self::AttemptStarted => "process.attempt_started",
            Self::AttemptFailed => "process.attempt_failed",
            Self::ExternalRefSet => "process.external_ref_set",
            Self::WaitSet => "process.wait_set",
            Self::WaitCleared => "process.wait_cleared",
            Self::AbandonRequested => "process.abandon_requested",
            Self::WakeTargetCleared => "process.wake_target_cleared",
            Self::WakeAcknowledged => "process.wake_acknowledged",
        }
    }

    /// The core type of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |core: &Self| core.name() == name;
        Self::DECLARED.into_iter().find(named).or_else(|| Self::INTERNAL.into_iter().find(named))
    }

    /// The core type that ends a process in a state.
    #[must_use]
    pub const fn of_terminal_state(state: ProcessTerminalState) -> Self {
        match state {
            ProcessTerminalState::Completed => Self::Completed,
            ProcessTerminalState::Failed => Self::Failed,
            ProcessTerminalState::Cancelled => Self::Cancelled,
            ProcessTerminalState::Abandoned => Self::Abandoned,
        }
    }

    /// The declaration of a core type: every payload, and for the terminal ones the outcome at `/await_output`.
    #[must_use]
    pub fn declaration(self) -> ProcessEventType {
        let terminal =
            ProcessTerminalState::ALL.into_iter().find(|state| Self::of_terminal_state(*state) == self).map(|state| {
                ProcessTerminalSpec {
                    state,
                    await_output: Some(ProcessValueSelector::Pointer("/await_output".to_owned())),
                }
            });
        ProcessEventType {
            semantics: ProcessEventSemanticsSpec { terminal, wake: None },
            ..ProcessEventType::plain(self.name())
        }
    }
}

/// Payload helper of the cancel request; the replay key makes equal reasons one event.
pub(crate) fn cancel_request_payload(reason: Option<&str>) -> Value {
    serde_json::json!({ "reason": reason })
}

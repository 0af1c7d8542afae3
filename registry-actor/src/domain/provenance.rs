//! Where a process came from. Lineage only: it never drives behaviour.

use serde::{Deserialize, Serialize};

use super::{ProcessId, Sequence, SessionScope};

/// Who asked for the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProcessOriginator {
    /// The host itself.
    #[default]
    Host,
    /// A session of the host.
    Session {
        /// The asking scope.
        scope: SessionScope,
    },
}

impl ProcessOriginator {
    /// `host`, or the id of the scope.
    #[must_use]
    pub fn scope_id(&self) -> String {
        match self {
            Self::Host => "host".to_owned(),
            Self::Session { scope } => scope.id().to_string(),
        }
    }
}

/// Lineage of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessProvenance {
    /// Who asked for it.
    pub originator: ProcessOriginator,
    /// What made them ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<CausalRef>,
}

/// What caused a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CausalRef {
    /// A turn of a session.
    Turn {
        /// The session.
        session_id: String,
        /// The turn.
        turn_id: String,
    },
    /// An effect of a turn.
    Effect {
        /// The session.
        session_id: String,
        /// The turn, if the effect belongs to one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        turn_id: Option<String>,
        /// The effect.
        effect_id: String,
    },
    /// A tool call.
    ToolCall {
        /// The session.
        session_id: String,
        /// The call.
        call_id: String,
    },
    /// Another process.
    Process {
        /// That process.
        process_id: ProcessId,
    },
    /// An event of another process.
    ProcessEvent {
        /// That process.
        process_id: ProcessId,
        /// The event.
        sequence: Sequence,
    },
    /// A trigger that fired.
    TriggerOccurrence {
        /// The occurrence.
        occurrence_id: String,
    },
    /// A node of a session's graph.
    SessionNode {
        /// The session.
        session_id: String,
        /// The node.
        node_id: String,
    },
}

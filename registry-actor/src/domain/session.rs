//! Session scopes: who may see a process, and who is woken by it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Addressing scope: a session, or one agent frame within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionScope {
    /// The session.
    pub session_id: String,
    /// The frame within the session. An empty frame counts as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_frame_id: Option<String>,
}

impl SessionScope {
    /// The scope of a whole session.
    #[must_use]
    pub fn session(session_id: impl Into<String>) -> Self {
        Self { session_id: session_id.into(), agent_frame_id: None }
    }

    /// The scope of one frame. An empty frame id gives the session's own scope.
    #[must_use]
    pub fn frame(session_id: impl Into<String>, frame_id: impl Into<String>) -> Self {
        let frame_id = frame_id.into();
        Self { session_id: session_id.into(), agent_frame_id: (!frame_id.is_empty()).then_some(frame_id) }
    }

    /// Rendered form, for display and for the wake id: `session:{sid}` or `session:{sid}/frame:{fid}`. It is not
    /// injective; storage keys are structured instead.
    #[must_use]
    pub fn id(&self) -> SessionScopeId {
        SessionScopeId(match self.agent_frame_id.as_deref() {
            None | Some("") => format!("session:{}", self.session_id),
            Some(frame) => format!("session:{}/frame:{frame}", self.session_id),
        })
    }

    /// Whether no session is named.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.session_id.is_empty()
    }
}

/// The rendered id of a [`SessionScope`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionScopeId(String);

impl SessionScopeId {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionScopeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

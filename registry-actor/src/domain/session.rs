//! Session scopes: who may see a process, and who is woken by it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::name::check_name;

/// Addressing scope: a session, or one agent frame within it. An empty frame is the session's own scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "AnyScope")]
pub struct SessionScope {
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_frame_id: Option<String>,
}

/// A scope as it may be written.
#[derive(Deserialize)]
struct AnyScope {
    session_id: String,
    #[serde(default)]
    agent_frame_id: Option<String>,
}

impl From<AnyScope> for SessionScope {
    fn from(AnyScope { session_id, agent_frame_id }: AnyScope) -> Self {
        Self::frame(session_id, agent_frame_id.unwrap_or_default())
    }
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

    /// The session.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// The frame within the session; never empty.
    #[must_use]
    pub fn agent_frame_id(&self) -> Option<&str> {
        self.agent_frame_id.as_deref()
    }

    /// Rendered form, for display and for the wake id: `session:{sid}` or `session:{sid}/frame:{fid}`. It is not
    /// injective; storage keys are structured instead.
    #[must_use]
    pub fn id(&self) -> SessionScopeId {
        SessionScopeId(match &self.agent_frame_id {
            None => format!("session:{}", self.session_id),
            Some(frame) => format!("session:{}/frame:{frame}", self.session_id),
        })
    }

    /// Whether no session is named.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.session_id.is_empty()
    }

    /// Refuses a scope that names no session, or that no store takes.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        Self::check_session(&self.session_id)?;
        match &self.agent_frame_id {
            Some(frame) => check_name("agent frame id", frame),
            None => Ok(()),
        }
    }

    /// Refuses a session id that names nothing, or that no store takes.
    pub(crate) fn check_session(session_id: &str) -> Result<(), Refusal> {
        check_name("session id", session_id)
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

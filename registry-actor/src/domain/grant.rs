//! Grants: which session scopes may address a process. Visibility only; they never affect execution.

use serde::{Deserialize, Serialize};

use super::{ProcessId, SessionScope};

/// How a scope sees a process that it was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessHandleDescriptor {
    /// What kind of work, in the words of the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Which work, in the words of the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// An edge between a scope and a process. A session's own scope and each of its frames are distinct scopes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessHandleGrant {
    /// Who may address it.
    pub scope: SessionScope,
    /// What may be addressed.
    pub process_id: ProcessId,
    /// How it is seen.
    pub descriptor: ProcessHandleDescriptor,
}

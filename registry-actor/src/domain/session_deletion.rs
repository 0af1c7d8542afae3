//! Deletion of a session: what it leaves of the processes that the session could address.

use serde::{Deserialize, Serialize};

use super::ProcessId;

/// What the deletion of a session did. No process is cancelled by it, and no lease is touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSessionDeleteReport {
    /// The session.
    pub session_id: String,
    /// Grants that are gone, those on ended processes included.
    pub revoked_handle_count: u64,
    /// Pending wakes of the session that were settled.
    pub deleted_wake_count: u64,
    /// Processes that have not ended and that nobody can address any more. Ascending.
    pub orphaned_process_ids: Vec<ProcessId>,
    /// Processes that have not ended and that others can still address. Ascending.
    pub preserved_process_ids: Vec<ProcessId>,
    /// Processes that the session is still the wake target of, because what is stored of them is damaged. Ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged_process_ids: Vec<ProcessId>,
}

/// The deletion of a session, as the change feed tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDeletion {
    /// The session.
    pub session_id: String,
    /// Grants that went with it.
    pub revoked_handle_count: u64,
    /// Pending wakes that were settled by it.
    pub deleted_wake_count: u64,
    /// When, in ms since the Unix epoch.
    pub deleted_at_ms: u64,
}

//! Commands that concern several processes, or a session: each is one transaction of the log.

use serde::{Deserialize, Serialize};

use super::{
    ProcessHandleDescriptor, ProcessHandleGrant, ProcessId, ProcessPruneReport, ProcessSessionDeleteReport,
    ProjectionWatermark, PruneFilter, SessionScope,
};

/// A mutation that no single process owns. The actor of a process that it touches learns of it as of a foreign writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistryCommand {
    /// Lets a scope address a process, or changes how the scope sees it.
    GrantHandle {
        /// The grant.
        grant: ProcessHandleGrant,
    },
    /// Ends that. Not granted, or an unknown process: nothing changes.
    RevokeHandle {
        /// The scope.
        scope: SessionScope,
        /// The process.
        process_id: ProcessId,
    },
    /// Moves grants from one scope to another, all or none; each must be granted to `from`. Descriptors are kept.
    TransferHandleGrants {
        /// Who has them.
        from: SessionScope,
        /// Who gets them.
        to: SessionScope,
        /// Which ones.
        process_ids: Vec<ProcessId>,
    },
    /// Removes what a session could address and be told: its grants, its pending wakes, and wake targets that name it.
    DeleteSession {
        /// The session, with all of its frames.
        session_id: String,
    },
    /// Removes ended processes and leaves tombstones.
    Prune {
        /// Which ones.
        filter: PruneFilter,
        /// How far projections have come.
        watermark: ProjectionWatermark,
        /// At most so many, 1 to [`Limits::PRUNED_PER_COMMAND`](super::Limits::PRUNED_PER_COMMAND); larger values are
        /// cut to it.
        limit: u32,
    },
}

impl RegistryCommand {
    /// Short name, for logs and spans.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GrantHandle { .. } => "grant_handle",
            Self::RevokeHandle { .. } => "revoke_handle",
            Self::TransferHandleGrants { .. } => "transfer_handle_grants",
            Self::DeleteSession { .. } => "delete_session",
            Self::Prune { .. } => "prune",
        }
    }
}

/// Answer to a [`RegistryCommand`]. Everything in it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "receipt", content = "value", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistryReceipt {
    /// Answer to [`RegistryCommand::GrantHandle`].
    Granted(ProcessHandleGrant),
    /// Answer to [`RegistryCommand::RevokeHandle`]: whether there was a grant.
    Revoked(bool),
    /// Answer to [`RegistryCommand::TransferHandleGrants`]: the grants as they are now, ascending by process.
    Transferred(Vec<ProcessHandleGrant>),
    /// Answer to [`RegistryCommand::DeleteSession`].
    SessionDeleted(ProcessSessionDeleteReport),
    /// Answer to [`RegistryCommand::Prune`].
    Pruned(ProcessPruneReport),
}

impl ProcessHandleGrant {
    /// A grant of a process to a scope.
    #[must_use]
    pub const fn new(scope: SessionScope, process_id: ProcessId, descriptor: ProcessHandleDescriptor) -> Self {
        Self { scope, process_id, descriptor }
    }
}

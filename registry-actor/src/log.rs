//! Durable logs: what stands behind [`ProcessLog`](crate::port::ProcessLog).
//!
//! It owns the bytes under which events, records and leases are stored, and who is told of a commit. It does not know
//! actors, commands or why a batch was decided; a batch that breaks the shape of a log is refused, its meaning is not
//! asked.

mod across;
#[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "a log in memory keeps values, not bytes"))]
pub(crate) mod codec;
mod followers;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod verification;

use std::sync::Arc;

pub use memory::{AppendFault, MemoryLog};
#[cfg(feature = "sqlite")]
pub use sqlite::{
    BackupCheck, BackupError, BackupProgress, BackupReport, CheckedStore, EarlierSessions, ExistingStore, FaultVerdict,
    OpenError, RestoreReport, SqliteLog, SqliteOptions, SqliteReader, StoreHolder, VacuumAtClose, VacuumPace,
    WriterFaults, WriterPoint, restore_backup,
};

use crate::domain::{ProcessEvent, ReplayKey};

/// Replay keys with the events under them.
type Replays = Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>;

/// How many batches wait for the writer before the next one is refused as busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of plain batches, in batches.
    pub plain: usize,
    /// Of urgent batches, in batches. They have room of their own, so that a flood of output costs no lease.
    pub urgent: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { plain: 8_192, urgent: 4_096 }
    }
}

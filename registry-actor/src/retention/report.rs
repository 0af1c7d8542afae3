//! What passes did.

use super::projection::ProjectionUnknown;
use crate::domain::ProcessPruneReport;
use crate::port::RegistryError;

/// What one pass did. A pass that failed has done what its counts say; one that panicked took its counts along.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionReport {
    /// When it began, in ms since the Unix epoch: the instant by which ages were counted. 0 if it
    /// panicked.
    pub began_at_epoch_ms: u64,
    /// What went and what stayed, over all rules. `more` is what a limit of the pass left for the next.
    pub pruned: ProcessPruneReport,
    /// How many commands were given.
    pub commands: u32,
    /// How it ended.
    pub end: PassEnd,
}

/// How a pass ended.
#[derive(Debug, Clone, PartialEq)]
pub enum PassEnd {
    /// It did all that its limit allows.
    Complete,
    /// It was stopped between two commands.
    Stopped,
    /// A command or the question for the watermark failed.
    Failed(RetentionError),
}

/// Why a pass ended before it was complete.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// The registry refused or could not carry out a command.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The watermark is not known.
    #[error(transparent)]
    Projection(#[from] ProjectionUnknown),
    /// Registry, clock or watermark panicked.
    #[error("a pass of the retention panicked")]
    Panicked,
}

/// How the retention of a registry is getting on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetentionStatus {
    /// How many passes have ended, failed ones included.
    pub passes: u64,
    /// How many of the last ones failed in a row.
    pub failures_in_a_row: u32,
    /// The last one.
    pub last: Option<RetentionReport>,
}

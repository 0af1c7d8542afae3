//! Named points at which a test may hold or fail the writer. The product is built with them and installs none.

use std::fmt;

/// A point on the way of a group of batches to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriterPoint {
    /// Something is queued, and the writer is about to take its next group.
    TakeGroup,
    /// The statements of a group ran. A failure here is that of a full disk: nothing is stored.
    Statements,
    /// A group is about to be committed. A failure here leaves it unknown, and not stored.
    BeforeCommit,
    /// A group was committed. A failure here leaves it unknown, and stored.
    AfterCommit,
    /// The writer, after a failure, is about to reopen the store. A failure here lets it try again later.
    Reopen,
    /// A log file that was left over was written anew and synced, before any connection was opened. A failure here does
    /// nothing.
    LogFileRewritten,
}

/// What is to happen at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultVerdict {
    /// The writer goes on.
    Pass,
    /// The step fails.
    Fail,
}

/// Decides what happens at the points, on the writer's thread. It may block: that holds commits back.
pub trait WriterFaults: Send + Sync + fmt::Debug {
    /// The writer is at this point.
    fn reached(&self, point: WriterPoint) -> FaultVerdict;
}

/// Nothing fails.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NoWriterFaults;

impl WriterFaults for NoWriterFaults {
    fn reached(&self, _point: WriterPoint) -> FaultVerdict {
        FaultVerdict::Pass
    }
}

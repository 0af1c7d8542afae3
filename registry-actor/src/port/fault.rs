//! Named points at which a test may make the registry fail. The product is built with them and installs none: what is
//! tested is what runs.

/// A point on the way of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// An actor is about to load its process.
    Load,
    /// An actor is about to decide a batch.
    Decide,
    /// A batch was handed to the log, whose answer is out.
    AfterSubmit,
    /// A batch is durable and its callers have not been answered.
    AfterCommitBeforeReply,
}

impl FaultPoint {
    /// All of them, in the order in which a command meets them.
    pub const ALL: [Self; 4] = [Self::Load, Self::Decide, Self::AfterSubmit, Self::AfterCommitBeforeReply];
}

/// What happens at the named points.
pub trait FaultPoints: Send + Sync {
    /// Called when a process passes a point. It may panic: that is its purpose.
    fn reached(&self, point: FaultPoint, process_id: &crate::domain::ProcessId);
}

/// Nothing happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl FaultPoints for NoFaults {
    fn reached(&self, _point: FaultPoint, _process_id: &crate::domain::ProcessId) {}
}

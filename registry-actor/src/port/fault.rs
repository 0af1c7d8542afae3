//! Named points at which a test may make the registry fail. The product is built with them and installs none: what is
//! tested is what runs.

/// A point on the way of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// In a shard: an actor is about to be started.
    Activate,
    /// In a shard: a command is about to wait for a process that ends or comes back.
    Buffer,
    /// An actor is about to load its process.
    Load,
    /// An actor is about to decide a batch.
    Decide,
    /// A batch is decided and about to be handed to the log.
    BeforeSubmit,
    /// A batch was handed to the log, whose answer is out.
    AfterSubmit,
    /// A batch is durable, and its callers have not been answered.
    AfterCommitBeforeReply,
    /// The state of a batch is installed, and its callers have not been answered.
    AfterInstall,
    /// In the publisher: listeners are about to be told of a commit.
    BeforeTell,
    /// In the publisher: listeners were told of a commit, and that is not written down.
    AfterTell,
}

impl FaultPoint {
    /// All of them, in the order in which a command meets them.
    pub const ALL: [Self; 10] = [
        Self::Activate,
        Self::Buffer,
        Self::Load,
        Self::Decide,
        Self::BeforeSubmit,
        Self::AfterSubmit,
        Self::AfterCommitBeforeReply,
        Self::AfterInstall,
        Self::BeforeTell,
        Self::AfterTell,
    ];
}

/// Somebody of the supervision tree, or what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TreeMember {
    /// The root.
    Root,
    /// The publisher.
    Publisher,
    /// A shard, by its number.
    Shard(usize),
    /// The source of changes, and with it everybody who listens.
    Listeners,
    /// The log.
    Log,
}

impl std::fmt::Display for TreeMember {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => formatter.write_str("the root"),
            Self::Publisher => formatter.write_str("the publisher"),
            Self::Shard(index) => write!(formatter, "shard {index}"),
            Self::Listeners => formatter.write_str("the listeners"),
            Self::Log => formatter.write_str("the log"),
        }
    }
}

/// A step in the life of the supervision tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TreeStep {
    /// A member begins.
    Started(TreeMember),
    /// In the root: a member that has failed is about to be started again.
    Restarting(TreeMember),
    /// A member has ended, by itself or not.
    Ended(TreeMember),
}

/// What happens at the named points.
pub trait FaultPoints: Send + Sync {
    /// Called when a process passes a point. It may panic: that is its purpose.
    fn reached(&self, point: FaultPoint, process_id: &crate::domain::ProcessId);

    /// Called at each step of the tree. It may panic at [`TreeStep::Restarting`]; a panic elsewhere is only logged.
    fn tree(&self, _step: &TreeStep) {}
}

/// Nothing happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl FaultPoints for NoFaults {
    fn reached(&self, _point: FaultPoint, _process_id: &crate::domain::ProcessId) {}
}

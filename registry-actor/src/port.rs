//! The pure traits and values between rooms: what a registry answers, what a durable log promises, who hears of commits,
//! and where time comes from.
//!
//! It does not know which runtime, actors or database stand behind them.

mod attach;
mod change;
mod clock;
mod fault;
mod log;
mod query;
mod registry;
mod sink;

pub use attach::{EngineError, ProcessAttach, ProcessRunHandle};
pub use change::{ChangeSource, CommitListener, CommittedBatch};
pub use clock::{Clock, Timestamp};
pub use fault::{FaultPoint, FaultPoints, NoFaults};
pub use log::{
    AcrossError, AppendError, AppendReply, AppendResult, BatchEvent, CommitFollower, CommittedGroup, FeedPage, Head,
    LogError, LogFault, Position, Precondition, ProcessBatch, ProcessLog, ProcessVerification, StoredProcess,
};
pub use query::{
    Answer, ChangePage, EventPage, HandleGrantPage, PendingWake, PendingWakePage, ProcessChange, ProcessGrantPage,
    ProcessPage, Query,
};
pub use registry::{DurabilityTier, ProcessRegistry, ProcessRegistryExt, RegistryError, SignalReceipt};
pub use sink::{MissedEvents, ProcessEventSink, is_emitted};

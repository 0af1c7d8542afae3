//! The pure traits and values between rooms: what a registry answers, what a durable log promises, who hears of commits,
//! and where time comes from.
//!
//! It does not know which runtime, actors or database stand behind them.

mod attach;
mod backoff;
mod change;
mod clock;
mod executor;
mod fault;
mod log;
mod query;
mod registry;
mod sink;
mod sync;
mod wait;
mod wait_table;

pub use attach::{EngineError, ProcessAttach, ProcessRunHandle};
pub use backoff::Backoff;
pub use change::{ChangeSource, CommitListener, CommittedBatch};
pub use clock::{Clock, Timestamp};
pub use executor::{ProcessExecutor, ProcessRun, RemainsError, RemainsOf, RunEnd, RunWaitError, StopCause};
pub use fault::{FaultPoint, FaultPoints, NoFaults, TreeMember, TreeStep};
pub use log::{
    AcrossError, AppendError, AppendReply, AppendResult, BatchEvent, CommitFollower, CommittedGroup, FeedPage,
    GroupChanges, Head, LogError, LogFault, Position, Precondition, ProcessBatch, ProcessLog, ProcessVerification,
    StoredProcess,
};
pub use query::{
    Answer, ChangePage, EventPage, FeedEntry, HandleGrantPage, PendingWake, PendingWakePage, ProcessChange,
    ProcessGrantPage, ProcessPage, Query, RecentProcessPage,
};
pub use registry::{DurabilityTier, ProcessRegistry, ProcessRegistryExt, RegistryError, SignalReceipt};
pub use sink::{MissedEvents, ProcessEventSink, is_emitted};
pub use wait::{Awaited, Look, ProcessWait, WaitAnswer, WaitError, WaitReader};
pub use wait_table::{ParkedWait, WaitNotice};

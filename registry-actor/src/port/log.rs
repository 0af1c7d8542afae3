//! The durable log, as the actors see it.

use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::change::CommittedBatch;
use super::query::{Answer, Query};
use super::registry::DurabilityTier;
use crate::domain::{
    DecisionContext, Digest, LeaseRow, OperationId, ProcessEvent, ProcessId, ProcessRecord, ProcessWakeDelivery,
    Refusal, RegistryCommand, RegistryReceipt, ReplayKey, Sequence, SessionDeletion, StoreSession, Tombstone,
};

/// A durable, append-only log of many processes.
///
/// # Contract
/// 1. **Durable before answered.** When a batch is answered with success, it survives a crash of the host and a loss of
///    power.
/// 2. **All or nothing.** A batch is stored whole or not at all, whatever else is in its group.
/// 3. **Preconditions.** A batch whose head or lease revision is not the stored one is answered with
///    [`AppendError::Conflict`], and nothing of it is stored.
/// 4. **Dense.** The sequences of a process are 0, 1, 2 … without a gap.
/// 5. **Unique keys.** No two events of a process have one replay key.
/// 6. **Read your writes.** A read that starts after the answer sees the batch.
/// 7. **Positions** grow strictly, and become visible in order: a reader that has seen a position has seen every
///    smaller one that will ever exist.
/// 8. **Chained.** Each event is linked to the one before it; a read never returns an event whose link does not hold.
/// 9. **Unknown is said.** A batch that may or may not be stored is answered with [`AppendError::Unknown`], and no
///    later batch is stored before that question is settled.
/// 10. **Urgent first.** An urgent batch overtakes the plain ones of other processes that are still queued, and is
///     admitted when plain ones are refused for want of room.
/// 11. **Followers** hear each committed group once, in order, after it is durable and readable, before or after its
///     batches are answered.
/// 12. **One life at a time.** A process is stored anew only as the generation after its tombstone's; any other batch that
///     registers it conflicts.
/// 13. **Wakes with their events.** The deliveries of a batch are stored with it. For one target and one wake id there is
///     one delivery, as long as the process of the first is retained; an acknowledgement settles that of its event.
/// 14. **Every batch is answered**, exactly once, also when the log is closed or its writer dies.
#[async_trait]
pub trait ProcessLog: Send + Sync + fmt::Debug {
    /// The session in which the store is open.
    fn session(&self) -> &StoreSession;

    /// Hands a batch to the writer and returns at once. The answer comes through `reply`, on whatever thread.
    fn submit(&self, batch: ProcessBatch, reply: AppendReply);

    /// What an actor needs of a process, or `None` if it is unknown. Its record checksum and the link of its last
    /// event are verified.
    ///
    /// `operation_tail` is how many of the last events tell their operation: 0 unless a predecessor may have left
    /// callers without an answer.
    ///
    /// # Errors
    /// [`LogError`].
    async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError>;

    /// Whether a precondition holds: what a decision that writes nothing is checked against, since no batch of its own
    /// carries the question to the writer.
    ///
    /// # Errors
    /// [`LogError`].
    async fn holds(&self, process_id: &ProcessId, expected: Precondition) -> Result<bool, LogError> {
        let stored = self.load(process_id, 0).await?;
        Ok(match stored {
            Some(stored) => expected.head == Some(stored.head) && expected.lease_revision == stored.lease.revision,
            None => expected.head.is_none(),
        })
    }

    /// The events under these keys, in the order of the keys.
    ///
    /// # Errors
    /// [`LogError`].
    async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError>;

    /// Carries out a command that concerns several processes, as one transaction: it reads, decides and writes between two
    /// groups of batches, so that nothing comes in between. Of a process that it touches, batches which were decided
    /// before conflict. A dropped future does not take it back.
    ///
    /// # Errors
    /// [`AcrossError`].
    async fn execute_across(
        &self,
        command: RegistryCommand,
        context: DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError>;

    /// What survives of what it answers with success.
    fn durability(&self) -> DurabilityTier;

    /// Answers a read.
    ///
    /// # Errors
    /// [`LogError::Unknown`] where the query demands a process that is not there.
    async fn query(&self, query: Query) -> Result<Answer, LogError>;

    /// The events after a position, over all processes, in commit order.
    ///
    /// # Errors
    /// [`LogError`].
    async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError>;

    /// Adds a follower of commits for as long as somebody else keeps it alive; answers the position after which it
    /// hears everything.
    fn follow(&self, follower: Weak<dyn CommitFollower>) -> Position;

    /// Checks every stored fact of one process: links, density, checksum of the record, and that folding the events
    /// gives the record. Damage is reported, not returned as an error.
    ///
    /// # Errors
    /// [`LogError`] where the check itself could not be made.
    async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError>;

    /// Ids, ascending, without reading anything else of a process: what a check of a damaged store walks along.
    ///
    /// # Errors
    /// [`LogError`].
    async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError>;

    /// Stores what is queued, refuses what comes later, and gives the store back. May be called twice.
    async fn close(&self);
}

/// Place of an event in the log as a whole. Opaque: it grows, and says nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

impl Position {
    /// A place, for the log that gives it away; 0 is before the first event.
    #[must_use]
    pub const fn new(place: u64) -> Self {
        Self(place)
    }

    /// The place, for the log that gave it away.
    #[must_use]
    pub const fn place(self) -> u64 {
        self.0
    }
}

/// The end of a process's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last event.
    pub sequence: Sequence,
    /// Link of the last event.
    pub chain: Digest,
}

/// What must still be true when a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precondition {
    /// The end of the process's log; `None` if it must not exist.
    pub head: Option<Head>,
    /// Revision of its lease row; 0 if it has none.
    pub lease_revision: u64,
}

/// An event on its way to the log.
#[derive(Debug, Clone)]
pub struct BatchEvent {
    /// The call that appends it.
    pub operation: OperationId,
    /// The event.
    pub event: Arc<ProcessEvent>,
}

/// What one process wants stored, all or nothing.
#[derive(Debug, Clone)]
pub struct ProcessBatch {
    /// The process.
    pub process_id: ProcessId,
    /// What must still be true.
    pub expected: Precondition,
    /// Events to append; may be empty when only the lease moves.
    pub events: Vec<BatchEvent>,
    /// The wakes that these events make, for targets that are known.
    pub deliveries: Vec<ProcessWakeDelivery>,
    /// The record after these events.
    pub record: Arc<ProcessRecord>,
    /// Whether more of the record than `updated_at_ms` differs from what is stored.
    pub body_changed: bool,
    /// The new lease row.
    pub lease: Option<LeaseRow>,
    /// Whether it goes ahead of plain batches.
    pub urgent: bool,
}

/// Takes the answer to a batch. If it is dropped unused, the batch counts as unknown.
pub struct AppendReply(Option<AnswerFn>);

/// The head after the batch, or why there is none.
pub type AppendResult = Result<Option<Head>, AppendError>;

type AnswerFn = Box<dyn FnOnce(AppendResult) + Send>;

impl AppendReply {
    /// A reply that calls this function, on the writer's thread: it must not block.
    #[must_use]
    pub fn new(answer: impl FnOnce(AppendResult) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Answers: the head after the batch.
    pub fn answer(mut self, result: AppendResult) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(AppendError::Unknown { reason: "the writer ended before it answered".to_owned() }));
        }
    }
}

impl fmt::Debug for AppendReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AppendReply")
    }
}

/// Why a batch was not stored, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// A precondition did not hold: somebody else wrote. Nothing of the batch is stored.
    #[error("the process was changed by another writer")]
    Conflict,
    /// The queue is full. Nothing of the batch is stored.
    #[error("the log's queue of {limit} batches is full")]
    Busy {
        /// Its length.
        limit: usize,
    },
    /// The store refused it. Nothing of the batch is stored.
    #[error("the log did not accept the batch: {reason}")]
    NotAccepted {
        /// Why.
        reason: String,
    },
    /// It may or may not be stored. Only a reload tells.
    #[error("whether the batch is stored is unknown: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
    /// The log is closed. Nothing of the batch is stored.
    #[error("the log is closed")]
    Closed,
}

/// Why a command across processes was not carried out, or may not have been.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AcrossError {
    /// It was refused. Nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store did not take it, or nobody knows.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What it had to read could not be read. Nothing changed.
    #[error(transparent)]
    Read(#[from] LogError),
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogError {
    /// The read demands a process that is not there.
    #[error("unknown process `{process_id}`")]
    Unknown {
        /// The process.
        process_id: ProcessId,
    },
    /// The read itself is refused, whatever is stored.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// What is stored does not verify.
    #[error("process `{process_id}` is damaged at sequence {sequence}: {what}")]
    Damaged {
        /// The process.
        process_id: ProcessId,
        /// Where.
        sequence: Sequence,
        /// How.
        what: String,
    },
    /// The store could not be read.
    #[error("the store could not be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

impl From<Refusal> for LogError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl LogError {
    /// As an answer to a caller: an unknown process is a refusal, everything else a fault of the store.
    pub(crate) fn into_refusal(self) -> Result<Refusal, Self> {
        match self {
            Self::Unknown { process_id } => Ok(Refusal::Unknown { process_id }),
            Self::Refused(refusal) => Ok(*refusal),
            other => Err(other),
        }
    }
}

/// What an actor needs of a stored process.
#[derive(Debug, Clone)]
pub struct StoredProcess {
    /// The record, `updated_at_ms` as of the head.
    pub record: Arc<ProcessRecord>,
    /// The end of its log.
    pub head: Head,
    /// Its lease row.
    pub lease: LeaseRow,
    /// Operations of the last events, ascending by sequence.
    pub operations: Vec<(Sequence, OperationId)>,
}

/// Events of many processes, in commit order.
#[derive(Debug, Clone)]
pub struct FeedPage {
    /// What happened. The records are those of now, not those of the commits.
    pub changes: GroupChanges,
    /// Where to go on.
    pub next: Position,
    /// Whether more followed when the page was read.
    pub has_more: bool,
}

/// Result of checking one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessVerification {
    /// The process.
    pub process_id: ProcessId,
    /// How many events were checked, the registration included.
    pub events: u64,
    /// What is damaged; empty if nothing is.
    pub faults: Vec<LogFault>,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("sequence {sequence}: {what}")]
pub struct LogFault {
    /// Where.
    pub sequence: Sequence,
    /// How.
    pub what: String,
}

/// A group of batches that became durable together.
#[derive(Debug, Clone)]
pub struct CommittedGroup {
    /// Last position before the group: a follower that knows another has missed something.
    pub previous: Position,
    /// Last position of the group.
    pub position: Position,
    /// What happened.
    pub changes: Arc<GroupChanges>,
}

/// What happened to the store in one or several commits.
#[derive(Debug, Clone, Default)]
pub struct GroupChanges {
    /// What each process gained, in commit order. Batches that only moved a lease are left out.
    pub batches: Vec<CommittedBatch>,
    /// Processes that were pruned.
    pub pruned: Vec<Tombstone>,
    /// Sessions that were deleted. What that changed of processes is in the batches.
    pub sessions_deleted: Vec<SessionDeletion>,
}

impl GroupChanges {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.pruned.is_empty() && self.sessions_deleted.is_empty()
    }
}

/// Hears of each committed group, on the writer's thread.
pub trait CommitFollower: Send + Sync {
    /// The group is durable. Must not block.
    fn follow(&self, group: &CommittedGroup);
}

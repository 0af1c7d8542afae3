//! A log in memory: the whole contract but the survival of the host. Several registries may share one.
//!
//! Tests drive the paths that a disk takes rarely: they hold commits back, and let appends and reads fail. It knows no
//! thread of its own: a batch is stored on the thread that submits it, and its answer is out when `submit` returns,
//! unless commits are held back.

mod reads;
mod rows;
mod store;
mod wakes;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::store::{Admission, Queued, Store};
use super::followers::Followers;
use super::{QueueLimits, codec};
use crate::domain::{
    DecisionContext, ProcessEvent, ProcessId, RegistryCommand, RegistryReceipt, ReplayKey, StoreSession,
};
use crate::port::{
    AcrossError, Answer, AppendError, AppendReply, CommitFollower, DurabilityTier, FeedPage, LogError, Position,
    ProcessBatch, ProcessLog, ProcessVerification, Query, StoredProcess,
};

/// How an append fails in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFault {
    /// The batch is stored, and its answer says that this is unknown.
    UnknownStored,
    /// The batch is not stored, and its answer says that this is unknown.
    UnknownNotStored,
    /// The batch is refused, and nothing of it is stored.
    NotAccepted,
}

/// A log in memory. Clones are one log.
#[derive(Clone)]
pub struct MemoryLog {
    session: StoreSession,
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    followers: Followers,
    reads: AtomicU64,
    queue_grew: Notify,
}

impl MemoryLog {
    /// An empty log under this store id, in its first session.
    #[must_use]
    pub fn new(store_id: impl Into<Arc<str>>) -> Self {
        Self::with_limits(store_id, QueueLimits::default())
    }

    /// The same with other queues: they fill only while commits are held back.
    #[must_use]
    pub fn with_limits(store_id: impl Into<Arc<str>>, limits: QueueLimits) -> Self {
        let store_id = store_id.into();
        Self {
            session: StoreSession { store_id: Arc::clone(&store_id), number: 1 },
            shared: Arc::new(Shared {
                store: Mutex::new(Store::new(store_id, limits)),
                followers: Followers::starting_after(Position::default()),
                reads: AtomicU64::new(0),
                queue_grew: Notify::new(),
            }),
        }
    }

    /// The same store in its next session. The present one is closed by it, as a host's death would.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.close_now();
        let mut store = self.store();
        store.open_next_session();
        let session = StoreSession { store_id: Arc::clone(&self.session.store_id), number: store.session_number() };
        drop(store);
        Self { session, shared: Arc::clone(&self.shared) }
    }

    /// Holds commits back: batches queue from now on.
    pub fn pause(&self) {
        self.store().pause();
    }

    /// Stores what has queued, urgent batches first, as one group, and goes on without a queue.
    pub fn resume(&self) {
        let answers = self.store().resume();
        self.deliver(answers);
    }

    /// How many batches wait because commits are held back.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.store().queued()
    }

    /// Waits until so many batches are held back.
    pub async fn queued_at_least(&self, batches: usize) {
        loop {
            let grew = self.shared.queue_grew.notified();
            tokio::pin!(grew);
            // Listen first, then look: a batch that queues in between must not be missed.
            grew.as_mut().enable();
            if self.queued() >= batches {
                return;
            }
            grew.await;
        }
    }

    /// Lets the nth append from now fail, counted in commit order; 1 is the next one. May be called for several.
    pub fn fail_append(&self, nth: u64, fault: AppendFault) {
        self.store().fail_append(nth, fault);
    }

    /// Lets so many of the next reads fail as unreadable.
    pub fn fail_reads(&self, reads: u64) {
        self.store().fail_reads(reads);
    }

    /// How many reads there were: loads, lookups, queries, feed pages, checks.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// How many batches reached the store, whatever became of them.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.store().appends()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_current(&self, store: &Store) -> bool {
        store.session_number() == self.session.number
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> Result<T, LogError>) -> Result<T, LogError> {
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        let mut store = self.store();
        if store.is_closed() || !self.is_current(&store) {
            return Err(LogError::Closed);
        }
        store.take_read_fault()?;
        read(&store)
    }

    /// Answers callers and tells followers, outside the lock: both may submit again.
    fn deliver(&self, answers: Vec<(AppendReply, crate::port::AppendResult)>) {
        for (reply, result) in answers {
            reply.answer(result);
        }
        // One thread at a time tells, and it tells what others committed meanwhile: followers hear in order.
        loop {
            // A follower may submit: the lock must be free while it is told.
            let next = self.store().begin_telling();
            let Some(group) = next else { return };
            self.shared.followers.tell(&group);
            self.store().end_telling();
        }
    }

    fn close_now(&self) {
        let mut store = self.store();
        if !self.is_current(&store) {
            return;
        }
        let answers = store.resume();
        store.close();
        drop(store);
        self.deliver(answers);
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryLog").field("session", &self.session).finish_non_exhaustive()
    }
}

#[async_trait]
impl ProcessLog for MemoryLog {
    fn session(&self) -> &StoreSession {
        &self.session
    }

    fn submit(&self, batch: ProcessBatch, reply: AppendReply) {
        let batch = match codec::encode(batch) {
            Ok(batch) => batch,
            Err(malformed) => {
                return reply.answer(Err(AppendError::NotAccepted { reason: malformed.to_string() }));
            }
        };
        let mut store = self.store();
        if !self.is_current(&store) {
            drop(store);
            return reply.answer(Err(AppendError::Closed));
        }
        let admission = store.admit(Queued { batch, reply });
        drop(store);
        match admission {
            Admission::Answered(answers) => self.deliver(answers),
            Admission::Held => self.shared.queue_grew.notify_waiters(),
        }
    }

    async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError> {
        self.read(|store| Ok(store.load(process_id, operation_tail)))
    }

    async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError> {
        self.read(|store| store.find_replays(process_id, keys))
    }

    async fn execute_across(
        &self,
        command: RegistryCommand,
        context: DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError> {
        let result = {
            let mut store = self.store();
            if self.is_current(&store) {
                store.execute_across(&command, &context)
            } else {
                Err(AppendError::Closed.into())
            }
        };
        self.deliver(Vec::new());
        result
    }

    fn durability(&self) -> DurabilityTier {
        DurabilityTier::Inline
    }

    async fn query(&self, query: Query) -> Result<Answer, LogError> {
        self.read(|store| store.query(&query))
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError> {
        self.read(|store| Ok(store.feed(after, limit)))
    }

    fn follow(&self, follower: Weak<dyn CommitFollower>) -> Position {
        self.shared.followers.add(follower)
    }

    async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        self.read(|store| store.verify(process_id))
    }

    async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError> {
        self.read(|store| Ok(store.process_ids(after.as_ref(), limit)))
    }

    async fn close(&self) {
        self.close_now();
    }
}

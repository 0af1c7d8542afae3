//! A log that sees who writes and who loads: whether two incarnations of a process write at once, and how many loads are
//! under way. It can hold loads and queries back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use registry_actor::domain::{
    DecisionContext, ProcessEvent, ProcessId, RegistryCommand, RegistryReceipt, ReplayKey, StoreSession,
};
use registry_actor::port::{
    AcrossError, Answer, AppendError, AppendReply, CommitFollower, DurabilityTier, FeedPage, LogError, Position,
    Precondition, ProcessBatch, ProcessLog, ProcessVerification, Query, StoredProcess,
};
use tokio::sync::{Notify, Semaphore};

/// Another log, watched.
#[derive(Debug)]
pub struct WatchedLog {
    log: Arc<dyn ProcessLog>,
    seen: Arc<Mutex<Seen>>,
    loads: Semaphore,
    load_began: Notify,
    queries: Semaphore,
    query_began: Notify,
}

/// What a [`WatchedLog`] has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Batches that came while another of their process was at the log: one incarnation never does that.
    pub overlaps: Vec<ProcessId>,
    /// Batches that another writer came before.
    pub conflicts: Vec<ProcessId>,
    /// The processes in the order of their loads.
    pub loaded: Vec<ProcessId>,
    /// Loads under way now.
    pub loading: usize,
    /// The most loads that were under way at once.
    pub most_loading: usize,
    /// Queries that were asked so far.
    pub queries: usize,
    writing: HashSet<ProcessId>,
}

struct Loading<'log>(&'log WatchedLog);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.lock().loading -= 1;
    }
}

impl WatchedLog {
    /// Watches a log.
    #[must_use]
    pub fn new(log: Arc<dyn ProcessLog>) -> Self {
        Self {
            log,
            seen: Arc::default(),
            loads: Semaphore::new(Semaphore::MAX_PERMITS),
            load_began: Notify::new(),
            queries: Semaphore::new(Semaphore::MAX_PERMITS),
            query_began: Notify::new(),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Loads wait from now on.
    pub fn hold_loads(&self) {
        self.loads.forget_permits(usize::MAX);
    }

    /// Lets so many loads through.
    pub fn let_load(&self, loads: usize) {
        self.loads.add_permits(loads);
    }

    /// Waits until so many loads are under way.
    pub async fn loading_at_least(&self, loads: usize) {
        loop {
            let mut began = std::pin::pin!(self.load_began.notified());
            began.as_mut().enable();
            if self.lock().loading >= loads {
                return;
            }
            began.await;
        }
    }

    /// Queries wait from now on.
    pub fn hold_queries(&self) {
        self.queries.forget_permits(usize::MAX);
    }

    /// Lets so many queries through.
    pub fn let_query(&self, queries: usize) {
        self.queries.add_permits(queries);
    }

    /// Waits until so many queries were asked.
    pub async fn asked_at_least(&self, queries: usize) {
        loop {
            let mut began = std::pin::pin!(self.query_began.notified());
            began.as_mut().enable();
            if self.lock().queries >= queries {
                return;
            }
            began.await;
        }
    }

    fn begin(&self, process_id: &ProcessId) -> Loading<'_> {
        let mut seen = self.lock();
        seen.loaded.push(process_id.clone());
        seen.loading += 1;
        seen.most_loading = seen.most_loading.max(seen.loading);
        self.load_began.notify_waiters();
        Loading(self)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ProcessLog for WatchedLog {
    fn session(&self) -> &StoreSession {
        self.log.session()
    }

    fn submit(&self, batch: ProcessBatch, reply: AppendReply) {
        let process_id = batch.process_id.clone();
        {
            let mut seen = self.lock();
            if !seen.writing.insert(process_id.clone()) {
                seen.overlaps.push(process_id.clone());
            }
        }
        let seen = Arc::clone(&self.seen);
        let answer = AppendReply::new(move |result| {
            {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.writing.remove(&process_id);
                if matches!(result, Err(AppendError::Conflict)) {
                    seen.conflicts.push(process_id);
                }
            }
            reply.answer(result);
        });
        self.log.submit(batch, answer);
    }

    async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError> {
        let _loading = self.begin(process_id);
        self.loads.acquire().await.expect("it is never closed").forget();
        self.log.load(process_id, operation_tail).await
    }

    async fn holds(&self, process_id: &ProcessId, expected: Precondition) -> Result<bool, LogError> {
        self.log.holds(process_id, expected).await
    }

    async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError> {
        self.log.find_replays(process_id, keys).await
    }

    async fn execute_across(
        &self,
        command: RegistryCommand,
        context: DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError> {
        self.log.execute_across(command, context).await
    }

    fn durability(&self) -> DurabilityTier {
        self.log.durability()
    }

    async fn query(&self, query: Query) -> Result<Answer, LogError> {
        self.lock().queries += 1;
        self.query_began.notify_waiters();
        self.queries.acquire().await.expect("it is never closed").forget();
        self.log.query(query).await
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError> {
        self.log.feed(after, limit).await
    }

    fn follow(&self, follower: Weak<dyn CommitFollower>) -> Position {
        self.log.follow(follower)
    }

    async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        self.log.verify(process_id).await
    }

    async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError> {
        self.log.process_ids(after, limit).await
    }

    async fn close(&self) {
        self.log.close().await;
    }
}

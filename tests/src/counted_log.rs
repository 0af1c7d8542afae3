//! A log that counts what is read of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use registry_actor::domain::{
    DecisionContext, ProcessEvent, ProcessId, RegistryCommand, RegistryReceipt, ReplayKey, StoreSession,
};
use registry_actor::port::{
    AcrossError, Answer, AppendReply, CommitFollower, DurabilityTier, FeedPage, LogError, Position, Precondition,
    ProcessBatch, ProcessLog, ProcessVerification, Query, StoredProcess,
};

/// Another log, and how many reads of whatever kind were asked of it. Writes are not counted.
#[derive(Debug)]
pub struct CountedLog {
    log: Arc<dyn ProcessLog>,
    reads: AtomicU64,
    over: AtomicU64,
}

/// A read that is under way, until it is answered or given up.
struct Reading<'log>(&'log CountedLog);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountedLog {
    /// Counts from 0.
    #[must_use]
    pub const fn new(log: Arc<dyn ProcessLog>) -> Self {
        Self { log, reads: AtomicU64::new(0), over: AtomicU64::new(0) }
    }

    /// How many reads have begun.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    /// How many of them were answered or given up.
    #[must_use]
    pub fn reads_over(&self) -> u64 {
        self.over.load(Ordering::SeqCst)
    }

    fn begin(&self) -> Reading<'_> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Reading(self)
    }
}

#[async_trait]
impl ProcessLog for CountedLog {
    fn session(&self) -> &StoreSession {
        self.log.session()
    }

    fn submit(&self, batch: ProcessBatch, reply: AppendReply) {
        self.log.submit(batch, reply);
    }

    async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError> {
        let _reading = self.begin();
        self.log.load(process_id, operation_tail).await
    }

    async fn holds(&self, process_id: &ProcessId, expected: Precondition) -> Result<bool, LogError> {
        let _reading = self.begin();
        self.log.holds(process_id, expected).await
    }

    async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError> {
        let _reading = self.begin();
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
        let _reading = self.begin();
        self.log.query(query).await
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError> {
        let _reading = self.begin();
        self.log.feed(after, limit).await
    }

    fn follow(&self, follower: Weak<dyn CommitFollower>) -> Position {
        self.log.follow(follower)
    }

    async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        let _reading = self.begin();
        self.log.verify(process_id).await
    }

    async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError> {
        let _reading = self.begin();
        self.log.process_ids(after, limit).await
    }

    async fn close(&self) {
        self.log.close().await;
    }
}

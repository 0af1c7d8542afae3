//! A log that behaves as badly as its contract permits, and in notifications worse: every answer is delayed by virtual
//! time from the seed, batches of different processes overtake each other, appends and reads fail, an outcome is unknown,
//! and followers are told late or not at all.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::domain::{
    DecisionContext, ProcessEvent, ProcessId, RegistryCommand, RegistryReceipt, ReplayKey, StoreSession,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    AcrossError, Answer, AppendError, AppendReply, AppendResult, Clock, CommitFollower, CommittedGroup, DurabilityTier,
    FeedPage, LogError, Position, Precondition, ProcessBatch, ProcessLog, ProcessVerification, Query, StoredProcess,
};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::clock::SimulatedClock;
use super::ledger::{Ledger, StoredLease};
use super::transcript::Transcript;
use crate::seeded::Random;

/// What the simulated logs of one run share.
pub struct LogRun {
    /// The clocks.
    pub clock: Arc<SimulatedClock>,
    /// The lines of the run.
    pub transcript: Arc<Transcript>,
    /// What was stored.
    pub ledger: Arc<Ledger>,
    /// Whether it fails and loses; delays stay.
    pub misbehaves: AtomicBool,
    /// Reads that are still to fail.
    pub failing_reads: AtomicU64,
    /// Until when, on the virtual clock, no batch is stored.
    pub held_until_ms: AtomicU64,
    dice: Mutex<Random>,
}

/// One handle of the store, in one session.
pub struct SimulatedLog {
    inner: MemoryLog,
    run: Arc<LogRun>,
    /// The store knows followers weakly.
    followers: Mutex<Vec<Arc<LateFollower>>>,
}

/// Passes groups on in order, late, and not all of them.
struct LateFollower {
    groups: mpsc::UnboundedSender<CommittedGroup>,
    run: Arc<LogRun>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    StoredAndUnknown,
    LostAndUnknown,
    NotAccepted,
    Busy,
}

impl LogRun {
    /// Delays and faults from this seed.
    #[must_use]
    pub const fn new(seed: u64, clock: Arc<SimulatedClock>, transcript: Arc<Transcript>, ledger: Arc<Ledger>) -> Self {
        Self {
            clock,
            transcript,
            ledger,
            misbehaves: AtomicBool::new(true),
            failing_reads: AtomicU64::new(0),
            held_until_ms: AtomicU64::new(0),
            dice: Mutex::new(Random::new(seed)),
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).below(bound)
    }

    fn misbehaves_once_in(&self, bound: u64) -> bool {
        self.misbehaves.load(Ordering::SeqCst) && self.below(bound) == 0
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(match self.below(16) {
            0 => self.below(25),
            1..=7 => self.below(4),
            _ => 0,
        })
    }

    async fn pass_time(&self) {
        let delay = self.delay();
        if !delay.is_zero() {
            sleep(delay).await;
        } else if self.below(2) == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn fate(&self) -> Fate {
        if !self.misbehaves.load(Ordering::SeqCst) {
            return Fate::Stored;
        }
        match self.below(60) {
            0 | 1 => Fate::StoredAndUnknown,
            2 => Fate::LostAndUnknown,
            3 => Fate::NotAccepted,
            4 => Fate::Busy,
            _ => Fate::Stored,
        }
    }

    fn may_read(&self) -> Result<(), LogError> {
        let fails = self.failing_reads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() || self.misbehaves_once_in(200) {
            self.transcript.line("log", &"a read fails");
            return Err(LogError::Unreadable { reason: "the simulated store could not be read".to_owned() });
        }
        Ok(())
    }

    async fn wait_while_held(&self) {
        let held = self.held_until_ms.load(Ordering::SeqCst).saturating_sub(self.clock.elapsed_ms());
        if held > 0 {
            sleep(Duration::from_millis(held)).await;
        }
    }
}

impl SimulatedLog {
    /// Over a store in memory.
    #[must_use]
    pub const fn new(inner: MemoryLog, run: Arc<LogRun>) -> Self {
        Self { inner, run, followers: Mutex::new(Vec::new()) }
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
        self.run.pass_time().await;
        self.run.may_read()?;
        let answer = read.await;
        self.run.pass_time().await;
        answer
    }
}

impl fmt::Debug for SimulatedLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedLog").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn unknown() -> AppendError {
    AppendError::Unknown { reason: "the simulated store lost its answer".to_owned() }
}

fn not_accepted() -> AppendError {
    AppendError::NotAccepted { reason: "the simulated store refused it".to_owned() }
}

/// The store in memory answers before `submit` returns.
fn store(inner: &MemoryLog, batch: ProcessBatch) -> AppendResult {
    let answered = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&answered);
    inner.submit(
        batch,
        AppendReply::new(move |result| {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }),
    );
    let result = answered.lock().unwrap_or_else(PoisonError::into_inner).take();
    result.unwrap_or_else(|| Err(unknown()))
}

#[async_trait]
impl ProcessLog for SimulatedLog {
    fn session(&self) -> &StoreSession {
        self.inner.session()
    }

    fn submit(&self, batch: ProcessBatch, reply: AppendReply) {
        let (inner, run) = (self.inner.clone(), Arc::clone(&self.run));
        tokio::spawn(async move {
            run.pass_time().await;
            run.wait_while_held().await;
            let events = batch.events.len();
            let (process_id, lease, generation) =
                (batch.process_id.clone(), batch.lease.clone(), batch.record.generation);
            let fate = run.fate();
            let result = match fate {
                Fate::Stored | Fate::StoredAndUnknown => store(&inner, batch),
                Fate::LostAndUnknown => Err(unknown()),
                Fate::NotAccepted => Err(not_accepted()),
                Fate::Busy => Err(AppendError::Busy { limit: 1 }),
            };
            if let (Ok(_), Some(row)) = (&result, lease) {
                let monotonic_ms = run.clock.now().monotonic_ms;
                run.ledger.lease(StoredLease { process_id: process_id.clone(), generation, monotonic_ms, row });
            }
            if let (Fate::Stored | Fate::StoredAndUnknown, Err(AppendError::NotAccepted { reason })) = (fate, &result) {
                // What the store has to guard against should have been decided before.
                run.ledger.fault(format!("a batch of `{process_id}` was refused: {reason}"));
            }
            let result = if fate == Fate::StoredAndUnknown { result.and(Err(unknown())) } else { result };
            match &result {
                Ok(head) => {
                    let head = head.map_or(0, |head| head.sequence.0);
                    run.transcript.line("log", &format_args!("{process_id} {events} events, head {head}"));
                }
                Err(error) => run.transcript.line("log", &format_args!("{process_id} {events} events: {error}")),
            }
            run.pass_time().await;
            reply.answer(result);
        });
    }

    async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError> {
        self.read(self.inner.load(process_id, operation_tail)).await
    }

    async fn holds(&self, process_id: &ProcessId, expected: Precondition) -> Result<bool, LogError> {
        self.read(self.inner.holds(process_id, expected)).await
    }

    async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError> {
        self.read(self.inner.find_replays(process_id, keys)).await
    }

    async fn execute_across(
        &self,
        command: RegistryCommand,
        context: DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError> {
        self.run.pass_time().await;
        self.run.wait_while_held().await;
        let name = command.name();
        let fate = self.run.fate();
        let result = match fate {
            Fate::Stored | Fate::StoredAndUnknown => self.inner.execute_across(command, context).await,
            Fate::LostAndUnknown => Err(unknown().into()),
            Fate::NotAccepted => Err(not_accepted().into()),
            Fate::Busy => Err(AppendError::Busy { limit: 1 }.into()),
        };
        let result = if fate == Fate::StoredAndUnknown { result.and(Err(unknown().into())) } else { result };
        self.run.transcript.line("log", &format_args!("{name}: {}", if result.is_ok() { "done" } else { "not done" }));
        self.run.pass_time().await;
        result
    }

    fn durability(&self) -> DurabilityTier {
        self.inner.durability()
    }

    async fn query(&self, query: Query) -> Result<Answer, LogError> {
        self.read(self.inner.query(query)).await
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError> {
        self.read(self.inner.feed(after, limit)).await
    }

    fn follow(&self, follower: Weak<dyn CommitFollower>) -> Position {
        let (groups, mut waiting) = mpsc::unbounded_channel::<CommittedGroup>();
        let late = Arc::new(LateFollower { groups, run: Arc::clone(&self.run) });
        let told: Weak<dyn CommitFollower> = Arc::downgrade(&late) as Weak<dyn CommitFollower>;
        let position = self.inner.follow(told);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        let run = Arc::clone(&self.run);
        tokio::spawn(async move {
            while let Some(group) = waiting.recv().await {
                run.pass_time().await;
                let Some(follower) = follower.upgrade() else { return };
                follower.follow(&group);
            }
        });
        position
    }

    async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        self.inner.verify(process_id).await
    }

    async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError> {
        self.inner.process_ids(after, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl CommitFollower for LateFollower {
    fn follow(&self, group: &CommittedGroup) {
        if self.run.misbehaves_once_in(12) {
            self.run.transcript.line("log", &format_args!("the group at {} is told to nobody", group.position.place()));
            return;
        }
        // Whoever has gone away needs no groups.
        drop(self.groups.send(group.clone()));
    }
}

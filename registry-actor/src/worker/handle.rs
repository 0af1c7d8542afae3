//! The handle of a worker: what a host holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ractor::{Actor, ActorCell, ActorRef};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::account::Account;
use super::drain::{DrainError, ProcessDrainReport, drain_owner_bound_work};
use super::drive::DriveMessage;
use super::executors::ProcessExecutors;
use super::explain::{Explanation, explain};
use super::options::WorkerOptions;
use super::situation::Observer;
use super::supervisor::{WorkerActor, WorkerMessage};
use super::sweep::SweepReport;
use crate::domain::{LeaseOwnerIdentity, ParentEndRule, ProcessId, ProcessRecord, Refusal};
use crate::port::{EngineError, ProcessRegistry, ProcessRegistryExt, ProcessRunHandle, RegistryError, StopCause};

/// Takes over what nobody runs, and runs it. Clones are handles of one worker.
///
/// A worker that is started drives itself: it looks at a process when the registry tells of a change that concerns it, when
/// something is due, and at everything from time to time. Dropping all handles does not stop it: call
/// [`shut_down`](Self::shut_down).
#[derive(Clone)]
pub struct Worker {
    environment: Arc<Environment>,
    supervisor: ActorRef<WorkerMessage>,
}

/// What the actors of one worker share.
pub(super) struct Environment {
    pub(super) registry: Arc<dyn ProcessRegistry>,
    pub(super) executors: ProcessExecutors,
    pub(super) options: WorkerOptions,
    pub(super) account: Arc<Account>,
    /// Tells this worker from every other that has the same owner in its options.
    life: u64,
    attempts: AtomicU64,
}

/// Why a worker could not be started or asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The owner in its options is none under which leases could be claimed.
    #[error("the worker cannot be an owner of leases: {0}")]
    Owner(Refusal),
    /// The system gave no random number, by which this worker is told from an earlier one.
    #[error("no randomness for the worker's identity: {reason}")]
    Randomness {
        /// Why.
        reason: String,
    },
    /// Its actors could not be started.
    #[error("the worker's actors could not be started: {reason}")]
    Spawn {
        /// Why.
        reason: String,
    },
    /// It was shut down, or its supervisor ended it.
    #[error("the worker has stopped")]
    Stopped,
    /// It could not read the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Environment {
    pub(super) fn new(
        registry: Arc<dyn ProcessRegistry>,
        executors: ProcessExecutors,
        options: WorkerOptions,
        life: u64,
    ) -> Arc<Self> {
        let account = Account::new(options.concurrent_runs);
        Arc::new(Self { registry, executors, options, account, life, attempts: AtomicU64::new(0) })
    }

    pub(super) fn observer(&self) -> Observer<'_> {
        Observer { registry: &*self.registry, executors: &self.executors, options: &self.options }
    }

    /// A new owner for one acquisition of one lease: a later acquisition by this same worker fences an earlier one.
    pub(super) fn attempt_owner(&self) -> LeaseOwnerIdentity {
        self.owner_of_attempt(self.attempts.fetch_add(1, Ordering::Relaxed))
    }

    /// No two are one incarnation, not even those of two workers that were given one owner: a claim by an incarnation that
    /// holds the lease already is granted, and begins nothing new.
    fn owner_of_attempt(&self, number: u64) -> LeaseOwnerIdentity {
        let stem = &self.options.owner;
        let incarnation_id = format!("{}:{:016x}:{number}", stem.incarnation_id, self.life);
        LeaseOwnerIdentity { incarnation_id, ..stem.clone() }
    }

    /// Resolves when the wall clock has reached an instant. It may jump: so it is read again from time to time.
    pub(super) async fn wall_clock_reaches(&self, at_epoch_ms: u64) {
        loop {
            let left = at_epoch_ms.saturating_sub(self.options.clock.now().epoch_ms);
            if left == 0 {
                return;
            }
            sleep(Duration::from_millis(left).min(self.options.longest_sleep)).await;
        }
    }

    /// The parent whose end means something for the process.
    pub(super) fn parent_that_matters(record: &ProcessRecord) -> Option<&ProcessId> {
        let parent = record.registration.parent.as_ref()?;
        (parent.on_end == ParentEndRule::RequestCancel).then_some(&parent.process_id)
    }

    /// Asks a process to stop because its parent has ended or was asked to.
    pub(super) async fn ask_to_stop(&self, process_id: &ProcessId, parent: &ProcessId) -> Result<(), RegistryError> {
        let reason = format!("its parent `{parent}` has ended or was asked to stop");
        self.registry.request_process_cancel(process_id, Some(reason)).await.map(drop)
    }
}

impl Worker {
    /// Starts a worker on the current tokio runtime. It looks at everything that has not ended at once.
    ///
    /// # Errors
    /// [`WorkerError::Owner`], [`WorkerError::Randomness`] and [`WorkerError::Spawn`].
    pub async fn start(
        registry: Arc<dyn ProcessRegistry>,
        executors: ProcessExecutors,
        options: WorkerOptions,
    ) -> Result<Self, WorkerError> {
        Self::start_under(registry, executors, options, None).await
    }

    /// Starts a worker that is linked to an actor of the host.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_linked(
        registry: Arc<dyn ProcessRegistry>,
        executors: ProcessExecutors,
        options: WorkerOptions,
        supervisor: ActorCell,
    ) -> Result<Self, WorkerError> {
        Self::start_under(registry, executors, options, Some(supervisor)).await
    }

    async fn start_under(
        registry: Arc<dyn ProcessRegistry>,
        executors: ProcessExecutors,
        options: WorkerOptions,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, WorkerError> {
        let life = getrandom::u64().map_err(|error| WorkerError::Randomness { reason: error.to_string() })?;
        let environment = Environment::new(registry, executors, options, life);
        environment.owner_of_attempt(u64::MAX).check().map_err(WorkerError::Owner)?;
        let arguments = Arc::clone(&environment);
        let spawned = match supervisor {
            None => WorkerActor::spawn(None, WorkerActor, arguments).await,
            Some(supervisor) => WorkerActor::spawn_linked(None, WorkerActor, arguments, supervisor).await,
        };
        let (supervisor, _) = spawned.map_err(|error| WorkerError::Spawn { reason: error.to_string() })?;
        Ok(Self { environment, supervisor })
    }

    /// Looks once at what has not ended, and begins what is to be done: one bounded pass, which goes on where the one
    /// before it stopped. It returns when the runs are begun, not when they are done.
    ///
    /// # Errors
    /// [`WorkerError`]; what becomes of one process is none.
    pub async fn sweep(&self) -> Result<SweepReport, WorkerError> {
        let (reply, answer) = oneshot::channel();
        self.environment.account.tell_drive(DriveMessage::Sweep(reply));
        answer.await.map_err(|_| WorkerError::Stopped)?.map_err(WorkerError::from)
    }

    /// Waits until each process that is under way has come so far that it executes, has ended, or was left as it is. After a
    /// [`sweep`](Self::sweep), and until the next thing is due, nothing that is to be ended still waits for its end, and
    /// nothing of earlier attempts runs any more. May be dropped at any time.
    pub async fn settled(&self) {
        self.environment.account.settled().await;
    }

    /// Waits until no process is under way. What is due then, or later, the next sweep or the timer begins. May be dropped at
    /// any time.
    pub async fn idle(&self) {
        self.environment.account.emptied().await;
    }

    /// Begins no more runs, and lets those under way go on: [`idle`](Self::idle) then waits for the last of them. There is no way
    /// back.
    pub fn begin_no_more(&self) {
        self.environment.account.close_door();
    }

    /// The processes that this worker is taking over or running, by id.
    #[must_use]
    pub fn under_way(&self) -> Vec<ProcessId> {
        self.environment.account.under_way()
    }

    /// Tells a run of this worker that its host stops: a rerunnable process goes on in its next attempt, which this worker
    /// makes too unless it is drained. Answers whether it is under way.
    #[must_use]
    pub fn stop_run(&self, process_id: &ProcessId) -> bool {
        self.environment.account.stop(process_id, StopCause::HostStopping)
    }

    /// Why a process is where it is, what happens to it next, and who does that. The executors are those of this worker.
    ///
    /// # Errors
    /// [`RegistryError`]; an unknown process among other things.
    pub async fn explain(&self, process_id: &ProcessId) -> Result<Explanation, RegistryError> {
        let record = self.environment.registry.get_process(process_id).await?;
        let record = record.ok_or_else(|| Refusal::Unknown { process_id: process_id.clone() })?;
        explain(&self.environment.observer(), &record).await
    }

    /// Begins no more runs, tells those under way that the host stops, and waits until they have ended; those that have
    /// not within `patience` are killed. Then everything that this worker began, that is bound to it and has no outcome
    /// ends as abandoned by its owner. Rerunnable processes are left for the next worker, owned elsewhere for their owner.
    ///
    /// # Errors
    /// [`DrainError`]: what had been confirmed until then is in it.
    pub async fn drain_owner_bound_work(&self, patience: Duration) -> Result<ProcessDrainReport, DrainError> {
        let killed = self.stop_runs(patience).await;
        let report = drain_owner_bound_work(&self.environment).await;
        match report {
            Ok(report) => Ok(ProcessDrainReport { killed, ..report }),
            Err(error) => Err(DrainError { confirmed: ProcessDrainReport { killed, ..error.confirmed }, ..error }),
        }
    }

    /// Begins no more runs, ends those under way as [`drain_owner_bound_work`](Self::drain_owner_bound_work) does, and
    /// stops the actors. What the runs were about has no outcome then unless they wrote one. May be called twice.
    pub async fn shut_down(&self, patience: Duration) {
        self.stop_runs(patience).await;
        let _ = self.supervisor.stop_and_wait(None, None).await;
    }

    async fn stop_runs(&self, patience: Duration) -> Vec<ProcessId> {
        let account = &self.environment.account;
        account.close(&StopCause::HostStopping);
        if tokio::time::timeout(patience, account.emptied()).await.is_ok() {
            return Vec::new();
        }
        let killed = account.under_way();
        drop(self.supervisor.cast(WorkerMessage::KillRuns));
        let grace = self.environment.options.grace;
        if tokio::time::timeout(grace, account.emptied()).await.is_err() {
            // It holds a thread, or went on in a task of its own. Its lease is renewed as long as it does.
            tracing::error!(runs = ?account.under_way(), "runs were killed and did not end");
        }
        // Their leases are given up by the drive. One that is dead or hindered just now leaves them to run out.
        let (reply, settled) = oneshot::channel();
        account.tell_drive(DriveMessage::Settle(reply));
        let _ = tokio::time::timeout(grace, settled).await;
        killed
    }

    /// The supervisor's cell: for tests that kill what is under it.
    #[doc(hidden)]
    #[must_use]
    pub fn supervisor(&self) -> ActorCell {
        self.supervisor.get_cell()
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Worker").field("options", &self.environment.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl ProcessRunHandle for Worker {
    async fn claim_and_run_pending(&self, reason: &str) -> Result<(), EngineError> {
        tracing::debug!(reason, "a pass over what has not ended");
        match self.sweep().await {
            Ok(_) => Ok(()),
            Err(WorkerError::Registry(error)) => Err(error.into()),
            Err(error) => Err(EngineError::engine(error.to_string())),
        }
    }
}

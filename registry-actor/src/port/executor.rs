//! Executors: what runs one kind of process, and what it is given to do so.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::registry::{ProcessRegistry, RegistryError};
use crate::domain::{
    AttemptFailure, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessId, ProcessLease,
    ProcessRecord, ProcessSignal, Receipt, Sequence,
};

/// Runs the processes of one kind.
///
/// # Contract
/// 1. `execute` is one attempt. It has begun durably before the call: an owner-bound process is executed once in its
///    life, a rerunnable one again whenever an attempt has ended without an outcome.
/// 2. When [`ProcessRun::stopped`] resolves the attempt has to end soon: [`StopCause`] says why, and how long it has. Where it
///    has a limit of time, what it left undone after that is dropped with its future, at whatever await point it stands.
///    A request to cancel has none: it is for the executor to heed it.
/// 3. Nothing of the attempt goes on after `execute` has returned or was dropped; what cannot be ended so, such as a
///    child process whose host was killed, is ended by [`end_remains`](Self::end_remains).
/// 4. A panic is a failed attempt.
#[async_trait]
pub trait ProcessExecutor: Send + Sync {
    /// Makes one attempt at a process.
    async fn execute(&self, run: Arc<dyn ProcessRun>) -> RunEnd;

    /// Why the process cannot be run here, although its kind is the right one: something is missing that this host would
    /// have to bring. It is asked under the lease, before an attempt has begun; the process is then left as it is, and
    /// looked at again later.
    fn cannot_run(&self, record: &ProcessRecord) -> Option<String> {
        let _ = record;
        None
    }

    /// Ends whatever earlier attempts may have left running, and proves that nothing of it is left. Called under the
    /// lease, for a process whose execution had begun, before anything else becomes of it: another attempt, or its end.
    /// What it answers goes into the evidence of an abandonment.
    ///
    /// # Errors
    /// [`RemainsError`]: it is not known that nothing is left. The process is left as it is, and looked at again later.
    async fn end_remains(&self, process: RemainsOf<'_>) -> Result<Option<Value>, RemainsError> {
        let _ = process;
        Ok(None)
    }
}

/// What is shared runs what it runs: one executor may be that of several kinds.
#[async_trait]
impl<E: ProcessExecutor + ?Sized> ProcessExecutor for Arc<E> {
    async fn execute(&self, run: Arc<dyn ProcessRun>) -> RunEnd {
        (**self).execute(run).await
    }

    fn cannot_run(&self, record: &ProcessRecord) -> Option<String> {
        (**self).cannot_run(record)
    }

    async fn end_remains(&self, process: RemainsOf<'_>) -> Result<Option<Value>, RemainsError> {
        (**self).end_remains(process).await
    }
}

/// A process that an earlier owner had begun.
#[derive(Clone, Copy)]
pub struct RemainsOf<'run> {
    /// Its record, as it was under the claimed lease.
    pub record: &'run ProcessRecord,
    /// Where its events can be read.
    pub registry: &'run dyn ProcessRegistry,
}

/// Why it is not known that nothing is left of earlier attempts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not known that nothing is left of earlier attempts: {reason}")]
pub struct RemainsError {
    /// Why.
    pub reason: String,
}

/// One attempt, as its executor sees it.
#[async_trait]
pub trait ProcessRun: Send + Sync {
    /// The process, as it was when the attempt had begun.
    fn record(&self) -> &Arc<ProcessRecord>;

    /// Which attempt it is, counted from 1.
    fn attempt(&self) -> u32;

    /// The registry, for reads and for other processes. What is written to this process goes through the run: it is
    /// fenced.
    fn registry(&self) -> &Arc<dyn ProcessRegistry>;

    /// The lease of the attempt, as it is now.
    fn lease(&self) -> ProcessLease;

    /// Why the attempt has to end; `None` as long as it may go on.
    fn stop_cause(&self) -> Option<StopCause>;

    /// Resolves when the attempt has to end. May be dropped at any time, and asked again.
    async fn stopped(&self) -> StopCause;

    /// Appends events as the lease holder, all or none. A registry that is busy is asked again.
    ///
    /// # Errors
    /// [`RegistryError`]; a lost lease is a refusal. After `OutcomeUnknown` events without a replay key may be there or
    /// not.
    async fn append(&self, events: Vec<ProcessEventAppendRequest>) -> Result<Receipt, RegistryError>;

    /// Waits for the first signal of a name after a cursor, which is exclusive. While it waits the record says so, and
    /// the run counts for nothing in the worker's limit. May be dropped at any time; the record may then say that it
    /// waits until the next wait or the end.
    ///
    /// # Errors
    /// [`RunWaitError`].
    async fn await_signal(&self, signal: &ProcessSignal, after: Sequence) -> Result<Arc<ProcessEvent>, RunWaitError>;

    /// Waits for the outcome of another process, such as one that it started. While it waits the run counts for nothing
    /// in the worker's limit, so that parents cannot keep their children from being run. May be dropped at any time.
    ///
    /// # Errors
    /// [`RunWaitError`].
    async fn await_process(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, RunWaitError>;
}

/// Why an attempt has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopCause {
    /// Somebody asked that the process stop. It is cooperative: there is no limit of time, and a run may go on.
    CancelRequested {
        /// Why.
        reason: Option<String>,
    },
    /// The deadline of the process has passed. It is ended when the worker's grace is over.
    DeadlinePassed,
    /// The host stops. A rerunnable process goes on in the next attempt; one that is owner-bound should end now.
    HostStopping,
    /// The lease is lost: another may run the process already. Nothing that is written is stored any more, and the run is
    /// dropped when the worker's grace is over.
    LeaseLost,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// The process has its outcome.
    Ended(ProcessAwaitOutput),
    /// The attempt failed: another follows if the process declares it, or the failure is the outcome.
    Failed(AttemptFailure),
    /// It stopped because it was told to. What that means follows from the cause: a cancelled process is cancelled, one
    /// whose host stops goes on in the next attempt if it is rerunnable. Without a cause it is a failure.
    Stopped,
}

/// Why a wait of a run ended without what it waited for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunWaitError {
    /// The attempt has to end.
    #[error("the attempt has to end")]
    Stopped(StopCause),
    /// The registry could not.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The other process was pruned before its outcome was read.
    #[error("process `{process_id}` is no longer retained")]
    NoLongerRetained {
        /// Which one.
        process_id: ProcessId,
    },
}

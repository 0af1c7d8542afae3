//! One attempt, as its executor sees it.

use std::sync::Arc;

use async_trait::async_trait;

use super::account::RunEntry;
use super::journal::Journal;
use super::lease_keeper::LeaseKeeper;
use super::stop::StopSignal;
use super::watch::wait_for;
use crate::domain::{
    ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessId, ProcessLease, ProcessRecord, ProcessSignal,
    Receipt, Sequence, WaitState,
};
use crate::port::{
    Clock, ProcessRegistry, ProcessRegistryExt, ProcessRun, ProcessWait, RegistryError, RunWaitError, StopCause,
    WaitAnswer,
};

/// What a run is given.
pub(super) struct RunContext {
    pub(super) record: Arc<ProcessRecord>,
    pub(super) attempt: u32,
    pub(super) registry: Arc<dyn ProcessRegistry>,
    pub(super) journal: Journal,
    pub(super) keeper: Arc<LeaseKeeper>,
    pub(super) stop: StopSignal,
    pub(super) entry: Arc<RunEntry>,
    pub(super) clock: Arc<dyn Clock>,
}

impl RunContext {
    async fn await_or_stop(&self, wait: &ProcessWait) -> Result<WaitAnswer, RunWaitError> {
        let wait_or_stop = async {
            tokio::select! {
                biased;
                answer = wait_for(&*self.registry, wait) => answer.map_err(RunWaitError::from),
                cause = self.stop.stopped() => Err(RunWaitError::Stopped(cause)),
            }
        };
        let urgent = async { drop(self.stop.stopped().await) };
        self.entry.place().yielding(wait_or_stop, urgent).await
    }
}

#[async_trait]
impl ProcessRun for RunContext {
    fn record(&self) -> &Arc<ProcessRecord> {
        &self.record
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn registry(&self) -> &Arc<dyn ProcessRegistry> {
        &self.registry
    }

    fn lease(&self) -> ProcessLease {
        self.keeper.lease()
    }

    fn stop_cause(&self) -> Option<StopCause> {
        self.stop.cause()
    }

    async fn stopped(&self) -> StopCause {
        self.stop.stopped().await
    }

    async fn append(&self, events: Vec<ProcessEventAppendRequest>) -> Result<Receipt, RegistryError> {
        self.journal.append(events).await
    }

    async fn await_signal(&self, signal: &ProcessSignal, after: Sequence) -> Result<Arc<ProcessEvent>, RunWaitError> {
        let process_id = self.record.id();
        let event_type = signal.event_type();
        if let Some(event) = self.registry.first_event_of_type(process_id, &event_type, after).await? {
            return Ok(event);
        }
        let before = self.registry.count_events_through(process_id, &event_type, after).await?;
        let since_ms = self.clock.now().epoch_ms;
        self.journal.set_wait(WaitState::signal(process_id, signal, before.saturating_add(1), since_ms)).await?;
        let wait = ProcessWait::event(process_id.clone(), event_type, after);
        let answer = self.await_or_stop(&wait).await;
        if !matches!(answer, Err(RunWaitError::Stopped(StopCause::LeaseLost))) {
            self.journal.clear_wait().await?;
        }
        match answer? {
            WaitAnswer::Happened { event } => Ok(event),
            // Somebody ended it meanwhile, which only somebody else's right to write can have done.
            WaitAnswer::Ended { .. } | WaitAnswer::Completed { .. } | WaitAnswer::Deadline => {
                Err(RunWaitError::Stopped(StopCause::LeaseLost))
            }
            WaitAnswer::NoLongerRetained { .. } => {
                Err(RunWaitError::NoLongerRetained { process_id: process_id.clone() })
            }
        }
    }

    async fn await_process(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, RunWaitError> {
        let answer = self.await_or_stop(&ProcessWait::outcome(process_id.clone())).await?;
        answer.output().cloned().ok_or_else(|| RunWaitError::NoLongerRetained { process_id: process_id.clone() })
    }
}

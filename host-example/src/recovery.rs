//! Recovery: what earlier hosts have left in a store goes through a worker of its own, beside our own command.
//!
//! It owns when that begins and ends, and what people are told of what is left alone. It does not know what becomes of a
//! process, nor how a command is run.

use std::{collections::BTreeSet, sync::Arc};

use registry_actor::{
    domain::{ProcessId, ProcessListFilter, ProcessRecord},
    port::{ProcessRegistry, ProcessRegistryExt},
    worker::{ExplainedStep, ProcessExecutors, SweepReport, Worker, WorkerError, WorkerScope},
};
use tokio::task::JoinHandle;

use crate::{
    command_executor::{CommandExecutor, Hindrances},
    command_process::COMMAND_KIND,
    explain,
    failure::{Failure, FailureKind},
    host::{DRAIN_PATIENCE, Host},
    interrupt::Interrupts,
    notice::say,
};

/// The commands of earlier hosts that run at the same time.
const CONCURRENT_RUNS: usize = 4;

/// The records that are read at a time.
const PAGE_RECORDS: u32 = 100;

/// The recovery of a store under way.
#[derive(Debug)]
pub(crate) struct Recovery {
    worker: Worker,
    /// Stops what may go on in the next host when we are interrupted.
    interrupted: JoinHandle<()>,
}

impl Recovery {
    /// Takes over all that is unfinished but for our own process. When this returns, all that is to be ended has ended,
    /// nothing of it runs any more, and what is to run again does so, some at a time.
    ///
    /// # Errors
    /// When the store cannot be listed. The failure of one process is said and costs the others nothing.
    pub(crate) async fn start(host: &Host, own: &ProcessId, interrupts: &Interrupts) -> Result<Self, Failure> {
        let executor = CommandExecutor::of_recovered(interrupts.clone());
        let hindrances = executor.hindrances();
        let mut options = host.worker_options();
        options.scope = WorkerScope::AllBut(BTreeSet::from([own.clone()]));
        options.concurrent_runs = CONCURRENT_RUNS;
        let executors = ProcessExecutors::default().with(COMMAND_KIND, executor);
        let registry = Arc::new(host.registry.clone()) as Arc<dyn ProcessRegistry>;
        let worker = Worker::start(registry, executors, options).await.map_err(worker_failure)?;
        let interrupted = tokio::spawn({
            let (worker, interrupts) = (worker.clone(), interrupts.clone());
            async move {
                interrupts.first().await;
                drain(&worker).await;
            }
        });
        let recovery = Self { worker, interrupted };
        recovery.settle().await?;
        recovery.tell_of_what_is_left_alone(host, own, &hindrances).await?;
        Ok(recovery)
    }

    /// Waits for the ends of what runs, and of what had no place beside it. What is to be tried again later is left to the
    /// next host.
    pub(crate) async fn finish(self) {
        let under_way = self.worker.under_way().len();
        if under_way > 0 {
            say(format_args!("recovery: waiting for {under_way} more to end"));
        }
        if let Err(error) = quiet(&self.worker).await {
            say(format_args!("recovery: what is left is left alone: {error}"));
        }
        self.interrupted.abort();
        drain(&self.worker).await;
        self.worker.shut_down(DRAIN_PATIENCE).await;
    }

    async fn settle(&self) -> Result<(), Failure> {
        loop {
            let report = self.worker.sweep().await.map_err(worker_failure)?;
            self.worker.settled().await;
            if is_quiet(&report) {
                return Ok(());
            }
        }
    }

    async fn tell_of_what_is_left_alone(
        &self,
        host: &Host,
        own: &ProcessId,
        hindrances: &Hindrances,
    ) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let page = host.registry.list_page(ProcessListFilter::default(), after, PAGE_RECORDS).await?;
            let under_way = self.worker.under_way();
            let is_left = |record: &&Arc<ProcessRecord>| {
                record.registration.input.kind == COMMAND_KIND
                    && record.id() != own
                    && under_way.binary_search(record.id()).is_err()
            };
            for record in page.records.iter().filter(is_left) {
                let id = record.id();
                match self.why_left_alone(id, hindrances).await {
                    Ok(Some(reason)) => say(format_args!("recovery: `{id}` is left alone: {reason}")),
                    Ok(None) => {}
                    Err(failure) => say(format_args!("recovery: `{id}` is left alone: {failure}")),
                }
            }
            after = page.records.last().map(|record| record.id().clone());
            if !page.has_more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Why nothing is done with a process; `None` if something is, or will be.
    async fn why_left_alone(&self, id: &ProcessId, hindrances: &Hindrances) -> Result<Option<String>, Failure> {
        let explanation = self.worker.explain(id).await?;
        Ok(match &explanation.step {
            ExplainedStep::Ended { .. } => None,
            ExplainedStep::Due { .. } => hindrances.of(id),
            step => Some(explain::in_words(step)),
        })
    }
}

/// Waits until a worker has nothing to do that is due: what was begun is over, and nothing could be begun. Answers what the
/// last pass found.
///
/// # Errors
/// [`WorkerError`].
pub(crate) async fn quiet(worker: &Worker) -> Result<SweepReport, WorkerError> {
    loop {
        worker.idle().await;
        let report = worker.sweep().await?;
        if is_quiet(&report) && worker.under_way().is_empty() {
            return Ok(report);
        }
    }
}

/// Ends what a worker runs, and what is bound to it. A failure costs nothing that the next host would not make good.
pub(crate) async fn drain(worker: &Worker) {
    match worker.drain_owner_bound_work(DRAIN_PATIENCE).await {
        Ok(report) => tracing::debug!(?report, "drained"),
        Err(error) => tracing::warn!(%error, "what is bound to this host is left to the next one"),
    }
}

/// A failure of the worker as one of the host.
pub(crate) fn worker_failure(error: WorkerError) -> Failure {
    match error {
        WorkerError::Registry(error) => error.into(),
        error => Failure::new(FailureKind::Software, error.to_string()),
    }
}

const fn is_quiet(report: &SweepReport) -> bool {
    report.begun == 0 && report.asked_to_stop == 0
}

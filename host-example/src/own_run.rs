//! Our own command in the hands of a worker of its own: from its start to what the caller's shell is told.
//!
//! It owns what an interrupt does to the command, and when nothing more is to be expected of it. It does not know how the
//! command is run, nor what else goes on in the store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use awaiter::{AwaitError, ProcessAwaiter};
use registry_actor::{
    domain::{ProcessAwaitOutput, ProcessId},
    port::{ProcessRegistry, ProcessRegistryExt},
    worker::{ExplainedStep, ProcessExecutors, Worker, WorkerScope},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    attempt::{CANCEL_RECORD_PATIENCE, DEADLINE_EXIT_CODE, DEADLINE_PASSED, Display, summary},
    command_executor::{CommandExecutor, Hindrances, OwnAttempts},
    command_process::COMMAND_KIND,
    explain,
    failure::{Failure, FailureKind},
    host::{DRAIN_PATIENCE, Host},
    interrupt::{InterruptSignal, Interrupts},
    recovery::{drain, quiet, worker_failure},
};

/// Our own command under way.
pub(crate) struct OwnRun {
    host: Host,
    id: ProcessId,
    worker: Worker,
    attempts: OwnAttempts,
    hindrances: Hindrances,
    cancelling: JoinHandle<()>,
}

/// How it ended.
pub(crate) struct OwnEnd {
    /// The outcome.
    pub(crate) outcome: ProcessAwaitOutput,
    /// The count of events.
    pub(crate) events: u64,
    /// What the caller's shell is to see.
    pub(crate) exit_code: u8,
}

impl OwnRun {
    /// Runs the registered process to its end, all attempts included, and gives its worker up.
    ///
    /// # Errors
    /// When it was not run here, or nothing more will come of it here.
    pub(crate) async fn carry_out(host: &Host, id: &ProcessId, interrupts: &Interrupts) -> Result<OwnEnd, Failure> {
        let display = Display::start()
            .map_err(|error| Failure::new(FailureKind::System, format!("cannot show output: {error}")))?;
        let run = Self::start(host, id, interrupts, OwnAttempts::shown_on(display)).await?;
        let outcome = run.outcome().await;
        tokio::select! {
            () = run.attempts.finish_display() => {}
            () = interrupts.second() => {}
        }
        let end = match outcome {
            Ok(outcome) => run.end(outcome, interrupts).await,
            Err(failure) => Err(failure),
        };
        run.cancelling.abort();
        drain(&run.worker).await;
        run.worker.shut_down(DRAIN_PATIENCE).await;
        end
    }

    async fn start(
        host: &Host,
        id: &ProcessId,
        interrupts: &Interrupts,
        attempts: OwnAttempts,
    ) -> Result<Self, Failure> {
        // A signal that came before is a request before the first attempt.
        if let Some(signal) = interrupts.asked() {
            request_cancel(host, id, signal).await;
        }
        let executor = CommandExecutor::of_own(interrupts.clone(), attempts.clone());
        let hindrances = executor.hindrances();
        let mut options = host.worker_options();
        options.scope = WorkerScope::Only(BTreeSet::from([id.clone()]));
        options.concurrent_runs = 1;
        let executors = ProcessExecutors::default().with(COMMAND_KIND, executor);
        let registry = Arc::new(host.registry.clone()) as Arc<dyn ProcessRegistry>;
        let worker = Worker::start(registry, executors, options).await.map_err(worker_failure)?;
        let cancelling = tokio::spawn({
            let (host, id, interrupts) = (host.clone(), id.clone(), interrupts.clone());
            async move {
                let signal = interrupts.first().await;
                request_cancel(&host, &id, signal).await;
            }
        });
        Ok(Self { host: host.clone(), id: id.clone(), worker, attempts, hindrances, cancelling })
    }

    /// Waits for the outcome, as long as there is a way to it.
    async fn outcome(&self) -> Result<ProcessAwaitOutput, Failure> {
        let awaiter = ProcessAwaiter::attached(Arc::new(self.host.registry.clone()));
        let mut outcome = std::pin::pin!(awaiter.await_terminal(&self.id));
        loop {
            let report = tokio::select! {
                biased;
                outcome = &mut outcome => return outcome.map_err(await_failure),
                report = quiet(&self.worker) => report.map_err(worker_failure)?,
            };
            // Nothing runs, and nothing could be begun.
            let pause = match self.worker.explain(&self.id).await?.step {
                ExplainedStep::Ended { .. } => Duration::ZERO,
                ExplainedStep::RetryDue { wait_ms, .. } => Duration::from_millis(wait_ms),
                // Its pause was over just now.
                ExplainedStep::Due { .. } if report.awaiting_retry > 0 => Duration::ZERO,
                step => return Err(self.given_up(&step)),
            };
            tokio::select! {
                biased;
                outcome = &mut outcome => return outcome.map_err(await_failure),
                () = sleep(pause) => {}
            }
        }
    }

    /// Why nothing more will come of it here.
    fn given_up(&self, step: &ExplainedStep) -> Failure {
        if let Some(Err(failure)) = self.attempts.take_latest() {
            return failure;
        }
        let reason = match step {
            ExplainedStep::Due { .. } => self
                .hindrances
                .of(&self.id)
                .unwrap_or_else(|| "the store does not take what is to be written".to_owned()),
            step => explain::in_words(step),
        };
        Failure::new(FailureKind::Unavailable, format!("process `{}` cannot be run: {reason}", self.id))
    }

    async fn end(&self, outcome: ProcessAwaitOutput, interrupts: &Interrupts) -> Result<OwnEnd, Failure> {
        let latest = self.attempts.take_latest();
        let exit_code = match (&outcome, latest) {
            (_, Some(Err(failure))) => return Err(failure),
            (ProcessAwaitOutput::Success { .. }, _) => 0,
            (ProcessAwaitOutput::Failure { code, .. }, _) if code == DEADLINE_PASSED => DEADLINE_EXIT_CODE,
            (ProcessAwaitOutput::Cancelled { .. }, _) => {
                interrupts.asked().unwrap_or(InterruptSignal::Terminate).exit_code()
            }
            (ProcessAwaitOutput::Failure { .. } | ProcessAwaitOutput::Abandoned { .. }, Some(Ok(exit_code))) => {
                exit_code
            }
            (ProcessAwaitOutput::Failure { .. } | ProcessAwaitOutput::Abandoned { .. }, None) => {
                let line = format!("process `{}` was begun by an earlier host and is {}", self.id, summary(&outcome));
                return Err(Failure::new(FailureKind::Unavailable, line));
            }
        };
        let last = self.host.registry.recent_events(&self.id, 1).await?;
        let events = last.last().map_or(0, |event| event.sequence.0);
        Ok(OwnEnd { outcome, events, exit_code })
    }
}

/// Records the wish before anything is done about it. Where the store does not take it, the attempt goes by the signal.
async fn request_cancel(host: &Host, id: &ProcessId, signal: InterruptSignal) {
    let request = host.registry.request_process_cancel(id, Some(signal.name().to_owned()));
    match timeout(CANCEL_RECORD_PATIENCE, request).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(process_id = %id, %error, "the cancel request is not recorded"),
        Err(_) => tracing::warn!(process_id = %id, "the cancel request is not recorded in time"),
    }
}

fn await_failure(error: AwaitError) -> Failure {
    match error {
        AwaitError::Registry(error) => error.into(),
        error => Failure::new(FailureKind::Unavailable, error.to_string()),
    }
}

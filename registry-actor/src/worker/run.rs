//! Taking one process over: claim, look again, decide, and do what was decided.
//!
//! Order: the lease first; then the record as it is under that lease; then the decision; then the end of whatever still
//! runs of earlier attempts; then the attempt, which has durably begun before its executor is called; then the outcome and
//! the release of the lease in one transaction.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::account::RunEntry;
use super::handle::Environment;
use super::journal::Journal;
use super::lease_keeper::LeaseKeeper;
use super::run_context::RunContext;
use super::stop::{StopSender, StopSignal};
use super::watch;
use crate::domain::{
    AbandonEvidence, AttemptFailure, LeaseOwnerIdentity, NextStep, ProcessAwaitOutput, ProcessFailureClass, ProcessId,
    ProcessLease, ProcessLeaseClaimOutcome, ProcessRecord, ProcessStarted, Refusal, Verdict,
};
use crate::port::{Backoff, ProcessExecutor, ProcessRegistryExt, RegistryError, RemainsOf, RunEnd, StopCause};
use crate::telemetry;

/// One process in the hands of a worker.
pub(super) struct Run {
    pub(super) environment: Arc<Environment>,
    pub(super) process_id: ProcessId,
    pub(super) entry: Arc<RunEntry>,
    pub(super) stop: StopSender,
    pub(super) stopped: StopSignal,
}

/// What came of taking a process over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TakeOver {
    /// It has its outcome.
    Ended,
    /// An attempt ended without one; another is due, now or later.
    ToBeContinued,
    /// Nothing was changed.
    Left {
        /// Why, for people.
        reason: String,
    },
}

enum Acquisition {
    Acquired { lease: Box<ProcessLease>, displaced: Option<Box<ProcessLease>> },
    Busy { holder: Box<ProcessLease> },
    Ended,
}

impl Run {
    /// Does what is to be done with the process now.
    ///
    /// # Errors
    /// [`RegistryError`]. The lease is given up, or runs out.
    pub(super) async fn take_over(&self) -> Result<TakeOver, RegistryError> {
        let owner = self.environment.attempt_owner();
        let asked_at = Instant::now();
        let (lease, displaced) = match self.acquire(&owner).await? {
            Acquisition::Acquired { lease, displaced } => (lease, displaced),
            Acquisition::Busy { holder } => {
                return Ok(TakeOver::Left {
                    reason: format!("it is held by {}, which may live", holder.owner.owner_id),
                });
            }
            Acquisition::Ended => return Ok(TakeOver::Ended),
        };
        let registry = Arc::clone(&self.environment.registry);
        let keeper = LeaseKeeper::start(Arc::clone(&registry), *lease, self.environment.options.timings, asked_at);
        self.entry.hold(&keeper);
        let claimed = Claimed {
            run: self,
            journal: Journal::new(registry, self.process_id.clone(), Arc::clone(&keeper)),
            keeper,
        };
        let taken = claimed.decide(displaced.as_deref()).await;
        if !matches!(taken, Ok(TakeOver::Ended | TakeOver::ToBeContinued)) && !claimed.keeper.is_lost() {
            // The next worker is to find it as we did. If this fails the lease runs out.
            drop(claimed.journal.release().await);
        }
        taken
    }

    /// Claims the lease; from a holder that is provably dead it is taken before it has run out.
    async fn acquire(&self, owner: &LeaseOwnerIdentity) -> Result<Acquisition, RegistryError> {
        let (registry, id) = (&self.environment.registry, &self.process_id);
        let ttl_ms = self.environment.options.timings.ttl_ms();
        let claimed = match registry.claim_process_lease(id, owner.clone(), ttl_ms).await {
            Ok(ProcessLeaseClaimOutcome::Busy { holder }) => {
                registry.reclaim_process_lease(id, owner.clone(), holder, ttl_ms).await
            }
            answered => answered,
        };
        match claimed {
            Ok(ProcessLeaseClaimOutcome::Acquired { lease, displaced }) => {
                Ok(Acquisition::Acquired { lease: Box::new(lease), displaced })
            }
            Ok(ProcessLeaseClaimOutcome::Busy { holder }) => Ok(Acquisition::Busy { holder: Box::new(holder) }),
            Err(RegistryError::Refused(Refusal::AlreadyTerminal { .. })) => Ok(Acquisition::Ended),
            Err(error) => Err(error),
        }
    }
}

/// A process whose lease we hold.
struct Claimed<'run> {
    run: &'run Run,
    keeper: Arc<LeaseKeeper>,
    journal: Journal,
}

impl Claimed<'_> {
    async fn decide(&self, displaced: Option<&ProcessLease>) -> Result<TakeOver, RegistryError> {
        let environment = &self.run.environment;
        let Some(record) = environment.registry.get_process(&self.run.process_id).await? else {
            return Err(Refusal::Unknown { process_id: self.run.process_id.clone() }.into());
        };
        let situation = environment.observer().observe_claimed(&record, displaced).await?;
        let NextStep::Act(verdict) = situation.next_step() else {
            return Ok(TakeOver::Left { reason: "nothing is to be done with it now".to_owned() });
        };
        let executor = environment.executors.of(&record.registration.input.kind);
        let remains = match (executor, &record.first_started) {
            (Some(executor), Some(_)) => match self.end_remains(&**executor, &record).await {
                Ok(remains) => remains,
                Err(reason) => return Ok(TakeOver::Left { reason }),
            },
            _ => None,
        };
        match verdict {
            // What has not begun when the host stops is left to the next worker, with all of its attempts.
            Verdict::Run if self.run.stopped.cause() == Some(StopCause::HostStopping) => {
                Ok(TakeOver::Left { reason: "the host stops".to_owned() })
            }
            Verdict::Run => match executor {
                Some(executor) => match executor.cannot_run(&record) {
                    None => self.attempt(Arc::clone(executor)).await,
                    Some(reason) => Ok(TakeOver::Left { reason }),
                },
                None => Ok(TakeOver::Left { reason: "no executor runs its kind".to_owned() }),
            },
            Verdict::Abandon { evidence } => {
                let detail = evidence_detail(environment.options.session.as_ref().map(ToString::to_string), remains);
                self.end(&ProcessAwaitOutput::abandoned(AbandonEvidence { detail, ..evidence })).await
            }
            Verdict::Fail { failure } => self.end(&failure.to_await_output()).await,
            Verdict::Cancel => self.end(&ProcessAwaitOutput::cancelled("it was cancelled before it was run")).await,
        }
    }

    async fn end_remains(
        &self,
        executor: &dyn ProcessExecutor,
        record: &ProcessRecord,
    ) -> Result<Option<Value>, String> {
        let process = RemainsOf { record, registry: &*self.run.environment.registry };
        tokio::select! {
            biased;
            ended = executor.end_remains(process) => ended.map_err(|error| error.to_string()),
            () = self.keeper.lost() => Err("the lease was lost while its remains were ended".to_owned()),
        }
    }

    async fn end(&self, output: &ProcessAwaitOutput) -> Result<TakeOver, RegistryError> {
        self.journal.complete(output).await?;
        self.tell_end(output.terminal_state().label());
        Ok(TakeOver::Ended)
    }

    /// What a run came to: the state of its process, or that it is to be continued.
    fn tell_end(&self, result: &'static str) {
        telemetry::run_over(result);
        tracing::info!(process_id = %self.run.process_id, result, "a run has ended");
    }

    /// One attempt: begun durably, executed, and its end written.
    async fn attempt(&self, executor: Arc<dyn ProcessExecutor>) -> Result<TakeOver, RegistryError> {
        let environment = &self.run.environment;
        let started = ProcessStarted {
            owner: environment.options.owner.clone(),
            started_at_ms: environment.options.clock.now().epoch_ms,
        };
        let record = self.journal.begin_attempt(&started).await?;
        self.run.entry.executes();
        let context = Arc::new(RunContext {
            attempt: record.attempts.begun,
            record: Arc::clone(&record),
            registry: Arc::clone(&environment.registry),
            journal: self.journal.clone(),
            keeper: Arc::clone(&self.keeper),
            stop: self.run.stopped.clone(),
            entry: Arc::clone(&self.run.entry),
            clock: Arc::clone(&environment.options.clock),
        });
        let attempt = context.attempt;
        telemetry::attempt_begun();
        let span = tracing::info_span!("attempt", process_id = %self.run.process_id, attempt);
        async {
            tracing::info!("an attempt has begun");
            let end = self.execute(executor, context, &record).await;
            self.write_end(end).await
        }
        .instrument(span)
        .await
    }

    /// Runs the executor until it returns, or until its time is over: `None` then.
    async fn execute(
        &self,
        executor: Arc<dyn ProcessExecutor>,
        context: Arc<RunContext>,
        record: &ProcessRecord,
    ) -> Option<RunEnd> {
        // A task of its own: a panic is its end and not ours. Dropping the set ends it.
        let mut execution = JoinSet::new();
        execution.spawn(async move { executor.execute(context).await }.in_current_span());
        let mut causes = std::pin::pin!(self.tell_causes(record));
        let grace = self.run.environment.options.grace;
        let mut overtime = std::pin::pin!(overtime(&self.run.stopped, grace));
        loop {
            tokio::select! {
                biased;
                ended = execution.join_next() => {
                    return Some(match ended {
                        Some(Ok(end)) => end,
                        Some(Err(error)) => RunEnd::Failed(panicked(error)),
                        None => RunEnd::Stopped,
                    });
                }
                () = &mut causes => {}
                () = &mut overtime => return None,
            }
        }
    }

    /// Tells the run of everything that is a reason for it to end. Never resolves.
    async fn tell_causes(&self, record: &ProcessRecord) {
        let (stop, registry) = (&self.run.stop, &*self.run.environment.registry);
        let lost = async {
            self.keeper.lost().await;
            stop.stop(StopCause::LeaseLost);
        };
        let cancelled = async {
            let request = watch::cancel_requested(registry, record.id()).await;
            let reason = request.payload.get("reason").and_then(Value::as_str).map(str::to_owned);
            stop.stop(StopCause::CancelRequested { reason });
        };
        let overdue = async {
            if let Some(deadline_at_ms) = record.deadline_at_ms() {
                self.run.environment.wall_clock_reaches(deadline_at_ms).await;
                stop.stop(StopCause::DeadlinePassed);
            }
        };
        let orphaned = self.ask_to_stop_with_parent(record);
        tokio::join!(lost, cancelled, overdue, orphaned);
        std::future::pending::<()>().await;
    }

    /// What its parent's end means for it is written down before it is told: the run hears of it as of any other
    /// request, and so does the next one.
    async fn ask_to_stop_with_parent(&self, record: &ProcessRecord) {
        let registry = &*self.run.environment.registry;
        let Some(parent) = Environment::parent_that_matters(record) else { return };
        tokio::select! {
            _ = watch::cancel_requested(registry, parent) => {}
            () = watch::ended(registry, parent) => {}
        }
        let mut backoff = Backoff::default();
        loop {
            match self.run.environment.ask_to_stop(record.id(), parent).await {
                Ok(()) | Err(RegistryError::Refused(_) | RegistryError::Closed) => return,
                Err(error) => {
                    tracing::warn!(process_id = %record.id(), %error, "a run is asked to stop with its parent again");
                    sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// Writes what the end of the attempt means.
    async fn write_end(&self, end: Option<RunEnd>) -> Result<TakeOver, RegistryError> {
        let cause = self.run.stopped.cause();
        if cause == Some(StopCause::LeaseLost) {
            return Err(Refusal::LeaseLost { process_id: self.run.process_id.clone() }.into());
        }
        let written = match ending(end, cause) {
            Ending::Outcome(output) => self.end(&output).await,
            Ending::Failure(failure) => self.fail(&failure).await,
            Ending::Release => self.release().await,
        };
        match written {
            Err(RegistryError::Refused(refusal)) if is_of_the_content(&refusal) => {
                let failure = AttemptFailure {
                    class: ProcessFailureClass::Internal,
                    code: "outcome_refused".to_owned(),
                    message: format!("what its executor answered is refused: {refusal}"),
                };
                self.fail(&failure).await
            }
            written => written,
        }
    }

    async fn release(&self) -> Result<TakeOver, RegistryError> {
        self.journal.release().await?;
        self.tell_end("released");
        Ok(TakeOver::ToBeContinued)
    }

    async fn fail(&self, failure: &AttemptFailure) -> Result<TakeOver, RegistryError> {
        let record = self.journal.fail_attempt(failure).await?;
        let has_ended = record.status.is_terminal();
        self.tell_end(if has_ended { record.status.label() } else { "retry" });
        Ok(if has_ended { TakeOver::Ended } else { TakeOver::ToBeContinued })
    }
}

/// What is written at the end of an attempt.
#[derive(Debug, Clone, PartialEq)]
enum Ending {
    /// The outcome of the process.
    Outcome(ProcessAwaitOutput),
    /// The failure of the attempt.
    Failure(AttemptFailure),
    /// Nothing: the lease is given up.
    Release,
}

/// Whether something else could have been written: it is not the right to write that is missing.
const fn is_of_the_content(refusal: &Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::LeaseLost { .. }
            | Refusal::LeaseHeld { .. }
            | Refusal::AlreadyTerminal { .. }
            | Refusal::Unknown { .. }
            | Refusal::NoAttemptBegun { .. }
    )
}

/// What the end of an attempt means, under the cause for which it was stopped. `None`: it was dropped.
fn ending(end: Option<RunEnd>, cause: Option<StopCause>) -> Ending {
    let cancelled = |reason: Option<String>| {
        Ending::Outcome(ProcessAwaitOutput::cancelled(reason.unwrap_or_else(|| "it was asked to stop".to_owned())))
    };
    match (end, cause) {
        (Some(RunEnd::Ended(output)), _) => Ending::Outcome(output),
        // Whoever asks that a process stop does not want another attempt at it.
        (Some(RunEnd::Failed(failure)), Some(StopCause::CancelRequested { .. } | StopCause::DeadlinePassed)) => {
            Ending::Outcome(failure.to_await_output())
        }
        (Some(RunEnd::Failed(failure)), _) => Ending::Failure(failure),
        (Some(RunEnd::Stopped) | None, Some(StopCause::CancelRequested { reason })) => cancelled(reason),
        (Some(RunEnd::Stopped) | None, Some(StopCause::DeadlinePassed)) => {
            Ending::Outcome(ProcessAwaitOutput::failure(
                ProcessFailureClass::Timeout,
                "deadline_passed",
                "it was stopped at its deadline",
            ))
        }
        (Some(RunEnd::Stopped) | None, Some(StopCause::HostStopping | StopCause::LeaseLost)) => Ending::Release,
        (Some(RunEnd::Stopped) | None, None) => Ending::Failure(AttemptFailure {
            class: ProcessFailureClass::Internal,
            code: "stopped_without_cause".to_owned(),
            message: "its executor stopped although nothing asked it to".to_owned(),
        }),
    }
}

/// Resolves when a run that was told to stop has had its time. A request to cancel has no limit, and a host that stops
/// has its own.
async fn overtime(stopped: &StopSignal, grace: Duration) {
    stopped.stopped_urgently().await;
    sleep(grace).await;
}

fn panicked(error: tokio::task::JoinError) -> AttemptFailure {
    let message = match error.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "it said nothing".to_owned()),
        Err(error) => error.to_string(),
    };
    AttemptFailure {
        class: ProcessFailureClass::Internal,
        code: "executor_panicked".to_owned(),
        message: format!("its executor panicked: {message}"),
    }
}

fn evidence_detail(session: Option<String>, remains: Option<Value>) -> Option<Value> {
    if session.is_none() && remains.is_none() {
        return None;
    }
    Some(json!({ "found_in": session, "remains": remains }))
}

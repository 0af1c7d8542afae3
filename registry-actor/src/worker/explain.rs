//! Why a process is where it is, and what happens to it next: for people.

use serde::{Deserialize, Serialize};

use super::executors::ProcessExecutors;
use super::options::WorkerOptions;
use super::situation::Observer;
use crate::domain::{
    AttemptFailure, Death, LeaseOwnerIdentity, LeaseSituation, NextStep, ProcessId, ProcessRecord, ProcessSituation,
    ProcessTerminalState, RecoveryDisposition, Refusal, Verdict, WaitState,
};
use crate::port::{ProcessRegistry, ProcessRegistryExt, RegistryError};

/// Why a process is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The process.
    pub process_id: ProcessId,
    /// What happens next, and who does it.
    pub step: ExplainedStep,
    /// Since when it is so, in ms since the Unix epoch.
    pub since_ms: u64,
    /// What it says that it waits for, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitState>,
    /// Whether somebody asked it to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// What recovery does once nobody holds it, by what it declares.
    pub rule: String,
    /// Whether no step is reachable: somebody has to do something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

/// What happens to a process next, and who does it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExplainedStep {
    /// Nothing: it has ended.
    Ended {
        /// How.
        state: ProcessTerminalState,
    },
    /// Its holder goes on, or loses its lease.
    Held {
        /// The holder.
        owner: LeaseOwnerIdentity,
        /// How long the lease lasts unless it is renewed, in ms.
        remaining_ms: u64,
    },
    /// The next sweep does this.
    Due {
        /// What.
        action: DueAction,
        /// Who had it before, if that one did not give it up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        displaces: Option<LeaseOwnerIdentity>,
    },
    /// The next attempt is made after a pause.
    RetryDue {
        /// How long yet, in ms.
        wait_ms: u64,
        /// Why the last one failed.
        failure: AttemptFailure,
    },
    /// Somebody outside closes it.
    ExternalOwner,
    /// A worker that runs its kind takes it up.
    Executor {
        /// The kind.
        kind: String,
    },
    /// It would be run, and this host lacks what it needs.
    CannotRun {
        /// What is missing.
        reason: String,
    },
    /// Nobody does anything.
    Stuck {
        /// Why, and what would help.
        reason: String,
    },
}

/// What a sweep does with a process whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DueAction {
    /// It is run.
    Run,
    /// It is asked to stop, because its parent has ended.
    AskToStop,
    /// It ends as abandoned.
    Abandon,
    /// It ends as failed.
    Fail,
    /// It ends as cancelled.
    Cancel,
}

/// Explains a process as a worker with these settings and executors sees it.
///
/// # Errors
/// [`RegistryError`]; an unknown process among other things.
pub async fn explain_process(
    registry: &dyn ProcessRegistry,
    executors: &ProcessExecutors,
    options: &WorkerOptions,
    process_id: &ProcessId,
) -> Result<Explanation, RegistryError> {
    let record = registry.get_process(process_id).await?;
    let record = record.ok_or_else(|| Refusal::Unknown { process_id: process_id.clone() })?;
    explain(&Observer { registry, executors, options }, &record).await
}

pub(super) async fn explain(observer: &Observer<'_>, record: &ProcessRecord) -> Result<Explanation, RegistryError> {
    let situation = observer.observe(record).await?;
    let (mut step, since_ms) = step_of(&situation);
    if matches!(step, ExplainedStep::Due { action: DueAction::Run, .. })
        && let Some(executor) = observer.executors.of(&record.registration.input.kind)
        && let Some(reason) = executor.cannot_run(record)
    {
        step = ExplainedStep::CannotRun { reason };
    }
    Ok(Explanation {
        process_id: record.id().clone(),
        stuck: matches!(step, ExplainedStep::Stuck { .. }),
        step,
        since_ms,
        waits_for: record.wait.as_deref().cloned(),
        cancel_requested: situation.cancel_requested,
        rule: rule_of(record),
    })
}

fn step_of(situation: &ProcessSituation<'_>) -> (ExplainedStep, u64) {
    let record = situation.record;
    let due = |action| {
        let displaces = match &situation.lease {
            LeaseSituation::Held { lease, .. } => Some(lease.owner.clone()),
            LeaseSituation::Lapsed { owner, .. } => Some(owner.clone()),
            LeaseSituation::Free => None,
        };
        ExplainedStep::Due { action, displaces }
    };
    let step = match situation.next_step() {
        NextStep::Ended => match record.status.terminal_state() {
            Some(state) => ExplainedStep::Ended { state },
            // An ended process has a state; a running one has another step.
            None => ExplainedStep::ExternalOwner,
        },
        NextStep::AskToStop { .. } => due(DueAction::AskToStop),
        NextStep::AwaitHolder { owner, remaining_ms } => ExplainedStep::Held { owner, remaining_ms },
        NextStep::Act(Verdict::Run) => due(DueAction::Run),
        NextStep::Act(Verdict::Abandon { .. }) => due(DueAction::Abandon),
        NextStep::Act(Verdict::Fail { .. }) => due(DueAction::Fail),
        NextStep::Act(Verdict::Cancel) => due(DueAction::Cancel),
        NextStep::AwaitRetry { wait_ms } => match record.attempts.pending_retry() {
            Some(failed) => ExplainedStep::RetryDue { wait_ms, failure: failed.failure.clone() },
            None => due(DueAction::Run),
        },
        NextStep::AwaitExternalOwner => ExplainedStep::ExternalOwner,
        NextStep::AwaitExecutor => ExplainedStep::Executor { kind: record.registration.input.kind.clone() },
        NextStep::Stuck => ExplainedStep::Stuck { reason: stuck_reason(situation) },
    };
    let held_since = match &situation.lease {
        LeaseSituation::Held { lease, .. } => Some(lease.claimed_at_epoch_ms),
        LeaseSituation::Free | LeaseSituation::Lapsed { .. } => None,
    };
    let since_ms = match &step {
        ExplainedStep::Ended { .. } => record.terminal_at_ms.unwrap_or(record.updated_at_ms),
        ExplainedStep::Held { .. } => held_since.unwrap_or(record.updated_at_ms),
        ExplainedStep::Executor { .. } | ExplainedStep::ExternalOwner => record.created_at_ms,
        _ => record.updated_at_ms,
    };
    (step, since_ms)
}

fn stuck_reason(situation: &ProcessSituation<'_>) -> String {
    let owner = situation.record.first_started.as_ref().map_or("nobody", |started| started.owner.owner_id.as_str());
    let lease = match &situation.lease {
        LeaseSituation::Lapsed { owner, death: Death::Unproved } => {
            format!("the lease of `{}` ran out, which proves nothing", owner.owner_id)
        }
        _ => "nobody holds its lease".to_owned(),
    };
    format!(
        "it was started by `{owner}` and is bound to it; {lease}, and that `{owner}` is dead is not proved. An abandon \
         request, its owner or a deadline ends it"
    )
}

/// What recovery does once nobody holds the process, in words.
fn rule_of(record: &ProcessRecord) -> String {
    let mut rule = match record.registration.disposition {
        RecoveryDisposition::Rerunnable => match record.registration.retry {
            None => "it is run again, as often as it takes".to_owned(),
            Some(retry) => format!(
                "it is run again, up to {} attempts in all, of which {} were begun",
                retry.max_attempts, record.attempts.begun
            ),
        },
        RecoveryDisposition::OwnerBound if record.first_started.is_none() => {
            "nobody has started it: whoever takes it up first is its owner".to_owned()
        }
        RecoveryDisposition::OwnerBound => {
            "it is never run again: it is abandoned once its owner is proved dead, or on request".to_owned()
        }
        RecoveryDisposition::ExternallyOwned => "it is left to its owner outside, or abandoned on request".to_owned(),
    };
    if record.abandon_request.is_some() {
        rule.push_str("; its abandonment is requested, and done once nobody holds it");
    }
    if let Some(deadline_at_ms) = record.deadline_at_ms() {
        rule.push_str(&format!("; it fails at its deadline, {deadline_at_ms} ms"));
    }
    rule
}

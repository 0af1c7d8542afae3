//! What becomes of a process next, and who does it: one pure function over what is known of it.
//!
//! Recovery acts by it, its timer waits by it, and the explanation that people are given is it. It does not know how a
//! lease is claimed, how a death is proved, or how anything is run.
//!
//! | in this order | what is known | step |
//! |---|---|---|
//! | 1 | it has ended | none |
//! | 2 | its parent ended or was asked to stop, and that concerns it | ask it to stop |
//! | 3 | its lease is in force, and the holder is not proved dead | wait for the holder |
//! | 4 | started, owner-bound, the holder whose lease ended is dead | abandon; the owner is that holder |
//! | 5 | somebody authorised its abandonment | abandon, on request |
//! | 6 | its deadline has passed | fail |
//! | 7 | externally owned | wait for its owner |
//! | 8 | started, owner-bound, who started it is dead | abandon; the owner is who started it |
//! | 9 | started, owner-bound, nobody is proved dead | none: it is stuck |
//! | 10 | asked to stop, and nothing of it can be running | cancel |
//! | 11 | its attempts are used up | fail |
//! | 12 | its next attempt is not due | wait until it is |
//! | 13 | otherwise | run |
//!
//! Steps 4, 8 and 13 need the executor of its kind: only that can end what an earlier owner left running. Time that has
//! passed never yields an abandonment: only a proof, or somebody's word, does.

use serde::{Deserialize, Serialize};

use super::{
    AbandonEvidence, AbandonWriter, AttemptFailure, LeaseOwnerIdentity, ParentEndRule, ProcessFailureClass, ProcessId,
    ProcessLease, ProcessRecord, RecoveryDisposition,
};

/// What is known about the life of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    /// It is dead beyond doubt.
    Proved,
    /// It may live, for all that is known.
    Unproved,
}

/// Who has, or had, the right to run a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseSituation {
    /// Nobody: it was given up, or never taken.
    Free,
    /// A lease is in force.
    Held {
        /// The lease.
        lease: Box<ProcessLease>,
        /// How long it lasts yet, in ms, as far as the reader can tell.
        remaining_ms: u64,
        /// What is known of its holder.
        death: Death,
    },
    /// The lease ended without being given up: it ran out, or the reader's claim displaced it.
    Lapsed {
        /// Who held it.
        owner: LeaseOwnerIdentity,
        /// What is known of the holder.
        death: Death,
    },
}

/// What is known of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentSituation {
    /// It has none, or the registry does not know it.
    None,
    /// It has not ended, and nobody asked it to stop.
    Running,
    /// Somebody asked it to stop.
    CancelRequested,
    /// It has ended.
    Ended,
}

/// What is known of a process at one instant.
#[derive(Debug, Clone)]
pub struct ProcessSituation<'record> {
    /// Its record.
    pub record: &'record ProcessRecord,
    /// Who has, or had, the right to run it.
    pub lease: LeaseSituation,
    /// What is known of who began the execution.
    pub starter: Death,
    /// Whether somebody asked that it stop.
    pub cancel_requested: bool,
    /// What is known of its parent.
    pub parent: ParentSituation,
    /// Whether whoever asks has an executor for its kind.
    pub has_executor: bool,
    /// The wall clock, in ms since the Unix epoch.
    pub now_epoch_ms: u64,
}

/// What becomes of a process next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: it has ended.
    Ended,
    /// It is asked to stop, because its parent has ended or was asked to. Needs no lease.
    AskToStop {
        /// The parent.
        parent: ProcessId,
    },
    /// Whoever holds its lease goes on, or loses it in so many ms.
    AwaitHolder {
        /// The holder.
        owner: LeaseOwnerIdentity,
        /// When the lease ends unless it is renewed, in ms from now.
        remaining_ms: u64,
    },
    /// Whoever takes its lease does this.
    Act(Verdict),
    /// Its next attempt is due in so many ms.
    AwaitRetry {
        /// From now.
        wait_ms: u64,
    },
    /// It is closed from outside.
    AwaitExternalOwner,
    /// Whoever asks cannot: a worker with an executor for its kind is needed.
    AwaitExecutor,
    /// Nothing and nobody: it was started, is bound to its owner, and that one neither holds the lease nor is proved dead.
    /// An abandon request, its own owner or its deadline ends it.
    Stuck,
}

/// What recovery does with a process whose lease it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is run, for the first time or again.
    Run,
    /// It ends as abandoned. What was found of its remains is added to the evidence by who looked for them.
    Abandon {
        /// Who said so, and why.
        evidence: AbandonEvidence,
    },
    /// It ends as failed.
    Fail {
        /// Why.
        failure: AttemptFailure,
    },
    /// It ends as cancelled.
    Cancel,
}

impl ProcessSituation<'_> {
    /// What becomes of the process next.
    #[must_use]
    pub fn next_step(&self) -> NextStep {
        let record = self.record;
        if record.status.is_terminal() {
            return NextStep::Ended;
        }
        if let Some(parent) = self.parent_that_ended()
            && !self.cancel_requested
        {
            return NextStep::AskToStop { parent };
        }
        match &self.lease {
            LeaseSituation::Held { lease, remaining_ms, death: Death::Unproved } => {
                NextStep::AwaitHolder { owner: lease.owner.clone(), remaining_ms: *remaining_ms }
            }
            LeaseSituation::Free | LeaseSituation::Held { .. } | LeaseSituation::Lapsed { .. } => self.unheld(),
        }
    }

    /// The step of a process that nobody holds.
    fn unheld(&self) -> NextStep {
        let record = self.record;
        let is_bound =
            record.registration.disposition == RecoveryDisposition::OwnerBound && record.first_started.is_some();
        if is_bound
            && self.has_executor
            && let Some(holder) = self.dead_holder()
        {
            return self.abandon(AbandonWriter::Sweep, Some(holder.clone()));
        }
        let starter = record.first_started.as_ref().map(|started| &started.owner);
        if record.abandon_request.is_some() {
            let owner = starter.filter(|_| record.registration.disposition != RecoveryDisposition::ExternallyOwned);
            return self.abandon(AbandonWriter::ReconciledRequest, owner.cloned());
        }
        if let Some(deadline_ms) = record.registration.deadline_ms
            && record.deadline_at_ms().is_some_and(|deadline_at_ms| deadline_at_ms <= self.now_epoch_ms)
        {
            return NextStep::Act(Verdict::Fail { failure: AttemptFailure::deadline_passed(deadline_ms) });
        }
        match (record.registration.disposition, starter) {
            (RecoveryDisposition::ExternallyOwned, _) => NextStep::AwaitExternalOwner,
            (RecoveryDisposition::OwnerBound, Some(_)) if self.dead_holder().is_some() => NextStep::AwaitExecutor,
            (RecoveryDisposition::OwnerBound, Some(starter)) => {
                // A holder that may live is heard before somebody who began long ago, unless it began nothing: then it was
                // about to end the process, and did not come to it.
                let begun_by = record.attempts.latest.as_ref().map(|latest| &latest.owner);
                let unheard = matches!(
                    &self.lease,
                    LeaseSituation::Lapsed { owner, death: Death::Unproved }
                        if begun_by.is_none_or(|begun_by| begun_by.same_incarnation(owner))
                );
                match (self.starter, unheard, self.has_executor) {
                    // The lease was given up and the outcome never came, as when an earlier recovery could not end what was
                    // left of the work.
                    (Death::Proved, false, true) => self.abandon(AbandonWriter::Sweep, Some(starter.clone())),
                    (Death::Proved, false, false) => NextStep::AwaitExecutor,
                    (Death::Proved, true, _) | (Death::Unproved, _, _) => NextStep::Stuck,
                }
            }
            (RecoveryDisposition::OwnerBound, None) | (RecoveryDisposition::Rerunnable, _) => self.runnable(),
        }
    }

    /// The step of a process that anybody may run.
    fn runnable(&self) -> NextStep {
        let record = self.record;
        let attempts = &record.attempts;
        let retry = record.registration.retry.as_ref();
        let failed = attempts.pending_retry();
        // Where the latest attempt did not report its end something of it may run, and its executor is what stops it.
        if self.cancel_requested && (record.first_started.is_none() || failed.is_some()) {
            return NextStep::Act(Verdict::Cancel);
        }
        if let Some(retry) = retry.filter(|retry| !retry.allows_after(attempts.begun)) {
            let latest = attempts.failure.as_ref().map(|failed| failed.failure.message.as_str());
            let failure = AttemptFailure::attempts_exhausted(retry.max_attempts, latest);
            return NextStep::Act(Verdict::Fail { failure });
        }
        let wait_ms = failed.map_or(0, |failed| failed.wait_ms(retry, self.now_epoch_ms));
        match (self.has_executor, wait_ms) {
            (false, _) => NextStep::AwaitExecutor,
            (true, 0) => NextStep::Act(Verdict::Run),
            (true, wait_ms) => NextStep::AwaitRetry { wait_ms },
        }
    }

    fn parent_that_ended(&self) -> Option<ProcessId> {
        let parent = self.record.registration.parent.as_ref()?;
        let concerns_it = parent.on_end == ParentEndRule::RequestCancel
            && matches!(self.parent, ParentSituation::CancelRequested | ParentSituation::Ended);
        concerns_it.then(|| parent.process_id.clone())
    }

    fn dead_holder(&self) -> Option<&LeaseOwnerIdentity> {
        match &self.lease {
            LeaseSituation::Held { lease, death: Death::Proved, .. } => Some(&lease.owner),
            LeaseSituation::Lapsed { owner, death: Death::Proved } => Some(owner),
            LeaseSituation::Free | LeaseSituation::Held { .. } | LeaseSituation::Lapsed { .. } => None,
        }
    }

    /// Who had it last, as far as that is known: the holder whose lease lapsed, or else who began the execution.
    #[must_use]
    pub fn latest_owner(&self) -> Option<&LeaseOwnerIdentity> {
        match &self.lease {
            LeaseSituation::Held { lease, .. } => Some(&lease.owner),
            LeaseSituation::Lapsed { owner, .. } => Some(owner),
            LeaseSituation::Free => self.record.first_started.as_ref().map(|started| &started.owner),
        }
    }

    const fn abandon(&self, writer: AbandonWriter, owner: Option<LeaseOwnerIdentity>) -> NextStep {
        let evidence = AbandonEvidence { writer, owner, epoch_ms: self.now_epoch_ms, detail: None };
        NextStep::Act(Verdict::Abandon { evidence })
    }
}

impl AttemptFailure {
    /// The failure of a process that did not end in the time, in ms from its registration, that it declares.
    #[must_use]
    pub fn deadline_passed(deadline_ms: u64) -> Self {
        Self {
            class: ProcessFailureClass::Timeout,
            code: "deadline_passed".to_owned(),
            message: format!("it did not end within {deadline_ms} ms of its registration, which declares so"),
        }
    }

    /// The failure of a process that was attempted as often as it declares.
    #[must_use]
    pub fn attempts_exhausted(max_attempts: u32, latest: Option<&str>) -> Self {
        let latest = latest.map_or_else(String::new, |message| format!("; the last failure that was told: {message}"));
        Self {
            class: ProcessFailureClass::ResourceLimit,
            code: "attempts_exhausted".to_owned(),
            message: format!("{max_attempts} attempts were made and none of them came to an outcome{latest}"),
        }
    }
}

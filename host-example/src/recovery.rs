//! What becomes of the commands that an earlier host left in a store: one pass at the start of the next host.
//!
//! It owns the order: the lease first, then the record as it is under that lease, then the verdict, then the end of
//! whatever still runs, and only then what the verdict says. It does not know how a command is run.

mod remains;
mod verdict;

use std::sync::Arc;

use registry_actor::{
    actor::observe,
    domain::{
        AbandonEvidence, LeaseOwnerIdentity, ProcessAwaitOutput, ProcessId, ProcessLease, ProcessLeaseClaimOutcome,
        ProcessListFilter, ProcessRecord, Refusal,
    },
    port::{ProcessRegistryExt, RegistryError},
};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
};

use self::{
    remains::{PastAttempts, Remains},
    verdict::{Death, Predecessors, Verdict, verdict},
};
use crate::{
    attempt::{Attempt, AttemptEnd, Audience, Journal, OnInterrupt, summary},
    command_process::{COMMAND_KIND, CommandProcess},
    failure::Failure,
    host::Host,
    interrupt::Interrupts,
    lease_keeper::LeaseKeeper,
    notice::say,
};

/// The commands of earlier hosts that run at the same time.
const CONCURRENT_RUNS: usize = 4;

/// The records that are read at a time.
const PAGE_RECORDS: u32 = 100;

/// What became of one process that we tried to take over.
#[derive(Debug)]
pub(crate) enum Takeover {
    /// It is ours to run, and nothing of earlier attempts is left.
    Run(Box<Attempt>),
    /// It has got its outcome.
    Abandoned(ProcessAwaitOutput),
    /// Nothing was changed.
    Left {
        /// Why, for people.
        reason: String,
    },
}

/// Takes a process over, be it new or an earlier host's.
///
/// # Errors
/// When the registry fails. The lease then runs out by itself.
pub(crate) async fn take_over(host: &Host, process_id: &ProcessId) -> Result<Takeover, Failure> {
    let owner = host.lease_owner()?;
    let (lease, displaced) = match acquire(host, process_id, &owner).await? {
        Acquisition::Acquired { lease, displaced } => (lease, displaced),
        Acquisition::Busy { holder } => {
            return Ok(Takeover::Left { reason: format!("it is held by {}, which may live", holder.owner.owner_id) });
        }
        Acquisition::Ended => return Ok(Takeover::Left { reason: "it has ended".to_owned() }),
    };
    let keeper = LeaseKeeper::start(host.registry.clone(), lease, host.timings);
    let taken = Taken { host, process_id, owner: &owner, keeper };
    let takeover = taken.decide(displaced.as_deref()).await;
    if !matches!(takeover, Ok(Takeover::Run(_) | Takeover::Abandoned(_))) {
        // The next host is to find it as we did. If this fails, the lease runs out.
        drop(taken.journal().release().await);
    }
    takeover
}

enum Acquisition {
    Acquired { lease: ProcessLease, displaced: Option<Box<ProcessLease>> },
    Busy { holder: ProcessLease },
    Ended,
}

/// Claims the lease; from a holder that is provably dead it is taken before it has run out.
async fn acquire(host: &Host, process_id: &ProcessId, owner: &LeaseOwnerIdentity) -> Result<Acquisition, Failure> {
    let ttl_ms = host.timings.ttl_ms();
    let claimed = match host.registry.claim_process_lease(process_id, owner.clone(), ttl_ms).await {
        Ok(ProcessLeaseClaimOutcome::Busy { holder }) => {
            host.registry.reclaim_process_lease(process_id, owner.clone(), holder, ttl_ms).await
        }
        answered => answered,
    };
    match claimed {
        Ok(ProcessLeaseClaimOutcome::Acquired { lease, displaced }) => Ok(Acquisition::Acquired { lease, displaced }),
        Ok(ProcessLeaseClaimOutcome::Busy { holder }) => Ok(Acquisition::Busy { holder }),
        Err(RegistryError::Refused(Refusal::AlreadyTerminal { .. })) => Ok(Acquisition::Ended),
        Err(error) => Err(error.into()),
    }
}

/// A process whose lease we hold.
struct Taken<'run> {
    host: &'run Host,
    process_id: &'run ProcessId,
    owner: &'run LeaseOwnerIdentity,
    keeper: Arc<LeaseKeeper>,
}

impl Taken<'_> {
    async fn decide(&self, displaced: Option<&ProcessLease>) -> Result<Takeover, Failure> {
        let Some(record) = self.host.registry.get_process(self.process_id).await? else {
            return Err(RegistryError::Refused(Refusal::Unknown { process_id: self.process_id.clone() }).into());
        };
        if record.status.is_terminal() {
            return Ok(Takeover::Left { reason: "it has ended".to_owned() });
        }
        match verdict(&record, &self.predecessors(&record, displaced), self.keeper.lease().claimed_at_epoch_ms) {
            Verdict::Leave { reason } => Ok(Takeover::Left { reason: reason.to_owned() }),
            Verdict::Run => self.prepare_run(&record).await,
            Verdict::Abandon { evidence } => self.abandon(evidence).await,
        }
    }

    fn predecessors(&self, record: &ProcessRecord, displaced: Option<&ProcessLease>) -> Predecessors {
        let death_of = |other: &LeaseOwnerIdentity| {
            Death::of(other, &self.owner.liveness, self.host.registry.session(), &observe(&other.liveness))
        };
        Predecessors {
            displaced: displaced.map(|lease| (lease.owner.clone(), death_of(&lease.owner))),
            starter: record.first_started.as_ref().map_or(Death::Unproved, |started| death_of(&started.owner)),
        }
    }

    async fn prepare_run(&self, record: &ProcessRecord) -> Result<Takeover, Failure> {
        let runnable = CommandProcess::from_registration(&record.registration)
            .and_then(|command| command.environment().map(|environment| (command, environment)));
        let (command, environment) = match runnable {
            Ok(runnable) => runnable,
            Err(reason) => return Ok(Takeover::Left { reason: reason.to_string() }),
        };
        let (number, _) = match self.end_remains().await {
            Ok(ended) => ended,
            Err(reason) => return Ok(Takeover::Left { reason }),
        };
        Ok(Takeover::Run(Box::new(Attempt {
            host: self.host.clone(),
            process_id: self.process_id.clone(),
            command,
            environment,
            number,
            keeper: Arc::clone(&self.keeper),
            on_interrupt: OnInterrupt::Cancel,
        })))
    }

    async fn abandon(&self, evidence: AbandonEvidence) -> Result<Takeover, Failure> {
        let remains = match self.end_remains().await {
            Ok((_, remains)) => remains,
            Err(reason) => return Ok(Takeover::Left { reason }),
        };
        let detail = json!({
            "proved_dead_by": self.host.registry.session().to_string(),
            "remains": remains.to_evidence(),
            "killed": remains.killed(),
        });
        let outcome = ProcessAwaitOutput::abandoned(AbandonEvidence { detail: Some(detail), ..evidence });
        self.journal().complete(outcome.clone()).await?;
        Ok(Takeover::Abandoned(outcome))
    }

    /// Ends what earlier attempts have left, and tells the number of the next one.
    async fn end_remains(&self) -> Result<(u32, Remains), String> {
        let attempts =
            PastAttempts::read(&self.host.registry, self.process_id).await.map_err(|error| error.to_string())?;
        let number = attempts.next_number();
        let remains = attempts.end_all().await.map_err(|error| error.to_string())?;
        Ok((number, remains))
    }

    fn journal(&self) -> Journal {
        Journal::new(self.host.registry.clone(), self.process_id.clone(), Arc::clone(&self.keeper))
    }
}

/// Goes once through all that is unfinished, except for the process of this run. What is to run is returned, with its
/// lease held; all else has its verdict when this returns. Each process is said in one line.
///
/// # Errors
/// When the store cannot be listed. The failure of one process is said and costs the others nothing.
pub(crate) async fn sweep(host: &Host, own: &ProcessId) -> Result<Vec<Attempt>, Failure> {
    let mut runs = Vec::new();
    let mut after = None;
    loop {
        let filter = ProcessListFilter::default();
        let page = host.registry.list_page(filter, after, PAGE_RECORDS).await?;
        for record in page.records.iter().filter(|record| is_swept(record, own)) {
            let id = record.id();
            match take_over(host, id).await {
                Ok(Takeover::Run(attempt)) => {
                    say(format_args!(
                        "recovery: `{id}` runs again as attempt {}, its output goes to the store",
                        attempt.number
                    ));
                    runs.push(as_sweep_run(*attempt, record));
                }
                Ok(Takeover::Abandoned(outcome)) => say(format_args!("recovery: `{id}` is {}", summary(&outcome))),
                Ok(Takeover::Left { reason }) => say(format_args!("recovery: `{id}` is left alone: {reason}")),
                Err(failure) => say(format_args!("recovery: `{id}` is left alone: {failure}")),
            }
        }
        after = page.records.last().map(|record| record.id().clone());
        if !page.has_more || after.is_none() {
            return Ok(runs);
        }
    }
}

/// Processes of other kinds belong to other hosts' executors.
fn is_swept(record: &ProcessRecord, own: &ProcessId) -> bool {
    record.registration.input.kind == COMMAND_KIND && record.id() != own
}

/// Who interrupts us wants our own command cancelled; what we merely took over goes on in the next host, if it may.
fn as_sweep_run(attempt: Attempt, record: &ProcessRecord) -> Attempt {
    use registry_actor::domain::RecoveryDisposition::{ExternallyOwned, OwnerBound, Rerunnable};
    let on_interrupt = match record.registration.disposition {
        Rerunnable => OnInterrupt::Stop,
        OwnerBound | ExternallyOwned => OnInterrupt::Cancel,
    };
    Attempt { on_interrupt, ..attempt }
}

/// The runs of a sweep, some at a time.
#[derive(Debug)]
pub(crate) struct SweepRuns(JoinSet<()>);

impl SweepRuns {
    /// Starts them. Their output is recorded and not shown.
    pub(crate) fn start(attempts: Vec<Attempt>, interrupts: &Interrupts) -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_RUNS));
        let mut runs = JoinSet::new();
        for attempt in attempts {
            let (permits, interrupts) = (Arc::clone(&permits), interrupts.clone());
            runs.spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire_owned().await;
                let id = &attempt.process_id;
                match attempt.run(&interrupts, Audience::Nobody).await {
                    Ok(AttemptEnd::Ended { outcome, .. }) => {
                        say(format_args!("recovery: `{id}` is {}", summary(&outcome)));
                    }
                    Ok(AttemptEnd::Stopped) => {
                        say(format_args!("recovery: `{id}` is stopped, the next host runs it again"));
                    }
                    Err(failure) => say(format_args!("recovery: `{id}` has no outcome: {failure}")),
                }
            });
        }
        Self(runs)
    }

    /// Waits for their ends.
    pub(crate) async fn finish(mut self) {
        while let Some(ended) = self.0.try_join_next() {
            tell_of_panic(ended);
        }
        if !self.0.is_empty() {
            say(format_args!("recovery: waiting for {} more to end", self.0.len()));
        }
        while let Some(ended) = self.0.join_next().await {
            tell_of_panic(ended);
        }
    }
}

fn tell_of_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a run of the recovery failed");
    }
}

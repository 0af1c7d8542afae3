//! One pass over what has not ended: look at each process, and begin what is to be done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell};

use super::account::NotEntered;
use super::handle::Environment;
use super::run_actor::{RunActor, RunArguments};
use super::scope::WorkerScope;
use super::stop::stop_line;
use crate::domain::{LeaseOwnerLiveness, NextStep, ProcessId, ProcessListFilter, ProcessRecord};
use crate::port::{ProcessRegistryExt, RegistryError};
use crate::telemetry;

/// How many records are read at a time.
const PAGE_RECORDS: u32 = 200;

/// How many stuck processes a report names.
const NAMED_STUCK: usize = 100;

/// What a pass found and began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Processes that were looked at.
    pub looked_at: usize,
    /// Runs that were begun: attempts, and ends that need the lease.
    pub begun: usize,
    /// Processes that were asked to stop, because their parent ended.
    pub asked_to_stop: usize,
    /// Processes that somebody else holds.
    pub held: usize,
    /// Processes whose next attempt is not due.
    pub awaiting_retry: usize,
    /// Processes that are owned elsewhere.
    pub external: usize,
    /// Processes of kinds that this worker does not run.
    pub without_executor: usize,
    /// Processes for which nothing is to be done and nobody will come.
    pub stuck: usize,
    /// The first of them, by id.
    pub stuck_ids: Vec<ProcessId>,
    /// Processes that could not be looked at; they are looked at again.
    pub unreadable: usize,
    /// Whether there was more to be begun than may run at once.
    pub full: bool,
    /// Whether the pass stopped at its limit; the next one goes on there.
    pub more: bool,
}

impl SweepReport {
    /// Tells how many of each there were.
    pub(super) fn tell(&self) {
        telemetry::looked_at(&[
            ("begun", self.begun),
            ("asked_to_stop", self.asked_to_stop),
            ("held", self.held),
            ("awaiting_retry", self.awaiting_retry),
            ("external", self.external),
            ("without_executor", self.without_executor),
            ("stuck", self.stuck),
            ("unreadable", self.unreadable),
        ]);
    }
}

/// What a look at one process means for when it is looked at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is due: a change will be told.
    Settled,
    /// Nothing will be due any more.
    Ended,
    /// Something is due then.
    DueIn(Duration),
    /// Nothing is due before then, unless this owner dies.
    Held { remaining: Duration, liveness: LeaseOwnerLiveness },
    /// There was no place for it.
    NoPlace,
}

/// Goes over what has not ended, from a cursor on.
pub(super) struct Sweep<'drive> {
    pub(super) environment: &'drive Arc<Environment>,
    pub(super) supervisor: &'drive ActorCell,
    pub(super) report: SweepReport,
    /// What was found of each process that is to be looked at again.
    pub(super) looks: BTreeMap<ProcessId, Look>,
    /// The parents of those that have one, and whether the child has ended.
    pub(super) parents: BTreeMap<ProcessId, (ProcessId, bool)>,
}

impl<'drive> Sweep<'drive> {
    pub(super) fn new(environment: &'drive Arc<Environment>, supervisor: &'drive ActorCell) -> Self {
        Self {
            environment,
            supervisor,
            report: SweepReport::default(),
            looks: BTreeMap::new(),
            parents: BTreeMap::new(),
        }
    }

    /// One bounded pass. Answers where the next one goes on; `None`: at the beginning.
    pub(super) async fn pass(
        &mut self,
        mut after: Option<ProcessId>,
        is_skipped: impl Fn(&ProcessId) -> bool,
    ) -> Result<Option<ProcessId>, RegistryError> {
        let registry = &self.environment.registry;
        if let WorkerScope::Only(ids) = &self.environment.options.scope {
            for process_id in ids.iter().filter(|process_id| !is_skipped(process_id)) {
                if let Some(record) = registry.get_process(process_id).await? {
                    self.look_at(&record).await;
                }
            }
            return Ok(None);
        }
        loop {
            let page = registry.list_page(ProcessListFilter::default(), after, PAGE_RECORDS).await?;
            for record in page.records.iter().filter(|record| !is_skipped(record.id())) {
                self.look_at(record).await;
            }
            // Nothing can be done with these; what stands behind them is looked at all the same.
            self.report.unreadable += page.damaged.len();
            after = page.records.last().map(|record| record.id().clone());
            if !page.has_more || after.is_none() {
                return Ok(None);
            }
            if self.report.looked_at >= self.environment.options.sweep_limit {
                self.report.more = true;
                return Ok(after);
            }
        }
    }

    /// Looks at one process, and begins what is to be done. What fails is looked at again.
    pub(super) async fn look_at(&mut self, record: &ProcessRecord) {
        if !self.environment.options.scope.contains(record.id()) {
            return;
        }
        self.report.looked_at += 1;
        let parent = Environment::parent_that_matters(record);
        if let Some(parent) = parent {
            self.parents.insert(record.id().clone(), (parent.clone(), record.status.is_terminal()));
        }
        if parent.is_none() && self.environment.account.is_under_way(record.id()) {
            return;
        }
        let look = match self.step(record).await {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(process_id = %record.id(), %error, "a process could not be looked at");
                self.report.unreadable += 1;
                Look::DueIn(UNREADABLE_PAUSE)
            }
        };
        self.looks.insert(record.id().clone(), look);
    }

    async fn step(&mut self, record: &ProcessRecord) -> Result<Look, RegistryError> {
        let situation = self.environment.observer().observe(record).await?;
        let step = situation.next_step();
        // Its run knows all that concerns it, but not of a parent that was registered after it had begun.
        if !matches!(step, NextStep::AskToStop { .. }) && self.environment.account.is_under_way(record.id()) {
            return Ok(Look::Settled);
        }
        Ok(match step {
            NextStep::Ended => Look::Ended,
            NextStep::AskToStop { parent } => {
                self.environment.ask_to_stop(record.id(), &parent).await?;
                self.report.asked_to_stop += 1;
                // It is looked at once more, as one that was asked to stop.
                Look::DueIn(Duration::ZERO)
            }
            NextStep::AwaitHolder { owner, remaining_ms } => {
                self.report.held += 1;
                Look::Held { remaining: Duration::from_millis(remaining_ms), liveness: owner.liveness }
            }
            NextStep::Act(_) => self.begin(record.id()).await,
            NextStep::AwaitRetry { wait_ms } => {
                self.report.awaiting_retry += 1;
                let wait = Duration::from_millis(wait_ms);
                // The deadline may come before the next attempt does.
                match self.deadline(record) {
                    Look::DueIn(deadline) => Look::DueIn(wait.min(deadline)),
                    _ => Look::DueIn(wait),
                }
            }
            NextStep::AwaitExternalOwner => {
                self.report.external += 1;
                self.deadline(record)
            }
            NextStep::AwaitExecutor => {
                self.report.without_executor += 1;
                self.deadline(record)
            }
            NextStep::Stuck => {
                self.report.stuck += 1;
                if self.report.stuck_ids.len() < NAMED_STUCK {
                    self.report.stuck_ids.push(record.id().clone());
                }
                let remaining = match self.deadline(record) {
                    Look::DueIn(deadline) => deadline,
                    _ => Duration::MAX,
                };
                // No commit tells that its owner has died.
                let liveness =
                    situation.latest_owner().map_or(LeaseOwnerLiveness::Opaque, |owner| owner.liveness.clone());
                Look::Held { remaining, liveness }
            }
        })
    }

    /// Where nobody else comes, the deadline still does.
    fn deadline(&self, record: &ProcessRecord) -> Look {
        let now_ms = self.environment.options.clock.now().epoch_ms;
        record.deadline_at_ms().map_or(Look::Settled, |deadline_at_ms| {
            Look::DueIn(Duration::from_millis(deadline_at_ms.saturating_sub(now_ms)))
        })
    }

    async fn begin(&mut self, process_id: &ProcessId) -> Look {
        let (stop, stopped) = stop_line();
        let entry = match self.environment.account.enter(process_id, stop.clone()) {
            Ok(entry) => entry,
            Err(NotEntered::Full) => {
                self.report.full = true;
                return Look::NoPlace;
            }
            Err(NotEntered::UnderWay | NotEntered::Closed) => return Look::Settled,
        };
        let arguments = RunArguments {
            environment: Arc::clone(self.environment),
            process_id: process_id.clone(),
            entry: Arc::new(entry),
            stop,
            stopped,
        };
        match RunActor::spawn_linked(None, RunActor, arguments, self.supervisor.clone()).await {
            Ok(_) => self.report.begun += 1,
            Err(error) => tracing::error!(%process_id, %error, "a run could not be started"),
        }
        Look::Settled
    }
}

/// The pause before a process is looked at again that could not be.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

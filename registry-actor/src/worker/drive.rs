//! The drive of a worker: the timer, and the passes over what has not ended.
//!
//! It looks at everything when it starts, when news was lost, and when the wall clock has jumped; at one process when the
//! registry tells of a change, when its run is over, or when something of it is due. Where a registry does not tell of its
//! commits, it looks at everything each time the timer has slept its longest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::account::{LeftBehind, RunOver};
use super::agenda::{Agenda, later};
use super::handle::Environment;
use super::news::News;
use super::run::TakeOver;
use super::sweep::{Look, Sweep, SweepReport};
use crate::domain::{
    AttemptFailure, Command, Death, LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessFailureClass, ProcessId,
    ProcessLease, ProcessLeaseClaimOutcome, RecoveryDisposition, Refusal,
};
use crate::port::{CommitListener, ProcessRegistryExt, RegistryError, Timestamp};
use crate::telemetry;

/// The drive.
#[derive(Debug, Clone, Copy)]
pub(super) struct DriveActor;

/// What it hears.
#[derive(Debug)]
pub(super) enum DriveMessage {
    /// Make a pass, and tell what it found.
    Sweep(oneshot::Sender<Result<SweepReport, RegistryError>>),
    /// The timer. An older one than the latest says nothing.
    Tick(u64),
    /// The registry has told of changes.
    News,
    /// Runs are over.
    RunsOver,
    /// Look at the runs that are over, and tell when that is done.
    Settle(oneshot::Sender<()>),
}

/// What it is started with.
pub(super) struct DriveArguments {
    pub(super) environment: Arc<Environment>,
    pub(super) supervisor: ActorCell,
}

pub(super) struct Drive {
    environment: Arc<Environment>,
    supervisor: ActorCell,
    agenda: Agenda,
    /// Children by parent, of what was looked at: a parent that ends makes them due.
    children: BTreeMap<ProcessId, BTreeSet<ProcessId>>,
    /// Where the next pass goes on; `None`: at the beginning.
    cursor: Option<ProcessId>,
    /// Whether everything is to be looked at once more when the pass has come to the end: what it has seen may be old.
    once_more: bool,
    /// When the next pass is due.
    next_pass: Instant,
    /// Kept alive here; the source knows it weakly.
    news: Arc<News>,
    /// How long everything may go without being looked at.
    pass_interval: Duration,
    slept_since: (Instant, Timestamp),
    timer: Option<AbortHandle>,
    ticks: u64,
}

/// The pause before a pass that failed is made again.
const FAILED_PASS_PAUSE: Duration = Duration::from_secs(1);

/// The pause before the store is told again what became of a run.
const GIVE_UP_PAUSE: Duration = Duration::from_secs(1);

/// A clock that is further than this from where the timer's own says that it should be has jumped: the wall clock was set,
/// or the machine was suspended, and the timer's clock stood still.
const JUMP_MS: u64 = 1_000;

impl Actor for DriveActor {
    type Msg = DriveMessage;
    type State = Drive;
    type Arguments = DriveArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        DriveArguments { environment, supervisor }: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let news = News::new(Arc::clone(&environment.account));
        let source = environment.registry.change_source();
        if let Some(source) = &source {
            // Before the first pass: whatever is committed after that is told.
            source.attach(&(Arc::clone(&news) as Arc<dyn CommitListener>));
        }
        let slept_since = (Instant::now(), environment.options.clock.now());
        let options = &environment.options;
        let pass_interval = if source.is_some() { options.pass_interval } else { options.longest_sleep };
        let mut drive = Drive {
            environment,
            supervisor,
            agenda: Agenda::default(),
            children: BTreeMap::new(),
            cursor: None,
            once_more: false,
            next_pass: Instant::now(),
            news,
            pass_interval,
            slept_since,
            timer: None,
            ticks: 0,
        };
        drive.sleep(&myself);
        Ok(drive)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        drive: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DriveMessage::Sweep(reply) => {
                let report = drive.pass().await;
                // Whoever asked may be gone.
                drop(reply.send(report));
            }
            DriveMessage::Tick(tick) if tick == drive.ticks => drive.tick().await,
            DriveMessage::Tick(_) => return Ok(()),
            DriveMessage::News => drive.hear().await,
            DriveMessage::RunsOver => drive.settle().await,
            DriveMessage::Settle(reply) => {
                drive.settle().await;
                let _ = reply.send(());
            }
        }
        drive.sleep(&myself);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, drive: &mut Self::State) -> Result<(), ActorProcessingErr> {
        drive.stop_timer();
        Ok(())
    }
}

impl Drive {
    async fn pass(&mut self) -> Result<SweepReport, RegistryError> {
        let now = Instant::now();
        let cursor = self.cursor.take();
        let mut sweep = Sweep::new(&self.environment, &self.supervisor);
        let agenda = &self.agenda;
        let passed = sweep.pass(cursor, |process_id| agenda.is_put_off(process_id, now)).await;
        let (report, looks, parents) = (sweep.report, sweep.looks, sweep.parents);
        self.take_in(looks, parents);
        self.give_up_the_rest().await;
        telemetry::swept();
        report.tell();
        // One that failed begins anew: what it has seen is on the agenda.
        let pause = match &passed {
            Ok(None) if !mem::take(&mut self.once_more) => self.pass_interval,
            Ok(_) => Duration::ZERO,
            Err(_) => FAILED_PASS_PAUSE,
        };
        self.next_pass = later(now, pause);
        self.cursor = passed?;
        Ok(report)
    }

    async fn tick(&mut self) {
        self.agenda_is_due().await;
        if self.next_pass <= Instant::now()
            && let Err(error) = self.pass().await
        {
            tracing::warn!(%error, "a pass over what has not ended failed, and is made again");
        }
    }

    async fn agenda_is_due(&mut self) {
        let mut due = self.agenda.take_due(Instant::now());
        let (environment, mut seen) = (&self.environment, HashMap::<LeaseOwnerLiveness, bool>::new());
        let is_dead =
            |holder: &LeaseOwnerLiveness| *seen.entry(holder.clone()).or_insert_with(|| environment.is_dead(holder));
        due.extend(self.agenda.take_widowed(is_dead));
        self.look_at(due).await;
        // Those that come to nothing leave their places to others.
        loop {
            let waiting = self.agenda.take_placeless(self.environment.account.places());
            if waiting.is_empty() {
                return;
            }
            self.look_at(waiting).await;
        }
    }

    fn look_at_everything(&mut self) {
        self.next_pass = Instant::now();
        self.once_more = self.cursor.is_some();
    }

    /// Looks at what the registry has told of, and at the children of that.
    async fn hear(&mut self) {
        let gathered = self.news.take();
        if gathered.everything {
            self.look_at_everything();
        }
        let mut ids = Vec::new();
        for process_id in gathered.changed {
            ids.extend(self.children.get(&process_id).into_iter().flatten().cloned());
            ids.push(process_id);
        }
        self.look_at(ids).await;
    }

    /// Looks at the processes of runs that are over.
    async fn settle(&mut self) {
        let mut ids = Vec::new();
        while let Some(RunOver { process_id, taken, left_behind }) = self.environment.account.first_over() {
            if let Some(left_behind) = left_behind {
                if !left_behind.is_lost {
                    tracing::error!(%process_id, "a run was killed, its lease is given up");
                }
                self.environment.account.keep_left_behind(process_id.clone(), left_behind);
                self.give_up(&process_id).await;
            }
            self.environment.account.strike_first_over();
            match taken {
                Some(TakeOver::Ended | TakeOver::ToBeContinued) => self.agenda.has_moved(&process_id),
                Some(TakeOver::Left { reason }) => {
                    telemetry::run_over("left");
                    tracing::info!(%process_id, reason, "a process is left as it is for now");
                    self.agenda.put_off(process_id, Instant::now());
                    continue;
                }
                None => {
                    self.agenda.put_off(process_id, Instant::now());
                    continue;
                }
            }
            ids.push(process_id);
        }
        self.look_at(ids).await;
        self.agenda_is_due().await;
    }

    /// Says what became of a run that left its lease behind. Where the store does not take it now, it is said again when the
    /// process is looked at next. Answers whether nothing is left to be said.
    async fn give_up(&self, process_id: &ProcessId) -> bool {
        let Some(left_behind) = self.environment.account.left_behind(process_id) else { return true };
        match self.try_give_up(process_id, &left_behind).await {
            // A refusal is an answer too: another has the lease, or the process has ended.
            Ok(()) | Err(RegistryError::Refused(_) | RegistryError::Closed) => {
                self.environment.account.strike_left_behind(process_id);
                true
            }
            Err(error) => {
                tracing::warn!(%process_id, %error, "what became of a run is not stored yet");
                false
            }
        }
    }

    /// A pass has seen what is left behind as what is stored of it, and an earlier drive may have left it to this one.
    async fn give_up_the_rest(&mut self) {
        for process_id in self.environment.account.all_left_behind() {
            let pause = if self.give_up(&process_id).await { Duration::ZERO } else { GIVE_UP_PAUSE };
            self.agenda.note(process_id, Look::DueIn(pause), Instant::now());
        }
    }

    /// We are the owner of this lease: nobody else is, unless somebody was given it since, and nobody else may say what became
    /// of its run. What is bound to an owner that lives would have no end else.
    async fn try_give_up(
        &self,
        process_id: &ProcessId,
        LeftBehind { lease, is_lost }: &LeftBehind,
    ) -> Result<(), RegistryError> {
        let registry = &self.environment.registry;
        let Some(record) = registry.get_process(process_id).await? else { return Ok(()) };
        let latest = record.attempts.latest.as_ref();
        let began = latest.is_some_and(|latest| latest.owner.same_incarnation(&lease.owner));
        let is_bound = record.registration.disposition == RecoveryDisposition::OwnerBound;
        if is_bound && began && !record.status.is_terminal() {
            let (code, message) = if *is_lost {
                ("lease_lost", "its run was ended because its lease could not be renewed in time")
            } else {
                ("run_killed", "its run was killed in a host that lives on")
            };
            let failure = AttemptFailure {
                class: ProcessFailureClass::Internal,
                code: code.to_owned(),
                message: message.to_owned(),
            };
            let fail = async |lease: &ProcessLease| {
                let command = Command::FailAttempt { failure: failure.clone(), fence: lease.fence() };
                registry.execute(process_id, command).await.map(drop)
            };
            return match fail(lease).await {
                Err(RegistryError::Refused(Refusal::LeaseLost { .. })) => {
                    // We may have taken it up again without an answer. Whoever may have had it meanwhile has not ended the
                    // process, and could not execute it: what became of its one execution, we know.
                    let ttl_ms = self.environment.options.timings.ttl_ms();
                    match registry.claim_process_lease(process_id, lease.owner.clone(), ttl_ms).await? {
                        ProcessLeaseClaimOutcome::Acquired { lease: next, .. } => fail(&next).await,
                        ProcessLeaseClaimOutcome::Busy { .. } => Ok(()),
                    }
                }
                answered => answered,
            };
        }
        registry.complete_process_lease(lease).await
    }

    async fn look_at(&mut self, ids: Vec<ProcessId>) {
        if ids.is_empty() {
            return;
        }
        let environment = Arc::clone(&self.environment);
        let mut sweep = Sweep::new(&environment, &self.supervisor);
        for process_id in ids {
            if !self.give_up(&process_id).await {
                sweep.looks.insert(process_id, Look::DueIn(GIVE_UP_PAUSE));
                continue;
            }
            match environment.registry.get_process(&process_id).await {
                Ok(Some(record)) => sweep.look_at(&record).await,
                // It is gone.
                Ok(None) => drop(sweep.looks.insert(process_id, Look::Ended)),
                Err(error) => {
                    tracing::warn!(%process_id, %error, "a process could not be looked at");
                    sweep.looks.insert(process_id, Look::DueIn(Duration::from_secs(1)));
                }
            }
        }
        sweep.report.tell();
        let (looks, parents) = (sweep.looks, sweep.parents);
        self.take_in(looks, parents);
    }

    fn take_in(&mut self, looks: BTreeMap<ProcessId, Look>, parents: BTreeMap<ProcessId, (ProcessId, bool)>) {
        let now = Instant::now();
        for (process_id, look) in looks {
            self.agenda.note(process_id, look, now);
        }
        for (child, (parent, has_ended)) in parents {
            let children = self.children.entry(parent.clone()).or_default();
            if has_ended {
                children.remove(&child);
            } else {
                children.insert(child);
            }
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    /// Sets the timer anew.
    fn sleep(&mut self, myself: &ActorRef<DriveMessage>) {
        self.stop_timer();
        let now = Instant::now();
        let clocks = (now, self.environment.options.clock.now());
        if has_jumped(self.slept_since, clocks) {
            self.look_at_everything();
        }
        self.slept_since = clocks;
        let longest = self.environment.options.longest_sleep.min(self.next_pass.saturating_duration_since(now));
        let pause = self.agenda.sleep(now, longest);
        self.ticks += 1;
        let tick = self.ticks;
        self.timer = Some(myself.send_after(pause, move || DriveMessage::Tick(tick)).abort_handle());
    }

    fn stop_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}

fn has_jumped(before: (Instant, Timestamp), now: (Instant, Timestamp)) -> bool {
    let passed_ms = u64::try_from(now.0.saturating_duration_since(before.0).as_millis()).unwrap_or(u64::MAX);
    let is_off = |before_ms: u64, now_ms: u64| before_ms.saturating_add(passed_ms).abs_diff(now_ms) > JUMP_MS;
    is_off(before.1.epoch_ms, now.1.epoch_ms) || is_off(before.1.monotonic_ms, now.1.monotonic_ms)
}

impl Environment {
    fn is_dead(&self, holder: &LeaseOwnerLiveness) -> bool {
        let owner = LeaseOwnerIdentity { liveness: holder.clone(), ..self.options.owner.clone() };
        self.observer().death_of(&owner) == Death::Proved
    }
}

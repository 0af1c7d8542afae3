//! A shard: routes to its processes, starts them from the log, starts them again when they fail, and puts idle ones to
//! rest.
//!
//! The exit event of one incarnation is the only licence to start the next: until then commands are buffered here.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::sync::oneshot;

use super::activation::{ActivationQueue, Lane};
use super::directory::Predecessor;
use super::envelope::Envelope;
use super::environment::Environment;
use super::process::{ProcessActor, ProcessArguments, ProcessMessage};
use super::registry::QuarantinedProcess;
use super::restart::{RestartDecision, RestartHistory};
use super::shutdown::Rest;
use super::tree::{Life, Member};
use crate::domain::ProcessId;
use crate::port::{FaultPoint, LogError, RegistryError};
use crate::telemetry;

/// How many commands may wait for one process to start again.
const BUFFER_LIMIT: usize = 4_096;
/// How long a process waits before it tries an unreadable store again.
const STORE_DELAY: Duration = Duration::from_millis(250);

/// A shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardActor;

/// What a shard hears.
#[derive(Debug)]
pub(super) enum ShardMessage {
    /// A command for one of its processes.
    Route(ProcessId, Envelope),
    /// The delay before a start, or a quarantine, is over.
    Due(ProcessId),
    /// The actor of a process has loaded it.
    Loaded(ActorId),
    /// A decision of a process panicked.
    DecisionPanicked(ProcessId),
    /// Look for idle processes.
    Sweep,
    /// Tell which processes are quarantined.
    Quarantined(oneshot::Sender<Vec<QuarantinedProcess>>),
    /// Put everything to rest and end.
    ShutDown(Rest),
}

/// What a shard is started with.
#[derive(Debug, Clone)]
pub(super) struct ShardArguments {
    pub(super) index: usize,
    pub(super) environment: Arc<Environment>,
}

/// What a shard knows.
pub(super) struct Shard {
    index: usize,
    environment: Arc<Environment>,
    /// Ordered, so that two runs of one history put their processes to rest in one order.
    slots: BTreeMap<ProcessId, Slot>,
    activations: ActivationQueue<ActorId>,
    by_actor: HashMap<ActorId, ProcessId>,
    histories: HashMap<ProcessId, RestartHistory>,
    /// Processes that have a place in the directory and none here: their earlier actors died with an earlier shard, or
    /// failed and nobody asked again. Their callers may still be without an answer. The sweep lets them go.
    inherited: HashSet<ProcessId>,
    shutting_down: Option<Rest>,
    _life: Life,
}

/// One process of a shard.
struct Slot {
    phase: Phase,
    buffer: VecDeque<Envelope>,
}

enum Phase {
    /// It has an actor, starting, running or ending.
    Alive(ActorRef<ProcessMessage>),
    /// It is started again when its delay is over.
    Delayed,
    /// It is started when there is room among the loads under way.
    Queued(Lane),
    /// Commands are refused until then, on the environment's scale.
    Quarantined { until: Duration, reason: String },
}

/// How an actor ended.
enum Exit {
    /// It came to rest by itself.
    Rested,
    /// It was stopped, killed, or failed.
    Failed(String),
    /// The store could not be read: no fault of the process.
    StoreUnreadable(String),
}

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = Shard;
    type Arguments = ShardArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        ShardArguments { index, environment }: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        drop(myself.send_interval(environment.options.sweep_interval, || ShardMessage::Sweep));
        let inherited = environment.directory.inherited(|id| environment.shard_of(id) == index);
        let life = Life::begin(&environment, Member::Shard(index));
        Ok(Shard {
            index,
            inherited: inherited.into_iter().collect(),
            activations: ActivationQueue::new(environment.options.activations_per_shard),
            environment,
            slots: BTreeMap::new(),
            by_actor: HashMap::new(),
            histories: HashMap::new(),
            shutting_down: None,
            _life: life,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        shard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMessage::Route(process_id, envelope) => shard.route(process_id, envelope),
            ShardMessage::Due(process_id) => shard.start_when_wanted(process_id),
            ShardMessage::Loaded(actor) => shard.activations.ended(&actor),
            ShardMessage::DecisionPanicked(process_id) => shard.decision_panicked(process_id),
            ShardMessage::Sweep => shard.sweep(),
            ShardMessage::Quarantined(reply) => drop(reply.send(shard.quarantined())),
            ShardMessage::ShutDown(rest) => shard.put_all_to_rest(rest),
        }
        shard.start_queued(&myself).await;
        shard.end_when_empty(&myself);
        Ok(())
    }

    /// Never fails and never lets a send fail it: an error here would take all processes down.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        shard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, state, reason) => {
                // The state holds the callers that were parked in it: dropping it first lets them send again.
                drop(state);
                let exit = match reason.as_deref() {
                    Some("Drained") => Exit::Rested,
                    other => Exit::Failed(other.unwrap_or("its task ended").to_owned()),
                };
                shard.exited(actor.get_id(), exit, &myself);
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                let exit = match error.downcast_ref::<LogError>() {
                    Some(LogError::Unreadable { .. } | LogError::Closed) => Exit::StoreUnreadable(error.to_string()),
                    Some(_) | None => Exit::Failed(error.to_string()),
                };
                shard.exited(actor.get_id(), exit, &myself);
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        shard.start_queued(&myself).await;
        shard.end_when_empty(&myself);
        Ok(())
    }
}

impl Shard {
    fn route(&mut self, process_id: ProcessId, envelope: Envelope) {
        if self.shutting_down.is_some() {
            envelope.answer(Err(RegistryError::Closed));
            return;
        }
        let now = self.environment.elapsed();
        let Some(slot) = self.slots.get_mut(&process_id) else {
            self.queue(process_id, VecDeque::from([envelope]), Lane::InOrder);
            return;
        };
        match &slot.phase {
            Phase::Alive(actor) => {
                if let Some(refused) = send(actor, envelope) {
                    self.environment.reached(FaultPoint::Buffer, &process_id);
                    slot.buffer(refused);
                }
            }
            Phase::Delayed => {
                self.environment.reached(FaultPoint::Buffer, &process_id);
                slot.buffer(envelope);
            }
            Phase::Queued(lane) => {
                if *lane == Lane::InOrder && envelope.call.command.is_urgent() {
                    slot.phase = Phase::Queued(Lane::First);
                    self.activations.push(process_id, Lane::First);
                }
                slot.buffer(envelope);
            }
            Phase::Quarantined { until, reason } => {
                if now < *until {
                    let left_ms = u64::try_from((*until - now).as_millis()).unwrap_or(u64::MAX);
                    let retry_at_ms = self.environment.options.clock.now().epoch_ms.saturating_add(left_ms);
                    let reason = reason.clone();
                    envelope.answer(Err(RegistryError::Unavailable { process_id, retry_at_ms, reason }));
                } else {
                    // Half-open: this command is the one try.
                    self.queue(process_id, VecDeque::from([envelope]), Lane::InOrder);
                }
            }
        }
    }

    fn start_when_wanted(&mut self, process_id: ProcessId) {
        let Some(Slot { phase: Phase::Delayed, buffer }) = self.slots.get_mut(&process_id) else {
            return;
        };
        let buffer = std::mem::take(buffer);
        if buffer.is_empty() {
            // Nobody asks for it. It is started when somebody does.
            self.slots.remove(&process_id);
            self.inherited.insert(process_id);
        } else {
            self.queue(process_id, buffer, Lane::First);
        }
    }

    /// Gives a process a place among those that wait to be loaded, with what waits for it.
    fn queue(&mut self, process_id: ProcessId, buffer: VecDeque<Envelope>, lane: Lane) {
        let is_urgent = buffer.iter().any(|envelope| envelope.call.command.is_urgent());
        let lane = if is_urgent { Lane::First } else { lane };
        self.slots.insert(process_id.clone(), Slot { phase: Phase::Queued(lane), buffer });
        self.activations.push(process_id, lane);
    }

    /// Starts what there is room for.
    async fn start_queued(&mut self, myself: &ActorRef<ShardMessage>) {
        while let Some(process_id) = self.activations.next() {
            if matches!(self.slots.get(&process_id).map(|slot| &slot.phase), Some(Phase::Queued(_))) {
                self.start(&process_id, myself).await;
            }
        }
    }

    /// Starts the actor of a slot and hands it what waits.
    async fn start(&mut self, process_id: &ProcessId, myself: &ActorRef<ShardMessage>) {
        self.environment.reached(FaultPoint::Activate, process_id);
        telemetry::activated();
        let (gate, activity, predecessor) = self.environment.directory.prepare(process_id);
        let predecessor = if self.inherited.remove(process_id) { Predecessor::Some } else { predecessor };
        let arguments = ProcessArguments {
            process_id: process_id.clone(),
            environment: Arc::clone(&self.environment),
            gate,
            activity,
            predecessor,
            shard: myself.clone(),
        };
        let Some(slot) = self.slots.get_mut(process_id) else {
            return;
        };
        match ProcessActor::spawn_linked(None, ProcessActor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                let mut refused = VecDeque::new();
                for envelope in slot.buffer.drain(..) {
                    refused.extend(send(&actor, envelope));
                }
                slot.buffer = refused;
                slot.phase = Phase::Alive(actor.clone());
                self.activations.began(actor.get_id());
                self.by_actor.insert(actor.get_id(), process_id.clone());
                self.environment.directory.publish(process_id, actor);
            }
            Err(error) => {
                // No exit event follows a failed spawn.
                self.failed(process_id.clone(), &error.to_string(), myself);
            }
        }
    }

    fn exited(&mut self, actor: ActorId, exit: Exit, myself: &ActorRef<ShardMessage>) {
        self.activations.ended(&actor);
        let Some(process_id) = self.by_actor.remove(&actor) else {
            return;
        };
        self.environment.directory.withdraw(&process_id, actor);
        if let Some(rest) = &self.shutting_down {
            rest.one_rested();
        }
        if self.has_successor(&process_id, actor) {
            return;
        }
        match exit {
            Exit::Failed(reason) => self.failed(process_id, &reason, myself),
            Exit::StoreUnreadable(reason) => self.delayed_by_store(process_id, &reason, myself),
            Exit::Rested => {
                let Some(slot) = self.slots.get_mut(&process_id) else {
                    return;
                };
                match slot.phase {
                    // It was put to rest because it was quarantined.
                    Phase::Quarantined { .. } => {}
                    Phase::Alive(_) | Phase::Delayed | Phase::Queued(_) if slot.buffer.is_empty() => {
                        self.slots.remove(&process_id);
                        self.environment.directory.forget(&process_id);
                    }
                    Phase::Alive(_) | Phase::Delayed | Phase::Queued(_) => {
                        if self.shutting_down.is_some() {
                            slot.refuse_all(&RegistryError::Closed);
                            self.slots.remove(&process_id);
                        } else {
                            let buffer = std::mem::take(&mut slot.buffer);
                            self.queue(process_id, buffer, Lane::First);
                        }
                    }
                }
            }
        }
    }

    /// Whether an actor that ends late, because it was put to rest by a quarantine which is over by now, is no longer
    /// the one of its slot. Its end then says nothing about the slot, and the gate has kept it from writing.
    fn has_successor(&self, process_id: &ProcessId, ended: ActorId) -> bool {
        match self.slots.get(process_id).map(|slot| &slot.phase) {
            Some(Phase::Alive(actor)) => actor.get_id() != ended,
            Some(Phase::Delayed | Phase::Queued(_)) => true,
            Some(Phase::Quarantined { .. }) | None => false,
        }
    }

    fn failed(&mut self, process_id: ProcessId, reason: &str, myself: &ActorRef<ShardMessage>) {
        let now = self.environment.elapsed();
        let decision = self
            .histories
            .entry(process_id.clone())
            .or_default()
            .record_failure(now, &self.environment.options.restart);
        tracing::warn!(%process_id, reason, ?decision, "process actor failed");
        let Some(slot) = self.slots.get_mut(&process_id) else {
            return;
        };
        if self.shutting_down.is_some() {
            self.slots.remove(&process_id);
            return;
        }
        match (&slot.phase, decision) {
            (Phase::Quarantined { .. }, _) => {}
            (Phase::Alive(_) | Phase::Delayed | Phase::Queued(_), RestartDecision::After(delay)) => {
                telemetry::restarted("process");
                slot.phase = Phase::Delayed;
                drop(myself.send_after(delay, move || ShardMessage::Due(process_id)));
            }
            (Phase::Alive(_) | Phase::Delayed | Phase::Queued(_), RestartDecision::Quarantine(duration)) => {
                self.quarantine(&process_id, now.saturating_add(duration), reason);
            }
        }
    }

    /// A store that is being reopened is the trouble of every process at once: none of them is quarantined for it.
    fn delayed_by_store(&mut self, process_id: ProcessId, reason: &str, myself: &ActorRef<ShardMessage>) {
        tracing::warn!(%process_id, reason, "process actor waits for the store");
        if self.shutting_down.is_some() {
            self.slots.remove(&process_id);
        } else if let Some(slot) = self.slots.get_mut(&process_id) {
            slot.phase = Phase::Delayed;
            drop(myself.send_after(STORE_DELAY, move || ShardMessage::Due(process_id)));
        }
    }

    /// A panicking decision is one refused command; only their number says that something is wrong with the process.
    fn decision_panicked(&mut self, process_id: ProcessId) {
        let now = self.environment.elapsed();
        let history = self.histories.entry(process_id.clone()).or_default();
        if let RestartDecision::Quarantine(duration) = history.record_failure(now, &self.environment.options.restart) {
            let actor = match self.slots.get(&process_id) {
                Some(Slot { phase: Phase::Alive(actor), .. }) => actor.clone(),
                _ => return,
            };
            self.quarantine(&process_id, now.saturating_add(duration), "its decisions panic");
            self.environment.directory.withdraw(&process_id, actor.get_id());
            // What is under way is still answered. A refused message means that it is ending already.
            drop(actor.cast(ProcessMessage::Rest));
        }
    }

    fn quarantine(&mut self, process_id: &ProcessId, until: Duration, reason: &str) {
        telemetry::quarantined();
        tracing::error!(%process_id, reason, "process is quarantined");
        let now = self.environment.elapsed();
        let left_ms = u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
        let error = RegistryError::Unavailable {
            process_id: process_id.clone(),
            retry_at_ms: self.environment.options.clock.now().epoch_ms.saturating_add(left_ms),
            reason: reason.to_owned(),
        };
        if let Some(slot) = self.slots.get_mut(process_id) {
            slot.phase = Phase::Quarantined { until, reason: reason.to_owned() };
            slot.refuse_all(&error);
        }
    }

    fn quarantined(&self) -> Vec<QuarantinedProcess> {
        let now = self.environment.elapsed();
        let epoch_ms = self.environment.options.clock.now().epoch_ms;
        let mut listed: Vec<QuarantinedProcess> = self
            .slots
            .iter()
            .filter_map(|(process_id, slot)| match &slot.phase {
                // One whose time is over is tried at the next command: it is not refused any more.
                Phase::Quarantined { until, reason } if now < *until => Some(QuarantinedProcess {
                    process_id: process_id.clone(),
                    retry_at_ms: epoch_ms
                        .saturating_add(u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX)),
                    reason: reason.clone(),
                }),
                Phase::Alive(_) | Phase::Delayed | Phase::Queued(_) | Phase::Quarantined { .. } => None,
            })
            .collect();
        listed.sort_by(|left, right| left.process_id.cmp(&right.process_id));
        listed
    }

    fn sweep(&mut self) {
        let policy = self.environment.options.restart;
        let now = self.environment.elapsed();
        self.histories.retain(|_, history| !history.is_clean(now, &policy));
        let inherited = &mut self.inherited;
        self.slots.retain(|process_id, slot| {
            let is_over = matches!(slot.phase, Phase::Quarantined { until, .. } if until <= now);
            if is_over {
                inherited.insert(process_id.clone());
            }
            !is_over
        });
        self.inherited.retain(|process_id| !self.environment.directory.forget_when_quiet(process_id));
        let idle_since = self
            .environment
            .elapsed_ms()
            .saturating_sub(u64::try_from(self.environment.options.passivate_after.as_millis()).unwrap_or(u64::MAX));
        for (process_id, slot) in &self.slots {
            if let Phase::Alive(actor) = &slot.phase
                && self.environment.directory.last_active_ms(process_id).is_some_and(|last| last <= idle_since)
            {
                // A refused message means that it is ending already.
                drop(actor.cast(ProcessMessage::Rest));
            }
        }
    }

    fn put_all_to_rest(&mut self, rest: Rest) {
        self.activations.forget_waiting();
        tracing::debug!(shard = self.index, processes = self.slots.len(), "shard comes to rest");
        self.slots.retain(|_, slot| match &slot.phase {
            Phase::Alive(actor) => {
                drop(actor.cast(ProcessMessage::Rest));
                true
            }
            Phase::Delayed | Phase::Queued(_) | Phase::Quarantined { .. } => {
                slot.refuse_all(&RegistryError::Closed);
                false
            }
        });
        rest.begin(self.by_actor.len());
        self.shutting_down = Some(rest);
    }

    fn end_when_empty(&mut self, myself: &ActorRef<ShardMessage>) {
        if self.by_actor.is_empty()
            && let Some(rest) = self.shutting_down.take()
        {
            rest.finish();
            myself.stop(Some("shut down".to_owned()));
        }
    }
}

impl Slot {
    fn buffer(&mut self, envelope: Envelope) {
        if self.buffer.len() < BUFFER_LIMIT {
            self.buffer.push_back(envelope);
        } else {
            envelope.answer(Err(RegistryError::Busy { limit: BUFFER_LIMIT }));
        }
    }

    fn refuse_all(&mut self, error: &RegistryError) {
        for envelope in self.buffer.drain(..) {
            envelope.answer(Err(error.clone()));
        }
    }
}

/// Sends to an actor, or gives the envelope back if that actor is ending.
fn send(actor: &ActorRef<ProcessMessage>, envelope: Envelope) -> Option<Envelope> {
    if matches!(actor.get_status(), ActorStatus::Stopping | ActorStatus::Stopped | ActorStatus::Draining) {
        return Some(envelope);
    }
    match actor.cast(ProcessMessage::Execute(envelope)) {
        Err(ractor::MessagingErr::SendErr(ProcessMessage::Execute(envelope))) => Some(envelope),
        Ok(()) | Err(_) => None,
    }
}

//! The actor of one process: decide, append at the expected head, install, reply.
//!
//! `installed <= durable <= submitted`: commands that arrive while a batch is at the log wait and are decided together
//! on a scratch state, which takes the place of the state only when its events are durable. It does not know who is
//! told of commits; an actor that dies between commit and reply costs nobody a wake-up.

mod round;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use self::round::{Round, Wakes, decide_round};
use super::directory::{Activity, Predecessor};
use super::envelope::Envelope;
use super::environment::Environment;
use super::gate::{Incarnation, SubmissionGate};
use super::shard::ShardMessage;
use crate::domain::{Command, OperationId, ProcessId, ProcessState, Receipt, ReplayWindow, Sequence};
use crate::port::{
    Answer, AppendError, AppendReply, AppendResult, FaultPoint, Head, LogError, Precondition, ProcessBatch, Query,
    RegistryError, StoredProcess,
};

/// How many of the last events tell their operation, so that a call which is sent again is recognised. A call that may
/// stand further back has the log asked for more.
const OPERATION_TAIL: u32 = 4_096;
/// How many commands are decided together.
const ROUND_LIMIT: usize = 512;
/// How many events a round brings to the log, unless one command alone brings more: as many as the log takes at once.
const ROUND_EVENTS: usize = 1_024;
/// How often in a row another writer may come first before callers are told.
const CONFLICTS_ALLOWED: u32 = 64;

/// The actor of one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessActor;

/// What the actor of a process hears.
#[derive(Debug)]
pub(super) enum ProcessMessage {
    /// A command.
    Execute(Envelope),
    /// Decide what waits: sent to itself, behind the commands that arrived meanwhile.
    Decide,
    /// The log answered.
    Stored(AppendResult),
    /// Come to rest as soon as nothing is pending.
    Rest,
}

/// What the actor of a process is started with.
#[derive(Debug)]
pub(super) struct ProcessArguments {
    pub(super) process_id: ProcessId,
    pub(super) environment: Arc<Environment>,
    pub(super) gate: Arc<SubmissionGate>,
    pub(super) activity: Arc<Activity>,
    pub(super) predecessor: Predecessor,
    pub(super) shard: ActorRef<ShardMessage>,
}

/// What the actor of a process knows.
pub(super) struct ProcessOwner {
    arguments: ProcessArguments,
    incarnation: Incarnation,
    state: ProcessState,
    head: Option<Head>,
    /// Operations that were stored before this incarnation loaded, with the events that they stored.
    operations: HashMap<OperationId, Vec<Sequence>>,
    /// Every event that was stored from here on, before this incarnation loaded, is among `operations`.
    operations_from: Sequence,
    waiting: VecDeque<Envelope>,
    at_the_log: Option<Round>,
    decision_due: bool,
    /// Whether commands come faster than the log answers: then a decision waits for what is already in the mailbox.
    crowded: bool,
    conflicts: u32,
    resting: bool,
    /// Whether the end has begun: from then on the log's answers do not arrive, so nothing may be submitted.
    drained: bool,
}

impl Actor for ProcessActor {
    type Msg = ProcessMessage;
    type State = ProcessOwner;
    type Arguments = ProcessArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        arguments.activity.touch(arguments.environment.elapsed_ms());
        Ok(ProcessOwner {
            incarnation: arguments.gate.begin_incarnation(),
            state: ProcessState::unregistered(arguments.process_id.clone()),
            arguments,
            head: None,
            operations: HashMap::new(),
            operations_from: Sequence::REGISTRATION,
            waiting: VecDeque::new(),
            at_the_log: None,
            decision_due: false,
            crowded: false,
            conflicts: 0,
            resting: false,
            drained: false,
        })
    }

    /// Loads here and not in `pre_start`: in a task of its own, with the mailbox open, and so that a failure is an exit
    /// that the shard hears of.
    async fn post_start(&self, myself: ActorRef<Self::Msg>, owner: &mut Self::State) -> Result<(), ActorProcessingErr> {
        owner.arguments.environment.reached(FaultPoint::Load, owner.process_id());
        owner.arguments.gate.settled().await;
        let tail = match owner.arguments.predecessor {
            Predecessor::None => 0,
            Predecessor::Some => OPERATION_TAIL,
        };
        owner.load(tail).await?;
        // Makes room for the next load. A refused message means that the shard is gone.
        drop(owner.arguments.shard.cast(ShardMessage::Loaded(myself.get_id())));
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        owner: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // It was in the mailbox when the end began. The shard keeps it for the successor; if the shard is gone, the
            // caller sees a closed channel and sends it again.
            ProcessMessage::Execute(envelope) if owner.drained => {
                let back = ShardMessage::Route(owner.process_id().clone(), envelope);
                drop(owner.arguments.shard.cast(back));
            }
            ProcessMessage::Execute(envelope) => {
                owner.arguments.activity.touch(owner.arguments.environment.elapsed_ms());
                owner.waiting.push_back(envelope);
                owner.decide_when_due(&myself).await?;
            }
            ProcessMessage::Decide => {
                owner.decision_due = false;
                owner.decide_waiting(&myself).await?;
            }
            ProcessMessage::Stored(result) => {
                owner.resolve(result).await?;
                owner.decide_when_due(&myself).await?;
            }
            ProcessMessage::Rest => owner.resting = true,
        }
        owner.rest_when_idle(&myself);
        Ok(())
    }
}

impl ProcessOwner {
    const fn process_id(&self) -> &ProcessId {
        &self.arguments.process_id
    }

    /// After `drain` everybody is refused, this actor's own messages and the log's answers too: so only with nothing
    /// pending. What is in the mailbox by then still arrives, and goes back to the shard.
    fn rest_when_idle(&mut self, myself: &ActorRef<ProcessMessage>) {
        let is_idle = self.waiting.is_empty() && self.at_the_log.is_none() && !self.decision_due;
        if self.resting && is_idle && !self.drained {
            self.drained = true;
            // A refusal means that the actor is ending already.
            drop(myself.drain());
        }
    }

    async fn decide_when_due(&mut self, myself: &ActorRef<ProcessMessage>) -> Result<(), LogError> {
        if self.waiting.is_empty() || self.at_the_log.is_some() || self.decision_due {
            return Ok(());
        }
        if self.crowded && myself.cast(ProcessMessage::Decide).is_ok() {
            self.decision_due = true;
            return Ok(());
        }
        self.decide_waiting(myself).await
    }

    async fn decide_waiting(&mut self, myself: &ActorRef<ProcessMessage>) -> Result<(), LogError> {
        while self.at_the_log.is_none() && !self.waiting.is_empty() {
            let commands = self.next_round();
            self.crowded = commands.len() > 1;
            let commands = self.answer_repeated(commands).await?;
            if commands.is_empty() {
                continue;
            }
            let Some((commands, wakes)) = self.look_up(commands).await? else { continue };
            let (round, panicked) = decide_round(&self.state, commands, &wakes, &self.arguments.environment);
            for _ in 0..panicked {
                // A refused message means that the shard is gone, and with it soon this actor.
                drop(self.arguments.shard.cast(ShardMessage::DecisionPanicked(self.process_id().clone())));
            }
            if round.writes_nothing() {
                self.answer_without_writing(round).await?;
            } else {
                self.submit(round, myself);
            }
        }
        Ok(())
    }

    fn next_round(&mut self) -> VecDeque<Envelope> {
        let (mut commands, mut events) = (VecDeque::new(), 0);
        while let Some(envelope) = self.waiting.front() {
            events += match &envelope.call.command {
                Command::Append { events, .. } => events.len(),
                _ => 1,
            };
            let is_full = commands.len() >= ROUND_LIMIT || events > ROUND_EVENTS;
            if is_full && !commands.is_empty() {
                break;
            }
            commands.extend(self.waiting.pop_front());
        }
        commands
    }

    /// A refusal, too, must not rest on what another writer has changed meanwhile.
    async fn answer_without_writing(&mut self, round: Round) -> Result<(), LogError> {
        let log = &self.arguments.environment.log;
        if log.holds(self.process_id(), self.precondition()).await? || self.conflicts >= CONFLICTS_ALLOWED {
            self.conflicts = 0;
            round.answer();
            return Ok(());
        }
        self.decide_again(round).await
    }

    /// Another writer came first, or nobody knows: the log does. Each command is decided again, or found.
    async fn decide_again(&mut self, round: Round) -> Result<(), LogError> {
        self.conflicts += 1;
        for envelope in round.into_commands().rev() {
            self.waiting.push_front(envelope);
        }
        self.load(OPERATION_TAIL).await
    }

    fn precondition(&self) -> Precondition {
        Precondition { head: self.head, lease_revision: self.state.lease.revision }
    }

    /// A call may come back long after its actor died: when others have appended more than the tail holds, or when
    /// incarnations that knew nothing of it have come and gone. Then more of the log is asked for its operations.
    async fn look_back(&mut self, commands: &VecDeque<Envelope>) -> Result<(), LogError> {
        let Some(oldest) = commands.iter().filter_map(|envelope| envelope.call.submitted_from()).min() else {
            return Ok(());
        };
        while oldest < self.operations_from {
            let behind = self.head.map_or(0, |head| head.sequence.0.saturating_sub(oldest.0));
            let tail = u32::try_from(behind).unwrap_or(u32::MAX).saturating_add(OPERATION_TAIL);
            self.load(tail).await?;
        }
        Ok(())
    }

    /// Answers calls that were carried out before this incarnation began.
    async fn answer_repeated(&mut self, commands: VecDeque<Envelope>) -> Result<VecDeque<Envelope>, LogError> {
        self.look_back(&commands).await?;
        let mut commands = self.give_up_former_lives(commands);
        if self.operations.is_empty() {
            return Ok(commands);
        }
        let mut fresh = VecDeque::with_capacity(commands.len());
        while let Some(envelope) = commands.pop_front() {
            let Some(sequences) = self.operations.get(&envelope.call.operation).cloned() else {
                fresh.push_back(envelope);
                continue;
            };
            if let Some(receipt) = self.receipt_of_repeated(&envelope.call.command, &sequences).await? {
                envelope.answer(Ok(receipt));
                continue;
            }
            // The next load knows which life it is now.
            fresh.push_back(envelope);
            fresh.append(&mut commands);
            while let Some(envelope) = fresh.pop_back() {
                self.waiting.push_front(envelope);
            }
            self.load(OPERATION_TAIL).await?;
        }
        Ok(fresh)
    }

    /// What a command is answered that stored these events; `None` if their life has been pruned since it was loaded.
    async fn receipt_of_repeated(
        &mut self,
        command: &Command,
        sequences: &[Sequence],
    ) -> Result<Option<Receipt>, LogError> {
        let Some(record) = self.state.record.clone() else {
            return Ok(None);
        };
        let stored = match self.resolve_keys(command.replay_keys(self.process_id())).await {
            Ok(()) => self.stored_events(sequences).await,
            Err(error) => Err(error),
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(LogError::Unknown { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Another life has the same sequences, so that the life is looked up after the events.
        let query = Query::Process { process_id: self.process_id().clone() };
        let is_same_life = match self.arguments.environment.log.query(query).await? {
            Answer::Process(now) => now.is_some_and(|now| now.generation == record.generation),
            _ => {
                return Err(LogError::Unreadable {
                    reason: "the log answered a record with something else".to_owned(),
                });
            }
        };
        Ok(is_same_life.then(|| Receipt::of_stored(command, record, stored, &self.state.replays)))
    }

    /// What a call stored may have gone with a life that was pruned. Then nobody knows, and to decide it anew could carry
    /// it out twice.
    fn give_up_former_lives(&self, commands: VecDeque<Envelope>) -> VecDeque<Envelope> {
        // A process that was pruned and not registered anew stands between two lives.
        let lived = match &self.state.record {
            Some(record) => record.generation,
            None => self.state.pruned_generations.saturating_add(1),
        };
        let mut left = VecDeque::with_capacity(commands.len());
        for envelope in commands {
            if envelope.call.may_be_of_a_life_before(lived) {
                let (process_id, operation) = (self.process_id().clone(), envelope.call.operation);
                let reason = "the life of the process for which it was stored, if it was, has been pruned".to_owned();
                envelope.answer(Err(RegistryError::OutcomeUnknown { process_id, operation, reason }));
            } else {
                left.push_back(envelope);
            }
        }
        left
    }

    /// The events of one operation stand side by side; the registration itself is not among what a page returns.
    async fn stored_events(&self, sequences: &[Sequence]) -> Result<Vec<Arc<crate::domain::ProcessEvent>>, LogError> {
        let wanted: Vec<Sequence> =
            sequences.iter().copied().filter(|sequence| *sequence > Sequence::REGISTRATION).collect();
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            return Ok(Vec::new());
        };
        let query = Query::Events {
            process_id: self.process_id().clone(),
            after: Sequence(first.0 - 1),
            limit: u32::try_from(last.0 - first.0 + 1).unwrap_or(u32::MAX),
        };
        match self.arguments.environment.log.query(query).await? {
            Answer::Events(page) => Ok(page.events),
            _ => Err(LogError::Unreadable { reason: "the log answered events with something else".to_owned() }),
        }
    }

    /// Asks the log what deciding these commands needs. `None` means that there is nothing to decide now.
    async fn look_up(&mut self, commands: VecDeque<Envelope>) -> Result<Option<(VecDeque<Envelope>, Wakes)>, LogError> {
        match self.look_up_for(&commands).await {
            Ok(wakes) => return Ok(Some((commands, wakes))),
            // Pruned by another writer: that is no failure of this actor, and the next load knows what is left.
            Err(LogError::Unknown { .. }) => {
                for envelope in commands.into_iter().rev() {
                    self.waiting.push_front(envelope);
                }
                self.load(OPERATION_TAIL).await?;
                return Ok(None);
            }
            Err(LogError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        // One of them names what is damaged. It is told so; the others, a renewal perhaps, are not held up by it.
        let (mut sound, mut wakes) = (VecDeque::new(), Wakes::new());
        for envelope in commands {
            let alone = VecDeque::from([envelope]);
            match self.look_up_for(&alone).await {
                Ok(found) => {
                    wakes.extend(found);
                    sound.extend(alone);
                }
                Err(error @ LogError::Damaged { .. }) => {
                    for envelope in alone {
                        envelope.answer(Err(RegistryError::Store(error.clone())));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((!sound.is_empty()).then_some((sound, wakes)))
    }

    async fn look_up_for(&mut self, commands: &VecDeque<Envelope>) -> Result<Wakes, LogError> {
        let keys = commands
            .iter()
            .flat_map(|envelope| envelope.call.command.replay_keys(self.process_id()))
            .collect::<Vec<_>>();
        self.resolve_keys(keys).await?;
        self.look_up_wakes(commands).await
    }

    /// The events that acknowledgements name. What is not durable yet is not there: whoever acknowledges it guessed.
    async fn look_up_wakes(&self, commands: &VecDeque<Envelope>) -> Result<Wakes, LogError> {
        let mut wakes = Wakes::new();
        if self.state.record.is_none() {
            return Ok(wakes);
        }
        for sequence in commands.iter().filter_map(|envelope| envelope.call.command.acknowledged_wake()) {
            if sequence > Sequence::REGISTRATION && sequence <= self.state.sequence {
                wakes.extend(self.stored_events(&[sequence]).await?.into_iter().map(|event| (event.sequence, event)));
            }
        }
        Ok(wakes)
    }

    async fn resolve_keys(&mut self, mut keys: Vec<crate::domain::ReplayKey>) -> Result<(), LogError> {
        keys.retain(|key| self.state.replays.must_look_up(key));
        if keys.is_empty() || self.state.record.is_none() {
            return Ok(());
        }
        for (key, stored) in self.arguments.environment.log.find_replays(self.process_id(), keys).await? {
            self.state.replays.resolve(key, stored);
        }
        Ok(())
    }

    fn submit(&mut self, round: Round, myself: &ActorRef<ProcessMessage>) {
        let Some(ticket) = self.arguments.gate.admit(self.incarnation) else {
            // A successor has begun. The callers see closed channels and find it.
            return;
        };
        let Some(record) = round.scratch.record.clone() else {
            return;
        };
        let batch = ProcessBatch {
            process_id: self.process_id().clone(),
            expected: self.precondition(),
            events: round.events.clone(),
            deliveries: round.deliveries.clone(),
            record,
            body_changed: self.state.record.is_none() || round.scratch.body_sequence > self.state.sequence,
            lease: round.lease.clone(),
            urgent: round.urgent,
        };
        self.arguments.environment.reached(FaultPoint::BeforeSubmit, self.process_id());
        round.mark_submitted(self.head.map_or(Sequence::REGISTRATION, |head| head.sequence.next()));
        self.at_the_log = Some(round);
        let actor = myself.clone();
        let reply = AppendReply::new(move |result| {
            drop(ticket);
            // An actor that has ended needs no answer: its successor asks the log.
            drop(actor.cast(ProcessMessage::Stored(result)));
        });
        self.arguments.environment.log.submit(batch, reply);
        self.arguments.environment.reached(FaultPoint::AfterSubmit, self.process_id());
    }

    async fn resolve(&mut self, result: AppendResult) -> Result<(), LogError> {
        let Some(round) = self.at_the_log.take() else {
            return Ok(());
        };
        match result {
            Ok(head) => {
                self.arguments.environment.reached(FaultPoint::AfterCommitBeforeReply, self.process_id());
                self.conflicts = 0;
                self.head = head;
                self.state = round.scratch.clone();
                self.arguments.environment.reached(FaultPoint::AfterInstall, self.process_id());
                round.answer();
                self.state.replays.settle();
            }
            Err(error @ (AppendError::Conflict | AppendError::Unknown { .. }))
                if self.conflicts < CONFLICTS_ALLOWED =>
            {
                if matches!(error, AppendError::Conflict) {
                    round.mark_conflicted()
                } else {
                    round.mark_lost()
                }
                self.decide_again(round).await?;
            }
            Err(error) => {
                self.conflicts = 0;
                if !matches!(error, AppendError::Unknown { .. }) {
                    round.mark_not_stored();
                }
                round.answer_all(&self.error_for_callers(error));
            }
        }
        Ok(())
    }

    fn error_for_callers(&self, error: AppendError) -> impl Fn(OperationId) -> RegistryError + use<> {
        let process_id = self.process_id().clone();
        move |operation| match &error {
            AppendError::Conflict => RegistryError::NotStored { reason: error.to_string() },
            AppendError::NotAccepted { reason } => RegistryError::NotStored { reason: reason.clone() },
            AppendError::Busy { limit } => RegistryError::Busy { limit: *limit },
            AppendError::Closed => RegistryError::Closed,
            AppendError::Unknown { reason } => {
                RegistryError::OutcomeUnknown { process_id: process_id.clone(), operation, reason: reason.clone() }
            }
        }
    }

    async fn load(&mut self, operation_tail: u32) -> Result<(), LogError> {
        let stored = self.arguments.environment.log.load(self.process_id(), operation_tail).await?;
        let mut state = ProcessState::unregistered(self.process_id().clone());
        self.operations.clear();
        self.operations_from = Sequence::REGISTRATION;
        self.head = None;
        if let Some(StoredProcess { record, head, lease, operations }) = stored {
            self.operations_from = operations.first().map_or_else(|| head.sequence.next(), |(sequence, _)| *sequence);
            for (sequence, operation) in operations {
                self.operations.entry(operation).or_default().push(sequence);
            }
            state.record = Some(record);
            state.sequence = head.sequence;
            state.body_sequence = head.sequence;
            state.lease = Arc::new(lease);
            if head.sequence > Sequence::REGISTRATION {
                state.replays = ReplayWindow::default();
            }
            self.head = Some(head);
        } else {
            let query = Query::Tombstone { process_id: self.process_id().clone() };
            if let Answer::Tombstone(Some(tombstone)) = self.arguments.environment.log.query(query).await? {
                state.pruned_generations = tombstone.generation;
            }
        }
        self.state = state;
        Ok(())
    }
}

//! A process as its actor and its log would keep it: decides, installs, folds, and answers replay keys.

use std::sync::Arc;

use registry_actor::domain::{
    AbandonRequest, AttemptFailure, Command, Decision, DecisionContext, Fence, LeaseFence, LeaseOwnerIdentity,
    LeaseOwnerLiveness, LeaseRelease, LeaseRow, LeaseToken, Measure, ObservedProcess, OperationId, ProcessAwaitOutput,
    ProcessEvent, ProcessEventAppendRequest, ProcessEventSemantics, ProcessEventType, ProcessExternalRef, ProcessId,
    ProcessInput, ProcessLease, ProcessLeaseClaimOutcome, ProcessRecord, ProcessRegistration, ProcessSignal,
    ProcessStarted, ProcessState, ProcessWakeDelivery, ReceiptEvent, RecoveryDisposition, Refusal, ReplayKey,
    ReplayWindow, Reply, Sequence, StoreSession, UnfencedWrites, WaitState, WriteAuthority, apply, decide,
};
use serde_json::{Value, json};

/// The wall clock at the start of every test.
pub(crate) const EPOCH: u64 = 1_000_000;

/// The monotonic clock at the start of every test: another number, so that no test mistakes one clock for the other.
pub(crate) const MONOTONIC: u64 = 5_000;

/// A process, its clocks, its log.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) state: ProcessState,
    pub(crate) context: DecisionContext,
    pub(crate) log: Vec<Arc<ProcessEvent>>,
}

impl World {
    /// Nothing has happened.
    pub(crate) fn empty() -> Self {
        Self {
            state: ProcessState::unregistered(id()),
            context: DecisionContext {
                epoch_ms: EPOCH,
                monotonic_ms: MONOTONIC,
                session: session(1),
                operation: OperationId { issuer: 7, number: 0 },
                observed: ObservedProcess::Unknown,
                wake: None,
                unfenced_writes: UnfencedWrites::RefusedWhileLeased,
            },
            log: Vec::new(),
        }
    }

    /// A process that declares `note` and nothing else of its own.
    pub(crate) fn registered() -> Self {
        Self::declaring([])
    }

    /// A process that declares `note` and these types.
    pub(crate) fn declaring(event_types: impl IntoIterator<Item = ProcessEventType>) -> Self {
        let mut registration = registration();
        registration.event_types.extend(event_types);
        Self::of(registration)
    }

    /// A process that was registered so.
    pub(crate) fn of(registration: ProcessRegistration) -> Self {
        let mut world = Self::empty();
        world.run(register(registration));
        world
    }

    /// A process that ended with this success.
    pub(crate) fn completed(value: Value) -> Self {
        let mut world = Self::registered();
        world.run(complete(&ProcessAwaitOutput::success(value)));
        world
    }

    /// Decides as the next call, and changes nothing but the number of that call. Replay keys are looked up first,
    /// as the edge does.
    pub(crate) fn decide(&mut self, command: &Command) -> Result<Decision, Refusal> {
        self.context.operation.number += 1;
        self.decide_again(command)
    }

    /// Decides as the call before: what a handle does that got no answer.
    pub(crate) fn decide_again(&self, command: &Command) -> Result<Decision, Refusal> {
        let mut state = self.state.clone();
        for key in command.replay_keys(&state.process_id) {
            if state.replays.must_look_up(&key) {
                let stored = self.log.iter().find(|event| event.replay_key.as_ref() == Some(&key)).cloned();
                state.replays.resolve(key, stored);
            }
        }
        let wake = command
            .acknowledged_wake()
            .and_then(|sequence| self.log.iter().find(|event| event.sequence == sequence).cloned());
        decide(&state, command, &DecisionContext { wake, ..self.context.clone() })
    }

    /// Decides and installs.
    pub(crate) fn run(&mut self, command: Command) -> Decision {
        let decision = self.decide(&command).unwrap_or_else(|refusal| panic!("{} refused: {refusal}", command.name()));
        self.install(&decision);
        decision
    }

    /// Decides what must be refused.
    pub(crate) fn refusal(&mut self, command: Command) -> Refusal {
        match self.decide(&command) {
            Ok(decision) => panic!("{} was accepted: {decision:?}", command.name()),
            Err(refusal) => refusal,
        }
    }

    /// Makes a decision durable, and checks that the log alone gives the same record.
    pub(crate) fn install(&mut self, decision: &Decision) {
        for event in &decision.events {
            let expected = self.log.last().map_or(Sequence::REGISTRATION, |last| last.sequence.next());
            assert_eq!(event.sequence, expected, "sequences are dense");
            assert!(
                event.replay_key.is_none() || self.log.iter().all(|stored| stored.replay_key != event.replay_key),
                "no two events have one replay key: {event:?}"
            );
            self.log.push(Arc::clone(event));
            self.state = apply(self.state.clone(), event);
        }
        if let Some(row) = &decision.lease {
            self.state.lease = Arc::new(row.clone());
        }
        self.state.replays.settle();
        self.check_fold();
    }

    /// Folding the log, as it was decided and as it reads back from its JSON text, gives the record.
    fn check_fold(&self) {
        let folded = self.log.iter().fold(ProcessState::unregistered(id()), apply);
        assert_eq!(folded.record, self.state.record, "the record is the fold of its events");
        assert_eq!(folded.body_sequence, self.state.body_sequence);
        let reloaded = self.log.iter().fold(ProcessState::unregistered(id()), |state, event| {
            let text = serde_json::to_string(event).expect("an event has a JSON form");
            apply(state, &Arc::new(serde_json::from_str(&text).expect("a stored event reads back")))
        });
        assert_eq!(reloaded.record, self.state.record, "the record is the fold of its stored events");
    }

    /// Both clocks go on.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.context.epoch_ms += ms;
        self.context.monotonic_ms += ms;
    }

    /// The host ends and another opens the store: next session, a monotonic clock that begins anew, nothing known of
    /// replay keys, and events and record as they read back from JSON.
    pub(crate) fn reopen(&mut self) {
        self.context.session.number += 1;
        self.context.monotonic_ms = 10;
        self.log = through_json(&self.log);
        self.state.record = through_json(&self.state.record);
        self.state.lease = through_json(&self.state.lease);
        self.state.replays = ReplayWindow::default();
    }

    pub(crate) fn record(&self) -> &ProcessRecord {
        self.state.record.as_ref().expect("the process is registered")
    }

    pub(crate) fn row(&self) -> LeaseRow {
        self.state.lease.as_ref().clone()
    }

    /// Takes the lease for this owner.
    pub(crate) fn claim(&mut self, owner: &LeaseOwnerIdentity, ttl_ms: u64) -> ProcessLease {
        acquired(&self.run(claim(owner, ttl_ms)))
    }
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("has a JSON form")).expect("reads back")
}

// Names.

pub(crate) fn id() -> ProcessId {
    ProcessId::new("p").expect("an id")
}

pub(crate) fn key(text: &str) -> ReplayKey {
    ReplayKey::new(text).expect("a key")
}

pub(crate) fn session(number: u64) -> StoreSession {
    StoreSession { store_id: "store".into(), number }
}

pub(crate) fn owner(name: &str) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        owner_id: name.to_owned(),
        incarnation_id: "1".to_owned(),
        liveness: LeaseOwnerLiveness::Opaque,
    }
}

/// The token that the call of this number takes.
pub(crate) fn token(number: u64) -> LeaseToken {
    LeaseToken::new(format!("lease:{:016x}{number:016x}", 7)).expect("a token")
}

// Commands.

pub(crate) fn registration() -> ProcessRegistration {
    let input = ProcessInput::new("job", json!({"n": 1}));
    let mut registration = ProcessRegistration::new(id(), input, RecoveryDisposition::Rerunnable);
    registration.event_types.push(ProcessEventType::plain("note"));
    registration
}

pub(crate) fn register(registration: ProcessRegistration) -> Command {
    Command::Register { registration: Box::new(registration) }
}

pub(crate) fn note(payload: Value) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("note", payload)
}

pub(crate) fn append(event: ProcessEventAppendRequest) -> Command {
    append_all([event])
}

pub(crate) fn append_all(events: impl IntoIterator<Item = ProcessEventAppendRequest>) -> Command {
    Command::Append { events: events.into_iter().collect(), authority: WriteAuthority::Unfenced }
}

pub(crate) fn append_as(fence: &LeaseFence, event: ProcessEventAppendRequest) -> Command {
    Command::Append { events: vec![event], authority: WriteAuthority::Holder(fence.clone()) }
}

pub(crate) fn complete(output: &ProcessAwaitOutput) -> Command {
    Command::Complete { output: output.clone(), authority: WriteAuthority::Unfenced, lease: LeaseRelease::Keep }
}

pub(crate) fn complete_as(fence: &LeaseFence, output: &ProcessAwaitOutput, lease: LeaseRelease) -> Command {
    Command::Complete { output: output.clone(), authority: WriteAuthority::Holder(fence.clone()), lease }
}

pub(crate) fn first_started(owner: &LeaseOwnerIdentity, authority: WriteAuthority) -> Command {
    Command::RecordFirstStarted { started: ProcessStarted { owner: owner.clone(), started_at_ms: 77 }, authority }
}

/// Begins an attempt, as this owner says at 77.
pub(crate) fn begin_attempt(owner: &LeaseOwnerIdentity, fence: &LeaseFence) -> Command {
    Command::BeginAttempt { started: ProcessStarted { owner: owner.clone(), started_at_ms: 77 }, fence: fence.clone() }
}

pub(crate) fn fail_attempt(failure: &AttemptFailure, fence: &LeaseFence) -> Command {
    Command::FailAttempt { failure: failure.clone(), fence: fence.clone() }
}

pub(crate) fn external_ref(id: &str) -> ProcessExternalRef {
    ProcessExternalRef { backend: "ci".to_owned(), id: id.to_owned(), metadata: None }
}

pub(crate) fn set_external_ref(external_ref: &ProcessExternalRef) -> Command {
    Command::SetExternalRef { external_ref: external_ref.clone() }
}

pub(crate) fn abandon_request(requested_by: &str) -> AbandonRequest {
    AbandonRequest { requested_by: requested_by.to_owned(), requested_at_ms: 5, reason: None }
}

pub(crate) fn request_abandon(request: &AbandonRequest) -> Command {
    Command::RequestAbandon { request: request.clone() }
}

/// The wait for the nth signal `go`.
pub(crate) fn wait(ordinal: u64) -> WaitState {
    let signal = ProcessSignal::new("go").expect("a name");
    WaitState::signal(&id(), &signal, ordinal, 42)
}

pub(crate) fn set_wait(wait: &WaitState) -> Command {
    Command::SetWait { wait: wait.clone(), authority: WriteAuthority::Unfenced }
}

pub(crate) fn clear_wait() -> Command {
    Command::ClearWait { authority: WriteAuthority::Unfenced }
}

pub(crate) fn ack(sequence: u64) -> Command {
    Command::AckWake { sequence: Sequence(sequence) }
}

pub(crate) fn claim(owner: &LeaseOwnerIdentity, ttl_ms: u64) -> Command {
    Command::ClaimLease { owner: owner.clone(), ttl_ms }
}

pub(crate) fn reclaim(owner: &LeaseOwnerIdentity, observed: &ProcessLease, ttl_ms: u64) -> Command {
    Command::ReclaimLease { owner: owner.clone(), observed: Box::new(observed.clone()), ttl_ms }
}

pub(crate) fn renew(lease: &ProcessLease, ttl_ms: u64) -> Command {
    Command::RenewLease { lease: Box::new(lease.clone()), ttl_ms }
}

pub(crate) fn release(lease: &ProcessLease) -> Command {
    Command::ReleaseLease { lease_token: lease.lease_token.clone() }
}

// Expected values.

/// An event as it is decided at the start of a test.
pub(crate) fn event(sequence: u64, event_type: &str, payload: Value) -> ProcessEvent {
    ProcessEvent {
        process_id: id(),
        sequence: Sequence(sequence),
        event_type: Arc::from(event_type),
        payload,
        replay_key: None,
        semantics: ProcessEventSemantics::default(),
        occurred_at_ms: EPOCH,
        late: false,
    }
}

/// A decision that appends these events and does nothing else.
pub(crate) fn inserts(events: impl IntoIterator<Item = ProcessEvent>) -> Decision {
    let events: Vec<_> = events.into_iter().map(Arc::new).collect();
    Decision {
        reply: Reply { events: events.iter().cloned().map(ReceiptEvent::Inserted).collect(), ..Reply::default() },
        events,
        lease: None,
        deliveries: Vec::new(),
    }
}

/// A decision that answers with a stored event and does nothing.
pub(crate) fn replays(event: &Arc<ProcessEvent>) -> Decision {
    Decision {
        reply: Reply { events: vec![ReceiptEvent::Replayed(Arc::clone(event))], ..Reply::default() },
        ..Decision::default()
    }
}

/// The same with these wakes, which are stored as well as told.
pub(crate) fn waking(decision: Decision, deliveries: Vec<ProcessWakeDelivery>) -> Decision {
    Decision { deliveries: deliveries.clone(), ..telling(decision, deliveries) }
}

/// The same with these wakes, which are told and were stored before.
pub(crate) fn telling(decision: Decision, deliveries: Vec<ProcessWakeDelivery>) -> Decision {
    Decision { reply: Reply { deliveries, ..decision.reply }, ..decision }
}

/// A decision that moves the lease and appends nothing.
pub(crate) fn grants(row: LeaseRow, displaced: Option<&ProcessLease>) -> Decision {
    let lease = row.holder.clone().expect("a granted row has a holder");
    Decision {
        reply: Reply {
            lease: Some(ProcessLeaseClaimOutcome::Acquired { lease, displaced: displaced.cloned().map(Box::new) }),
            ..Reply::default()
        },
        lease: Some(row),
        ..Decision::default()
    }
}

/// A decision that only says who holds the lease.
pub(crate) fn busy(holder: &ProcessLease) -> Decision {
    Decision {
        reply: Reply { lease: Some(ProcessLeaseClaimOutcome::Busy { holder: holder.clone() }), ..Reply::default() },
        ..Decision::default()
    }
}

/// A lease that was granted at the start of a test.
pub(crate) fn lease(owner: &LeaseOwnerIdentity, number: u64, fence: u64, ttl_ms: u64) -> ProcessLease {
    ProcessLease {
        schema_version: 2,
        process_id: id(),
        owner: owner.clone(),
        lease_token: token(number),
        fencing_token: Fence(fence),
        claimed_at_epoch_ms: EPOCH,
        expires_at_epoch_ms: EPOCH + ttl_ms,
        granted_in: session(1),
        expires_at_monotonic_ms: MONOTONIC + ttl_ms,
    }
}

/// The lease that a decision grants.
pub(crate) fn acquired(decision: &Decision) -> ProcessLease {
    decision.reply.lease.clone().and_then(ProcessLeaseClaimOutcome::acquired).expect("the claim acquires")
}

pub(crate) fn already_terminal(existing: &ProcessAwaitOutput) -> Refusal {
    Refusal::AlreadyTerminal { process_id: id(), existing: Box::new(existing.clone()) }
}

pub(crate) fn lease_held(holder: &ProcessLease) -> Refusal {
    Refusal::LeaseHeld { process_id: id(), holder: Box::new(holder.clone()) }
}

pub(crate) fn lease_lost() -> Refusal {
    Refusal::LeaseLost { process_id: id() }
}

pub(crate) fn unknown() -> Refusal {
    Refusal::Unknown { process_id: id() }
}

/// A text is longer than the registry takes.
pub(crate) fn too_large(what: &str, limit: usize, found: usize) -> Refusal {
    let [limit, found] = [limit, found].map(|bytes| u64::try_from(bytes).expect("it fits"));
    Refusal::LimitExceeded { what: what.to_owned(), measure: Measure::Bytes, limit, found }
}

/// A list is longer than the registry takes.
pub(crate) fn too_many(what: &str, limit: usize, found: usize) -> Refusal {
    let [limit, found] = [limit, found].map(|items| u64::try_from(items).expect("it fits"));
    Refusal::LimitExceeded { what: what.to_owned(), measure: Measure::Items, limit, found }
}

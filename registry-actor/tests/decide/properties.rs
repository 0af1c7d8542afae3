//! Laws that hold after any sequence of commands, found by searching for one that breaks them.

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::prelude::*;
use registry_actor::domain::{
    AbandonEvidence, AbandonRequest, AbandonWriter, AttemptFailure, Command, Decision, Fence, LeaseFence,
    LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseRelease, LeaseToken, ObservedProcess, ParentEndRule, PayloadSchema,
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventSemanticsSpec, ProcessEventType, ProcessExternalRef,
    ProcessFailureClass, ProcessId, ProcessLease, ProcessLeaseClaimOutcome, ProcessParent, ProcessRegistration,
    ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, Receipt,
    RecoveryDisposition, Refusal, RetryPolicy, SessionScope, UnfencedWrites, WaitKind, WaitState, WriteAuthority,
    clear_wake_target,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::*;

/// One thing that happens. Leases are named by the order in which they were granted.
#[derive(Debug, Clone)]
enum Step {
    Register(Box<ProcessRegistration>),
    Append(Vec<ProcessEventAppendRequest>, Right),
    Cancel(Option<String>),
    Complete(ProcessAwaitOutput, Right, LeaseRelease),
    Start(LeaseOwnerIdentity, Right),
    Begin(LeaseOwnerIdentity, usize),
    Fail(AttemptFailure, usize),
    Refer(ProcessExternalRef),
    Abandon(AbandonRequest),
    Wait(WaitState, Right),
    Resume(Right),
    Ack(u64),
    /// The session that is woken is deleted.
    ClearTarget,
    Claim(LeaseOwnerIdentity, u64),
    Reclaim(LeaseOwnerIdentity, usize, ObservedProcess, u64),
    Renew(usize, u64),
    Release(usize),
    /// The wall clock is set, the monotonic one goes on.
    Clocks(i64, u64),
    Policy(UnfencedWrites),
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Right {
    Unfenced,
    Lease(usize),
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// Values.

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c{}/~\\\\\"é\u{0}-]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]|await_output|type", inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

fn any_pointer() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "(/[abc0-]){1,3}", "[a/~01]{0,4}", Just("/await_output".to_owned())]
}

fn any_selector() -> impl Strategy<Value = ProcessValueSelector> {
    let leaf = prop_oneof![
        Just(ProcessValueSelector::Payload),
        any_pointer().prop_map(ProcessValueSelector::Pointer),
        any_json().prop_map(ProcessValueSelector::Const),
        any_pointer().prop_map(ProcessValueSelector::Present),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        ("[{}ab é]{0,8}", prop::collection::btree_map("[ab{]?", inner, 0..3))
            .prop_map(|(template, fields)| ProcessValueSelector::Template { template, fields })
    })
}

fn any_dedupe_key() -> impl Strategy<Value = ProcessWakeDedupeKey> {
    prop_oneof![
        Just(ProcessWakeDedupeKey::EventIdentity),
        any_selector().prop_map(ProcessWakeDedupeKey::Selector),
        "[ab]{0,2}".prop_map(ProcessWakeDedupeKey::Const),
    ]
}

fn any_event_type() -> impl Strategy<Value = ProcessEventType> {
    let schema = prop_oneof![
        3 => Just(PayloadSchema::any()),
        1 => Just(PayloadSchema::object(json!({"a": {"type": "integer"}}), &["a"])),
        1 => any_json().prop_map(PayloadSchema::new),
    ];
    let state = prop::sample::select(ProcessTerminalState::ALL.to_vec());
    let terminal = prop::option::of((state, prop::option::of(any_selector())))
        .prop_map(|terminal| terminal.map(|(state, await_output)| ProcessTerminalSpec { state, await_output }));
    let wake = prop::option::of((prop::option::of(any_selector()), any_selector(), any_dedupe_key()))
        .prop_map(|wake| wake.map(|(when, input, dedupe_key)| ProcessWakeSpec { when, input, dedupe_key }));
    (schema, terminal, wake).prop_map(|(payload_schema, terminal, wake)| ProcessEventType {
        name: "any".into(),
        payload_schema,
        semantics: ProcessEventSemanticsSpec { terminal, wake },
    })
}

fn any_scope() -> impl Strategy<Value = SessionScope> {
    prop_oneof![Just(SessionScope::session("s")), Just(SessionScope::frame("s", "f")), Just(SessionScope::session("")),]
}

fn any_outcome() -> impl Strategy<Value = ProcessAwaitOutput> {
    let few = || prop_oneof![Just(Value::Null), Just(json!(1)), any_json()];
    prop_oneof![
        (few(), prop::option::of(few())).prop_map(|(value, control)| ProcessAwaitOutput::Success { value, control }),
        (prop::option::of(few()), prop::option::of(few())).prop_map(|(raw, control)| ProcessAwaitOutput::Failure {
            class: ProcessFailureClass::External,
            code: "c".into(),
            message: "m".into(),
            raw,
            control,
        }),
        prop::option::of(few()).prop_map(|raw| ProcessAwaitOutput::Cancelled {
            message: "m".into(),
            raw,
            control: None
        }),
        (prop::option::of(any_owner()), prop::option::of(few())).prop_map(|(owner, detail)| {
            ProcessAwaitOutput::abandoned(AbandonEvidence { writer: AbandonWriter::Sweep, owner, epoch_ms: 1, detail })
        }),
    ]
}

fn any_owner() -> impl Strategy<Value = LeaseOwnerIdentity> {
    let liveness = prop_oneof![
        Just(LeaseOwnerLiveness::Opaque),
        (1_u64..3).prop_map(|number| LeaseOwnerLiveness::StoreSession { session: session(number) }),
        Just(LeaseOwnerLiveness::LocalProcess {
            host_id: "h".into(),
            boot_id: "b".into(),
            pid: 7,
            process_start: "100".into(),
            pid_namespace: Some(1),
        }),
    ];
    ("[ab]", "[12]", liveness).prop_map(|(owner_id, incarnation_id, liveness)| LeaseOwnerIdentity {
        owner_id,
        incarnation_id,
        liveness,
    })
}

fn any_request() -> impl Strategy<Value = ProcessEventAppendRequest> {
    let event_type = prop_oneof![
        4 => Just("note"),
        4 => Just("any"),
        1 => Just("nope"),
        1 => Just("process.first_started"),
        1 => Just("process.wake_acknowledged"),
        1 => Just("process.registered"),
        1 => Just("process.waiting"),
        1 => Just("process.resumed"),
        1 => Just("process.cancel_requested"),
    ];
    let plain = (event_type, prop_oneof![Just(json!(1)), any_json()])
        .prop_map(|(event_type, payload)| ProcessEventAppendRequest::new(event_type, payload));
    let waiting = any_wait().prop_map(|wait| ProcessEventAppendRequest::new("process.waiting", json!(wait)));
    let ending = (prop::sample::select(vec!["process.completed", "process.failed"]), any_outcome())
        .prop_map(|(event_type, output)| ProcessEventAppendRequest::new(event_type, output.to_event_payload()));
    let key_text = prop_oneof![
        6 => "k[1-4]",
        1 => Just("process:p:first_started".to_owned()),
        1 => Just("process:p:terminal:process.completed".to_owned()),
    ];
    (prop_oneof![6 => plain, 1 => waiting, 1 => ending], prop::option::of(key_text), prop::option::of(any_scope()))
        .prop_map(|(request, key_text, scope)| ProcessEventAppendRequest {
            replay_key: key_text.map(|text| key(&text)),
            wake_target_scope: scope,
            ..request
        })
}

fn any_right() -> impl Strategy<Value = Right> {
    prop_oneof![Just(Right::Unfenced), (0_usize..6).prop_map(Right::Lease)]
}

fn any_registration() -> impl Strategy<Value = ProcessRegistration> {
    (any_event_type(), prop::option::of(any_scope()), any_json(), prop::option::of(any_json()))
        .prop_map(|(declared, wake_target, payload, definition)| {
            let mut registration = registration();
            registration.event_types.push(declared);
            registration.wake_target = wake_target;
            registration.input.payload = payload;
            registration.identity.definition = definition;
            registration
        })
        .prop_flat_map(any_terms)
}

fn any_terms(registration: ProcessRegistration) -> impl Strategy<Value = ProcessRegistration> {
    let disposition = prop_oneof![
        4 => Just(RecoveryDisposition::Rerunnable),
        2 => Just(RecoveryDisposition::OwnerBound),
        1 => Just(RecoveryDisposition::ExternallyOwned),
    ];
    let retry = (0_u32..4, any_ttl(), any_ttl()).prop_map(|(max_attempts, initial_backoff_ms, max_backoff_ms)| {
        RetryPolicy { max_attempts, initial_backoff_ms, max_backoff_ms }
    });
    let parent = ("[pq]", prop::sample::select(vec![ParentEndRule::RequestCancel, ParentEndRule::LeaveAlone]))
        .prop_map(|(name, on_end)| ProcessParent { process_id: ProcessId::new(name).expect("an id"), on_end });
    let (retry, parent) = (prop::option::of(retry), prop::option::weighted(0.2, parent));
    (disposition, retry, prop::option::weighted(0.2, any_ttl()), parent).prop_map(
        move |(disposition, retry, deadline_ms, parent)| ProcessRegistration {
            disposition,
            retry,
            deadline_ms,
            parent,
            ..registration.clone()
        },
    )
}

fn any_failure() -> impl Strategy<Value = AttemptFailure> {
    ("[ab]?", "[ab\n]?").prop_map(|(code, message)| AttemptFailure::execution(code, message))
}

fn any_external_ref() -> impl Strategy<Value = ProcessExternalRef> {
    ("[ab]?", "[12]", prop::option::of(any_json())).prop_map(|(backend, id, metadata)| ProcessExternalRef {
        backend,
        id,
        metadata,
    })
}

fn any_abandon_request() -> impl Strategy<Value = AbandonRequest> {
    ("[ab]?", any::<u64>(), prop::option::of("[ab]"))
        .prop_map(|(requested_by, requested_at_ms, reason)| AbandonRequest { requested_by, requested_at_ms, reason })
}

fn any_wait() -> impl Strategy<Value = WaitState> {
    (1_u64..4, prop_oneof![4 => Just("go"), 1 => Just("")]).prop_map(|(ordinal, name)| match wait(ordinal) {
        WaitState { kind: WaitKind::Signal { event_type, key, ordinal, .. }, since_ms } => {
            WaitState { kind: WaitKind::Signal { name: name.to_owned(), event_type, key, ordinal }, since_ms }
        }
        other => other,
    })
}

fn any_ttl() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1_u64..200, Just(u64::MAX)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let observed = prop_oneof![
        Just(ObservedProcess::Unknown),
        Just(ObservedProcess::Absent),
        Just(ObservedProcess::Started("100".into())),
    ];
    let release = prop::sample::select(vec![LeaseRelease::Keep, LeaseRelease::Release]);
    prop_oneof![
        1 => any_registration().prop_map(|registration| Step::Register(Box::new(registration))),
        8 => (prop::collection::vec(any_request(), 0..4), any_right())
            .prop_map(|(requests, right)| Step::Append(requests, right)),
        1 => prop::option::of("[ab]").prop_map(Step::Cancel),
        2 => (any_outcome(), any_right(), release)
            .prop_map(|(output, right, release)| Step::Complete(output, right, release)),
        2 => (any_owner(), any_right()).prop_map(|(owner, right)| Step::Start(owner, right)),
        3 => (any_owner(), 0_usize..3).prop_map(|(owner, lease)| Step::Begin(owner, lease)),
        2 => (any_failure(), 0_usize..3).prop_map(|(failure, lease)| Step::Fail(failure, lease)),
        1 => any_external_ref().prop_map(Step::Refer),
        1 => any_abandon_request().prop_map(Step::Abandon),
        3 => (any_wait(), any_right()).prop_map(|(wait, right)| Step::Wait(wait, right)),
        2 => any_right().prop_map(Step::Resume),
        3 => (0_u64..16).prop_map(Step::Ack),
        1 => Just(Step::ClearTarget),
        4 => (any_owner(), any_ttl()).prop_map(|(owner, ttl_ms)| Step::Claim(owner, ttl_ms)),
        2 => (any_owner(), 0_usize..6, observed, any_ttl())
            .prop_map(|(owner, lease, observed, ttl_ms)| Step::Reclaim(owner, lease, observed, ttl_ms)),
        2 => (0_usize..6, any_ttl()).prop_map(|(lease, ttl_ms)| Step::Renew(lease, ttl_ms)),
        1 => (0_usize..6).prop_map(Step::Release),
        3 => (-300_i64..300, 0_u64..200).prop_map(|(wall, monotonic)| Step::Clocks(wall, monotonic)),
        1 => prop::sample::select(vec![UnfencedWrites::RefusedWhileLeased, UnfencedWrites::Allowed])
            .prop_map(Step::Policy),
        1 => Just(Step::Reopen),
    ]
}

// The search.

/// A world with what a bystander remembers of it.
struct Watched {
    world: World,
    /// Every lease that was granted, renewals left out.
    leases: Vec<ProcessLease>,
    /// The lease that holds now, told from the answers alone.
    holder: Option<LeaseFence>,
    ended: Option<(ProcessAwaitOutput, Option<u64>)>,
}

impl Watched {
    fn new() -> Self {
        Self { world: World::empty(), leases: Vec::new(), holder: None, ended: None }
    }

    fn lease(&self, number: usize) -> ProcessLease {
        let nobodys = lease(&owner("nobody"), 9_999, 99, 1);
        if self.leases.is_empty() {
            nobodys
        } else {
            self.leases[self.leases.len() - 1 - number % self.leases.len()].clone()
        }
    }

    fn authority(&self, right: Right) -> WriteAuthority {
        match right {
            Right::Unfenced => WriteAuthority::Unfenced,
            Right::Lease(number) => WriteAuthority::Holder(self.lease(number).fence()),
        }
    }

    fn take(&mut self, step: Step) {
        let command = match step {
            Step::Register(registration) => register(*registration),
            Step::Append(events, right) => Command::Append { events, authority: self.authority(right) },
            Step::Cancel(reason) => Command::RequestCancel { reason },
            Step::Complete(output, right, lease) => {
                Command::Complete { output, authority: self.authority(right), lease }
            }
            Step::Start(owner, right) => first_started(&owner, self.authority(right)),
            Step::Begin(owner, number) => begin_attempt(&owner, &self.lease(number).fence()),
            Step::Fail(failure, number) => fail_attempt(&failure, &self.lease(number).fence()),
            Step::Refer(external_ref) => set_external_ref(&external_ref),
            Step::Abandon(request) => request_abandon(&request),
            Step::Wait(wait, right) => Command::SetWait { wait, authority: self.authority(right) },
            Step::Resume(right) => Command::ClearWait { authority: self.authority(right) },
            Step::Ack(sequence) => ack(sequence),
            Step::ClearTarget => return self.clear_target(),
            Step::Claim(owner, ttl_ms) => claim(&owner, ttl_ms),
            Step::Reclaim(owner, number, observed, ttl_ms) => {
                self.world.context.observed = observed;
                reclaim(&owner, &self.lease(number), ttl_ms)
            }
            Step::Renew(number, ttl_ms) => renew(&self.lease(number), ttl_ms),
            Step::Release(number) => release(&self.lease(number)),
            Step::Clocks(wall, monotonic) => {
                self.world.context.epoch_ms = self.world.context.epoch_ms.saturating_add_signed(wall);
                self.world.context.monotonic_ms += monotonic;
                return;
            }
            Step::Policy(policy) => {
                self.world.context.unfenced_writes = policy;
                return;
            }
            Step::Reopen => return self.world.reopen(),
        };
        self.carry_out(&command);
    }

    fn carry_out(&mut self, command: &Command) {
        reads_back(command);
        let before = self.world.clone();
        let fenced_right = match command {
            Command::Append { authority: WriteAuthority::Holder(fence), .. }
            | Command::SetWait { authority: WriteAuthority::Holder(fence), .. }
            | Command::ClearWait { authority: WriteAuthority::Holder(fence) }
            | Command::RecordFirstStarted { authority: WriteAuthority::Holder(fence), .. }
            | Command::BeginAttempt { fence, .. } => Some(fence.clone()),
            _ => None,
        };
        let decided = self.world.decide(command);
        if let Some(fence) = fenced_right
            && before.state.record.is_some()
        {
            let lost = decided == Err(lease_lost());
            let starts = matches!(command, Command::RecordFirstStarted { .. } | Command::BeginAttempt { .. });
            let ended = before.record().status.is_terminal() && starts;
            assert!(ended || lost == (self.holder != Some(fence)), "only the holder writes, and it always may");
        }
        let decision = match decided {
            Ok(decision) => decision,
            Err(refusal) => {
                reads_back(&refusal);
                assert!(!matches!(refusal, Refusal::ReplayUnresolved { .. }), "the edge looked up every key");
                let words = refusal.to_string();
                assert!(!words.is_empty() && !words.contains('\n'), "{words}");
                assert_eq!(self.world.state.record, before.state.record, "a refusal changes nothing");
                assert_eq!((self.world.row(), self.world.state.sequence), (before.row(), before.state.sequence));
                return;
            }
        };
        self.world.install(&decision);
        self.check_records(&before);
        self.check_attempts(command, &decision);
        self.check_leases(&before, command);
        self.check_deliveries(&decision);
        reads_back(&Receipt {
            record: self.world.state.record.clone(),
            events: decision.reply.events,
            lease: decision.reply.lease,
            deliveries: decision.reply.deliveries,
        });
        for event in &decision.events {
            reads_back(event.as_ref());
        }
        self.check_repetition(command);
    }

    fn clear_target(&mut self) {
        let before = self.world.clone();
        let decision = clear_wake_target(&self.world.state, &self.world.context);
        let had_one = before.state.record.as_ref().is_some_and(|record| record.wake_target.is_some());
        assert_eq!(decision.events.len(), usize::from(had_one));
        self.world.install(&decision);
        self.check_records(&before);
        assert!(self.world.state.record.as_ref().is_none_or(|record| record.wake_target.is_none()));
        assert_eq!(clear_wake_target(&self.world.state, &self.world.context), Decision::default());
    }

    /// What is stored is told, and only new events are stored again.
    fn check_deliveries(&self, decision: &Decision) {
        let told = &decision.reply.deliveries;
        for stored in &decision.deliveries {
            assert!(told.contains(stored));
            assert!(decision.events.iter().any(|event| event.sequence == stored.sequence), "it is of a new event");
        }
        for delivery in told {
            let event = self.world.log.iter().find(|event| event.sequence == delivery.sequence);
            let wake = event.and_then(|event| event.semantics.wake.as_ref()).expect("it is of an event that wakes");
            assert_eq!((&wake.input, &wake.dedupe_key), (&delivery.input, &delivery.dedupe_key));
            assert!(!delivery.target.is_empty());
        }
    }

    fn check_records(&mut self, before: &World) {
        let Some(record) = self.world.state.record.as_deref() else { return };
        reads_back(record);
        let terminals = self.world.log.iter().filter(|event| event.semantics.terminal.is_some()).count();
        assert!(terminals <= 1, "a process ends once");
        assert_eq!(terminals == 1, record.status.is_terminal());
        let lateness = self.world.log.iter().map(|event| event.late);
        assert!(lateness.is_sorted(), "what follows a late event is late");
        if let Some(before) = before.state.record.as_deref() {
            assert!(record.updated_at_ms >= before.updated_at_ms, "updated_at_ms never goes back");
            assert_eq!(record.created_at_ms, before.created_at_ms);
            assert_eq!(record.registration, before.registration);
            assert_eq!(record.generation, before.generation);
            assert!(before.first_started.is_none() || before.first_started == record.first_started, "set once");
            assert!(before.external_ref.is_none() || before.external_ref == record.external_ref, "set once");
            assert!(before.abandon_request.is_none() || before.abandon_request == record.abandon_request, "set once");
            assert!(record.wake_target.is_none() || record.wake_target == before.wake_target, "taken away for good");
        }
        assert!(!(record.wait.is_some() && record.status.is_terminal()), "an ended process waits for nothing");
        assert!(record.terminal_at_ms.is_none_or(|at_ms| at_ms >= record.created_at_ms), "it began before it ended");
        let mut acknowledged = BTreeSet::new();
        for wake in self.world.log.iter().filter_map(|event| event.acknowledged_wake()) {
            assert!(acknowledged.insert(wake), "each wake is acknowledged once");
            let event = self.world.log.iter().find(|event| event.sequence == wake).expect("it names an event");
            assert!(event.semantics.wake.is_some(), "that woke");
        }
        let end = record.status.await_output().cloned().map(|output| (output, record.terminal_at_ms));
        assert_eq!(record.terminal_at_ms.is_some(), end.is_some());
        if self.ended.is_some() {
            assert_eq!(self.ended, end, "the end is set once");
        }
        self.ended = end;
    }

    /// What was declared is kept, whoever asked for what and in which order.
    fn check_attempts(&self, command: &Command, decision: &Decision) {
        let Some(record) = self.world.state.record.as_deref() else { return };
        let (registration, attempts) = (&record.registration, &record.attempts);
        let most = match registration.disposition {
            RecoveryDisposition::Rerunnable => registration.retry.map_or(u32::MAX, |retry| retry.max_attempts),
            RecoveryDisposition::OwnerBound => 1,
            RecoveryDisposition::ExternallyOwned => 0,
        };
        assert!(attempts.begun <= most, "{} attempts of {most}", attempts.begun);
        assert!(attempts.begun == 0 || record.first_started.is_some(), "who attempts has started");
        let of_type = |name: &str| {
            let events = self.world.log.iter().filter(|event| &*event.event_type == name);
            events.map(|event| event.payload.clone()).collect::<Vec<_>>()
        };
        let starts = of_type("process.attempt_started");
        let numbers: Vec<_> = starts.iter().map(|start| start["attempt"].as_u64().expect("a number")).collect();
        assert_eq!(numbers, (1..=u64::from(attempts.begun)).collect::<Vec<_>>(), "each is the next one");
        let fences: Vec<_> = starts.iter().map(|start| start["fencing_token"].as_u64().expect("a fence")).collect();
        assert!(fences.is_sorted_by(|one, next| one < next), "one acquisition makes one attempt: {fences:?}");
        let failed: Vec<_> = of_type("process.attempt_failed")
            .iter()
            .map(|failed| failed["attempt"].as_u64().expect("a number"))
            .collect();
        assert!(failed.is_sorted_by(|one, next| one < next), "each fails once: {failed:?}");
        assert!(failed.iter().all(|failed| *failed < u64::from(most)), "another may follow");
        if matches!(command, Command::FailAttempt { .. }) && !decision.events.is_empty() {
            assert_eq!(self.world.row().holder, None, "a failure gives the lease up");
        }
    }

    fn check_leases(&mut self, before: &World, command: &Command) {
        let (old, new) = (before.row(), self.world.row());
        reads_back(&new);
        if old == new {
            return;
        }
        assert_eq!(new.revision, old.revision + 1, "each lease change is one revision");
        assert!(new.fence >= old.fence, "fences never go back");
        match (&old.holder, &new.holder) {
            (_, None) => self.holder = None,
            (Some(old), Some(new)) if old.lease_token == new.lease_token => assert_eq!(old.fence(), new.fence()),
            (displaced, Some(holder)) => {
                assert_eq!(holder.fencing_token, old.fence.next(), "a new acquisition has a new fence");
                assert_eq!(new.displaced.as_deref(), displaced.as_ref());
                let fresh = self.leases.iter().all(|granted| granted.lease_token != holder.lease_token);
                assert!(fresh, "a token is never given twice");
                if let (Some(displaced), Command::ClaimLease { .. }) = (displaced, command) {
                    let context = &before.context;
                    let live = displaced.is_live(&context.session, context.epoch_ms, context.monotonic_ms);
                    assert!(!live, "a claim never ends a lease in force");
                }
                self.leases.push(holder.clone());
                self.holder = Some(holder.fence());
            }
        }
    }

    /// The same command at once again adds nothing, unless it appends events that are not keyed or asks for more time.
    fn check_repetition(&mut self, command: &Command) {
        let resent = self.world.decide_again(command);
        match command {
            Command::Append { events, .. } if events.iter().all(|event| event.replay_key.is_some()) => {
                let repeated = resent.expect("keyed appends are answered again");
                assert!(repeated.events.is_empty(), "{repeated:?}");
                assert!(repeated.reply.events.iter().all(|event| !event.is_inserted()));
            }
            Command::Register { .. }
            | Command::RequestCancel { .. }
            | Command::Complete { .. }
            | Command::RecordFirstStarted { .. }
            | Command::BeginAttempt { .. }
            | Command::FailAttempt { .. }
            | Command::SetExternalRef { .. }
            | Command::RequestAbandon { .. }
            | Command::SetWait { .. }
            | Command::ClearWait { .. }
            | Command::AckWake { .. }
            | Command::ReleaseLease { .. } => {
                let repeated = resent.expect("it is answered again");
                assert!(repeated.events.is_empty() && repeated.lease.is_none(), "{repeated:?}");
            }
            Command::ClaimLease { owner, .. } | Command::ReclaimLease { owner, .. } => {
                let repeated = resent.expect("it is answered again");
                assert!(repeated.events.is_empty());
                let outcome = repeated.reply.lease.expect("a claim is answered");
                if let ProcessLeaseClaimOutcome::Acquired { lease, .. } = &outcome {
                    assert!(lease.owner.same_incarnation(owner), "{outcome:?}");
                }
            }
            _ => {}
        }
    }
}

/// What is written as JSON is what is read.
fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("it has a JSON form");
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(&read, value, "{text}");
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn no_sequence_of_commands_breaks_a_law(
        registration in any_terms(registration()),
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let mut watched = Watched::new();
        watched.take(Step::Register(Box::new(registration)));
        for step in steps {
            watched.take(step);
        }
    }

    #[test]
    fn nor_does_one_over_a_process_of_any_declaration(
        registration in any_registration(),
        steps in prop::collection::vec(any_step(), 0..30),
    ) {
        let mut watched = Watched::new();
        watched.take(Step::Register(Box::new(registration)));
        for step in steps {
            watched.take(step);
        }
    }

    #[test]
    fn no_payload_and_no_declaration_makes_the_decision_panic(
        declared in any_event_type(),
        payload in any_json(),
        scope in prop::option::of(any_scope()),
    ) {
        let mut world = World::empty();
        let mut registration = registration();
        registration.event_types.push(declared);
        if let Ok(decision) = world.decide(&register(registration)) {
            world.install(&decision);
            let request = ProcessEventAppendRequest {
                wake_target_scope: scope,
                ..ProcessEventAppendRequest::new("any", payload).with_replay_key(key("k"))
            };
            if let Ok(decision) = world.decide(&append(request)) {
                world.install(&decision);
            }
        }
    }

    /// No two acquisitions, whatever their order, give writers that the store cannot tell apart.
    #[test]
    fn tokens_and_fences_name_one_acquisition(
        claims in prop::collection::vec((any_owner(), any_ttl(), 0_u64..300), 1..20),
    ) {
        let mut world = World::registered();
        let mut fences: Vec<(LeaseToken, Fence, LeaseOwnerIdentity)> = Vec::new();
        for (owner, ttl_ms, pause) in claims {
            if let Some(lease) = world.run(claim(&owner, ttl_ms)).reply.lease.and_then(ProcessLeaseClaimOutcome::acquired) {
                let named = fences.iter().find(|(token, ..)| *token == lease.lease_token).cloned();
                match named {
                    Some((_, fence, holder)) => {
                        prop_assert_eq!(fence, lease.fencing_token);
                        prop_assert!(holder.same_incarnation(&owner));
                    }
                    None => fences.push((lease.lease_token, lease.fencing_token, owner)),
                }
            }
            world.advance(pause);
        }
        let distinct: BTreeSet<_> = fences.iter().map(|(_, fence, _)| *fence).collect();
        prop_assert_eq!(distinct.len(), fences.len());
        prop_assert!(fences.is_sorted_by_key(|(_, fence, _)| *fence));
    }
}

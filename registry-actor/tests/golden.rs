//! The JSON shape of what travels to other processes and is stored: one file for each type, one entry for each variant.
//!
//! A file is a promise. To write the files anew, after a change that is meant, set `PROCTOR_REWRITE_GOLDEN=1`.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use registry_actor::domain::{
    AbandonEvidence, AbandonWriter, CausalRef, Command, DecisionContext, Fence, LeaseFence, LeaseOwnerIdentity,
    LeaseOwnerLiveness, LeaseRelease, LeaseRow, LeaseToken, ObservedProcess, OperationId, PayloadSchema,
    ProcessAwaitOutput, ProcessEnvRef, ProcessEvent, ProcessEventAppendRequest, ProcessEventSemanticsSpec,
    ProcessEventType, ProcessFailureClass, ProcessId, ProcessIdentity, ProcessInput, ProcessLease,
    ProcessLeaseClaimOutcome, ProcessOriginator, ProcessProvenance, ProcessRecord, ProcessRegistration, ProcessStarted,
    ProcessState, ProcessStatus, ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector, ProcessWakeDedupeKey,
    ProcessWakeDelivery, ProcessWakeSpec, Receipt, ReceiptEvent, RecoveryDisposition, Refusal, ReplayKey,
    SelectorError, Sequence, SessionScope, StoreSession, UnfencedWrites, WriteAuthority, apply, decide,
};
use registry_actor::port::{Answer, EventPage, ProcessListFilter, ProcessPage, ProcessStatusFilter, Query};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Compares the samples with the file of that name, and reads the file back into equal values.
fn compare<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, samples: Vec<(&str, T)>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let shapes: Map<String, Value> = samples
        .iter()
        .map(|(name, sample)| ((*name).to_owned(), serde_json::to_value(sample).expect("a sample has a JSON form")))
        .collect();
    assert_eq!(shapes.len(), samples.len(), "each name once");
    if std::env::var_os("PROCTOR_REWRITE_GOLDEN").is_some_and(|asked| asked == "1") {
        let text = serde_json::to_string_pretty(&shapes).expect("shapes have a JSON form");
        std::fs::write(&path, text + "\n").expect("the golden file can be written");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored: Map<String, Value> = serde_json::from_str(&text).expect("a golden file is JSON");
    let names = |shapes: &Map<String, Value>| shapes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&stored), names(&shapes), "{file} holds other entries");
    for (name, sample) in samples {
        assert_eq!(stored[name], shapes[name], "the shape of {name} in {file} has changed");
        let read: T = serde_json::from_value(stored[name].clone())
            .unwrap_or_else(|error| panic!("{name} in {file} no longer reads: {error}"));
        assert_eq!(read, sample, "{name} in {file} reads as something else");
    }
}

fn id() -> ProcessId {
    ProcessId::new("build-7").expect("an id")
}

fn key() -> ReplayKey {
    ReplayKey::new("line:1").expect("a key")
}

fn session() -> StoreSession {
    StoreSession { store_id: "store".into(), number: 3 }
}

fn owner() -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        owner_id: "worker".into(),
        incarnation_id: "1".into(),
        liveness: LeaseOwnerLiveness::StoreSession { session: session() },
    }
}

fn process_owner() -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        liveness: LeaseOwnerLiveness::LocalProcess {
            host_id: "host".into(),
            boot_id: "boot".into(),
            pid: 4711,
            process_start: "123456".into(),
            pid_namespace: Some(4_026_531_836),
        },
        ..owner()
    }
}

fn lease() -> ProcessLease {
    ProcessLease {
        schema_version: ProcessLease::SCHEMA_VERSION,
        process_id: id(),
        owner: owner(),
        lease_token: LeaseToken::new("lease:1").expect("a token"),
        fencing_token: Fence(2),
        claimed_at_epoch_ms: 1_000,
        expires_at_epoch_ms: 31_000,
        granted_in: session(),
        expires_at_monotonic_ms: 30_500,
    }
}

fn dead_lease() -> ProcessLease {
    let opaque = LeaseOwnerIdentity { liveness: LeaseOwnerLiveness::Opaque, ..owner() };
    ProcessLease { owner: opaque, fencing_token: Fence(1), ..lease() }
}

fn holder() -> WriteAuthority {
    let LeaseFence { lease_token, fencing_token } = lease().fence();
    WriteAuthority::Holder(LeaseFence { lease_token, fencing_token })
}

fn success() -> ProcessAwaitOutput {
    ProcessAwaitOutput::Success { value: json!({"exit": 0}), control: Some(json!({"keep": true})) }
}

fn outcomes() -> Vec<(&'static str, ProcessAwaitOutput)> {
    let evidence = AbandonEvidence {
        writer: AbandonWriter::Sweep,
        owner: Some(process_owner()),
        epoch_ms: 9,
        detail: Some(json!("gone")),
    };
    vec![
        ("success", success()),
        ("success_bare", ProcessAwaitOutput::success(Value::Null)),
        (
            "failure",
            ProcessAwaitOutput::Failure {
                class: ProcessFailureClass::ResourceLimit,
                code: "oom".into(),
                message: "out of memory".into(),
                raw: Some(Value::Null),
                control: None,
            },
        ),
        ("cancelled", ProcessAwaitOutput::cancelled("asked")),
        ("abandoned", ProcessAwaitOutput::abandoned(evidence)),
    ]
}

/// A registration with every optional part and every selector.
fn registration() -> ProcessRegistration {
    let pointer = |text: &str| ProcessValueSelector::Pointer(text.to_owned());
    let line = ProcessEventType {
        name: "line".into(),
        payload_schema: PayloadSchema::object(json!({"text": {"type": "string"}}), &["text"]),
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec {
                when: Some(ProcessValueSelector::Present("/text".into())),
                input: ProcessValueSelector::Template {
                    template: "line: {text}".into(),
                    fields: [("text".to_owned(), pointer("/text"))].into(),
                },
                dedupe_key: ProcessWakeDedupeKey::Selector(ProcessValueSelector::Payload),
            }),
        },
    };
    let end = ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec {
                state: ProcessTerminalState::Failed,
                await_output: Some(ProcessValueSelector::Const(json!("broke"))),
            }),
            wake: Some(ProcessWakeSpec {
                when: None,
                input: ProcessValueSelector::Payload,
                dedupe_key: ProcessWakeDedupeKey::Const("end".into()),
            }),
        },
        ..ProcessEventType::plain("end")
    };
    let mut registration = ProcessRegistration::new(
        id(),
        ProcessInput::engine("wasm", json!({"module": "m"})),
        RecoveryDisposition::OwnerBound,
    );
    registration.identity =
        ProcessIdentity { kind: "wasm".into(), label: Some("build".into()), definition: Some(json!({"v": 1})) };
    registration.event_types = vec![line, end];
    registration.provenance = ProcessProvenance {
        originator: ProcessOriginator::Session { scope: SessionScope::frame("s", "f") },
        caused_by: Some(CausalRef::ToolCall { session_id: "s".into(), call_id: "c".into() }),
    };
    registration.env_ref = Some(ProcessEnvRef("process-env:sha256:00".into()));
    registration.wake_target = Some(SessionScope::session("s"));
    registration
}

/// A process that went through everything, as the core decides it.
struct Story {
    registered: Arc<ProcessRecord>,
    started: Arc<ProcessRecord>,
    ended: Arc<ProcessRecord>,
    events: Vec<(&'static str, Arc<ProcessEvent>)>,
    delivery: ProcessWakeDelivery,
}

fn story() -> Story {
    let mut state = ProcessState::unregistered(id());
    let mut context = DecisionContext {
        epoch_ms: 1_000,
        monotonic_ms: 500,
        session: session(),
        operation: OperationId { issuer: 1, number: 0 },
        observed: ObservedProcess::Unknown,
        unfenced_writes: UnfencedWrites::RefusedWhileLeased,
    };
    state.lease = Arc::new(LeaseRow { revision: 2, fence: Fence(2), holder: Some(lease()), displaced: None });
    let mut events = Vec::new();
    let mut records = Vec::new();
    let mut deliveries = Vec::new();
    let append = |event, authority| Command::Append { events: vec![event], authority };
    let steps = [
        ("registered", Command::Register { registration: Box::new(registration()) }),
        (
            "first_started",
            Command::RecordFirstStarted {
                started: ProcessStarted { owner: owner(), started_at_ms: 1_001 },
                authority: holder(),
            },
        ),
        (
            "waking",
            append(ProcessEventAppendRequest::new("line", json!({"text": "hi"})).with_replay_key(key()), holder()),
        ),
        ("cancel_requested", Command::RequestCancel { reason: Some("too slow".into()) }),
        ("completed", Command::Complete { output: success(), authority: holder(), lease: LeaseRelease::Keep }),
        ("late", append(ProcessEventAppendRequest::new("process.waiting", Value::Null), WriteAuthority::Unfenced)),
    ];
    for (name, command) in steps {
        context.epoch_ms += 1;
        let mut decision = decide(&state, &command, &context).expect("the story is legal");
        for event in &decision.events {
            state = apply(state, event);
            events.push((name, Arc::clone(event)));
        }
        deliveries.append(&mut decision.deliveries);
        records.push(state.record.clone().expect("registered"));
    }
    // A terminal event that nobody's lease stands behind.
    let mut bare = ProcessState::unregistered(id());
    let register = Command::Register {
        registration: Box::new(ProcessRegistration::new(
            id(),
            ProcessInput::external(Value::Null),
            RecoveryDisposition::ExternallyOwned,
        )),
    };
    let complete = Command::Complete {
        output: ProcessAwaitOutput::cancelled("asked"),
        authority: WriteAuthority::Unfenced,
        lease: LeaseRelease::Keep,
    };
    for (name, command) in [("registered_bare", register), ("cancelled_unfenced", complete)] {
        for event in decide(&bare, &command, &context).expect("legal").events {
            bare = apply(bare, &event);
            events.push((name, event));
        }
    }
    Story {
        registered: Arc::clone(&records[0]),
        started: Arc::clone(&records[1]),
        ended: Arc::clone(&records[5]),
        events,
        delivery: deliveries.remove(0),
    }
}

fn event() -> Arc<ProcessEvent> {
    Arc::clone(&story().events[2].1)
}

#[test]
fn commands_keep_their_shape_and_are_tagged_with_their_name() {
    let request = ProcessEventAppendRequest::new("line", json!({"text": "hi"}));
    let full = request.clone().with_replay_key(key()).with_wake_target_scope(SessionScope::frame("s", "f"));
    let complete = |output, authority, lease| Command::Complete { output, authority, lease };
    let samples = vec![
        ("register", Command::Register { registration: Box::new(registration()) }),
        ("append", Command::Append { events: vec![request, full], authority: WriteAuthority::Unfenced }),
        ("append_fenced", Command::Append { events: Vec::new(), authority: holder() }),
        ("request_cancel", Command::RequestCancel { reason: Some("too slow".into()) }),
        ("request_cancel_without_reason", Command::RequestCancel { reason: None }),
        ("complete", complete(success(), WriteAuthority::Unfenced, LeaseRelease::Keep)),
        ("complete_fenced", complete(success(), holder(), LeaseRelease::Release)),
        (
            "record_first_started",
            Command::RecordFirstStarted {
                started: ProcessStarted { owner: process_owner(), started_at_ms: 7 },
                authority: WriteAuthority::Unfenced,
            },
        ),
        ("claim_lease", Command::ClaimLease { owner: owner(), ttl_ms: 30_000 }),
        ("reclaim_lease", Command::ReclaimLease { owner: owner(), observed: Box::new(dead_lease()), ttl_ms: u64::MAX }),
        ("renew_lease", Command::RenewLease { lease: Box::new(lease()), ttl_ms: 30_000 }),
        ("release_lease", Command::ReleaseLease { lease_token: lease().lease_token }),
    ];
    for (_, command) in &samples {
        let shape = serde_json::to_value(command).expect("a command has a JSON form");
        assert_eq!(shape["command"], command.name());
    }
    compare("command.json", samples);
}

#[test]
fn receipts_keep_their_shape() {
    let receipt = |lease| Receipt { lease: Some(lease), ..Receipt::default() };
    let acquired = |displaced| ProcessLeaseClaimOutcome::Acquired { lease: lease(), displaced };
    compare(
        "receipt.json",
        vec![
            ("empty", Receipt::default()),
            (
                "appended",
                Receipt {
                    record: Some(story().started),
                    events: vec![ReceiptEvent::Inserted(event()), ReceiptEvent::Replayed(event())],
                    lease: None,
                    deliveries: vec![story().delivery],
                },
            ),
            ("acquired", receipt(acquired(None))),
            ("acquired_from_the_dead", receipt(acquired(Some(Box::new(dead_lease()))))),
            ("busy", receipt(ProcessLeaseClaimOutcome::Busy { holder: lease() })),
        ],
    );
}

#[test]
fn queries_keep_their_shape() {
    let processes = |status, after| Query::Processes { filter: ProcessListFilter { status }, after, limit: 100 };
    compare(
        "query.json",
        vec![
            ("process", Query::Process { process_id: id() }),
            ("events", Query::Events { process_id: id(), after: Sequence(7), limit: 100 }),
            (
                "first_event_of_type",
                Query::FirstEventOfType { process_id: id(), event_type: "line".into(), after: Sequence(0) },
            ),
            ("lease", Query::Lease { process_id: id() }),
            ("processes", processes(ProcessStatusFilter::default(), None)),
            ("processes_completed", processes(ProcessStatusFilter::Completed, Some(id()))),
            ("processes_failed", processes(ProcessStatusFilter::Failed, None)),
            ("processes_cancelled", processes(ProcessStatusFilter::Cancelled, None)),
            ("processes_abandoned", processes(ProcessStatusFilter::Abandoned, None)),
            ("processes_any", processes(ProcessStatusFilter::Any, None)),
        ],
    );
}

#[test]
fn answers_keep_their_shape() {
    compare(
        "answer.json",
        vec![
            ("process", Answer::Process(Some(story().started))),
            ("process_unknown", Answer::Process(None)),
            ("events", Answer::Events(EventPage { events: vec![event()], has_more: true })),
            ("event", Answer::Event(Some(event()))),
            ("event_none", Answer::Event(None)),
            ("lease", Answer::Lease(Some(Box::new(lease())))),
            ("lease_none", Answer::Lease(None)),
            ("processes", Answer::Processes(ProcessPage { records: vec![story().ended], has_more: false })),
        ],
    );
}

#[test]
fn refusals_keep_their_shape_and_their_words() {
    let process_id = id();
    let event_type = "line".to_owned();
    let hash = story().registered.registration_hash.clone();
    let samples = vec![
        ("unknown", Refusal::Unknown { process_id: id() }),
        (
            "registration_conflict",
            Refusal::RegistrationConflict { process_id: id(), stored: hash.clone(), offered: hash },
        ),
        ("registration_has_no_json", Refusal::RegistrationHasNoJson { process_id: id(), reason: "why".into() }),
        (
            "misrouted_registration",
            Refusal::MisroutedRegistration { expected: id(), found: ProcessId::new("other").expect("an id") },
        ),
        ("empty_input_kind", Refusal::EmptyInputKind { process_id: id() }),
        ("environment_required", Refusal::EnvironmentRequired { kind: "tool_call".into() }),
        ("environment_forbidden", Refusal::EnvironmentForbidden { kind: "external".into() }),
        ("empty_event_type", Refusal::EmptyEventType { process_id: id() }),
        ("duplicate_event_type", Refusal::DuplicateEventType { event_type: event_type.clone() }),
        ("reserved_event_type", Refusal::ReservedEventType { event_type: "process.registered".into() }),
        (
            "await_output_undeclared",
            Refusal::AwaitOutputUndeclared { event_type: event_type.clone(), state: ProcessTerminalState::Failed },
        ),
        ("invalid_schema", Refusal::InvalidSchema { event_type: event_type.clone(), reason: "why".into() }),
        ("undeclared_event_type", Refusal::UndeclaredEventType { process_id: id(), event_type: event_type.clone() }),
        ("replay_key_required", Refusal::ReplayKeyRequired { event_type: event_type.clone() }),
        ("replay_conflict", Refusal::ReplayConflict { replay_key: key() }),
        ("replay_unresolved", Refusal::ReplayUnresolved { replay_key: key() }),
        ("invalid_payload", Refusal::InvalidPayload { event_type: event_type.clone(), reason: "why".into() }),
        (
            "selector_missed",
            Refusal::SelectorMissed {
                event_type: event_type.clone(),
                reason: SelectorError::PointerMissed { pointer: "/a".into() },
            },
        ),
        (
            "outcome_contradicts_type",
            Refusal::OutcomeContradictsType {
                event_type,
                declared: ProcessTerminalState::Completed,
                found: ProcessTerminalState::Abandoned,
            },
        ),
        ("already_terminal", Refusal::AlreadyTerminal { process_id: id(), existing: Box::new(success()) }),
        ("lease_held", Refusal::LeaseHeld { process_id: id(), holder: Box::new(lease()) }),
        ("lease_lost", Refusal::LeaseLost { process_id: id() }),
        ("decision_panicked", Refusal::DecisionPanicked { process_id, message: "why".into() }),
    ];
    let words = samples.iter().map(|(name, refusal)| (*name, refusal.to_string())).collect();
    compare("refusal_words.json", words);
    compare("refusal.json", samples);
}

#[test]
fn records_keep_their_shape() {
    let story = story();
    compare(
        "process_record.json",
        vec![
            ("registered", story.registered.as_ref().clone()),
            ("started", story.started.as_ref().clone()),
            ("ended", story.ended.as_ref().clone()),
        ],
    );
}

#[test]
fn events_keep_their_shape() {
    compare("process_event.json", story().events.iter().map(|(name, event)| (*name, event.as_ref().clone())).collect());
}

#[test]
fn outcomes_and_statuses_keep_their_shape() {
    let statuses = outcomes()
        .into_iter()
        .map(|(name, output)| (name, ProcessStatus::terminal(output.terminal_state(), output)))
        .chain([("running", ProcessStatus::Running)])
        .collect();
    compare("process_await_output.json", outcomes());
    compare("process_status.json", statuses);
}

#[test]
fn lease_rows_keep_their_shape() {
    let row = |holder, displaced| LeaseRow { revision: 5, fence: Fence(2), holder, displaced };
    let process_lease = ProcessLease { owner: process_owner(), ..lease() };
    compare(
        "lease_row.json",
        vec![
            ("unleased", LeaseRow::default()),
            ("released", row(None, None)),
            ("held", row(Some(process_lease), None)),
            ("held_after_displacement", row(Some(lease()), Some(Box::new(dead_lease())))),
        ],
    );
}

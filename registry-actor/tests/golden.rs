//! The JSON shape of what travels to other processes and is stored: one file for each type, one entry for each variant.
//!
//! A file is a promise. To write the files anew, after a change that is meant, set `PROCTOR_REWRITE_GOLDEN=1`.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use registry_actor::domain::{
    AbandonEvidence, AbandonRequest, AbandonWriter, AttemptFailure, CausalRef, ChangeCursor, Command, CursorFault,
    DecisionContext, Fence, InvalidFilter, InvalidSignalName, LeaseFence, LeaseOwnerIdentity, LeaseOwnerLiveness,
    LeaseRelease, LeaseRow, LeaseToken, Measure, ObservedProcess, OperationId, OriginatorFilter, ParentEndRule,
    PayloadSchema, ProcessAwaitOutput, ProcessEnvRef, ProcessEvent, ProcessEventAppendRequest,
    ProcessEventSemanticsSpec, ProcessEventType, ProcessExternalRef, ProcessFailureClass, ProcessHandleDescriptor,
    ProcessHandleGrant, ProcessId, ProcessIdentity, ProcessInput, ProcessLease, ProcessLeaseClaimOutcome,
    ProcessListFilter, ProcessOriginator, ProcessParent, ProcessProvenance, ProcessPruneReport, ProcessRecord,
    ProcessRegistration, ProcessSessionDeleteReport, ProcessSignal, ProcessStarted, ProcessState, ProcessStatus,
    ProcessStatusFilter, ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector, ProcessWakeDedupeKey,
    ProcessWakeDelivery, ProcessWakeSpec, ProjectionWatermark, PruneExemption, PruneFilter, Receipt, ReceiptEvent,
    RecoveryDisposition, Refusal, RegistrationCursor, RegistryCommand, RegistryReceipt, ReplayKey, RetryPolicy,
    SelectorError, Sequence, SessionDeletion, SessionScope, StoreSession, TimeRange, Tombstone, UnfencedWrites,
    WaitState, WakeCursor, WriteAuthority, apply, clear_wake_target, decide,
};
use registry_actor::port::{
    Answer, ChangePage, DurabilityTier, EventPage, FeedEntry, HandleGrantPage, LogError, PendingWake, PendingWakePage,
    ProcessChange, ProcessGrantPage, ProcessPage, Query, RecentProcessPage, RegistryError,
};
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
    registration.tags = ["ci".to_owned(), "nightly".to_owned()].into();
    registration
}

fn external_ref() -> ProcessExternalRef {
    ProcessExternalRef { backend: "ci".into(), id: "run-7".into(), metadata: Some(json!({"url": "u"})) }
}

fn abandon_request() -> AbandonRequest {
    AbandonRequest { requested_by: "operator".into(), requested_at_ms: 1_003, reason: Some("stuck".into()) }
}

fn wait() -> WaitState {
    WaitState::signal(&id(), &ProcessSignal::new("go").expect("a name"), 2, 1_004)
}

fn frame() -> SessionScope {
    SessionScope::frame("s", "f")
}

fn grant() -> ProcessHandleGrant {
    let descriptor = ProcessHandleDescriptor { kind: Some("build".into()), label: Some("nightly".into()) };
    ProcessHandleGrant::new(frame(), id(), descriptor)
}

fn bare_grant() -> ProcessHandleGrant {
    ProcessHandleGrant::new(SessionScope::session("s"), id(), ProcessHandleDescriptor::default())
}

fn cursor() -> ChangeCursor {
    ChangeCursor::new("store".into(), 2, 42, [0, 1, 2, 3, 0xab, 0xcd, 0xef, 0xff])
}

fn wake_cursor() -> WakeCursor {
    serde_json::from_value(json!(17)).expect("a cursor")
}

fn tombstone() -> Tombstone {
    Tombstone {
        process_id: id(),
        generation: 2,
        terminal_state: ProcessTerminalState::Failed,
        created_at_ms: 1,
        terminal_at_ms: 2,
        pruned_at_ms: 3,
    }
}

fn session_deletion() -> SessionDeletion {
    SessionDeletion { session_id: "s".into(), revoked_handle_count: 3, deleted_wake_count: 1, deleted_at_ms: 9 }
}

fn full_filter() -> ProcessListFilter {
    ProcessListFilter {
        status: ProcessStatusFilter::Any,
        kind: Some("wasm".into()),
        label: Some("build".into()),
        definition: Some(json!({"v": 1})),
        originator: Some(OriginatorFilter::Session(frame())),
        waiting: Some(true),
        created: TimeRange { from_ms: Some(1), until_ms: Some(2) },
        updated: TimeRange { from_ms: None, until_ms: Some(3) },
        tags: ["ci".to_owned()].into(),
    }
}

/// An event under the name of its sample.
type NamedEvent = (&'static str, Arc<ProcessEvent>);

/// A process that went through everything, as the core decides it.
struct Story {
    registered: Arc<ProcessRecord>,
    started: Arc<ProcessRecord>,
    waiting: Arc<ProcessRecord>,
    ended: Arc<ProcessRecord>,
    attempted: Arc<ProcessRecord>,
    retrying: Arc<ProcessRecord>,
    events: Vec<NamedEvent>,
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
        wake: None,
        unfenced_writes: UnfencedWrites::RefusedWhileLeased,
    };
    state.lease = Arc::new(LeaseRow { revision: 2, fence: Fence(2), holder: Some(lease()), displaced: None });
    let mut events: Vec<NamedEvent> = Vec::new();
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
        ("external_ref_set", Command::SetExternalRef { external_ref: external_ref() }),
        ("cancel_requested", Command::RequestCancel { reason: Some("too slow".into()) }),
        ("abandon_requested", Command::RequestAbandon { request: abandon_request() }),
        ("wait_set", Command::SetWait { wait: wait(), authority: holder() }),
        ("wait_cleared", Command::ClearWait { authority: holder() }),
        ("wake_acknowledged", Command::AckWake { sequence: Sequence(2) }),
        ("completed", Command::Complete { output: success(), authority: holder(), lease: LeaseRelease::Keep }),
        ("late", append(ProcessEventAppendRequest::new("process.waiting", Value::Null), WriteAuthority::Unfenced)),
    ];
    for (name, command) in steps {
        context.epoch_ms += 1;
        context.wake = events.iter().map(|(_, event)| event).find(|event| event.sequence == Sequence(2)).cloned();
        let mut decision = decide(&state, &command, &context).expect("the story is legal");
        for event in &decision.events {
            state = apply(state, event);
            events.push((name, Arc::clone(event)));
        }
        deliveries.append(&mut decision.deliveries);
        records.push(state.record.clone().expect("registered"));
    }
    for event in clear_wake_target(&state, &context).events {
        state = apply(state, &event);
        events.push(("wake_target_cleared", event));
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
    let (attempts, [attempted, retrying]) = attempts(&context);
    events.extend(attempts);
    Story {
        attempted,
        retrying,
        registered: Arc::clone(&records[0]),
        started: Arc::clone(&records[1]),
        waiting: Arc::clone(&records[6]),
        ended: Arc::clone(&records[10]),
        events,
        delivery: deliveries.remove(0),
    }
}

/// A process with every term of execution.
fn registration_with_terms() -> ProcessRegistration {
    let parent = ProcessId::new("release-3").expect("an id");
    ProcessRegistration::new(id(), ProcessInput::new("shell", Value::Null), RecoveryDisposition::Rerunnable)
        .with_retry(RetryPolicy { max_attempts: 3, initial_backoff_ms: 1_000, max_backoff_ms: 60_000 })
        .with_deadline_ms(3_600_000)
        .with_parent(ProcessParent { process_id: parent, on_end: ParentEndRule::LeaveAlone })
}

fn failure() -> AttemptFailure {
    AttemptFailure { class: ProcessFailureClass::Timeout, code: "late".into(), message: "took too long".into() }
}

/// The events of an attempt that fails and is to be followed by another, and the record after each of the two. Their
/// sequences come after those of the other events, so that these are stored with the links that they always had.
fn attempts(context: &DecisionContext) -> (Vec<NamedEvent>, [Arc<ProcessRecord>; 2]) {
    let mut state = ProcessState::unregistered(id());
    let register = Command::Register { registration: Box::new(registration_with_terms()) };
    for event in decide(&state, &register, context).expect("legal").events {
        state = apply(state, &event);
    }
    state.sequence = Sequence(20);
    state.lease = Arc::new(LeaseRow { revision: 2, fence: Fence(2), holder: Some(lease()), displaced: None });
    let started = ProcessStarted { owner: owner(), started_at_ms: 1_020 };
    let fence = lease().fence();
    let mut events = Vec::new();
    let commands = [
        ("attempt_started", Command::BeginAttempt { started, fence: fence.clone() }),
        ("attempt_failed", Command::FailAttempt { failure: failure(), fence }),
    ];
    let records = commands.map(|(name, command)| {
        for event in decide(&state, &command, context).expect("the attempt is legal").events {
            state = apply(state.clone(), &event);
            if &*event.event_type != "process.first_started" {
                events.push((name, event));
            }
        }
        state.record.clone().expect("registered")
    });
    (events, records)
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
        ("register_with_terms", Command::Register { registration: Box::new(registration_with_terms()) }),
        (
            "begin_attempt",
            Command::BeginAttempt {
                started: ProcessStarted { owner: process_owner(), started_at_ms: 7 },
                fence: lease().fence(),
            },
        ),
        ("fail_attempt", Command::FailAttempt { failure: failure(), fence: lease().fence() }),
        ("set_external_ref", Command::SetExternalRef { external_ref: external_ref() }),
        (
            "set_external_ref_bare",
            Command::SetExternalRef { external_ref: ProcessExternalRef { metadata: None, ..external_ref() } },
        ),
        ("request_abandon", Command::RequestAbandon { request: abandon_request() }),
        (
            "request_abandon_without_reason",
            Command::RequestAbandon { request: AbandonRequest { reason: None, ..abandon_request() } },
        ),
        ("set_wait", Command::SetWait { wait: wait(), authority: WriteAuthority::Unfenced }),
        ("set_wait_fenced", Command::SetWait { wait: wait(), authority: holder() }),
        ("clear_wait", Command::ClearWait { authority: WriteAuthority::Unfenced }),
        ("clear_wait_fenced", Command::ClearWait { authority: holder() }),
        ("ack_wake", Command::AckWake { sequence: Sequence(2) }),
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
fn commands_across_processes_keep_their_shape_and_are_tagged_with_their_name() {
    let prune = |filter, watermark| RegistryCommand::Prune { filter, watermark, limit: 100 };
    let full = PruneFilter {
        terminal_before_ms: 9,
        state: Some(ProcessTerminalState::Abandoned),
        kind: Some("wasm".into()),
        tags: ["ci".to_owned()].into(),
        except: Vec::new(),
    };
    let sparing = PruneFilter {
        except: vec![
            PruneExemption {
                state: Some(ProcessTerminalState::Failed),
                kind: Some("job".into()),
                tags: ["audit".to_owned()].into(),
            },
            PruneExemption::default(),
        ],
        ..PruneFilter::ended_before(9)
    };
    let samples = vec![
        ("prune_sparing", prune(sparing, ProjectionWatermark::NoProjector)),
        ("grant_handle", RegistryCommand::GrantHandle { grant: grant() }),
        ("grant_handle_bare", RegistryCommand::GrantHandle { grant: bare_grant() }),
        ("revoke_handle", RegistryCommand::RevokeHandle { scope: frame(), process_id: id() }),
        (
            "transfer_handle_grants",
            RegistryCommand::TransferHandleGrants {
                from: SessionScope::session("s"),
                to: frame(),
                process_ids: vec![id()],
            },
        ),
        ("delete_session", RegistryCommand::DeleteSession { session_id: "s".into() }),
        ("prune", prune(full, ProjectionWatermark::UpTo(cursor()))),
        ("prune_bare", prune(PruneFilter::ended_before(9), ProjectionWatermark::NoProjector)),
    ];
    for (_, command) in &samples {
        let shape = serde_json::to_value(command).expect("a command has a JSON form");
        assert_eq!(shape["command"], command.name());
    }
    compare("registry_command.json", samples);
}

#[test]
fn receipts_across_processes_keep_their_shape() {
    let report = ProcessSessionDeleteReport {
        damaged_process_ids: Vec::new(),
        session_id: "s".into(),
        revoked_handle_count: 2,
        deleted_wake_count: 1,
        orphaned_process_ids: vec![id()],
        preserved_process_ids: Vec::new(),
    };
    let pruned = ProcessPruneReport {
        pruned_processes: 1,
        pruned_events: 2,
        kept_leased: 3,
        kept_unprojected: 4,
        kept_damaged: 5,
        more: true,
    };
    compare(
        "registry_receipt.json",
        vec![
            ("granted", RegistryReceipt::Granted(grant())),
            ("revoked", RegistryReceipt::Revoked(true)),
            ("transferred", RegistryReceipt::Transferred(vec![grant(), bare_grant()])),
            ("session_deleted", RegistryReceipt::SessionDeleted(report)),
            ("pruned", RegistryReceipt::Pruned(pruned)),
        ],
    );
}

#[test]
fn queries_keep_their_shape() {
    let processes = |filter, after| Query::Processes { filter, after, limit: 100 };
    let of = |status| processes(ProcessListFilter::of_status(status), None);
    let by_host = ProcessListFilter { originator: Some(OriginatorFilter::Host), ..ProcessListFilter::default() };
    compare(
        "query.json",
        vec![
            ("process", Query::Process { process_id: id() }),
            ("tombstone", Query::Tombstone { process_id: id() }),
            ("events", Query::Events { process_id: id(), after: Sequence(7), limit: 100 }),
            ("recent_events", Query::RecentEvents { process_id: id(), limit: 100 }),
            (
                "count_events_through",
                Query::CountEventsThrough { process_id: id(), event_type: "line".into(), through: Sequence(7) },
            ),
            ("wake_events", Query::WakeEvents { process_id: id(), after: Sequence(7), limit: 100 }),
            (
                "first_event_of_type",
                Query::FirstEventOfType { process_id: id(), event_type: "line".into(), after: Sequence(0) },
            ),
            ("lease", Query::Lease { process_id: id() }),
            ("handle_grants", Query::HandleGrants { scope: frame(), live_only: true, after: Some(id()), limit: 100 }),
            (
                "handle_grants_from_the_start",
                Query::HandleGrants { scope: frame(), live_only: false, after: None, limit: 100 },
            ),
            ("handle_grant", Query::HandleGrant { scope: frame(), process_id: id() }),
            ("grants_of_process", Query::GrantsOfProcess { process_id: id(), after: Some(frame()), limit: 100 }),
            ("pending_wakes", Query::PendingWakes { target: frame(), after: Some(wake_cursor()), limit: 100 }),
            ("changes", Query::Changes { after: Some(cursor()), limit: 100 }),
            ("changes_from_the_start", Query::Changes { after: None, limit: 100 }),
            (
                "recent_processes",
                Query::RecentProcesses {
                    filter: ProcessListFilter::default(),
                    before: Some(RegistrationCursor::new(7)),
                    limit: 100,
                },
            ),
            (
                "recent_processes_from_the_newest",
                Query::RecentProcesses { filter: ProcessListFilter::any(), before: None, limit: 100 },
            ),
            ("processes", processes(ProcessListFilter::default(), None)),
            (
                "processes_completed",
                processes(ProcessListFilter::of_status(ProcessStatusFilter::Completed), Some(id())),
            ),
            ("processes_failed", of(ProcessStatusFilter::Failed)),
            ("processes_cancelled", of(ProcessStatusFilter::Cancelled)),
            ("processes_abandoned", of(ProcessStatusFilter::Abandoned)),
            ("processes_any", of(ProcessStatusFilter::Any)),
            ("processes_by_everything", processes(full_filter(), None)),
            ("processes_by_the_host", processes(by_host, None)),
        ],
    );
}

#[test]
fn answers_keep_their_shape() {
    let tombstone_of_another_life = Tombstone { generation: 1, ..tombstone() };
    let changes = [
        ProcessChange::Event(event()),
        ProcessChange::Pruned(tombstone_of_another_life),
        ProcessChange::SessionDeleted(session_deletion()),
    ];
    let changes = ChangePage {
        entries: changes.map(|change| FeedEntry { cursor: cursor(), change }).into(),
        next: cursor(),
        safe_through: cursor(),
        has_more: true,
    };
    let wakes = PendingWakePage {
        wakes: vec![PendingWake { cursor: wake_cursor(), delivery: story().delivery }],
        has_more: false,
    };
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
            (
                "recent_processes",
                Answer::RecentProcesses(RecentProcessPage {
                    records: vec![story().ended],
                    damaged: Vec::new(),
                    next: Some(RegistrationCursor::new(7)),
                }),
            ),
            (
                "processes_beside_a_damaged_one",
                Answer::Processes(ProcessPage { records: Vec::new(), damaged: vec![id()], has_more: false }),
            ),
            (
                "processes",
                Answer::Processes(ProcessPage { records: vec![story().ended], damaged: Vec::new(), has_more: false }),
            ),
            ("tombstone", Answer::Tombstone(Some(tombstone()))),
            ("tombstone_none", Answer::Tombstone(None)),
            ("count", Answer::Count(7)),
            (
                "handle_grants",
                Answer::HandleGrants(HandleGrantPage { entries: vec![(grant(), story().registered)], has_more: true }),
            ),
            ("handle_grant", Answer::HandleGrant(Some(grant()))),
            ("handle_grant_none", Answer::HandleGrant(None)),
            (
                "grants_of_process",
                Answer::GrantsOfProcess(ProcessGrantPage { grants: vec![bare_grant(), grant()], has_more: false }),
            ),
            ("pending_wakes", Answer::PendingWakes(wakes)),
            ("changes", Answer::Changes(changes)),
        ],
    );
}

#[test]
fn what_is_left_of_a_process_and_cursors_keep_their_shape() {
    compare("tombstone.json", vec![("tombstone", tombstone())]);
    compare("session_deletion.json", vec![("session_deletion", session_deletion())]);
    compare("change_cursor.json", vec![("cursor", cursor())]);
    compare("wake_cursor.json", vec![("cursor", wake_cursor())]);
    compare("wake_delivery.json", vec![("delivery", story().delivery)]);
    compare("durability.json", vec![("inline", DurabilityTier::Inline), ("durable", DurabilityTier::Durable)]);
    let signal = ProcessSignal::new("go").expect("a name");
    compare("signal.json", vec![("signal", signal)]);
    compare("signal_invalid.json", vec![("invalid", InvalidSignalName { found: "a b".into() })]);
}

#[test]
fn errors_of_a_registry_keep_their_shape() {
    let operation = OperationId { issuer: 1, number: 2 };
    let reason = || "why".to_owned();
    let samples = vec![
        ("refused", RegistryError::Refused(Refusal::Unknown { process_id: id() })),
        ("busy", RegistryError::Busy { limit: 8 }),
        ("unavailable", RegistryError::Unavailable { process_id: id(), retry_at_ms: 9, reason: reason() }),
        ("outcome_unknown", RegistryError::OutcomeUnknown { process_id: id(), operation, reason: reason() }),
        (
            "across_outcome_unknown",
            RegistryError::AcrossOutcomeUnknown { command: "prune".into(), operation, reason: reason() },
        ),
        ("not_stored", RegistryError::NotStored { reason: reason() }),
        ("store_unknown", RegistryError::Store(LogError::Unknown { process_id: id() })),
        ("store_refused", RegistryError::Store(LogError::Refused(Box::new(Refusal::EmptyPage)))),
        (
            "store_damaged",
            RegistryError::Store(LogError::Damaged { process_id: id(), sequence: Sequence(3), what: "how".into() }),
        ),
        ("store_unreadable", RegistryError::Store(LogError::Unreadable { reason: reason() })),
        ("store_closed", RegistryError::Store(LogError::Closed)),
        ("wrong_answer", RegistryError::WrongAnswer { query: "process".into() }),
        ("closed", RegistryError::Closed),
    ];
    let words = samples.iter().map(|(name, error)| (*name, error.to_string())).collect();
    compare("registry_error_words.json", words);
    compare("registry_error.json", samples);
}

fn limit_exceeded(measure: Measure) -> Refusal {
    Refusal::LimitExceeded { what: "label".into(), measure, limit: 256, found: 257 }
}

fn invalid_filter(json: Value) -> Refusal {
    let invalid: InvalidFilter = ProcessListFilter::decode(&json).expect_err("no filter");
    Refusal::InvalidFilter(invalid)
}

/// Every variant that the source lists is among the samples.
fn check_variants(samples: &[(&str, Refusal)]) {
    let source = include_str!("../src/domain/refusal.rs");
    let (_, body) = source.split_once("pub enum Refusal {").expect("the enum is there");
    let listed = body.lines().filter(|line| {
        line.strip_prefix("    ").is_some_and(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
    });
    let sampled: BTreeSet<_> = samples
        .iter()
        .map(|(_, refusal)| serde_json::to_value(refusal).expect("it has a JSON form")["refusal"].to_string())
        .collect();
    assert_eq!(sampled.len(), listed.count(), "{sampled:?}");
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
        (
            "invalid_execution_terms",
            Refusal::InvalidExecutionTerms { process_id: id(), reason: "deadline_ms must be at least 1, got 0".into() },
        ),
        ("not_executed_here", Refusal::NotExecutedHere { process_id: id() }),
        ("already_started", Refusal::AlreadyStarted { process_id: id(), owner: Box::new(process_owner()) }),
        ("attempts_exhausted", Refusal::AttemptsExhausted { process_id: id(), max_attempts: 3 }),
        ("no_attempt_begun", Refusal::NoAttemptBegun { process_id: id() }),
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
        ("external_ref_conflict", Refusal::ExternalRefConflict { process_id: id(), stored: Box::new(external_ref()) }),
        ("abandon_of_terminal", Refusal::AbandonOfTerminal { process_id: id(), existing: Box::new(success()) }),
        ("wait_of_terminal", Refusal::WaitOfTerminal { process_id: id(), existing: Box::new(success()) }),
        ("no_such_wake", Refusal::NoSuchWake { process_id: id(), sequence: Sequence(7) }),
        ("reserved_replay_key", Refusal::ReservedReplayKey { replay_key: key() }),
        ("handle_not_granted", Refusal::HandleNotGranted { process_id: id(), scope: frame() }),
        ("empty_name", Refusal::EmptyName { what: "label".into() }),
        ("control_character", Refusal::ControlCharacter { what: "label".into(), found: '\n' }),
        ("limit_exceeded_bytes", limit_exceeded(Measure::Bytes)),
        ("limit_exceeded_items", limit_exceeded(Measure::Items)),
        ("too_deep", Refusal::TooDeep { what: "metadata of an external ref".into(), reason: "why".into() }),
        ("empty_page", Refusal::EmptyPage),
        ("invalid_filter_no_record", invalid_filter(json!(7))),
        ("invalid_filter_unknown_key", invalid_filter(json!({"stauts": "any"}))),
        ("invalid_filter_wrong_value", invalid_filter(json!({"status": 7}))),
        ("cursor_foreign", Refusal::Cursor(CursorFault::Foreign { expected: "store".into(), found: "other".into() })),
        ("cursor_other_epoch", Refusal::Cursor(CursorFault::OtherEpoch { expected: 2, found: 1 })),
        ("cursor_rewound", Refusal::Cursor(CursorFault::Rewound)),
        ("foreign_store_session", Refusal::ForeignStoreSession { owner_id: "worker".into(), session: session() }),
        ("decision_panicked", Refusal::DecisionPanicked { process_id, message: "why".into() }),
    ];
    check_variants(&samples);
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
            ("waiting", story.waiting.as_ref().clone()),
            ("ended", story.ended.as_ref().clone()),
            ("attempted", story.attempted.as_ref().clone()),
            ("retrying", story.retrying.as_ref().clone()),
            ("of_a_later_life", ProcessRecord { generation: 3, ..story.registered.as_ref().clone() }),
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

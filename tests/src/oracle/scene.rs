//! The few names and values that histories are made of. Few, so that steps meet at them; some of them are there to be
//! refused.

use registry_actor::domain::{
    AbandonEvidence, AbandonRequest, AbandonWriter, AttemptFailure, CausalRef, LeaseOwnerIdentity, LeaseOwnerLiveness,
    OriginatorFilter, ParentEndRule, PayloadSchema, ProcessAwaitOutput, ProcessEnvRef, ProcessEventSemanticsSpec,
    ProcessEventType, ProcessExternalRef, ProcessFailureClass, ProcessId, ProcessInput, ProcessListFilter,
    ProcessOriginator, ProcessParent, ProcessRegistration, ProcessSignal, ProcessStatusFilter, ProcessTerminalSpec,
    ProcessTerminalState, ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, RecoveryDisposition,
    RetryPolicy, SessionScope, StoreSession, TimeRange, WaitState,
};
use serde_json::{Value, json};

use crate::seeded::Random;

/// How many processes there are.
pub(super) const PROCESSES: u8 = 4;
/// How many scopes; the last one names nobody.
pub(super) const SCOPES: u8 = 5;
/// How many registrations a process may be offered; the later ones are none.
pub(super) const SHAPES: u8 = 20;
/// The registration that declares how it is to be executed.
pub(super) const RETRYING: u8 = 14;
/// How many owners.
pub(super) const OWNERS: u8 = 5;

/// Types of events that drafts name.
pub(super) const TYPES: [&str; 19] = [
    "note",
    "step",
    "said",
    "alarm",
    "mail",
    "signal.go",
    "finish",
    "crash",
    "stop",
    "lost",
    "process.cancel_requested",
    "process.waiting",
    "process.resumed",
    "process.completed",
    "process.failed",
    "process.cancelled",
    "process.abandoned",
    "process.first_started",
    "undeclared",
];

pub(super) fn process(number: u8) -> ProcessId {
    ProcessId::new(format!("p{number}")).expect("an id")
}

pub(super) fn scope(number: u8) -> SessionScope {
    match number {
        0 => SessionScope::session("a"),
        1 => SessionScope::frame("a", "f"),
        2 => SessionScope::session("b"),
        // Its rendered id is that of the frame.
        3 => SessionScope::session("a/frame:f"),
        _ => SessionScope::session(" "),
    }
}

pub(super) fn owner(number: u8, session: &StoreSession) -> LeaseOwnerIdentity {
    let of = |owner_id: &str, incarnation_id: String, liveness| LeaseOwnerIdentity {
        owner_id: owner_id.to_owned(),
        incarnation_id,
        liveness,
    };
    let embedded =
        |session: StoreSession| of("host", session.number.to_string(), LeaseOwnerLiveness::StoreSession { session });
    match number {
        0 => of("far", "1".to_owned(), LeaseOwnerLiveness::Opaque),
        1 => of("far", "2".to_owned(), LeaseOwnerLiveness::Opaque),
        2 => of("near", "1".to_owned(), LeaseOwnerLiveness::Opaque),
        3 => embedded(session.clone()),
        _ => embedded(StoreSession { number: session.number.saturating_sub(1), ..session.clone() }),
    }
}

fn event_types() -> Vec<ProcessEventType> {
    let pointer = |pointer: &str| ProcessValueSelector::Pointer(pointer.to_owned());
    let ending = |name: &str, state, await_output| ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec { state, await_output }),
            wake: None,
        },
        ..ProcessEventType::plain(name)
    };
    let waking = |declared: ProcessEventType, when, input, dedupe_key| ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            wake: Some(ProcessWakeSpec { when, input, dedupe_key }),
            ..declared.semantics.clone()
        },
        ..declared
    };
    let plain = ProcessEventType::plain;
    let sentence = ProcessValueSelector::Template {
        template: "{who}: {text} {nobody}".to_owned(),
        fields: [("who", "/who"), ("text", "/text")].map(|(name, at)| (name.to_owned(), pointer(at))).into(),
    };
    vec![
        plain("note"),
        ProcessEventType {
            payload_schema: PayloadSchema::object(json!({"n": {"type": "integer"}}), &["n"]),
            ..plain("step")
        },
        waking(plain("said"), Some(pointer("/loud")), sentence, ProcessWakeDedupeKey::EventIdentity),
        waking(plain("alarm"), None, ProcessValueSelector::Payload, ProcessWakeDedupeKey::Const("alarm".to_owned())),
        waking(plain("mail"), None, pointer("/text"), ProcessWakeDedupeKey::Selector(pointer("/from"))),
        plain("signal.go"),
        ending("finish", ProcessTerminalState::Completed, None),
        waking(
            ending("crash", ProcessTerminalState::Failed, Some(pointer("/why"))),
            Some(ProcessValueSelector::Present("/tell".to_owned())),
            ProcessValueSelector::Const(json!({"it": "crashed"})),
            ProcessWakeDedupeKey::EventIdentity,
        ),
        ending("stop", ProcessTerminalState::Cancelled, Some(pointer("/m"))),
        ending("lost", ProcessTerminalState::Abandoned, Some(ProcessValueSelector::Payload)),
    ]
}

/// What is declared for a process. The first four are proper; the fifth is the first one in another order.
pub(super) fn registration(id: ProcessId, shape: u8) -> ProcessRegistration {
    let (input, disposition) = match shape {
        2 => (ProcessInput::external(json!({"name": "elsewhere"})), RecoveryDisposition::ExternallyOwned),
        3 | 15 => (ProcessInput::new("job", json!({})), RecoveryDisposition::OwnerBound),
        5 => (ProcessInput::tool_call(json!({"tool_name": "t"})), RecoveryDisposition::Rerunnable),
        _ => (ProcessInput::new("job", json!({"n": 1})), RecoveryDisposition::Rerunnable),
    };
    let mut registration = ProcessRegistration::new(id, input, disposition);
    registration.event_types.extend(event_types());
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    match shape {
        0 | 4 => {
            registration.wake_target = Some(scope(0));
            registration.tags = tags(&["red"]);
            registration.identity.label = Some("first".to_owned());
            if shape == 4 {
                registration.event_types.drain(0..5);
                registration.event_types.reverse();
            }
        }
        1 => {
            registration.wake_target = Some(scope(1));
            registration.tags = tags(&["red", "blue"]);
            registration.provenance.originator = ProcessOriginator::Session { scope: scope(1) };
            registration.provenance.caused_by =
                Some(CausalRef::ToolCall { session_id: "a".to_owned(), call_id: "c".to_owned() });
            registration.identity.definition = Some(json!({"d": [1, null]}));
        }
        2 => {
            registration.event_types.retain(|declared| declared.name.starts_with("process.") || declared.name == "note")
        }
        3 => registration.provenance.originator = ProcessOriginator::Session { scope: scope(2) },
        5 => {}
        6 => registration.event_types.push(ProcessEventType::plain("note")),
        7 => {
            registration.event_types.retain(|declared| declared.name != "process.completed");
            registration.event_types.push(ProcessEventType::plain("process.completed"));
        }
        8 => registration.event_types.push(ProcessEventType::plain("process.wake_acknowledged")),
        9 => registration.event_types.push(ProcessEventType {
            semantics: ProcessEventSemanticsSpec {
                terminal: Some(ProcessTerminalSpec { state: ProcessTerminalState::Failed, await_output: None }),
                wake: None,
            },
            ..ProcessEventType::plain("vague")
        }),
        10 => {
            registration.input = ProcessInput::external(json!(null));
            registration.env_ref = Some(ProcessEnvRef("process-env:sha256:0".to_owned()));
        }
        11 => registration.event_types.push(ProcessEventType::plain(" ")),
        12 => registration.tags = tags(&[""]),
        // Names that only resemble core types are free.
        13 => registration.event_types.push(ProcessEventType::plain("process.yield")),
        RETRYING => {
            registration.retry = Some(retry(3));
            registration.deadline_ms = Some(70);
            registration.parent = Some(ProcessParent { process_id: process(0), on_end: ParentEndRule::LeaveAlone })
                .filter(|parent| parent.process_id != registration.id);
        }
        15 => registration.retry = Some(retry(1)),
        16 => registration.retry = Some(retry(0)),
        17 => registration.retry = Some(RetryPolicy { max_backoff_ms: 19, ..retry(1) }),
        18 => registration.deadline_ms = Some(0),
        _ => {
            let process_id = registration.id.clone();
            registration.parent = Some(ProcessParent { process_id, on_end: ParentEndRule::RequestCancel });
        }
    }
    registration
}

fn retry(max_attempts: u32) -> RetryPolicy {
    RetryPolicy { max_attempts, initial_backoff_ms: 20, max_backoff_ms: 30 }
}

/// How many reasons for which an attempt fails.
pub(super) const FAILURES: u8 = 2;

/// Why attempts fail.
pub(super) fn failure(number: u8) -> AttemptFailure {
    let class = ProcessFailureClass::Timeout;
    AttemptFailure { class, code: "late".to_owned(), message: format!("m{number}") }
}

/// A payload for events of a type; some do not fit it.
pub(super) fn payload(id: &ProcessId, event_type: &str, variant: u8) -> Value {
    let of = |variants: &[Value]| variants[usize::from(variant) % variants.len()].clone();
    let outcome_of = |wanted: ProcessTerminalState| {
        let fitting = (0..OUTCOMES).map(outcome).filter(|outcome| outcome.terminal_state() == wanted);
        fitting.map(|outcome| json!({ "await_output": outcome })).collect::<Vec<_>>()
    };
    match event_type {
        "step" => of(&[json!({"n": 1}), json!({"n": 2, "more": []}), json!({"n": "one"}), json!([])]),
        "said" => of(&[
            json!({"loud": true, "who": "{text}", "text": "hm"}),
            json!({"loud": 0, "who": "b", "text": {"k": [1]}}),
            json!({"loud": false}),
            json!({"who": "c"}),
            json!({"loud": 1, "who": "d"}),
        ]),
        "alarm" => of(&[json!(1), json!({"k": null}), json!("fire")]),
        "mail" => of(&[
            json!({"from": "x", "text": "hi"}),
            json!({"from": "x", "text": null}),
            json!({"from": "y", "text": "ho"}),
            json!({"text": "hm"}),
        ]),
        "finish" => of(&[json!(1), json!({"type": "success", "value": 2}), json!(null)]),
        "crash" => of(&[json!({"why": "oom", "tell": null}), json!({"why": {"k": 1}}), json!({})]),
        "stop" => of(&[json!({"m": "bye"}), json!({"m": null}), json!({})]),
        "lost" => of(&[json!("gone"), json!(null)]),
        "process.cancel_requested" => of(&[json!({"reason": null}), json!({"reason": "r"})]),
        "process.waiting" => {
            of(&[json!(wait(id, 1, 1)), json!(wait(id, 2, 2)), json!("as I like"), json!({"kind": {}})])
        }
        "process.completed" => of(&[
            outcome_of(ProcessTerminalState::Completed),
            vec![json!({ "await_output": outcome(2) }), json!({"await_output": {"type": "none"}})],
        ]
        .concat()),
        "process.failed" => of(&outcome_of(ProcessTerminalState::Failed)),
        "process.cancelled" => of(&outcome_of(ProcessTerminalState::Cancelled)),
        "process.abandoned" => of(&outcome_of(ProcessTerminalState::Abandoned)),
        _ => of(&[json!(null), json!({"n": 0}), json!("text")]),
    }
}

/// How many outcomes.
pub(super) const OUTCOMES: u8 = 7;

pub(super) fn outcome(number: u8) -> ProcessAwaitOutput {
    let null = || Some(Value::Null);
    match number {
        0 => ProcessAwaitOutput::Success { value: json!(1), control: None },
        1 => ProcessAwaitOutput::Success { value: json!({"type": "cancelled", "message": "m"}), control: null() },
        2 | 3 => ProcessAwaitOutput::Failure {
            class: ProcessFailureClass::Timeout,
            code: "late".to_owned(),
            message: format!("m{number}"),
            raw: null(),
            control: None,
        },
        4 | 5 => ProcessAwaitOutput::Cancelled { message: format!("m{number}"), raw: None, control: Some(json!([])) },
        _ => ProcessAwaitOutput::Abandoned {
            evidence: Box::new(AbandonEvidence {
                writer: AbandonWriter::Sweep,
                owner: None,
                epoch_ms: 7,
                detail: Some(json!({"left": "nothing"})),
            }),
            control: None,
        },
    }
}

pub(super) fn signal() -> ProcessSignal {
    ProcessSignal::new("go").expect("a name")
}

pub(super) fn wait(id: &ProcessId, ordinal: u8, since_ms: u64) -> WaitState {
    WaitState::signal(id, &signal(), ordinal.into(), since_ms)
}

pub(super) fn external_ref(number: u8) -> ProcessExternalRef {
    let (id, metadata) = match number {
        0 => ("1", None),
        1 => ("1", Some(Value::Null)),
        _ => ("2", Some(json!({"k": 1}))),
    };
    ProcessExternalRef { backend: "far away".to_owned(), id: id.to_owned(), metadata }
}

pub(super) fn abandon_request(number: u8) -> AbandonRequest {
    let reason = (number > 0).then(|| format!("r{number}"));
    AbandonRequest { requested_by: "somebody".to_owned(), requested_at_ms: number.into(), reason }
}

/// A filter at random, with times around now.
pub(super) fn filter(random: &mut Random, now_ms: u64) -> ProcessListFilter {
    let statuses = [
        ProcessStatusFilter::Any,
        ProcessStatusFilter::Any,
        ProcessStatusFilter::Running,
        ProcessStatusFilter::Completed,
        ProcessStatusFilter::Failed,
        ProcessStatusFilter::Cancelled,
        ProcessStatusFilter::Abandoned,
    ];
    let mut filter = ProcessListFilter::of_status(*random.one_of(&statuses));
    let range = |random: &mut Random| TimeRange {
        from_ms: random.one_in(2).then(|| now_ms - random.below(100)),
        until_ms: random.one_in(2).then(|| now_ms - random.below(100)),
    };
    match random.below(9) {
        0 => filter.kind = Some((*random.one_of(&["job", "external", "tool"])).to_owned()),
        1 => filter.label = Some((*random.one_of(&["first", "elsewhere"])).to_owned()),
        2 => filter.definition = Some(json!({"d": [1, null]})),
        3 => filter.originator = Some(OriginatorFilter::Host),
        4 => filter.originator = Some(OriginatorFilter::Session(scope(random.small(4)))),
        5 => filter.waiting = Some(random.one_in(2)),
        6 => filter.created = range(random),
        7 => filter.updated = range(random),
        _ => {
            for tag in ["red", "blue"] {
                if random.one_in(2) {
                    filter.tags.insert(tag.to_owned());
                }
            }
        }
    }
    filter
}

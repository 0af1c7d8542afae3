//! Registration: what is stored, what counts as the same, what is refused.

use registry_actor::domain::{
    CausalRef, CoreEventType, Decision, PayloadSchema, ProcessAwaitOutput, ProcessEnvRef, ProcessEventSemanticsSpec,
    ProcessEventType, ProcessId, ProcessInput, ProcessRecord, ProcessRegistration, ProcessStatus, ProcessTerminalSpec,
    ProcessTerminalState, ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, RecoveryDisposition, Refusal,
    SessionScope,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::world::*;

/// Sorts the event types by name and hashes the compact JSON, whose keys serde_json sorts here: the rule of version 1,
/// written down a second time.
fn hash_of(registration: &ProcessRegistration) -> String {
    let mut value = serde_json::to_value(registration).expect("a registration has a JSON form");
    let types = value["event_types"].as_array_mut().expect("a list of event types");
    types.sort_by_key(|declared| declared["name"].as_str().expect("a name").to_owned());
    let digest = Sha256::digest(value.to_string());
    digest.iter().fold("v1:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn terminal_type(name: &str, state: ProcessTerminalState, selector: Option<ProcessValueSelector>) -> ProcessEventType {
    ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec { state, await_output: selector }),
            wake: None,
        },
        ..ProcessEventType::plain(name)
    }
}

fn with(change: impl FnOnce(&mut ProcessRegistration)) -> ProcessRegistration {
    let mut registration = registration();
    change(&mut registration);
    registration
}

fn refused(change: impl FnOnce(&mut ProcessRegistration)) -> Refusal {
    World::empty().refusal(register(with(change)))
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(0), |inner, _| json!([inner]))
}

#[test]
fn a_registration_is_the_event_of_sequence_zero() {
    let mut world = World::empty();
    let decision = world.run(register(registration()));
    let payload = json!({"registration": registration(), "registration_hash": hash_of(&registration())});
    assert_eq!(decision, inserts([event(0, "process.registered", payload)]));
    let expected = ProcessRecord {
        registration: registration().into(),
        registration_hash: world.record().registration_hash.clone(),
        created_at_ms: EPOCH,
        updated_at_ms: EPOCH,
        terminal_at_ms: None,
        generation: 1,
        first_started: None,
        attempts: registry_actor::domain::ProcessAttempts::default(),
        external_ref: None,
        abandon_request: None,
        wait: None,
        wake_target: None,
        status: ProcessStatus::Running.into(),
    };
    assert_eq!(world.record(), &expected);
    assert_eq!(world.record().registration_hash.to_string(), hash_of(&registration()));
}

#[test]
fn a_record_begins_with_the_wake_target_of_its_registration() {
    let world = World::of(with(|registration| registration.wake_target = Some(SessionScope::session("s"))));
    assert_eq!(world.record().wake_target.as_deref(), Some(&SessionScope::session("s")));
}

#[test]
fn core_types_are_added_where_they_are_missing() {
    let bare = with(|registration| registration.event_types.clear());
    let world = World::of(bare.clone());
    let declared: Vec<_> = world.record().registration.event_types.iter().map(|declared| &*declared.name).collect();
    assert_eq!(declared, CoreEventType::DECLARED.map(CoreEventType::name));
    let redeclared = with(|registration| {
        registration.event_types = vec![CoreEventType::Failed.declaration()];
    });
    assert_eq!(World::of(bare).decide(&register(redeclared)), Ok(Decision::default()), "the same process");
}

#[test]
fn the_same_registration_again_changes_nothing_whatever_the_status() {
    let mut running = World::registered();
    running.advance(5);
    assert_eq!(running.decide(&register(registration())), Ok(Decision::default()));
    let mut ended = World::completed(json!(1));
    assert_eq!(ended.decide(&register(registration())), Ok(Decision::default()));
    ended.reopen();
    assert_eq!(ended.decide(&register(registration())), Ok(Decision::default()));
}

#[test]
fn the_order_of_event_types_does_not_count() {
    let mut world = World::declaring([ProcessEventType::plain("a"), ProcessEventType::plain("b")]);
    let backwards = with(|registration| {
        registration.event_types.extend([ProcessEventType::plain("b"), ProcessEventType::plain("a")]);
        registration.event_types.reverse();
    });
    assert_eq!(world.decide(&register(backwards)), Ok(Decision::default()));
}

#[test]
fn another_registration_under_the_id_is_refused_with_both_hashes() {
    let others = [
        with(|registration| registration.input.payload = json!({"n": 2})),
        with(|registration| registration.disposition = RecoveryDisposition::OwnerBound),
        with(|registration| registration.identity.label = Some("other".into())),
        with(|registration| registration.identity.definition = Some(Value::Null)),
        with(|registration| registration.event_types.push(ProcessEventType::plain("more"))),
        with(|registration| registration.wake_target = Some(SessionScope::session("s"))),
        with(|registration| registration.env_ref = Some(ProcessEnvRef("e".into()))),
        with(|registration| {
            registration.provenance.caused_by = Some(CausalRef::Turn { session_id: "s".into(), turn_id: "t".into() });
        }),
    ];
    for other in others {
        let mut world = World::registered();
        let stored = world.record().registration_hash.clone();
        let offered = World::of(other.clone()).record().registration_hash.clone();
        let refusal = world.refusal(register(other));
        assert!(refusal.to_string().contains("registration hash conflict"), "{refusal}");
        assert_eq!(refusal, Refusal::RegistrationConflict { process_id: id(), stored, offered });
    }
}

#[test]
fn a_registration_of_another_process_is_misrouted() {
    let other = ProcessId::new("q").expect("an id");
    assert_eq!(
        refused(|registration| registration.id = other.clone()),
        Refusal::MisroutedRegistration { expected: id(), found: other.clone() }
    );
}

#[test]
fn the_environment_rule_of_the_input_kind_is_kept() {
    let env = || Some(ProcessEnvRef("process-env:sha256:00".into()));
    for input in [ProcessInput::tool_call(json!({})), ProcessInput::engine("wasm", json!(null))] {
        let kind = input.kind.clone();
        let refusal = refused(|registration| registration.input = input.clone());
        assert!(refusal.to_string().contains("requires a captured execution env"), "{refusal}");
        assert_eq!(refusal, Refusal::EnvironmentRequired { kind });
        World::of(with(|registration| {
            registration.input = input.clone();
            registration.env_ref = env();
        }));
    }
    for input in [ProcessInput::external(json!({})), ProcessInput::session_turn(json!({}))] {
        let kind = input.kind.clone();
        let refusal = refused(|registration| {
            registration.input = input.clone();
            registration.env_ref = env();
        });
        assert!(refusal.to_string().contains("must not capture an execution env for this input kind"), "{refusal}");
        assert_eq!(refusal, Refusal::EnvironmentForbidden { kind });
        World::of(with(|registration| registration.input = input.clone()));
    }
    World::of(with(|registration| registration.env_ref = env()));
}

#[test]
fn external_work_may_be_owner_bound() {
    World::of(with(|registration| {
        registration.input = ProcessInput::external(json!({"title": "build"}));
        registration.disposition = RecoveryDisposition::OwnerBound;
    }));
}

#[test]
fn an_input_that_names_no_executor_is_refused() {
    assert_eq!(
        refused(|registration| registration.input.kind = " ".into()),
        Refusal::EmptyInputKind { process_id: id() }
    );
}

#[test]
fn event_types_have_names_and_each_name_once() {
    let refusal = refused(|registration| registration.event_types.push(ProcessEventType::plain(" ")));
    assert!(refusal.to_string().contains("declares an empty event type"), "{refusal}");
    assert_eq!(refusal, Refusal::EmptyEventType { process_id: id() });
    let refusal = refused(|registration| registration.event_types.push(ProcessEventType::plain("note")));
    assert!(refusal.to_string().contains("declares duplicate event type"), "{refusal}");
    assert_eq!(refusal, Refusal::DuplicateEventType { event_type: "note".into() });
    // A core type may be spelt out, but not twice.
    assert_eq!(
        refused(|registration| registration.event_types.push(CoreEventType::Failed.declaration())),
        Refusal::DuplicateEventType { event_type: "process.failed".into() }
    );
}

/// With the peer a caller could redeclare `process.completed` without terminal semantics: the process could then never
/// end.
#[test]
fn core_types_cannot_be_redeclared() {
    for core in CoreEventType::DECLARED {
        let refusal = refused(|registration| {
            registration.event_types = vec![ProcessEventType {
                payload_schema: PayloadSchema::new(json!({"type": "object"})),
                ..core.declaration()
            }];
        });
        assert_eq!(refusal, Refusal::ReservedEventType { event_type: core.name().into() });
    }
    assert_eq!(
        refused(|registration| registration.event_types = vec![ProcessEventType::plain("process.completed")]),
        Refusal::ReservedEventType { event_type: "process.completed".into() }
    );
}

#[test]
fn internal_types_cannot_be_declared_at_all() {
    for core in CoreEventType::INTERNAL {
        let refusal = refused(|registration| registration.event_types.push(core.declaration()));
        assert_eq!(refusal, Refusal::ReservedEventType { event_type: core.name().into() });
    }
}

#[test]
fn names_that_only_resemble_core_types_are_free() {
    World::declaring([ProcessEventType::plain("process.wake"), ProcessEventType::plain("process.yield")]);
}

#[test]
fn only_a_completion_may_leave_its_outcome_undeclared() {
    for state in ProcessTerminalState::ALL {
        let declared = terminal_type("end", state, None);
        if state == ProcessTerminalState::Completed {
            World::declaring([declared]);
            continue;
        }
        let refusal = refused(|registration| registration.event_types.push(declared));
        assert!(refusal.to_string().contains("must declare await output"), "{refusal}");
        assert_eq!(refusal, Refusal::AwaitOutputUndeclared { event_type: "end".into(), state });
        World::declaring([terminal_type("end", state, Some(ProcessValueSelector::Payload))]);
    }
}

#[test]
fn a_payload_schema_that_is_none_is_refused_at_the_registration() {
    let refusal = refused(|registration| {
        registration.event_types.push(ProcessEventType {
            payload_schema: PayloadSchema::new(json!({"type": 7})),
            ..ProcessEventType::plain("bad")
        });
    });
    let Refusal::InvalidSchema { event_type, reason } = refusal else { panic!("{refusal:?}") };
    assert_eq!(event_type, "bad");
    assert!(!reason.is_empty(), "the reason says what is wrong");
}

/// serde_json writes any depth and reads 128 levels: such a registration was stored and could never be loaded, and a
/// schema of a few thousand levels overflowed the stack of the thread that compiled it.
#[test]
fn a_registration_that_nests_too_deep_to_be_read_back_is_refused() {
    let selector = |levels: usize| {
        (0..levels).fold(ProcessValueSelector::Payload, |inner, _| ProcessValueSelector::Template {
            template: "{x}".into(),
            fields: [("x".to_owned(), inner)].into(),
        })
    };
    let waking = |when, input, dedupe_key| ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec { when, input, dedupe_key }),
        },
        ..ProcessEventType::plain("deep")
    };
    let schema = |levels: usize| ProcessEventType {
        payload_schema: PayloadSchema::new((0..levels).fold(json!({}), |inner, _| json!({"items": inner}))),
        ..ProcessEventType::plain("deep")
    };
    let payload = ProcessValueSelector::Payload;
    let identity = ProcessWakeDedupeKey::EventIdentity;
    let constant = |levels| ProcessValueSelector::Const(nested(levels));
    let deep = [
        with(|registration| registration.input.payload = nested(97)),
        with(|registration| registration.identity.definition = Some(nested(97))),
        with(|registration| registration.event_types.push(schema(5_000))),
        with(|registration| {
            registration.event_types.push(waking(Some(selector(33)), payload.clone(), identity.clone()))
        }),
        with(|registration| registration.event_types.push(waking(None, constant(96), identity.clone()))),
        with(|registration| {
            let dedupe_key = ProcessWakeDedupeKey::Selector(constant(96));
            registration.event_types.push(waking(None, payload.clone(), dedupe_key));
        }),
        with(|registration| {
            let state = ProcessTerminalState::Failed;
            registration.event_types.push(terminal_type("deep", state, Some(constant(96))));
        }),
    ];
    for registration in deep {
        assert_eq!(
            World::empty().refusal(register(registration)),
            Refusal::RegistrationHasNoJson { process_id: id(), reason: "nested deeper than 96 levels".into() }
        );
    }
    // One level less is taken, and reads back.
    let mut world = World::of(with(|registration| {
        registration.input.payload = nested(96);
        registration.identity.definition = Some(nested(96));
        registration.event_types.push(schema(95));
        let dedupe_key = ProcessWakeDedupeKey::Selector(constant(95));
        registration
            .event_types
            .push(ProcessEventType { name: "wake".into(), ..waking(Some(selector(32)), constant(95), dedupe_key) });
        let state = ProcessTerminalState::Abandoned;
        registration.event_types.push(terminal_type("end", state, Some(constant(95))));
    }));
    world.run(append(
        registry_actor::domain::ProcessEventAppendRequest::new("end", json!(null)).with_replay_key(key("end")),
    ));
    assert!(matches!(world.record().status.await_output(), Some(ProcessAwaitOutput::Abandoned { .. })));
}

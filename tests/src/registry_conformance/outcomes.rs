//! Cases about outcomes and refusals: W1, W2, W7, W17, W18, W33, and batches.

use registry_actor::domain::{
    Command, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventSemanticsSpec, ProcessEventType,
    ProcessFailureClass, ProcessTerminalSpec, ProcessTerminalState, Refusal, ReplayKey, Sequence,
};
use registry_actor::port::{LogError, ProcessRegistry, ProcessRegistryExt, RegistryError};
use serde_json::json;

use super::example::*;
use super::stage::{Stage, assert_unknown, refusal};

fn ending(name: &str, state: ProcessTerminalState, at: Option<&str>) -> ProcessEventType {
    ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec { state, await_output: at.map(pointer) }),
            wake: None,
        },
        ..ProcessEventType::plain(name)
    }
}

/// W1 and W33: whatever ended it, every later outcome is told the one that stands; the same one again is answered.
pub async fn w33_a_second_outcome_is_told_the_one_that_stands(stage: &mut Stage) {
    let registry = &stage.registry;
    let unknown = process_id("unknown");
    assert_unknown(registry.complete_process(&unknown, success(1)).await, &unknown);
    let id = registered(registry, "p").await;
    let record = registry.complete_process(&id, success(1)).await.expect("an outcome");
    stage.clock.advance_ms(5);
    assert_eq!(registry.complete_process(&id, success(1)).await.expect("the same"), record);
    let cancelled = ProcessAwaitOutput::cancelled("c");
    for other in [success(2), cancelled.clone()] {
        let refused = refusal(registry.complete_process(&id, other).await);
        assert_eq!(refused, Refusal::AlreadyTerminal { process_id: id.clone(), existing: Box::new(success(1)) });
        assert!(refused.to_string().contains("is already terminal"), "{refused}");
    }
    let append = keyed("process.cancelled", cancelled.to_event_payload(), "another key");
    assert!(matches!(refusal(registry.append_event(&id, append).await), Refusal::AlreadyTerminal { .. }));

    let custom = process_id("custom");
    let ended = ending("done", ProcessTerminalState::Completed, None);
    registry.register_process(declaring(&custom, [ended])).await.expect("a registration");
    registry.append_event(&custom, keyed("done", json!({"value": 1}), "k")).await.expect("an end");
    let refused = refusal(registry.complete_process(&custom, success(1)).await);
    assert!(matches!(&refused, Refusal::AlreadyTerminal { existing, .. } if **existing == success(1)), "{refused:?}");
    let replay = registry.append_event(&custom, keyed("done", json!({"value": 1}), "k")).await.expect("a replay");
    assert!(!replay.events[0].is_inserted());
    assert_eq!(registry.get_process(&id).await.expect("a read"), Some(record));
}

/// W2: a store that cannot be read is an error, never "unknown".
pub async fn w02_a_store_that_cannot_be_read_is_not_an_unknown_process(stage: &mut Stage) {
    let id = registered(&stage.registry, "p").await;
    stage.close().await;
    let closed = RegistryError::Store(LogError::Closed);
    let registry = &stage.registry;
    assert_eq!(registry.get_process(&id).await, Err(closed.clone()));
    assert_eq!(registry.get_process(&process_id("unknown")).await, Err(closed.clone()));
    assert_eq!(registry.get_process_lease(&id).await, Err(closed.clone()));
    assert_eq!(registry.has_handle_grant(&session("s"), &id).await, Err(closed.clone()));
    let is_closed = |error: &RegistryError| *error == RegistryError::Closed || *error == closed;
    let error = registry.append_event(&id, note(1)).await.expect_err("closed");
    assert!(is_closed(&error), "{error:?}");
    let error = registry.grant_handle(session("s"), &id, labelled("l")).await.expect_err("closed");
    assert!(is_closed(&error), "{error:?}");
}

/// W7: declared state and outcome agree, and what a user's payload looks like makes it no outcome.
pub async fn w07_state_and_outcome_agree_and_only_core_types_carry_outcomes(stage: &mut Stage) {
    let registry = &stage.registry;
    let failure = ProcessAwaitOutput::failure(ProcessFailureClass::Execution, "code", "text");
    let id = registered(registry, "p").await;
    let refused =
        refusal(registry.append_event(&id, keyed("process.completed", failure.to_event_payload(), "k")).await);
    assert!(
        matches!(
            &refused,
            Refusal::OutcomeContradictsType {
                declared: ProcessTerminalState::Completed,
                found: ProcessTerminalState::Failed,
                ..
            }
        ),
        "{refused:?}"
    );
    let refused = registry.append_event(&id, keyed("process.completed", json!({"await_output": {"x": 1}}), "k")).await;
    assert!(matches!(refusal(refused), Refusal::InvalidPayload { .. }));
    let refused = registry.append_event(&id, keyed("process.completed", json!({}), "k")).await;
    assert!(matches!(refusal(refused), Refusal::SelectorMissed { .. }));
    let running = registry.get_process(&id).await.expect("a read").expect("a record");
    assert!(!running.status.is_terminal());

    let lookalike = json!({"type": "failure", "class": "execution", "code": "c", "message": "m"});
    for (name, state, at) in [
        ("completed", ProcessTerminalState::Completed, None),
        ("failed", ProcessTerminalState::Failed, Some("")),
        ("cancelled", ProcessTerminalState::Cancelled, Some("")),
        ("abandoned", ProcessTerminalState::Abandoned, Some("")),
    ] {
        let id = process_id(name);
        registry.register_process(declaring(&id, [ending("done", state, at)])).await.expect("a registration");
        registry.append_event(&id, keyed("done", lookalike.clone(), "k")).await.expect("an end");
        let record = registry.get_process(&id).await.expect("a read").expect("a record");
        let outcome = record.status.await_output().expect("an outcome");
        assert_eq!(record.status.terminal_state(), Some(state));
        assert_eq!(outcome.terminal_state(), state);
        match outcome {
            ProcessAwaitOutput::Success { value, .. } => assert_eq!(*value, lookalike),
            ProcessAwaitOutput::Failure { code, raw, .. } => {
                assert_eq!((code.as_str(), raw.as_ref()), ("process_failed", Some(&lookalike)));
            }
            ProcessAwaitOutput::Cancelled { raw, .. } => assert_eq!(raw.as_ref(), Some(&lookalike)),
            ProcessAwaitOutput::Abandoned { evidence, .. } => {
                assert_eq!(evidence.detail, Some(json!({"selected": lookalike})));
            }
        }
    }
}

/// W17: the registry's own names cannot be redeclared, and its own facts cannot be appended or kept from being written.
pub async fn w17_core_types_and_keys_are_reserved(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = process_id("p");
    for name in ["process.completed", "process.registered", "process.wait_set"] {
        let mut spec = registration(&id);
        spec.event_types.retain(|declared| declared.name != name);
        let spec = spec.with_extra_event_types([ProcessEventType::plain(name)]);
        let refused = refusal(registry.register_process(spec).await);
        assert_eq!(refused, Refusal::ReservedEventType { event_type: name.to_owned() });
    }
    assert_eq!(registry.get_process(&id).await.expect("a read"), None, "nothing of a refused registration is there");
    registered(registry, "p").await;
    for name in ["process.registered", "process.first_started", "process.wake_acknowledged"] {
        let append = ProcessEventAppendRequest::new(name, json!({}));
        let refused = refusal(registry.append_event(&id, append).await);
        assert_eq!(refused, Refusal::ReservedEventType { event_type: name.to_owned() });
    }
    for key in ["process:p:first_started", "process:p:terminal:process.completed", "process:p:wake_acknowledged:1"] {
        let refused = refusal(registry.append_event(&id, keyed("note", json!({}), key)).await);
        assert_eq!(refused, Refusal::ReservedReplayKey { replay_key: replay_key(key) });
    }
    registry.complete_process(&id, success(1)).await.expect("nothing stands in the way");
}

/// W18: an empty replay key is none.
pub async fn w18_an_empty_replay_key_is_refused(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    assert!(ReplayKey::new("").is_err() && ReplayKey::new("  ").is_err());
    let written = json!({"command": "append", "authority": "unfenced",
        "events": [{"event_type": "note", "payload": {}, "replay_key": ""}]});
    assert!(serde_json::from_value::<Command>(written.clone()).is_err(), "nor can a command be read that has one");
    let mut absent = written;
    absent["events"][0]["replay_key"] = json!(null);
    let command: Command = serde_json::from_value(absent).expect("a command without a key");
    for _ in 0..2 {
        let receipt = registry.execute(&id, command.clone()).await.expect("an append");
        assert!(receipt.events[0].is_inserted(), "without a key each append is an event");
    }
}

/// A batch is in order, and all or nothing; a later request sees what an earlier one appended.
pub async fn a_batch_is_all_or_nothing(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let before = registry.get_process(&id).await.expect("a read");
    stage.clock.advance_ms(5);
    let bad = ProcessEventAppendRequest::new("undeclared", json!({}));
    let refused = registry.append_events(&id, vec![note(1), note(2), bad]).await;
    assert!(matches!(refusal(refused), Refusal::UndeclaredEventType { .. }));
    assert!(registry.events_after(&id, Sequence(0)).await.expect("events").is_empty());
    assert_eq!(registry.get_process(&id).await.expect("a read"), before);

    let batch = vec![note(1), keyed("note", json!(2), "k"), keyed("note", json!(2), "k"), note(3)];
    let receipt = registry.append_events(&id, batch).await.expect("an append");
    let inserted: Vec<_> = receipt.events.iter().map(|event| (event.event().sequence.0, event.is_inserted())).collect();
    assert_eq!(inserted, [(1, true), (2, true), (2, false), (3, true)]);
    let empty = registry.append_events(&id, Vec::new()).await.expect("nothing");
    assert!(empty.events.is_empty());
    let ends = keyed("process.completed", success(1).to_event_payload(), "end");
    let receipt = registry.append_events(&id, vec![note(4), ends, note(5)]).await.expect("an append");
    let late: Vec<_> = receipt.events.iter().map(|event| event.event().late).collect();
    assert_eq!(late, [false, false, true]);
    assert_eq!(sequences(&registry.events_after(&id, Sequence(0)).await.expect("events")), [1, 2, 3, 4, 5, 6]);
}

/// A registration that is sent to another process is refused, and so is one that declares what cannot be.
pub async fn registrations_are_validated(stage: &mut Stage) {
    use registry_actor::domain::{PayloadSchema, ProcessEnvRef, ProcessInput, ProcessRegistration};

    let registry = &stage.registry;
    let (id, other) = (process_id("p"), process_id("q"));
    let command = Command::Register { registration: Box::new(registration(&other)) };
    let refused = refusal(registry.execute(&id, command).await);
    assert_eq!(refused, Refusal::MisroutedRegistration { expected: id.clone(), found: other });

    let disposition = registry_actor::domain::RecoveryDisposition::Rerunnable;
    let of_input = |input| ProcessRegistration::new(id.clone(), input, disposition);
    let with_env = |input| ProcessRegistration { env_ref: Some(ProcessEnvRef("e".into())), ..of_input(input) };
    let schema =
        ProcessEventType { payload_schema: PayloadSchema::new(json!({"type": 7})), ..ProcessEventType::plain("x") };
    let cases = [
        (of_input(ProcessInput::tool_call(json!({}))), "requires a captured execution env"),
        (of_input(ProcessInput::engine("e", json!({}))), "requires a captured execution env"),
        (with_env(ProcessInput::external(json!({}))), "must not capture an execution env for this input kind"),
        (with_env(ProcessInput::session_turn(json!({}))), "must not capture an execution env for this input kind"),
        (of_input(ProcessInput::new(" ", json!({}))), "empty input kind"),
        (declaring(&id, [ProcessEventType::plain(" ")]), "declares an empty event type"),
        (declaring(&id, [ProcessEventType::plain("note")]), "declares duplicate event type"),
        (declaring(&id, [ending("x", ProcessTerminalState::Failed, None)]), "must declare await output"),
        (declaring(&id, [schema]), "x"),
    ];
    for (spec, text) in cases {
        let refused = refusal(registry.register_process(spec).await);
        assert!(refused.to_string().contains(text), "expected {text}, got {refused}");
    }
    assert_eq!(registry.get_process(&id).await.expect("a read"), None);
    // Input kind and disposition are not cross-checked.
    let external = ProcessRegistration::new(
        id.clone(),
        ProcessInput::external(json!({"label": "l"})),
        registry_actor::domain::RecoveryDisposition::OwnerBound,
    );
    let record = registry.register_process(external).await.expect("a registration");
    assert_eq!(record.registration.identity.label.as_deref(), Some("l"));
}

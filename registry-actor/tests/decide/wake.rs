//! Wakes: when an event wakes, what it says, which wakes are one, and whom it reaches.

use std::sync::Arc;

use registry_actor::domain::{
    CausalRef, MaterializedWake, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessEventSemantics,
    ProcessEventSemanticsSpec, ProcessEventType, ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeDelivery,
    ProcessWakeSpec, Refusal, SelectorError, Sequence, SessionScope,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::world::*;

fn selector(value: Value) -> ProcessValueSelector {
    serde_json::from_value(value).expect("a selector")
}

fn wake_type(when: Option<Value>, input: Value, dedupe_key: Value) -> ProcessEventType {
    ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec {
                when: when.map(selector),
                input: selector(input),
                dedupe_key: serde_json::from_value(dedupe_key).expect("a dedupe key"),
            }),
        },
        ..ProcessEventType::plain("wake")
    }
}

fn wake(payload: Value) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("wake", payload)
}

/// A process whose wakes go to session `home`.
fn world_with(declared: ProcessEventType) -> World {
    let mut registration = registration();
    registration.event_types.push(declared);
    registration.wake_target = Some(SessionScope::session("home"));
    registration.provenance.caused_by = Some(caused_by());
    World::of(registration)
}

fn caused_by() -> CausalRef {
    CausalRef::ToolCall { session_id: "home".into(), call_id: "c".into() }
}

fn wakes(sequence: u64, payload: Value, input: &str, dedupe_key: &str) -> ProcessEvent {
    ProcessEvent {
        semantics: ProcessEventSemantics {
            terminal: None,
            wake: Some(Box::new(MaterializedWake { input: input.into(), dedupe_key: dedupe_key.into() })),
        },
        ..event(sequence, "wake", payload)
    }
}

/// The rule of the wake id, written down a second time.
fn wake_id(scope_id: &str, dedupe_key: &str) -> String {
    let text = json!([scope_id, dedupe_key]).to_string();
    Sha256::digest(text).iter().fold("wake:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn delivery(event: &ProcessEvent, scope: &SessionScope) -> ProcessWakeDelivery {
    let wake = event.semantics.wake.as_ref().expect("the event wakes");
    let scope_id = match scope.agent_frame_id() {
        None => format!("session:{}", scope.session_id()),
        Some(frame) => format!("session:{}/frame:{frame}", scope.session_id()),
    };
    ProcessWakeDelivery {
        wake_id: wake_id(&scope_id, &wake.dedupe_key),
        target: scope.clone(),
        target_session_id: scope.session_id().to_owned(),
        target_scope_id: scope.id(),
        process_id: id(),
        sequence: event.sequence,
        event_type: "wake".into(),
        process_caused_by: Some(caused_by()),
        dedupe_key: wake.dedupe_key.clone(),
        input: wake.input.clone(),
        created_at_ms: EPOCH,
    }
}

fn home() -> SessionScope {
    SessionScope::session("home")
}

#[test]
fn each_selector_says_what_the_session_is_told() {
    let payload = json!({"text": "hi", "n": {"x": [1, null]}, "nothing": null});
    let template = json!({"template": {
        "template": "{t}/{n}/{unknown}",
        "fields": {"t": {"pointer": "/text"}, "n": {"pointer": "/n"}},
    }});
    let cases = [
        (json!("payload"), payload.to_string()),
        (json!({"pointer": "/text"}), "hi".to_owned()),
        (json!({"pointer": "/n"}), r#"{"x":[1,null]}"#.to_owned()),
        (json!({"pointer": "/nothing"}), "null".to_owned()),
        (json!({"const": "fixed"}), "fixed".to_owned()),
        (json!({"const": [1]}), "[1]".to_owned()),
        (template, r#"hi/{"x":[1,null]}/{unknown}"#.to_owned()),
        (json!({"present": "/nothing"}), "true".to_owned()),
        (json!({"present": "/nope"}), "false".to_owned()),
    ];
    for (input, told) in cases {
        let mut world = world_with(wake_type(None, input, json!("event_identity")));
        let decision = world.run(append(wake(payload.clone())));
        let event = wakes(1, payload.clone(), &told, "p:1");
        assert_eq!(decision, waking(inserts([event.clone()]), vec![delivery(&event, &home())]));
    }
}

#[test]
fn a_wake_holds_as_its_condition_says() {
    let cases = [
        (json!("payload"), json!({}), false),
        (json!("payload"), json!({"a": null}), true),
        (json!({"pointer": "/a"}), json!({"a": 0}), true),
        (json!({"pointer": "/a"}), json!({"a": ""}), false),
        (json!({"pointer": "/a"}), json!({"a": false}), false),
        (json!({"pointer": "/a"}), json!({"a": null}), false),
        (json!({"pointer": "/a"}), json!({}), false),
        (json!({"const": true}), json!({}), true),
        (json!({"const": []}), json!({}), false),
        (json!({"present": "/a"}), json!({"a": null}), true),
        (json!({"present": "/a"}), json!({}), false),
        (json!({"template": {"template": "", "fields": {}}}), json!({}), false),
        (json!({"template": {"template": "x", "fields": {}}}), json!({}), true),
        (json!({"template": {"template": "x", "fields": {"a": {"pointer": "/a"}}}}), json!({}), false),
    ];
    for (when, payload, holds) in cases {
        let mut world = world_with(wake_type(Some(when.clone()), json!({"const": "in"}), json!({"const": "k"})));
        let decision = world.run(append(wake(payload.clone())));
        let expected = if holds {
            let event = wakes(1, payload.clone(), "in", "k");
            waking(inserts([event.clone()]), vec![delivery(&event, &home())])
        } else {
            inserts([event(1, "wake", payload.clone())])
        };
        assert_eq!(decision, expected, "{when} over {payload}");
    }
}

#[test]
fn the_input_of_a_wake_that_does_not_hold_is_not_looked_for() {
    let declared = wake_type(
        Some(json!({"present": "/text"})),
        json!({"pointer": "/text"}),
        json!({"selector": {"pointer": "/id"}}),
    );
    let mut world = world_with(declared);
    assert_eq!(world.run(append(wake(json!({})))), inserts([event(1, "wake", json!({}))]));
}

#[test]
fn a_wake_that_holds_and_misses_its_input_is_refused() {
    let missed = |pointer: &str| Refusal::SelectorMissed {
        event_type: "wake".into(),
        reason: SelectorError::PointerMissed { pointer: pointer.into() },
    };
    let mut world = world_with(wake_type(None, json!({"pointer": "/text"}), json!("event_identity")));
    assert_eq!(world.refusal(append(wake(json!({})))), missed("/text"));
    let mut world = world_with(wake_type(None, json!("payload"), json!({"selector": {"pointer": "/id"}})));
    assert_eq!(world.refusal(append(wake(json!({})))), missed("/id"));
}

#[test]
fn dedupe_keys_say_which_wakes_are_one() {
    let cases = [
        (json!("event_identity"), ["p:1", "p:2", "p:3"]),
        (json!({"selector": {"pointer": "/id"}}), ["x", "y", "x"]),
        (json!({"const": "same"}), ["same", "same", "same"]),
    ];
    for (dedupe_key, keys) in cases {
        let mut world = world_with(wake_type(None, json!({"pointer": "/id"}), dedupe_key));
        let decision = world.run(append_all(["x", "y", "x"].map(|id| wake(json!({ "id": id })))));
        let events: Vec<_> = (1..)
            .zip(["x", "y", "x"].into_iter().zip(keys))
            .map(|(sequence, (id, key))| wakes(sequence, json!({ "id": id }), id, key))
            .collect();
        let deliveries = events.iter().map(|event| delivery(event, &home())).collect();
        assert_eq!(decision, waking(inserts(events), deliveries));
    }
}

#[test]
fn a_wake_id_is_that_of_target_and_key_and_of_nothing_else() {
    let declared = || wake_type(None, json!("payload"), json!({"const": "k"}));
    let mut one = world_with(declared());
    one.run(append(note(json!(1))));
    one.advance(7);
    let first = one.run(append(wake(json!("a")))).deliveries.remove(0);
    let mut registration = registration();
    registration.id = registry_actor::domain::ProcessId::new("q").expect("an id");
    registration.event_types.push(declared());
    registration.wake_target = Some(home());
    let mut state = registry_actor::domain::ProcessState::unregistered(registration.id.clone());
    let mut other_process = |command| {
        let decision = registry_actor::domain::decide(&state, &command, &one.context).expect("accepted");
        for event in &decision.events {
            state = registry_actor::domain::apply(state.clone(), event);
        }
        decision
    };
    other_process(register(registration));
    let second = other_process(append(wake(json!("b")))).deliveries.remove(0);
    assert_eq!(first.wake_id, second.wake_id, "whatever event and process");
    assert_eq!(first.wake_id, wake_id("session:home", "k"));
    let frame = SessionScope::frame("home", "f");
    let third = one.run(append(wake(json!("a")).with_wake_target_scope(frame))).deliveries.remove(0);
    assert_ne!(first.wake_id, third.wake_id, "another scope is another wake");
}

#[test]
fn the_target_of_the_request_goes_before_that_of_the_process() {
    let mut world = world_with(wake_type(None, json!("payload"), json!({"const": "k"})));
    let frame = SessionScope::frame("guest", "f");
    let decision = world.run(append(wake(json!(1)).with_wake_target_scope(frame.clone())));
    let event = wakes(1, json!(1), "1", "k");
    assert_eq!(decision, waking(inserts([event.clone()]), vec![delivery(&event, &frame)]));
}

#[test]
fn a_wake_without_a_target_is_stored_and_reaches_nobody() {
    let mut world = World::declaring([wake_type(None, json!("payload"), json!({"const": "k"}))]);
    assert_eq!(world.run(append(wake(json!(1)))), inserts([wakes(1, json!(1), "1", "k")]));
}

#[test]
fn a_replayed_wake_is_delivered_from_what_is_stored_to_the_target_that_is_named_now() {
    let mut world = world_with(wake_type(None, json!("payload"), json!("event_identity")));
    world.run(append(wake(json!(1)).with_replay_key(key("k"))));
    let stored = Arc::clone(&world.log[1]);
    world.advance(20);
    let again = world.run(append(wake(json!(1)).with_replay_key(key("k"))));
    assert_eq!(again, telling(replays(&stored), vec![delivery(&stored, &home())]));
    let guest = SessionScope::session("guest");
    let elsewhere = world.run(append(wake(json!(1)).with_replay_key(key("k")).with_wake_target_scope(guest.clone())));
    assert_eq!(elsewhere, telling(replays(&stored), vec![delivery(&stored, &guest)]));
}

#[test]
fn a_late_event_still_wakes() {
    let mut world = world_with(wake_type(None, json!("payload"), json!("event_identity")));
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    let decision = world.run(append(wake(json!(1))));
    let event = ProcessEvent { late: true, ..wakes(2, json!(1), "1", "p:2") };
    assert_eq!(decision, waking(inserts([event.clone()]), vec![delivery(&event, &home())]));
}

#[test]
fn an_event_that_ends_its_process_may_wake_as_well() {
    let mut declared = wake_type(None, json!("payload"), json!("event_identity"));
    declared.semantics.terminal = Some(registry_actor::domain::ProcessTerminalSpec {
        state: registry_actor::domain::ProcessTerminalState::Completed,
        await_output: None,
    });
    let mut world = world_with(declared);
    let decision = world.run(append(wake(json!("done")).with_replay_key(key("k"))));
    assert_eq!(decision.deliveries[0].input, "done");
    assert_eq!(decision.deliveries[0].sequence, Sequence(1));
    assert!(world.record().status.is_terminal());
}

#[test]
fn an_event_identity_is_the_default_dedupe_key() {
    let spec: ProcessWakeSpec = serde_json::from_value(json!({"input": "payload"})).expect("a wake spec");
    assert_eq!(spec.dedupe_key, ProcessWakeDedupeKey::EventIdentity);
    assert_eq!(spec.when, None);
}

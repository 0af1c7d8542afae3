//! Signals: how they are named, and that one signal is one event however often it is sent.

use std::sync::Arc;

use registry_actor::domain::{
    InvalidSignalName, Limits, ProcessEvent, ProcessEventType, ProcessId, ProcessSignal, Refusal, WaitKind, WaitState,
};
use serde_json::{Value, json};

use crate::world::*;

fn go() -> ProcessSignal {
    ProcessSignal::new("go").expect("a name")
}

#[test]
fn a_signal_is_named_by_letters_digits_dashes_and_underscores() {
    let longest = "x".repeat(Limits::NAME_BYTES - "signal.".len());
    for name in ["a", "Z-9_", longest.as_str()] {
        let signal = ProcessSignal::new(name).expect("a name");
        assert_eq!(signal.name(), name);
        assert_eq!(signal.event_type(), format!("signal.{name}"));
        assert_eq!(ProcessSignal::of_event_type(&signal.event_type()), Some(signal.clone()));
        assert_eq!(serde_json::from_value::<ProcessSignal>(json!(name)).expect("reads"), signal);
    }
    let too_long = format!("{longest}x");
    for name in ["", " ", "a b", "a.b", "a:b", "é", "a\n", too_long.as_str()] {
        let invalid = ProcessSignal::new(name).expect_err("no name");
        assert_eq!(invalid, InvalidSignalName { found: name.to_owned() });
        assert!(invalid.to_string().contains("process signal name must be non-empty"), "{invalid}");
        assert_eq!(ProcessSignal::of_event_type(&format!("signal.{name}")), None);
        assert!(serde_json::from_value::<ProcessSignal>(json!(name)).is_err());
    }
    assert_eq!(ProcessSignal::of_event_type("go"), None);
    assert_eq!(ProcessSignal::of_event_type("signals.go"), None);
}

#[test]
fn the_longest_signal_can_be_declared() {
    let signal = ProcessSignal::new("x".repeat(Limits::NAME_BYTES - "signal.".len())).expect("the longest name");
    let mut world = World::declaring([ProcessEventType::plain(signal.event_type())]);
    world.run(append(signal.request(&id(), "1", Value::Null)));
}

#[test]
fn one_signal_is_one_event_however_often_it_is_sent() {
    let mut world = World::declaring([ProcessEventType::plain("signal.go")]);
    let send = |signal_id: &str, payload: Value| append(go().request(&id(), signal_id, payload));
    let expected =
        ProcessEvent { replay_key: Some(key("process:p:signal.go:1")), ..event(1, "signal.go", json!({"n": 1})) };
    assert_eq!(world.run(send("1", json!({"n": 1}))), inserts([expected]));
    let stored = Arc::clone(&world.log[1]);
    assert_eq!(world.run(send("1", json!({"n": 1}))), replays(&stored));
    assert_eq!(
        world.refusal(send("1", json!({"n": 2}))),
        Refusal::ReplayConflict { replay_key: key("process:p:signal.go:1") }
    );
    assert_eq!(world.run(send("2", json!({"n": 1}))).events.len(), 1, "another id is another signal");
}

#[test]
fn a_signal_that_the_process_does_not_declare_is_refused() {
    let refusal = World::registered().refusal(append(go().request(&id(), "1", Value::Null)));
    assert_eq!(refusal, Refusal::UndeclaredEventType { process_id: id(), event_type: "signal.go".into() });
}

#[test]
fn a_wait_for_a_signal_names_its_key_and_its_ordinal() {
    let expected = WaitState {
        kind: WaitKind::Signal {
            name: "go".into(),
            event_type: "signal.go".into(),
            key: "process:p:signal.go:3".into(),
            ordinal: 3,
        },
        since_ms: 42,
    };
    assert_eq!(wait(3), expected);
    assert_eq!(go().wait_key(&id(), 3), "process:p:signal.go:3");
    let json = json!({"kind": {
        "kind": "signal", "name": "go", "event_type": "signal.go", "key": "process:p:signal.go:3", "ordinal": 3,
    }, "since_ms": 42});
    assert_eq!(serde_json::to_value(&expected).expect("has a JSON form"), json);
}

#[test]
fn a_signal_finds_room_for_its_key_whatever_the_length_of_the_process_id() {
    let long = ProcessId::new("x".repeat(512)).expect("the longest id");
    let other = ProcessId::new("y".repeat(512)).expect("the longest id");
    let key_of = |process_id| go().request(process_id, "1", Value::Null).replay_key;
    assert!(key_of(&long).is_some());
    assert_ne!(key_of(&long), key_of(&other));
}

//! Replay keys that the registry derives itself: a caller who could take one would keep the registry's own fact from ever
//! being written.

use registry_actor::domain::{
    CoreEventType, Digest, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessId, ProcessState,
    ProcessTerminalState, Refusal, apply, decide,
};
use serde_json::json;

use crate::world::*;

fn fact(core: CoreEventType) -> &'static str {
    core.name().trim_start_matches("process.")
}

fn reserved(text: &str) -> Refusal {
    Refusal::ReservedReplayKey { replay_key: key(text) }
}

#[test]
fn the_keys_of_internal_facts_are_nobody_elses() {
    let mut world = World::registered();
    for core in CoreEventType::INTERNAL {
        for text in [format!("process:p:{}", fact(core)), format!("process:p:{}:7", fact(core))] {
            let refusal = world.refusal(append(note(json!(1)).with_replay_key(key(&text))));
            assert_eq!(refusal, reserved(&text));
        }
    }
}

#[test]
fn the_key_of_an_outcome_is_for_events_of_its_own_type() {
    let outcomes = [ProcessAwaitOutput::success(json!(1)), ProcessAwaitOutput::cancelled("asked")];
    for state in ProcessTerminalState::ALL {
        let text = format!("process:p:terminal:{}", CoreEventType::of_terminal_state(state).name());
        let mut world = World::registered();
        assert_eq!(world.refusal(append(note(json!(1)).with_replay_key(key(&text)))), reserved(&text));
        for output in &outcomes {
            let own = CoreEventType::of_terminal_state(output.terminal_state());
            let request = ProcessEventAppendRequest::new(own.name(), output.to_event_payload());
            let decided = world.decide(&append(request.with_replay_key(key(&text))));
            if output.terminal_state() == state {
                assert_eq!(decided.expect("it is its own key").events.len(), 1);
            } else {
                assert_eq!(decided, Err(reserved(&text)));
            }
        }
    }
}

#[test]
fn the_keys_of_cancel_requests_are_for_cancel_requests() {
    let mut world = World::registered();
    for text in ["process:p:cancel_requested", "process:p:cancel_requested:00"] {
        assert_eq!(world.refusal(append(note(json!(1)).with_replay_key(key(text)))), reserved(text));
        let cancel = ProcessEventAppendRequest::new("process.cancel_requested", json!({"reason": text}));
        world.run(append(cancel.with_replay_key(key(text))));
    }
}

#[test]
fn keys_that_only_resemble_reserved_ones_are_free() {
    let mut world = World::registered();
    for text in [
        "process:q:first_started",
        "process:p:first_started_twice",
        "process:p:first",
        "process:p",
        "process:p:",
        "xprocess:p:first_started",
        "process:p:signal.go:first_started",
        "process:p:terminal:note",
        "first_started",
    ] {
        assert_eq!(world.run(append(note(json!(text)).with_replay_key(key(text)))).events.len(), 1, "{text}");
    }
}

/// An id near the length limit leaves no room for its key, which then names the id by its hash.
#[test]
fn the_keys_of_a_process_with_a_long_id_are_reserved_as_well() {
    let long = ProcessId::new("x".repeat(512)).expect("the longest id");
    let mut registration = registration();
    registration.id = long.clone();
    let context = World::empty().context;
    let mut state = ProcessState::unregistered(long.clone());
    for event in decide(&state, &register(registration), &context).expect("it is legal").events {
        state = apply(state, &event);
    }
    let start = decide(&state, &first_started(&owner("a"), registry_actor::domain::WriteAuthority::Unfenced), &context);
    let taken = start.expect("it is legal").events[0].replay_key.clone().expect("a first start has a key");
    assert_eq!(taken, key(&format!("process:{}:first_started", Digest::of_parts([long.as_str().as_bytes()]))));
    let refusal = decide(&state, &append(note(json!(1)).with_replay_key(taken.clone())), &context);
    assert_eq!(refusal, Err(Refusal::ReservedReplayKey { replay_key: taken }));
}

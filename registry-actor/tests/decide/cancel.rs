//! Cancel requests: cooperative, from anybody, at any time.

use std::sync::Arc;

use registry_actor::domain::{Command, CoreEventType, Digest, ProcessEvent, ProcessEventAppendRequest};
use serde_json::json;

use crate::world::*;

fn cancel(reason: Option<&str>) -> Command {
    Command::RequestCancel { reason: reason.map(str::to_owned) }
}

fn requested(sequence: u64, reason: Option<&str>) -> ProcessEvent {
    let payload = json!({ "reason": reason });
    let digest = Digest::of_parts([b"process.cancel_requested", payload.to_string().as_bytes()]);
    ProcessEvent {
        replay_key: Some(key(&format!("process:p:cancel_requested:{digest}"))),
        ..event(sequence, "process.cancel_requested", payload)
    }
}

#[test]
fn equal_reasons_are_one_request_and_others_are_others() {
    let mut world = World::registered();
    assert_eq!(world.run(cancel(Some("too slow"))), inserts([requested(1, Some("too slow"))]));
    let stored = Arc::clone(&world.log[1]);
    world.advance(10);
    world.context.epoch_ms = EPOCH;
    assert_eq!(world.run(cancel(Some("too slow"))), replays(&stored));
    assert_eq!(world.run(cancel(Some("too dear"))), inserts([requested(2, Some("too dear"))]));
    assert_eq!(world.run(cancel(None)), inserts([requested(3, None)]));
    assert_eq!(world.run(cancel(Some("null"))), inserts([requested(4, Some("null"))]), "a text is no absence");
    assert!(!world.record().status.is_terminal(), "a request ends nothing");
    world.reopen();
    assert_eq!(world.run(cancel(Some("too slow"))), replays(&stored));
}

#[test]
fn a_request_is_accepted_while_another_holds_the_lease() {
    let mut world = World::registered();
    world.claim(&owner("a"), 100);
    assert_eq!(world.run(cancel(None)), inserts([requested(1, None)]));
}

#[test]
fn a_request_to_an_ended_process_is_accepted_late() {
    let mut world = World::completed(json!(1));
    assert_eq!(world.run(cancel(None)), inserts([ProcessEvent { late: true, ..requested(2, None) }]));
}

#[test]
fn a_request_to_nobody_is_refused() {
    assert_eq!(World::empty().refusal(cancel(None)), unknown());
}

#[test]
fn a_request_that_is_appended_by_hand_is_the_same_request() {
    let mut world = World::registered();
    world.run(cancel(Some("r")));
    let stored = Arc::clone(&world.log[1]);
    assert_eq!(world.run(append(ProcessEventAppendRequest::cancel_requested(&id(), Some("r")))), replays(&stored));
    let own_key = ProcessEventAppendRequest::new(CoreEventType::CancelRequested.name(), json!({"reason": "r"}))
        .with_replay_key(key("mine"));
    assert_eq!(world.run(append(own_key)).events.len(), 1, "under a key of its own it is another");
}

#[test]
fn a_request_finds_room_for_its_key_whatever_the_length_of_the_id() {
    let long = registry_actor::domain::ProcessId::new("x".repeat(512)).expect("the longest id");
    let request = ProcessEventAppendRequest::cancel_requested(&long, Some("r"));
    assert!(request.replay_key.is_some());
    let other = registry_actor::domain::ProcessId::new("y".repeat(512)).expect("the longest id");
    assert_ne!(request.replay_key, ProcessEventAppendRequest::cancel_requested(&other, Some("r")).replay_key);
}

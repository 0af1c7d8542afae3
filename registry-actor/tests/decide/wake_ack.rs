//! Acknowledged wakes: once, and only of a wake that exists.

use std::sync::Arc;

use registry_actor::domain::{
    Decision, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessEventSemanticsSpec, ProcessEventType,
    ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, Refusal, Sequence, decide,
};
use serde_json::json;

use crate::world::*;

fn world() -> World {
    let wake = ProcessWakeSpec {
        when: Some(ProcessValueSelector::Payload),
        input: ProcessValueSelector::Payload,
        dedupe_key: ProcessWakeDedupeKey::EventIdentity,
    };
    World::declaring([ProcessEventType {
        semantics: ProcessEventSemanticsSpec { terminal: None, wake: Some(wake) },
        ..ProcessEventType::plain("wake")
    }])
}

fn wake() -> registry_actor::domain::Command {
    append(ProcessEventAppendRequest::new("wake", json!("up")))
}

fn acknowledged(sequence: u64, wake: u64) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key(&format!("process:p:wake_acknowledged:{wake}"))),
        ..event(sequence, "process.wake_acknowledged", json!({ "sequence": wake }))
    }
}

fn no_wake(sequence: u64) -> Refusal {
    Refusal::NoSuchWake { process_id: id(), sequence: Sequence(sequence) }
}

#[test]
fn an_acknowledgement_is_stored_once_and_touches_nothing_of_the_record() {
    let mut world = world();
    world.run(wake());
    let record = world.record().clone();
    world.advance(9);
    let expected = ProcessEvent { occurred_at_ms: EPOCH + 9, ..acknowledged(2, 1) };
    assert_eq!(expected.acknowledged_wake(), Some(Sequence(1)));
    assert_eq!(world.run(ack(1)), inserts([expected]));
    assert_eq!(world.record(), &record, "not even the time of the last change");
    let stored = Arc::clone(&world.log[2]);
    assert_eq!(world.run(ack(1)), replays(&stored));
    world.reopen();
    let stored = Arc::clone(&world.log[2]);
    assert_eq!(world.run(ack(1)), replays(&stored));
}

#[test]
fn each_wake_is_acknowledged_for_itself() {
    let mut world = world();
    world.run(wake());
    world.run(wake());
    assert_eq!(world.run(ack(2)), inserts([acknowledged(3, 2)]));
    assert_eq!(world.run(ack(1)), inserts([acknowledged(4, 1)]));
}

#[test]
fn what_woke_nobody_is_not_acknowledged() {
    let mut world = world();
    world.run(append(note(json!(1))));
    world.run(append(ProcessEventAppendRequest::new("wake", json!(false))));
    world.run(wake());
    world.run(ack(3));
    for sequence in [0, 1, 2, 4, 5, u64::MAX] {
        let refusal = world.refusal(ack(sequence));
        assert_eq!(refusal, no_wake(sequence), "{refusal}");
    }
}

/// The edge hands in the event that it looked up; that it looked up the right one is checked, not believed.
#[test]
fn another_event_than_the_named_one_proves_nothing() {
    let mut world = world();
    world.run(wake());
    world.run(append(note(json!(1))));
    let mut context = world.context.clone();
    context.wake = Some(Arc::clone(&world.log[1]));
    assert_eq!(decide(&world.state, &ack(2), &context), Err(no_wake(2)));
    assert!(decide(&world.state, &ack(1), &context).is_ok());
    context.wake = None;
    assert_eq!(decide(&world.state, &ack(1), &context), Err(no_wake(1)));
}

#[test]
fn a_wake_without_a_target_can_be_acknowledged_and_so_can_one_of_an_ended_process() {
    let mut world = world();
    assert_eq!(world.run(wake()).deliveries, []);
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    let expected = ProcessEvent { late: true, ..acknowledged(3, 1) };
    assert_eq!(world.run(ack(1)), inserts([expected]));
    assert!(world.log.iter().all(|event| event.sequence != Sequence(4)));
}

#[test]
fn an_acknowledgement_whose_key_was_not_looked_up_is_not_decided() {
    let mut world = world();
    world.run(wake());
    world.reopen();
    let unresolved = Refusal::ReplayUnresolved { replay_key: key("process:p:wake_acknowledged:1") };
    assert_eq!(decide(&world.state, &ack(1), &world.context), Err(unresolved));
    assert_ne!(world.decide(&ack(1)), Ok(Decision::default()));
}

#[test]
fn an_unregistered_process_woke_nobody() {
    assert_eq!(World::empty().refusal(ack(1)), unknown());
}

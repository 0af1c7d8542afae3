//! Replay keys: one event each, whatever is sent again.

use registry_actor::domain::{
    Decision, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessEventType, ReceiptEvent, Refusal,
    ReplayKey, Reply, SessionScope, decide,
};
use serde_json::json;
use std::sync::Arc;

use crate::world::*;

fn conflict(text: &str) -> Refusal {
    Refusal::ReplayConflict { replay_key: key(text) }
}

#[test]
fn an_equal_append_under_the_key_answers_the_stored_event() {
    let mut world = World::registered();
    world.run(append(note(json!({"a": 1, "b": 2})).with_replay_key(key("k"))));
    let stored = Arc::clone(&world.log[1]);
    world.advance(50);
    let again = append(note(json!({"b": 2, "a": 1})).with_replay_key(key("k")));
    assert_eq!(world.run(again.clone()), replays(&stored));
    assert_eq!(world.record().updated_at_ms, EPOCH, "a replay touches nothing");
    world.reopen();
    assert_eq!(world.run(again), replays(&stored), "after a restart the log answers");
}

#[test]
fn a_different_append_under_the_key_conflicts() {
    let mut world = World::declaring([ProcessEventType::plain("other")]);
    world.run(append(note(json!(1)).with_replay_key(key("k"))));
    let refusal = world.refusal(append(note(json!(2)).with_replay_key(key("k"))));
    assert_eq!(refusal, conflict("k"));
    assert_eq!(refusal.to_string(), "event replay key `k` conflicts with an existing event");
    let other_type = ProcessEventAppendRequest::new("other", json!(1)).with_replay_key(key("k"));
    assert_eq!(world.refusal(append(other_type)), conflict("k"), "keys are shared by all types of the process");
    let undeclared = ProcessEventAppendRequest::new("nope", json!(1)).with_replay_key(key("k"));
    assert_eq!(world.refusal(append(undeclared)), conflict("k"), "the key is looked at first");
    world.run(append(note(json!(2)).with_replay_key(key("k2"))));
}

#[test]
fn appends_without_a_key_are_never_one() {
    let mut world = World::registered();
    world.run(append(note(json!(1))));
    assert_eq!(world.run(append(note(json!(1)))), inserts([event(2, "note", json!(1))]));
}

#[test]
fn a_key_that_comes_twice_in_a_batch_is_one_event() {
    let mut world = World::registered();
    let keyed = note(json!(1)).with_replay_key(key("k"));
    let decision = world.run(append_all([keyed.clone(), note(json!(2)), keyed]));
    let first = Arc::new(ProcessEvent { replay_key: Some(key("k")), ..event(1, "note", json!(1)) });
    let second = Arc::new(event(2, "note", json!(2)));
    let expected = Decision {
        events: vec![Arc::clone(&first), Arc::clone(&second)],
        reply: Reply {
            events: vec![
                ReceiptEvent::Inserted(Arc::clone(&first)),
                ReceiptEvent::Inserted(second),
                ReceiptEvent::Replayed(first),
            ],
            ..Reply::default()
        },
        ..Decision::default()
    };
    assert_eq!(decision, expected);
}

#[test]
fn a_key_that_comes_twice_in_a_batch_with_other_contents_conflicts() {
    let mut world = World::registered();
    let keyed = |n| note(json!(n)).with_replay_key(key("k"));
    assert_eq!(world.refusal(append_all([keyed(1), keyed(2)])), conflict("k"));
    world.reopen();
    assert_eq!(world.refusal(append_all([keyed(1), keyed(2)])), conflict("k"), "nor after a restart");
}

#[test]
fn a_batch_may_mix_stored_and_new_events() {
    let mut world = World::registered();
    let keyed = |n: u64| note(json!(n)).with_replay_key(key(&format!("k{n}")));
    world.run(append(keyed(1)));
    let decision = world.run(append_all([keyed(1), keyed(2)]));
    let second = Arc::new(ProcessEvent { replay_key: Some(key("k2")), ..event(2, "note", json!(2)) });
    let expected = Decision {
        events: vec![Arc::clone(&second)],
        reply: Reply {
            events: vec![ReceiptEvent::Replayed(Arc::clone(&world.log[1])), ReceiptEvent::Inserted(second)],
            ..Reply::default()
        },
        ..Decision::default()
    };
    assert_eq!(decision, expected);
}

#[test]
fn a_replay_on_an_ended_process_is_answered_and_not_late() {
    let mut world = World::registered();
    world.run(append(note(json!(1)).with_replay_key(key("k"))));
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    let stored = Arc::clone(&world.log[1]);
    assert_eq!(world.run(append(note(json!(1)).with_replay_key(key("k")))), replays(&stored));
}

#[test]
fn a_keyed_terminal_event_replays_although_the_process_has_ended_by_it() {
    let mut world = World::registered();
    let payload = ProcessAwaitOutput::success(json!(1)).to_event_payload();
    let end = append(ProcessEventAppendRequest::new("process.completed", payload).with_replay_key(key("end")));
    world.run(end.clone());
    let stored = Arc::clone(&world.log[1]);
    assert_eq!(world.run(end), replays(&stored));
}

/// A decision over a key that nobody looked up would append a second event under it. The log would turn that down, but
/// the core must not depend on it.
#[test]
fn a_key_that_was_not_looked_up_is_never_taken_for_a_new_one() {
    let mut world = World::registered();
    world.run(append(note(json!(1)).with_replay_key(key("k"))));
    let command = append(note(json!(1)).with_replay_key(key("k")));
    let unresolved = |key: ReplayKey| Err(Refusal::ReplayUnresolved { replay_key: key });
    assert_eq!(
        decide(&world.state, &command, &world.context),
        unresolved(key("k")),
        "known, but the event is at the log"
    );
    world.reopen();
    assert_eq!(
        decide(&world.state, &command, &world.context),
        unresolved(key("k")),
        "nothing is known after a restart"
    );
    let end = complete(&ProcessAwaitOutput::success(json!(1)));
    let end_key = end.replay_keys(&id()).pop().expect("a completion has a key");
    assert_eq!(decide(&world.state, &end, &world.context), unresolved(end_key));
}

#[test]
fn a_replay_does_not_need_the_wake_target_of_the_first_append() {
    let mut world = World::registered();
    world.run(append(note(json!(1)).with_replay_key(key("k"))));
    let stored = Arc::clone(&world.log[1]);
    let again = note(json!(1)).with_replay_key(key("k")).with_wake_target_scope(SessionScope::session("s"));
    assert_eq!(world.run(append(again)), replays(&stored));
}

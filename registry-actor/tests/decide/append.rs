//! Appending events: one, many, late, and by what right.

use registry_actor::domain::{
    Command, CoreEventType, Decision, LeaseFence, PayloadSchema, ProcessAwaitOutput, ProcessEvent,
    ProcessEventAppendRequest, ProcessEventType, Refusal, WriteAuthority,
};
use serde_json::json;

use crate::world::*;

fn counted() -> ProcessEventType {
    ProcessEventType {
        payload_schema: PayloadSchema::object(json!({"n": {"type": "integer"}}), &["n"]),
        ..ProcessEventType::plain("counted")
    }
}

#[test]
fn an_append_stores_the_event_with_its_time_and_key() {
    let mut world = World::registered();
    world.advance(3);
    let decision = world.run(append(note(json!({"a": 1})).with_replay_key(key("k"))));
    let expected =
        ProcessEvent { replay_key: Some(key("k")), occurred_at_ms: EPOCH + 3, ..event(1, "note", json!({"a": 1})) };
    assert_eq!(decision, inserts([expected]));
    assert_eq!(world.record().updated_at_ms, EPOCH + 3);
    assert_eq!(world.record().created_at_ms, EPOCH);
    assert_eq!(world.state.body_sequence.0, 0, "an append of no meaning leaves the body of the record as it was");
}

#[test]
fn a_batch_is_appended_in_order() {
    let mut world = World::registered();
    let decision = world.run(append_all([note(json!("a")), note(json!("b")), note(json!("c"))]));
    assert_eq!(
        decision,
        inserts([event(1, "note", json!("a")), event(2, "note", json!("b")), event(3, "note", json!("c"))])
    );
    assert_eq!(world.run(append(note(json!("d")))), inserts([event(4, "note", json!("d"))]));
}

#[test]
fn an_empty_batch_does_nothing() {
    assert_eq!(World::registered().decide(&append_all([])), Ok(Decision::default()));
    assert_eq!(World::empty().refusal(append_all([])), unknown());
}

#[test]
fn a_batch_with_one_bad_event_is_refused_whole() {
    let mut world = World::registered();
    let refusal = world.refusal(append_all([note(json!(1)), ProcessEventAppendRequest::new("nope", json!(1))]));
    assert_eq!(refusal, Refusal::UndeclaredEventType { process_id: id(), event_type: "nope".into() });
}

#[test]
fn an_unregistered_process_is_unknown() {
    let refusal = World::empty().refusal(append(note(json!(1))));
    assert_eq!(refusal, unknown());
    assert_eq!(refusal.to_string(), "unknown process `p`");
}

#[test]
fn an_undeclared_type_is_refused() {
    let refusal = World::registered().refusal(append(ProcessEventAppendRequest::new("nope", json!(1))));
    assert_eq!(refusal, Refusal::UndeclaredEventType { process_id: id(), event_type: "nope".into() });
    assert_eq!(refusal.to_string(), "process `p` emitted undeclared event type `nope`");
}

#[test]
fn internal_types_are_appended_by_their_own_commands_only() {
    for core in CoreEventType::INTERNAL {
        let request = ProcessEventAppendRequest::new(core.name(), json!({})).with_replay_key(key("k"));
        assert_eq!(
            World::registered().refusal(append(request)),
            Refusal::ReservedEventType { event_type: core.name().into() }
        );
    }
}

#[test]
fn core_types_that_callers_may_append_need_no_declaration_of_theirs() {
    for core in [CoreEventType::Waiting, CoreEventType::Resumed] {
        let mut world = World::registered();
        let decision = world.run(append(ProcessEventAppendRequest::new(core.name(), json!({"x": 1}))));
        assert_eq!(decision, inserts([event(1, core.name(), json!({"x": 1}))]));
    }
}

#[test]
fn types_whose_repetition_would_harm_demand_a_replay_key() {
    for core in [
        CoreEventType::CancelRequested,
        CoreEventType::Completed,
        CoreEventType::Failed,
        CoreEventType::Cancelled,
        CoreEventType::Abandoned,
    ] {
        let refusal = World::registered().refusal(append(ProcessEventAppendRequest::new(core.name(), json!({}))));
        assert!(refusal.to_string().contains("requires a deterministic replay key"), "{refusal}");
        assert_eq!(refusal, Refusal::ReplayKeyRequired { event_type: core.name().into() });
    }
}

#[test]
fn a_payload_must_fit_the_declared_schema() {
    let mut world = World::declaring([counted()]);
    let request = |payload| append(ProcessEventAppendRequest::new("counted", payload));
    let refusal = world.refusal(request(json!({"n": "x"})));
    let Refusal::InvalidPayload { event_type, reason } = &refusal else { panic!("{refusal:?}") };
    assert_eq!(event_type, "counted");
    assert!(reason.starts_with("/n: "), "{reason}");
    assert!(refusal.to_string().starts_with("invalid `counted` payload: "), "{refusal}");
    assert_eq!(
        world.run(request(json!({"n": 1, "more": true}))),
        inserts([event(1, "counted", json!({"n": 1, "more": true}))])
    );
}

/// An event of a hundred and thirty levels was stored and could never be read again: the process was lost with it.
#[test]
fn a_payload_that_nests_too_deep_to_be_read_back_is_refused() {
    let nested = |levels: usize| (0..levels).fold(json!(0), |inner, _| json!({ "x": inner }));
    let mut world = World::registered();
    world.run(append(note(nested(96))));
    let refusal = world.refusal(append(note(nested(97))));
    let too_deep = |event_type: &str| Refusal::InvalidPayload {
        event_type: event_type.into(),
        reason: "nested deeper than 96 levels".into(),
    };
    assert_eq!(refusal, too_deep("note"));
    world.run(complete(&ProcessAwaitOutput::success(nested(94))));
    assert_eq!(
        World::registered().refusal(complete(&ProcessAwaitOutput::success(nested(95)))),
        too_deep("process.completed")
    );
}

#[test]
fn what_comes_after_the_end_is_accepted_and_marked_late() {
    let mut world = World::completed(json!(1));
    let ended = world.record().clone();
    world.advance(9);
    let decision = world.run(append_all([note(json!("a")), note(json!("b"))]));
    let late =
        |sequence, payload| ProcessEvent { late: true, occurred_at_ms: EPOCH + 9, ..event(sequence, "note", payload) };
    assert_eq!(decision, inserts([late(2, json!("a")), late(3, json!("b"))]));
    assert_eq!(world.record().terminal_at_ms, Some(EPOCH), "the time of the end is not put off");
    assert_eq!(world.record().updated_at_ms, EPOCH + 9);
    assert_eq!(world.record().status, ended.status);
}

#[test]
fn what_follows_the_end_in_the_same_batch_is_late_too() {
    let mut world = World::registered();
    let output = ProcessAwaitOutput::success(json!(1));
    let end = ProcessEventAppendRequest::new("process.completed", output.to_event_payload()).with_replay_key(key("e"));
    let decision = world.run(append_all([note(json!("before")), end, note(json!("after"))]));
    let late: Vec<_> = decision.events.iter().map(|event| event.late).collect();
    assert_eq!(late, [false, false, true]);
}

#[test]
fn updated_at_never_goes_back_with_the_clock() {
    let mut world = World::registered();
    world.context.epoch_ms = EPOCH - 500;
    let decision = world.run(append(note(json!(1))));
    assert_eq!(decision.events[0].occurred_at_ms, EPOCH - 500, "the event says what the clock said");
    assert_eq!(world.record().updated_at_ms, EPOCH);
}

#[test]
fn a_holder_appends_under_its_fence() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(world.run(append_as(&lease.fence(), note(json!(1)))), inserts([event(1, "note", json!(1))]));
}

#[test]
fn an_expired_lease_that_nobody_took_still_writes() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.advance(100_000);
    world.run(append_as(&lease.fence(), note(json!(1))));
}

#[test]
fn a_displaced_or_released_lease_writes_no_more() {
    let mut displaced = World::registered();
    let old = displaced.claim(&owner("a"), 100);
    displaced.advance(100);
    let new = displaced.claim(&owner("b"), 100);
    let refusal = displaced.refusal(append_as(&old.fence(), note(json!(1))));
    assert_eq!(refusal, lease_lost());
    assert_eq!(refusal.to_string(), "process lease for `p` is missing or expired");
    assert_eq!(
        displaced.refusal(Command::Append { events: Vec::new(), authority: WriteAuthority::Holder(old.fence()) }),
        lease_lost(),
        "an empty batch says nothing else"
    );
    displaced.run(append_as(&new.fence(), note(json!(1))));

    let mut released = World::registered();
    let lease = released.claim(&owner("a"), 100);
    released.run(release(&lease));
    assert_eq!(released.refusal(append_as(&lease.fence(), note(json!(1)))), lease_lost());
}

#[test]
fn a_fence_is_token_and_number() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    let other_number = LeaseFence { fencing_token: lease.fencing_token.next(), ..lease.fence() };
    assert_eq!(world.refusal(append_as(&other_number, note(json!(1)))), lease_lost());
    let other_token = LeaseFence { lease_token: token(99), ..lease.fence() };
    assert_eq!(world.refusal(append_as(&other_token, note(json!(1)))), lease_lost());
}

/// A displaced worker must learn that it is displaced, even where its event happens to be stored already.
#[test]
fn a_displaced_holder_is_refused_even_a_replay() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.run(append_as(&old.fence(), note(json!(1)).with_replay_key(key("k"))));
    world.advance(100);
    world.claim(&owner("b"), 100);
    assert_eq!(world.refusal(append_as(&old.fence(), note(json!(1)).with_replay_key(key("k")))), lease_lost());
}

#[test]
fn observers_append_plain_events_while_another_holds_the_lease() {
    let mut world = World::registered();
    world.claim(&owner("a"), 100);
    assert_eq!(world.run(append(note(json!(1)))), inserts([event(1, "note", json!(1))]));
}

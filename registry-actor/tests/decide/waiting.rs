//! Waits: set, cleared, by command or by an event that the runner appends itself, and over with the process.

use registry_actor::domain::{
    Command, Decision, LeaseFence, Limits, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, Refusal,
    WaitKind, WaitState, WriteAuthority,
};
use serde_json::{Value, json};

use crate::world::*;

fn json_of(wait: &WaitState) -> Value {
    serde_json::to_value(wait).expect("a wait has a JSON form")
}

fn was_set(sequence: u64, wait: &WaitState) -> ProcessEvent {
    event(sequence, "process.wait_set", json_of(wait))
}

fn was_cleared(sequence: u64) -> ProcessEvent {
    event(sequence, "process.wait_cleared", json!({}))
}

fn by_hand(event_type: &str, payload: Value) -> Command {
    append(ProcessEventAppendRequest::new(event_type, payload))
}

#[test]
fn a_wait_is_set_and_takes_the_place_of_the_one_before() {
    let mut world = World::registered();
    assert_eq!(world.run(set_wait(&wait(1))), inserts([was_set(1, &wait(1))]));
    assert_eq!(world.record().wait.as_deref(), Some(&wait(1)));
    assert!(!world.record().status.is_terminal(), "a wait is no status");
    assert_eq!(world.run(set_wait(&wait(2))), inserts([was_set(2, &wait(2))]));
    assert_eq!(world.record().wait.as_deref(), Some(&wait(2)));
    assert_eq!(world.state.body_sequence.0, 2);
}

#[test]
fn the_same_wait_again_changes_nothing() {
    let mut world = World::registered();
    world.run(set_wait(&wait(1)));
    world.advance(5);
    assert_eq!(world.run(set_wait(&wait(1))), Decision::default());
    world.reopen();
    assert_eq!(world.run(set_wait(&wait(1))), Decision::default());
    let later = WaitState { since_ms: 43, ..wait(1) };
    assert_eq!(world.run(set_wait(&later)).events.len(), 1, "another time is another wait");
}

#[test]
fn a_cleared_wait_may_be_set_again() {
    let mut world = World::registered();
    assert_eq!(world.run(clear_wait()), Decision::default(), "there is nothing to clear");
    world.run(set_wait(&wait(1)));
    assert_eq!(world.run(clear_wait()), inserts([was_cleared(2)]));
    assert_eq!(world.record().wait, None);
    assert_eq!(world.run(clear_wait()), Decision::default());
    assert_eq!(world.run(set_wait(&wait(1))), inserts([was_set(3, &wait(1))]), "by state, not by key");
}

#[test]
fn only_the_holder_of_the_fence_sets_and_clears_with_it() {
    let mut world = World::registered();
    let set = |fence: &LeaseFence| Command::SetWait { wait: wait(1), authority: WriteAuthority::Holder(fence.clone()) };
    let clear = |fence: &LeaseFence| Command::ClearWait { authority: WriteAuthority::Holder(fence.clone()) };
    let old = world.claim(&owner("a"), 100).fence();
    assert_eq!(world.run(set(&old)), inserts([was_set(1, &wait(1))]));
    world.advance(100);
    assert_eq!(world.run(clear(&old)).events.len(), 1, "delay does not end the right");
    let new = world.claim(&owner("b"), 100).fence();
    assert_eq!(world.refusal(set(&old)), lease_lost());
    assert_eq!(world.refusal(clear(&old)), lease_lost(), "although there is nothing to clear");
    world.run(set(&new));
    assert_eq!(world.refusal(set(&old)), lease_lost(), "although it would change nothing");
    assert_eq!(world.refusal(clear(&old)), lease_lost());
    assert_eq!(world.run(clear(&new)).events.len(), 1);
}

#[test]
fn an_unfenced_wait_passes_beside_a_lease() {
    let mut world = World::registered();
    world.claim(&owner("a"), 100);
    assert_eq!(world.run(set_wait(&wait(1))), inserts([was_set(1, &wait(1))]));
    assert_eq!(world.run(clear_wait()), inserts([was_cleared(2)]));
}

#[test]
fn an_ended_process_waits_for_nothing() {
    let output = ProcessAwaitOutput::success(json!(1));
    let mut world = World::registered();
    world.run(set_wait(&wait(1)));
    world.run(complete(&output));
    assert_eq!(world.record().wait, None, "the terminal event clears the wait");
    let refusal = world.refusal(set_wait(&wait(1)));
    assert_eq!(refusal, Refusal::WaitOfTerminal { process_id: id(), existing: Box::new(output) });
    assert!(refusal.to_string().contains("cannot enter a wait state"), "{refusal}");
    assert_eq!(world.run(clear_wait()), Decision::default(), "clearing is allowed, and finds nothing");
}

#[test]
fn a_displaced_holder_hears_of_its_loss_before_it_hears_of_the_end() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 0).fence();
    world.claim(&owner("b"), 100);
    world.context.unfenced_writes = registry_actor::domain::UnfencedWrites::Allowed;
    world.run(complete(&ProcessAwaitOutput::success(json!(1))));
    let command = Command::SetWait { wait: wait(1), authority: WriteAuthority::Holder(old) };
    assert_eq!(world.refusal(command), lease_lost());
}

#[test]
fn what_a_runner_appends_itself_sets_and_clears_the_wait() {
    let mut world = World::registered();
    let payload = json_of(&wait(1));
    assert_eq!(world.run(by_hand("process.waiting", payload.clone())), inserts([event(1, "process.waiting", payload)]));
    assert_eq!(world.record().wait.as_deref(), Some(&wait(1)));
    assert_eq!(world.state.body_sequence.0, 1);
    assert_eq!(world.run(set_wait(&wait(1))), Decision::default(), "the command sees it");
    assert_eq!(world.run(by_hand("process.resumed", json!(null))), inserts([event(2, "process.resumed", json!(null))]));
    assert_eq!(world.record().wait, None);
    assert_eq!(world.state.body_sequence.0, 2);
    world.run(set_wait(&wait(2)));
    world.run(by_hand("process.resumed", json!({"why": "go"})));
    assert_eq!(world.record().wait, None, "and it clears what a command set");
}

#[test]
fn the_payload_of_a_waiting_event_is_its_own_affair_unless_it_is_a_wait() {
    let mut world = World::registered();
    world.run(set_wait(&wait(1)));
    for payload in [json!(null), json!("soon"), json!({"kind": {"kind": "moon"}, "since_ms": 1}), json_of(&wait(1))] {
        world.run(by_hand("process.waiting", payload));
        assert_eq!(world.record().wait.as_deref(), Some(&wait(1)));
        assert_eq!(world.state.body_sequence.0, 1, "nothing of the body changes");
    }
}

#[test]
fn a_late_waiting_event_sets_nothing() {
    let mut world = World::completed(json!(1));
    world.run(by_hand("process.waiting", json_of(&wait(1))));
    world.run(by_hand("process.resumed", json!(null)));
    assert_eq!(world.record().wait, None);
    assert_eq!(world.state.body_sequence.0, 1);
}

#[test]
fn the_words_of_a_wait_are_bounded() {
    let of = |name: String, event_type: String, key: String| WaitState {
        kind: WaitKind::Signal { name, event_type, key, ordinal: 1 },
        since_ms: 1,
    };
    let text = |bytes: usize| "x".repeat(bytes);
    let mut world = World::registered();
    let name = Limits::NAME_BYTES;
    for (what, wait) in
        [("signal", of(text(name + 1), text(1), text(1))), ("event type", of(text(1), text(name + 1), text(1)))]
    {
        assert_eq!(world.refusal(set_wait(&wait)), too_large(what, name, name + 1));
    }
    for (what, wait) in
        [("signal", of(" ".into(), text(1), text(1))), ("event type", of(text(1), String::new(), text(1)))]
    {
        assert_eq!(world.refusal(set_wait(&wait)), Refusal::EmptyName { what: what.into() });
    }
    let around = json_of(&of(text(name), text(name), String::new())).to_string().len();
    let of_size = |bytes: usize| of(text(name), text(name), text(bytes - around));
    assert_eq!(
        world.refusal(set_wait(&of_size(Limits::PAYLOAD_BYTES + 1))),
        too_large("wait", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1)
    );
    world.run(set_wait(&of_size(Limits::PAYLOAD_BYTES)));
}

#[test]
fn an_unregistered_process_waits_for_nothing() {
    assert_eq!(World::empty().refusal(set_wait(&wait(1))), unknown());
    assert_eq!(World::empty().refusal(clear_wait()), unknown());
}

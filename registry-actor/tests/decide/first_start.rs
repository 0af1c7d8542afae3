//! The first start: recorded once, by whom it may be.

use registry_actor::domain::{
    Decision, ProcessAwaitOutput, ProcessEvent, ProcessStarted, Refusal, UnfencedWrites, WriteAuthority,
};
use serde_json::json;

use crate::world::*;

fn started(name: &str) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key("process:p:first_started")),
        ..event(1, "process.first_started", json!({"owner": owner(name), "started_at_ms": 77}))
    }
}

fn unfenced(name: &str) -> registry_actor::domain::Command {
    first_started(&owner(name), WriteAuthority::Unfenced)
}

#[test]
fn the_first_writer_wins() {
    let mut world = World::registered();
    assert_eq!(world.run(unfenced("a")), inserts([started("a")]));
    assert_eq!(world.record().first_started.as_deref(), Some(&ProcessStarted { owner: owner("a"), started_at_ms: 77 }));
    assert_eq!(world.state.body_sequence.0, 1);
    assert_eq!(world.run(unfenced("b")), Decision::default(), "a later one is told what stands");
    world.reopen();
    assert_eq!(world.run(unfenced("b")), Decision::default());
    assert_eq!(world.run(unfenced("a")), Decision::default());
}

#[test]
fn a_holder_records_its_start_and_a_displaced_one_does_not() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    world.context.epoch_ms = EPOCH;
    let new = world.claim(&owner("b"), 100);
    assert_eq!(world.refusal(first_started(&owner("a"), WriteAuthority::Holder(old.fence()))), lease_lost());
    assert_eq!(world.run(first_started(&owner("b"), WriteAuthority::Holder(new.fence()))), inserts([started("b")]));
    assert_eq!(
        world.refusal(first_started(&owner("a"), WriteAuthority::Holder(old.fence()))),
        lease_lost(),
        "a stale worker must not read a no-op as leave to go on"
    );
}

#[test]
fn an_expired_lease_that_nobody_took_still_records_a_start() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 0);
    assert_eq!(world.run(first_started(&owner("a"), WriteAuthority::Holder(lease.fence()))), inserts([started("a")]));
}

#[test]
fn an_unfenced_start_is_refused_while_the_lease_is_in_force() {
    let mut world = World::registered();
    let holder = world.claim(&owner("a"), 100);
    assert_eq!(world.refusal(unfenced("b")), lease_held(&holder));
    world.context.unfenced_writes = UnfencedWrites::Allowed;
    assert_eq!(world.run(unfenced("b")), inserts([started("b")]));
}

#[test]
fn an_ended_process_does_not_start() {
    let output = ProcessAwaitOutput::success(json!(1));
    let mut unstarted = World::completed(json!(1));
    assert_eq!(unstarted.refusal(unfenced("a")), already_terminal(&output));
    let mut started = World::registered();
    started.run(unfenced("a"));
    started.run(complete(&output));
    assert_eq!(started.refusal(unfenced("a")), already_terminal(&output), "the end is looked at first");
}

#[test]
fn an_unregistered_process_does_not_start() {
    assert_eq!(World::empty().refusal(unfenced("a")), unknown());
}

/// A caller could give this key to an event of its own. The decision then carried a second event under one key: every log
/// had to turn it down, each time, and the caller never learned why.
#[test]
fn nobody_takes_the_key_of_a_first_start_for_something_else() {
    let mut world = World::registered();
    let taken = "process:p:first_started";
    let refusal = world.refusal(append(note(json!(1)).with_replay_key(key(taken))));
    assert_eq!(refusal, Refusal::ReservedReplayKey { replay_key: key(taken) });
    assert_eq!(world.run(unfenced("a")), inserts([started("a")]));
}

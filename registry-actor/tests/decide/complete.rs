//! The outcome: written once, by whom it may be, and answered whenever it is written again.

use std::sync::Arc;

use registry_actor::domain::{
    AbandonEvidence, AbandonWriter, Decision, LeaseRelease, LeaseRow, MaterializedTerminal, ProcessAwaitOutput,
    ProcessEvent, ProcessEventAppendRequest, ProcessEventSemantics, ProcessEventSemanticsSpec, ProcessEventType,
    ProcessFailureClass, ProcessStatus, ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector, Refusal,
    TerminalAuthority, UnfencedWrites,
};
use serde_json::{Value, json};

use crate::world::*;

fn success() -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!({"answer": 42}))
}

fn outcomes() -> [ProcessAwaitOutput; 4] {
    [
        success(),
        ProcessAwaitOutput::failure(ProcessFailureClass::Timeout, "slow", "too slow"),
        ProcessAwaitOutput::cancelled("asked"),
        ProcessAwaitOutput::abandoned(AbandonEvidence {
            writer: AbandonWriter::Sweep,
            owner: Some(owner("dead")),
            epoch_ms: 3,
            detail: None,
        }),
    ]
}

fn completion(sequence: u64, output: &ProcessAwaitOutput, authority: TerminalAuthority) -> ProcessEvent {
    let name = match output {
        ProcessAwaitOutput::Success { .. } => "process.completed",
        ProcessAwaitOutput::Failure { .. } => "process.failed",
        ProcessAwaitOutput::Cancelled { .. } => "process.cancelled",
        ProcessAwaitOutput::Abandoned { .. } => "process.abandoned",
    };
    ProcessEvent {
        replay_key: Some(key(&format!("process:p:terminal:{name}"))),
        semantics: ProcessEventSemantics {
            terminal: Some(Box::new(MaterializedTerminal {
                state: output.terminal_state(),
                await_output: output.clone(),
                authority,
            })),
            wake: None,
        },
        ..event(sequence, name, json!({ "await_output": output }))
    }
}

fn by_holder(name: &str, fence: u64) -> TerminalAuthority {
    TerminalAuthority::Holder { owner: owner(name), fencing_token: registry_actor::domain::Fence(fence) }
}

#[test]
fn each_outcome_ends_the_process_in_its_state() {
    for output in outcomes() {
        let mut world = World::registered();
        assert_eq!(world.run(complete(&output)), inserts([completion(1, &output, TerminalAuthority::Unfenced)]));
        assert_eq!(*world.record().status, ProcessStatus::terminal(output.terminal_state(), output.clone()));
        assert_eq!(world.record().terminal_at_ms, Some(EPOCH));
    }
}

#[test]
fn the_same_outcome_again_is_answered_with_what_is_stored() {
    for output in outcomes() {
        let mut world = World::registered();
        world.run(complete(&output));
        let stored = Arc::clone(&world.log[1]);
        world.advance(9);
        assert_eq!(world.run(complete(&output)), replays(&stored));
        world.reopen();
        assert_eq!(world.run(complete(&output)), replays(&stored), "after a restart too");
        assert_eq!(world.record().updated_at_ms, EPOCH);
    }
}

/// An explicit null was read back as absent, so that the outcome that was stored was not the one that was written: the
/// worker that completed a second time, because the first answer was lost, was told that another outcome stood.
#[test]
fn the_same_outcome_again_is_answered_although_it_holds_explicit_nulls() {
    let evidence =
        AbandonEvidence { writer: AbandonWriter::Sweep, owner: None, epoch_ms: 1, detail: Some(Value::Null) };
    for output in [
        ProcessAwaitOutput::Success { value: Value::Null, control: Some(Value::Null) },
        ProcessAwaitOutput::Cancelled { message: String::new(), raw: Some(Value::Null), control: None },
        ProcessAwaitOutput::abandoned(evidence),
    ] {
        let mut world = World::registered();
        world.run(complete(&output));
        let stored = Arc::clone(&world.log[1]);
        assert_eq!(world.run(complete(&output)), replays(&stored));
        world.reopen();
        assert_eq!(world.run(complete(&output)), replays(&stored));
    }
}

/// Without the feature `float_roundtrip` serde_json may read a float back as its neighbour.
#[test]
fn the_same_outcome_again_is_answered_although_it_holds_floats() {
    for float in [0.1 + 0.2, 5e-324, 1.797_693_134_862_315_7e308, 2.225_073_858_507_201e-308, 31.245_270_191_439_438] {
        let output = ProcessAwaitOutput::success(json!(float));
        let mut world = World::registered();
        world.run(complete(&output));
        world.reopen();
        let stored = Arc::clone(&world.log[1]);
        assert_eq!(world.run(complete(&output)), replays(&stored), "{float:e}");
    }
}

#[test]
fn any_other_outcome_is_refused_with_the_one_that_stands() {
    for first in outcomes() {
        for second in outcomes() {
            let mut world = World::registered();
            world.run(complete(&first));
            if first != second {
                assert_eq!(world.refusal(complete(&second)), already_terminal(&first), "of another state");
            }
        }
    }
    let mut world = World::registered();
    world.run(complete(&success()));
    let other_value = ProcessAwaitOutput::success(json!("other"));
    assert_eq!(world.refusal(complete(&other_value)), already_terminal(&success()), "of the same state");
}

#[test]
fn a_process_that_ended_by_a_declared_type_tells_its_outcome() {
    let mut world = World::declaring([ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec {
                state: ProcessTerminalState::Completed,
                await_output: Some(ProcessValueSelector::Payload),
            }),
            wake: None,
        },
        ..ProcessEventType::plain("end")
    }]);
    world.run(append(ProcessEventAppendRequest::new("end", json!({"answer": 42})).with_replay_key(key("e"))));
    assert_eq!(
        world.refusal(complete(&success())),
        already_terminal(&success()),
        "equal, but not this command's event"
    );
    let other = ProcessAwaitOutput::cancelled("late");
    assert_eq!(world.refusal(complete(&other)), already_terminal(&success()));
}

#[test]
fn an_unregistered_process_has_no_outcome() {
    assert_eq!(World::empty().refusal(complete(&success())), unknown());
}

/// A note under this key would have kept the process from ever completing.
#[test]
fn nobody_takes_the_key_of_an_outcome_for_something_else() {
    let mut world = World::registered();
    let taken = "process:p:terminal:process.completed";
    let refusal = world.refusal(append(note(json!(1)).with_replay_key(key(taken))));
    assert_eq!(refusal, Refusal::ReservedReplayKey { replay_key: key(taken) });
    world.run(complete(&success()));
}

#[test]
fn an_unfenced_outcome_is_refused_while_the_lease_is_in_force() {
    let mut world = World::registered();
    let holder = world.claim(&owner("a"), 100);
    world.advance(99);
    assert_eq!(world.refusal(complete(&success())), lease_held(&holder));
    world.advance(1);
    world.context.epoch_ms = EPOCH;
    assert_eq!(
        world.run(complete(&success())),
        inserts([completion(1, &success(), TerminalAuthority::Unfenced)]),
        "a lapsed lease holds nobody up, and stays where it is"
    );
}

#[test]
fn an_unfenced_outcome_passes_where_the_registry_allows_it() {
    let mut world = World::registered();
    world.context.unfenced_writes = UnfencedWrites::Allowed;
    world.claim(&owner("a"), 100);
    assert_eq!(world.run(complete(&success())), inserts([completion(1, &success(), TerminalAuthority::Unfenced)]));
}

#[test]
fn a_holder_writes_the_outcome_and_keeps_its_lease() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(
        world.run(complete_as(&lease.fence(), &success(), LeaseRelease::Keep)),
        inserts([completion(1, &success(), by_holder("a", 1))])
    );
}

#[test]
fn a_holder_gives_its_lease_up_with_the_outcome() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    let released = LeaseRow { revision: 2, fence: lease.fencing_token, holder: None, displaced: None };
    let command = complete_as(&lease.fence(), &success(), LeaseRelease::Release);
    assert_eq!(
        world.run(command.clone()),
        Decision { lease: Some(released), ..inserts([completion(1, &success(), by_holder("a", 1))]) }
    );
    let stored = Arc::clone(&world.log[1]);
    assert_eq!(world.run(command), replays(&stored), "sent again it releases nothing, and is no error");
}

#[test]
fn a_holder_that_repeats_the_outcome_still_gives_its_lease_up() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.run(complete_as(&lease.fence(), &success(), LeaseRelease::Keep));
    let stored = Arc::clone(&world.log[1]);
    let released = LeaseRow { revision: 2, fence: lease.fencing_token, holder: None, displaced: None };
    assert_eq!(
        world.run(complete_as(&lease.fence(), &success(), LeaseRelease::Release)),
        Decision { lease: Some(released), ..replays(&stored) }
    );
}

#[test]
fn an_unfenced_outcome_never_releases_a_lease() {
    let mut world = World::registered();
    world.claim(&owner("a"), 0);
    let command = registry_actor::domain::Command::Complete {
        output: success(),
        authority: registry_actor::domain::WriteAuthority::Unfenced,
        lease: LeaseRelease::Release,
    };
    assert_eq!(world.run(command), inserts([completion(1, &success(), TerminalAuthority::Unfenced)]));
}

#[test]
fn delay_does_not_end_the_right_to_write_the_outcome() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.context.monotonic_ms += 100_000;
    assert_eq!(
        world.run(complete_as(&lease.fence(), &success(), LeaseRelease::Keep)),
        inserts([completion(1, &success(), by_holder("a", 1))])
    );
}

#[test]
fn displacement_does() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    let new = world.claim(&owner("b"), 100);
    assert_eq!(world.refusal(complete_as(&old.fence(), &success(), LeaseRelease::Release)), lease_lost());
    world.run(release(&new));
    assert_eq!(
        world.refusal(complete_as(&old.fence(), &success(), LeaseRelease::Release)),
        lease_lost(),
        "what is displaced does not come back when its successor goes"
    );
}

#[test]
fn a_displaced_holder_learns_the_outcome_that_its_successor_wrote() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    let new = world.claim(&owner("b"), 100);
    world.run(complete_as(&new.fence(), &success(), LeaseRelease::Keep));
    let row = world.row();
    let other = ProcessAwaitOutput::cancelled("mine");
    assert_eq!(world.refusal(complete_as(&old.fence(), &other, LeaseRelease::Release)), already_terminal(&success()));
    let stored = Arc::clone(&world.log[1]);
    assert_eq!(
        world.run(complete_as(&old.fence(), &success(), LeaseRelease::Release)),
        replays(&stored),
        "an equal one is answered, and the successor keeps its lease"
    );
    assert_eq!(world.row(), row);
}

/// An end before the beginning would be pruned by a cutoff that the process was never meant by.
#[test]
fn a_process_never_ends_before_it_began_even_if_the_clock_went_back() {
    let mut world = World::registered();
    world.advance(20);
    world.run(append(note(json!(1))));
    world.context.epoch_ms = EPOCH - 10;
    let decision = world.run(complete(&success()));
    assert_eq!(decision.events[0].occurred_at_ms, EPOCH - 10, "the event says when it was decided");
    assert_eq!(world.record().terminal_at_ms, Some(EPOCH + 20));
    assert_eq!(world.record().updated_at_ms, EPOCH + 20);
}

//! `apply` is total: it takes whatever a log holds, also what no decision of this version would have written.

use std::sync::Arc;

use registry_actor::domain::{
    MaterializedTerminal, ProcessAwaitOutput, ProcessEvent, ProcessEventSemantics, ProcessState, ProcessTerminalState,
    Sequence, TerminalAuthority, WriteAuthority, apply,
};
use serde_json::json;

use crate::world::*;

fn applied(world: &World, event: ProcessEvent) -> ProcessState {
    apply(world.state.clone(), &Arc::new(event))
}

fn terminal(sequence: u64, output: ProcessAwaitOutput) -> ProcessEvent {
    ProcessEvent {
        semantics: ProcessEventSemantics {
            terminal: Some(Box::new(MaterializedTerminal {
                state: ProcessTerminalState::Failed,
                await_output: output,
                authority: TerminalAuthority::Unfenced,
            })),
            wake: None,
        },
        occurred_at_ms: EPOCH + 50,
        ..event(sequence, "end", json!(null))
    }
}

#[test]
fn a_second_terminal_event_changes_neither_outcome_nor_time_of_the_end() {
    let world = World::completed(json!(1));
    let state = applied(&world, terminal(2, ProcessAwaitOutput::cancelled("second")));
    let record = state.record.expect("registered");
    assert_eq!(record.status, world.record().status);
    assert_eq!(record.terminal_at_ms, Some(EPOCH));
    assert_eq!(record.updated_at_ms, EPOCH + 50);
    assert_eq!((state.sequence, state.body_sequence), (Sequence(2), Sequence(1)));
}

#[test]
fn a_second_first_start_changes_nothing_but_the_time() {
    let mut world = World::registered();
    world.run(first_started(&owner("a"), WriteAuthority::Unfenced));
    let payload = json!({"owner": owner("b"), "started_at_ms": 99});
    let state = applied(&world, event(2, "process.first_started", payload));
    assert_eq!(state.record.as_deref(), Some(world.record()));
    assert_eq!((state.sequence, state.body_sequence), (Sequence(2), Sequence(1)));
}

#[test]
fn an_acknowledged_wake_moves_the_sequence_and_nothing_of_the_record() {
    let world = World::registered();
    let acknowledged = ProcessEvent {
        occurred_at_ms: EPOCH + 50,
        replay_key: Some(key("ack")),
        ..event(1, "process.wake_acknowledged", json!({"sequence": 1}))
    };
    let state = applied(&world, acknowledged);
    assert_eq!(state.record.as_deref(), Some(world.record()));
    assert_eq!((state.sequence, state.body_sequence), (Sequence(1), Sequence(0)));
    assert!(!state.replays.must_look_up(&key("ack")), "its key is taken all the same");
}

#[test]
fn an_internal_event_that_cannot_be_read_moves_the_sequence_and_nothing_else() {
    let unreadable = event(0, "process.registered", json!({"registration": 7}));
    let state = apply(World::empty().state, &Arc::new(unreadable));
    assert_eq!((state.record, state.sequence), (None, Sequence(0)));

    let world = World::registered();
    let state = applied(&world, event(1, "process.first_started", json!("nobody")));
    assert_eq!(state.record.as_deref(), Some(world.record()));
    assert_eq!((state.sequence, state.body_sequence), (Sequence(1), Sequence(0)));
}

/// The record follows the meaning that is stored with the event, not what its type would mean now.
#[test]
fn the_stored_meaning_counts_and_not_the_declared_one() {
    let world = World::registered();
    let ended = applied(&world, terminal(1, ProcessAwaitOutput::cancelled("by its semantics")));
    assert!(ended.record.expect("registered").status.is_terminal());
    let output = ProcessAwaitOutput::success(json!(1));
    let meaningless = applied(&world, event(1, "process.completed", output.to_event_payload()));
    assert!(!meaningless.record.expect("registered").status.is_terminal());
}

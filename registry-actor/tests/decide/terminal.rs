//! Terminal events of declared types, and terminal events that are appended by hand.

use registry_actor::domain::{
    AbandonEvidence, AbandonWriter, MaterializedTerminal, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest,
    ProcessEventSemantics, ProcessEventSemanticsSpec, ProcessEventType, ProcessFailureClass, ProcessStatus,
    ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector, Refusal, SelectorError, TerminalAuthority,
    UnfencedWrites,
};
use serde_json::{Value, json};

use crate::world::*;

fn ending(state: ProcessTerminalState, selector: Option<ProcessValueSelector>) -> ProcessEventType {
    ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: Some(ProcessTerminalSpec { state, await_output: selector }),
            wake: None,
        },
        ..ProcessEventType::plain("end")
    }
}

fn end(payload: Value) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("end", payload).with_replay_key(key("end"))
}

fn core(event_type: &str, payload: Value) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new(event_type, payload).with_replay_key(key("end"))
}

fn terminal(
    request: &ProcessEventAppendRequest,
    state: ProcessTerminalState,
    output: ProcessAwaitOutput,
) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key("end")),
        semantics: ProcessEventSemantics {
            terminal: Some(Box::new(MaterializedTerminal {
                state,
                await_output: output,
                authority: TerminalAuthority::Unfenced,
            })),
            wake: None,
        },
        ..event(1, &request.event_type, request.payload.clone())
    }
}

fn pointer(text: &str) -> ProcessValueSelector {
    ProcessValueSelector::Pointer(text.to_owned())
}

#[test]
fn the_selected_value_is_wrapped_as_the_declared_state_says() {
    let failure = |message: &str, raw| ProcessAwaitOutput::Failure {
        class: ProcessFailureClass::Execution,
        code: "process_failed".to_owned(),
        message: message.to_owned(),
        raw: Some(raw),
        control: None,
    };
    let abandoned = |value: Value| {
        ProcessAwaitOutput::abandoned(AbandonEvidence {
            writer: AbandonWriter::OwnerDrain,
            owner: None,
            epoch_ms: 0,
            detail: Some(json!({ "selected": value })),
        })
    };
    let cases = [
        (ProcessTerminalState::Completed, None, json!({"a": 1}), ProcessAwaitOutput::success(json!({"a": 1}))),
        (ProcessTerminalState::Completed, Some(pointer("/a")), json!({"a": 1}), ProcessAwaitOutput::success(json!(1))),
        (ProcessTerminalState::Failed, Some(pointer("/e")), json!({"e": "broke"}), failure("broke", json!("broke"))),
        (ProcessTerminalState::Failed, Some(ProcessValueSelector::Payload), json!([1]), failure("[1]", json!([1]))),
        (ProcessTerminalState::Failed, Some(ProcessValueSelector::Payload), json!(null), failure("null", json!(null))),
        (
            ProcessTerminalState::Cancelled,
            Some(pointer("/why")),
            json!({"why": "asked"}),
            ProcessAwaitOutput::Cancelled { message: "asked".to_owned(), raw: Some(json!("asked")), control: None },
        ),
        (ProcessTerminalState::Abandoned, Some(ProcessValueSelector::Payload), json!("gone"), abandoned(json!("gone"))),
    ];
    for (state, selector, payload, output) in cases {
        let mut world = World::declaring([ending(state, selector)]);
        world.advance(1);
        let decision = world.run(append(end(payload.clone())));
        let expected = ProcessEvent { occurred_at_ms: EPOCH + 1, ..terminal(&end(payload), state, output.clone()) };
        assert_eq!(decision, inserts([expected]));
        assert_eq!(*world.record().status, ProcessStatus::terminal(state, output));
        assert_eq!(world.record().terminal_at_ms, Some(EPOCH + 1));
        assert_eq!(world.state.body_sequence.0, 1);
    }
}

/// With the peer a user's value that looked like an outcome became the outcome.
#[test]
fn a_value_that_looks_like_an_outcome_stays_a_value() {
    let mut world = World::declaring([ending(ProcessTerminalState::Completed, None)]);
    let value = json!({"type": "failure", "class": "internal", "code": "c", "message": "m"});
    world.run(append(end(value.clone())));
    assert_eq!(world.record().status.await_output(), Some(&ProcessAwaitOutput::success(value)));
}

#[test]
fn a_selector_that_misses_leaves_the_process_running() {
    let mut world = World::declaring([ending(ProcessTerminalState::Completed, Some(pointer("/a")))]);
    let refusal = world.refusal(append(end(json!({}))));
    assert!(refusal.to_string().contains("payload pointer `/a` did not match"), "{refusal}");
    assert_eq!(
        refusal,
        Refusal::SelectorMissed {
            event_type: "end".into(),
            reason: SelectorError::PointerMissed { pointer: "/a".into() },
        }
    );
}

#[test]
fn a_declared_terminal_type_demands_a_replay_key() {
    let mut world = World::declaring([ending(ProcessTerminalState::Completed, None)]);
    assert_eq!(
        world.refusal(append(ProcessEventAppendRequest::new("end", json!(1)))),
        Refusal::ReplayKeyRequired { event_type: "end".into() }
    );
}

#[test]
fn a_core_terminal_event_carries_an_outcome_of_its_state() {
    let output = ProcessAwaitOutput::cancelled("asked");
    let request = core("process.cancelled", output.to_event_payload());
    let mut world = World::registered();
    assert_eq!(
        world.run(append(request.clone())),
        inserts([terminal(&request, ProcessTerminalState::Cancelled, output.clone())])
    );
    assert_eq!(world.record().status.await_output(), Some(&output));
}

#[test]
fn a_core_terminal_event_with_an_outcome_of_another_state_is_refused() {
    let payload = ProcessAwaitOutput::cancelled("asked").to_event_payload();
    assert_eq!(
        World::registered().refusal(append(core("process.completed", payload))),
        Refusal::OutcomeContradictsType {
            event_type: "process.completed".into(),
            declared: ProcessTerminalState::Completed,
            found: ProcessTerminalState::Cancelled,
        }
    );
}

#[test]
fn a_core_terminal_event_without_an_outcome_is_refused() {
    let refusal = World::registered().refusal(append(core("process.completed", json!({"await_output": 1}))));
    let Refusal::InvalidPayload { event_type, reason } = refusal else { panic!("{refusal:?}") };
    assert_eq!(event_type, "process.completed");
    assert!(reason.starts_with("await_output is no outcome: "), "{reason}");
    assert_eq!(
        World::registered().refusal(append(core("process.completed", json!({})))),
        Refusal::SelectorMissed {
            event_type: "process.completed".into(),
            reason: SelectorError::PointerMissed { pointer: "/await_output".into() },
        }
    );
}

#[test]
fn a_second_terminal_event_is_refused_with_the_outcome_that_stands() {
    let first = ProcessAwaitOutput::success(json!(1));
    let mut world = World::declaring([ending(ProcessTerminalState::Failed, Some(ProcessValueSelector::Payload))]);
    world.run(complete(&first));
    let refusal = world.refusal(append(end(json!("broke"))));
    assert!(refusal.to_string().contains("is already terminal"), "{refusal}");
    assert_eq!(refusal, already_terminal(&first));
    let again = core("process.completed", first.to_event_payload());
    assert_eq!(world.refusal(append(again)), already_terminal(&first), "under another key it is another event");
}

#[test]
fn two_terminal_events_in_one_batch_are_refused() {
    let mut world = World::declaring([ending(ProcessTerminalState::Completed, None)]);
    let other = ProcessEventAppendRequest::new("end", json!(2)).with_replay_key(key("other"));
    assert_eq!(
        world.refusal(append_all([end(json!(1)), other])),
        already_terminal(&ProcessAwaitOutput::success(json!(1)))
    );
}

#[test]
fn an_unfenced_terminal_event_is_refused_while_the_lease_is_in_force() {
    let mut world = World::declaring([ending(ProcessTerminalState::Completed, None)]);
    let holder = world.claim(&owner("a"), 100);
    let refusal = world.refusal(append(end(json!(1))));
    assert_eq!(refusal, lease_held(&holder));
    assert_eq!(refusal.to_string(), "process `p` is leased to `a` until 1000100 ms: an unfenced write is refused");
    world.context.unfenced_writes = UnfencedWrites::Allowed;
    let output = ProcessAwaitOutput::success(json!(1));
    assert_eq!(
        world.run(append(end(json!(1)))),
        inserts([terminal(&end(json!(1)), ProcessTerminalState::Completed, output)]),
        "under the policy it passes, and is recorded as unfenced"
    );
}

#[test]
fn a_holder_ends_its_process_by_a_declared_type() {
    let mut world = World::declaring([ending(ProcessTerminalState::Completed, None)]);
    let lease = world.claim(&owner("a"), 100);
    let mut expected = terminal(&end(json!(1)), ProcessTerminalState::Completed, ProcessAwaitOutput::success(json!(1)));
    expected.semantics.terminal.as_mut().expect("terminal").authority =
        TerminalAuthority::Holder { owner: owner("a"), fencing_token: lease.fencing_token };
    assert_eq!(world.run(append_as(&lease.fence(), end(json!(1)))), inserts([expected]));
}

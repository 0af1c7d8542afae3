//! External references: set once, by anybody, at any time.

use registry_actor::domain::{Decision, Limits, ProcessAwaitOutput, ProcessEvent, ProcessExternalRef, Refusal};
use serde_json::{Value, json};

use crate::world::*;

fn set(sequence: u64, external_ref: &ProcessExternalRef) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key("process:p:external_ref_set")),
        ..event(sequence, "process.external_ref_set", serde_json::to_value(external_ref).expect("has a JSON form"))
    }
}

#[test]
fn the_first_reference_stays() {
    let mut world = World::registered();
    world.advance(3);
    let first = ProcessExternalRef { metadata: Some(json!({"url": "u"})), ..external_ref("7") };
    let expected = ProcessEvent { occurred_at_ms: EPOCH + 3, ..set(1, &first) };
    assert_eq!(world.run(set_external_ref(&first)), inserts([expected]));
    assert_eq!(world.record().external_ref.as_deref(), Some(&first));
    assert_eq!((world.record().updated_at_ms, world.state.body_sequence.0), (EPOCH + 3, 1));
    let record = world.record().clone();
    world.advance(3);
    assert_eq!(world.run(set_external_ref(&first)), Decision::default(), "an equal one changes nothing");
    world.reopen();
    assert_eq!(world.run(set_external_ref(&first)), Decision::default());
    assert_eq!(world.record(), &record);
}

#[test]
fn another_reference_conflicts_even_if_only_its_metadata_differ() {
    let mut world = World::registered();
    let first = external_ref("7");
    world.run(set_external_ref(&first));
    for other in [
        external_ref("8"),
        ProcessExternalRef { backend: "other".into(), ..first.clone() },
        ProcessExternalRef { metadata: Some(Value::Null), ..first.clone() },
    ] {
        let refusal = world.refusal(set_external_ref(&other));
        assert_eq!(refusal, Refusal::ExternalRefConflict { process_id: id(), stored: Box::new(first.clone()) });
        assert!(refusal.to_string().contains("external ref conflict"), "{refusal}");
    }
}

#[test]
fn an_ended_process_takes_a_reference_as_a_late_event() {
    let mut world = World::completed(json!(1));
    let expected = ProcessEvent { late: true, ..set(2, &external_ref("7")) };
    assert_eq!(world.run(set_external_ref(&external_ref("7"))), inserts([expected]));
    assert_eq!(world.record().external_ref.as_deref(), Some(&external_ref("7")));
    assert_eq!(world.record().status.await_output(), Some(&ProcessAwaitOutput::success(json!(1))));
}

#[test]
fn a_lease_of_another_does_not_keep_a_reference_out() {
    let mut world = World::registered();
    world.claim(&owner("a"), 100);
    assert_eq!(world.run(set_external_ref(&external_ref("7"))), inserts([set(1, &external_ref("7"))]));
}

#[test]
fn a_reference_names_something_that_a_store_takes() {
    let mut world = World::registered();
    let named = |backend: &str, id: &str| {
        set_external_ref(&ProcessExternalRef { backend: backend.into(), id: id.into(), metadata: None })
    };
    let what = ["backend of an external ref", "id of an external ref"];
    assert_eq!(world.refusal(named(" ", "7")), Refusal::EmptyName { what: what[0].into() });
    assert_eq!(world.refusal(named("ci", "")), Refusal::EmptyName { what: what[1].into() });
    let control = |what: &str| Refusal::ControlCharacter { what: what.into(), found: '\n' };
    assert_eq!(world.refusal(named("c\ni", "7")), control(what[0]));
    assert_eq!(world.refusal(named("ci", "7\n")), control(what[1]));
    for (what, command) in [
        (what[0], named(&"x".repeat(Limits::NAME_BYTES + 1), "7")),
        (what[1], named("ci", &"x".repeat(Limits::NAME_BYTES + 1))),
    ] {
        assert_eq!(world.refusal(command), too_large(what, Limits::NAME_BYTES, Limits::NAME_BYTES + 1));
    }
    let longest = "x".repeat(Limits::NAME_BYTES);
    world.run(named(&longest, &longest));
}

#[test]
fn the_metadata_of_a_reference_are_bounded() {
    let nested = |levels: usize| (0..levels).fold(json!(0), |inner, _| json!([inner]));
    let with = |metadata| ProcessExternalRef { metadata: Some(metadata), ..external_ref("7") };
    let mut world = World::registered();
    assert_eq!(
        world.refusal(set_external_ref(&with(nested(Limits::JSON_LEVELS + 1)))),
        Refusal::TooDeep {
            what: "metadata of an external ref".into(),
            reason: format!("nested deeper than {} levels", Limits::JSON_LEVELS)
        }
    );
    let around = serde_json::to_string(&with(json!(""))).expect("has a JSON form").len();
    let of_size = |bytes: usize| with(json!("x".repeat(bytes - around)));
    assert_eq!(
        world.refusal(set_external_ref(&of_size(Limits::PAYLOAD_BYTES + 1))),
        too_large("external ref", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1)
    );
    world.clone().run(set_external_ref(&of_size(Limits::PAYLOAD_BYTES)));
    world.run(set_external_ref(&with(nested(Limits::JSON_LEVELS))));
}

#[test]
fn an_unregistered_process_has_no_reference() {
    assert_eq!(World::empty().refusal(set_external_ref(&external_ref("7"))), unknown());
}

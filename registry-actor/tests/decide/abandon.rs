//! Abandon requests: the first one stays, and an ended process takes none.

use registry_actor::domain::{AbandonRequest, Decision, Limits, ProcessAwaitOutput, ProcessEvent, Refusal};
use serde_json::json;

use crate::world::*;

fn requested(request: &AbandonRequest) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key("process:p:abandon_requested")),
        ..event(1, "process.abandon_requested", serde_json::to_value(request).expect("has a JSON form"))
    }
}

#[test]
fn the_first_request_stays() {
    let mut world = World::registered();
    let first = AbandonRequest { reason: Some("stuck".into()), ..abandon_request("a") };
    assert_eq!(world.run(request_abandon(&first)), inserts([requested(&first)]));
    assert_eq!(world.record().abandon_request.as_deref(), Some(&first));
    assert!(!world.record().status.is_terminal(), "it ends nothing by itself");
    world.advance(3);
    assert_eq!(world.run(request_abandon(&abandon_request("b"))), Decision::default());
    world.reopen();
    assert_eq!(world.run(request_abandon(&abandon_request("b"))), Decision::default());
    assert_eq!(world.record().abandon_request.as_deref(), Some(&first));
    assert_eq!(world.record().updated_at_ms, EPOCH, "nor does a later one touch the process");
}

#[test]
fn a_lease_in_force_does_not_keep_a_request_out() {
    let mut world = World::registered();
    world.claim(&owner("a"), 100);
    assert_eq!(world.run(request_abandon(&abandon_request("b"))), inserts([requested(&abandon_request("b"))]));
}

#[test]
fn an_ended_process_takes_no_request_even_if_it_has_one() {
    let existing = || Box::new(ProcessAwaitOutput::success(json!(1)));
    let refused = Refusal::AbandonOfTerminal { process_id: id(), existing: existing() };
    assert!(refused.to_string().contains("cannot accept an abandon request"), "{refused}");
    let mut without = World::completed(json!(1));
    assert_eq!(without.refusal(request_abandon(&abandon_request("a"))), refused);
    let mut with = World::registered();
    with.run(request_abandon(&abandon_request("a")));
    with.run(complete(&existing()));
    assert_eq!(with.refusal(request_abandon(&abandon_request("a"))), refused, "the end is looked at first");
    assert!(with.record().abandon_request.is_some(), "and what was asked is kept");
}

#[test]
fn a_request_says_who_asks_in_bounds() {
    let mut world = World::registered();
    let what = "requester of an abandonment";
    assert_eq!(world.refusal(request_abandon(&abandon_request(" "))), Refusal::EmptyName { what: what.into() });
    assert_eq!(
        world.refusal(request_abandon(&abandon_request("a\u{7f}"))),
        Refusal::ControlCharacter { what: what.into(), found: '\u{7f}' }
    );
    let name = |bytes: usize| abandon_request(&"x".repeat(bytes));
    assert_eq!(
        world.refusal(request_abandon(&name(Limits::NAME_BYTES + 1))),
        too_large(what, Limits::NAME_BYTES, Limits::NAME_BYTES + 1)
    );
    world.clone().run(request_abandon(&name(Limits::NAME_BYTES)));
    let empty = AbandonRequest { reason: Some(String::new()), ..abandon_request("a") };
    let around = serde_json::to_string(&empty).expect("has a JSON form").len();
    let of_size = |bytes: usize| AbandonRequest { reason: Some("x".repeat(bytes - around)), ..abandon_request("a") };
    assert_eq!(
        world.refusal(request_abandon(&of_size(Limits::PAYLOAD_BYTES + 1))),
        too_large("abandon request", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1)
    );
    world.run(request_abandon(&of_size(Limits::PAYLOAD_BYTES)));
}

#[test]
fn an_unregistered_process_is_not_abandoned() {
    assert_eq!(World::empty().refusal(request_abandon(&abandon_request("a"))), unknown());
}

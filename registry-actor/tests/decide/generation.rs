//! Generations: a pruned id lives again, as another process.

use std::sync::Arc;

use registry_actor::domain::{Decision, ProcessState, apply, decide};
use serde_json::json;

use crate::world::*;

/// The state of an id of which so many lives were pruned.
fn pruned(generations: u32) -> World {
    let mut world = World::empty();
    world.state.pruned_generations = generations;
    world
}

#[test]
fn the_first_life_says_nothing_of_generations() {
    let mut world = World::empty();
    let decision = world.run(register(registration()));
    assert_eq!(decision.events[0].payload.get("generation"), None);
    assert_eq!(world.record().generation, 1);
    let record = serde_json::to_value(world.record()).expect("has a JSON form");
    assert_eq!(record.get("generation"), None);
}

#[test]
fn a_later_life_is_numbered_and_begins_anew() {
    let mut world = pruned(2);
    world.context.epoch_ms = 77;
    let decision = world.run(register(registration()));
    assert_eq!((decision.events.len(), decision.events[0].sequence.0), (1, 0));
    assert_eq!(decision.events[0].payload["generation"], json!(3));
    assert_eq!((world.record().generation, world.record().created_at_ms), (3, 77));
    assert_eq!(
        world.run(append(note(json!(1)))),
        inserts([{
            let mut first = event(1, "note", json!(1));
            first.occurred_at_ms = 77;
            first
        }])
    );
}

/// The hash does not cover the generation: a host that registers again asks for the same process.
#[test]
fn the_same_registration_in_a_later_life_is_the_same_process() {
    let mut world = pruned(1);
    world.run(register(registration()));
    assert_eq!(world.decide(&register(registration())), Ok(Decision::default()));
    assert_eq!(world.record().registration_hash, World::registered().record().registration_hash);
}

#[test]
fn the_count_of_lives_saturates() {
    let mut world = pruned(u32::MAX);
    world.run(register(registration()));
    assert_eq!(world.record().generation, u32::MAX);
}

/// Tags tell processes apart, and those that a record has are those of its registration.
#[test]
fn tags_are_part_of_the_registration() {
    let tagged = || registration().with_tags(["nightly", "ci"]);
    let mut world = World::of(tagged());
    assert!(world.record().registration.tags.iter().eq(["ci", "nightly"]), "each once, sorted");
    assert_eq!(world.decide(&register(tagged().with_tags(["ci"]))), Ok(Decision::default()));
    for other in [registration(), tagged().with_tags(["more"])] {
        assert!(matches!(world.refusal(register(other)), registry_actor::domain::Refusal::RegistrationConflict { .. }));
    }
}

/// What a registration without tags hashed to before there were tags it hashes to now.
#[test]
fn a_registration_without_tags_is_written_without_them() {
    let text = serde_json::to_value(registration()).expect("has a JSON form");
    assert_eq!(text.get("tags"), None);
}

#[test]
fn an_event_of_a_registration_without_generation_is_of_the_first() {
    let mut world = World::empty();
    let mut event = world.decide(&register(registration())).expect("legal").events.remove(0).as_ref().clone();
    event.payload.as_object_mut().expect("an object").remove("generation");
    let state = apply(ProcessState::unregistered(id()), &Arc::new(event));
    assert_eq!(state.record.expect("registered").generation, 1);
    assert!(decide(&world.state, &register(registration()), &world.context).is_ok());
}

//! Cases of the sink.

use std::collections::BTreeSet;

use registry_actor::domain::{ProcessEventAppendRequest, ProcessEventType, ReplayKey, Sequence};
use registry_actor::port::ProcessRegistryExt;
use serde_json::json;

use super::recording_sink::RecordingSink;
use super::scene::{Scene, sequences, success};
use crate::example_process::{note, process_id, registration};

/// One after the other, as they were appended, several in one command too.
pub async fn sink_receives_appended_events_in_order(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = process_id("p");
    let types = ["a", "b", "c", "d"];
    let spec = registration(&id).with_extra_event_types(types.map(ProcessEventType::plain));
    watched.registry.register_process(spec).await.expect("a registration");
    let of_type = |name: &str| ProcessEventAppendRequest::new(name, json!(null));
    watched.registry.append_event(&id, of_type("a")).await.expect("an append");
    watched.registry.append_event(&id, of_type("b")).await.expect("an append");
    watched.registry.append_events(&id, vec![of_type("c"), of_type("d")]).await.expect("an append");
    let told = scene.all_emitted(&watched, &sink).await;
    let told: Vec<_> = told.iter().map(|event| (&*event.event_type, event.sequence.0)).collect();
    assert_eq!(told, [("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
}

/// Watching without a sink is no other registry.
pub async fn sink_absent_leaves_appends_unchanged(scene: &Scene) {
    let watched = scene.watch();
    let id = watched.registered("p").await;
    let receipt = watched.registry.append_event(&id, note(1)).await.expect("an append");
    assert_eq!(receipt.events[0].event().sequence, Sequence(1));
    assert!(receipt.events[0].is_inserted());
    let stored = watched.registry.events_after(&id, Sequence(0)).await.expect("events");
    assert_eq!(stored, [receipt.events[0].event().clone()]);
}

/// An outcome is waited for, and is not an event for observers.
pub async fn sink_not_invoked_for_complete_process_terminal_append(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = watched.completed("p").await;
    assert_eq!(scene.all_emitted(&watched, &sink).await, []);
    assert_eq!(watched.registry.events_after(&id, Sequence(0)).await.expect("events").len(), 1);
}

/// A sink takes no tick from the waiters.
pub async fn sink_present_still_bumps_hub_on_append(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    scene.all_ticked(&watched).await;
    let mut ticks = watched.hub.subscribe(&id);
    watched.registry.append_event(&id, note(1)).await.expect("an append");
    scene.assert_ticked(&mut ticks, "an append").await;
    assert_eq!(sequences(&scene.all_emitted(&watched, &sink).await), [1]);
}

/// The log has what a sink lost.
pub async fn lossy_sink_still_reconciles_complete_log_from_events_after(scene: &Scene) {
    let sink = RecordingSink::keeping(|event| event.sequence.0 % 2 == 1);
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    for number in 1..=6 {
        watched.registry.append_event(&id, note(number)).await.expect("an append");
    }
    let mut known: BTreeSet<u64> = sequences(&scene.all_emitted(&watched, &sink).await).into_iter().collect();
    assert_eq!(known, BTreeSet::from([1, 3, 5]));
    let log = sequences(&watched.registry.events_after(&id, Sequence(0)).await.expect("events"));
    assert_eq!(log, [1, 2, 3, 4, 5, 6]);
    let missing: Vec<u64> = log.into_iter().filter(|sequence| known.insert(*sequence)).collect();
    assert_eq!(missing, [2, 4, 6]);
}

/// What is told at all is told once, whichever handle and whichever source could tell it.
pub async fn nothing_is_emitted_twice(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    watched.registry.append_event(&id, note(1)).await.expect("an append");
    watched.registry.request_process_cancel(&id, None).await.expect("a request");
    watched.registry.append_event(&id, note(2)).await.expect("an append");
    assert_eq!(sequences(&scene.all_emitted(&watched, &sink).await), [1, 2, 3]);
}

/// It costs its callers time, and is told like any other.
pub async fn a_sink_that_hears_no_commits_is_told_by_its_callers_and_once(scene: &Scene) {
    let sink = RecordingSink::told_by_callers();
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    scene.all_ticked(&watched).await;
    let mut ticks = watched.hub.subscribe(&id);
    watched.registry.append_events(&id, vec![note(1), note(2)]).await.expect("an append");
    assert_eq!(sequences(&sink.so_far()), [1, 2], "told before the answer");
    scene.assert_ticked(&mut ticks, "an append").await;
    assert_eq!(sequences(&scene.all_emitted(&watched, &sink).await), [1, 2]);
}

/// A replay was told when it was new, and an end is not told, whichever way it was written.
pub async fn replays_and_terminals_are_not_emitted(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    let keyed = |request: ProcessEventAppendRequest, key: &str| {
        request.with_replay_key(ReplayKey::new(key).expect("tests use proper keys"))
    };
    let registry = &watched.registry;
    registry.append_event(&id, keyed(note(1), "1")).await.expect("an append");
    registry.append_event(&id, keyed(note(1), "1")).await.expect("a replay");
    registry.append_events(&id, vec![keyed(note(1), "1"), note(2)]).await.expect("a replay and an append");
    registry.append_event(&id, ProcessEventAppendRequest::new("undeclared", json!(1))).await.expect_err("refused");
    let end = ProcessEventAppendRequest::new("process.completed", success(1).to_event_payload());
    registry.append_event(&id, keyed(end, "end")).await.expect("an end");
    assert!(registry.get_process(&id).await.expect("a read").expect("a record").status.is_terminal());
    assert_eq!(sequences(&scene.all_emitted(&watched, &sink).await), [1, 2]);
}

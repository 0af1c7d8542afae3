//! Cases of the hub.

use std::pin::pin;
use std::sync::Arc;

use registry_actor::domain::{
    AbandonRequest, ProcessEventAppendRequest, ProcessEventSemanticsSpec, ProcessEventType, ProcessExternalRef,
    ProcessHandleDescriptor, ProcessId, ProcessRegistration, ProcessSignal, ProcessStarted, ProcessValueSelector,
    ProcessWakeDedupeKey, ProcessWakeSpec, ProjectionWatermark, PruneFilter, ReplayKey, Sequence, SessionScope,
    WaitState,
};
use registry_actor::port::{ProcessRegistryExt, RegistryError};
use serde_json::json;

use super::recording_sink::RecordingSink;
use super::scene::{Scene, sequences, success};
use crate::example_process::{note, opaque_owner, process_id, registration};

/// A prune changes no process that is left, and of one that is gone there is nothing to read.
pub async fn prune_through_decorator_does_not_bump_the_hub(scene: &Scene) {
    let watched = scene.watch();
    let (ended, running) = (watched.completed("ended").await, watched.registered("running").await);
    scene.all_ticked(&watched).await;
    let (of_ended, of_running) = (watched.hub.subscribe(&ended), watched.hub.subscribe(&running));
    scene.clock.advance_ms(1);
    let filter = PruneFilter::ended_before(u64::MAX);
    let report = watched.registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await;
    assert_eq!(report.expect("a prune").pruned_processes, 1);
    assert_eq!(watched.registry.get_process(&ended).await.expect("a read"), None);
    scene.all_ticked(&watched).await;
    assert!(!of_ended.has_ticked(), "the process that is gone");
    assert!(!of_running.has_ticked(), "the process that is left");
}

/// An entry lives as long as somebody watches it, and ticking nobody makes none.
pub async fn hub_subscribe_then_notify_wakes_and_gc_drops_empty_entry(scene: &Scene) {
    let watched = scene.watch();
    let id = process_id("p");
    let mut subscription = watched.hub.subscribe(&id);
    assert_eq!(watched.hub.watched_processes(), 1);
    watched.hub.notify(&id);
    subscription.ticked().await.expect("a tick");
    drop(subscription);
    watched.hub.notify(&id);
    assert_eq!(watched.hub.watched_processes(), 0);
}

/// Every mutation of a process ticks.
pub async fn watched_registry_bumps_on_mutations(scene: &Scene) {
    let watched = scene.watch();
    let (registry, id) = (&watched.registry, process_id("p"));
    let mut ticks = watched.hub.subscribe(&id);
    registry.register_process(pinging(&id, &session("s"))).await.expect("a registration");
    scene.assert_ticked(&mut ticks, "a registration").await;
    registry.append_event(&id, note(1)).await.expect("an append");
    scene.assert_ticked(&mut ticks, "an append").await;
    registry.append_event(&id, ping("hi")).await.expect("a wake");
    scene.assert_ticked(&mut ticks, "a wake").await;
    registry.ack_wake(&id, Sequence(2)).await.expect("an acknowledgement");
    scene.assert_ticked(&mut ticks, "an acknowledgement").await;
    registry.record_first_started(&id, started()).await.expect("a start");
    scene.assert_ticked(&mut ticks, "a first start").await;
    registry.set_process_wait(&id, wait(&id)).await.expect("a wait");
    scene.assert_ticked(&mut ticks, "a wait").await;
    registry.clear_process_wait(&id).await.expect("no wait");
    scene.assert_ticked(&mut ticks, "the end of a wait").await;
    registry.request_process_abandon(&id, abandon()).await.expect("a request");
    scene.assert_ticked(&mut ticks, "an abandon request").await;
    registry.request_process_cancel(&id, None).await.expect("a request");
    scene.assert_ticked(&mut ticks, "a cancel request").await;
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    scene.assert_ticked(&mut ticks, "an outcome").await;
    registry.set_external_ref(&id, reference()).await.expect("a reference");
    scene.assert_ticked(&mut ticks, "an external reference").await;
}

/// Repetitions, refusals, leases and grants change no record.
pub async fn ticks_come_only_with_a_change(scene: &Scene) {
    let watched = scene.watch();
    let (registry, id, target) = (&watched.registry, process_id("p"), session("s"));
    let keyed = || note(1).with_replay_key(ReplayKey::new("k").expect("a key"));
    registry.register_process(pinging(&id, &target)).await.expect("a registration");
    registry.append_events(&id, vec![keyed(), ping("hi")]).await.expect("an append");
    registry.ack_wake(&id, Sequence(2)).await.expect("an acknowledgement");
    registry.set_process_wait(&id, wait(&id)).await.expect("a wait");
    registry.record_first_started(&id, started()).await.expect("a start");
    registry.set_external_ref(&id, reference()).await.expect("a reference");
    registry.request_process_abandon(&id, abandon()).await.expect("a request");
    registry.request_process_cancel(&id, None).await.expect("a request");
    scene.all_ticked(&watched).await;
    let ticks = watched.hub.subscribe(&id);

    registry.register_process(pinging(&id, &target)).await.expect("the same");
    let replayed = registry.append_event(&id, keyed()).await.expect("a replay");
    assert!(!replayed.events[0].is_inserted());
    registry.ack_wake(&id, Sequence(2)).await.expect("the same");
    registry.set_process_wait(&id, wait(&id)).await.expect("the same");
    registry.record_first_started(&id, started()).await.expect("the same");
    registry.set_external_ref(&id, reference()).await.expect("the same");
    registry.request_process_abandon(&id, abandon()).await.expect("the same");
    registry.request_process_cancel(&id, None).await.expect("the same");
    registry.append_event(&id, ProcessEventAppendRequest::new("undeclared", json!(1))).await.expect_err("refused");
    registry.ack_wake(&id, Sequence(1)).await.expect_err("no wake");

    let claim = registry.claim_process_lease(&id, opaque_owner("a"), 60_000).await.expect("an answer");
    let lease = registry.renew_process_lease(claim.acquired().expect("a lease"), 60_000).await.expect("a renewal");
    registry.complete_process_lease(&lease).await.expect("a release");
    let descriptor = ProcessHandleDescriptor { kind: None, label: None };
    registry.grant_handle(session("t"), &id, descriptor).await.expect("a grant");
    registry.transfer_handle_grants(session("t"), session("u"), vec![id.clone()]).await.expect("a transfer");
    registry.revoke_handle(session("u"), &id).await.expect("a revocation");
    scene.all_ticked(&watched).await;
    assert!(!ticks.has_ticked());
}

/// Who has a new pending wake is ticked, and only they.
pub async fn new_wakes_tick_their_targets(scene: &Scene) {
    let watched = scene.watch();
    let (registry, id, target) = (&watched.registry, process_id("p"), session("s"));
    registry.register_process(pinging(&id, &target)).await.expect("a registration");
    let (mut woken, mut asked_for) = (watched.hub.subscribe_wakes(&target), watched.hub.subscribe_wakes(&session("t")));
    let keyed = || ping("hi").with_replay_key(ReplayKey::new("k").expect("a key"));
    registry.append_event(&id, keyed()).await.expect("a wake");
    scene.assert_ticked(&mut woken, "a wake").await;
    scene.all_ticked(&watched).await;
    assert!(!asked_for.has_ticked());
    registry.append_event(&id, keyed()).await.expect("a replay");
    registry.append_event(&id, note(1)).await.expect("no wake");
    registry.append_event(&id, ping("there").with_wake_target_scope(session("t"))).await.expect("a wake");
    scene.assert_ticked(&mut asked_for, "a wake of another target").await;
    assert!(!woken.has_ticked());
}

/// The caller is gone after the commit and before the answer: whoever waits is told all the same.
pub async fn a_dropped_caller_still_ticks(scene: &Scene) {
    let watched = scene.watch();
    let id = watched.registered("p").await;
    scene.all_ticked(&watched).await;
    let mut ticks = watched.hub.subscribe(&id);
    let mut held = scene.beneath.hold_after_commit();
    {
        let mut call = pin!(watched.registry.append_event(&id, note(1)));
        tokio::select! {
            result = &mut call => panic!("it stands at the gate: {result:?}"),
            () = held.reached() => {}
        }
        assert!(scene.tells_commits() || !ticks.has_ticked());
    }
    scene.assert_ticked(&mut ticks, "the append of a dropped caller").await;
    let stored = watched.registry.events_after(&id, Sequence(0)).await.expect("events");
    assert_eq!(sequences(&stored), [1]);
}

/// Before the commit there is nothing to take back, and what comes next is told as if nothing had been.
pub async fn an_append_that_is_cancelled_in_the_middle_takes_nothing_from_the_next(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    let mut held = scene.beneath.hold_before_commit();
    {
        let mut call = pin!(watched.registry.append_event(&id, note(1)));
        tokio::select! {
            result = &mut call => panic!("it stands at the gate: {result:?}"),
            () = held.reached() => {}
        }
    }
    assert!(watched.registry.events_after(&id, Sequence(0)).await.expect("events").is_empty());
    scene.all_ticked(&watched).await;
    let mut ticks = watched.hub.subscribe(&id);
    watched.registry.append_event(&id, note(2)).await.expect("an append");
    scene.assert_ticked(&mut ticks, "the next append").await;
    let stored = watched.registry.events_after(&id, Sequence(0)).await.expect("events");
    assert_eq!(scene.all_emitted(&watched, &sink).await, stored);
    assert_eq!(sequences(&stored), [1]);
}

/// A caller that does not know what became of its command is not the only one who wants to.
pub async fn an_unknown_outcome_still_ticks_and_a_refusal_does_not(scene: &Scene) {
    let watched = scene.watch();
    let id = watched.registered("p").await;
    scene.all_ticked(&watched).await;
    let mut ticks = watched.hub.subscribe(&id);
    scene.beneath.lose_answer();
    let unknown = watched.registry.append_event(&id, note(1)).await;
    assert!(matches!(unknown, Err(RegistryError::OutcomeUnknown { .. })));
    scene.assert_ticked(&mut ticks, "an unknown outcome").await;
    let refused = watched.registry.append_event(&id, ProcessEventAppendRequest::new("undeclared", json!(1))).await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))));
    scene.all_ticked(&watched).await;
    assert!(!ticks.has_ticked());
}

/// `told ≤ ticked ≤ durable`: nobody hears of what could still be lost, and who is told finds the waiters woken.
pub async fn a_commit_comes_before_its_tick_and_the_tick_before_its_emission(scene: &Scene) {
    let sink = RecordingSink::new();
    let watched = scene.watch_with(&sink);
    let id = watched.registered("p").await;
    scene.all_ticked(&watched).await;
    let mut ticks = watched.hub.subscribe(&id);
    let mut held = scene.beneath.hold_before_commit();
    let call = tokio::spawn({
        let (registry, id) = (Arc::clone(&watched.registry), id.clone());
        async move { registry.append_event(&id, note(1)).await }
    });
    held.reached().await;
    assert!(!ticks.has_ticked() && sink.so_far().is_empty(), "nothing is committed");
    sink.demand_a_tick_first(watched.hub.subscribe(&id));
    held.open();
    call.await.expect("a task").expect("an append");
    scene.assert_ticked(&mut ticks, "an append").await;
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), sink.events(1)).await;
    assert_eq!(sequences(&told.expect("told after the tick")), [1]);
}

/// Declares `ping`, which wakes this target.
fn pinging(id: &ProcessId, target: &SessionScope) -> ProcessRegistration {
    let wake = ProcessWakeSpec {
        when: None,
        input: ProcessValueSelector::Pointer("/text".to_owned()),
        dedupe_key: ProcessWakeDedupeKey::EventIdentity,
    };
    let ping = ProcessEventType {
        semantics: ProcessEventSemanticsSpec { terminal: None, wake: Some(wake) },
        ..ProcessEventType::plain("ping")
    };
    let registration = registration(id).with_extra_event_types([ping]);
    ProcessRegistration { wake_target: Some(target.clone()), ..registration }
}

fn ping(text: &str) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("ping", json!({ "text": text }))
}

fn session(id: &str) -> SessionScope {
    SessionScope::session(id)
}

fn started() -> ProcessStarted {
    ProcessStarted { owner: opaque_owner("a"), started_at_ms: 1 }
}

fn wait(id: &ProcessId) -> WaitState {
    WaitState::signal(id, &ProcessSignal::new("go").expect("a signal"), 1, 1)
}

fn abandon() -> AbandonRequest {
    AbandonRequest { requested_by: "operator".to_owned(), requested_at_ms: 1, reason: None }
}

fn reference() -> ProcessExternalRef {
    ProcessExternalRef { backend: "b".to_owned(), id: "1".to_owned(), metadata: None }
}

//! Cases about waiting: 30, 31, and the registry's part of W9, W15, W16.

use std::time::Duration;

use awaiter::{ProcessAwaiter, ProcessChangeHub};
use registry_actor::domain::{ProcessExternalRef, Sequence};
use registry_actor::port::ProcessRegistryExt;

use super::example::*;
use super::stage::Stage;

/// Case 30. Time is paused, so that no bound in ms can be asked of a store with a thread of its own; where commits are told, the
/// waiter has no timer at all, and a lost wake-up ends in the bound of the suite.
pub async fn c30_awaiter_cross_task_completion_resolves_promptly(stage: &mut Stage) {
    tokio::time::pause();
    let id = registered(&stage.registry, "p").await;
    let awaiter = ProcessAwaiter::attached(stage.port());
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let (awaiter, id) = (awaiter.clone(), id.clone());
            tokio::spawn(async move { awaiter.await_terminal(&id).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let completing = tokio::spawn({
        let (registry, id) = (stage.port(), id.clone());
        async move { registry.complete_process(&id, success(7)).await.map(drop) }
    });
    for waiter in waiting {
        assert_eq!(waiter.await.expect("a task").expect("an outcome"), success(7));
    }
    completing.await.expect("a task").expect("an outcome");
}

/// 31.
pub async fn c31_awaiter_await_event_never_returns_events_at_or_before_cursor(stage: &mut Stage) {
    tokio::time::pause();
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    registry.append_events(&id, vec![note(1), note(2)]).await.expect("an append");
    let awaiter = ProcessAwaiter::attached(stage.port());
    let found = awaiter.await_event(&id, "note", Sequence(1)).await.expect("it is there");
    assert_eq!(found.sequence, Sequence(2));
    let pending = tokio::spawn({
        let (awaiter, id) = (awaiter.clone(), id.clone());
        async move { awaiter.await_event(&id, "note", Sequence(2)).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!pending.is_finished(), "nothing after the cursor");
    registry.append_event(&id, note(3)).await.expect("an append");
    let found = pending.await.expect("a task").expect("an event");
    assert_eq!(found.sequence, Sequence(3));
}

/// W9 and W16: a source of changes ticks for what changed, whichever handle changed it, and for nothing else.
pub async fn w09_a_source_ticks_what_changed_and_nothing_else(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let Some(source) = stage.change_source() else { return };
    let hub = ProcessChangeHub::attached_to(&source);
    let marker = registered(registry, "marker").await;
    let reference = ProcessExternalRef { backend: "b".into(), id: "1".into(), metadata: None };
    // Twice each, so that either of two handles makes a change and a repetition.
    for round in 0..4 {
        let mut changed = hub.subscribe(&id);
        let receipt = registry.append_event(&id, keyed("note", serde_json::json!(round), &format!("k{round}"))).await;
        assert!(receipt.expect("an append").events[0].is_inserted());
        changed.ticked().await.expect("a tick");
    }
    registry.set_external_ref(&id, reference.clone()).await.expect("a reference");
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    let mut caught_up = hub.subscribe(&marker);
    registry.append_event(&marker, note(0)).await.expect("a marker");
    caught_up.ticked().await.expect("a tick");

    let unchanged = hub.subscribe(&id);
    let before = registry.get_process(&id).await.expect("a read");
    let replay = registry.append_event(&id, keyed("note", serde_json::json!(0), "k0")).await.expect("a replay");
    assert!(!replay.events[0].is_inserted());
    registry.set_external_ref(&id, reference).await.expect("the same");
    registry.complete_process(&id, success(1)).await.expect("the same");
    registry.clear_process_wait(&id).await.expect("no wait to clear");
    registry.register_process(registration(&id)).await.expect("the same");
    registry.append_event(&id, note(1).with_replay_key(replay_key("k0"))).await.expect_err("a conflict");
    registry.append_event(&marker, note(1)).await.expect("a marker");
    caught_up.ticked().await.expect("a tick");
    assert!(!unchanged.has_ticked(), "nothing of it changed");
    assert_eq!(registry.get_process(&id).await.expect("a read"), before);
}

/// W15: a wait that is given up leaves nothing behind, and neither does one that is refused.
pub async fn w15_a_wait_that_ends_leaves_nothing_behind(stage: &mut Stage) {
    let hub = match stage.change_source() {
        Some(source) => ProcessChangeHub::attached_to(&source),
        None => ProcessChangeHub::new(),
    };
    let id = registered(&stage.registry, "p").await;
    let awaiter = ProcessAwaiter::new(stage.port(), hub.clone());
    awaiter.await_terminal(&process_id("unknown")).await.expect_err("unknown");
    assert_eq!(hub.watched_processes(), 0);
    let given_up = tokio::spawn({
        let (awaiter, id) = (awaiter.clone(), id.clone());
        async move { awaiter.await_terminal(&id).await }
    });
    while hub.watched_processes() == 0 {
        tokio::task::yield_now().await;
    }
    given_up.abort();
    given_up.await.expect_err("given up");
    assert_eq!(hub.watched_processes(), 0);
}

/// Who has a new pending wake is ticked, and only they.
pub async fn targets_of_new_wakes_are_ticked(stage: &mut Stage) {
    let registry = &stage.registry;
    let (target, other) = (session("s"), session("t"));
    let id = pinging(registry, "p", &target).await;
    let Some(source) = stage.change_source() else { return };
    let hub = ProcessChangeHub::attached_to(&source);
    let mut woken = hub.subscribe_wakes(&target);
    let untouched = hub.subscribe_wakes(&other);
    for round in 0..4 {
        registry
            .append_event(&id, keyed("ping", serde_json::json!({"text": round}), &format!("k{round}")))
            .await
            .expect("a wake");
        woken.ticked().await.expect("a tick");
    }
    registry.append_event(&id, note(1)).await.expect("no wake");
    registry.append_event(&id, keyed("ping", serde_json::json!({"text": 0}), "k0")).await.expect("a replay");
    registry.ack_wake(&id, Sequence(1)).await.expect("an acknowledgement");
    // Commits are published in order: when this one is heard, those before it were.
    let mut marker = hub.subscribe_wakes(&session("marker"));
    let sent = registry.append_event(&id, ping("m").with_wake_target_scope(session("marker"))).await;
    sent.expect("a wake");
    marker.ticked().await.expect("a tick");
    assert!(!woken.has_ticked(), "no new wake for it");
    assert!(!untouched.has_ticked());
}

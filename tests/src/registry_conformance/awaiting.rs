//! Cases about waiting: 30, 31, and the registry's part of W9, W15, W16.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use awaiter::{AwaitError, ProcessAwaiter, ProcessChangeHub, ProcessWait, WaitAnswer};
use registry_actor::domain::{
    Command, ProcessExternalRef, ProcessId, ProjectionWatermark, PruneFilter, Receipt, RegistryCommand,
    RegistryReceipt, Sequence,
};
use registry_actor::port::{
    Answer, ChangeSource, DurabilityTier, ProcessRegistry, ProcessRegistryExt, Query, RegistryError,
};

use super::example::*;
use super::stage::Stage;

/// Case 30. Time is paused, so that no bound in ms can be asked of a store with a thread of its own; where commits are told, the
/// waiter has no timer at all, and a lost wake-up ends in the bound of the suite.
pub async fn c30_awaiter_cross_task_completion_resolves_promptly(stage: &mut Stage) {
    stage.stop_time();
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
    stage.stop_time();
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

/// W13: whoever waits for an event of a process that ends without it is told so, with the outcome.
pub async fn w13_a_wait_for_an_event_is_told_that_the_process_ended_first(stage: &mut Stage) {
    stage.stop_time();
    let registry = &stage.registry;
    let awaiter = ProcessAwaiter::attached(stage.port());
    let id = registered(registry, "p").await;
    let event_of = |id: &ProcessId, after: u64| {
        let (awaiter, id) = (awaiter.clone(), id.clone());
        tokio::spawn(async move { awaiter.await_event(&id, "note", Sequence(after)).await })
    };
    let waiting = event_of(&id, 1);
    tokio::task::yield_now().await;
    registry.append_event(&id, note(1)).await.expect("an append");
    registry.complete_process(&id, success(2)).await.expect("an outcome");
    for waiting in [waiting, event_of(&id, 1)] {
        match waiting.await.expect("a task") {
            Err(AwaitError::Ended { record }) => assert_eq!(record.status.await_output(), Some(&success(2))),
            other => panic!("expected the end, got {other:?}"),
        }
    }
    assert_eq!(event_of(&id, 0).await.expect("a task").expect("it is there").sequence, Sequence(1));
    registry.append_event(&id, note(3)).await.expect("a late one");
    let late = event_of(&id, 1).await.expect("a task").expect("what is there is found, late or not");
    assert!(late.late);

    // Both in one commit: the event was there before the end.
    let id = registered(registry, "q").await;
    let waiting = event_of(&id, 0);
    tokio::task::yield_now().await;
    let end = keyed("process.completed", serde_json::json!({ "await_output": success(1) }), "end");
    registry.append_events(&id, vec![note(1), end]).await.expect("an append");
    assert_eq!(waiting.await.expect("a task").expect("the event").sequence, Sequence(1));
}

/// Waits for the first of several, and for all of them; a deadline is an answer.
pub async fn several_waits_end_with_the_first_of_them_or_with_all(stage: &mut Stage) {
    stage.stop_time();
    let within = Some(Duration::from_secs(1));
    let registry = &stage.registry;
    let awaiter = ProcessAwaiter::attached(stage.port());
    let [a, b, c] = ["a", "b", "c"].map(process_id);
    for id in [&a, &b, &c] {
        registered(registry, id.as_str()).await;
    }
    let waits = [
        ProcessWait::outcome(a.clone()),
        ProcessWait::event(b.clone(), "note", Sequence(0)),
        ProcessWait::outcome(c.clone()),
    ];
    assert_eq!(awaiter.await_any(&waits, within).await, Ok(None));
    assert_eq!(awaiter.await_all(&waits, within).await, Ok(vec![WaitAnswer::Deadline; 3]));
    assert_eq!(awaiter.wait(&waits[0], within).await, Ok(WaitAnswer::Deadline));
    assert_eq!(awaiter.await_any(&[], None).await, Ok(None));
    assert_eq!(awaiter.await_all(&[], None).await, Ok(Vec::new()));

    let first = tokio::spawn({
        let (awaiter, waits) = (awaiter.clone(), waits.clone());
        async move { awaiter.await_any(&waits, None).await }
    });
    tokio::task::yield_now().await;
    registry.append_event(&b, note(1)).await.expect("an append");
    let first = first.await.expect("a task").expect("an answer").expect("no deadline");
    let is_note =
        |answer: &WaitAnswer| matches!(answer, WaitAnswer::Happened { event } if event.sequence == Sequence(1));
    assert!(first.index == 1 && is_note(&first.answer), "{first:?}");
    assert_eq!(stage.change_source().map_or(0, |source| source.parked_waits()), 0, "the others are released");

    registry.complete_process(&a, success(1)).await.expect("an outcome");
    let answers = awaiter.await_all(&waits, within).await.expect("answers");
    assert_eq!(answers[0].output(), Some(&success(1)));
    assert!(is_note(&answers[1]) && answers[2] == WaitAnswer::Deadline, "{answers:?}");
    let all = tokio::spawn({
        let (awaiter, waits) = (awaiter.clone(), waits.clone());
        async move { awaiter.await_all(&waits, None).await }
    });
    tokio::task::yield_now().await;
    registry.complete_process(&c, success(3)).await.expect("an outcome");
    let answers = all.await.expect("a task").expect("answers");
    assert_eq!((answers[0].output(), answers[2].output()), (Some(&success(1)), Some(&success(3))));

    let ended = awaiter.wait(&ProcessWait::any_event(a.clone(), Sequence(9)), within).await;
    assert!(matches!(&ended, Ok(WaitAnswer::Ended { record }) if record.id() == &a), "{ended:?}");
    let any = awaiter.wait(&ProcessWait::any_event(b.clone(), Sequence(0)), within).await.expect("an answer");
    assert!(is_note(&any), "{any:?}");
    let unknown = [ProcessWait::outcome(b), ProcessWait::outcome(process_id("unknown"))];
    assert!(matches!(awaiter.await_any(&unknown, None).await, Err(AwaitError::Registry(_))));
    assert!(matches!(awaiter.await_all(&unknown, None).await, Err(AwaitError::Registry(_))));
    assert_eq!(stage.change_source().map_or(0, |source| source.parked_waits()), 0);
}

/// An id that is pruned and lives again is another process to whoever waits: `await_event` once told of events of the
/// next life.
pub async fn a_waiter_is_never_told_of_another_life(stage: &mut Stage) {
    stage.stop_time();
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    registry.append_event(&id, note(1)).await.expect("an append");
    let reading = Arc::new(ReadCounted { registry: stage.port(), reads: AtomicUsize::new(0) });
    let awaiter = ProcessAwaiter::attached(Arc::clone(&reading) as Arc<dyn ProcessRegistry>);
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { awaiter.await_event(&id, "note", Sequence(1)).await }
    });
    // The record and its events: from then on it is known which life is awaited.
    while reading.reads.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    stage.clock.advance_ms(1);
    let pruned =
        registry.prune_terminal_processes(PruneFilter::ended_before(u64::MAX), ProjectionWatermark::NoProjector).await;
    assert_eq!(pruned.expect("a prune").pruned_processes, 1);
    registered(registry, "p").await;
    registry.append_events(&id, vec![note(1), note(2), note(3)]).await.expect("an append");
    match waiting.await.expect("a task") {
        Err(AwaitError::NoLongerRetained { tombstone }) => assert_eq!(tombstone.generation, 1),
        Err(AwaitError::Ended { record }) => assert_eq!(record.generation, 1),
        other => panic!("expected the end of the first life, got {other:?}"),
    }
}

/// Counts the reads that were answered.
struct ReadCounted {
    registry: Arc<dyn ProcessRegistry>,
    reads: AtomicUsize,
}

#[async_trait]
impl ProcessRegistry for ReadCounted {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.registry.execute(process_id, command).await
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.registry.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        let answer = self.registry.query(query).await;
        self.reads.fetch_add(1, Ordering::SeqCst);
        answer
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.registry.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.registry.change_source()
    }
}

/// W15: a wait that is given up leaves nothing behind, and neither does one that is refused.
pub async fn w15_a_wait_that_ends_leaves_nothing_behind(stage: &mut Stage) {
    let source = stage.change_source();
    let hub = source.as_ref().map_or_else(ProcessChangeHub::new, ProcessChangeHub::attached_to);
    let waiting = || hub.watched_processes() + source.as_ref().map_or(0, ChangeSource::parked_waits);
    let id = registered(&stage.registry, "p").await;
    let awaiter = ProcessAwaiter::new(stage.port(), hub.clone());
    awaiter.await_terminal(&process_id("unknown")).await.expect_err("unknown");
    assert_eq!(waiting(), 0);
    let given_up = tokio::spawn({
        let (awaiter, id) = (awaiter.clone(), id.clone());
        async move { awaiter.await_terminal(&id).await }
    });
    while waiting() == 0 {
        tokio::task::yield_now().await;
    }
    given_up.abort();
    given_up.await.expect_err("given up");
    assert_eq!(waiting(), 0);
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

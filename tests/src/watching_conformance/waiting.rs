//! Cases of whoever waits.

use std::sync::Arc;
use std::time::Duration;

use awaiter::{Backoff, ProcessAwaiter};
use registry_actor::domain::{ProcessAwaitOutput, Sequence};
use registry_actor::port::ProcessRegistryExt;
use tokio::sync::Barrier;
use tokio::time::Instant;

use super::scene::{Scene, registered, success};
use super::standing_time::StandingTime;
use crate::example_process::{note, process_id};

/// The schedule, and that the reads of a waiter keep it.
pub async fn backoff_schedule_has_25ms_floor_doubling_to_1s_cap(scene: &Scene) {
    let schedule = [25, 50, 100, 200, 400, 800, 1_000, 1_000, 1_000];
    let delays: Vec<u128> = Backoff::default().take(schedule.len()).map(|delay| delay.as_millis()).collect();
    assert_eq!(delays, schedule);
    let id = registered(&*scene.beneath, "p").await;
    let mut time = StandingTime::begin();
    time.let_it_leap();
    let awaiter = ProcessAwaiter::polling(scene.port());
    let waiting = tokio::spawn(async move { awaiter.await_terminal(&id).await });
    scene.beneath.reads(schedule.len() + 1).await;
    waiting.abort();
    // Tokio's timers go off within the ms after their time.
    for (pause, delay) in scene.beneath.pauses_between_reads().into_iter().zip(delays) {
        assert!((delay..=delay + 1).contains(&pause.as_millis()), "expected {delay} ms, got {pause:?}");
    }
}

/// What is there is not waited for.
pub async fn await_event_returns_historical_event_immediately(scene: &Scene) {
    let time = StandingTime::begin();
    let watched = scene.watch();
    let id = watched.registered("p").await;
    watched.registry.append_events(&id, vec![note(1), note(2)]).await.expect("an append");
    let awaiter = watched.awaiter();
    let found = awaiter.await_event(&id, "note", Sequence(0)).await.expect("it is there");
    assert_eq!(found.sequence, Sequence(1));
    let found = awaiter.await_event(&id, "note", Sequence(1)).await.expect("it is there");
    assert_eq!(found.sequence, Sequence(2));
    assert_eq!(time.elapsed(), Duration::ZERO);
}

/// An unknown process is not one that may still come.
pub async fn await_terminal_unknown_process_errors(scene: &Scene) {
    let time = StandingTime::begin();
    let awaiter = ProcessAwaiter::polling(scene.port());
    let error = awaiter.await_terminal(&process_id("missing")).await.expect_err("unknown");
    assert_eq!(error.to_string(), "unknown process `missing`");
    assert_eq!(time.elapsed(), Duration::ZERO);
}

/// Nobody tells a waiter without a hub: it looks, and within a second.
pub async fn polling_awaiter_resolves_via_backoff(scene: &Scene) {
    let mut time = StandingTime::begin();
    let id = registered(&*scene.beneath, "p").await;
    let awaiter = ProcessAwaiter::polling(scene.port());
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { awaiter.await_terminal(&id).await }
    });
    scene.beneath.reads(1).await;
    scene.beneath.complete_process(&id, success(7)).await.expect("an outcome");
    let ended = Instant::now();
    time.let_it_leap();
    assert_eq!(waiting.await.expect("a task").expect("an outcome"), success(7));
    // The clock may leap while the store answers, but not before it is asked.
    let looked = scene.beneath.reads(2).await[1].asked - ended;
    assert!(looked > Duration::ZERO && looked < Duration::from_secs(1), "it looked again after {looked:?}");
}

/// Time stands still: it is the tick that wakes it. The peer asks for less than 200 ms.
pub async fn watched_awaiter_observes_terminal_without_lost_wakeup(scene: &Scene) {
    let time = StandingTime::begin();
    let watched = scene.watch();
    let id = watched.registered("p").await;
    let waiting = tokio::spawn({
        let (awaiter, id) = (watched.awaiter(), id.clone());
        async move { awaiter.await_terminal(&id).await }
    });
    scene.beneath.reads(1).await;
    watched.registry.complete_process(&id, success(7)).await.expect("an outcome");
    assert_eq!(waiting.await.expect("a task").expect("an outcome"), success(7));
    assert_eq!(time.elapsed(), Duration::ZERO);
}

/// The same for an event.
pub async fn a_watched_event_is_found_without_time_passing(scene: &Scene) {
    let time = StandingTime::begin();
    let watched = scene.watch();
    let id = watched.registered("p").await;
    let waiting = tokio::spawn({
        let (awaiter, id) = (watched.awaiter(), id.clone());
        async move { awaiter.await_event(&id, "note", Sequence(0)).await }
    });
    scene.beneath.reads(1).await;
    watched.registry.append_event(&id, note(1)).await.expect("an append");
    assert_eq!(waiting.await.expect("a task").expect("an event").sequence, Sequence(1));
    assert_eq!(time.elapsed(), Duration::ZERO);
}

/// Time stands still here too; the peer asks for less than 2 s.
pub async fn concurrent_waiters_all_resolve_with_identical_output_on_completion(scene: &Scene) {
    const WAITERS: usize = 16;
    let time = StandingTime::begin();
    let watched = scene.watch();
    let id = watched.registered("p").await;
    let barrier = Arc::new(Barrier::new(WAITERS));
    let waiting: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (awaiter, id, barrier) = (watched.awaiter(), id.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                awaiter.await_terminal(&id).await
            })
        })
        .collect();
    scene.beneath.reads(WAITERS).await;
    watched.registry.complete_process(&id, success(7)).await.expect("an outcome");
    let mut outputs: Vec<ProcessAwaitOutput> = Vec::new();
    for waiter in waiting {
        outputs.push(waiter.await.expect("a task").expect("an outcome"));
    }
    assert_eq!(outputs, vec![success(7); WAITERS]);
    assert_eq!(time.elapsed(), Duration::ZERO);
}

//! Many cold processes that are asked for at once.

use std::sync::Arc;
use std::time::Duration;

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::ProcessId;
use registry_actor::log::MemoryLog;
use registry_actor::port::{ProcessRegistryExt, RegistryError};
use registry_tests::WatchedLog;
use registry_tests::example_process::{note, opaque_owner, process_id, registration};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

/// A store of a host that has been started again: its processes are there, and none of them is live.
async fn cold_store(processes: usize) -> (Arc<WatchedLog>, Vec<ProcessId>) {
    let memory = MemoryLog::new("cold store");
    let before = ActorRegistry::start(Arc::new(memory.clone()), RegistryOptions::default()).await.expect("it starts");
    let ids: Vec<_> = (0..processes).map(|number| process_id(&format!("p{number:06}"))).collect();
    for id in &ids {
        before.register_process(registration(id)).await.expect("registered");
    }
    before.shut_down(PATIENCE).await;
    (Arc::new(WatchedLog::new(Arc::new(memory.reopen()))), ids)
}

async fn start(log: &Arc<WatchedLog>, adjust: impl FnOnce(&mut RegistryOptions)) -> ActorRegistry {
    let mut options = RegistryOptions::default();
    options.shards = 1;
    adjust(&mut options);
    ActorRegistry::start(Arc::clone(log) as _, options).await.expect("it starts")
}

fn spawn_append(registry: &ActorRegistry, id: &ProcessId) -> JoinHandle<Result<(), RegistryError>> {
    let (registry, id) = (registry.clone(), id.clone());
    tokio::spawn(async move { registry.append_event(&id, note(1)).await.map(drop) })
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_cold_processes_loads_few_at_once_in_order_and_urgent_ones_first() {
    const LIMIT: usize = 4;
    let (log, ids) = cold_store(203).await;
    let registry = start(&log, |options| options.activations_per_shard = LIMIT).await;
    let (live, storm, late, urgent) = (&ids[200], &ids[..200], &ids[201], &ids[202]);
    registry.append_event(live, note(0)).await.expect("it becomes live");
    log.hold_loads();
    let calls: Vec<_> = storm.iter().map(|id| spawn_append(&registry, id)).collect();
    log.loading_at_least(LIMIT).await;
    // One that is asked for late and urgently, and one that waits already and becomes urgent.
    let claim = |id: &ProcessId| {
        let (registry, id) = (registry.clone(), id.clone());
        tokio::spawn(async move { registry.claim_process_lease(&id, opaque_owner("o"), 60_000).await.map(drop) })
    };
    let last = spawn_append(&registry, late);
    let claims = [claim(&storm[150]), claim(urgent)];
    registry.append_event(live, note(1)).await.expect("a live process has no part in the storm");
    tokio::task::yield_now().await;
    assert_eq!(registry.live_actors(), 1 + LIMIT, "whoever waits to be loaded costs no actor");
    log.let_load(1_000);
    for call in calls.into_iter().chain(claims).chain([last]) {
        call.await.expect("no panic").expect("answered");
    }
    let seen = log.seen();
    assert_eq!(seen.most_loading, LIMIT);
    let mut expected = vec![live];
    expected.extend(&storm[..LIMIT]);
    expected.extend([&storm[150], urgent]);
    expected.extend(storm[LIMIT..].iter().filter(|id| **id != storm[150]));
    expected.push(late);
    assert_eq!(seen.loaded.iter().collect::<Vec<_>>(), expected);
}

/// What waits for a load is answered too when the registry ends, and when its shard does.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_load_is_answered_when_its_shard_or_its_registry_ends() {
    let (log, ids) = cold_store(20).await;
    let registry = start(&log, |options| options.activations_per_shard = 2).await;
    log.hold_loads();
    let calls: Vec<_> = ids.iter().map(|id| spawn_append(&registry, id)).collect();
    log.loading_at_least(2).await;
    registry.supervisors_of(&ids[0])[0].kill();
    log.let_load(1_000);
    for call in calls {
        call.await.expect("no panic").expect("its successor loads them");
    }
    assert!(log.seen().most_loading <= 4, "two of the dead shard at the most, and two of its successor");

    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(registry.live_actors(), 0, "all are at rest");
    log.hold_loads();
    let calls: Vec<_> = ids.iter().map(|id| spawn_append(&registry, id)).collect();
    log.loading_at_least(2).await;
    let ending = tokio::spawn(async move { registry.shut_down(Duration::from_secs(1)).await });
    let mut refused = 0;
    for call in calls {
        let answer = call.await.expect("no panic");
        assert_eq!(answer, Err(RegistryError::Closed), "nothing of it was submitted");
        refused += 1;
    }
    assert_eq!(refused, 20);
    assert_eq!(ending.await.expect("no panic").processes_killed, 2, "those that never came to load");
}

/// By hand with `PROCTOR_STORM_CALLS=100000`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_comes_to_its_end() {
    let text = std::env::var("PROCTOR_STORM_CALLS").ok();
    let calls = text.and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let (log, ids) = cold_store(calls).await;
    let registry = start(&log, |options| {
        options.shards = 4;
        options.commands_under_way = calls + 1;
    })
    .await;
    let began = std::time::Instant::now();
    let storm: Vec<_> = ids.iter().map(|id| spawn_append(&registry, id)).collect();
    for call in storm {
        call.await.expect("no panic").expect("answered");
    }
    let most = log.seen().most_loading;
    println!("{calls} cold processes served in {:.2?}, at most {most} loads at once", began.elapsed());
    assert!(most <= 4 * RegistryOptions::default().activations_per_shard, "{most} loads at once");
}

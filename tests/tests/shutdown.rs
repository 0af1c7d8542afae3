//! How a registry ends: in order, in time, with a report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry_actor::actor::{ActorRegistry, RegistryOptions, ShutdownProgress, ShutdownStage};
use registry_actor::domain::ProcessId;
use registry_actor::log::MemoryLog;
use registry_actor::port::{ProcessRegistryExt, RegistryError, TreeMember, TreeStep};
use registry_tests::FaultScript;
use registry_tests::example_process::{note, process_id, registration};
use registry_tests::scoreboard::{RunRecord, record};

async fn start(log: &MemoryLog, adjust: impl FnOnce(&mut RegistryOptions)) -> ActorRegistry {
    let mut options = RegistryOptions::default();
    adjust(&mut options);
    ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts")
}

async fn registered(registry: &ActorRegistry, processes: usize) -> Vec<ProcessId> {
    let ids: Vec<_> = (0..processes).map(|number| process_id(&format!("p{number:06}"))).collect();
    for id in &ids {
        registry.register_process(registration(id)).await.expect("registered");
    }
    ids
}

/// What a shutdown tells of itself.
type Told = Arc<Mutex<Vec<ShutdownProgress>>>;

fn observed() -> (Told, impl FnMut(ShutdownProgress) + Send + 'static) {
    let told = Told::default();
    let progress = {
        let told = Arc::clone(&told);
        move |step| told.lock().unwrap_or_else(PoisonError::into_inner).push(step)
    };
    (told, progress)
}

fn told(told: &Told) -> Vec<ShutdownProgress> {
    told.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[tokio::test(start_paused = true)]
async fn the_tree_starts_and_stops_in_order() {
    let faults = FaultScript::new();
    let log = MemoryLog::new("s");
    let registry = start(&log, |options| {
        options.shards = 2;
        options.faults = Arc::clone(&faults) as _;
    })
    .await;
    registered(&registry, 5).await;
    registry.shut_down(Duration::from_secs(10)).await;
    let mut transcript = faults.steps();
    // The shards end in any order.
    transcript[6..8].sort_by_key(|step| format!("{step:?}"));
    use TreeMember::{Listeners, Log, Publisher, Root, Shard};
    let started = [Log, Listeners, Root, Publisher, Shard(0), Shard(1)].map(TreeStep::Started);
    let ended = [Shard(0), Shard(1), Publisher, Listeners, Log, Root].map(TreeStep::Ended);
    assert_eq!(transcript, [started, ended].concat());
}

/// No clock reaches that far: the shutdown panicked, reported that all was well, and left everything running.
#[tokio::test(start_paused = true)]
async fn a_patience_without_end_shuts_down_too() {
    let log = MemoryLog::new("s");
    let registry = start(&log, |_| {}).await;
    let ids = registered(&registry, 3).await;
    let report = registry.shut_down(Duration::MAX).await;
    assert_eq!((report.processes_rested, report.processes_killed, report.log_left_open), (3, 0, false));
    let refused = registry.append_event(&ids[0], note(1)).await.expect_err("it is over");
    assert_eq!(refused, RegistryError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_how_far_it_is_and_everybody_gets_its_one_report() {
    let log = MemoryLog::new("s");
    let registry = start(&log, |_| {}).await;
    let ids = registered(&registry, 300).await;
    log.pause();
    let append = tokio::spawn({
        let (registry, id) = (registry.clone(), ids[7].clone());
        async move { registry.append_event(&id, note(1)).await }
    });
    log.queued_at_least(1).await;
    let (steps, progress) = observed();
    let first = tokio::spawn({
        let registry = registry.clone();
        async move { registry.shut_down_with_progress(Duration::from_secs(10), progress).await }
    });
    tokio::task::yield_now().await;
    let second = tokio::spawn({
        let registry = registry.clone();
        async move { registry.shut_down(Duration::from_secs(10)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!first.is_finished() && !second.is_finished(), "one process is still busy");
    assert_eq!(told(&steps).last().map(|step| (step.stage, step.processes_left < 5)), Some((Processes, true)));
    log.resume();
    append.await.expect("no panic").expect("what was under way is stored");
    let report = first.await.expect("no panic");
    assert_eq!(second.await.expect("no panic"), report, "the second waits for the first");
    assert_eq!(registry.shut_down(Duration::ZERO).await, report, "and so does the third");
    assert_eq!((report.processes_rested, report.processes_killed, report.shards_killed), (300, 0, 0));
    assert!(!report.publisher_killed && !report.log_left_open);
    let steps = told(&steps);
    assert!(steps.iter().all(|step| step.processes == 300), "{steps:?}");
    assert!(steps.is_sorted_by(|left, right| left.stage <= right.stage), "{steps:?}");
    assert!(steps.is_sorted_by(|left, right| left.processes_left >= right.processes_left), "{steps:?}");
    let mut stages: Vec<_> = steps.iter().map(|step| step.stage).collect();
    stages.dedup();
    use ShutdownStage::{Door, Listeners, Log, Processes, Publisher, Root};
    assert_eq!(stages, [Door, Processes, Publisher, Listeners, Log, Root]);
    assert!(steps.len() <= 120, "no more than a step for each hundredth: {}", steps.len());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_to_rest_in_time_is_killed_and_named() {
    let log = MemoryLog::new("s");
    let registry = start(&log, |options| options.shards = 1).await;
    let ids = registered(&registry, 30).await;
    log.pause();
    let stuck: Vec<_> = ids[..20]
        .iter()
        .map(|id| {
            let (registry, id) = (registry.clone(), id.clone());
            tokio::spawn(async move { registry.append_event(&id, note(1)).await })
        })
        .collect();
    log.queued_at_least(20).await;
    let began = tokio::time::Instant::now();
    let report = registry.shut_down(Duration::from_secs(5)).await;
    assert!(began.elapsed() <= Duration::from_secs(20), "four times the patience at the most: {:?}", began.elapsed());
    assert_eq!((report.processes_rested, report.processes_killed, report.shards_killed), (10, 20, 1));
    assert_eq!(report.first_killed, ids[..16], "the first of them, by id");
    for call in stuck {
        let answer = call.await.expect("no panic");
        assert!(matches!(answer, Err(RegistryError::OutcomeUnknown { .. })), "it is at the log, got {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_costs_nobody_the_report() {
    let registry = start(&MemoryLog::new("s"), |_| {}).await;
    registered(&registry, 3).await;
    let report = registry.shut_down_with_progress(Duration::from_secs(5), |_| panic!("scripted panic")).await;
    assert_eq!(report.processes_rested, 3);
}

/// By hand with `PROCTOR_SHUTDOWN_ACTORS=100000`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_live_actors_come_to_rest_within_the_patience() {
    let text = std::env::var("PROCTOR_SHUTDOWN_ACTORS").ok();
    let actors = text.and_then(|text| text.parse().ok()).unwrap_or(5_000);
    let log = MemoryLog::new("s");
    let registry = start(&log, |options| options.passivate_after = Duration::from_secs(3_600)).await;
    registered(&registry, actors).await;
    assert_eq!(registry.live_actors(), actors);
    let (steps, progress) = observed();
    let began = std::time::Instant::now();
    let report = registry.shut_down_with_progress(Duration::from_secs(60), progress).await;
    let took = format!("{:.2?}", began.elapsed());
    assert_eq!((report.processes_rested, report.processes_killed), (actors, 0), "{report:?}");
    assert_eq!(registry.holdings().live_actors, 0);
    println!("{actors} live actors came to rest in {took}, told in {} steps", told(&steps).len());
    record(&RunRecord {
        name: "shutdown".to_owned(),
        what: "a registry with so many live actors is shut down".to_owned(),
        ran: actors as u64,
        unit: "actors".to_owned(),
        seed: None,
        violations: 0,
        measured: [("time to the report".to_owned(), took)].into(),
        not_run: None,
    });
}

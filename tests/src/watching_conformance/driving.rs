//! Cases of the driver.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use awaiter::{AwaitError, DriverError, ProcessWorkDriver};
use registry_actor::domain::{ProcessAwaitOutput, ProcessId, ProjectionWatermark, PruneFilter, Sequence};
use registry_actor::port::{EngineError, ProcessAttach, ProcessRegistryExt, ProcessRunHandle};

use super::scene::{Scene, Watched, registered, success};
use super::standing_time::StandingTime;
use crate::example_process::{note, process_id};

/// The registry knows how it ended: no engine has to.
pub async fn driver_short_circuits_terminal_before_attach(scene: &Scene) {
    let driver = driver(scene).with_attach(Arc::new(Engine::unreachable()));
    let id = registered(&*driver.process_registry(), "p").await;
    driver.process_registry().complete_process(&id, success(1)).await.expect("an outcome");
    assert_eq!(driver.await_terminal(&id).await, Ok(success(1)));
}

/// What an engine answers stands: a registry that never hears of the end would be polled for ever. Time stands still, and
/// the process does not end.
pub async fn driver_attach_errors_propagate_without_poll_fallback(scene: &Scene) {
    let time = StandingTime::begin();
    let engine = Arc::new(Engine::answering(Err(EngineError::engine("attach failed"))));
    let driver = driver(scene).with_attach(Arc::clone(&engine) as _);
    let id = registered(&*driver.process_registry(), "p").await;
    let waiting = tokio::time::timeout(Duration::from_secs(1), driver.await_terminal(&id)).await;
    let error = waiting.expect("it does not wait").expect_err("the engine failed");
    assert_eq!(error, DriverError::Engine(EngineError::engine("attach failed")));
    assert_eq!(error.to_string(), "attach failed");
    assert_eq!((engine.calls(), time.elapsed()), (1, Duration::ZERO));
}

/// A host that comes back asks no engine for what the registry has. The peer asks for less than 500 ms; time stands still.
pub async fn driver_reattach_after_terminal_short_circuits_without_engine_call(scene: &Scene) {
    let time = StandingTime::begin();
    let first = Arc::new(Engine::answering(Ok(success(7))));
    let driver = driver(scene).with_attach(Arc::clone(&first) as _);
    let id = registered(&*driver.process_registry(), "p").await;
    assert_eq!(driver.await_terminal(&id).await, Ok(success(7)));
    driver.process_registry().complete_process(&id, success(7)).await.expect("an outcome");
    assert_eq!(first.calls(), 1);

    let second = Arc::new(Engine::answering(Err(EngineError::engine("gone"))));
    let again = ProcessWorkDriver::from_watched(driver.process_registry(), driver.change_hub().clone(), idle())
        .with_attach(Arc::clone(&second) as _);
    assert_eq!(again.await_terminal(&id).await, Ok(success(7)));
    assert_eq!((second.calls(), time.elapsed()), (0, Duration::ZERO));
}

/// The engine's outcome is the answer, before the registry has it.
pub async fn driver_asks_its_engine_for_what_has_not_ended(scene: &Scene) {
    let engine = Arc::new(Engine::answering(Ok(success(3))));
    let driver = driver(scene).with_attach(Arc::clone(&engine) as _);
    let id = registered(&*driver.process_registry(), "p").await;
    assert_eq!(driver.await_terminal(&id).await, Ok(success(3)));
    assert_eq!(engine.calls(), 1);
    assert!(!driver.process_registry().get_process(&id).await.expect("a read").expect("a record").status.is_terminal());
}

/// With an engine or without one, what is not there is not waited for.
pub async fn driver_answers_what_a_registry_knows_of_missing_and_pruned_processes(scene: &Scene) {
    let Watched { registry, hub } = scene.watch();
    let without = ProcessWorkDriver::from_watched(registry, hub, idle());
    let with = without.clone().with_attach(Arc::new(Engine::unreachable()));
    let registry = without.process_registry();
    let gone = registered(&*registry, "gone").await;
    registry.complete_process(&gone, success(1)).await.expect("an outcome");
    scene.clock.advance_ms(1);
    let filter = PruneFilter::ended_before(u64::MAX);
    registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
    for driver in [without, with] {
        let unknown = driver.await_terminal(&process_id("missing")).await.expect_err("unknown");
        assert_eq!(unknown.to_string(), "unknown process `missing`");
        let pruned = driver.await_terminal(&gone).await.expect_err("gone");
        let DriverError::Await(AwaitError::NoLongerRetained { tombstone }) = pruned else {
            panic!("expected a tombstone, got {pruned:?}")
        };
        assert_eq!(tombstone.process_id, gone);
    }
}

/// Engines know no events.
pub async fn driver_waits_for_events_without_its_engine(scene: &Scene) {
    let time = StandingTime::begin();
    let driver = driver(scene).with_attach(Arc::new(Engine::unreachable()));
    let id = registered(&*driver.process_registry(), "p").await;
    let waiting = tokio::spawn({
        let (driver, id) = (driver.clone(), id.clone());
        async move { driver.await_event(&id, "note", Sequence(0)).await }
    });
    scene.beneath.reads(1).await;
    driver.process_registry().append_event(&id, note(1)).await.expect("an append");
    assert_eq!(waiting.await.expect("a task").expect("an event").sequence, Sequence(1));
    assert_eq!(time.elapsed(), Duration::ZERO);
}

/// Whoever nudges may look at the answer.
pub async fn driver_returns_the_error_of_its_run_handle(scene: &Scene) {
    let worker = Arc::new(Worker { answers: Err(EngineError::engine("no workers")), reasons: Mutex::default() });
    let driver = ProcessWorkDriver::new_with_sink(scene.port(), Arc::clone(&worker) as _, None);
    assert_eq!(driver.claim_and_run_pending("timer").await, Err(EngineError::engine("no workers")));
    assert_eq!(worker.reasons(), ["timer"], "it is asked once");
}

/// A worker is taken by value, and is asked with the reason.
pub async fn inline_driver_runs_its_worker(scene: &Scene) {
    let worker = Arc::new(Worker { answers: Ok(()), reasons: Mutex::default() });
    let driver = ProcessWorkDriver::inline(scene.port(), Shared(Arc::clone(&worker)));
    assert_eq!(driver.claim_and_run_pending("process_start").await, Ok(()));
    assert_eq!(worker.reasons(), ["process_start"]);
    let id = registered(&*driver.process_registry(), "p").await;
    driver.process_registry().complete_process(&id, success(1)).await.expect("an outcome");
    assert_eq!(driver.awaiter().await_terminal(&id).await, Ok(success(1)));
}

fn driver(scene: &Scene) -> ProcessWorkDriver {
    ProcessWorkDriver::new(scene.port(), idle())
}

fn idle() -> Arc<dyn ProcessRunHandle> {
    Arc::new(Worker { answers: Ok(()), reasons: Mutex::default() })
}

/// An engine that gives one answer.
struct Engine {
    answer: Option<Result<ProcessAwaitOutput, EngineError>>,
    calls: AtomicUsize,
}

impl Engine {
    fn answering(answer: Result<ProcessAwaitOutput, EngineError>) -> Self {
        Self { answer: Some(answer), calls: AtomicUsize::new(0) }
    }

    /// One that must not be asked.
    fn unreachable() -> Self {
        Self { answer: None, calls: AtomicUsize::new(0) }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ProcessAttach for Engine {
    async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, EngineError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.answer.clone().unwrap_or_else(|| panic!("nobody asks the engine for `{process_id}`"))
    }
}

struct Worker {
    answers: Result<(), EngineError>,
    reasons: Mutex<Vec<String>>,
}

impl Worker {
    fn reasons(&self) -> Vec<String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl ProcessRunHandle for Worker {
    async fn claim_and_run_pending(&self, reason: &str) -> Result<(), EngineError> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).push(reason.to_owned());
        self.answers.clone()
    }
}

/// A worker that a test still holds.
struct Shared(Arc<Worker>);

#[async_trait]
impl ProcessRunHandle for Shared {
    async fn claim_and_run_pending(&self, reason: &str) -> Result<(), EngineError> {
        self.0.claim_and_run_pending(reason).await
    }
}

//! The worker: what becomes of each process under each declaration, while owners die, clocks jump and actors are killed.
//!
//! Time stands still unless somebody sleeps: the clock of the store goes with that of the runtime.

#[path = "worker/hard_cases.rs"]
mod hard_cases;

use std::sync::Arc;
use std::time::Duration;

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    AbandonRequest, AbandonWriter, AttemptFailure, Command, CoreEventType, LeaseFence, LeaseOwnerIdentity,
    LeaseOwnerLiveness, LeaseTimings, ParentEndRule, ProcessAwaitOutput, ProcessFailureClass, ProcessId, ProcessInput,
    ProcessLease, ProcessParent, ProcessRecord, ProcessRegistration, ProcessSignal, ProcessStarted,
    ProcessTerminalState, RecoveryDisposition, RetryPolicy, Sequence, StoreSession, WriteAuthority,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Clock, ProcessRegistry, ProcessRegistryExt as _, ProcessRunHandle as _, ProcessWait, RunEnd, RunWaitError,
    StopCause, WaitAnswer,
};
use registry_actor::worker::{ExplainedStep, ProcessExecutors, Worker, WorkerOptions};
use registry_tests::VirtualClock;
use registry_tests::direct_registry::DirectRegistry;
use registry_tests::example_process::{opaque_owner, process_id};
use registry_tests::scripted_executor::ScriptedExecutor;
use serde_json::json;

use RecoveryDisposition::{ExternallyOwned, OwnerBound, Rerunnable};

/// Longer than anything that is waited for: virtual, so it costs nothing.
const BOUND: Duration = Duration::from_secs(24 * 3_600);
const KIND: &str = "scripted";
const TTL: Duration = Duration::from_secs(30);

struct Scene {
    clock: Arc<VirtualClock>,
    registry: ActorRegistry,
    executor: ScriptedExecutor,
    worker_options: WorkerOptions,
}

fn owner(name: &str, session: &StoreSession) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        owner_id: name.to_owned(),
        incarnation_id: "life".to_owned(),
        liveness: LeaseOwnerLiveness::StoreSession { session: session.clone() },
    }
}

impl Scene {
    async fn new() -> Self {
        Self::over(MemoryLog::new("store"), Arc::new(VirtualClock::default())).await
    }

    async fn over(log: MemoryLog, clock: Arc<VirtualClock>) -> Self {
        let mut options = RegistryOptions::default();
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let registry = ActorRegistry::start(Arc::new(log), options).await.expect("a registry");
        let session = registry.session().clone();
        let mut worker_options = WorkerOptions::new(owner("worker", &session));
        worker_options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Self { clock, registry, executor: ScriptedExecutor::default(), worker_options }
    }

    fn executors(&self) -> ProcessExecutors {
        ProcessExecutors::default().with(KIND, self.executor.clone())
    }

    async fn worker(&self) -> Worker {
        self.worker_over(Arc::new(self.registry.clone())).await
    }

    async fn worker_over(&self, registry: Arc<dyn ProcessRegistry>) -> Worker {
        Worker::start(registry, self.executors(), self.worker_options.clone()).await.expect("a worker")
    }

    async fn register(&self, registration: ProcessRegistration) -> ProcessId {
        let id = registration.id.clone();
        self.registry.register_process(registration).await.expect("registered");
        id
    }

    async fn record(&self, id: &ProcessId) -> Arc<ProcessRecord> {
        self.registry.get_process(id).await.expect("readable").expect("there")
    }

    /// Waits for the outcome.
    async fn outcome(&self, id: &ProcessId) -> ProcessAwaitOutput {
        let wait = ProcessWait::outcome(id.clone());
        let answer = tokio::time::timeout(BOUND, self.registry.wait(&wait)).await.expect("it ends").expect("an answer");
        match answer {
            WaitAnswer::Completed { record } => record.status.await_output().expect("an outcome").clone(),
            other => panic!("expected an outcome, got {other:?}"),
        }
    }

    async fn event(&self, id: &ProcessId, event_type: CoreEventType) {
        let wait = ProcessWait::event(id.clone(), event_type.name(), Sequence::REGISTRATION);
        tokio::time::timeout(BOUND, self.registry.wait(&wait)).await.expect("it happens").expect("an answer");
    }

    async fn claim(&self, id: &ProcessId, owner: LeaseOwnerIdentity, ttl: Duration) -> ProcessLease {
        let ttl_ms = u64::try_from(ttl.as_millis()).expect("a ttl");
        let claimed = self.registry.claim_process_lease(id, owner, ttl_ms).await.expect("an answer");
        claimed.acquired().expect("the lease is free")
    }

    /// Begins an attempt as another owner, whose death is known by its liveness.
    async fn begin(&self, id: &ProcessId, owner: LeaseOwnerIdentity, ttl: Duration) -> LeaseFence {
        let fence = self.claim(id, owner.clone(), ttl).await.fence();
        let started = ProcessStarted { owner, started_at_ms: self.clock.now().epoch_ms };
        let command = Command::BeginAttempt { started, fence: fence.clone() };
        self.registry.execute(id, command).await.expect("begun");
        fence
    }

    async fn end(self, worker: Worker) {
        worker.shut_down(Duration::ZERO).await;
        self.registry.shut_down(BOUND).await;
    }
}

fn registration(name: &str, disposition: RecoveryDisposition) -> ProcessRegistration {
    ProcessRegistration::new(process_id(name), ProcessInput::new(KIND, json!({})), disposition)
}

fn dead_owner() -> LeaseOwnerIdentity {
    owner("dead host", &StoreSession { store_id: "store".into(), number: 0 })
}

fn success() -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!("done"))
}

fn failure_code(output: &ProcessAwaitOutput) -> Option<&str> {
    match output {
        ProcessAwaitOutput::Failure { code, .. } => Some(code),
        _ => None,
    }
}

async fn for_ever() -> RunEnd {
    std::future::pending().await
}

async fn until_stopped(run: Arc<dyn registry_actor::port::ProcessRun>) -> RunEnd {
    run.stopped().await;
    RunEnd::Stopped
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_run_and_its_lease_is_given_up_with_its_outcome() {
    let scene = Scene::new().await;
    let before = scene.register(registration("before", Rerunnable)).await;
    let worker = scene.worker().await;
    assert_eq!(scene.outcome(&before).await, success());
    let after = scene.register(registration("after", OwnerBound)).await;
    assert_eq!(scene.outcome(&after).await, success(), "the worker hears of it without being asked");
    for id in [&before, &after] {
        let record = scene.record(id).await;
        assert_eq!(record.attempts.begun, 1);
        assert_eq!(record.first_started.as_ref().expect("started").owner, scene.worker_options.owner);
        assert_eq!(scene.registry.get_process_lease(id).await.expect("readable"), None);
    }
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn other_kinds_and_what_is_owned_elsewhere_are_not_touched() {
    let scene = Scene::new().await;
    let other = ProcessRegistration::new(process_id("other"), ProcessInput::new("else", json!({})), Rerunnable);
    let other = scene.register(other).await;
    let external = scene.register(registration("external", ExternallyOwned)).await;
    let worker = scene.worker().await;
    let report = worker.sweep().await.expect("a pass");
    assert_eq!((report.looked_at, report.begun, report.without_executor, report.external), (2, 0, 1, 1));
    for id in [&other, &external] {
        assert_eq!(scene.record(id).await.attempts.begun, 0);
        assert_eq!(scene.registry.get_process_lease(id).await.expect("readable"), None, "not even claimed");
    }
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn started_owner_bound_work_of_a_dead_host_is_abandoned_with_what_was_found_of_it() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", OwnerBound)).await;
    scene.begin(&id, dead_owner(), TTL).await;
    scene.executor.remains(&id, Ok(json!({ "killed": [777] })));
    let worker = scene.worker().await;
    let ProcessAwaitOutput::Abandoned { evidence, .. } = scene.outcome(&id).await else { panic!("not abandoned") };
    assert_eq!((evidence.writer, evidence.owner), (AbandonWriter::Sweep, Some(dead_owner())));
    assert_eq!(evidence.detail.expect("detail")["remains"]["killed"], json!([777]));
    assert_eq!(scene.executor.told().begun, [], "it is never run again");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn rerunnable_work_of_a_dead_host_is_run_again_at_once_as_the_next_attempt() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    scene.begin(&id, dead_owner(), TTL).await;
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    assert_eq!(scene.outcome(&id).await, success());
    assert!(began.elapsed() < Duration::from_secs(1), "a proof of death needs no ttl");
    assert_eq!(scene.executor.attempts(&id), [2]);
    assert_eq!(scene.executor.told().remains, [id], "what the first one left is ended before");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn an_opaque_holder_is_waited_for_until_its_lease_has_run_out_and_not_much_longer() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    let fence = scene.begin(&id, opaque_owner("stranger"), TTL).await;
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    scene.executor.until(|told| !told.begun.is_empty()).await;
    let took = began.elapsed();
    assert!(took >= TTL && took < TTL + Duration::from_secs(1), "{took:?}");
    scene.outcome(&id).await;
    let late = Command::Complete {
        output: ProcessAwaitOutput::success(json!("late")),
        authority: WriteAuthority::Holder(fence),
        lease: registry_actor::domain::LeaseRelease::Release,
    };
    scene.registry.execute(&id, late).await.expect_err("the stranger comes back and is refused");
    assert_eq!(scene.outcome(&id).await, success());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn started_owner_bound_work_of_an_opaque_owner_is_stuck_and_said_to_be() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", OwnerBound)).await;
    scene.begin(&id, opaque_owner("stranger"), TTL).await;
    let worker = scene.worker().await;
    let held = worker.explain(&id).await.expect("explained");
    assert!(matches!(held.step, ExplainedStep::Held { .. }) && !held.stuck, "{held:?}");
    tokio::time::sleep(TTL * 2).await;
    let report = worker.sweep().await.expect("a pass");
    assert_eq!((report.stuck, &report.stuck_ids), (1, &vec![id.clone()]));
    let stuck = worker.explain(&id).await.expect("explained");
    assert!(stuck.stuck && format!("{stuck:?}").contains("stranger"), "{stuck:?}");
    assert!(!scene.record(&id).await.status.is_terminal());
    let request = AbandonRequest { requested_by: "ops".to_owned(), requested_at_ms: 1, reason: None };
    scene.registry.request_process_abandon(&id, request).await.expect("requested");
    let ProcessAwaitOutput::Abandoned { evidence, .. } = scene.outcome(&id).await else { panic!("not abandoned") };
    assert_eq!((evidence.writer, evidence.owner), (AbandonWriter::ReconciledRequest, Some(opaque_owner("stranger"))));
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn an_abandon_request_is_honoured_for_every_disposition_when_the_lease_has_lapsed_and_not_before() {
    let scene = Scene::new().await;
    let mut ids = Vec::new();
    for disposition in [Rerunnable, OwnerBound, ExternallyOwned] {
        let id = scene.register(registration(disposition.label(), disposition)).await;
        scene.claim(&id, opaque_owner("stranger"), TTL).await;
        let request = AbandonRequest { requested_by: "ops".to_owned(), requested_at_ms: 1, reason: None };
        scene.registry.request_process_abandon(&id, request).await.expect("requested");
        ids.push(id);
    }
    let worker = scene.worker().await;
    tokio::time::sleep(TTL - Duration::from_secs(1)).await;
    for id in &ids {
        assert!(!scene.record(id).await.status.is_terminal(), "{id} is held");
    }
    for id in &ids {
        let output = scene.outcome(id).await;
        assert_eq!(output.terminal_state(), ProcessTerminalState::Abandoned, "{id}");
    }
    assert_eq!(scene.executor.told().begun, []);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_followed_by_the_next_after_its_backoff_until_there_are_no_more() {
    let scene = Scene::new().await;
    let retry = RetryPolicy { max_attempts: 3, initial_backoff_ms: 10_000, max_backoff_ms: 15_000 };
    let id = process_id("p");
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let began = tokio::time::Instant::now();
    let noted = Arc::clone(&times);
    scene.executor.script(&id, move |run| {
        noted.lock().expect("times").push(began.elapsed().as_secs());
        async move { RunEnd::Failed(AttemptFailure::execution("exit", format!("attempt {}", run.attempt()))) }
    });
    scene.register(registration("p", Rerunnable).with_retry(retry)).await;
    let worker = scene.worker().await;
    let output = scene.outcome(&id).await;
    assert_eq!(failure_code(&output), Some("exit"), "the last failure is the outcome: {output:?}");
    assert_eq!(scene.executor.attempts(&id), [1, 2, 3]);
    assert_eq!(*times.lock().expect("times"), [0, 10, 25]);
    scene.end(worker).await;
}

/// A process whose work kills its host each time would otherwise kill every host that comes, for ever.
#[tokio::test(start_paused = true)]
async fn attempts_whose_host_died_count_too() {
    let scene = Scene::new().await;
    let retry = RetryPolicy { max_attempts: 2, initial_backoff_ms: 1, max_backoff_ms: 1 };
    let id = scene.register(registration("p", Rerunnable).with_retry(retry)).await;
    for _ in 0..2 {
        let fence = scene.begin(&id, dead_owner(), TTL).await;
        let release = Command::ReleaseLease { lease_token: fence.lease_token };
        scene.registry.execute(&id, release).await.expect("released");
    }
    let worker = scene.worker().await;
    assert_eq!(failure_code(&scene.outcome(&id).await), Some("attempts_exhausted"));
    assert_eq!(scene.executor.told().begun, []);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_panics_has_failed() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| async { panic!("on purpose") });
    scene.register(registration("p", OwnerBound)).await;
    let worker = scene.worker().await;
    let output = scene.outcome(&id).await;
    assert_eq!(failure_code(&output), Some("executor_panicked"));
    assert!(format!("{output:?}").contains("on purpose"), "{output:?}");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_asked_to_stop_is_cancelled_with_the_reason() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, until_stopped);
    scene.register(registration("p", OwnerBound)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    scene.registry.request_process_cancel(&id, Some("enough".to_owned())).await.expect("asked");
    assert_eq!(scene.outcome(&id).await, ProcessAwaitOutput::cancelled("enough"));
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_cancelled_before_anybody_began_it_is_not_run() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    scene.registry.request_process_cancel(&id, None).await.expect("asked");
    let worker = scene.worker().await;
    assert_eq!(scene.outcome(&id).await.terminal_state(), ProcessTerminalState::Cancelled);
    assert_eq!(scene.executor.told().begun, []);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stops_a_run_and_one_that_does_not_stop_is_dropped_after_the_grace() {
    let scene = Scene::new().await;
    for (name, stops) in [("polite", true), ("deaf", false)] {
        let id = process_id(name);
        scene
            .executor
            .script(&id, move |run| async move { if stops { until_stopped(run).await } else { for_ever().await } });
        scene.register(registration(name, OwnerBound).with_deadline_ms(60_000)).await;
    }
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    assert_eq!(failure_code(&scene.outcome(&process_id("polite")).await), Some("deadline_passed"));
    assert_eq!(began.elapsed().as_secs(), 60);
    let output = scene.outcome(&process_id("deaf")).await;
    assert_eq!(failure_code(&output), Some("deadline_passed"));
    assert!(matches!(output, ProcessAwaitOutput::Failure { class: ProcessFailureClass::Timeout, .. }));
    assert_eq!(began.elapsed(), Duration::from_secs(60) + scene.worker_options.grace);
    scene.executor.until(|told| told.over == 2).await;
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_what_nobody_runs() {
    let scene = Scene::new().await;
    let external = scene.register(registration("external", ExternallyOwned).with_deadline_ms(60_000)).await;
    let stuck = scene.register(registration("stuck", OwnerBound).with_deadline_ms(60_000)).await;
    scene.begin(&stuck, opaque_owner("stranger"), Duration::from_secs(10)).await;
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    for id in [&external, &stuck] {
        assert_eq!(failure_code(&scene.outcome(id).await), Some("deadline_passed"), "{id}");
        assert!(began.elapsed() < Duration::from_secs(62), "{id} after {:?}", began.elapsed());
    }
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_child_is_asked_to_stop_when_its_parent_ends_or_is_asked_to() {
    let scene = Scene::new().await;
    let child = |name: &str, parent: &str, on_end| {
        let parent = ProcessParent { process_id: process_id(parent), on_end };
        registration(name, OwnerBound).with_parent(parent)
    };
    for name in ["ends", "cancelled", "of ends", "of cancelled", "free"] {
        scene.executor.script(&process_id(name), until_stopped);
    }
    for parent in ["ends", "cancelled"] {
        scene.register(registration(parent, OwnerBound)).await;
    }
    scene.register(child("of ends", "ends", ParentEndRule::RequestCancel)).await;
    scene.register(child("of cancelled", "cancelled", ParentEndRule::RequestCancel)).await;
    scene.register(child("free", "ends", ParentEndRule::LeaveAlone)).await;
    // Somebody else holds this one: it is asked all the same.
    let held = scene.register(child("held", "ends", ParentEndRule::RequestCancel)).await;
    scene.begin(&held, opaque_owner("stranger"), TTL).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 5).await;
    scene.registry.request_process_cancel(&process_id("cancelled"), None).await.expect("asked");
    for id in ["cancelled", "of cancelled"] {
        assert_eq!(scene.outcome(&process_id(id)).await.terminal_state(), ProcessTerminalState::Cancelled, "{id}");
    }
    assert!(!scene.record(&process_id("of ends")).await.status.is_terminal());
    scene.registry.request_process_cancel(&process_id("ends"), None).await.expect("asked");
    for id in ["ends", "of ends"] {
        assert_eq!(scene.outcome(&process_id(id)).await.terminal_state(), ProcessTerminalState::Cancelled, "{id}");
    }
    scene.event(&held, CoreEventType::CancelRequested).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!scene.record(&process_id("free")).await.status.is_terminal());
    scene.end(worker).await;
}

/// With one place for a run, a parent that waits for its child kept it from ever being run.
#[tokio::test(start_paused = true)]
async fn a_parent_that_waits_for_its_child_takes_no_place() {
    let mut scene = Scene::new().await;
    scene.worker_options.concurrent_runs = 1;
    let parent = process_id("parent");
    scene.executor.script(&parent, |run| async move {
        run.registry().register_process(registration("child", Rerunnable)).await.expect("registered");
        match run.await_process(&process_id("child")).await {
            Ok(output) => RunEnd::Ended(output),
            Err(error) => RunEnd::Failed(AttemptFailure::execution("wait", error.to_string())),
        }
    });
    scene.register(registration("parent", OwnerBound)).await;
    let worker = scene.worker().await;
    assert_eq!(scene.outcome(&parent).await, success());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_run_at_once_and_all_come_to_their_turn() {
    let mut scene = Scene::new().await;
    scene.worker_options.concurrent_runs = 3;
    let ids: Vec<ProcessId> = (0..20).map(|number| process_id(&format!("p{number}"))).collect();
    for id in &ids {
        scene.executor.script(id, |_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            RunEnd::Ended(success())
        });
        scene.register(registration(id.as_str(), OwnerBound)).await;
    }
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    for id in &ids {
        scene.outcome(id).await;
    }
    assert_eq!(began.elapsed().as_secs(), 7, "20 runs of a second, 3 at a time");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_waited_for_and_the_record_says_so() {
    let scene = Scene::new().await;
    let id = process_id("p");
    let signal = || ProcessSignal::new("go").expect("a signal");
    scene.executor.script(&id, move |run| async move {
        match run.await_signal(&signal(), Sequence::REGISTRATION).await {
            Ok(event) => RunEnd::Ended(ProcessAwaitOutput::success(event.payload.clone())),
            Err(error) => RunEnd::Failed(AttemptFailure::execution("wait", error.to_string())),
        }
    });
    let event_type = registry_actor::domain::ProcessEventType::plain(signal().event_type());
    scene.register(registration("p", Rerunnable).with_extra_event_types([event_type])).await;
    let worker = scene.worker().await;
    scene.event(&id, CoreEventType::WaitSet).await;
    let explained = worker.explain(&id).await.expect("explained");
    assert!(matches!(explained.step, ExplainedStep::Held { .. }) && explained.waits_for.is_some(), "{explained:?}");
    scene.registry.signal_process(&id, &signal(), "s1", json!(7)).await.expect("signalled");
    assert_eq!(scene.outcome(&id).await, ProcessAwaitOutput::success(json!(7)));
    assert!(scene.record(&id).await.wait.is_none());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_as_long_as_the_run_takes() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| async {
        tokio::time::sleep(TTL * 20).await;
        RunEnd::Ended(success())
    });
    scene.register(registration("p", OwnerBound)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    for _ in 0..19 {
        tokio::time::sleep(TTL).await;
        let lease = scene.registry.get_process_lease(&id).await.expect("readable").expect("held");
        assert!(lease.expires_at_epoch_ms > scene.clock.now().epoch_ms);
    }
    assert_eq!(scene.outcome(&id).await, success());
    assert_eq!(scene.record(&id).await.attempts.begun, 1);
    scene.end(worker).await;
}

/// A rival that was let in by an administrator, or a store that was away for longer than the lease: the run is told, and what
/// it says afterwards is not stored.
#[tokio::test(start_paused = true)]
async fn a_run_that_lost_its_lease_is_told_has_a_grace_and_writes_nothing() {
    let scene = Scene::new().await;
    let id = process_id("p");
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let causes = Arc::clone(&told);
    scene.executor.script(&id, move |run| {
        let causes = Arc::clone(&causes);
        async move {
            let cause = run.stopped().await;
            let waited = run.await_process(&process_id("p")).await;
            assert_eq!(waited, Err(RunWaitError::Stopped(StopCause::LeaseLost)));
            causes.lock().expect("causes").push(cause);
            for_ever().await
        }
    });
    scene.register(registration("p", Rerunnable)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    let lease = scene.registry.get_process_lease(&id).await.expect("readable").expect("held");
    scene.registry.complete_process_lease(&lease).await.expect("taken away");
    let rival = scene.claim(&id, opaque_owner("rival"), Duration::from_secs(600)).await;
    let began = tokio::time::Instant::now();
    scene.executor.until(|told| told.over == 1).await;
    assert_eq!(*told.lock().expect("causes"), [StopCause::LeaseLost]);
    let renewal = scene.worker_options.timings.renew_interval();
    assert!(began.elapsed() <= renewal + scene.worker_options.grace, "{:?}", began.elapsed());
    assert_eq!(scene.registry.get_process_lease(&id).await.expect("readable"), Some(rival), "the rival keeps its own");
    assert_eq!(scene.record(&id).await.attempts.begun, 1);
    scene.end(worker).await;
}

/// The wall clock of the host was put forth by a year: within a session the monotonic clock decides, and nobody loses a
/// lease or takes one early.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_takes_no_lease_and_gives_none() {
    const YEAR_MS: i64 = 365 * 24 * 3_600 * 1_000;
    let scene = Scene::new().await;
    let ours = process_id("ours");
    scene.executor.script(&ours, |run| async move {
        tokio::select! {
            cause = run.stopped() => RunEnd::Failed(AttemptFailure::execution("stopped", format!("{cause:?}"))),
            () = tokio::time::sleep(TTL * 4) => RunEnd::Ended(success()),
        }
    });
    scene.register(registration("ours", OwnerBound)).await;
    let theirs = scene.register(registration("theirs", Rerunnable)).await;
    scene.begin(&theirs, opaque_owner("stranger"), TTL).await;
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    scene.executor.until(|told| !told.begun.is_empty()).await;
    for ms in [YEAR_MS, -2 * YEAR_MS, YEAR_MS, 1_000, -1_000] {
        scene.clock.jump_ms(ms);
        worker.sweep().await.expect("a pass");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(scene.executor.attempts(&theirs).is_empty(), "not before its ttl");
    }
    scene.executor.until(|told| told.begun.len() == 2).await;
    assert!(began.elapsed() >= TTL && began.elapsed() < TTL + Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(scene.outcome(&ours).await, success());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_run_of_rerunnable_work_is_made_again_and_one_that_is_bound_fails() {
    let scene = Scene::new().await;
    for (name, disposition) in [("bound", OwnerBound), ("again", Rerunnable)] {
        let id = process_id(name);
        scene.executor.script(&id, |run| async move {
            if run.attempt() == 1 { for_ever().await } else { RunEnd::Ended(success()) }
        });
        scene.register(registration(name, disposition)).await;
    }
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 2).await;
    for run in worker.supervisor().get_children() {
        // The drive among them.
        run.kill();
    }
    let began = tokio::time::Instant::now();
    assert_eq!(failure_code(&scene.outcome(&process_id("bound")).await), Some("run_killed"));
    assert_eq!(scene.outcome(&process_id("again")).await, success());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "nobody waits for the ttl of its own lease: {:?}",
        began.elapsed()
    );
    assert_eq!(scene.executor.attempts(&process_id("again")), [1, 2]);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_drive_that_is_killed_comes_back_and_ends_no_run() {
    let scene = Scene::new().await;
    let id = process_id("long");
    scene.executor.script(&id, |_| async {
        tokio::time::sleep(TTL).await;
        RunEnd::Ended(success())
    });
    let worker = scene.worker().await;
    let drive = worker.supervisor().get_children().into_iter().next().expect("the drive");
    scene.register(registration("long", OwnerBound)).await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    drive.kill();
    let later = scene.register(registration("later", OwnerBound)).await;
    assert_eq!(scene.outcome(&later).await, success());
    assert_eq!(scene.outcome(&id).await, success());
    assert_eq!(scene.executor.attempts(&id), [1]);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn remains_that_cannot_be_ended_leave_the_process_as_it_is_and_are_tried_again() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    scene.begin(&id, dead_owner(), TTL).await;
    scene.executor.remains(&id, Err("it does not die".to_owned()));
    let worker = scene.worker().await;
    scene.executor.until(|told| told.remains.len() == 3).await;
    assert_eq!(scene.executor.told().begun, []);
    scene.executor.remains(&id, Ok(json!(null)));
    let began = tokio::time::Instant::now();
    assert_eq!(scene.outcome(&id).await, success());
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_abandons_what_is_bound_to_the_worker_and_nothing_else() {
    let scene = Scene::new().await;
    for name in ["bound", "again", "deaf"] {
        let deaf = name == "deaf";
        scene.executor.script(&process_id(name), move |run| async move {
            if deaf { for_ever().await } else { until_stopped(run).await }
        });
    }
    let bound = scene.register(registration("bound", OwnerBound)).await;
    let deaf = scene.register(registration("deaf", OwnerBound)).await;
    let again = scene.register(registration("again", Rerunnable)).await;
    let external = scene.register(registration("external", ExternallyOwned)).await;
    let foreign = scene.register(registration("foreign", OwnerBound)).await;
    scene.begin(&foreign, opaque_owner("stranger"), TTL).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 3).await;
    let report = worker.drain_owner_bound_work(Duration::from_secs(3)).await.expect("drained");
    assert_eq!(report.killed, std::slice::from_ref(&deaf));
    assert!(report.deferred.is_empty(), "{report:?}");
    let ProcessAwaitOutput::Abandoned { evidence, .. } = scene.outcome(&bound).await else { panic!("not abandoned") };
    assert_eq!(evidence.writer, AbandonWriter::OwnerDrain);
    assert_eq!(evidence.owner, Some(scene.worker_options.owner.clone()));
    assert!(report.abandoned.contains(&bound), "{report:?}");
    assert_eq!(failure_code(&scene.outcome(&deaf).await), Some("run_killed"));
    let unstarted = scene.register(registration("unstarted", OwnerBound)).await;
    tokio::time::sleep(TTL * 2).await;
    for id in [&again, &external, &foreign, &unstarted] {
        assert!(!scene.record(id).await.status.is_terminal(), "{id}");
    }
    assert_eq!(scene.registry.get_process_lease(&again).await.expect("readable"), None, "free for the next worker");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_begins_no_more_lets_what_runs_go_on_and_leaves_the_rest() {
    let scene = Scene::new().await;
    let id = process_id("long");
    scene.executor.script(&id, |_| async {
        tokio::time::sleep(TTL).await;
        RunEnd::Ended(success())
    });
    let worker = scene.worker().await;
    scene.register(registration("long", OwnerBound)).await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    worker.begin_no_more();
    let late = scene.register(registration("late", OwnerBound)).await;
    worker.idle().await;
    assert_eq!(scene.outcome(&id).await, success());
    tokio::time::sleep(TTL * 2).await;
    assert!(scene.executor.attempts(&late).is_empty());
    assert!(!scene.record(&late).await.status.is_terminal());
    scene.end(worker).await;
}

/// Nothing tells this worker of commits: it reads.
#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_tell_is_asked_from_time_to_time() {
    let scene = Scene::new().await;
    let silent = DirectRegistry::new(Arc::clone(scene.registry.log()), Arc::clone(&scene.clock), 7);
    let id = process_id("p");
    scene.executor.script(&id, until_stopped);
    let worker = scene.worker_over(Arc::new(silent)).await;
    scene.register(registration("p", OwnerBound)).await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    scene.registry.request_process_cancel(&id, None).await.expect("asked");
    assert_eq!(scene.outcome(&id).await.terminal_state(), ProcessTerminalState::Cancelled);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_run_nothing_twice() {
    let mut scene = Scene::new().await;
    scene.worker_options.timings = LeaseTimings::from_ttl(Duration::from_secs(3)).expect("valid");
    for number in 0..50 {
        scene.executor.script(&process_id(&format!("p{number}")), |_| async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            RunEnd::Ended(success())
        });
    }
    let one = scene.worker().await;
    let session = scene.registry.session().clone();
    scene.worker_options.owner = owner("second", &session);
    let two = scene.worker().await;
    let mut ids = Vec::new();
    for number in 0..50 {
        ids.push(scene.register(registration(&format!("p{number}"), OwnerBound)).await);
    }
    for id in &ids {
        assert_eq!(scene.outcome(id).await, success());
        assert_eq!(scene.executor.attempts(id), [1]);
    }
    one.shut_down(Duration::ZERO).await;
    scene.end(two).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_handle_begins_work_and_does_not_wait_for_it() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, until_stopped);
    let worker = scene.worker().await;
    scene.register(registration("p", OwnerBound)).await;
    worker.claim_and_run_pending("process_start").await.expect("begun");
    worker.claim_and_run_pending("process_start").await.expect("idempotent");
    scene.executor.until(|told| told.begun.len() == 1).await;
    assert_eq!(worker.under_way(), [id]);
    worker.shut_down(Duration::from_secs(1)).await;
    worker.claim_and_run_pending("too late").await.expect_err("it has stopped");
    scene.registry.shut_down(BOUND).await;
}

//! The worker where two things happen at once: waits that are given up, causes that meet, stores that do not say what they
//! did, and actors that die in the midst of it.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use registry_actor::domain::{Limits, Receipt, Refusal, RegistryCommand, RegistryReceipt};
use registry_actor::port::{
    Answer, ChangeSource, DurabilityTier, ProcessExecutor, ProcessRun, Query, RegistryError, RemainsError, RemainsOf,
};
use registry_actor::worker::WorkerError;
use tokio::sync::Notify;

use super::*;

/// What becomes of a command on its way.
enum Way {
    On,
    /// It is answered so, and goes nowhere.
    Lost(RegistryError),
    /// It is never answered.
    Nowhere,
    /// It is carried out, and the answer is lost.
    NoAnswer,
    /// It is carried out after this.
    After(Pin<Box<dyn Future<Output = ()> + Send>>),
}

type OnCommand = Box<dyn Fn(&ProcessId, &Command) -> Way + Send + Sync>;
type OnQuery = Box<dyn Fn(&Query) + Send + Sync>;

/// A registry with something between it and its caller.
struct Between {
    registry: ActorRegistry,
    on_command: OnCommand,
    on_query: OnQuery,
}

impl Between {
    fn commands(scene: &Scene, on_command: impl Fn(&ProcessId, &Command) -> Way + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            registry: scene.registry.clone(),
            on_command: Box::new(on_command),
            on_query: Box::new(|_| ()),
        })
    }

    fn queries(scene: &Scene, on_query: impl Fn(&Query) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            registry: scene.registry.clone(),
            on_command: Box::new(|_, _| Way::On),
            on_query: Box::new(on_query),
        })
    }
}

#[async_trait]
impl ProcessRegistry for Between {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        match (self.on_command)(process_id, &command) {
            Way::On => self.registry.execute(process_id, command).await,
            Way::Lost(error) => Err(error),
            Way::Nowhere => std::future::pending().await,
            Way::NoAnswer => {
                self.registry.execute(process_id, command).await?;
                Err(unknown())
            }
            Way::After(first) => {
                first.await;
                self.registry.execute(process_id, command).await
            }
        }
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.registry.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        (self.on_query)(&query);
        self.registry.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.registry.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.registry.change_source()
    }
}

fn unknown() -> RegistryError {
    let operation = registry_actor::domain::OperationId { issuer: 1, number: 1 };
    RegistryError::OutcomeUnknown { process_id: process_id("p"), operation, reason: "the line was cut".to_owned() }
}

/// Whether it is the first time.
fn once(flag: &AtomicBool) -> bool {
    !flag.swap(true, Ordering::SeqCst)
}

fn not_stored() -> RegistryError {
    RegistryError::NotStored { reason: "the disk is full".to_owned() }
}

async fn succeed_after(seconds: u64) -> RunEnd {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    RunEnd::Ended(success())
}

/// The child that ended first gave the parent its place back, and the other one was never run.
#[tokio::test(start_paused = true)]
async fn a_parent_that_waits_for_two_children_at_once_takes_no_place_until_both_have_ended() {
    let mut scene = Scene::new().await;
    scene.worker_options.concurrent_runs = 1;
    let parent = process_id("parent");
    scene.executor.script(&parent, |run| async move {
        for child in ["one", "two"] {
            run.registry().register_process(registration(child, Rerunnable)).await.expect("registered");
        }
        let (one, two) = (process_id("one"), process_id("two"));
        let (one, two) = tokio::join!(run.await_process(&one), run.await_process(&two));
        one.and(two).map_or_else(|error| panic!("{error}"), RunEnd::Ended)
    });
    scene.register(registration("parent", OwnerBound)).await;
    let worker = scene.worker().await;
    assert_eq!(scene.outcome(&parent).await, success());
    scene.end(worker).await;
}

/// A wait with a limit of time left the run without a place for good, so that ever more runs went on at once.
#[tokio::test(start_paused = true)]
async fn a_run_that_gives_up_a_wait_takes_its_place_again() {
    let mut scene = Scene::new().await;
    scene.worker_options.concurrent_runs = 1;
    let began = tokio::time::Instant::now();
    scene.executor.script(&process_id("a"), |run| async move {
        let never = process_id("never");
        drop(tokio::time::timeout(Duration::from_secs(1), run.await_process(&never)).await);
        succeed_after(100).await
    });
    let third = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&third);
    scene.executor.script(&process_id("b"), |_| succeed_after(10));
    scene.executor.script(&process_id("c"), move |_| {
        *noted.lock().expect("noted") = Some(began.elapsed());
        succeed_after(1)
    });
    scene.register(registration("never", ExternallyOwned)).await;
    for name in ["a", "b", "c"] {
        scene.register(registration(name, OwnerBound)).await;
    }
    let worker = scene.worker().await;
    scene.outcome(&process_id("c")).await;
    let third = third.lock().expect("noted").expect("it ran");
    assert!(third >= Duration::from_secs(101), "c began after {third:?}, while a ran");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_asked_to_stop_does_not_wait_for_a_place_to_do_so() {
    let mut scene = Scene::new().await;
    scene.worker_options.concurrent_runs = 1;
    let (waits, runs) = (process_id("a waits"), process_id("b runs"));
    scene.executor.script(&waits, |run| async move {
        run.await_process(&process_id("never")).await.expect_err("it is asked to stop");
        RunEnd::Stopped
    });
    scene.executor.script(&runs, |_| for_ever());
    scene.register(registration("never", ExternallyOwned)).await;
    for id in [&waits, &runs] {
        scene.register(registration(id.as_str(), OwnerBound)).await;
    }
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 2).await;
    scene.registry.request_process_cancel(&waits, None).await.expect("asked");
    assert_eq!(scene.outcome(&waits).await.terminal_state(), ProcessTerminalState::Cancelled);
    scene.end(worker).await;
}

/// Bound to its owner, it was stuck for as long as that one lived; else it was run again and again.
#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_refused_is_a_failure() {
    let scene = Scene::new().await;
    for (name, disposition) in [("bound", OwnerBound), ("again", Rerunnable)] {
        let large = || "x".repeat(Limits::PAYLOAD_BYTES + 1);
        scene.executor.script(&process_id(name), move |_| async move {
            RunEnd::Ended(ProcessAwaitOutput::success(json!(large())))
        });
        scene.register(registration(name, disposition)).await;
    }
    let worker = scene.worker().await;
    for name in ["bound", "again"] {
        let output = scene.outcome(&process_id(name)).await;
        assert_eq!(failure_code(&output), Some("outcome_refused"), "{output:?}");
        assert_eq!(scene.executor.attempts(&process_id(name)), [1]);
    }
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_does_not_heed_a_request_to_stop_still_has_a_deadline() {
    let scene = Scene::new().await;
    let id = process_id("deaf");
    scene.executor.script(&id, |_| for_ever());
    scene.register(registration("deaf", OwnerBound).with_deadline_ms(60_000)).await;
    let began = tokio::time::Instant::now();
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    scene.registry.request_process_cancel(&id, None).await.expect("asked");
    assert_eq!(failure_code(&scene.outcome(&id).await), Some("deadline_passed"));
    assert_eq!(began.elapsed(), Duration::from_secs(60) + scene.worker_options.grace);
    scene.end(worker).await;
}

/// Work that blocks a thread, or that went on in a task of its own, cannot be killed; a host has to come down all the same.
#[tokio::test(start_paused = true)]
async fn a_drain_ends_although_a_run_cannot_be_killed_and_says_that_it_did_not_abandon_it() {
    let scene = Scene::new().await;
    let id = process_id("p");
    let kept = Arc::new(Mutex::new(None));
    let keeper = Arc::clone(&kept);
    scene.executor.script(&id, move |run| {
        *keeper.lock().expect("kept") = Some(run);
        for_ever()
    });
    scene.register(registration("p", OwnerBound)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    let drain = worker.drain_owner_bound_work(Duration::from_secs(3));
    let report = tokio::time::timeout(BOUND, drain).await.expect("it ends").expect("drained");
    assert_eq!((report.abandoned, report.deferred, report.killed), (vec![], vec![id.clone()], vec![id.clone()]));
    assert!(!scene.record(&id).await.status.is_terminal());
    kept.lock().expect("kept").take();
    scene.end(worker).await;
}

/// A commit between the first listening and the seating of the drive was told to nobody, and so was every later one.
#[tokio::test(start_paused = true)]
async fn a_worker_hears_of_what_is_committed_while_it_starts_and_of_what_comes_later() {
    for delay in 0..40 {
        let scene = Scene::new().await;
        let committing = async {
            for _ in 0..delay {
                tokio::task::yield_now().await;
            }
            for number in 0..40 {
                scene.register(registration(&format!("p{number}"), ExternallyOwned)).await;
            }
        };
        let (worker, ()) = tokio::join!(scene.worker(), committing);
        let began = tokio::time::Instant::now();
        let id = scene.register(registration("later", OwnerBound)).await;
        assert_eq!(scene.outcome(&id).await, success());
        assert!(began.elapsed() < Duration::from_secs(1), "after {delay}: {:?}", began.elapsed());
        scene.end(worker).await;
    }
}

/// A registry that answers at once, and never what it did: the run asked it without a pause, for ever.
#[tokio::test(start_paused = true)]
async fn a_run_whose_end_is_never_known_to_be_written_ends_with_its_lease() {
    let scene = Scene::new().await;
    scene.register(registration("p", Rerunnable)).await;
    let (asked, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let registry = Between::commands(&scene, move |_, command| match command {
        Command::Complete { .. } => {
            counted.fetch_add(1, Ordering::Relaxed);
            assert!(asked.fetch_add(1, Ordering::Relaxed) < 10_000, "it is asked without a pause");
            Way::Lost(unknown())
        }
        Command::RenewLease { .. } => Way::Lost(not_stored()),
        _ => Way::On,
    });
    let worker = scene.worker_over(registry).await;
    scene.executor.until(|told| told.begun.len() == 2).await;
    assert!(count.load(Ordering::Relaxed) < 200, "{count:?} times");
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_in_the_midst_of_a_pass_has_everything_looked_at_again() {
    let mut scene = Scene::new().await;
    scene.worker_options.sweep_limit = 1;
    for number in 0..500 {
        let input = ProcessInput::new("else", json!({}));
        scene.register(ProcessRegistration::new(process_id(&format!("p{number:03}")), input, Rerunnable)).await;
    }
    let (firsts, pages) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let (counted, clock) = (Arc::clone(&firsts), Arc::clone(&scene.clock));
    let registry = Between::queries(&scene, move |query| {
        if let Query::Processes { after, .. } = query {
            if after.is_none() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            if pages.fetch_add(1, Ordering::Relaxed) == 1 {
                clock.jump_ms(3_600_000);
            }
        }
    });
    let worker = scene.worker_over(registry).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(firsts.load(Ordering::Relaxed), 2, "the first page is read again");
    scene.end(worker).await;
}

/// A holder that was stopped for longer than its lease, and killed then: no commit tells of that.
#[tokio::test(start_paused = true)]
async fn the_death_of_an_owner_whose_lease_ran_out_before_is_noticed() {
    use registry_actor::actor::own_liveness;
    let scene = Scene::new().await;
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
    let LeaseOwnerLiveness::LocalProcess { host_id, boot_id, pid_namespace, .. } = own_liveness() else {
        panic!("this system tells of processes");
    };
    let line = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("readable");
    let process_start = line.rsplit(") ").next().expect("fields").split(' ').nth(19).expect("a start").to_owned();
    let liveness = LeaseOwnerLiveness::LocalProcess { host_id, boot_id, pid: child.id(), process_start, pid_namespace };
    let other = LeaseOwnerIdentity { owner_id: "other".into(), incarnation_id: "1".into(), liveness };
    let mut options = scene.worker_options.clone();
    options.owner.liveness = own_liveness();
    let (held, lapsed) = (process_id("held"), process_id("lapsed"));
    for (id, ttl) in [(&held, TTL * 1_000), (&lapsed, TTL)] {
        scene.register(registration(id.as_str(), OwnerBound)).await;
        scene.begin(id, other.clone(), ttl).await;
    }
    let worker = Worker::start(Arc::new(scene.registry.clone()), scene.executors(), options).await.expect("a worker");
    tokio::time::sleep(TTL * 2).await;
    assert!(worker.explain(&lapsed).await.expect("explained").stuck);
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let began = tokio::time::Instant::now();
    for id in [&held, &lapsed] {
        assert_eq!(scene.outcome(id).await.terminal_state(), ProcessTerminalState::Abandoned, "{id}");
        assert!(began.elapsed() < Duration::from_secs(1), "{id} after {:?}", began.elapsed());
    }
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_parent_is_registered_later_ends_with_it_all_the_same() {
    let scene = Scene::new().await;
    let child = process_id("child");
    scene.executor.script(&child, until_stopped);
    let parent = ProcessParent { process_id: process_id("parent"), on_end: ParentEndRule::RequestCancel };
    scene.register(registration("child", OwnerBound).with_parent(parent)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    let began = tokio::time::Instant::now();
    scene.register(registration("parent", OwnerBound)).await;
    assert_eq!(scene.outcome(&child).await.terminal_state(), ProcessTerminalState::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    scene.end(worker).await;
}

/// An executor that takes its time to end remains, and one that panics at it.
#[derive(Clone, Default)]
struct SlowToBegin {
    asked: Arc<Notify>,
    go_on: Arc<Notify>,
    panics: Arc<AtomicUsize>,
    executed: Arc<AtomicBool>,
}

#[async_trait]
impl ProcessExecutor for SlowToBegin {
    async fn execute(&self, _: Arc<dyn ProcessRun>) -> RunEnd {
        self.executed.store(true, Ordering::SeqCst);
        RunEnd::Ended(success())
    }

    async fn end_remains(&self, _: RemainsOf<'_>) -> Result<Option<serde_json::Value>, RemainsError> {
        self.asked.notify_one();
        if self.panics.load(Ordering::SeqCst) > 0 {
            self.panics.fetch_sub(1, Ordering::SeqCst);
            panic!("on purpose");
        }
        self.go_on.notified().await;
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_taken_over_when_the_host_stops_is_not_begun() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    scene.begin(&id, dead_owner(), TTL).await;
    let slow = SlowToBegin::default();
    let executors = ProcessExecutors::default().with(KIND, slow.clone());
    let worker = Worker::start(Arc::new(scene.registry.clone()), executors, scene.worker_options.clone())
        .await
        .expect("a worker");
    slow.asked.notified().await;
    let (report, ()) = tokio::join!(worker.drain_owner_bound_work(TTL), async {
        tokio::task::yield_now().await;
        slow.go_on.notify_one();
    });
    assert_eq!(report.expect("drained").killed, []);
    assert!(!slow.executed.load(Ordering::SeqCst));
    assert_eq!(scene.record(&id).await.attempts.begun, 1, "the next worker has an attempt more");
    assert_eq!(scene.registry.get_process_lease(&id).await.expect("readable"), None);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_panics_while_it_ends_remains_leaves_no_lease_and_is_asked_again() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    scene.begin(&id, dead_owner(), TTL).await;
    let slow = SlowToBegin::default();
    slow.panics.store(3, Ordering::SeqCst);
    slow.go_on.notify_one();
    let executors = ProcessExecutors::default().with(KIND, slow.clone());
    let began = tokio::time::Instant::now();
    let worker = Worker::start(Arc::new(scene.registry.clone()), executors, scene.worker_options.clone())
        .await
        .expect("a worker");
    assert_eq!(scene.outcome(&id).await, success());
    assert!(began.elapsed() < Duration::from_secs(3), "nobody waits for a ttl: {:?}", began.elapsed());
    scene.end(worker).await;
}

/// Its lease ran out in the hands of its owner, who lives: then nothing could be said of the process until that one died.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_killed_run_is_written_although_the_store_fails_for_a_moment() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| for_ever());
    scene.register(registration("p", OwnerBound)).await;
    let failures = AtomicUsize::new(2);
    let registry = Between::commands(&scene, move |_, command| match command {
        Command::FailAttempt { .. }
            if failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() =>
        {
            Way::Lost(not_stored())
        }
        _ => Way::On,
    });
    let worker = scene.worker_over(registry).await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    for run in worker.supervisor().get_children() {
        run.kill();
    }
    assert_eq!(failure_code(&scene.outcome(&id).await), Some("run_killed"));
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_killed_run_is_written_although_the_drive_dies_while_it_writes_it() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| for_ever());
    scene.register(registration("p", OwnerBound)).await;
    let (first, reached) = (AtomicBool::new(true), Arc::new(Notify::new()));
    let tell = Arc::clone(&reached);
    let registry = Between::commands(&scene, move |_, command| match command {
        Command::FailAttempt { .. } if first.swap(false, Ordering::SeqCst) => {
            tell.notify_one();
            Way::Nowhere
        }
        _ => Way::On,
    });
    let worker = scene.worker_over(registry).await;
    let drive = worker.supervisor().get_children().into_iter().next().expect("the drive");
    scene.executor.until(|told| told.begun.len() == 1).await;
    for run in worker.supervisor().get_children().into_iter().filter(|child| child.get_id() != drive.get_id()) {
        run.kill();
    }
    reached.notified().await;
    drive.kill();
    assert_eq!(failure_code(&scene.outcome(&id).await), Some("run_killed"));
    scene.end(worker).await;
}

/// What the pass has listed is old when the lease is there.
#[tokio::test(start_paused = true)]
async fn what_is_done_with_a_process_is_decided_under_its_lease() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    let (registry, asked) = (scene.registry.clone(), AtomicBool::new(false));
    let between = Between::commands(&scene, move |_, command| match command {
        Command::ClaimLease { .. } if once(&asked) => {
            let registry = registry.clone();
            Way::After(Box::pin(async move {
                let request = AbandonRequest { requested_by: "ops".to_owned(), requested_at_ms: 1, reason: None };
                registry.request_process_abandon(&process_id("p"), request).await.expect("requested");
            }))
        }
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    assert_eq!(scene.outcome(&id).await.terminal_state(), ProcessTerminalState::Abandoned);
    assert_eq!(scene.executor.told().begun, []);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_away_before_it_had_begun_is_not_executed() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", Rerunnable)).await;
    let (registry, taken) = (scene.registry.clone(), AtomicBool::new(false));
    let between = Between::commands(&scene, move |_, command| match command {
        Command::BeginAttempt { .. } if once(&taken) => {
            let registry = registry.clone();
            Way::After(Box::pin(async move {
                let lease = registry.get_process_lease(&process_id("p")).await.expect("readable").expect("held");
                registry.complete_process_lease(&lease).await.expect("taken away");
                let rival = opaque_owner("rival");
                registry.claim_process_lease(&process_id("p"), rival, 600_000).await.expect("claimed");
            }))
        }
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(scene.executor.told().begun, []);
    let lease = scene.registry.get_process_lease(&id).await.expect("readable").expect("held");
    assert_eq!(lease.owner, opaque_owner("rival"));
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_reports_what_was_written_and_nothing_else() {
    let scene = Scene::new().await;
    for name in ["refused", "unknown"] {
        scene.executor.script(&process_id(name), until_stopped);
        scene.register(registration(name, OwnerBound)).await;
    }
    let answered = AtomicBool::new(false);
    let between = Between::commands(&scene, move |id, command| match command {
        Command::Complete { .. } => match id.as_str() {
            "refused" => Way::Lost(not_stored()),
            _ if once(&answered) => Way::NoAnswer,
            _ => Way::On,
        },
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    scene.executor.until(|told| told.begun.len() == 2).await;
    let report = worker.drain_owner_bound_work(TTL).await.expect("drained");
    assert_eq!(report.abandoned, [process_id("unknown")], "it was written, and said to be when asked again");
    assert_eq!(report.deferred, [process_id("refused")]);
    assert!(!scene.record(&process_id("refused")).await.status.is_terminal());
    let lease = scene.registry.get_process_lease(&process_id("refused")).await.expect("readable");
    assert_eq!(lease, None, "whoever comes next does not wait for it");
    scene.end(worker).await;
}

/// The lease is gone with the end, so that to write it again is refused: the attempt must not be taken for a lost one.
#[tokio::test(start_paused = true)]
async fn an_end_whose_answer_is_lost_is_written_once_and_known_to_be() {
    let scene = Scene::new().await;
    let retry = RetryPolicy { max_attempts: 3, initial_backoff_ms: 1_000, max_backoff_ms: 1_000 };
    let id = process_id("p");
    scene.executor.script(&id, |run| async move {
        match run.attempt() {
            1 => RunEnd::Failed(AttemptFailure::execution("exit", "once")),
            _ => RunEnd::Ended(success()),
        }
    });
    scene.register(registration("p", Rerunnable).with_retry(retry)).await;
    let (failed, completed) = (AtomicBool::new(false), AtomicBool::new(false));
    let between = Between::commands(&scene, move |_, command| match command {
        Command::FailAttempt { .. } if once(&failed) => Way::NoAnswer,
        Command::Complete { .. } if once(&completed) => Way::NoAnswer,
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    assert_eq!(scene.outcome(&id).await, success());
    assert_eq!(scene.executor.attempts(&id), [1, 2]);
    worker.idle().await;
    assert_eq!(scene.registry.get_process_lease(&id).await.expect("readable"), None);
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_less_than_a_lease_lasts_ends_no_run() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| succeed_after(300));
    scene.register(registration("p", OwnerBound)).await;
    let clock = Arc::clone(&scene.clock);
    let began = clock.now().monotonic_ms;
    let between = Between::commands(&scene, move |_, command| match command {
        Command::RenewLease { .. } if (61_000..85_000).contains(&(clock.now().monotonic_ms - began)) => {
            Way::Lost(not_stored())
        }
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    assert_eq!(scene.outcome(&id).await, success());
    assert_eq!(scene.executor.attempts(&id), [1]);
    scene.end(worker).await;
}

/// The lease runs out while the machine sleeps, and nobody else has taken it.
#[tokio::test(start_paused = true)]
async fn a_suspended_machine_loses_no_run_and_notices_what_has_become_due() {
    let scene = Scene::new().await;
    let (id, external) = (process_id("p"), process_id("external"));
    scene.executor.script(&id, |_| succeed_after(60));
    scene.register(registration("p", OwnerBound)).await;
    scene.register(registration("external", ExternallyOwned).with_deadline_ms(3_600_000)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.clock.suspend_ms(8 * 3_600_000);
    let began = tokio::time::Instant::now();
    assert_eq!(failure_code(&scene.outcome(&external).await), Some("deadline_passed"));
    assert!(began.elapsed() <= scene.worker_options.longest_sleep, "{:?}", began.elapsed());
    assert_eq!(scene.outcome(&id).await, success());
    assert_eq!(scene.executor.attempts(&id), [1]);
    scene.end(worker).await;
}

/// Within one session a drive that has nothing to do sleeps: a wall clock that is set has it look at the dates again.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_a_set_clock_has_passed_is_noticed() {
    let scene = Scene::new().await;
    let id = scene.register(registration("p", ExternallyOwned).with_deadline_ms(3_600_000)).await;
    let worker = scene.worker().await;
    worker.sweep().await.expect("a pass");
    scene.clock.jump_ms(7_200_000);
    let began = tokio::time::Instant::now();
    assert_eq!(failure_code(&scene.outcome(&id).await), Some("deadline_passed"));
    assert!(began.elapsed() <= scene.worker_options.longest_sleep, "{:?}", began.elapsed());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_for_the_reason_that_it_was_told_first() {
    let scene = Scene::new().await;
    let (id, go_on) = (process_id("p"), Arc::new(Notify::new()));
    let gone_on = Arc::clone(&go_on);
    scene.executor.script(&id, move |run| {
        let gone_on = Arc::clone(&gone_on);
        async move {
            if run.stopped().await == StopCause::HostStopping {
                gone_on.notified().await;
            }
            RunEnd::Stopped
        }
    });
    scene.register(registration("p", Rerunnable)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    assert!(worker.stop_run(&id));
    scene.registry.request_process_cancel(&id, None).await.expect("asked");
    tokio::time::sleep(Duration::from_secs(1)).await;
    go_on.notify_one();
    assert_eq!(scene.outcome(&id).await.terminal_state(), ProcessTerminalState::Cancelled);
    assert_eq!(scene.executor.attempts(&id), [1, 2], "it went on, and was asked to stop then");
    scene.end(worker).await;
}

/// The run had taken its lease up again under another fence, and was told that it had begun no attempt that could fail: the
/// failure was lost, and the next attempt came at once.
#[tokio::test(start_paused = true)]
async fn a_failure_after_a_suspension_is_that_of_its_attempt() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |run| async move {
        if run.attempt() > 1 {
            return RunEnd::Ended(success());
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        RunEnd::Failed(AttemptFailure::execution("broken", "it broke"))
    });
    let backoff = Duration::from_secs(600);
    let backoff_ms = u64::try_from(backoff.as_millis()).expect("few");
    let retry = RetryPolicy { max_attempts: 3, initial_backoff_ms: backoff_ms, max_backoff_ms: backoff_ms };
    scene.register(registration("p", Rerunnable).with_retry(retry)).await;
    let worker = scene.worker().await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.clock.suspend_ms(8 * 3_600_000);
    scene.event(&id, CoreEventType::AttemptFailed).await;
    let failed_at = tokio::time::Instant::now();
    let failure = scene.record(&id).await.attempts.failure.clone().expect("a failure");
    assert_eq!((failure.attempt, failure.failure.code.as_str()), (1, "broken"));
    assert_eq!(scene.outcome(&id).await, success());
    assert!(failed_at.elapsed() >= backoff, "the next attempt came after {:?}", failed_at.elapsed());
    assert_eq!(scene.executor.attempts(&id), [1, 2]);
    scene.end(worker).await;
}

/// The disk was full for longer than a lease lasts. Its owner had ended the run for that, lived on, and said nothing: the process
/// was stuck until its host stopped.
#[tokio::test(start_paused = true)]
async fn a_run_that_ended_because_the_store_did_not_answer_gets_its_end_when_it_does() {
    let scene = Scene::new().await;
    let (bound, rerunnable) = (process_id("bound"), process_id("rerunnable"));
    scene.executor.script(&bound, |_| for_ever());
    scene.executor.script(&rerunnable, |run| async move {
        if run.attempt() == 1 { for_ever().await } else { RunEnd::Ended(success()) }
    });
    scene.register(registration("bound", OwnerBound)).await;
    scene.register(registration("rerunnable", Rerunnable)).await;
    let clock = Arc::clone(&scene.clock);
    let began = clock.now().monotonic_ms;
    let full = Duration::from_secs(600);
    let full_ms = u64::try_from(full.as_millis()).expect("few");
    let between = Between::commands(&scene, move |_, _| {
        if (5_000..full_ms).contains(&(clock.now().monotonic_ms - began)) { Way::Lost(not_stored()) } else { Way::On }
    });
    let started = tokio::time::Instant::now();
    let worker = scene.worker_over(between).await;
    let drive = worker.supervisor().get_children().into_iter().next().expect("the drive");
    scene.executor.until(|told| told.over == 2).await;
    // What is to be said outlives who was to say it.
    tokio::time::sleep(Duration::from_secs(60)).await;
    drive.kill();
    assert_eq!(failure_code(&scene.outcome(&bound).await), Some("lease_lost"));
    assert!(started.elapsed() < full + Duration::from_secs(5), "after {:?}", started.elapsed());
    assert_eq!(scene.executor.attempts(&bound), [1]);
    assert_eq!(scene.outcome(&rerunnable).await, success());
    scene.end(worker).await;
}

/// The run took its lease up again, and never heard of it. Its next renewal met a lease that it did not know for its own, gave it up,
/// and the process was stuck.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_up_again_without_an_answer_is_kept() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| succeed_after(60));
    scene.register(registration("p", OwnerBound)).await;
    let claims = AtomicUsize::new(0);
    let between = Between::commands(&scene, move |_, command| match command {
        Command::ClaimLease { .. } if claims.fetch_add(1, Ordering::SeqCst) == 1 => Way::NoAnswer,
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.clock.suspend_ms(3_600_000);
    assert_eq!(scene.outcome(&id).await, success());
    assert_eq!(scene.executor.attempts(&id), [1]);
    scene.end(worker).await;
}

/// The same where nothing is answered until the lease has run out once more: its end is written under the lease that it turns out to
/// have.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_lost_without_an_answer_gets_its_end_under_its_later_lease() {
    let scene = Scene::new().await;
    let id = process_id("p");
    scene.executor.script(&id, |_| for_ever());
    scene.register(registration("p", OwnerBound)).await;
    let (claims, clock) = (AtomicUsize::new(0), Arc::clone(&scene.clock));
    let deaf_until = Arc::new(AtomicU64::new(0));
    let deaf = Arc::clone(&deaf_until);
    let between = Between::commands(&scene, move |_, command| match command {
        Command::ClaimLease { .. } if claims.fetch_add(1, Ordering::SeqCst) == 1 => {
            deaf.store(clock.now().monotonic_ms + 120_000, Ordering::SeqCst);
            Way::NoAnswer
        }
        _ if clock.now().monotonic_ms < deaf.load(Ordering::SeqCst) => Way::Lost(not_stored()),
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    scene.executor.until(|told| told.begun.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.clock.suspend_ms(3_600_000);
    assert_eq!(failure_code(&scene.outcome(&id).await), Some("lease_lost"));
    assert_eq!(scene.executor.attempts(&id), [1]);
    assert!(deaf_until.load(Ordering::SeqCst) > 0);
    scene.end(worker).await;
}

/// Two workers were given one owner, as by hosts that both call themselves by their pid, which is 1. Each counted its claims from
/// 0: the lease of one was taken for that of the other, and both ran the process.
#[tokio::test(start_paused = true)]
async fn two_workers_of_one_name_do_not_take_each_others_leases_for_their_own() {
    let scene = Scene::new().await;
    let (first, second) = (scene.worker().await, scene.worker().await);
    for number in 0..20 {
        let id = process_id(&format!("p{number}"));
        scene.executor.script(&id, |_| succeed_after(1));
        scene.register(registration(id.as_str(), OwnerBound)).await;
        assert_eq!(scene.outcome(&id).await, success());
        assert_eq!(scene.executor.attempts(&id), [1]);
    }
    first.shut_down(Duration::ZERO).await;
    scene.end(second).await;
}

/// Such an owner could never claim a lease: each try would be refused when a process has already been registered.
#[tokio::test(start_paused = true)]
async fn a_worker_is_not_started_under_a_name_that_no_lease_takes() {
    let scene = Scene::new().await;
    let owner =
        LeaseOwnerIdentity { incarnation_id: "x".repeat(Limits::NAME_BYTES), ..scene.worker_options.owner.clone() };
    let started = Worker::start(Arc::new(scene.registry.clone()), scene.executors(), WorkerOptions::new(owner)).await;
    let error = started.map(drop).expect_err("it is not started");
    assert!(matches!(error, WorkerError::Owner(Refusal::LimitExceeded { .. })), "{error:?}");
    scene.registry.shut_down(BOUND).await;
}

/// "Never" had no instant: each pass ended with a panic of the drive.
#[tokio::test(start_paused = true)]
async fn a_pass_may_be_due_in_as_good_as_never() {
    let mut scene = Scene::new().await;
    (scene.worker_options.pass_interval, scene.worker_options.longest_sleep) = (Duration::MAX, Duration::MAX);
    let worker = scene.worker().await;
    for _ in 0..3 {
        worker.sweep().await.expect("a pass");
    }
    let id = scene.register(registration("p", Rerunnable)).await;
    assert_eq!(scene.outcome(&id).await, success());
    scene.end(worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_meets_a_lease_that_was_taken_up_again_is_made_under_the_new_one() {
    let scene = Scene::new().await;
    let id = process_id("p");
    let signal = || ProcessSignal::new("go").expect("a signal");
    scene.executor.script(&id, move |run| async move {
        match run.await_signal(&signal(), Sequence::REGISTRATION).await {
            Ok(_) => RunEnd::Ended(success()),
            Err(error) => RunEnd::Failed(AttemptFailure::execution("wait", error.to_string())),
        }
    });
    let event_type = registry_actor::domain::ProcessEventType::plain(signal().event_type());
    scene.register(registration("p", OwnerBound).with_extra_event_types([event_type])).await;
    let (clock, slept) = (Arc::clone(&scene.clock), AtomicBool::new(false));
    let between = Between::commands(&scene, move |_, command| match command {
        Command::SetWait { .. } if once(&slept) => {
            clock.suspend_ms(3_600_000);
            Way::After(Box::pin(tokio::time::sleep(TTL)))
        }
        _ => Way::On,
    });
    let worker = scene.worker_over(between).await;
    scene.event(&id, CoreEventType::WaitSet).await;
    scene.registry.signal_process(&id, &signal(), "s1", json!(7)).await.expect("signalled");
    assert_eq!(scene.outcome(&id).await, success());
    scene.end(worker).await;
}

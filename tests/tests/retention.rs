//! Retention: which processes a scheduled policy prunes and when, and that the disk gets back what they took.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::domain::{
    Command, Limits, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessFailureClass, ProcessPruneReport,
    ProcessTerminalState, ProjectionWatermark, PruneFilter, Receipt, RegistryCommand, RegistryReceipt,
};
use registry_actor::domain::{ProcessId, ProcessListFilter, ProcessRegistration};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions, VacuumPace};
use registry_actor::port::{
    Answer, DurabilityTier, ProcessLog, ProcessRegistry, ProcessRegistryExt, Query, RegistryError,
};
use registry_actor::retention::{
    NoProjection, PassEnd, ProjectionSource, ProjectionUnknown, Retain, Retention, RetentionError, RetentionPolicy,
    RetentionRule, RetentionSchedule, RetentionStatus,
};
use registry_tests::ManualClock;
use registry_tests::direct_registry::DirectRegistry;
use registry_tests::example_process::registration;
use registry_tests::log_author::{Author, OUTPUT, across, append, complete, output, process_id, prune};
use registry_tests::log_conformance::bounded;
use registry_tests::log_reading::assert_whole;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: u64 = 3_600_000;

fn hourly() -> RetentionSchedule {
    RetentionSchedule { interval: HOUR, ..RetentionSchedule::default() }
}

fn policy<const N: usize>(rules: [RetentionRule; N]) -> RetentionPolicy {
    RetentionPolicy::new(rules).expect("a policy")
}

fn after_an_hour() -> RetentionPolicy {
    policy([RetentionRule::of_all(Retain::ForMs(HOUR_MS))])
}

/// A registry in memory with a clock of its own.
struct World {
    registry: Arc<DirectRegistry<ManualClock>>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let log = Arc::new(MemoryLog::new("store"));
        Self { registry: Arc::new(DirectRegistry::new(log, Arc::clone(&clock), 1)), clock }
    }

    async fn ended(&self, name: &str, tags: &[&str], outcome: ProcessAwaitOutput) {
        let id = process_id(name);
        let spec: ProcessRegistration = registration(&id).with_tags(tags.iter().copied());
        self.registry.register_process(spec).await.expect("a registration");
        self.registry.complete_process(&id, outcome).await.expect("an outcome");
    }

    async fn names(&self) -> Vec<String> {
        let records = self.registry.list_processes(ProcessListFilter::any()).await.expect("a list");
        records.iter().map(|record| record.id().to_string()).collect()
    }

    fn start(&self, policy: RetentionPolicy, projection: impl ProjectionSource + 'static) -> Retention {
        let registry = Arc::clone(&self.registry) as Arc<dyn ProcessRegistry>;
        Retention::start(registry, policy, hourly(), Arc::clone(&self.clock) as _, Arc::new(projection))
    }
}

fn success() -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!(1))
}

/// What the task said after so many passes.
async fn after_passes(retention: &Retention, passes: u64) -> RetentionStatus {
    let mut status = retention.status();
    status.wait_for(|status| status.passes >= passes).await.expect("it runs").clone()
}

/// The clock of the policy and the timer of the schedule are two: here an hour passes on both.
#[tokio::test(start_paused = true)]
async fn passes_come_by_the_timer_and_ages_by_the_clock() {
    let world = World::new();
    world.ended("old", &[], success()).await;
    let began = Instant::now();
    let retention = world.start(after_an_hour(), NoProjection);
    let status = after_passes(&retention, 1).await;
    assert_eq!(began.elapsed(), HOUR, "the first pass comes an interval after the start");
    assert_eq!(status.last.expect("a pass").pruned, ProcessPruneReport::default(), "the clock stood still");
    world.clock.advance_ms(HOUR_MS);
    world.ended("new", &[], success()).await;
    after_passes(&retention, 2).await;
    assert_eq!(world.names().await, ["new", "old"], "it ended an hour ago, and is retained for an hour");
    world.clock.advance_ms(1);
    let status = after_passes(&retention, 3).await;
    assert_eq!(began.elapsed(), HOUR * 3);
    assert_eq!(world.names().await, ["new"]);
    let last = status.last.expect("a pass");
    assert_eq!((last.pruned.pruned_processes, last.commands, last.end), (1, 1, PassEnd::Complete));
    retention.stop().await;
    retention.stop().await;
    assert!(retention.status().has_changed().is_err(), "the task is gone");
}

#[tokio::test(start_paused = true)]
async fn the_first_rule_that_fits_decides() {
    let world = World::new();
    let failed = || ProcessAwaitOutput::failure(ProcessFailureClass::Execution, "no", "no");
    for (name, tags, outcome) in [
        ("audited", &["audit"][..], failed()),
        ("broken", &[], failed()),
        ("done", &[], success()),
        ("tagged", &["other"], success()),
    ] {
        world.ended(name, tags, outcome).await;
    }
    let id = process_id("running");
    world.registry.register_process(registration(&id)).await.expect("a registration");
    let retention = world.start(
        policy([
            RetentionRule::of_all(Retain::Forever).tagged("audit"),
            RetentionRule::of_all(Retain::ForMs(3 * HOUR_MS)).ended([ProcessTerminalState::Failed]),
            RetentionRule::of_all(Retain::ForMs(HOUR_MS)),
        ]),
        NoProjection,
    );
    world.clock.advance_ms(2 * HOUR_MS);
    retention.pass_now();
    let status = after_passes(&retention, 1).await;
    assert_eq!(status.last.expect("a pass").commands, 2, "one for each rule that prunes");
    assert_eq!(world.names().await, ["audited", "broken", "running"]);
    world.clock.advance_ms(2 * HOUR_MS);
    retention.pass_now();
    after_passes(&retention, 2).await;
    assert_eq!(world.names().await, ["audited", "running"]);
    retention.stop().await;
}

/// Whoever projects the feed is asked before every command, and nothing that it has not seen goes.
#[tokio::test(start_paused = true)]
async fn a_projector_that_lags_is_never_overtaken() {
    let world = World::new();
    world.ended("seen", &[], success()).await;
    let seen = world.registry.changes_since(None, 100).await.expect("changes").next;
    world.ended("unseen", &[], success()).await;
    world.clock.advance_ms(2 * HOUR_MS);
    let answers = Arc::new(Mutex::new(VecDeque::from([
        Err(ProjectionUnknown { reason: "the projector is away".to_owned() }),
        Ok(ProjectionWatermark::UpTo(seen)),
    ])));
    let asked = Arc::clone(&answers);
    let retention = world.start(after_an_hour(), move || {
        let mut answers = asked.lock().unwrap_or_else(PoisonError::into_inner);
        answers.pop_front().unwrap_or(Ok(ProjectionWatermark::NoProjector))
    });
    let status = after_passes(&retention, 1).await;
    let failed = status.last.expect("a pass");
    assert!(matches!(&failed.end, PassEnd::Failed(RetentionError::Projection(_))), "{failed:?}");
    assert_eq!(world.names().await, ["seen", "unseen"]);
    let status = after_passes(&retention, 2).await;
    let report = status.last.expect("a pass").pruned;
    assert_eq!((report.pruned_processes, report.kept_unprojected), (1, 1));
    assert_eq!(world.names().await, ["unseen"]);
    after_passes(&retention, 3).await;
    assert!(world.names().await.is_empty());
    retention.stop().await;
}

/// A registry that answers prunes by a script.
struct Scripted {
    answers: Mutex<VecDeque<Scene>>,
    commands: AtomicUsize,
    /// Whoever prunes waits for a permit where the script says so.
    gate: Semaphore,
}

enum Scene {
    Prunes(u64, bool),
    Fails(RegistryError),
    Panics,
    Waits,
}

impl Scripted {
    fn of(answers: impl IntoIterator<Item = Scene>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            commands: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        })
    }

    fn commands(&self) -> usize {
        self.commands.load(Ordering::SeqCst)
    }

    fn start(self: &Arc<Self>, schedule: RetentionSchedule) -> Retention {
        let clock = Arc::new(ManualClock::default());
        Retention::start(Arc::clone(self) as _, after_an_hour(), schedule, clock, Arc::new(NoProjection))
    }
}

#[async_trait]
impl ProcessRegistry for Scripted {
    async fn execute(&self, _: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        panic!("a retention gives no {command:?}");
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let RegistryCommand::Prune { limit, .. } = command else { panic!("a retention gives no {command:?}") };
        assert_eq!(limit, Limits::PRUNED_PER_COMMAND);
        self.commands.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let pruned = |pruned_processes, more| {
            RegistryReceipt::Pruned(ProcessPruneReport { pruned_processes, more, ..ProcessPruneReport::default() })
        };
        match answer {
            None => Ok(pruned(0, false)),
            Some(Scene::Prunes(processes, more)) => Ok(pruned(processes, more)),
            Some(Scene::Fails(error)) => Err(error),
            Some(Scene::Panics) => panic!("a test lets the registry panic"),
            Some(Scene::Waits) => {
                self.gate.acquire().await.expect("the gate is open").forget();
                Ok(pruned(1, true))
            }
        }
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        panic!("a retention does not ask {query:?}");
    }

    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Inline
    }
}

/// Failures of the store, and panics, put the next pass off, ever longer; the first that succeeds ends that.
#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_is_tried_again_with_backoff() {
    let unstored = || RegistryError::NotStored { reason: "the disk is full".to_owned() };
    let registry =
        Scripted::of([Scene::Fails(unstored()), Scene::Panics, Scene::Fails(unstored()), Scene::Prunes(3, false)]);
    let mut at = Instant::now();
    let retention = registry.start(hourly());
    for (pass, (waited, failures)) in (1..).zip([
        (HOUR, 1),
        (Duration::from_secs(1), 2),
        (Duration::from_secs(2), 3),
        (Duration::from_secs(4), 0),
        (HOUR, 0),
    ]) {
        let status = after_passes(&retention, pass).await;
        assert_eq!((at.elapsed(), status.failures_in_a_row), (waited, failures), "pass {pass}");
        at = Instant::now();
        let end = status.last.expect("a pass").end;
        let is_expected = match pass {
            1 | 3 => end == PassEnd::Failed(unstored().into()),
            2 => end == PassEnd::Failed(RetentionError::Panicked),
            _ => end == PassEnd::Complete,
        };
        assert!(is_expected, "pass {pass}: {end:?}");
    }
    retention.stop().await;
}

/// A pass gives so many commands and no more; what is left is for the next.
#[tokio::test(start_paused = true)]
async fn a_pass_is_bounded() {
    let registry = Scripted::of((0..5).map(|_| Scene::Prunes(1_000, true)));
    let schedule = RetentionSchedule { commands_per_pass: NonZeroU32::MIN.saturating_add(2), ..hourly() };
    let retention = registry.start(schedule);
    let first = after_passes(&retention, 1).await.last.expect("a pass");
    assert_eq!((first.commands, first.pruned.pruned_processes, first.pruned.more), (3, 3_000, true));
    let second = after_passes(&retention, 2).await.last.expect("a pass");
    assert_eq!((second.commands, second.pruned.pruned_processes, second.pruned.more), (3, 2_000, false));
    // A registry that removes nothing and always promises more is not asked for ever.
    let registry = Scripted::of((0..9).map(|_| Scene::Prunes(0, true)));
    let retention = registry.start(hourly());
    after_passes(&retention, 1).await;
    assert_eq!(registry.commands(), 1);
}

/// A stop waits for the command that is under way and lets no other begin; so does a handle that is dropped.
#[tokio::test(start_paused = true)]
async fn a_stop_comes_between_two_commands() {
    let registry = Scripted::of([Scene::Waits, Scene::Prunes(1, true)]);
    let retention = Arc::new(registry.start(hourly()));
    retention.pass_now();
    while registry.commands() == 0 {
        tokio::task::yield_now().await;
    }
    let stopping = Arc::clone(&retention);
    let stopped = tokio::spawn(async move { stopping.stop().await });
    tokio::task::yield_now().await;
    assert!(!stopped.is_finished(), "a command is under way");
    registry.gate.add_permits(1);
    stopped.await.expect("it stops");
    assert_eq!(registry.commands(), 1);
    let status = retention.status().borrow().clone();
    assert_eq!(status.last.expect("a pass").end, PassEnd::Stopped);

    let registry = Scripted::of([]);
    let retention = registry.start(hourly());
    let mut status = retention.status();
    drop(retention);
    while status.changed().await.is_ok() {}
    assert_eq!(registry.commands(), 0);
}

/// How far projections have come is never answered.
struct Silent(AtomicUsize);

#[async_trait]
impl ProjectionSource for Silent {
    async fn watermark(&self) -> Result<ProjectionWatermark, ProjectionUnknown> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

/// A question is no command: a stop waits for no answer to it.
#[tokio::test(start_paused = true)]
async fn a_projection_that_does_not_answer_does_not_hold_a_stop_up() {
    let registry = Scripted::of([]);
    let silent = Arc::new(Silent(AtomicUsize::new(0)));
    let clock = Arc::new(ManualClock::default());
    let projection = Arc::clone(&silent) as Arc<dyn ProjectionSource>;
    let retention = Retention::start(Arc::clone(&registry) as _, after_an_hour(), hourly(), clock, projection);
    retention.pass_now();
    while silent.0.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(HOUR, retention.stop()).await.expect("it stops");
    let status = retention.status().borrow().clone();
    assert_eq!(status.last.expect("a pass").end, PassEnd::Stopped);
    assert_eq!(registry.commands(), 0);
}

/// A wall clock that is set a year ahead makes nothing a year old; what it says is believed when it goes on saying so.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_ahead_prunes_nothing_before_its_time() {
    const YEAR_MS: u64 = 365 * 24 * HOUR_MS;
    let world = World::new();
    let right_ms = clock_ms(&world.clock);
    let retention = world.start(after_an_hour(), NoProjection);
    world.ended("new", &[], success()).await;
    world.clock.set_epoch_ms(right_ms + YEAR_MS);
    after_passes(&retention, 1).await;
    assert_eq!(world.names().await, ["new"], "it has just ended");
    world.clock.set_epoch_ms(right_ms);
    after_passes(&retention, 2).await;
    world.clock.advance_ms(HOUR_MS + 1);
    after_passes(&retention, 3).await;
    assert_eq!(world.names().await, [] as [&str; 0], "its time has come");

    world.clock.set_epoch_ms(clock_ms(&world.clock) + YEAR_MS);
    world.ended("later", &[], success()).await;
    for pass in 4..40 {
        world.clock.advance_ms(HOUR_MS);
        after_passes(&retention, pass).await;
    }
    assert_eq!(world.names().await, [] as [&str; 0], "a clock that was put right is believed in the end");
    retention.stop().await;
}

// The disk.

/// A store whose size is looked at.
struct Disk {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.db");
        Self { _directory: directory, path }
    }

    fn open(&self, options: SqliteOptions) -> Arc<SqliteLog> {
        Arc::new(SqliteLog::open(&self.path, options).expect("a store"))
    }

    fn bytes(&self) -> u64 {
        self.path.metadata().expect("the file").len()
    }

    fn log_file_bytes(&self) -> u64 {
        self.path.with_file_name("store.db-wal").metadata().expect("the log file").len()
    }
}

/// Many processes with some weight, ended.
async fn fill(log: &SqliteLog, processes: usize) {
    for number in 0..processes {
        let mut author = Author::registered(log, &format!("old-{number}")).await;
        for event in 0..4 {
            let payload = json!({ "number": event, "bulk": "x".repeat(8_000) });
            author.write(log, append(ProcessEventAppendRequest::new(OUTPUT, payload))).await.expect("an append");
        }
        author.write(log, complete()).await.expect("an end");
    }
}

async fn prune_all(log: &SqliteLog) -> ProcessPruneReport {
    match across(log, prune()).await.expect("a prune") {
        RegistryReceipt::Pruned(report) => report,
        other => panic!("expected a report, got {other:?}"),
    }
}

/// Most of a store is pruned while somebody goes on appending: the file shrinks, and no append waits for all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_gets_back_what_a_prune_frees_while_appends_go_on() {
    bounded(async {
        let disk = Disk::new();
        let log = disk.open(SqliteOptions::default().with_checkpoint_pages(100));
        fill(&log, 300).await;
        let mut author = Author::registered(&*log, "live").await;
        author.write_outputs(&*log, 20).await;
        // The log file is in the database before the size is taken.
        log.close().await;
        drop(log);
        let full = disk.bytes();
        assert!(full > 9 << 20, "{full} bytes");
        let log = disk.open(SqliteOptions::default());
        let pruning = Arc::clone(&log);
        let pruner = tokio::spawn(async move { while prune_all(&pruning).await.more {} });
        let mut appends = 0;
        // An append follows the other without a pause: steps come between groups, not only when nobody wants anything.
        while disk.bytes() > full / 2 {
            author.write(&*log, output(author.state.sequence.0 + 1)).await.expect("an append");
            appends += 1;
        }
        pruner.await.expect("a prune");
        assert!(appends > 0);
        // When nobody wants anything the rest follows by itself.
        while disk.bytes() > full / 4 {
            tokio::task::yield_now().await;
        }
        author.write_outputs(&*log, 5).await;
        assert_whole(&*log, "live").await;
        log.close().await;
    })
    .await;
}

/// A host that ended before everything was given back leaves the rest to the next one.
#[tokio::test]
async fn what_one_host_did_not_give_back_the_next_one_does() {
    bounded(async {
        let disk = Disk::new();
        let never = VacuumPace { step_pages: 0, ..VacuumPace::default() };
        let log = disk.open(SqliteOptions::default().with_vacuum(never));
        fill(&log, 200).await;
        while prune_all(&log).await.more {}
        log.close().await;
        drop(log);
        let full = disk.bytes();
        assert!(full > 6 << 20, "{full} bytes: nothing was given back");
        let log = disk.open(SqliteOptions::default());
        while disk.bytes() > full / 3 {
            tokio::task::yield_now().await;
        }
        log.close().await;
        let kept = u64::from(VacuumPace::default().kept_pages) * 4_096;
        assert!(disk.bytes() >= kept, "{} bytes: some free pages are kept for what comes next", disk.bytes());
    })
    .await;
}

/// A long read keeps the log file from being begun anew, so that it grows; afterwards it is cut to its limit.
#[tokio::test]
async fn the_log_file_shrinks_to_its_limit() {
    bounded(async {
        const LIMIT: u64 = 1 << 20;
        let disk = Disk::new();
        let log = disk.open(SqliteOptions::default().with_wal_limit_bytes(LIMIT).with_checkpoint_pages(50));
        let mut author = Author::registered(&*log, "p").await;
        let reader = rusqlite::Connection::open(&disk.path).expect("a reader");
        reader.execute_batch("BEGIN").expect("a transaction");
        reader.query_row("SELECT count(*) FROM events", [], |_| Ok(())).expect("a read");
        fill(&log, 100).await;
        let grown = disk.log_file_bytes();
        assert!(grown > 3 * LIMIT, "{grown} bytes");
        reader.execute_batch("COMMIT").expect("the end of the read");
        while disk.log_file_bytes() > LIMIT {
            author.write_outputs(&*log, 1).await;
        }
        log.close().await;
    })
    .await;
}

/// The filter of a policy in the words of a store: what is exempt is not even a candidate.
#[tokio::test]
async fn a_store_prunes_what_a_policy_says() {
    let disk = Disk::new();
    let log = disk.open(SqliteOptions::default());
    let clock = Arc::new(ManualClock::default());
    let registry = Arc::new(DirectRegistry::new(Arc::clone(&log) as Arc<dyn ProcessLog>, Arc::clone(&clock), 1));
    for (name, tags) in [("a", &["keep"][..]), ("b", &[]), ("c", &["other"])] {
        let id = process_id(name);
        registry.register_process(registration(&id).with_tags(tags.iter().copied())).await.expect("a registration");
        registry.complete_process(&id, success()).await.expect("an outcome");
    }
    clock.advance_ms(2 * HOUR_MS);
    let rules =
        policy([RetentionRule::of_all(Retain::Forever).tagged("keep"), RetentionRule::of_all(Retain::ForMs(HOUR_MS))]);
    let filters: Vec<PruneFilter> = rules.filters(clock_ms(&clock));
    for filter in filters {
        registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
    }
    let left = registry.list_processes(ProcessListFilter::any()).await.expect("a list");
    assert_eq!(left.iter().map(|record| record.id().as_str()).collect::<Vec<_>>(), ["a"]);
}

fn clock_ms(clock: &ManualClock) -> u64 {
    use registry_actor::port::Clock as _;
    clock.now().epoch_ms
}

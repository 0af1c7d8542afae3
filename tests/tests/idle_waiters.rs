//! Very many waiters on as many processes, of which nothing happens: they read nothing, take no processor, keep no actor
//! alive, and are small.
//!
//! By default over a log in memory and with paused time. `PROCTOR_IDLE_WAITERS` says how many there are, and asks for
//! SQLite and for 10 seconds that really pass, so that the processor's time can be measured. A test program of its own,
//! because its allocator counts.

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use awaiter::{ProcessWait, WaitAnswer};
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{ProcessAwaitOutput, ProcessId, Sequence};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::{ChangeSource, ProcessLog, ProcessRegistry, ProcessRegistryExt, WaitError};
use registry_tests::CountedLog;
use registry_tests::example_process::{note, process_id, registration};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::task::JoinHandle;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const IDLE: Duration = Duration::from_secs(10);
/// Less than any entry that could be left behind; more than what queues keep of the room that they once took.
const ENTRY: f64 = 32.0;
/// Of one waiter, its future apart.
const BYTES: f64 = 400.0;
/// Of one core, by hand.
const LOAD: f64 = 0.01;
/// Commands under way at once.
const AT_ONCE: usize = 1_000;

fn live_bytes() -> isize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated).cast_signed()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a time that has passed")
}

type Waiter = JoinHandle<Result<WaitAnswer, WaitError>>;

struct Scene {
    log: Arc<CountedLog>,
    registry: ActorRegistry,
    source: ChangeSource,
    ids: Vec<ProcessId>,
}

impl Scene {
    async fn new(log: Arc<dyn ProcessLog>, processes: usize) -> Self {
        let log = Arc::new(CountedLog::new(log));
        let mut options = RegistryOptions::default();
        options.passivate_after = Duration::from_secs(1);
        options.sweep_interval = Duration::from_millis(100);
        let registry = ActorRegistry::start(Arc::clone(&log) as _, options).await.expect("the registry starts");
        let source = registry.change_source().expect("the registry tells");
        let ids = (0..processes).map(|number| process_id(&format!("idle-process-{number:07}"))).collect();
        let scene = Self { log, registry, source, ids };
        scene
            .each(&scene.ids, |registry, id| async move {
                registry.register_process(registration(&id)).await.expect("a fresh id registers");
            })
            .await;
        scene
    }

    /// Does something to each process, many at once.
    async fn each<F: Future<Output = ()> + Send + 'static>(
        &self,
        ids: &[ProcessId],
        act: impl Fn(ActorRegistry, ProcessId) -> F,
    ) {
        for ids in ids.chunks(AT_ONCE) {
            let acts: Vec<_> = ids.iter().map(|id| tokio::spawn(act(self.registry.clone(), id.clone()))).collect();
            for act in acts {
                act.await.expect("no panic");
            }
        }
    }

    /// Lets all actors come to rest.
    async fn passivate(&self) {
        let all_rest = async {
            while self.registry.live_actors() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), all_rest).await.expect("no waiter keeps an actor alive");
    }

    /// One waiter for each process, none of which has run yet.
    fn waiters(&self, wait: impl Fn(&ProcessId) -> ProcessWait) -> Vec<Waiter> {
        let waiter = |id| {
            let (registry, wait) = (self.registry.clone(), wait(id));
            tokio::spawn(async move { registry.wait(&wait).await })
        };
        self.ids.iter().map(waiter).collect()
    }

    /// Until all are parked and have read: as often as it takes to know that what they wait for is not there.
    async fn parked(&self, reads: usize) {
        while self.source.parked_waits() < self.ids.len() || self.log.reads_over() < reads as u64 {
            tokio::task::yield_now().await;
        }
        // The last answers are on their way.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    /// Bytes of one parked waiter, its future apart, which is allocated before; and what is left of it after it gave up.
    async fn bytes_of_a_waiter(&self, reads: usize, wait: impl Fn(&ProcessId) -> ProcessWait) -> (f64, f64) {
        let nobody = live_bytes();
        let before = usize::try_from(self.log.reads()).expect("few");
        let waiters = self.waiters(wait);
        let unparked = live_bytes();
        self.parked(before + reads * self.ids.len()).await;
        let parked = live_bytes();
        for waiter in &waiters {
            waiter.abort();
        }
        for waiter in waiters {
            assert!(waiter.await.is_err_and(|error| error.is_cancelled()), "it waited");
        }
        assert_eq!(self.source.parked_waits(), 0);
        let of_one = |bytes| per_waiter(bytes, self.ids.len());
        (of_one(parked - unparked), of_one(live_bytes() - nobody))
    }

    async fn show(self, load_matters: bool) {
        let waiters = self.ids.len();
        self.passivate().await;
        let outcome = |id: &ProcessId| ProcessWait::outcome(id.clone());
        let event_type: Arc<str> = "note".into();
        let event = |id: &ProcessId| ProcessWait::event(id.clone(), Arc::clone(&event_type), Sequence(1));
        // Queues of the runtime and of the log keep the room that so many reads at once once took.
        self.bytes_of_a_waiter(1, outcome).await;
        for (what, (bytes, left)) in [
            ("an outcome", self.bytes_of_a_waiter(1, outcome).await),
            ("an event", self.bytes_of_a_waiter(2, event).await),
        ] {
            println!("{waiters} waiters for {what}: {bytes:.1} B each, {left:.1} B each after all gave up");
            assert!(bytes <= BYTES, "a waiter for {what} has {bytes:.1} B");
            assert!(left < ENTRY, "a waiter for {what} leaves {left:.1} B");
        }

        let nobody = live_bytes();
        // Every second one waits for an event, and the others for the outcome.
        let is_for_event = |id: &ProcessId| id.as_str().ends_with(['1', '3', '5', '7', '9']);
        let before = usize::try_from(self.log.reads()).expect("few");
        let waiting = self.waiters(|id| if is_for_event(id) { event(id) } else { outcome(id) });
        self.parked(before + waiters + waiters / 2).await;
        let (reads, cpu) = (self.log.reads(), cpu_time());
        tokio::time::sleep(IDLE).await;
        let (reads_meanwhile, cpu) = (self.log.reads() - reads, cpu_time() - cpu);
        let load = cpu.as_secs_f64() / IDLE.as_secs_f64();
        println!("{waiters} idle waiters for {IDLE:?}: {reads_meanwhile} reads, {:.3} % of a core", load * 100.0);
        assert_eq!(reads_meanwhile, 0, "idle waiting reads nothing");
        assert!(!load_matters || load < LOAD, "idle waiting takes {:.2} % of a core", load * 100.0);
        assert_eq!(self.registry.live_actors(), 0, "a waiter keeps no actor alive");

        // Something happens to all of them, but not what is awaited.
        self.each(&self.ids, |registry, id| async move {
            registry.append_event(&id, note(1)).await.expect("an append");
        })
        .await;
        assert!(self.registry.live_actors() > 0);
        self.passivate().await;
        assert_eq!(self.source.parked_waits(), waiters, "nobody was told");
        println!("{waiters} waiters after all actors came to rest: {} live actors", self.registry.live_actors());

        self.each(&self.ids, |registry, id| async move {
            if is_for_event(&id) {
                registry.append_event(&id, note(2)).await.expect("an append");
            } else {
                let output = ProcessAwaitOutput::success(json!(id.as_str()));
                registry.complete_process(&id, output).await.expect("an outcome");
            }
        })
        .await;
        for (id, waiter) in self.ids.iter().zip(waiting) {
            let waiter = tokio::time::timeout(Duration::from_secs(60), waiter).await;
            match waiter.unwrap_or_else(|_| panic!("the waiter for {id} is stuck")).expect("no panic") {
                Ok(WaitAnswer::Happened { event }) => assert!(is_for_event(id) && event.sequence == Sequence(2)),
                Ok(answer) => {
                    assert!(!is_for_event(id));
                    assert_eq!(answer.output(), Some(&ProcessAwaitOutput::success(json!(id.as_str()))));
                }
                Err(error) => panic!("{id}: {error}"),
            }
        }
        assert_eq!(self.source.parked_waits(), 0);
        self.passivate().await;
        let left = per_waiter(live_bytes() - nobody, waiters);
        println!("{waiters} waiters after all ended: {left:.1} B each, with what the log keeps of new events");
        self.registry.shut_down(Duration::from_secs(60)).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a test")]
fn per_waiter(bytes: isize, waiters: usize) -> f64 {
    bytes as f64 / waiters as f64
}

#[test]
fn idle_waiters_read_nothing_keep_no_actor_alive_and_are_small() {
    let by_hand = std::env::var("PROCTOR_IDLE_WAITERS").ok().and_then(|waiters| waiters.parse().ok());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(by_hand.is_none()).build().expect("a runtime");
    runtime.block_on(async {
        if let Some(waiters) = by_hand {
            let directory = tempfile::tempdir().expect("a directory");
            let store = directory.path().join("store.db");
            let log = SqliteLog::open(store, SqliteOptions::default()).expect("a fresh store");
            Scene::new(Arc::new(log), waiters).await.show(true).await;
        } else {
            Scene::new(Arc::new(MemoryLog::new("test store")), 10_000).await.show(false).await;
        }
    });
}

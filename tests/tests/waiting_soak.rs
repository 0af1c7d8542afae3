//! Very many waits, for outcomes and events, for one, for the first and for all of several, while their callers give up,
//! actors, shards and the publisher are killed, notifications are lost and processes are pruned. Each wait that is not
//! given up ends, with the right answer, and nothing is left parked.
//!
//! What is right follows from the process's number alone. Where time is paused, polling costs nothing; elsewhere threads
//! interleave as they like, so that a seed brings back the choices of a round and not its every step.
//! `PROCTOR_SOAK_WAITS` says how many waits there are, `PROCTOR_SOAK_SEED` where the rounds begin.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awaiter::{AwaitError, ProcessAwaiter, ProcessChangeHub, ProcessWait, WaitAnswer};
use registry_actor::actor::{ActorRegistry, RegistryOptions, RestartPolicy};
use registry_actor::domain::{
    ProcessAwaitOutput, ProcessFailureClass, ProcessId, ProjectionWatermark, PruneFilter, Refusal, ReplayKey, Sequence,
    Tombstone,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Awaited, CommitListener, CommittedBatch, ProcessRegistry, ProcessRegistryExt, RegistryError,
};
use registry_tests::example_process::{note, process_id, registration};
use registry_tests::seeded::Random;
use serde_json::json;
use tokio::task::JoinHandle;

const PROCESSES: u64 = 60;
/// Notes of a process come before its end.
const NOTES: u64 = 4;
const DRIVERS: u64 = 6;
const WAITERS: u64 = 6;
const WAITS_OF_A_ROUND: u64 = 1_500;
/// A wait that takes longer is stuck: every process of a round ends within a second or so.
const BOUND: Duration = Duration::from_secs(120);

/// How waiters hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the registry's source.
    Source,
    /// From a hub that misses so many of a hundred commits, and by the clock.
    LossyHub { lost: u64 },
}

/// What a process does, by its number.
#[derive(Debug, Clone, Copy)]
struct Plan {
    number: u64,
}

impl Plan {
    const fn notes(self) -> u64 {
        self.number % (NOTES + 1)
    }

    /// The sequence of its terminal event.
    const fn end(self) -> u64 {
        self.notes() + 1
    }

    const fn is_pruned(self) -> bool {
        self.number % 7 == 3
    }

    fn outcome(self) -> ProcessAwaitOutput {
        if self.number.is_multiple_of(3) {
            ProcessAwaitOutput::failure(ProcessFailureClass::Execution, "e", self.number.to_string())
        } else {
            ProcessAwaitOutput::success(json!(self.number))
        }
    }

    fn id(self) -> ProcessId {
        process_id(&format!("process {}", self.number))
    }

    fn of(id: &ProcessId) -> Self {
        let number = id.as_str().strip_prefix("process ").and_then(|number| number.parse().ok());
        Self { number: number.expect("ids of this test are numbered") }
    }

    /// A wait on it, at random.
    fn wait(self, random: &mut Random) -> ProcessWait {
        let after = Sequence(random.below(NOTES + 2));
        match random.below(4) {
            0 => ProcessWait::event(self.id(), "note", after),
            1 => ProcessWait::any_event(self.id(), after),
            _ => ProcessWait::outcome(self.id()),
        }
    }
}

/// Whether an answer is right.
fn is_right(wait: &ProcessWait, answer: &WaitAnswer) -> bool {
    let plan = Plan::of(&wait.process_id);
    let awaited = match &wait.awaited {
        Awaited::Outcome => None,
        Awaited::Event { event_type: Some(_), after } => Some((after.0, plan.notes())),
        Awaited::Event { event_type: None, after } => Some((after.0, plan.end())),
    };
    match answer {
        WaitAnswer::Completed { record } => {
            awaited.is_none()
                && record.status.await_output() == Some(&plan.outcome())
                && record.id() == &wait.process_id
        }
        WaitAnswer::Happened { event } => awaited.is_some_and(|(after, last)| {
            after < last && event.sequence.0 == after + 1 && event.process_id == wait.process_id
        }),
        WaitAnswer::Ended { record } => {
            awaited.is_some_and(|(after, last)| after >= last) && record.status.await_output() == Some(&plan.outcome())
        }
        WaitAnswer::NoLongerRetained { tombstone } => plan.is_pruned() && tombstone.process_id == wait.process_id,
        _ => false,
    }
}

/// Forwards commits to a hub, or loses them.
struct Relay {
    hub: ProcessChangeHub,
    lost: u64,
    random: Mutex<Random>,
    counted: AtomicU64,
}

impl CommitListener for Relay {
    fn committed(&self, batches: &[CommittedBatch]) {
        for batch in batches {
            if self.random.lock().expect("no panic under it").below(100) < self.lost {
                self.counted.fetch_add(1, Ordering::Relaxed);
            } else {
                self.hub.notify(&batch.process_id);
            }
        }
    }

    fn pruned(&self, _tombstones: &[Tombstone]) {}

    fn resync(&self) {}

    fn closed(&self) {}
}

/// One round: a registry of its own, and everything that happens in it.
struct World {
    seed: u64,
    registry: ActorRegistry,
    awaiter: ProcessAwaiter,
    hub: ProcessChangeHub,
    relay: Option<Arc<Relay>>,
    all_ended: AtomicBool,
    given_up: AtomicU64,
    ended: AtomicU64,
    kills: AtomicU64,
    /// Answers: outcomes, events, ends before the event, no longer retained, deadlines.
    answers: [AtomicU64; 5],
}

impl World {
    async fn new(seed: u64, way: Way) -> Arc<Self> {
        let mut options = RegistryOptions::default();
        options.shards = 2;
        options.passivate_after = Duration::from_millis(2);
        options.sweep_interval = Duration::from_millis(1);
        options.restart = RestartPolicy {
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(2),
            failures_allowed: 8,
            window: Duration::from_millis(100),
            quarantine: Duration::from_millis(3),
        };
        options.supervisor_restart = RestartPolicy { failures_allowed: 1_000_000, ..options.restart };
        let log = Arc::new(MemoryLog::new("soaked store"));
        let registry = ActorRegistry::start(log, options).await.expect("the registry starts");
        for plan in plans() {
            let mut spec = registration(&plan.id());
            if plan.is_pruned() {
                spec = spec.with_tags(["pruned"]);
            }
            registry.register_process(spec).await.expect("a fresh id registers");
        }
        let source = registry.change_source().expect("the registry tells");
        let hub = ProcessChangeHub::new();
        let (awaiter, relay) = match way {
            Way::Source => (ProcessAwaiter::attached(Arc::new(registry.clone())), None),
            Way::LossyHub { lost } => {
                let random = Mutex::new(Random::new(!seed));
                let relay = Arc::new(Relay { hub: hub.clone(), lost, random, counted: AtomicU64::new(0) });
                source.attach(&(Arc::clone(&relay) as Arc<dyn CommitListener>));
                (ProcessAwaiter::new(Arc::new(registry.clone()), hub.clone()), Some(relay))
            }
        };
        let zero = AtomicU64::default;
        let all_ended = AtomicBool::new(false);
        Arc::new(Self {
            seed,
            registry,
            awaiter,
            hub,
            relay,
            all_ended,
            given_up: zero(),
            ended: zero(),
            kills: zero(),
            answers: Default::default(),
        })
    }

    fn random(&self, stream: u64) -> Random {
        Random::new(self.seed ^ (stream + 1).wrapping_mul(0x5851_f42d_4c95_7f2d))
    }

    /// Lives the lives of every so-manieth process, a note at a time.
    async fn drive(self: Arc<Self>, driver: u64) {
        let mut random = self.random(driver);
        let own = || plans().filter(|plan| plan.number % DRIVERS == driver);
        for step in 1..=NOTES + 1 {
            for plan in own() {
                tokio::time::sleep(Duration::from_micros(random.below(300))).await;
                let id = plan.id();
                if step <= plan.notes() {
                    let key = ReplayKey::new(format!("k{step}")).expect("a key");
                    let append = || self.registry.append_event(&id, note(step).with_replay_key(key.clone()));
                    self.insist(append).await;
                } else if step == plan.end() {
                    self.insist(|| self.registry.complete_process(&id, plan.outcome())).await;
                    if plan.is_pruned() && random.below(2) == 0 {
                        self.prune().await;
                    }
                }
            }
        }
        self.prune().await;
    }

    async fn prune(&self) {
        let filter = PruneFilter { tags: ["pruned".to_owned()].into(), ..PruneFilter::ended_before(u64::MAX) };
        self.insist(|| self.registry.prune_terminal_processes(filter.clone(), ProjectionWatermark::NoProjector)).await;
    }

    /// Calls until it is known to be carried out. A process whose end was stored without an answer may be pruned, by any driver,
    /// before its end is sent again.
    async fn insist<T, F: Future<Output = Result<T, RegistryError>>>(&self, call: impl Fn() -> F) {
        let mut may_have_ended_it = false;
        loop {
            match call().await {
                Ok(_) => return,
                Err(RegistryError::Refused(Refusal::Unknown { .. })) if may_have_ended_it => return,
                Err(RegistryError::Refused(refusal)) => panic!("seed {}: {refusal}", self.seed),
                Err(error) => {
                    may_have_ended_it |= !error.changed_nothing();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    async fn strike(self: Arc<Self>) {
        let mut random = self.random(1_000);
        while !self.all_ended.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_micros(random.below(1_500))).await;
            let mut anyone = || Plan { number: random.below(PROCESSES) }.id();
            // Few are live at a time.
            let live = (0..8).find_map(|_| self.registry.process_actor(&anyone()));
            let supervisors = self.registry.supervisors_of(&anyone());
            let struck: Vec<_> = match random.below(30) {
                0 => supervisors,
                1 => supervisors.into_iter().take(1).collect(),
                2..5 => supervisors.into_iter().skip(1).collect(),
                _ => live.into_iter().collect(),
            };
            self.kills.fetch_add(struck.len() as u64, Ordering::Relaxed);
            struck.iter().for_each(|actor| actor.kill());
        }
    }

    /// Begins its share of the waits while all else happens, gives up some of them at any moment, and hears of the others.
    async fn wait(self: Arc<Self>, waiter: u64) {
        let mut random = self.random(2_000 + waiter);
        let mut waiting = Vec::new();
        for _ in 0..WAITS_OF_A_ROUND / WAITERS {
            if random.below(4) == 0 {
                tokio::time::sleep(Duration::from_micros(random.below(200))).await;
            }
            waiting.push(self.begin(&mut random));
            if random.below(4) == 0 {
                let given_up = usize::try_from(random.below(waiting.len() as u64)).expect("few");
                waiting.swap_remove(given_up).give_up().await;
            }
        }
        for waiting in waiting {
            waiting.hear(self.seed).await;
        }
    }

    fn begin(self: &Arc<Self>, random: &mut Random) -> Waiting {
        let several = 2 + random.below(3);
        let mut waits: Vec<_> = (0..several).map(|_| Plan { number: random.below(PROCESSES) }.wait(random)).collect();
        let kind = random.below(12);
        // Beyond the last end, or so soon that it comes first.
        let within = Some(Duration::from_micros(random.below(4_000)));
        if !matches!(kind, 7..=9) {
            waits.truncate(1);
        }
        let what = Arc::new(format!("{kind}: {waits:?}"));
        let mut counted = Counted { world: Arc::clone(self), has_ended: false };
        let task = tokio::spawn(async move {
            let wrong = counted.world.ask(kind, &waits, within).await;
            counted.it_has_ended();
            wrong
        });
        Waiting { what, task }
    }

    /// What is wrong with an answer, if something is.
    fn wrong(&self, wait: &ProcessWait, answer: &WaitAnswer) -> Option<String> {
        let kind = match answer {
            WaitAnswer::Completed { .. } => 0,
            WaitAnswer::Happened { .. } => 1,
            WaitAnswer::Ended { .. } => 2,
            WaitAnswer::NoLongerRetained { .. } => 3,
            _ => 4,
        };
        self.answers[kind].fetch_add(1, Ordering::Relaxed);
        (!is_right(wait, answer)).then(|| format!("{wait:?} was answered {answer:?}"))
    }

    /// The same of an outcome alone.
    fn wrong_outcome(&self, plan: Plan, answer: &Result<ProcessAwaitOutput, AwaitError>) -> Option<String> {
        let (kind, right) = match answer {
            Ok(outcome) => (0, *outcome == plan.outcome()),
            Err(AwaitError::NoLongerRetained { .. }) => (3, plan.is_pruned()),
            Err(_) => (4, false),
        };
        self.answers[kind].fetch_add(1, Ordering::Relaxed);
        (!right).then(|| format!("the outcome of {} was answered {answer:?}", plan.number))
    }

    /// Waits in one of the ways there are. Answers what is wrong with the answer.
    async fn ask(&self, kind: u64, waits: &[ProcessWait], within: Option<Duration>) -> Option<String> {
        match kind {
            0..=2 => {
                let plan = Plan::of(&waits[0].process_id);
                self.wrong_outcome(plan, &self.awaiter.await_terminal(&plan.id()).await)
            }
            // The registry's own, which needs no awaiter.
            3 => match self.registry.wait(&waits[0]).await {
                Ok(answer) => self.wrong(&waits[0], &answer),
                Err(error) => Some(error.to_string()),
            },
            7 | 8 => match self.awaiter.await_any(waits, None).await {
                Ok(Some(first)) => self.wrong(&waits[first.index], &first.answer),
                other => Some(format!("{waits:?}: {other:?}")),
            },
            9 => match self.awaiter.await_all(waits, None).await {
                Ok(answers) => waits.iter().zip(&answers).find_map(|(wait, answer)| self.wrong(wait, answer)),
                Err(error) => Some(format!("{waits:?}: {error}")),
            },
            10 => match self.awaiter.wait(&waits[0], within).await {
                Ok(WaitAnswer::Deadline) => {
                    self.answers[4].fetch_add(1, Ordering::Relaxed);
                    None
                }
                Ok(answer) => self.wrong(&waits[0], &answer),
                Err(error) => Some(error.to_string()),
            },
            _ => match self.awaiter.wait(&waits[0], None).await {
                Ok(answer) => self.wrong(&waits[0], &answer),
                Err(error) => Some(error.to_string()),
            },
        }
    }
}

/// Counts a wait when it goes, as ended or as given up.
struct Counted {
    world: Arc<World>,
    has_ended: bool,
}

impl Counted {
    const fn it_has_ended(&mut self) {
        self.has_ended = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = if self.has_ended { &self.world.ended } else { &self.world.given_up };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A wait that somebody has begun.
struct Waiting {
    what: Arc<String>,
    task: JoinHandle<Option<String>>,
}

impl Waiting {
    async fn give_up(self) {
        self.task.abort();
        match self.task.await {
            Ok(wrong) => assert_eq!(wrong, None),
            Err(error) => assert!(error.is_cancelled(), "{}: {error}", self.what),
        }
    }

    async fn hear(self, seed: u64) {
        let heard = tokio::time::timeout(BOUND, self.task).await;
        let heard = heard.unwrap_or_else(|_| panic!("seed {seed}: {} is stuck", self.what));
        assert_eq!(heard.expect("no panic"), None, "seed {seed}: {}", self.what);
    }
}

fn plans() -> impl Iterator<Item = Plan> {
    (0..PROCESSES).map(|number| Plan { number })
}

async fn round(seed: u64, way: Way) -> Totals {
    let world = World::new(seed, way).await;
    let waiters: Vec<_> = (0..WAITERS).map(|waiter| tokio::spawn(Arc::clone(&world).wait(waiter))).collect();
    let striker = tokio::spawn(Arc::clone(&world).strike());
    let drivers: Vec<_> = (0..DRIVERS).map(|driver| tokio::spawn(Arc::clone(&world).drive(driver))).collect();
    for driver in drivers {
        let driven = tokio::time::timeout(BOUND, driver).await;
        driven.unwrap_or_else(|_| panic!("seed {seed}: a command hangs")).expect("no panic");
    }
    world.all_ended.store(true, Ordering::Relaxed);
    striker.await.expect("no panic");
    for waiter in waiters {
        waiter.await.expect("no panic");
    }
    let source = world.registry.change_source().expect("the registry tells");
    assert_eq!(source.parked_waits(), 0, "seed {seed}: nobody is left parked");
    assert_eq!(world.hub.watched_processes(), 0, "seed {seed}: nothing is left watched");
    for plan in plans().filter(|plan| plan.is_pruned()) {
        let record = world.registry.get_process(&plan.id()).await.expect("readable");
        assert_eq!(record, None, "seed {seed}: it is pruned");
    }
    world.registry.shut_down(BOUND).await;
    Totals::of(&world)
}

#[derive(Debug, Default)]
struct Totals {
    ended: u64,
    given_up: u64,
    kills: u64,
    notifications_lost: u64,
    answers: [u64; 5],
}

impl Totals {
    fn of(world: &World) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            ended: count(&world.ended),
            given_up: count(&world.given_up),
            kills: count(&world.kills),
            notifications_lost: world.relay.as_ref().map_or(0, |relay| count(&relay.counted)),
            answers: world.answers.each_ref().map(count),
        }
    }

    fn add(&mut self, other: &Self) {
        self.ended += other.ended;
        self.given_up += other.given_up;
        self.kills += other.kills;
        self.notifications_lost += other.notifications_lost;
        for (sum, more) in self.answers.iter_mut().zip(other.answers) {
            *sum += more;
        }
    }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_wait_ends_with_the_right_answer_whoever_is_killed_and_whatever_is_lost() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let first = env("PROCTOR_SOAK_SEED").unwrap_or_else(|| u64::try_from(now % 1_000_000_000).unwrap_or(0));
    let rounds = env("PROCTOR_SOAK_WAITS").unwrap_or(30_000).div_ceil(WAITS_OF_A_ROUND);
    println!("PROCTOR_SOAK_SEED={first}");
    let ways =
        [Way::Source, Way::LossyHub { lost: 0 }, Way::LossyHub { lost: 10 }, Way::LossyHub { lost: 100 }, Way::Source];
    let mut totals: Vec<_> = ways.iter().map(|way| (way, Totals::default())).collect();
    for number in 0..rounds {
        let seed = first.wrapping_add(number);
        // By the seed and not by the number, so that a round can be played alone.
        let place = usize::try_from(seed % ways.len() as u64).expect("few");
        // The last way has threads and the time that there is; the others one thread, and time that waits for nobody.
        let runtime = if place + 1 == ways.len() {
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()
        } else {
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
        };
        let round = runtime.expect("a runtime").block_on(round(seed, ways[place]));
        totals[place].1.add(&round);
    }
    for (way, total) in &totals {
        println!("{way:?}: {total:?}");
    }
    let all: u64 = totals.iter().map(|(_, total)| total.ended + total.given_up).sum();
    println!("{all} waits in {rounds} rounds");
    assert_eq!(all, rounds * WAITS_OF_A_ROUND, "each wait ended or was given up");
}

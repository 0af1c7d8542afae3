//! Everything at once, at random: callers, leases, outcomes and waiters, while actors, shards and the publisher are
//! killed, appends and reads fail, and processes come to rest all the time.
//!
//! Threads interleave as they like, so that a seed brings back the choices of a round and not its every step.
//! `PROCTOR_STRESS_ROUNDS` says how many rounds are run, `PROCTOR_STRESS_SEED` where they begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awaiter::ProcessAwaiter;
use registry_actor::actor::{ActorRegistry, RegistryOptions, RestartPolicy};
use registry_actor::domain::{
    Fence, ProcessAwaitOutput, ProcessId, ProcessLease, Receipt, Refusal, ReplayKey, Sequence, UnfencedWrites,
};
use registry_actor::log::{AppendFault, MemoryLog};
use registry_actor::port::{ProcessLog, ProcessRegistryExt, RegistryError};
use registry_tests::example_process::{note, opaque_owner, process_id, registration};
use registry_tests::seeded::Random;
use serde_json::json;

const PROCESSES: u64 = 6;
const CALLERS: u64 = 12;
const CALLS: u64 = 150;
/// Keys are few, so that callers meet at them.
const KEYS: u64 = 40;
/// A call that takes longer hangs. Restart delays and an unreadable store together take a few seconds at most.
const BOUND: Duration = Duration::from_secs(60);

/// What callers were told.
#[derive(Default)]
struct Told {
    /// Number of a note, by process: the sequence that its receipts told.
    stored: BTreeMap<(usize, u64), BTreeSet<u64>>,
    /// Notes of which "nothing changed" was said and nothing else.
    not_stored: BTreeSet<(usize, u64)>,
    /// Fences of acquired leases with the calls' order.
    leases: Vec<(usize, ProcessLease)>,
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn bounded<T>(what: &str, seed: u64, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, call).await.unwrap_or_else(|_| panic!("seed {seed}: {what} hangs"))
}

/// Whether the error says that nothing changed. Anything that this test cannot explain fails it.
fn says_nothing_changed(error: &RegistryError, seed: u64) -> bool {
    match error {
        RegistryError::OutcomeUnknown { .. } => false,
        RegistryError::NotStored { .. } | RegistryError::Unavailable { .. } | RegistryError::Busy { .. } => true,
        other => panic!("seed {seed}: {other:?}"),
    }
}

/// Calls until the registry answers: what it did not take, or does not know, is tried again.
async fn insist<T, F>(what: &str, seed: u64, call: impl Fn() -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    bounded(what, seed, async {
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(RegistryError::Refused(refusal)) => return Err(refusal),
                Err(RegistryError::Store(_)) => {}
                Err(other) => {
                    says_nothing_changed(&other, seed);
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

struct World {
    seed: u64,
    log: MemoryLog,
    registry: ActorRegistry,
    ids: Vec<ProcessId>,
    calls: AtomicU64,
    enough: AtomicBool,
}

impl World {
    async fn new(seed: u64) -> Arc<Self> {
        let log = MemoryLog::new("stressed store");
        let mut options = RegistryOptions::default();
        options.shards = 2;
        options.passivate_after = Duration::from_millis(1);
        options.sweep_interval = Duration::from_millis(1);
        options.unfenced_writes = UnfencedWrites::Allowed;
        options.restart = RestartPolicy {
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(2),
            failures_allowed: 8,
            window: Duration::from_millis(100),
            quarantine: Duration::from_millis(3),
        };
        options.supervisor_restart = RestartPolicy { failures_allowed: 1_000_000, ..options.restart };
        let registry = ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts");
        let ids: Vec<_> = (0..PROCESSES).map(|number| process_id(&format!("p{number}"))).collect();
        for id in &ids {
            registry.register_process(registration(id)).await.expect("a fresh id registers");
        }
        let (calls, enough) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { seed, log, registry, ids, calls, enough })
    }

    /// One caller: appends, and lease moves as an owner of its own.
    async fn call(self: Arc<Self>, caller: u64) -> Told {
        let mut random = Random::new(self.seed ^ (caller + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
        let mut told = Told::default();
        let owner = opaque_owner(&format!("owner {caller}"));
        for call in 0..CALLS {
            let process = usize::try_from(random.below(PROCESSES)).expect("few");
            let id = &self.ids[process];
            match random.below(8) {
                0 => {
                    let claim = self.registry.claim_process_lease(id, owner.clone(), 1 + random.below(5));
                    if let Ok(outcome) = bounded("a claim", self.seed, claim).await {
                        told.leases.extend(outcome.acquired().map(|lease| (process, lease)));
                    }
                }
                1 => {
                    if let Some((process, lease)) = told.leases.last().cloned() {
                        let renewal = self.registry.renew_process_lease(lease, 5);
                        if let Ok(lease) = bounded("a renewal", self.seed, renewal).await {
                            told.leases.push((process, lease));
                        }
                    }
                }
                2 => {
                    if let Some((_, lease)) = told.leases.last() {
                        // Whether it is still held does not matter here.
                        drop(bounded("a release", self.seed, self.registry.complete_process_lease(lease)).await);
                    }
                }
                3 => {
                    let number = random.below(KEYS);
                    let key = ReplayKey::new(format!("k{number}")).expect("a key");
                    let append = self.registry.append_event(id, note(number).with_replay_key(key));
                    let answer = bounded("a keyed append", self.seed, append).await;
                    told.appended(process, number, &answer, self.seed);
                }
                _ => {
                    let number = (caller + 1) * 1_000_000 + call;
                    let answer = bounded("an append", self.seed, self.registry.append_event(id, note(number))).await;
                    if let Err(error) = &answer
                        && says_nothing_changed(error, self.seed)
                    {
                        told.not_stored.insert((process, number));
                    }
                    told.appended(process, number, &answer, self.seed);
                }
            }
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    /// Strikes once for every few calls, so that the registry is never kept from all work.
    async fn strike(self: Arc<Self>) {
        let mut random = Random::new(self.seed);
        let (mut next, mut fences) = (0, BTreeMap::<usize, Fence>::new());
        while !self.enough.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
            if self.calls.load(Ordering::Relaxed) < next {
                continue;
            }
            next = self.calls.load(Ordering::Relaxed) + random.below(12);
            let process = usize::try_from(random.below(PROCESSES)).expect("few");
            let id = &self.ids[process];
            match random.below(40) {
                0 => self.registry.supervisors_of(id).iter().for_each(|actor| actor.kill()),
                1 => self.registry.supervisors_of(id).first().into_iter().for_each(|actor| actor.kill()),
                2 => self.registry.supervisors_of(id).last().into_iter().for_each(|actor| actor.kill()),
                3 => self.log.fail_reads(1 + random.below(2)),
                4..=10 => self.log.fail_append(1 + random.below(3), AppendFault::UnknownStored),
                11..=14 => self.log.fail_append(1 + random.below(3), AppendFault::UnknownNotStored),
                15..=17 => self.log.fail_append(1 + random.below(3), AppendFault::NotAccepted),
                18..=20 => {
                    self.log.pause();
                    for _ in 0..random.below(30) {
                        tokio::task::yield_now().await;
                    }
                    self.log.resume();
                }
                21..=24 => {
                    if let Ok(Some(lease)) = self.registry.get_process_lease(id).await {
                        let latest = fences.entry(process).or_default();
                        assert!(lease.fencing_token >= *latest, "seed {}: a fence went back", self.seed);
                        *latest = lease.fencing_token;
                    }
                }
                _ => self.registry.process_actor(id).iter().for_each(|actor| actor.kill()),
            }
        }
    }
}

impl Told {
    fn appended(&mut self, process: usize, number: u64, answer: &Result<Receipt, RegistryError>, seed: u64) {
        if let Ok(receipt) = answer {
            assert_eq!(receipt.events.len(), 1, "seed {seed}: {receipt:?}");
            let sequence = receipt.events[0].event().sequence.0;
            self.stored.entry((process, number)).or_default().insert(sequence);
        }
    }

    fn merge(&mut self, other: Self) {
        for (note, sequences) in other.stored {
            self.stored.entry(note).or_default().extend(sequences);
        }
        self.not_stored.extend(other.not_stored);
        self.leases.extend(other.leases);
    }
}

async fn round(seed: u64) {
    let world = World::new(seed).await;
    let awaiter = ProcessAwaiter::attached(Arc::new(world.registry.clone()));
    let waiters: Vec<_> = world
        .ids
        .iter()
        .cloned()
        .map(|id| {
            let awaiter = awaiter.clone();
            tokio::spawn(async move { awaiter.await_terminal(&id).await })
        })
        .collect();
    let striker = tokio::spawn(Arc::clone(&world).strike());
    let callers: Vec<_> = (0..CALLERS).map(|caller| tokio::spawn(Arc::clone(&world).call(caller))).collect();
    let mut told = Told::default();
    for caller in callers {
        let heard = caller.await.expect("no panic");
        assert_fences_grow(&heard.leases, seed);
        told.merge(heard);
    }
    // Two race for the outcome of each process, while the strikes go on.
    let racers: Vec<_> = (0..2 * world.ids.len())
        .map(|racer| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let id = &world.ids[racer / 2];
                let output = ProcessAwaitOutput::success(json!(racer));
                let complete = || world.registry.complete_process(id, output.clone());
                let ended = insist("an outcome", seed, complete).await;
                world.calls.fetch_add(1, Ordering::Relaxed);
                match ended {
                    Ok(_) | Err(Refusal::AlreadyTerminal { .. }) => {}
                    Err(refusal) => panic!("seed {seed}: {refusal}"),
                }
            })
        })
        .collect();
    for racer in racers {
        racer.await.expect("no panic");
    }
    world.enough.store(true, Ordering::Relaxed);
    striker.await.expect("no panic");
    // What is still scripted must not fail the check itself.
    world.log.fail_reads(0);
    for (process, waiter) in waiters.into_iter().enumerate() {
        let heard = bounded("a waiter", seed, waiter).await.expect("no panic").expect("it has an outcome");
        let record = world.registry.get_process(&world.ids[process]).await.expect("readable").expect("registered");
        assert_eq!(Some(&heard), record.status.await_output(), "seed {seed}: the waiter heard of what is stored");
    }
    for (process, id) in world.ids.iter().enumerate() {
        check(&world, process, id, &told).await;
    }
    let mut holders = BTreeMap::new();
    for (process, lease) in &told.leases {
        let holder = holders.entry((*process, lease.fencing_token)).or_insert(&lease.lease_token);
        assert_eq!(*holder, &lease.lease_token, "seed {seed}: two acquisitions have one fence");
    }
    let report = bounded("the shutdown", seed, world.registry.shut_down(Duration::from_secs(20))).await;
    assert_eq!(report.shards_killed, 0, "seed {seed}: everything comes to rest");
}

/// A caller's own leases of one process, in the order in which it was told of them.
fn assert_fences_grow(leases: &[(usize, ProcessLease)], seed: u64) {
    let mut latest = BTreeMap::new();
    for (process, lease) in leases {
        let before = latest.insert(process, lease.fencing_token);
        assert!(before.is_none_or(|before| before <= lease.fencing_token), "seed {seed}: a fence went back");
    }
}

async fn check(world: &World, process: usize, id: &ProcessId, told: &Told) {
    let seed = world.seed;
    let verification = world.log.verify(id).await.expect("the check can be made");
    assert_eq!(verification.faults, [], "seed {seed}: {id} verifies");
    let page = world.registry.events_page(id, Sequence(0), 10_000).await.expect("readable");
    assert!(!page.has_more, "one page holds what a round appends");
    let sequences: Vec<u64> = page.events.iter().map(|event| event.sequence.0).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>(), "seed {seed}: {id} is dense");
    let ends = ["process.completed", "process.failed", "process.cancelled", "process.abandoned"];
    let terminals = page.events.iter().filter(|event| ends.contains(&&*event.event_type)).count();
    assert_eq!(terminals, 1, "seed {seed}: {id} has one outcome");
    let mut stored = BTreeMap::new();
    for event in &page.events {
        if let Some(number) = event.payload["number"].as_u64() {
            let before = stored.insert(number, event.sequence.0);
            assert_eq!(before, None, "seed {seed}: note {number} of {id} is stored twice");
        }
    }
    for ((_, number), sequences) in told.stored.iter().filter(|((of, _), _)| *of == process) {
        let expected = stored.get(number).copied().into_iter().collect();
        assert_eq!(*sequences, expected, "seed {seed}: receipts tell where note {number} of {id} is");
    }
    for (_, number) in told.not_stored.iter().filter(|(of, _)| *of == process) {
        assert!(
            !stored.contains_key(number),
            "seed {seed}: note {number} of {id} is stored, its caller was told it is not"
        );
    }
}

#[test]
fn random_kills_and_faults_hang_nobody_and_apply_nothing_twice() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let first = env("PROCTOR_STRESS_SEED").unwrap_or_else(|| u64::try_from(now % 1_000_000_000).unwrap_or(0));
    let rounds = env("PROCTOR_STRESS_ROUNDS").unwrap_or(16);
    for seed in (0..rounds).map(|round| first.wrapping_add(round)) {
        println!("seed {seed}");
        let mut runtime = match seed % 3 {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = runtime.worker_threads(4).enable_all().build().expect("a runtime");
        runtime.block_on(round(seed));
    }
}

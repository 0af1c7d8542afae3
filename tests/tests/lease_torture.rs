//! Leases while their holders stand still, die and wake up again, and while the wall clock jumps: nobody writes whose right
//! has ended, nobody takes a right that has not, and what may run once runs once.
//!
//! `PROCTOR_LEASE_ROUNDS` and `PROCTOR_CLOCK_JUMPS` set how often, `PROCTOR_SEED` repeats a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseRelease, LeaseTimings, ProcessAwaitOutput, ProcessEvent, ProcessId,
    ProcessInput, ProcessLease, ProcessLeaseClaimOutcome, ProcessRegistration, RecoveryDisposition, Sequence,
};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::{Clock, ProcessRegistryExt as _, ProcessWait, RunEnd, WaitAnswer};
use registry_actor::remote::{RegistryServer, ServerOptions};
use registry_actor::worker::{ProcessExecutors, Worker, WorkerOptions};
use registry_tests::VirtualClock;
use registry_tests::child_process::ChildProcess;
use registry_tests::example_process::{opaque_owner, process_id};
use registry_tests::lease_worker::{self, BEAT, Proof, beating};
use registry_tests::scoreboard::{RunRecord, record};
use registry_tests::scripted_executor::ScriptedExecutor;
use registry_tests::seeded::{Random, seed};
use serde_json::{Value, json};

use RecoveryDisposition::{OwnerBound, Rerunnable};

const WORKER: &str = env!("CARGO_BIN_EXE_lease-worker");
const TTL: Duration = Duration::from_millis(400);
/// Longer than anything that a machine under load takes.
const BOUND: Duration = Duration::from_secs(120);
const STARTED: &str = "process.attempt_started";
const TERMINALS: [&str; 4] = ["process.completed", "process.failed", "process.cancelled", "process.abandoned"];

fn times(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn in_ms(took: Duration) -> String {
    format!("{} ms", took.as_millis())
}

/// A registry over a store, served on a socket.
struct Scene {
    registry: ActorRegistry,
    server: RegistryServer,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let log = SqliteLog::open(directory.path().join("store.db"), SqliteOptions::default()).expect("a store");
        let registry =
            ActorRegistry::start(Arc::new(log), RegistryOptions::default()).await.expect("a registry starts");
        let socket = directory.path().join("socket");
        let session = registry.session().clone();
        let server = RegistryServer::start(&socket, Arc::new(registry.clone()), session, ServerOptions::default())
            .await
            .expect("it is served");
        Self { registry, server, socket, _directory: directory }
    }

    async fn end(self) {
        self.server.stop(Duration::from_secs(1)).await;
        self.registry.shut_down(BOUND).await;
    }

    async fn worker(&self, name: &str, kind: &str, ttl: Duration, proof: Proof) -> Arc<ChildProcess> {
        let child = lease_worker::start(Path::new(WORKER), &self.socket, name, kind, ttl, proof);
        let child = Arc::new(child);
        assert!(blocking(&child, |child| child.told(1)).await, "the worker is ready");
        child
    }

    /// The first event of a type after another.
    async fn event(&self, id: &ProcessId, event_type: &str, after: Sequence) -> Arc<ProcessEvent> {
        let wait = ProcessWait::event(id.clone(), event_type, after);
        let answer = tokio::time::timeout(BOUND, self.registry.wait(&wait)).await;
        match answer.unwrap_or_else(|_| panic!("{id} has no `{event_type}` in time")).expect("an answer") {
            WaitAnswer::Happened { event } => event,
            other => panic!("expected `{event_type}` of {id}, got {other:?}"),
        }
    }

    async fn ended(&self, id: &ProcessId) {
        tokio::time::timeout(BOUND, self.registry.wait(&ProcessWait::outcome(id.clone())))
            .await
            .expect("it ends in time")
            .expect("an answer");
    }

    /// Takes the lease as soon as it can be had. That a lease runs out is told to nobody, so it is asked for.
    async fn take(&self, id: &ProcessId) -> (ProcessLease, Option<Box<ProcessLease>>) {
        let until = Instant::now() + BOUND;
        loop {
            let claim = self.registry.claim_process_lease(id, opaque_owner("rival"), 60_000).await.expect("an answer");
            if let ProcessLeaseClaimOutcome::Acquired { lease, displaced } = claim {
                return (lease, displaced);
            }
            assert!(Instant::now() < until, "the lease of {id} does not run out");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn events(&self, id: &ProcessId) -> Vec<Arc<ProcessEvent>> {
        self.registry.events_after(id, Sequence::REGISTRATION).await.expect("readable")
    }
}

async fn blocking<T: Send + 'static>(
    child: &Arc<ChildProcess>,
    ask: impl FnOnce(&ChildProcess) -> T + Send + 'static,
) -> T {
    let child = Arc::clone(child);
    let asked = tokio::task::spawn_blocking(move || ask(&child));
    tokio::time::timeout(BOUND, asked).await.expect("it answers in time").expect("no panic")
}

fn owner_of(started: &ProcessEvent) -> String {
    started.payload["owner"]["owner_id"].as_str().expect("an attempt has an owner").to_owned()
}

/// What the log of a process must not hold, whatever happened to its workers.
fn violations(id: &ProcessId, disposition: RecoveryDisposition, events: &[Arc<ProcessEvent>]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut attempt, mut fence, mut terminals) = (0, 0, 0);
    for event in events {
        let number = |name: &str| event.payload.get(name).and_then(Value::as_u64).unwrap_or_default();
        match &*event.event_type {
            STARTED => {
                if number("fencing_token") <= fence {
                    found.push(format!("{id}: the fence did not grow at {}", event.sequence));
                }
                (attempt, fence) = (number("attempt"), number("fencing_token"));
                if disposition == OwnerBound && attempt > 1 {
                    found.push(format!("{id}: owner-bound work was begun again at {}", event.sequence));
                }
            }
            BEAT if number("attempt") != attempt => {
                found.push(format!(
                    "{id}: attempt {} wrote in attempt {attempt} at {}",
                    number("attempt"),
                    event.sequence
                ));
            }
            BEAT if terminals > 0 => found.push(format!("{id}: a beat after its end at {}", event.sequence)),
            other if TERMINALS.contains(&other) => terminals += 1,
            _ => {}
        }
    }
    if terminals != 1 {
        found.push(format!("{id}: {terminals} terminal events"));
    }
    found
}

/// One pair of workers, and what was seen of it.
struct Lane {
    scene: Arc<Scene>,
    kind: String,
    workers: BTreeMap<String, Arc<ChildProcess>>,
    random: Random,
    taken_over: u64,
    stops: Vec<Duration>,
    violations: Vec<String>,
}

impl Lane {
    async fn new(scene: &Arc<Scene>, number: u64, seed: u64) -> Self {
        let kind = format!("lane-{number}");
        let mut workers = BTreeMap::new();
        for side in ["a", "b"] {
            let name = format!("{kind}-{side}");
            workers.insert(name.clone(), scene.worker(&name, &kind, TTL, Proof::Process).await);
        }
        let (scene, random) = (Arc::clone(scene), Random::new(seed ^ number));
        Self { scene, kind, workers, random, taken_over: 0, stops: Vec::new(), violations: Vec::new() }
    }

    /// SIGSTOP past the ttl, takeover by another, SIGCONT.
    async fn round(&mut self, round: u64) {
        let disposition = if self.random.below(2) == 0 { Rerunnable } else { OwnerBound };
        let id = process_id(&format!("{}-{round}", self.kind));
        let scene = Arc::clone(&self.scene);
        scene.registry.register_process(beating(&id, &self.kind, disposition)).await.expect("registered");
        let mut at = scene.event(&id, STARTED, Sequence::REGISTRATION).await;
        for _ in 0..self.random.below(3) {
            at = scene.event(&id, BEAT, at.sequence).await;
        }
        let started = scene.events(&id).await.into_iter().rev().find(|event| *event.event_type == *STARTED);
        let started = started.expect("it was begun");
        let (holder, attempt) = (owner_of(&started), started.payload["attempt"].as_u64().unwrap_or_default());
        let child = Arc::clone(&self.workers[&holder]);
        blocking(&child, ChildProcess::stop).await;
        let rival = match disposition {
            Rerunnable => {
                // The other worker takes it over when the lease has run out.
                scene.event(&id, STARTED, started.sequence).await;
                None
            }
            _ => Some(scene.take(&id).await),
        };
        if let Some((_, displaced)) = &rival
            && displaced.as_ref().is_none_or(|displaced| displaced.owner.owner_id != holder)
        {
            self.violations.push(format!("{id}: the rival displaced {displaced:?} and not {holder}"));
        }
        let went_on = Instant::now();
        blocking(&child, ChildProcess::go_on).await;
        let over = format!("over {id} {attempt} ");
        let told = blocking(&child, {
            let over = over.clone();
            move |child| child.until(|lines| lines.iter().any(|line| line.starts_with(&over)))
        });
        assert!(told.await, "the stale worker goes on: {over}");
        self.stops.push(went_on.elapsed());
        self.taken_over += 1;
        if !child.lines().iter().any(|line| *line == format!("{over}lease_lost")) {
            self.violations.push(format!("{id}: the stale worker ended for another reason"));
        }
        match rival {
            None => drop(scene.registry.request_process_cancel(&id, None).await.expect("asked")),
            Some((lease, _)) => {
                let output = ProcessAwaitOutput::cancelled("by the rival");
                let fence = lease.fence();
                let ended = scene.registry.complete_process_fenced(&id, output, fence, LeaseRelease::Release);
                drop(ended.await.expect("the rival holds it"));
            }
        }
        scene.ended(&id).await;
        self.violations.extend(violations(&id, disposition, &scene.events(&id).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stood_still_past_its_ttl_writes_nothing_more_and_stops() {
    let (seed, rounds, lanes) = (seed(), times("PROCTOR_LEASE_ROUNDS", 20), 8);
    let scene = Arc::new(Scene::new().await);
    let mut running = tokio::task::JoinSet::new();
    for number in 0..lanes {
        let scene = Arc::clone(&scene);
        running.spawn(async move {
            let mut lane = Lane::new(&scene, number, seed).await;
            for round in (number..rounds).step_by(8) {
                lane.round(round).await;
            }
            (lane.taken_over, lane.stops, lane.violations)
        });
    }
    let (mut taken_over, mut stops, mut violations) = (0, Vec::new(), Vec::new());
    while let Some(ended) = running.join_next().await {
        let (lane, mut lane_stops, mut lane_violations) = ended.expect("no lane panics");
        taken_over += lane;
        stops.append(&mut lane_stops);
        violations.append(&mut lane_violations);
    }
    stops.sort_unstable();
    let (median, last) = (in_ms(stops[stops.len() / 2]), in_ms(stops[stops.len() - 1]));
    println!("{taken_over} rounds of SIGSTOP past the ttl, takeover, SIGCONT: {} violations", violations.len());
    println!("the stale worker stops after: median {median}, at most {last}, renewals every {:?}", TTL / 3);
    record(&RunRecord {
        name: "lease-torture".to_owned(),
        what: "SIGSTOP of a worker past the ttl of its lease, takeover by another, SIGCONT".to_owned(),
        ran: taken_over,
        unit: "rounds".to_owned(),
        seed: Some(seed),
        violations: violations.len() as u64,
        measured: BTreeMap::from([
            ("the stale worker stopped after, median".to_owned(), median),
            ("at most".to_owned(), last),
        ]),
        not_run: None,
    });
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    assert_eq!(taken_over, rounds);
    Arc::into_inner(scene).expect("the lanes are gone").end().await;
}

/// How long after the death of a worker another one begins its work.
async fn takeover(ttl: Duration, proof: Proof) -> Duration {
    let scene = Scene::new().await;
    let mut workers = BTreeMap::new();
    for name in ["a", "b"] {
        workers.insert(name.to_owned(), scene.worker(name, "kind", ttl, proof).await);
    }
    let id = process_id("p");
    scene.registry.register_process(beating(&id, "kind", Rerunnable)).await.expect("registered");
    let started = scene.event(&id, STARTED, Sequence::REGISTRATION).await;
    scene.event(&id, BEAT, started.sequence).await;
    let holder = workers.remove(&owner_of(&started)).expect("one of them");
    let holder = Arc::into_inner(holder).expect("nobody else has it");
    let killed = Instant::now();
    drop(holder.kill());
    let again = scene.event(&id, STARTED, started.sequence).await;
    let took = killed.elapsed();
    assert_eq!(again.payload["attempt"], json!(2));
    assert_ne!(owner_of(&again), owner_of(&started));
    drop(workers);
    scene.end().await;
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_killed_worker_is_taken_over_by_proof_of_death_or_after_its_ttl() {
    let ttl = Duration::from_secs(20);
    let by_proof = takeover(ttl, Proof::Process).await;
    assert!(by_proof < ttl / 2, "nobody waits for the ttl of the dead: {by_proof:?}");
    let short = Duration::from_secs(2);
    let by_time = takeover(short, Proof::None).await;
    assert!(by_time < short + BOUND, "{by_time:?}");
    let (by_proof, by_time) = (in_ms(by_proof), in_ms(by_time));
    println!("taken over {by_proof} after a kill -9 by proof of death, {by_time} by time with a ttl of {short:?}");
    record(&RunRecord {
        name: "takeover".to_owned(),
        what: "kill -9 of a worker, until another one has begun its work".to_owned(),
        ran: 2,
        unit: "kills".to_owned(),
        seed: None,
        violations: 0,
        measured: BTreeMap::from([
            ("by proof of death".to_owned(), by_proof),
            (format!("by time, ttl {short:?}"), by_time),
        ]),
        not_run: None,
    });
}

/// When leases of strangers were taken, and how long they were to last.
type Held = Arc<Mutex<BTreeMap<ProcessId, (tokio::time::Instant, Duration)>>>;

/// Within one session of a store the monotonic clock decides: the wall clock is for display.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_by_up_to_a_year_takes_no_lease_early_and_makes_no_second_owner() {
    const YEAR_MS: u64 = 365 * 24 * 3_600 * 1_000;
    let (seed, jumps) = (seed(), times("PROCTOR_CLOCK_JUMPS", 20));
    let mut random = Random::new(seed);
    let clock = Arc::new(VirtualClock::default());
    let mut options = RegistryOptions::default();
    options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let registry = ActorRegistry::start(Arc::new(MemoryLog::new("store")), options).await.expect("a registry");
    let session = registry.session().clone();
    let (held, early) = (Held::default(), Arc::new(AtomicU64::new(0)));
    let executor = ScriptedExecutor::default();
    let mut workers = Vec::new();
    for name in ["a", "b"] {
        let liveness = LeaseOwnerLiveness::StoreSession { session: session.clone() };
        let owner = LeaseOwnerIdentity { owner_id: name.to_owned(), incarnation_id: "life".to_owned(), liveness };
        let mut options = WorkerOptions::new(owner).in_session(session.clone());
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        options.timings = LeaseTimings::from_ttl(Duration::from_secs(9)).expect("valid");
        options.concurrent_runs = 10_000;
        let executors = ProcessExecutors::default().with("kind", executor.clone());
        workers.push(Worker::start(Arc::new(registry.clone()), executors, options).await.expect("a worker"));
    }
    let mut ids = Vec::new();
    for jump in 0..jumps {
        let id = process_id(&format!("p{jump}"));
        let takes = Duration::from_millis(random.below(40_000));
        executor.script(&id, {
            let (held, early) = (Arc::clone(&held), Arc::clone(&early));
            move |run| {
                let until = held.lock().expect("held").get(run.record().id()).map(|(since, ttl)| *since + *ttl);
                if until.is_some_and(|until| tokio::time::Instant::now() < until) {
                    early.fetch_add(1, Ordering::SeqCst);
                }
                async move {
                    tokio::time::sleep(takes).await;
                    RunEnd::Ended(ProcessAwaitOutput::success(json!(1)))
                }
            }
        });
        let disposition = if random.below(2) == 0 { Rerunnable } else { OwnerBound };
        let input = ProcessInput::new("kind", json!({}));
        let registration = ProcessRegistration::new(id.clone(), input, disposition);
        if random.below(3) == 0 {
            // Sent together: nobody hears of the process before the stranger has it.
            let ttl = Duration::from_millis(1 + random.below(30_000));
            let ttl_ms = u64::try_from(ttl.as_millis()).expect("short");
            let since = tokio::time::Instant::now();
            let (registered, claimed) = tokio::join!(
                registry.register_process(registration),
                registry.claim_process_lease(&id, opaque_owner("stranger"), ttl_ms)
            );
            registered.expect("registered");
            assert!(claimed.expect("an answer").acquired().is_some(), "the stranger is first");
            held.lock().expect("held").insert(id.clone(), (since, ttl));
        } else {
            registry.register_process(registration).await.expect("registered");
        }
        ids.push(id);
        let size = i64::try_from(1_000 + random.below(if jump % 2 == 0 { YEAR_MS } else { 60_000 })).expect("fits");
        clock.jump_ms(if random.below(2) == 0 { size } else { -size });
        tokio::time::sleep(Duration::from_millis(random.below(3_000))).await;
    }
    for id in &ids {
        let wait = ProcessWait::outcome(id.clone());
        tokio::time::timeout(Duration::from_secs(100_000), registry.wait(&wait)).await.expect("it ends").expect("told");
    }
    let told = executor.told();
    let (early, strangers) = (early.load(Ordering::SeqCst), held.lock().expect("held").len());
    let twice = ids.iter().filter(|id| executor.attempts(id).len() != 1).count() as u64;
    println!("{jumps} jumps, {strangers} leases of strangers: {early} taken early, {twice} begun twice");
    record(&RunRecord {
        name: "clock-jumps".to_owned(),
        what: "jumps of the wall clock by 1 s to 1 year, forth and back, under two workers".to_owned(),
        ran: jumps,
        unit: "jumps".to_owned(),
        seed: Some(seed),
        violations: early + twice + (told.at_once as u64 - 1),
        measured: BTreeMap::from([("leases of strangers waited for".to_owned(), strangers.to_string())]),
        not_run: None,
    });
    assert_eq!((early, twice, told.at_once), (0, 0, 1), "seed {seed}");
    for worker in workers {
        worker.shut_down(Duration::ZERO).await;
    }
    registry.shut_down(BOUND).await;
}

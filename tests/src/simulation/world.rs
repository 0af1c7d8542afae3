//! One run: the store, the hosts over it, everybody who calls, waits and strikes, and what is found at its end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use awaiter::AwaitError;
use registry_actor::domain::{ProcessEventAppendRequest, ProcessId};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    CommitFollower, FaultPoint, LogError, ProcessChange, ProcessRegistryExt, ProcessWait, RegistryError, WaitAnswer,
};
use serde_json::json;
use tokio::time::{error::Elapsed, sleep};

use super::client::{Client, registration};
use super::clock::SimulatedClock;
use super::host::{Host, HostPlan, pause};
use super::invariants::{Broken, Invariant};
use super::ledger::Ledger;
use super::log::LogRun;
use super::transcript::Transcript;
use super::{Plan, invariants};
use crate::example_process::process_id;
use crate::history_checker::Recorder;
use crate::seeded::Random;

/// Everything of one run.
pub struct World {
    /// The seed.
    pub seed: u64,
    /// The processes.
    pub ids: Vec<ProcessId>,
    /// The clocks.
    pub clock: Arc<SimulatedClock>,
    /// The lines.
    pub transcript: Arc<Transcript>,
    /// What was stored.
    pub ledger: Arc<Ledger>,
    /// What was called.
    pub recorder: Arc<Recorder>,
    /// Who waits without a deadline.
    pub waiters: Mutex<Vec<Waiter>>,
    plan: Plan,
    run: Arc<LogRun>,
    store: Mutex<MemoryLog>,
    hosts: Mutex<Vec<Arc<Host>>>,
    former: Mutex<Vec<Arc<Host>>>,
    issued: AtomicU64,
    enough: AtomicBool,
    broken: Mutex<Vec<Broken>>,
    undecided: Mutex<Vec<String>>,
}

/// Somebody who waits for as long as it takes.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// For what.
    pub wait: ProcessWait,
    /// What it was answered.
    pub answer: Option<WaitAnswer>,
    /// Whether it waits at this moment, and does not pause before it asks again.
    pub is_waiting: bool,
}

impl World {
    /// A fresh store with its hosts.
    pub async fn new(seed: u64, plan: Plan) -> Arc<Self> {
        let clock = Arc::new(SimulatedClock::new());
        let transcript = Arc::new(Transcript::new(Arc::clone(&clock)));
        let ledger = Arc::new(Ledger::default());
        let recorder = Recorder::with_clock(Arc::clone(&clock) as Arc<_>);
        let log_seed = Random::new(seed ^ 0x006c_6f67).below(u64::MAX);
        let run = LogRun::new(log_seed, Arc::clone(&clock), Arc::clone(&transcript), Arc::clone(&ledger));
        let store = MemoryLog::new("simulated store");
        let follower: Arc<dyn CommitFollower> = Arc::clone(&ledger) as Arc<dyn CommitFollower>;
        registry_actor::port::ProcessLog::follow(&store, Arc::downgrade(&follower));
        let world = Self {
            seed,
            ids: (0..plan.processes).map(|number| process_id(&format!("p{number}"))).collect(),
            clock,
            transcript,
            ledger,
            recorder,
            waiters: Mutex::default(),
            plan,
            run: Arc::new(run),
            store: Mutex::new(store),
            hosts: Mutex::default(),
            former: Mutex::default(),
            issued: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            broken: Mutex::default(),
            undecided: Mutex::default(),
        };
        world.open().await;
        Arc::new(world)
    }

    /// Plays the run to its end; answers what of it does not hold.
    pub async fn play(self: &Arc<Self>) -> Vec<Broken> {
        let clients: Vec<_> = (0..self.plan.clients)
            .map(|number| tokio::spawn(Client::new(number, Arc::clone(self)).run(self.plan.steps)))
            .collect();
        let striker = tokio::spawn(Arc::clone(self).strike());
        let waiting: Vec<_> =
            (0..self.plan.waiters).map(|number| tokio::spawn(Arc::clone(self).wait(number))).collect();
        let mut projected: Vec<Vec<ProcessChange>> = Vec::new();
        for client in clients {
            match client.await {
                Ok(read) => projected.push(read),
                Err(error) => self.broken(Invariant::NobodyPanics, error.to_string()),
            }
        }
        self.enough.store(true, Ordering::SeqCst);
        if let Err(error) = striker.await {
            self.broken(Invariant::NobodyPanics, error.to_string());
        }
        self.come_to_rest().await;
        invariants::waiters_are_answered(self).await;
        for task in waiting {
            task.abort();
            drop(task.await);
        }
        invariants::hold_at_rest(self, &projected).await;
        for host in self.hosts() {
            if !host.shut_down().await {
                self.broken(Invariant::EverythingRests, "a shard did not come to rest".to_owned());
            }
        }
        invariants::hold_after_the_end(self);
        std::mem::take(&mut *lock(&self.broken))
    }

    /// Notes that an invariant does not hold.
    pub fn broken(&self, invariant: Invariant, what: String) {
        self.transcript.line("BROKEN", &format_args!("{invariant:?}: {what}"));
        lock(&self.broken).push(Broken { invariant, what });
    }

    /// Notes that nobody knows whether an invariant holds.
    pub fn undecided(&self, what: String) {
        self.transcript.line("UNDECIDED", &what);
        lock(&self.undecided).push(what);
    }

    /// What was left undecided so far.
    #[must_use]
    pub fn left_undecided(&self) -> Vec<String> {
        lock(&self.undecided).clone()
    }

    /// A source of choices for one task of the run.
    #[must_use]
    pub fn dice(&self, task: u64) -> Random {
        Random::new(Random::new(self.seed).below(u64::MAX) ^ (task + 1).wrapping_mul(0x5851_f42d_4c95_7f2d))
    }

    /// One of the hosts that are open now.
    #[must_use]
    pub fn host(&self, number: u64) -> Arc<Host> {
        let hosts = lock(&self.hosts);
        let number = usize::try_from(number).unwrap_or(0) % hosts.len();
        Arc::clone(&hosts[number])
    }

    /// The hosts that are open now.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        lock(&self.hosts).clone()
    }

    /// All hosts that ever were.
    #[must_use]
    pub fn all_hosts(&self) -> Vec<Arc<Host>> {
        lock(&self.former).iter().cloned().chain(self.hosts()).collect()
    }

    /// The store in its present session.
    #[must_use]
    pub fn store(&self) -> MemoryLog {
        lock(&self.store).clone()
    }

    /// Looks at the answer to a wait with a deadline.
    pub fn heard_of_a_wait(
        &self,
        who: &str,
        wait: &ProcessWait,
        answer: &Result<Result<WaitAnswer, AwaitError>, Elapsed>,
    ) {
        match answer {
            Err(_) => self.broken(Invariant::WaitersAnswered, format!("{who} outlives the deadline of its wait")),
            Ok(Err(error)) => self.transcript.line(who, &format_args!("< {error}")),
            Ok(Ok(answer)) => {
                self.transcript.line(who, &format_args!("< {answer:?}"));
                if let Some(what) = invariants::contradicts(self, wait, answer) {
                    self.broken(Invariant::WaitersAnswered, what);
                }
            }
        }
    }

    async fn open(&self) {
        let store = self.store();
        let mut hosts = Vec::new();
        for _ in 0..self.plan.hosts {
            let plan = HostPlan {
                issuer: self.issued.fetch_add(1, Ordering::SeqCst) + 1,
                shards: self.plan.shards,
                passivate_after_ms: self.plan.passivate_after_ms,
                is_quiet: self.plan.is_quiet,
            };
            hosts.push(Arc::new(Host::start(&store, &self.run, plan, &self.ids[0]).await));
        }
        lock(&self.former).append(&mut std::mem::replace(&mut *lock(&self.hosts), hosts));
    }

    /// All hosts go, by an orderly shutdown or by a death, and the store is opened in its next session.
    async fn restart(&self, is_orderly: bool) {
        self.transcript.line("striker", &if is_orderly { "restarts the hosts" } else { "kills the hosts" });
        let old = self.hosts();
        if is_orderly {
            for host in &old {
                host.shut_down().await;
            }
        }
        let next = self.store().reopen();
        *lock(&self.store) = next;
        self.open().await;
        if !is_orderly {
            for host in &old {
                host.kill_processes(&self.ids);
                host.shut_down().await;
            }
        }
    }

    async fn strike(self: Arc<Self>) {
        let mut dice = self.dice(1);
        let mut restarts = self.plan.restarts;
        while !self.enough.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(2 + dice.below(self.plan.strike_every_ms))).await;
            let host = self.host(dice.below(2));
            let id = &self.ids[usize::try_from(dice.below(self.ids.len() as u64)).expect("few")];
            match dice.below(24) {
                0..=5 => {
                    self.transcript.line("striker", &format_args!("kills the actor of {id}"));
                    host.kill_processes(std::slice::from_ref(id));
                }
                6 | 7 => {
                    self.transcript.line("striker", &format_args!("kills the shard of {id}"));
                    host.kill_shard(id);
                }
                8 | 9 => {
                    self.transcript.line("striker", &"kills the publisher");
                    host.kill_publisher(id);
                }
                10..=14 => {
                    // All those of a process and its shard.
                    let point = FaultPoint::ALL[usize::try_from(dice.below(8)).expect("few")];
                    self.transcript.line("striker", &format_args!("lets {id} panic at {point:?}"));
                    let (of, struck) = (id.clone(), Arc::downgrade(&host));
                    host.faults.at(point, id, move || {
                        // There it is the shard that panics.
                        if matches!(point, FaultPoint::Activate | FaultPoint::Buffer)
                            && let Some(host) = struck.upgrade()
                        {
                            host.kill_all_of_shard(&of);
                        }
                        // Without the hook: thousands of runs would write of nothing else.
                        std::panic::resume_unwind(Box::new("scripted fault".to_owned()))
                    });
                }
                15 => {
                    self.transcript.line("striker", &"lets reads fail");
                    self.run.failing_reads.fetch_add(1 + dice.below(3), Ordering::SeqCst);
                }
                16 | 17 => {
                    self.transcript.line("striker", &"holds commits back");
                    self.run.held_until_ms.store(self.clock.elapsed_ms() + dice.below(40), Ordering::SeqCst);
                }
                18 | 19 => {
                    let by = i64::try_from(dice.below(172_800_000)).unwrap_or(0) - 86_400_000;
                    self.transcript.line("striker", &format_args!("sets the clock by {by} ms"));
                    self.clock.jump_ms(by);
                }
                20 if restarts > 0 => {
                    restarts -= 1;
                    self.restart(dice.below(2) == 0).await;
                }
                _ => {}
            }
        }
    }

    /// Waits for as long as it takes, on whichever host is open.
    async fn wait(self: Arc<Self>, number: u32) {
        let mut dice = self.dice(10 + u64::from(number));
        let id = self.ids[usize::try_from(dice.below(self.ids.len() as u64)).expect("few")].clone();
        let wait = match dice.below(3) {
            0 => ProcessWait::event(id, "note", registry_actor::domain::Sequence(dice.below(10))),
            _ => ProcessWait::outcome(id),
        };
        let name = format!("waiter{number}");
        let place = {
            let mut waiters = lock(&self.waiters);
            waiters.push(Waiter { wait: wait.clone(), answer: None, is_waiting: false });
            waiters.len() - 1
        };
        loop {
            pause(&mut dice, 10).await;
            let awaiter = self.host(dice.below(2)).awaiter(&self.recorder, 1_000 + number);
            lock(&self.waiters)[place].is_waiting = true;
            let answer = awaiter.wait(&wait, None).await;
            lock(&self.waiters)[place].is_waiting = false;
            match answer {
                Ok(answer) => {
                    self.heard_of_a_wait(&name, &wait, &Ok(Ok(answer.clone())));
                    lock(&self.waiters)[place].answer = Some(answer);
                    return;
                }
                Err(error) => {
                    self.transcript.line(&name, &error);
                    let is_expected = matches!(
                        &error,
                        AwaitError::SourceClosed { .. }
                            | AwaitError::Registry(
                                RegistryError::Refused(registry_actor::domain::Refusal::Unknown { .. })
                                    | RegistryError::Closed
                                    | RegistryError::Store(LogError::Closed)
                            )
                    );
                    if !is_expected {
                        self.broken(Invariant::WaitersAnswered, format!("{name} heard {error}"));
                        return;
                    }
                    if self.enough.load(Ordering::SeqCst) {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// No strikes and no faults any more: what was lost on the way is found, and what is idle rests.
    async fn come_to_rest(&self) {
        self.run.misbehaves.store(false, Ordering::SeqCst);
        self.run.failing_reads.store(0, Ordering::SeqCst);
        self.transcript.line("world", &"comes to rest");
        // Longer than every delay, backoff and quarantine of the plan.
        sleep(Duration::from_secs(5)).await;
        // The last groups may have been told to nobody: one more commit says so.
        let marker = process_id("the last");
        for host in self.hosts() {
            let registered = host.registry.register_process(registration(&marker, 0)).await;
            let note = ProcessEventAppendRequest::new("note", json!("rest"));
            let appended = host.registry.append_event(&marker, note).await;
            if registered.is_err() || appended.is_err() {
                self.broken(Invariant::EverythingRests, format!("a host at rest answers {registered:?} {appended:?}"));
            }
        }
        sleep(Duration::from_secs(5) + Duration::from_millis(2 * self.plan.passivate_after_ms)).await;
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

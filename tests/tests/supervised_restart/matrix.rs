//! Every named point, every kind of actor, every way to die in this operating-system process, every load. The way that
//! takes the test with it, an abort, is in `crash.rs`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use awaiter::{AwaitError, ProcessAwaiter};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use registry_actor::actor::{
    ActorRegistry, ProcessNews, ProcessSubscription, RegistryHoldings, RegistryOptions, RestartPolicy, Told,
};
use registry_actor::domain::{
    LeaseFence, LeaseRelease, ProcessAwaitOutput, ProcessEvent, ProcessId, Receipt, Refusal, Sequence,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    FaultPoint, ProcessEventSink, ProcessLog, ProcessRegistry, ProcessRegistryExt, RegistryError,
};
use registry_tests::example_process::{note, opaque_owner, process_id, registration};
use registry_tests::{FaultScript, WatchedLog};
use serde_json::json;
use sink::{SinkMailbox, mailbox};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Far beyond anything that ends.
const BOUND: Duration = Duration::from_secs(30);
const CALLERS: u64 = 6;

/// Where somebody dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Point {
    Named(FaultPoint),
    /// In the root, when it is about to start a shard again.
    Restarting,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Process,
    Shard,
    Publisher,
    Root,
    /// An actor of the host that is subscribed to the process.
    Consumer,
    Sink,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Panic,
    Kill,
}

/// What goes on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    /// Commands wait behind a batch that is at the log.
    Queued,
    Waiters,
    Lease,
    SinkBehind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Cell {
    point: Point,
    victim: Victim,
    way: Way,
    load: Load,
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, victim, way, load } = self;
        write!(formatter, "[{point:?}: {way:?} of {victim:?} under {load:?}]")
    }
}

impl Point {
    /// Whose code it is in.
    const fn owner(self) -> Victim {
        match self {
            Self::Named(FaultPoint::Activate | FaultPoint::Buffer) => Victim::Shard,
            Self::Named(FaultPoint::BeforeTell | FaultPoint::AfterTell) => Victim::Publisher,
            Self::Named(_) => Victim::Process,
            Self::Restarting => Victim::Root,
        }
    }
}

impl Cell {
    /// The cells of a point that can be.
    fn of(point: Point) -> Vec<Self> {
        let mut cells = Vec::new();
        for victim in [Victim::Process, Victim::Shard, Victim::Publisher, Victim::Root, Victim::Consumer, Victim::Sink]
        {
            for way in [Way::Panic, Way::Kill] {
                let can_be = match (way, victim) {
                    // Only whoever passes the point panics there; a host's own actor or sink does so at its next message.
                    (Way::Panic, victim) => {
                        victim == point.owner() || matches!(victim, Victim::Consumer | Victim::Sink)
                    }
                    // Nobody has the actor of a sink in hand.
                    (Way::Kill, Victim::Sink) => false,
                    // There is none yet.
                    (Way::Kill, Victim::Process) => !matches!(point.owner(), Victim::Shard | Victim::Root),
                    (Way::Kill, _) => true,
                };
                if can_be {
                    let loads = [Load::Queued, Load::Waiters, Load::Lease, Load::SinkBehind];
                    cells.extend(loads.map(|load| Self { point, victim, way, load }));
                }
            }
        }
        cells
    }

    fn is_refused_decision(&self) -> bool {
        let panics_itself = (self.way, self.victim) == (Way::Panic, Victim::Process);
        self.point == Point::Named(FaultPoint::Decide) && panics_itself
    }
}

async fn group(point: Point) {
    let mut cells = JoinSet::new();
    for cell in Cell::of(point) {
        cells.spawn(async move {
            let outcome = tokio::spawn(run(cell)).await;
            assert!(outcome.is_ok(), "{cell} failed, see above");
        });
    }
    let ran = cells.len();
    while let Some(ended) = cells.join_next().await {
        ended.expect("the cell holds");
    }
    println!("{ran} cells at {point:?}");
}

macro_rules! groups {
    ($($name:ident: $point:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                group($point).await;
            }
        )*

        #[test]
        fn every_named_point_has_its_group() {
            let points = [$($point),*];
            for point in FaultPoint::ALL {
                assert!(points.contains(&Point::Named(point)), "{point:?} has none");
            }
        }
    };
}

groups! {
    nothing_is_lost_when_somebody_dies_at_activation: Point::Named(FaultPoint::Activate);
    nothing_is_lost_when_somebody_dies_while_a_command_is_buffered: Point::Named(FaultPoint::Buffer);
    nothing_is_lost_when_somebody_dies_at_a_load: Point::Named(FaultPoint::Load);
    nothing_is_lost_when_somebody_dies_at_a_decision: Point::Named(FaultPoint::Decide);
    nothing_is_lost_when_somebody_dies_before_a_submission: Point::Named(FaultPoint::BeforeSubmit);
    nothing_is_lost_when_somebody_dies_after_a_submission: Point::Named(FaultPoint::AfterSubmit);
    nothing_is_lost_when_somebody_dies_between_commit_and_reply: Point::Named(FaultPoint::AfterCommitBeforeReply);
    nothing_is_lost_when_somebody_dies_between_installation_and_reply: Point::Named(FaultPoint::AfterInstall);
    nothing_is_lost_when_somebody_dies_before_listeners_are_told: Point::Named(FaultPoint::BeforeTell);
    nothing_is_lost_when_somebody_dies_after_listeners_were_told: Point::Named(FaultPoint::AfterTell);
    nothing_is_lost_when_somebody_dies_while_a_supervisor_is_replaced: Point::Restarting;
}

/// The sequences that an observer was told. Whoever waits for one is woken.
type Heard = Arc<watch::Sender<Vec<u64>>>;

/// The host's actor.
struct Ear;

struct EarState {
    heard: Heard,
    panics: Arc<AtomicBool>,
}

impl Actor for Ear {
    type Msg = ProcessNews;
    type State = EarState;
    type Arguments = EarState;

    async fn pre_start(&self, _: ActorRef<ProcessNews>, state: EarState) -> Result<EarState, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<ProcessNews>,
        news: ProcessNews,
        ear: &mut EarState,
    ) -> Result<(), ActorProcessingErr> {
        assert!(!ear.panics.swap(false, Ordering::SeqCst), "scripted panic of the consumer");
        if let Told::Committed { missed, events, .. } = &news.told {
            ear.heard.send_modify(|heard| {
                heard.extend(missed.iter().flat_map(|missed| missed.start().0..=missed.end().0));
                // The registration may be told or not: nobody waited for its news before subscribing.
                heard.extend(events.iter().map(|event| event.sequence.0).filter(|sequence| *sequence > 0));
            });
        }
        Ok(())
    }
}

/// The host's sink. It stands still until it is opened.
struct Sink {
    open: watch::Sender<bool>,
    told: Heard,
    panics: AtomicBool,
}

#[async_trait]
impl ProcessEventSink for Sink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("the sender is here");
        assert!(!self.panics.swap(false, Ordering::SeqCst), "scripted panic of the sink");
        if event.sequence > Sequence::REGISTRATION {
            self.told.send_modify(|told| told.push(event.sequence.0));
        }
    }
}

struct World {
    cell: Cell,
    memory: MemoryLog,
    log: Arc<WatchedLog>,
    faults: Arc<FaultScript>,
    registry: ActorRegistry,
    id: ProcessId,
    ear: ActorRef<ProcessNews>,
    heard: Heard,
    ear_panics: Arc<AtomicBool>,
    sink: Arc<Sink>,
    mailbox: SinkMailbox,
    answers: Mutex<Vec<(u64, Result<Receipt, RegistryError>)>>,
}

async fn start(log: &Arc<WatchedLog>, faults: &Arc<FaultScript>) -> ActorRegistry {
    let mut options = RegistryOptions::default();
    options.shards = 2;
    options.faults = Arc::clone(faults) as _;
    options.passivate_after = Duration::from_millis(40);
    options.sweep_interval = Duration::from_millis(10);
    options.restart = RestartPolicy {
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(20),
        failures_allowed: 1_000,
        ..RestartPolicy::default()
    };
    options.supervisor_restart = options.restart;
    ActorRegistry::start(Arc::clone(log) as _, options).await.expect("the registry starts")
}

async fn run(cell: Cell) {
    let memory = MemoryLog::new(format!("store of {cell}"));
    let log = Arc::new(WatchedLog::new(Arc::new(memory.clone())));
    let faults = FaultScript::new();
    let registry = start(&log, &faults).await;
    let id = process_id("a");
    let (heard, ear_panics) = (Heard::default(), Arc::new(AtomicBool::new(false)));
    let state = EarState { heard: Arc::clone(&heard), panics: Arc::clone(&ear_panics) };
    let (ear, _) = Ear::spawn(None, Ear, state).await.expect("the consumer starts");
    let open = watch::Sender::new(cell.load != Load::SinkBehind);
    let sink = Arc::new(Sink { open, told: Heard::default(), panics: AtomicBool::new(false) });
    let mailbox = mailbox(Arc::clone(&sink) as _).expect("the sink's thread starts");
    mailbox.attach(&registry.change_source().expect("it tells of commits"));
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    let world = World {
        cell,
        memory,
        log,
        faults,
        registry,
        id,
        ear,
        heard,
        ear_panics,
        sink,
        mailbox,
        answers: Mutex::default(),
    };
    world.play().await;
}

/// What waits for the process.
type Waiting = Vec<JoinHandle<Result<Option<u64>, AwaitError>>>;

impl World {
    async fn play(self) {
        let cell = self.cell;
        let subscription = self.subscribe();
        let fence = match cell.load {
            Load::Lease => {
                let claim = self.registry.claim_process_lease(&self.id, opaque_owner("holder"), 3_600_000).await;
                Some(claim.expect("claimed").acquired().expect("it is free").fence())
            }
            _ => None,
        };
        let waiting = if cell.load == Load::Waiters { self.park().await } else { Waiting::new() };
        self.arm();
        let mut next = 0;
        for _ in 0..20 {
            self.bring_about(&mut next, fence.as_ref()).await;
            if self.faults.left() == 0 {
                break;
            }
        }
        assert_eq!(self.faults.left(), 0, "{cell}: the point was never passed");
        if matches!(cell.victim, Victim::Consumer | Victim::Sink) {
            self.ask(&mut next, 1, fence.as_ref()).await;
        }
        self.sink.open.send_replace(true);
        let (source, after) = self.survivor().await;
        let receipt = self.append(&after, next, fence.as_ref()).await;
        self.note_answer(next, receipt);
        let output = ProcessAwaitOutput::success(json!("done"));
        let completed = match &fence {
            Some(fence) => after.complete_process_fenced(&self.id, output, fence.clone(), LeaseRelease::Release).await,
            None => after.complete_process(&self.id, output).await,
        };
        assert!(completed.is_ok(), "{cell}: the process ends, got {completed:?}");
        self.hear(waiting).await;
        let head = self.check_log().await;
        self.check_observers(head).await;
        drop(subscription);
        self.ear.stop(None);
        self.check_baseline(&source, &after).await;
        self.mailbox.close(BOUND).await.unwrap_or_else(|error| panic!("{cell}: the sink is stuck: {error:?}"));
        let report = after.shut_down(BOUND).await;
        assert_eq!((report.processes_killed, report.shards_killed), (0, 0), "{cell}");
        let seen = self.log.seen();
        assert_eq!((seen.overlaps, seen.conflicts), (vec![], vec![]), "{cell}: two incarnations wrote");
    }

    fn subscribe(&self) -> ProcessSubscription {
        self.registry.subscribe(&self.id, self.ear.clone(), |news| news)
    }

    async fn park(&self) -> Waiting {
        let awaiter = Arc::new(ProcessAwaiter::attached(Arc::new(self.registry.clone())));
        let mut waiting = Waiting::new();
        for _ in 0..4 {
            let (for_end, for_event) = (Arc::clone(&awaiter), Arc::clone(&awaiter));
            let (id, same) = (self.id.clone(), self.id.clone());
            waiting.push(tokio::spawn(async move { for_end.await_terminal(&id).await.map(|_| None) }));
            waiting.push(tokio::spawn(async move {
                let event = for_event.await_event(&same, "note", Sequence(0)).await?;
                Ok(Some(event.sequence.0))
            }));
        }
        self.until("the waiters are parked", || self.registry.holdings().parked_waits == 8).await;
        waiting
    }

    fn arm(&self) {
        let Cell { point, victim, way, .. } = self.cell;
        let target = OnceLock::from(self.registry.clone());
        let (id, ear) = (self.id.clone(), self.ear.get_cell());
        let (ear_panics, sink) = (Arc::clone(&self.ear_panics), Arc::clone(&self.sink));
        let strike = move || {
            let registry = target.get().expect("it was set");
            match (way, victim) {
                (Way::Panic, Victim::Consumer) => ear_panics.store(true, Ordering::SeqCst),
                (Way::Panic, Victim::Sink) => sink.panics.store(true, Ordering::SeqCst),
                (Way::Panic, _) => panic!("scripted panic of {victim:?}"),
                (Way::Kill, Victim::Process) => registry.process_actor(&id).iter().for_each(|actor| actor.kill()),
                (Way::Kill, Victim::Shard) => registry.supervisors_of(&id).first().iter().for_each(|it| it.kill()),
                (Way::Kill, Victim::Publisher) => registry.supervisors_of(&id).last().iter().for_each(|it| it.kill()),
                (Way::Kill, Victim::Root) => registry.root().kill(),
                (Way::Kill, Victim::Consumer | Victim::Sink) => ear.kill(),
            }
        };
        match point {
            Point::Named(point) => self.faults.at(point, &self.id, strike),
            Point::Restarting => self.faults.at_restart(strike),
        }
    }

    /// Lets commands come upon a process whose actor has just died: on their way they pass every point.
    async fn bring_about(&self, next: &mut u64, fence: Option<&LeaseFence>) {
        let struck = match self.cell.point {
            Point::Restarting => self.registry.supervisors_of(&self.id).first().cloned(),
            Point::Named(_) => self.registry.process_actor(&self.id),
        };
        if let Some(struck) = struck {
            struck.kill();
            struck.wait(Some(BOUND)).await.expect("a killed actor ends");
        }
        self.ask(next, CALLERS, fence).await;
    }

    /// Callers that all ask at once, and are all answered.
    async fn ask(&self, next: &mut u64, callers: u64, fence: Option<&LeaseFence>) {
        let is_held_back = self.cell.load == Load::Queued;
        if is_held_back {
            self.memory.pause();
        }
        let calls: Vec<_> = (0..callers)
            .map(|_| {
                *next += 1;
                let (number, registry, id, fence) = (*next, self.registry.clone(), self.id.clone(), fence.cloned());
                (number, tokio::spawn(async move { append(&registry, &id, number, fence.as_ref()).await }))
            })
            .collect();
        if is_held_back {
            // Where somebody dies before the submission, nothing queues.
            drop(tokio::time::timeout(Duration::from_millis(30), self.memory.queued_at_least(1)).await);
            self.memory.resume();
        }
        for (number, call) in calls {
            let answered = tokio::time::timeout(BOUND, call).await;
            let answered = answered.unwrap_or_else(|_| panic!("{}: caller {number} is never answered", self.cell));
            self.note_answer(number, answered.expect("no panic"));
        }
        *next += 1;
    }

    async fn append(
        &self,
        registry: &ActorRegistry,
        number: u64,
        fence: Option<&LeaseFence>,
    ) -> Result<Receipt, RegistryError> {
        append(registry, &self.id, number, fence).await
    }

    fn note_answer(&self, number: u64, answer: Result<Receipt, RegistryError>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((number, answer));
    }

    /// The registry that was struck, and the one that goes on: another over the same log if its root died.
    async fn survivor(&self) -> (ActorRegistry, ActorRegistry) {
        if self.cell.victim != Victim::Root {
            return (self.registry.clone(), self.registry.clone());
        }
        let ended = self.registry.root().wait(Some(BOUND)).await;
        assert!(ended.is_ok(), "{}: a root that died ends", self.cell);
        (self.registry.clone(), start(&self.log, &self.faults).await)
    }

    async fn hear(&self, waiting: Waiting) {
        let cell = self.cell;
        for waiter in waiting {
            let heard = tokio::time::timeout(BOUND, waiter).await;
            let heard = heard.unwrap_or_else(|_| panic!("{cell}: a waiter is stuck")).expect("no panic");
            match heard {
                Ok(None | Some(1..)) => {}
                Err(AwaitError::SourceClosed { .. }) if cell.victim == Victim::Root => {}
                other => panic!("{cell}: a waiter heard {other:?}"),
            }
        }
    }

    /// Each answer against the log; answers the last sequence.
    async fn check_log(&self) -> u64 {
        let cell = self.cell;
        let verification = self.memory.verify(&self.id).await.expect("the check can be made");
        assert_eq!(verification.faults, [], "{cell}");
        let reader = ActorRegistry::start(Arc::new(self.memory.clone()), RegistryOptions::default()).await;
        let events = reader.expect("it starts").events_after(&self.id, Sequence(0)).await.expect("the events");
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.sequence.0, index as u64 + 1, "{cell}: the log is dense");
        }
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = 0;
        for (number, answer) in answers.iter() {
            let is_it = |event: &&Arc<ProcessEvent>| event.payload["number"].as_u64() == Some(*number);
            let stored: Vec<u64> = events.iter().filter(is_it).map(|event| event.sequence.0).collect();
            match answer {
                Ok(receipt) => {
                    let sequence = receipt.events[0].event().sequence.0;
                    assert_eq!(stored, [sequence], "{cell}: note {number} is where its caller was told");
                }
                Err(RegistryError::OutcomeUnknown { .. }) if cell.victim == Victim::Root => {
                    assert!(stored.len() <= 1, "{cell}: note {number} is stored twice");
                }
                Err(RegistryError::Closed | RegistryError::NotStored { .. }) if cell.victim == Victim::Root => {
                    assert_eq!(stored, [0; 0], "{cell}: note {number} was not stored, its caller was told");
                }
                Err(RegistryError::Refused(Refusal::DecisionPanicked { .. })) if cell.is_refused_decision() => {
                    refused += 1;
                    assert_eq!(stored, [0; 0], "{cell}: note {number} was refused");
                }
                Err(error) => panic!("{cell}: the caller of note {number} got {error}"),
            }
        }
        assert_eq!(refused, u64::from(cell.is_refused_decision()), "{cell}");
        events.len() as u64
    }

    /// The consumer and the sink heard everything once and in order, as far as they live.
    async fn check_observers(&self, head: u64) {
        let Cell { victim, .. } = self.cell;
        if !matches!(victim, Victim::Consumer | Victim::Root) {
            self.until_heard("the consumer has heard everything", &self.heard, head).await;
        }
        let heard = self.heard.borrow().clone();
        let dense: Vec<u64> = (1..=heard.len() as u64).collect();
        assert_eq!(heard, dense, "{}: the consumer hears everything once and in order", self.cell);
        // A sink is told what was appended; the last event is the outcome.
        let appended = head - 1;
        if !matches!(victim, Victim::Sink | Victim::Root) {
            self.until_heard("the sink has been told everything", &self.sink.told, appended).await;
        }
        let flushed = self.mailbox.flush(BOUND).await;
        assert!(flushed.is_ok(), "{}: the sink is stuck: {flushed:?}", self.cell);
        let mut told = self.sink.told.borrow().clone();
        if self.cell.point == Point::Named(FaultPoint::AfterTell) {
            // Who dies between telling and noting it tells again: a sink that minds is behind a `CatchUp`.
            told.dedup();
        }
        assert!(told.is_sorted_by(|left, right| left < right), "{}: the sink was told {told:?}", self.cell);
        if !matches!(victim, Victim::Sink | Victim::Root) {
            assert_eq!(told.len() as u64, appended, "{}: the sink was told {told:?}", self.cell);
        }
    }

    async fn check_baseline(&self, source: &ActorRegistry, after: &ActorRegistry) {
        self.until("everything has come back", || after.holdings() == RegistryHoldings::default()).await;
        // Nobody sweeps the directory of a registry whose root has died; it goes with its handles.
        let without_directory = || RegistryHoldings { directory_entries: 0, ..source.holdings() };
        self.until("everything of the dead has come back", || without_directory() == RegistryHoldings::default()).await;
    }

    async fn until_heard(&self, what: &str, heard: &Heard, last: u64) {
        let mut heard = heard.subscribe();
        let told = tokio::time::timeout(BOUND, heard.wait_for(|heard| heard.last() == Some(&last))).await.is_ok();
        assert!(told, "{}", self.in_vain(what));
    }

    /// Of the registry's own counts nobody is told, so they are looked at until they are right.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let held = tokio::time::timeout(BOUND, waiting).await;
        assert!(held.is_ok(), "{}", self.in_vain(what));
    }

    fn in_vain(&self, what: &str) -> String {
        let Self { cell, registry, sink, mailbox, .. } = self;
        let (holdings, root, told) = (registry.holdings(), registry.root().get_status(), sink.told.borrow());
        format!("{cell}: in vain: {what}; {holdings:?}, {root:?}, sink {told:?} {:?}", mailbox.report())
    }
}

async fn append(
    registry: &ActorRegistry,
    id: &ProcessId,
    number: u64,
    fence: Option<&LeaseFence>,
) -> Result<Receipt, RegistryError> {
    match fence {
        Some(fence) => registry.append_events_fenced(id, vec![note(number)], fence.clone()).await,
        None => registry.append_event(id, note(number)).await,
    }
}

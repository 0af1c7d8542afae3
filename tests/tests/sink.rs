//! Sinks on the registry that hosts use: whatever an observer does, every append commits; what it is not told of it is told that
//! it missed; and a consumer that catches up sees every event once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    Command, ProcessAwaitOutput, ProcessEvent, ProcessId, ProcessSignal, ProjectionWatermark, PruneFilter, Receipt,
    RegistryCommand, RegistryReceipt, Sequence, WaitState,
};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::{
    Answer, ChangeSource, DurabilityTier, MissedEvents, ProcessEventSink, ProcessLog, ProcessRegistry,
    ProcessRegistryExt, Query, RegistryError,
};
use registry_tests::ManualClock;
use registry_tests::example_process::{note, process_id, registration};
use registry_tests::log_backend::raw_connection;
use registry_tests::seeded::Random;
use serde_json::json;
use sink::{
    CatchUp, ChannelSink, MailboxOptions, ProcessConsumer, SinkEvents, SinkItem, SinkMailbox, SinkReceiver, SinkReport,
    SinkRestart, channel, channel_of,
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// A safety net, no test's measure.
const PATIENCE: Duration = Duration::from_secs(120);

/// An open registry.
struct Fixture {
    registry: ActorRegistry,
    clock: Arc<ManualClock>,
    _directory: Option<TempDir>,
}

#[derive(Debug, Clone, Copy)]
enum Store {
    Memory,
    Sqlite,
}

const STORES: [Store; 2] = [Store::Memory, Store::Sqlite];

impl Fixture {
    async fn open(store: Store) -> Self {
        match store {
            Store::Memory => Self::over(Arc::new(MemoryLog::new("test store")), None).await,
            Store::Sqlite => {
                let directory = tempfile::tempdir().expect("a directory");
                let path = directory.path().join("store.db");
                let log = SqliteLog::open(&path, SqliteOptions::default()).expect("the store opens");
                Self::over(Arc::new(log), Some(directory)).await
            }
        }
    }

    async fn over(log: Arc<dyn ProcessLog>, directory: Option<TempDir>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let mut options = RegistryOptions::default();
        options.clock = Arc::clone(&clock) as _;
        // Far more kills than a host would see.
        options.supervisor_restart.longest_delay = Duration::from_millis(1);
        options.supervisor_restart.failures_allowed = 100_000;
        let registry = ActorRegistry::start(log, options).await.expect("the registry starts");
        Self { registry, clock, _directory: directory }
    }

    fn port(&self) -> Arc<dyn ProcessRegistry> {
        Arc::new(self.registry.clone())
    }

    async fn registered(&self, name: &str) -> ProcessId {
        let id = process_id(name);
        self.registry.register_process(registration(&id)).await.expect("a fresh id registers");
        id
    }

    async fn append(&self, id: &ProcessId, number: u64) -> u64 {
        let receipt = self.registry.append_event(id, note(number)).await.expect("an append");
        receipt.events[0].event().sequence.0
    }

    /// Ends a process and removes it. Answers what it had.
    async fn prune(&self, id: &ProcessId) -> Vec<Arc<ProcessEvent>> {
        self.registry.complete_process(id, ProcessAwaitOutput::success(json!(1))).await.expect("an outcome");
        let events = self.events(id).await;
        self.clock.advance_ms(1);
        let filter = PruneFilter::ended_before(u64::MAX);
        self.registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await.expect("a prune");
        events
    }

    async fn events(&self, id: &ProcessId) -> Vec<Arc<ProcessEvent>> {
        self.registry.events_after(id, Sequence(0)).await.expect("the events can be read")
    }

    fn attach(&self, mailbox: &SinkMailbox) {
        mailbox.attach(&self.registry.change_source().expect("it tells of commits"));
    }

    /// Attached last, so that whoever was attached before has been told when this is.
    fn told_after_all(&self) -> ToldAfterAll {
        let (near, far) = channel_of(1_000_000, SinkEvents::All);
        near.attach(&self.registry.change_source().expect("it tells of commits"));
        ToldAfterAll { _near: near, far }
    }

    fn kill_publisher(&self, id: &ProcessId) {
        // There is none while the last one that was killed is started again.
        self.registry.supervisors_of(id).get(1).iter().for_each(|publisher| publisher.kill());
    }

    async fn shut_down(&self) {
        assert_eq!(self.registry.shut_down(PATIENCE).await.shards_killed, 0);
    }
}

/// Tells how far the publisher has come.
struct ToldAfterAll {
    _near: ChannelSink,
    far: SinkReceiver,
}

impl ToldAfterAll {
    async fn of(&mut self, id: &ProcessId, sequence: u64) {
        loop {
            match tokio::time::timeout(PATIENCE, self.far.recv()).await.expect("the publisher goes on") {
                Some(SinkItem::Event(event)) if event.process_id == *id && event.sequence.0 == sequence => return,
                Some(_) => {}
                None => panic!("the source ended before event {sequence} of {id}"),
            }
        }
    }

    /// Registers a process of its own and waits until its only event is told: then everything before it is.
    async fn everything(&mut self, fixture: &Fixture, name: &str) {
        let id = fixture.registered(name).await;
        fixture.append(&id, 0).await;
        self.of(&id, 1).await;
    }
}

/// What a sink is told, and what it does then.
struct TestSink {
    told: mpsc::Sender<SinkItem>,
    manner: Manner,
}

#[derive(Clone)]
enum Manner {
    BlocksUntil(Arc<Mutex<mpsc::Receiver<()>>>),
    NeverReturns,
    Panics,
}

#[async_trait]
impl ProcessEventSink for TestSink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        // A test that has ended does not listen.
        let _ = self.told.send(SinkItem::Event(Arc::clone(event)));
        match &self.manner {
            Manner::BlocksUntil(token) => drop(token.lock().expect("one thread").recv()),
            Manner::NeverReturns => std::future::pending().await,
            Manner::Panics => panic!("as the test wants"),
        }
    }

    async fn missed(&self, missed: &MissedEvents) {
        let _ = self.told.send(SinkItem::Missed(missed.clone()));
    }
}

fn options(capacity: usize) -> MailboxOptions {
    let mut options = MailboxOptions::default();
    options.capacity = capacity;
    options.restart = SinkRestart { first_delay: Duration::ZERO, longest_delay: Duration::ZERO };
    options
}

fn start(capacity: usize, manner: Manner) -> (SinkMailbox, mpsc::Receiver<SinkItem>) {
    let (told, listening) = mpsc::channel();
    let factory =
        move || -> Arc<dyn ProcessEventSink> { Arc::new(TestSink { told: told.clone(), manner: manner.clone() }) };
    (SinkMailbox::start(options(capacity), factory).expect("the thread starts"), listening)
}

fn check(report: &SinkReport) {
    assert_eq!(report.offered, report.accepted + report.dropped, "{report:?}");
    assert_eq!(report.accepted, report.delivered + report.failed + report.undelivered(), "{report:?}");
}

fn missed(id: &ProcessId, from: u64, to: u64) -> SinkItem {
    SinkItem::Missed(MissedEvents::Of { process_id: id.clone(), from: Sequence(from), to: Sequence(to) })
}

/// Of an item, what a person can proofread.
fn sequence_of(item: &SinkItem) -> (u64, u64) {
    match item {
        SinkItem::Event(event) => (event.sequence.0, event.sequence.0),
        SinkItem::Missed(MissedEvents::Of { from, to, .. }) => (from.0, to.0),
        SinkItem::Missed(MissedEvents::Unknown) | SinkItem::Pruned(_) => panic!("unexpected: {item:?}"),
    }
}

/// So many appends, by a hundred callers on a hundred processes.
async fn append_many(fixture: &Fixture, appends: u64) -> Vec<ProcessId> {
    let mut callers = tokio::task::JoinSet::new();
    let mut ids = Vec::new();
    for caller in 0..100 {
        let id = fixture.registered(&format!("p{caller:02}")).await;
        ids.push(id.clone());
        let registry = fixture.registry.clone();
        callers.spawn(async move {
            for number in 1..=appends / 100 {
                registry.append_event(&id, note(number)).await.expect("an append");
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no panic");
    }
    ids
}

async fn commits_beside_a_sink_that_never_returns(store: Store, manner: Manner) {
    let fixture = Fixture::open(store).await;
    let (mailbox, _listening) = start(1_000, manner);
    fixture.attach(&mailbox);
    let mut told_after_all = fixture.told_after_all();
    let ids = append_many(&fixture, 10_000).await;
    for id in &ids {
        let numbers: Vec<_> =
            fixture.events(id).await.iter().filter_map(|event| event.payload["number"].as_u64()).collect();
        assert_eq!(numbers, (1..=100).collect::<Vec<_>>(), "{store:?} {id}");
    }
    told_after_all.everything(&fixture, "end").await;
    let flushed = mailbox.flush(Duration::from_millis(1)).await.expect_err("nothing is delivered");
    assert!((1_000..=1_001).contains(&flushed.left), "{flushed}");
    assert_eq!((flushed.report.offered, flushed.report.delivered), (10_001, 0));
    assert_eq!(flushed.left + flushed.report.dropped, 10_001);
    check(&flushed.report);
    let closed = mailbox.close(Duration::from_millis(1)).await.expect_err("nothing is delivered");
    assert_eq!(closed.left, flushed.left);
    fixture.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_sink_that_blocks_its_thread_for_ever_10_000_appends_all_commit_and_are_read_back() {
    for store in STORES {
        let (token, tokens) = mpsc::channel();
        commits_beside_a_sink_that_never_returns(store, Manner::BlocksUntil(Arc::new(Mutex::new(tokens)))).await;
        drop(token);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn beside_a_sink_that_awaits_for_ever_10_000_appends_all_commit_and_are_read_back() {
    for store in STORES {
        commits_beside_a_sink_that_never_returns(store, Manner::NeverReturns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_sink_that_panics_on_every_event_all_appends_commit_and_each_is_told_as_missed() {
    for store in STORES {
        let fixture = Fixture::open(store).await;
        let (mailbox, listening) = start(1_000, Manner::Panics);
        fixture.attach(&mailbox);
        let mut told_after_all = fixture.told_after_all();
        let ids = append_many(&fixture, 200).await;
        for id in &ids {
            assert_eq!(fixture.events(id).await.len(), 2);
        }
        told_after_all.everything(&fixture, "end").await;
        let report = mailbox.close(PATIENCE).await.expect("every event was tried");
        assert_eq!((report.failed, report.delivered, report.restarts, report.gaps), (201, 0, 201, 201));
        check(&report);
        let items: Vec<_> = listening.iter().collect();
        for id in &ids {
            let of_process = |item: &&SinkItem| match item {
                SinkItem::Event(event) => event.process_id == *id,
                SinkItem::Missed(MissedEvents::Of { process_id, .. }) => process_id == id,
                SinkItem::Missed(MissedEvents::Unknown) | SinkItem::Pruned(_) => false,
            };
            let told: Vec<_> = items.iter().filter(of_process).map(sequence_of).collect();
            assert_eq!(told, [(1, 1), (1, 1), (2, 2), (2, 2)], "each is told, panics, and is told as missed");
        }
        fixture.shut_down().await;
    }
}

#[tokio::test]
async fn what_a_slow_sink_is_not_told_of_it_is_told_that_it_missed_in_the_order_of_its_process() {
    for store in STORES {
        let fixture = Fixture::open(store).await;
        let (token, tokens) = mpsc::channel();
        let (mailbox, listening) = start(3, Manner::BlocksUntil(Arc::new(Mutex::new(tokens))));
        fixture.attach(&mailbox);
        let mut told_after_all = fixture.told_after_all();
        let (a, b) = (fixture.registered("a").await, fixture.registered("b").await);
        fixture.append(&a, 1).await;
        told_after_all.of(&a, 1).await;
        let first = listening.recv_timeout(PATIENCE).expect("the sink is told");
        assert_eq!(sequence_of(&first), (1, 1));
        // The sink holds the first one. Three of these have room, a2, b1 and a3; the others are b2 and a4 to a6.
        for (id, number) in [(&a, 2), (&b, 1), (&a, 3), (&b, 2), (&a, 4), (&a, 5), (&a, 6)] {
            fixture.append(id, number).await;
        }
        told_after_all.of(&a, 6).await;
        drop(token);
        let report = mailbox.flush(PATIENCE).await.expect("it goes on");
        assert_eq!((report.offered, report.delivered, report.dropped), (8, 4, 4));
        assert_eq!(fixture.append(&a, 7).await, 7);
        told_after_all.of(&a, 7).await;
        mailbox.close(PATIENCE).await.expect("delivered");
        let items: Vec<_> = listening.iter().collect();
        let sequences: Vec<_> = items.iter().map(sequence_of).collect();
        assert_eq!(sequences, [(2, 2), (1, 1), (3, 3), (2, 2), (4, 6), (7, 7)]);
        assert_eq!(items[3..5], [missed(&b, 2, 2), missed(&a, 4, 6)]);
        fixture.shut_down().await;
    }
}

#[tokio::test]
async fn a_channel_carries_appended_events_and_gaps_and_ends_with_its_source() {
    let fixture = Fixture::open(Store::Memory).await;
    let (near, mut far) = channel(2);
    near.attach(&fixture.registry.change_source().expect("it tells of commits"));
    let mut told_after_all = fixture.told_after_all();
    let id = fixture.registered("a").await;
    for number in 1..=4 {
        fixture.append(&id, number).await;
    }
    // A replay is no commit, and the registry's own facts and the end of the process are not for sinks.
    fixture.registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("an outcome");
    told_after_all.of(&id, 5).await;
    let mut told = Vec::new();
    while let Some(item) = far.try_recv() {
        told.push(sequence_of(&item));
    }
    assert_eq!(told, [(1, 1), (2, 2), (3, 4)]);
    let report = near.report();
    assert_eq!((report.offered, report.delivered, report.dropped), (4, 2, 2));
    let receiving = tokio::spawn(async move { far.recv().await });
    fixture.shut_down().await;
    assert_eq!(tokio::time::timeout(PATIENCE, receiving).await.expect("it ends").expect("no panic"), None);
}

#[tokio::test]
async fn a_channel_whose_far_end_is_gone_keeps_nothing() {
    let (near, far) = channel(2);
    drop(far);
    let fixture = Fixture::open(Store::Memory).await;
    near.attach(&fixture.registry.change_source().expect("it tells of commits"));
    let mut told_after_all = fixture.told_after_all();
    let id = fixture.registered("a").await;
    fixture.append(&id, 1).await;
    told_after_all.of(&id, 1).await;
    assert_eq!((near.report().dropped, near.report().undelivered()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_killed_repeats_nothing_to_a_sink_and_loses_nothing() {
    for store in STORES {
        let fixture = Fixture::open(store).await;
        let (near, mut far) = channel(100_000);
        near.attach(&fixture.registry.change_source().expect("it tells of commits"));
        let mut told_after_all = fixture.told_after_all();
        let id = fixture.registered("a").await;
        for number in 1..=300 {
            fixture.append(&id, number).await;
            if number % 10 == 0 {
                fixture.kill_publisher(&id);
            }
        }
        told_after_all.of(&id, 300).await;
        let mut told = Vec::new();
        while let Some(item) = far.try_recv() {
            told.push(sequence_of(&item).0);
        }
        assert_eq!(told, (1..=300).collect::<Vec<_>>(), "{store:?}");
        fixture.shut_down().await;
    }
}

/// The events of each life.
type Lives = BTreeMap<(ProcessId, u32), Vec<Arc<ProcessEvent>>>;

/// Stores what it consumes, and does so at the pace of permits.
struct TestConsumer {
    stored: Mutex<Lives>,
    permits: Semaphore,
    /// Panics at so many of the next calls, in turn before and after it has stored.
    panics: AtomicU64,
    /// Panics over every event of these processes.
    poison: Mutex<BTreeSet<ProcessId>>,
    asked: AtomicU64,
}

impl TestConsumer {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::default(),
            permits: Semaphore::new(permits),
            panics: AtomicU64::new(0),
            poison: Mutex::default(),
            asked: AtomicU64::new(0),
        })
    }

    fn log(&self, id: &ProcessId, generation: u32) -> Vec<Arc<ProcessEvent>> {
        self.stored.lock().expect("no panic inside").get(&(id.clone(), generation)).cloned().unwrap_or_default()
    }

    fn poison(&self, ids: &[&ProcessId]) {
        *self.poison.lock().expect("no panic inside") = ids.iter().copied().cloned().collect();
    }

    fn lives(&self) -> BTreeSet<(ProcessId, u32)> {
        self.stored.lock().expect("no panic inside").keys().cloned().collect()
    }
}

#[async_trait]
impl ProcessConsumer for TestConsumer {
    async fn resume_after(&self, process_id: &ProcessId, generation: u32) -> Sequence {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.log(process_id, generation).last().map_or(Sequence(0), |last| last.sequence)
    }

    async fn consume(&self, generation: u32, events: &[Arc<ProcessEvent>]) {
        self.permits.acquire().await.expect("never closed").forget();
        let is_poison = self.poison.lock().expect("no panic inside").contains(&events[0].process_id);
        assert!(!is_poison, "as the test wants");
        let panic = self.panics.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(!panic.is_ok_and(|left| left % 2 == 0), "as the test wants");
        {
            let mut stored = self.stored.lock().expect("no panic inside");
            let id = events[0].process_id.clone();
            stored.entry((id, generation)).or_default().extend(events.iter().cloned());
        }
        assert!(panic.is_err(), "as the test wants");
    }
}

/// A history: appends, facts, ends, prunes and new lives of five processes, a publisher that is killed, and a consumer that
/// goes on or panics when it is told to.
async fn catches_up(store: Store, seed: u64) {
    let context = format!("{store:?}, seed {seed}");
    let mut random = Random::new(seed);
    let fixture = Fixture::open(store).await;
    let names = ["a", "b", "c", "d", "e"];
    let mut ids = Vec::new();
    for name in names {
        ids.push(fixture.registered(name).await);
    }
    for number in 0..random.below(20) {
        fixture.append(&ids[0], number).await;
    }
    let consumer = TestConsumer::new(0);
    let capacity = 1 + usize::try_from(random.below(12)).expect("small");
    let mut settings = options(capacity);
    settings.gaps = 1 + usize::try_from(random.below(6)).expect("small");
    let mailbox = CatchUp::in_mailbox(Arc::clone(&consumer), fixture.port(), settings).expect("the thread starts");
    let mut told_after_all = fixture.told_after_all();
    let panics = seed.is_multiple_of(2);
    let mut over = Lives::new();
    for step in 0..150 {
        let id = ids[usize::try_from(random.below(5)).expect("small")].clone();
        match random.below(20) {
            0 => {
                let events = fixture.prune(&id).await;
                let next = fixture.registry.register_process(registration(&id)).await.expect("its next life");
                over.insert((id, next.generation - 1), events);
            }
            1 => {
                let wait = WaitState::signal(&id, &ProcessSignal::new("s").expect("a name"), 1, step);
                fixture.registry.set_process_wait(&id, wait).await.expect("a wait");
            }
            2 => drop(fixture.registry.clear_process_wait(&id).await.expect("no wait")),
            3 => fixture.kill_publisher(&id),
            4 if panics => drop(consumer.panics.fetch_add(1, Ordering::SeqCst)),
            5..8 => consumer.permits.add_permits(usize::try_from(random.below(6)).expect("small")),
            _ => drop(fixture.append(&id, step).await),
        }
    }
    consumer.panics.store(0, Ordering::SeqCst);
    told_after_all.everything(&fixture, "end").await;
    consumer.permits.add_permits(1_000_000);
    let report = mailbox.flush(PATIENCE).await.unwrap_or_else(|left| panic!("{context}: {left}"));
    check(&report);
    if panics {
        // What the consumer panicked over twice is taken up again a second later. The next mailbox does not wait for that.
        let next = CatchUp::in_mailbox(Arc::clone(&consumer), fixture.port(), options(1)).expect("the thread starts");
        next.close(PATIENCE).await.unwrap_or_else(|left| panic!("{context}: {left}"));
    }
    ids.push(process_id("end"));
    let mut living = BTreeSet::new();
    for id in &ids {
        let record = fixture.registry.get_process(id).await.expect("a read").expect("it lives");
        living.insert((id.clone(), record.generation));
        let (consumed, stored) = (consumer.log(id, record.generation), fixture.events(id).await);
        let of_consumed: Vec<_> = consumed.iter().map(|event| event.sequence.0).collect();
        assert_eq!(of_consumed, (1..=stored.len() as u64).collect::<Vec<_>>(), "{context}: {id}, {report:?}");
        assert_eq!(consumed, stored, "{context}: {id}");
    }
    for life in consumer.lives().difference(&living) {
        // Of what was pruned before it was read the end is missing, and nothing else.
        let (consumed, stored) = (consumer.log(&life.0, life.1), &over[life]);
        assert!(stored.starts_with(&consumed), "{context}: {life:?}\nconsumed {consumed:#?}\nof {stored:#?}");
    }
    mailbox.close(PATIENCE).await.expect("nothing waits");
    fixture.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_catches_up_has_every_event_once_and_in_order_whatever_it_missed() {
    let first = std::env::var("PROCTOR_SINK_SEED").ok().and_then(|seed| seed.parse().ok());
    let rounds = |count: u64| first.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in rounds(40) {
        catches_up(Store::Memory, seed).await;
    }
    for seed in rounds(5) {
        catches_up(Store::Sqlite, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_are_tried_again_and_put_off_without_losing_the_place() {
    let log = MemoryLog::new("test store");
    let fixture = Fixture::over(Arc::new(log.clone()), None).await;
    let (a, b) = (fixture.registered("a").await, fixture.registered("b").await);
    for number in 1..=3 {
        fixture.append(&a, number).await;
        fixture.append(&b, number).await;
    }
    let consumer = TestConsumer::new(1_000);
    let catch_up = CatchUp::new(Arc::clone(&consumer), fixture.port());
    let (of_a, of_b) = (fixture.events(&a).await, fixture.events(&b).await);

    log.fail_reads(7);
    catch_up.emit(&of_a[0]).await;
    assert_eq!(consumer.log(&a, 1), of_a, "the eighth attempt reads it to its end");

    log.fail_reads(8);
    catch_up.missed(&MissedEvents::Of { process_id: b.clone(), from: Sequence(1), to: Sequence(2) }).await;
    catch_up.emit(&of_b[2]).await;
    assert_eq!(consumer.log(&b, 1), [], "it was put off, and what comes live waits with it");
    tokio::time::advance(Duration::from_secs(1)).await;
    catch_up.emit(&of_a[2]).await;
    assert_eq!(consumer.log(&b, 1), of_b, "the next delivery of any process tries it again");

    fixture.append(&a, 4).await;
    log.fail_reads(8);
    catch_up.missed(&MissedEvents::Unknown).await;
    assert_eq!(consumer.log(&a, 1).len(), 3, "the walk was put off");
    tokio::time::advance(Duration::from_secs(1)).await;
    catch_up.emit(&of_b[2]).await;
    assert_eq!(consumer.log(&a, 1), fixture.events(&a).await);
    assert_eq!(consumer.log(&b, 1), of_b);
}

/// A walk lists what is whole and names what is not. What it names was passed over without a word, and never read again.
#[tokio::test]
async fn a_walk_puts_a_damaged_process_off_and_reads_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    let log = Arc::new(SqliteLog::open(&path, SqliteOptions::default()).expect("the store opens"));
    let fixture = Fixture::over(log, None).await;
    let (a, b) = (fixture.registered("a").await, fixture.registered("b").await);
    for id in [&a, &b] {
        fixture.append(id, 1).await;
    }
    let (of_a, of_b) = (fixture.events(&a).await, fixture.events(&b).await);
    let raw = raw_connection(&path);
    let whole: Vec<u8> =
        raw.query_row("SELECT checksum FROM processes WHERE process_id = 'a'", [], |row| row.get(0)).expect("a record");
    raw.execute("UPDATE processes SET checksum = zeroblob(32) WHERE process_id = 'a'", []).expect("the damage");

    let consumer = TestConsumer::new(1_000);
    let catch_up = CatchUp::new(Arc::clone(&consumer), fixture.port());
    catch_up.missed(&MissedEvents::Unknown).await;
    assert_eq!((consumer.log(&a, 1), consumer.log(&b, 1)), (vec![], of_b.clone()));

    raw.execute("UPDATE processes SET checksum = ?1 WHERE process_id = 'a'", [whole]).expect("mended");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    catch_up.emit(&of_b[0]).await;
    assert_eq!((consumer.log(&a, 1), consumer.log(&b, 1)), (of_a, of_b), "it was only put off");
    fixture.shut_down().await;
}

#[tokio::test]
async fn a_gap_over_which_the_consumer_panicked_is_filled_at_the_next_delivery_of_any_process() {
    let fixture = Fixture::open(Store::Memory).await;
    let (a, b) = (fixture.registered("a").await, fixture.registered("b").await);
    fixture.append(&a, 1).await;
    fixture.append(&b, 1).await;
    let consumer = TestConsumer::new(1_000);
    let catch_up = Arc::new(CatchUp::new(Arc::clone(&consumer), fixture.port()));
    consumer.panics.store(1, Ordering::SeqCst);
    let missed = MissedEvents::Of { process_id: a.clone(), from: Sequence(1), to: Sequence(1) };
    let told = Arc::clone(&catch_up);
    tokio::spawn(async move { told.missed(&missed).await }).await.expect_err("the consumer panics");
    let before = consumer.log(&a, 1).len();
    fixture.append(&a, 2).await;
    catch_up.emit(&fixture.events(&b).await[0]).await;
    assert_eq!(consumer.log(&a, 1), fixture.events(&a).await, "it had {before} when it panicked");
}

#[tokio::test]
async fn events_that_go_on_from_the_last_ones_cost_no_read() {
    let log = MemoryLog::new("test store");
    let fixture = Fixture::over(Arc::new(log.clone()), None).await;
    let id = fixture.registered("a").await;
    for number in 1..=5 {
        fixture.append(&id, number).await;
    }
    let events = fixture.events(&id).await;
    let consumer = TestConsumer::new(1_000);
    let mailbox = ToldByHand::in_mailbox(&fixture, &consumer).await;
    assert_eq!(consumer.log(&id, 1), events);
    for number in 6..=9 {
        fixture.append(&id, number).await;
    }
    let events = fixture.events(&id).await;
    let (reads, asked) = (log.reads(), consumer.asked.load(Ordering::SeqCst));
    mailbox.emit_batch(&events[5..]).await;
    mailbox.flush(PATIENCE).await.expect("delivered");
    assert_eq!((log.reads(), consumer.asked.load(Ordering::SeqCst)), (reads, asked));
    assert_eq!(consumer.log(&id, 1), events);
}

#[tokio::test]
async fn a_mailbox_outlives_its_registry_and_hears_of_the_next_one() {
    let told = Arc::new(AtomicBool::new(false));
    struct Flag(Arc<AtomicBool>);
    #[async_trait]
    impl ProcessEventSink for Flag {
        async fn emit(&self, _: &Arc<ProcessEvent>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let mailbox = sink::mailbox(Arc::new(Flag(Arc::clone(&told)))).expect("the thread starts");
    let first = Fixture::open(Store::Memory).await;
    first.attach(&mailbox);
    first.shut_down().await;
    assert!(mailbox.source_has_ended());
    let second = Fixture::open(Store::Memory).await;
    second.attach(&mailbox);
    assert!(!mailbox.source_has_ended());
    let mut told_after_all = second.told_after_all();
    let id = second.registered("a").await;
    second.append(&id, 1).await;
    told_after_all.of(&id, 1).await;
    mailbox.flush(PATIENCE).await.expect("delivered");
    assert!(told.load(Ordering::SeqCst));
}

/// Whether a delivery fails, as the supervisor of a mailbox sees it.
async fn fails(catch_up: &Arc<CatchUp<TestConsumer>>, event: &Arc<ProcessEvent>) -> bool {
    let (catch_up, event) = (Arc::clone(catch_up), Arc::clone(event));
    tokio::spawn(async move { catch_up.emit(&event).await }).await.is_err()
}

/// A consumer cannot digest the events of two processes. The deliveries of all others succeed, but one each second, at whose
/// end one of the two, in turn, is tried again; and when one of them can be digested, it does not wait for the other one.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_always_panics_over_some_processes_consumes_the_others() {
    let fixture = Fixture::open(Store::Memory).await;
    let (x, y, b) = (fixture.registered("x").await, fixture.registered("y").await, fixture.registered("b").await);
    for id in [&x, &y] {
        fixture.append(id, 1).await;
    }
    for number in 1..=20 {
        fixture.append(&b, number).await;
    }
    let of_b = fixture.events(&b).await;
    let consumer = TestConsumer::new(1_000);
    let catch_up = Arc::new(CatchUp::new(Arc::clone(&consumer), fixture.port()));
    consumer.poison(&[&x, &y]);
    for id in [&x, &y] {
        assert!(fails(&catch_up, &fixture.events(id).await[0]).await);
    }
    assert!(fails(&catch_up, &of_b[0]).await, "what the consumer panicked over is tried again at once");
    for event in &of_b[1..] {
        assert!(!fails(&catch_up, event).await, "and then not in this second");
    }
    assert_eq!(consumer.log(&b, 1), of_b);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(fails(&catch_up, &of_b[19]).await);
    assert!(!fails(&catch_up, &of_b[19]).await);

    consumer.poison(&[&x]);
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(fails(&catch_up, &of_b[19]).await);
    }
    assert_eq!(consumer.log(&y, 1), fixture.events(&y).await, "it has its turn whatever becomes of the other one");
    consumer.poison(&[]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!fails(&catch_up, &of_b[19]).await);
    assert_eq!(consumer.log(&x, 1), fixture.events(&x).await);
}

/// The first process of a walk cannot be digested. The walk fails once, and goes on past it.
#[tokio::test(start_paused = true)]
async fn a_walk_gets_past_a_process_over_which_the_consumer_panics() {
    let fixture = Fixture::open(Store::Memory).await;
    let (a, b, z) = (fixture.registered("a").await, fixture.registered("b").await, fixture.registered("z").await);
    for id in [&a, &b, &z] {
        fixture.append(id, 1).await;
    }
    let consumer = TestConsumer::new(1_000);
    let catch_up = Arc::new(CatchUp::new(Arc::clone(&consumer), fixture.port()));
    consumer.poison(&[&a]);
    let walking = Arc::clone(&catch_up);
    tokio::spawn(async move { walking.missed(&MissedEvents::Unknown).await }).await.expect_err("the consumer panics");
    assert!(
        fails(&catch_up, &fixture.events(&b).await[0]).await,
        "the walk is over, and the first process tried again"
    );
    assert_eq!(consumer.log(&z, 1), fixture.events(&z).await);
}

/// A registry whose commits are told to nobody but by the test.
struct ToldByHand {
    registry: ActorRegistry,
    silent: ActorRegistry,
}

impl ToldByHand {
    /// A mailbox with a consumer that has read what is in the log.
    async fn in_mailbox(fixture: &Fixture, consumer: &Arc<TestConsumer>) -> SinkMailbox {
        let registry = Self { registry: fixture.registry.clone(), silent: Fixture::open(Store::Memory).await.registry };
        let mailbox = CatchUp::in_mailbox(Arc::clone(consumer), Arc::new(registry), options(100));
        let mailbox = mailbox.expect("the thread starts");
        mailbox.flush(PATIENCE).await.expect("delivered");
        mailbox
    }
}

#[async_trait]
impl ProcessRegistry for ToldByHand {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.registry.execute(process_id, command).await
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.registry.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.registry.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.registry.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.silent.change_source()
    }
}

/// A consumer has the first event of a process when it ends, is pruned, and lives again. What it is handed next, at once, are
/// the end of the first life, which no log has any more, and the beginning of the second one: it has both.
#[tokio::test]
async fn of_the_events_of_two_lives_at_once_neither_the_end_nor_the_beginning_is_lost() {
    let fixture = Fixture::open(Store::Memory).await;
    let a = fixture.registered("a").await;
    fixture.append(&a, 1).await;
    let consumer = TestConsumer::new(1_000);
    let mailbox = ToldByHand::in_mailbox(&fixture, &consumer).await;
    assert_eq!(consumer.log(&a, 1), fixture.events(&a).await);

    fixture.append(&a, 2).await;
    let first = fixture.prune(&a).await;
    fixture.registry.register_process(registration(&a)).await.expect("its next life");
    fixture.append(&a, 3).await;
    let second = fixture.events(&a).await;
    mailbox.emit_batch(&[&first[1..], &second].concat()).await;
    mailbox.flush(PATIENCE).await.expect("delivered");
    assert_eq!(consumer.log(&a, 1), first);
    assert_eq!(consumer.log(&a, 2), second);
}

/// A consumer hears of appended events only: neither of the end of the first life, nor of the wait that the second one begins
/// with. The next event that it hears of bears the number that would go on in the first life, and is not taken for it.
#[tokio::test]
async fn a_consumer_that_hears_of_some_events_only_does_not_take_one_life_for_another() {
    let fixture = Fixture::open(Store::Memory).await;
    let a = fixture.registered("a").await;
    let consumer = TestConsumer::new(1_000);
    let catch_up = CatchUp::new(Arc::clone(&consumer), fixture.port());
    fixture.append(&a, 1).await;
    catch_up.emit(&fixture.events(&a).await[0]).await;
    let first = fixture.prune(&a).await;
    fixture.registry.register_process(registration(&a)).await.expect("its next life");
    let wait = WaitState::signal(&a, &ProcessSignal::new("s").expect("a name"), 1, 1);
    fixture.registry.set_process_wait(&a, wait).await.expect("a wait");
    fixture.append(&a, 2).await;
    let second = fixture.events(&a).await;
    assert_eq!(second[1].sequence, first[0].sequence.next());
    catch_up.emit(&second[1]).await;
    assert_eq!(consumer.log(&a, 1), first[..1]);
    assert_eq!(consumer.log(&a, 2), second);
}

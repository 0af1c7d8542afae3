//! Actors that are subscribed to a process, or wait for its outcome by message: what they hear is in order, complete or
//! said to be incomplete, and nothing of them stays behind.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use registry_actor::actor::{
    ActorRegistry, ActorWait, ProcessNews, ProcessSubscription, RegistryOptions, Told, await_by_message,
};
use registry_actor::domain::{ProcessAwaitOutput, ProcessId, ProjectionWatermark, PruneFilter, Sequence};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    ChangeSource, CommitListener, CommittedBatch, EngineError, ProcessAttach, ProcessRegistry, ProcessRegistryExt,
};
use registry_tests::example_process::{note, process_id, registration};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// An actor that repeats what it hears to the test.
struct Ear;

enum Heard {
    News(ProcessNews),
    /// The same, taken apart on the way: its turn is given back before it arrives.
    Apart(Told),
    Outcome(Result<ProcessAwaitOutput, EngineError>),
    /// From now on keep the news, as an actor does that is not done with them.
    Hold,
    /// Be done with them.
    Release,
    /// Keep a subscription.
    Keep(ProcessSubscription),
}

struct EarState {
    repeat: mpsc::UnboundedSender<Repeated>,
    holds: bool,
    held: Vec<ProcessNews>,
    kept: Vec<ProcessSubscription>,
}

#[derive(Debug)]
enum Repeated {
    News(Told),
    Outcome(Result<ProcessAwaitOutput, EngineError>),
}

impl Actor for Ear {
    type Msg = Heard;
    type State = EarState;
    type Arguments = mpsc::UnboundedSender<Repeated>;

    async fn pre_start(&self, _: ActorRef<Heard>, repeat: Self::Arguments) -> Result<EarState, ActorProcessingErr> {
        Ok(EarState { repeat, holds: false, held: Vec::new(), kept: Vec::new() })
    }

    async fn handle(&self, _: ActorRef<Heard>, heard: Heard, ear: &mut EarState) -> Result<(), ActorProcessingErr> {
        match heard {
            Heard::News(news) => {
                ear.repeat.send(Repeated::News(news.told.clone()))?;
                if ear.holds {
                    ear.held.push(news);
                }
            }
            Heard::Apart(told) => ear.repeat.send(Repeated::News(told))?,
            Heard::Outcome(outcome) => ear.repeat.send(Repeated::Outcome(outcome))?,
            Heard::Hold => ear.holds = true,
            Heard::Release => {
                ear.holds = false;
                ear.held.clear();
            }
            Heard::Keep(subscription) => ear.kept.push(subscription),
        }
        Ok(())
    }
}

/// An [`Ear`] and what it repeats.
struct Listening {
    ear: ActorRef<Heard>,
    task: JoinHandle<()>,
    repeated: mpsc::UnboundedReceiver<Repeated>,
}

impl Listening {
    async fn start() -> Self {
        let (repeat, repeated) = mpsc::unbounded_channel();
        let (ear, task) = Ear::spawn(None, Ear, repeat).await.expect("the actor starts");
        Self { ear, task, repeated }
    }

    fn subscribe(&self, registry: &ActorRegistry, id: &ProcessId) -> ProcessSubscription {
        registry.subscribe(id, self.ear.clone(), Heard::News)
    }

    fn send(&self, heard: Heard) {
        assert!(self.ear.cast(heard).is_ok(), "the actor lives");
    }

    async fn repeated(&mut self) -> Repeated {
        tokio::time::timeout(Duration::from_secs(30), self.repeated.recv())
            .await
            .expect("something is told")
            .expect("the actor lives")
    }

    async fn told(&mut self) -> Told {
        match self.repeated().await {
            Repeated::News(told) => told,
            Repeated::Outcome(outcome) => panic!("news were expected, got {outcome:?}"),
        }
    }

    async fn commit(&mut self) -> Commit {
        Commit::of(&self.told().await)
    }

    /// Everything up to the end of the registry.
    async fn all_until_closed(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            match self.told().await {
                Told::Closed => return all,
                told => all.push(told),
            }
        }
    }

    async fn kill(&mut self) {
        self.ear.get_cell().kill();
        (&mut self.task).await.expect("the actor's task ends");
    }
}

#[derive(Debug, PartialEq)]
struct Commit {
    missed: Option<RangeInclusive<u64>>,
    events: Vec<u64>,
}

impl Commit {
    fn of(told: &Told) -> Self {
        match told {
            Told::Committed { missed, events, .. } => Self {
                missed: missed.as_ref().map(|missed| missed.start().0..=missed.end().0),
                events: events.iter().map(|event| event.sequence.0).collect(),
            },
            other => panic!("a commit was expected, got {other:?}"),
        }
    }
}

/// The sequences of all commits; fails at whatever is no commit, and if something was missed.
fn sequences(all: &[Told]) -> Vec<u64> {
    let of_one = |told| {
        let commit = Commit::of(told);
        assert_eq!(commit.missed, None);
        commit.events
    };
    all.iter().flat_map(of_one).collect()
}

async fn start(adjust: impl FnOnce(&mut RegistryOptions)) -> (MemoryLog, ActorRegistry) {
    let log = MemoryLog::new("test store");
    (log.clone(), start_over(&log, adjust).await)
}

async fn start_over(log: &MemoryLog, adjust: impl FnOnce(&mut RegistryOptions)) -> ActorRegistry {
    let mut options = RegistryOptions::default();
    adjust(&mut options);
    ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts")
}

async fn registered(registry: &ActorRegistry, name: &str) -> ProcessId {
    let id = process_id(name);
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    id
}

async fn append(registry: &ActorRegistry, id: &ProcessId, numbers: RangeInclusive<u64>) {
    for number in numbers {
        registry.append_event(id, note(number)).await.expect("it is appended");
    }
}

/// Returns when everything committed so far has been told to every subscriber: commits are told in their order.
async fn everything_is_told(registry: &ActorRegistry) {
    static ROUND: Mutex<u64> = Mutex::new(0);
    let round = {
        let mut round = ROUND.lock().unwrap_or_else(PoisonError::into_inner);
        *round += 1;
        *round
    };
    let mut listening = Listening::start().await;
    let id = process_id(&format!("fence-{round}"));
    let _subscription = listening.subscribe(registry, &id);
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    assert_eq!(listening.commit().await, Commit { missed: None, events: vec![0] });
}

#[tokio::test(start_paused = true)]
async fn commits_are_told_in_order_from_the_subscription_on() {
    let (_log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    append(&registry, &id, 1..=3).await;
    everything_is_told(&registry).await;
    let (mut first, mut second) = (Listening::start().await, Listening::start().await);
    let _subscriptions = [first.subscribe(&registry, &id), second.subscribe(&registry, &id)];
    append(&registry, &id, 4..=20).await;
    let output = ProcessAwaitOutput::success(json!(1));
    registry.complete_process(&id, output.clone()).await.expect("it ends");
    registry.shut_down(Duration::from_secs(1)).await;
    for listening in [&mut first, &mut second] {
        let told = listening.all_until_closed().await;
        assert_eq!(sequences(&told), (4..=21).collect::<Vec<u64>>());
        let Some(Told::Committed { record, .. }) = told.last() else { panic!("a commit comes last, got {told:?}") };
        assert!(record.terminal_at_ms.is_some(), "the last record is the ended one");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missed_or_told_twice_while_whatever_carries_the_news_is_killed() {
    let (log, registry) = start(|options| options.shards = 1).await;
    let id = process_id("a");
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&registry, &id);
    registered(&registry, "a").await;
    for number in 1..=60 {
        log.pause();
        let appending = tokio::spawn({
            let (registry, id) = (registry.clone(), id.clone());
            async move { registry.append_event(&id, note(number)).await }
        });
        log.queued_at_least(1).await;
        let supervisors = registry.supervisors_of(&id);
        match number % 4 {
            0 => registry.process_actor(&id).into_iter().for_each(|actor| actor.kill()),
            1 => supervisors.first().expect("the shard lives").kill(),
            2 => supervisors.last().expect("the publisher lives").kill(),
            _ => {}
        }
        // The victim dies with the commit under way: between its submission and its news.
        log.resume();
        appending.await.expect("no panic").expect("it is appended");
        // Far enough for restarts not to count as a series of failures.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    everything_is_told(&registry).await;
    registry.shut_down(Duration::from_secs(1)).await;
    assert_eq!(sequences(&listening.all_until_closed().await), (0..=60).collect::<Vec<u64>>());
}

/// Catches batches, to tell them again.
#[derive(Default)]
struct Catcher(Mutex<Vec<CommittedBatch>>);

impl Catcher {
    fn attached(source: &ChangeSource) -> Arc<Self> {
        let catcher = Arc::new(Self::default());
        source.attach(&(Arc::clone(&catcher) as Arc<dyn CommitListener>));
        catcher
    }

    fn caught(&self) -> Vec<CommittedBatch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl CommitListener for Catcher {
    fn committed(&self, batches: &[CommittedBatch]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(batches);
    }

    fn pruned(&self, _: &[registry_actor::domain::Tombstone]) {}

    fn resync(&self) {}

    fn closed(&self) {}
}

/// As after a failed read of the feed.
#[tokio::test(start_paused = true)]
async fn what_the_publisher_tells_twice_is_told_once_and_what_it_leaves_out_is_told_as_missed() {
    let (_log, registry) = start(|_| {}).await;
    let catcher = Catcher::attached(&registry.change_source().expect("it tells"));
    let id = registered(&registry, "a").await;
    append(&registry, &id, 1..=6).await;
    everything_is_told(&registry).await;
    let batches: Vec<_> = catcher.caught().into_iter().filter(|batch| batch.process_id == id).collect();
    assert_eq!(batches.len(), 7, "each append was a commit");

    let (_log, other) = start(|_| {}).await;
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&other, &id);
    let source = other.change_source().expect("it tells");
    for told in [&batches[0..2], &batches[0..3], &batches[5..6], &batches[2..7]] {
        source.listeners().iter().for_each(|listener| listener.committed(told));
    }
    other.shut_down(Duration::from_secs(1)).await;
    let told = listening.all_until_closed().await;
    let commits: Vec<_> = told.iter().map(Commit::of).collect();
    let expected = [(None, vec![0]), (None, vec![1, 2]), (Some(3..=4), vec![5, 6])];
    assert_eq!(commits, expected.map(|(missed, events)| Commit { missed, events }));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_told_as_exactly_what_was_missed_although_nothing_follows() {
    let (_log, registry) = start(|options| options.subscription_backlog = 4).await;
    for (last, expected) in [
        (1, None),
        (5, Some(Commit { missed: None, events: vec![2, 3, 4, 5] })),
        (6, Some(Commit { missed: Some(2..=6), events: vec![] })),
        (11, Some(Commit { missed: Some(2..=11), events: vec![] })),
        (12, Some(Commit { missed: Some(2..=11), events: vec![12] })),
    ] {
        let id = process_id(&format!("a-{last}"));
        registered(&registry, id.as_str()).await;
        everything_is_told(&registry).await;
        let mut listening = Listening::start().await;
        let _subscription = listening.subscribe(&registry, &id);
        listening.send(Heard::Hold);
        append(&registry, &id, 1..=last).await;
        everything_is_told(&registry).await;
        assert_eq!(listening.commit().await, Commit { missed: None, events: vec![1] });
        assert!(listening.repeated.try_recv().is_err(), "one message is under way at most");
        listening.send(Heard::Release);
        if let Some(expected) = expected {
            assert_eq!(listening.commit().await, expected, "up to {last}");
        }
        append(&registry, &id, last + 1..=last + 1).await;
        assert_eq!(listening.commit().await, Commit { missed: None, events: vec![last + 1] }, "it goes on");
        let page = registry.events_page(&id, Sequence(0), 100).await.expect("the log can be read");
        assert_eq!(page.events.len() as u64, last + 1, "the log has what was missed");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_gathered_comes_with_the_last_record() {
    for backlog in [1, 1_024] {
        let (_log, registry) = start(|options| options.subscription_backlog = backlog).await;
        let id = registered(&registry, "a").await;
        everything_is_told(&registry).await;
        let mut listening = Listening::start().await;
        let _subscription = listening.subscribe(&registry, &id);
        listening.send(Heard::Hold);
        append(&registry, &id, 1..=2).await;
        registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("it ends");
        everything_is_told(&registry).await;
        assert_eq!(listening.commit().await.events, [1]);
        listening.send(Heard::Release);
        let told = listening.told().await;
        let Told::Committed { record, .. } = &told else { panic!("a commit was expected, got {told:?}") };
        assert!(record.terminal_at_ms.is_some(), "what was missed hides no outcome: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_lives_told_to_an_actor_that_does_not_listen_become_read_anew() {
    let (_log, registry) = start(|_| {}).await;
    let id = process_id("a");
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&registry, &id);
    listening.send(Heard::Hold);
    for _ in 0..20 {
        registered(&registry, "a").await;
        registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("it ends");
        prune_all(&registry).await;
    }
    everything_is_told(&registry).await;
    assert_eq!(listening.commit().await, Commit { missed: None, events: vec![0] });
    listening.send(Heard::Release);
    assert!(matches!(listening.told().await, Told::Resync));
    let mut last_pruned = 0;
    registry.shut_down(Duration::from_secs(1)).await;
    for told in listening.all_until_closed().await {
        if let Told::Pruned { tombstone } = told {
            last_pruned = tombstone.generation;
        }
    }
    assert_eq!(last_pruned, 20, "what follows the request is told as it is");
}

async fn prune_all(registry: &ActorRegistry) {
    let report = registry
        .prune_terminal_processes(PruneFilter::ended_before(u64::MAX), ProjectionWatermark::NoProjector)
        .await
        .expect("it prunes");
    assert!(report.pruned_processes > 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_leaves_no_entry_and_hears_nothing_more() {
    let (_log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    everything_is_told(&registry).await;
    let (mut first, mut second) = (Listening::start().await, Listening::start().await);
    let dropped = first.subscribe(&registry, &id);
    let kept = second.subscribe(&registry, &id);
    assert_eq!(registry.subscriptions(), 2);
    drop(dropped);
    assert_eq!(registry.subscriptions(), 1);
    append(&registry, &id, 1..=1).await;
    assert_eq!(second.commit().await.events, [1]);
    everything_is_told(&registry).await;
    drop(kept);
    assert_eq!(registry.subscriptions(), 0);
    registry.shut_down(Duration::from_secs(1)).await;
    drop(registry);
    first.ear.get_cell().stop(None);
    assert!(first.repeated.recv().await.is_none(), "it heard nothing up to its end");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_dropped_with_something_gathered_is_not_told_it() {
    let (_log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    everything_is_told(&registry).await;
    let mut listening = Listening::start().await;
    let subscription = listening.subscribe(&registry, &id);
    listening.send(Heard::Hold);
    append(&registry, &id, 1..=3).await;
    everything_is_told(&registry).await;
    assert_eq!(listening.commit().await.events, [1]);
    drop(subscription);
    listening.send(Heard::Release);
    listening.ear.get_cell().drain().expect("it is asked to end");
    assert!(listening.repeated.recv().await.is_none());
    assert_eq!(registry.subscriptions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_dropped_while_its_news_are_sent_hears_nothing_more() {
    let (_log, registry) = start(|_| {}).await;
    let catcher = Catcher::attached(&registry.change_source().expect("it tells"));
    let id = registered(&registry, "a").await;
    append(&registry, &id, 1..=1).await;
    everything_is_told(&registry).await;
    let batches: Vec<_> = catcher.caught().into_iter().filter(|batch| batch.process_id == id).collect();

    let (_log, other) = start(|_| {}).await;
    let mut listening = Listening::start().await;
    let own: Arc<Mutex<Option<ProcessSubscription>>> = Arc::default();
    let dropped_on_the_way = Arc::clone(&own);
    let subscription = other.subscribe(&id, listening.ear.clone(), move |news| {
        drop(dropped_on_the_way.lock().unwrap_or_else(PoisonError::into_inner).take());
        Heard::Apart(news.told)
    });
    *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscription);
    for listener in other.change_source().expect("it tells").listeners() {
        listener.committed(&batches);
    }
    assert_eq!(listening.commit().await.events, [0]);
    assert_eq!(other.subscriptions(), 0);
    listening.ear.get_cell().drain().expect("it is asked to end");
    assert!(listening.repeated.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dead_subscriber_leaves_no_entry() {
    let (_log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    everything_is_told(&registry).await;

    // It takes a subscription of its own along at once.
    let mut owner = Listening::start().await;
    owner.send(Heard::Keep(owner.subscribe(&registry, &id)));
    append(&registry, &id, 1..=1).await;
    assert_eq!(owner.commit().await.events, [1]);
    assert_eq!(registry.subscriptions(), 1);
    owner.kill().await;
    assert_eq!(registry.subscriptions(), 0);

    // Of one that somebody else keeps, the next commit finds it dead. It was killed with news in hand.
    let mut listening = Listening::start().await;
    let _kept_elsewhere = listening.subscribe(&registry, &id);
    listening.send(Heard::Hold);
    append(&registry, &id, 2..=3).await;
    everything_is_told(&registry).await;
    assert_eq!(listening.commit().await.events, [2]);
    listening.kill().await;
    append(&registry, &id, 4..=4).await;
    everything_is_told(&registry).await;
    assert_eq!(registry.subscriptions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cold_process_is_not_woken_and_a_warm_one_goes_to_rest() {
    let (log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    let cold = start_over(&log, |_| {}).await;
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&cold, &id);
    assert!(cold.get_process(&id).await.expect("it can be read").is_some());
    assert_eq!(cold.live_actors(), 0);
    append(&registry, &id, 1..=1).await;
    assert_eq!(listening.commit().await.events, [1], "also what another registry of this log commits");
    assert_eq!(cold.live_actors(), 0);

    append(&cold, &id, 2..=2).await;
    assert_eq!(listening.commit().await.events, [2]);
    assert_eq!(cold.live_actors(), 1);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(cold.live_actors(), 0, "a subscription keeps no actor alive");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_life_the_next_life_and_the_end_of_the_registry_are_told() {
    let (_log, registry) = start(|_| {}).await;
    let id = process_id("a");
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&registry, &id);
    registered(&registry, "a").await;
    assert_eq!(listening.commit().await.events, [0]);
    registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("it ends");
    assert_eq!(listening.commit().await.events, [1]);
    prune_all(&registry).await;
    let told = listening.told().await;
    assert!(matches!(&told, Told::Pruned { tombstone } if tombstone.generation == 1), "got {told:?}");
    registered(&registry, "a").await;
    let told = listening.told().await;
    assert!(matches!(&told, Told::Committed { record, .. } if record.generation == 2), "got {told:?}");
    registry.shut_down(Duration::from_secs(1)).await;
    assert!(matches!(listening.told().await, Told::Closed));
    assert_eq!(registry.subscriptions(), 0);

    let mut late = Listening::start().await;
    let _subscription = late.subscribe(&registry, &id);
    assert!(matches!(late.told().await, Told::Closed), "a subscription to what has ended is told so");
    assert_eq!(registry.subscriptions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_continuity_is_told_and_what_follows_too() {
    let (log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    everything_is_told(&registry).await;
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&registry, &id);
    log.fail_reads(1);
    registry.supervisors_of(&id).last().expect("the publisher lives").kill();
    assert!(matches!(listening.told().await, Told::Resync));
    append(&registry, &id, 1..=1).await;
    assert_eq!(listening.commit().await, Commit { missed: None, events: vec![1] });
}

/// Its turn comes back before its message is sent, which must not let the next one overtake it.
#[tokio::test(start_paused = true)]
async fn a_wrap_that_takes_the_news_apart_keeps_their_order() {
    let (_log, registry) = start(|_| {}).await;
    let id = process_id("a");
    let mut listening = Listening::start().await;
    let first = AtomicBool::new(true);
    let _subscription = registry.subscribe(&id, listening.ear.clone(), move |news| {
        if first.swap(false, Ordering::Relaxed) { Heard::News(news) } else { Heard::Apart(news.told) }
    });
    listening.send(Heard::Hold);
    for _ in 0..3 {
        registered(&registry, "a").await;
        registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("it ends");
        prune_all(&registry).await;
    }
    everything_is_told(&registry).await;
    listening.send(Heard::Release);
    registered(&registry, "a").await;
    registry.shut_down(Duration::from_secs(1)).await;
    let told: Vec<_> = listening.all_until_closed().await.iter().map(in_short).collect();
    let expected = ["1: [0]", "1: [1]", "1 gone", "2: [0, 1]", "2 gone", "3: [0, 1]", "3 gone", "4: [0]"];
    assert_eq!(told, expected);
}

fn in_short(told: &Told) -> String {
    match told {
        Told::Committed { record, .. } => format!("{}: {:?}", record.generation, Commit::of(told).events),
        Told::Pruned { tombstone } => format!("{} gone", tombstone.generation),
        Told::Resync | Told::Closed => format!("{told:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrap_that_panics_ends_its_own_subscription_only() {
    let (_log, registry) = start(|_| {}).await;
    let id = registered(&registry, "a").await;
    everything_is_told(&registry).await;
    let mut listening = Listening::start().await;
    let _panicking = registry.subscribe(&id, listening.ear.clone(), |_| panic!("scripted"));
    let _subscription = listening.subscribe(&registry, &id);
    append(&registry, &id, 1..=2).await;
    everything_is_told(&registry).await;
    assert_eq!(registry.subscriptions(), 1);
    registry.shut_down(Duration::from_secs(1)).await;
    assert_eq!(sequences(&listening.all_until_closed().await), [1, 2]);
}

/// An attach whose answer the test gives, and which tells when nobody waits any more.
struct Attach {
    answer: watch::Receiver<Option<Result<ProcessAwaitOutput, EngineError>>>,
    waiters: mpsc::Sender<()>,
}

struct Asked {
    answer: watch::Sender<Option<Result<ProcessAwaitOutput, EngineError>>>,
    waiters: mpsc::Receiver<()>,
}

impl Asked {
    /// Returns when the attach and every wait at it are gone.
    async fn nobody_waits(&mut self) {
        let gone = async { while self.waiters.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the wait is given up");
    }

    /// Returns when somebody waits.
    async fn somebody_waits(&mut self) {
        self.waiters.recv().await.expect("somebody waits");
    }
}

fn attach() -> (Arc<Attach>, Asked) {
    let (answer, answered) = watch::channel(None);
    let (waiting, waiters) = mpsc::channel(8);
    (Arc::new(Attach { answer: answered, waiters: waiting }), Asked { answer, waiters })
}

#[async_trait]
impl ProcessAttach for Attach {
    async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, EngineError> {
        assert_eq!(process_id.as_str(), "a", "scripted");
        self.waiters.send(()).await.map_err(|_| EngineError::engine("the test has ended"))?;
        let mut answer = self.answer.clone();
        let answered = answer.wait_for(Option::is_some).await.map_err(|_| EngineError::engine("the test has ended"))?;
        answered.clone().expect("it was waited for")
    }
}

fn await_outcome(attach: Arc<Attach>, name: &str, listening: &Listening) -> ActorWait {
    await_by_message(attach, &process_id(name), listening.ear.clone(), Heard::Outcome)
}

async fn over(wait: &ActorWait) {
    while !wait.is_over() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_by_message_is_answered_once_with_what_the_attach_says() {
    for outcome in [Ok(ProcessAwaitOutput::success(json!(7))), Err(EngineError::engine("no such process"))] {
        let mut listening = Listening::start().await;
        let (attach, mut asked) = attach();
        let wait = await_outcome(attach, "a", &listening);
        asked.somebody_waits().await;
        assert!(!wait.is_over());
        asked.answer.send_replace(Some(outcome.clone()));
        let Repeated::Outcome(answered) = listening.repeated().await else { panic!("an outcome was expected") };
        assert_eq!(answered, outcome);
        over(&wait).await;
        asked.nobody_waits().await;
        listening.ear.get_cell().stop(None);
        assert!(listening.repeated.recv().await.is_none(), "answered once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_whose_attach_panics_is_answered_with_an_error() {
    let mut listening = Listening::start().await;
    let (attach, _asked) = attach();
    let _wait = await_outcome(attach, "not a", &listening);
    let answered = listening.repeated().await;
    assert!(matches!(answered, Repeated::Outcome(Err(EngineError::Engine { .. }))), "got {answered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_given_up_when_it_is_dropped_and_when_its_actor_dies() {
    let mut listening = Listening::start().await;
    let (attach, mut asked) = attach();
    let wait = await_outcome(attach, "a", &listening);
    asked.somebody_waits().await;
    drop(wait);
    asked.nobody_waits().await;
    asked.answer.send_replace(Some(Ok(ProcessAwaitOutput::success(json!(7)))));

    let (attach, mut asked) = self::attach();
    let wait = await_outcome(attach, "a", &listening);
    asked.somebody_waits().await;
    listening.kill().await;
    asked.nobody_waits().await;
    over(&wait).await;
    assert!(listening.repeated.recv().await.is_none(), "neither was answered");
}

/// The publisher and the subscriber hand the turn to each other from different threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_are_in_order_and_complete_across_threads() {
    let (_log, registry) = start(|_| {}).await;
    let ids: Vec<_> = (0..8).map(|number| process_id(&format!("p{number}"))).collect();
    let mut listening = Vec::new();
    for id in &ids {
        let one = Listening::start().await;
        one.send(Heard::Keep(one.subscribe(&registry, id)));
        listening.push(one);
    }
    let appends: Vec<_> = ids
        .iter()
        .map(|id| {
            let (registry, id) = (registry.clone(), id.clone());
            tokio::spawn(async move {
                registered(&registry, id.as_str()).await;
                append(&registry, &id, 1..=500).await;
            })
        })
        .collect();
    for append in appends {
        append.await.expect("no panic");
    }
    everything_is_told(&registry).await;
    registry.shut_down(Duration::from_secs(10)).await;
    for one in &mut listening {
        assert_eq!(sequences(&one.all_until_closed().await), (0..=500).collect::<Vec<u64>>());
    }
}

/// The actors go on when nobody holds the registry any more, and whoever is subscribed went deaf.
#[tokio::test(start_paused = true)]
async fn a_subscription_outlives_the_last_handle_of_its_registry() {
    let log = MemoryLog::new("store");
    let start = || ActorRegistry::start(Arc::new(log.clone()), RegistryOptions::default());
    let (registry, other) = (start().await.expect("it starts"), start().await.expect("it starts"));
    let id = process_id("a");
    other.register_process(registration(&id)).await.expect("a registration");
    let mut listening = Listening::start().await;
    let _subscription = listening.subscribe(&registry, &id);
    drop(registry);
    other.append_event(&id, note(1)).await.expect("an append");
    match listening.repeated().await {
        Repeated::News(Told::Committed { missed: None, events, .. }) => assert_eq!(events[0].sequence, Sequence(1)),
        repeated => panic!("expected the append, got {repeated:?}"),
    }
}

//! Races between the actors of a registry, each brought about on purpose: an actor that comes to rest while a command is
//! on its way to it, a call that comes back late, and a publisher that falls behind.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use awaiter::{AwaitError, ProcessAwaiter};
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{ProcessId, Sequence};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::{CommitListener, CommittedBatch, FaultPoint, ProcessRegistry, ProcessRegistryExt};
use registry_tests::FaultScript;
use registry_tests::example_process::{note, process_id, registration};
use sink::SinkItem;

/// The numbers of the notes, in log order; fails unless the log verifies.
async fn notes(registry: &ActorRegistry, id: &ProcessId) -> Vec<u64> {
    assert_eq!(registry.log().verify(id).await.expect("the check can be made").faults, [], "the log verifies");
    let page = registry.events_page(id, Sequence(0), 10_000).await.expect("the events can be read");
    page.events.iter().filter_map(|event| event.payload["number"].as_u64()).collect()
}

/// An actor that rests is refused every message, the log's answer too: what it submitted after that would be stored,
/// sent again, and, with its operations forgotten, stored twice.
#[tokio::test(start_paused = true)]
async fn a_command_that_arrives_while_its_actor_comes_to_rest_is_carried_out_once() {
    let log = MemoryLog::new("test store");
    let mut options = RegistryOptions::default();
    options.passivate_after = Duration::from_millis(1);
    options.sweep_interval = Duration::from_millis(10);
    let registry = ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts");
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    log.pause();
    let first = tokio::spawn({
        let (registry, id) = (registry.clone(), id.clone());
        async move { registry.append_event(&id, note(1)).await }
    });
    log.queued_at_least(1).await;
    // The sweep finds the actor idle; it will rest when the log has answered.
    tokio::time::sleep(Duration::from_millis(50)).await;
    log.resume();
    // The first poll puts the command behind the log's answer, in the mailbox of an actor that rests before it.
    let receipt = registry.append_event(&id, note(2)).await.expect("answered");
    assert_eq!(receipt.events[0].event().sequence, Sequence(2));
    first.await.expect("no panic").expect("answered");
    assert_eq!(notes(&registry, &id).await, [1, 2]);
}

/// A quarantine may be over while the actor that it put to rest still waits for the log.
#[tokio::test(start_paused = true)]
async fn an_actor_that_outlives_its_quarantine_does_not_take_its_successor_with_it() {
    let log = MemoryLog::new("test store");
    let faults = FaultScript::new();
    let mut options = RegistryOptions::default();
    options.faults = Arc::clone(&faults) as _;
    let quarantine = options.restart.quarantine;
    let failures_allowed = options.restart.failures_allowed;
    let registry = ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts");
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    let append = |number: u64| {
        let (registry, id) = (registry.clone(), id.clone());
        tokio::spawn(async move { registry.append_event(&id, note(number)).await })
    };
    faults.panic_at(FaultPoint::Decide, &id, failures_allowed);
    for _ in 0..failures_allowed {
        append(0).await.expect("no panic").expect_err("its decision panics");
    }
    log.pause();
    let first = append(1);
    log.queued_at_least(1).await;
    // One round with the panic that quarantines and with an append that stays at the log.
    faults.panic_at(FaultPoint::Decide, &id, 1);
    let (panicking, held) = (append(0), append(2));
    tokio::task::yield_now().await;
    log.resume();
    log.pause();
    log.queued_at_least(1).await;
    first.await.expect("no panic").expect("answered");
    tokio::time::sleep(quarantine + Duration::from_secs(1)).await;
    let half_open = append(3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!half_open.is_finished(), "it waits for the batch of its predecessor");
    log.resume();
    panicking.await.expect("no panic").expect_err("its decision panics");
    held.await.expect("no panic").expect("what was at the log is answered");
    half_open.await.expect("no panic").expect("the one more try succeeds");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(registry.process_actor(&id).is_some(), "the successor is still the actor of its process");
    assert_eq!(notes(&registry, &id).await, [1, 2, 3]);
}

/// A call comes back when its caller is polled, and that may be late: after incarnations that knew nothing of it, and
/// behind more events than an actor loads by itself.
#[tokio::test(start_paused = true)]
async fn a_call_that_comes_back_late_is_still_recognised() {
    for (others, rests) in [(0, true), (5_000, false), (5_000, true)] {
        let log = MemoryLog::new("test store");
        let faults = FaultScript::new();
        let mut options = RegistryOptions::default();
        options.faults = Arc::clone(&faults) as _;
        let registry = ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts");
        let id = process_id("a");
        registry.register_process(registration(&id)).await.expect("a fresh id registers");
        faults.panic_at(FaultPoint::AfterCommitBeforeReply, &id, 1);
        let mut late = Box::pin(registry.append_event(&id, note(1)));
        tokio::select! {
            biased;
            answered = &mut late => panic!("its actor has not run yet: {answered:?}"),
            () = std::future::ready(()) => {}
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(faults.left(), 0, "the actor died after the commit");
        registry.append_event(&id, note(2)).await.expect("another incarnation serves others");
        for hundred in 0..others / 100 {
            let events = (0..100).map(|number| note(1_000 + hundred * 100 + number)).collect();
            registry.append_events(&id, events).await.expect("and goes on");
        }
        if rests {
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert!(registry.process_actor(&id).is_none(), "it came to rest");
        }
        let receipt = late.await.expect("answered");
        assert_eq!(receipt.events[0].event().sequence, Sequence(1), "{others} {rests}");
        let stored = notes(&registry, &id).await;
        assert_eq!(stored.iter().filter(|number| **number == 1).count(), 1, "{others} {rests}");
    }
}

/// A listener that holds the publisher up until it is told to go on, and passes on whom it heard of.
struct SlowListener {
    go_on: Mutex<mpsc::Receiver<()>>,
    heard: tokio::sync::mpsc::UnboundedSender<ProcessId>,
}

impl CommitListener for SlowListener {
    fn committed(&self, batches: &[CommittedBatch]) {
        // Once the test has dropped its end there is nothing to wait for any more. The runtime is told of the wait: a task
        // that sits in the slot of a blocked worker is run by no other.
        tokio::task::block_in_place(|| {
            let _ = self.go_on.lock().unwrap_or_else(PoisonError::into_inner).recv();
        });
        for batch in batches {
            self.heard.send(batch.process_id.clone()).expect("the test listens to the end");
        }
    }

    fn pruned(&self, _: &[registry_actor::domain::Tombstone]) {}

    fn resync(&self) {}

    fn closed(&self) {}
}

/// More groups may be committed than wait for the publisher. The last one before a silence must be told too: no later
/// group shows that it is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_publisher_that_fell_behind_tells_of_the_last_commit_without_a_further_one() {
    let log = MemoryLog::new("test store");
    let registry =
        ActorRegistry::start(Arc::new(log.clone()), RegistryOptions::default()).await.expect("the registry starts");
    let (go_on, held_up) = mpsc::channel();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let slow: Arc<dyn CommitListener> = Arc::new(SlowListener { go_on: Mutex::new(held_up), heard });
    registry.change_source().expect("it tells of its commits").attach(&slow);
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    for number in 0..1_200 {
        registry.append_event(&id, note(number)).await.expect("appended");
    }
    let last = process_id("last");
    registry.register_process(registration(&last)).await.expect("a fresh id registers");
    drop(go_on);
    let hears_of_the_last = async { while hears.recv().await.expect("the listener lives") != last {} };
    tokio::time::timeout(Duration::from_secs(20), hears_of_the_last).await.expect("the last commit is told");
}

/// A host may give up waiting for a shutdown, but not leave it half done.
#[tokio::test(start_paused = true)]
async fn a_shutdown_whose_future_is_dropped_still_ends_and_tells_waiters() {
    let log = MemoryLog::new("test store");
    let registry =
        ActorRegistry::start(Arc::new(log.clone()), RegistryOptions::default()).await.expect("the registry starts");
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("a fresh id registers");
    let awaiter = ProcessAwaiter::attached(Arc::new(registry.clone()));
    let waiter = tokio::spawn({
        let id = id.clone();
        async move { awaiter.await_terminal(&id).await }
    });
    tokio::task::yield_now().await;
    let impatient = tokio::time::timeout(Duration::ZERO, registry.shut_down(Duration::from_secs(5))).await;
    assert!(impatient.is_err(), "it takes more than one poll");
    let ended = tokio::time::timeout(Duration::from_secs(20), waiter).await.expect("the waiter is told");
    ended.expect("no panic").expect_err("there is no outcome");
}

/// The writer answers its callers before it tells of their group. A registry that was shut down right after an answer ended
/// its source before that, and whoever observes never heard of the last commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tells_of_the_last_commits_before_the_end() {
    for round in 0..40 {
        let directory = tempfile::tempdir().expect("a directory");
        let log = SqliteLog::open(directory.path().join("store.db"), SqliteOptions::default()).expect("a store");
        let registry = ActorRegistry::start(Arc::new(log), RegistryOptions::default()).await.expect("it starts");
        let (near, mut far) = sink::channel(100);
        near.attach(&registry.change_source().expect("it tells of its commits"));
        let ids = ["a", "b", "c", "d"].map(process_id);
        for id in &ids {
            registry.register_process(registration(id)).await.expect("a registration");
        }
        let appends = ids.map(|id| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.append_event(&id, note(1)).await.expect("an append") })
        });
        for append in appends {
            append.await.expect("no panic");
        }
        registry.shut_down(Duration::from_secs(10)).await;
        let mut told = 0;
        while let Some(item) = far.recv().await {
            assert!(matches!(item, SinkItem::Event(_)), "{item:?}");
            told += 1;
        }
        assert_eq!(told, 4, "round {round}");
    }
}

/// Each waiter reads once more when its source ends, and the log closed beneath these reads: most waiters of a registry that
/// was shut down got an error of the store.
#[tokio::test(flavor = "multi_thread")]
async fn every_waiter_of_a_registry_that_is_shut_down_is_told_so() {
    let log = Arc::new(MemoryLog::new("store"));
    let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("it starts");
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("a registration");
    let source = registry.change_source().expect("it tells of its commits");
    let waiting: Vec<_> = (0..2_000)
        .map(|_| {
            let (awaiter, id) = (ProcessAwaiter::attached(Arc::new(registry.clone())), id.clone());
            tokio::spawn(async move { awaiter.await_terminal(&id).await })
        })
        .collect();
    while source.parked_waits() < waiting.len() {
        tokio::task::yield_now().await;
    }
    registry.shut_down(Duration::from_secs(10)).await;
    for waiting in waiting {
        let expected = Err(AwaitError::SourceClosed { process_id: id.clone() });
        assert_eq!(waiting.await.expect("no panic"), expected);
    }
}

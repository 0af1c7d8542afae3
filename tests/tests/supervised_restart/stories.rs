//! Actors that panic, are killed or lose their supervisor: every caller is answered once, nothing is applied twice, and
//! waiters hear of what was committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use awaiter::{AwaitError, ProcessAwaiter};
use registry_actor::actor::{ActorRegistry, RegistryOptions, RestartPolicy};
use registry_actor::domain::{
    Command, ProcessAwaitOutput, ProcessId, ProjectionWatermark, PruneFilter, Receipt, Refusal, Sequence,
    WriteAuthority,
};
use registry_actor::log::{AppendFault, MemoryLog};
use registry_actor::port::{
    EngineError, FaultPoint, ProcessAttach, ProcessLog, ProcessRegistry, ProcessRegistryExt, RegistryError,
};
use registry_tests::direct_registry::DirectRegistry;
use registry_tests::example_process::{note, opaque_owner, process_id, registration};
use registry_tests::{FaultScript, ManualClock, WatchedLog};
use serde_json::json;
use tokio::task::JoinHandle;

/// A registry over a log in memory, with scripted faults and a clock that stands still.
struct Fixture {
    log: MemoryLog,
    faults: Arc<FaultScript>,
    clock: Arc<ManualClock>,
    registry: ActorRegistry,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adjust: impl FnOnce(&mut RegistryOptions)) -> Self {
        let log = MemoryLog::new("test store");
        let faults = FaultScript::new();
        let clock = Arc::new(ManualClock::default());
        let registry = start(&log, &faults, &clock, adjust).await;
        Self { log, faults, clock, registry }
    }

    async fn registered(&self, name: &str) -> ProcessId {
        let id = process_id(name);
        self.registry.register_process(registration(&id)).await.expect("a fresh id registers");
        id
    }

    fn spawn_append(&self, id: &ProcessId, number: u64) -> JoinHandle<Result<Receipt, RegistryError>> {
        let (registry, id) = (self.registry.clone(), id.clone());
        tokio::spawn(async move { registry.append_event(&id, note(number)).await })
    }

    /// The numbers of the notes, in log order; fails unless the log is dense and verifies.
    async fn notes(&self, id: &ProcessId) -> Vec<u64> {
        notes(&self.log, id).await
    }
}

async fn start(
    log: &MemoryLog,
    faults: &Arc<FaultScript>,
    clock: &Arc<ManualClock>,
    adjust: impl FnOnce(&mut RegistryOptions),
) -> ActorRegistry {
    let mut options = RegistryOptions::default();
    options.faults = Arc::clone(faults) as _;
    options.clock = Arc::clone(clock) as _;
    adjust(&mut options);
    ActorRegistry::start(Arc::new(log.clone()), options).await.expect("the registry starts")
}

async fn notes(log: &MemoryLog, id: &ProcessId) -> Vec<u64> {
    let verification = log.verify(id).await.expect("the check can be made");
    assert_eq!(verification.faults, [], "the log verifies");
    let registry = ActorRegistry::start(Arc::new(log.clone()), RegistryOptions::default()).await.expect("starts");
    let (mut numbers, mut after) = (Vec::new(), Sequence(0));
    loop {
        let page = registry.events_page(id, after, 10_000).await.expect("the events can be read");
        for event in &page.events {
            assert_eq!(event.sequence, after.next(), "the log is dense");
            after = event.sequence;
            numbers.extend(event.payload["number"].as_u64());
        }
        if !page.has_more {
            return numbers;
        }
    }
}

/// Begins a wait for the outcome, and returns when the waiter has subscribed and read once.
async fn await_terminal(
    registry: &ActorRegistry,
    id: &ProcessId,
) -> JoinHandle<Result<ProcessAwaitOutput, AwaitError>> {
    let awaiter = ProcessAwaiter::attached(Arc::new(registry.clone()));
    let id = id.clone();
    let waiting = tokio::spawn(async move { awaiter.await_terminal(&id).await });
    tokio::task::yield_now().await;
    waiting
}

/// Time is paused: a wait that never ends is found out at once.
async fn bounded<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(3_600), call).await.expect("it ends")
}

fn inserted_sequence(receipt: &Receipt) -> u64 {
    assert_eq!(receipt.events.len(), 1, "{receipt:?}");
    assert!(receipt.events[0].is_inserted(), "{receipt:?}");
    receipt.events[0].event().sequence.0
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_any_point_after_the_decision_answers_each_caller_once_and_applies_nothing_twice() {
    for point in [FaultPoint::AfterSubmit, FaultPoint::AfterCommitBeforeReply] {
        let fixture = Fixture::new().await;
        let id = fixture.registered("a").await;
        fixture.faults.panic_at(point, &id, 1);
        let receipt = fixture.registry.append_event(&id, note(1)).await.expect("the next incarnation answers");
        assert_eq!(inserted_sequence(&receipt), 1, "{point:?}");
        assert_eq!(fixture.faults.left(), 0, "the fault happened");
        let receipt = fixture.registry.append_event(&id, note(2)).await.expect("the process goes on");
        assert_eq!(inserted_sequence(&receipt), 2, "{point:?}");
        assert_eq!(fixture.notes(&id).await, [1, 2], "{point:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_load_is_followed_by_another_load() {
    let fixture = Fixture::new().await;
    let id = process_id("a");
    fixture.faults.panic_at(FaultPoint::Load, &id, 3);
    fixture.registry.register_process(registration(&id)).await.expect("the fourth load succeeds");
    assert_eq!(fixture.faults.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_decision_is_one_refused_command_and_is_never_decided_again() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.faults.panic_at(FaultPoint::Decide, &id, 1);
    let refused = fixture.registry.append_event(&id, note(1)).await;
    assert!(
        matches!(refused, Err(RegistryError::Refused(Refusal::DecisionPanicked { .. }))),
        "the caller is told, got {refused:?}"
    );
    fixture.registry.append_event(&id, note(2)).await.expect("the same actor goes on");
    assert_eq!(fixture.notes(&id).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn callers_queued_at_a_killed_actor_are_all_answered_by_its_successor() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.log.pause();
    let first = fixture.spawn_append(&id, 1);
    fixture.log.queued_at_least(1).await;
    let queued: Vec<_> = (2..=20).map(|number| fixture.spawn_append(&id, number)).collect();
    tokio::task::yield_now().await;
    fixture.registry.process_actor(&id).expect("it is live").kill();
    fixture.log.resume();
    let mut sequences = vec![inserted_sequence(&first.await.expect("no panic").expect("answered"))];
    for append in queued {
        sequences.push(inserted_sequence(&append.await.expect("no panic").expect("answered")));
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=20).collect::<Vec<u64>>(), "each caller has an event of its own");
    let mut stored = fixture.notes(&id).await;
    stored.sort_unstable();
    assert_eq!(stored, (1..=20).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_dead_incarnation_is_settled_before_its_successor_loads() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.log.pause();
    let append = fixture.spawn_append(&id, 1);
    fixture.log.queued_at_least(1).await;
    let reads_before = fixture.log.reads();
    fixture.registry.process_actor(&id).expect("it is live").kill();
    // Long enough for every restart delay; the batch is still at the log.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.log.reads(), reads_before, "nobody loads while the batch of the dead one is out");
    fixture.log.resume();
    assert_eq!(inserted_sequence(&append.await.expect("no panic").expect("answered")), 1);
    assert_eq!(fixture.notes(&id).await, [1], "stored once, although its call was sent twice");
}

#[tokio::test(start_paused = true)]
async fn an_append_of_unknown_outcome_is_found_or_carried_out_but_never_both() {
    for fault in [AppendFault::UnknownStored, AppendFault::UnknownNotStored] {
        let fixture = Fixture::new().await;
        let id = fixture.registered("a").await;
        let description = format!("{fault:?}");
        fixture.log.fail_append(1, fault);
        let receipt = fixture.registry.append_event(&id, note(1)).await.expect("the log settles it");
        assert_eq!(inserted_sequence(&receipt), 1, "{description}");
        assert_eq!(fixture.notes(&id).await, [1], "{description}");
    }
}

/// What it would have changed is no part of what the next command is decided on.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_leaves_the_process_as_it_was() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.log.fail_append(1, AppendFault::NotAccepted);
    let refused = fixture.registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await;
    assert!(matches!(refused, Err(RegistryError::NotStored { .. })), "got {refused:?}");
    let output = ProcessAwaitOutput::success(json!(2));
    let record = fixture.registry.complete_process(&id, output.clone()).await.expect("it has not ended");
    assert_eq!(record.status.await_output(), Some(&output));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_finds_its_own_lease() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.faults.panic_at(FaultPoint::AfterCommitBeforeReply, &id, 1);
    let outcome = fixture.registry.claim_process_lease(&id, opaque_owner("o"), 1_000).await.expect("answered");
    let lease = outcome.acquired().expect("its own lease, not Busy");
    assert_eq!(lease.fencing_token.0, 1, "claimed once");
}

#[tokio::test(start_paused = true)]
async fn the_sixth_failure_in_a_minute_quarantines_that_process_only() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let other = fixture.registered("b").await;
    fixture.registry.process_actor(&id).expect("it is live").kill();
    fixture.faults.panic_at(FaultPoint::Load, &id, 5);
    let refused = fixture.registry.append_event(&id, note(1)).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable { .. })), "got {refused:?}");
    let listed = fixture.registry.quarantined().await;
    assert_eq!(listed.iter().map(|listed| listed.process_id.as_str()).collect::<Vec<_>>(), ["a"]);
    fixture.registry.append_event(&other, note(1)).await.expect("the others go on");
    assert!(fixture.registry.get_process(&id).await.expect("reads go on").is_some());
    tokio::time::sleep(Duration::from_secs(61)).await;
    fixture.registry.append_event(&id, note(2)).await.expect("it lifts itself after the cool-down");
    assert_eq!(fixture.registry.quarantined().await, []);
    assert_eq!(fixture.notes(&id).await, [2], "what was refused as unavailable did not happen");
}

/// Also where the sweep, which takes it off the list, comes much later.
#[tokio::test(start_paused = true)]
async fn a_quarantine_that_is_over_refuses_nobody() {
    let fixture = Fixture::with(|options| options.sweep_interval = Duration::from_secs(3_600)).await;
    let id = fixture.registered("a").await;
    fixture.registry.process_actor(&id).expect("it is live").kill();
    fixture.faults.panic_at(FaultPoint::Load, &id, 5);
    let refused = fixture.registry.append_event(&id, note(1)).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable { .. })), "got {refused:?}");
    tokio::time::sleep(Duration::from_secs(61)).await;
    fixture.registry.append_event(&id, note(2)).await.expect("this command is the one try");
    assert_eq!(fixture.notes(&id).await, [2]);
}

/// It has a batch at the log, and commands behind it.
#[tokio::test(start_paused = true)]
async fn an_incarnation_that_outlasts_its_quarantine_does_not_write_beside_its_successor() {
    let (memory, faults) = (MemoryLog::new("test store"), FaultScript::new());
    let log = Arc::new(WatchedLog::new(Arc::new(memory.clone())));
    let mut options = RegistryOptions::default();
    options.faults = Arc::clone(&faults) as _;
    let registry = ActorRegistry::start(Arc::clone(&log) as _, options).await.expect("the registry starts");
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("registered");
    let append = |number: u64, events: usize| {
        let (registry, id) = (registry.clone(), id.clone());
        tokio::spawn(async move { registry.append_events(&id, vec![note(number); events]).await.map(drop) })
    };
    memory.pause();
    let mut stored = vec![append(1, 1)];
    memory.queued_at_least(1).await;
    faults.panic_at(FaultPoint::Decide, &id, 6);
    let refused: Vec<_> = (2..=7).map(|number| append(number, 1)).collect();
    // The last of these does not fit into the round that the others make.
    stored.extend([append(8, 1), append(9, 1_020)]);
    tokio::task::yield_now().await;
    memory.resume();
    memory.pause();
    memory.queued_at_least(1).await;
    assert_eq!(registry.quarantined().await.len(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    stored.push(append(10, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    memory.resume();
    memory.pause();
    // Whoever writes now is held back, so that two who do are seen to.
    tokio::time::sleep(Duration::from_secs(1)).await;
    memory.resume();
    for call in stored {
        call.await.expect("no panic").expect("stored");
    }
    for call in refused {
        call.await.expect("no panic").expect_err("its decision panicked");
    }
    assert_eq!(notes(&memory, &id).await.len(), 1_023, "each of them once");
    let seen = log.seen();
    assert_eq!((seen.overlaps, seen.conflicts), (vec![], vec![]), "two incarnations wrote");
}

#[tokio::test(start_paused = true)]
async fn six_panicking_decisions_in_a_minute_quarantine_the_process() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.faults.panic_at(FaultPoint::Decide, &id, 6);
    for number in 0..6 {
        let refused = fixture.registry.append_event(&id, note(number)).await;
        assert!(matches!(refused, Err(RegistryError::Refused(_))), "got {refused:?}");
    }
    // The shard hears of the panics by messages of its own; listing goes through the same mailbox, behind them.
    assert_eq!(fixture.registry.quarantined().await.len(), 1);
    let refused = fixture.registry.append_event(&id, note(7)).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable { .. })), "got {refused:?}");
}

/// Ten failed loads within two seconds are far more than quarantine a process whose own fault they are.
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_for_a_while_quarantines_nobody() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.registry.process_actor(&id).expect("it is live").kill();
    fixture.log.fail_reads(10);
    let receipt = fixture.registry.append_event(&id, note(1)).await.expect("the store can be read again");
    assert_eq!(inserted_sequence(&receipt), 1);
    assert_eq!(fixture.registry.quarantined().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_round_of_many_large_appends_is_cut_to_what_the_log_takes_at_once() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    fixture.log.pause();
    let append = |events: u64| {
        let (registry, id) = (fixture.registry.clone(), id.clone());
        tokio::spawn(async move { registry.append_events(&id, (0..events).map(note).collect()).await })
    };
    let first = append(1);
    fixture.log.queued_at_least(1).await;
    let large: Vec<_> = (0..6).map(|_| append(400)).collect();
    tokio::task::yield_now().await;
    let appends_before = fixture.log.appends();
    fixture.log.resume();
    first.await.expect("no panic").expect("stored");
    for append in large {
        assert_eq!(append.await.expect("no panic").expect("stored").events.len(), 400);
    }
    assert_eq!(fixture.log.appends() - appends_before, 1 + 3, "2,400 events went in rounds of two commands");
    assert_eq!(fixture.notes(&id).await.len(), 2_401);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_dies_between_commit_and_reply_costs_no_waiter_its_outcome() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let waiting = await_terminal(&fixture.registry, &id).await;
    fixture.faults.panic_at(FaultPoint::AfterCommitBeforeReply, &id, 1);
    let output = ProcessAwaitOutput::success(json!(7));
    let record = fixture.registry.complete_process(&id, output.clone()).await.expect("answered");
    assert_eq!(record.status.await_output(), Some(&output));
    assert_eq!(waiting.await.expect("no panic"), Ok(output));
}

#[tokio::test(start_paused = true)]
async fn killed_shard_and_publisher_are_replaced_and_nothing_is_lost() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let awaiter = ProcessAwaiter::attached(Arc::new(fixture.registry.clone()));
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { awaiter.await_event(&id, "note", Sequence(1)).await }
    });
    fixture.log.pause();
    let append = fixture.spawn_append(&id, 1);
    fixture.log.queued_at_least(1).await;
    for supervisor in fixture.registry.supervisors_of(&id) {
        supervisor.kill();
    }
    tokio::task::yield_now().await;
    fixture.log.resume();
    assert_eq!(inserted_sequence(&append.await.expect("no panic").expect("answered")), 1);
    fixture.registry.append_event(&id, note(2)).await.expect("the new shard serves");
    let event = waiting.await.expect("no panic").expect("the new publisher tells");
    assert_eq!(event.payload, json!({ "number": 2 }));
    assert_eq!(fixture.notes(&id).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_process_comes_to_rest_and_wakes_with_its_state() {
    let fixture = Fixture::with(|options| {
        options.passivate_after = Duration::from_secs(60);
        options.sweep_interval = Duration::from_secs(10);
    })
    .await;
    let id = fixture.registered("a").await;
    fixture.registry.append_event(&id, note(1)).await.expect("appended");
    assert_eq!(fixture.registry.live_actors(), 1);
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(fixture.registry.live_actors(), 0, "at rest");
    let receipt = fixture.registry.append_event(&id, note(2)).await.expect("a command wakes it");
    assert_eq!(inserted_sequence(&receipt), 2);
    let conflict = fixture.registry.register_process(registration(&id)).await.expect("its registration is known");
    assert_eq!(conflict.id(), &id);
}

#[tokio::test(start_paused = true)]
async fn an_idle_waiter_reads_nothing_and_keeps_no_actor_alive() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let waiting = await_terminal(&fixture.registry, &id).await;
    let reads = fixture.log.reads();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(fixture.log.reads(), reads, "an hour of waiting costs no read");
    assert_eq!(fixture.registry.live_actors(), 0);
    fixture.registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("completed");
    assert_eq!(waiting.await.expect("no panic"), Ok(ProcessAwaitOutput::success(json!(1))));
}

/// Commands are refused for a while; whoever waits has no part in it.
#[tokio::test(start_paused = true)]
async fn a_waiter_outlives_the_quarantine_of_its_process() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let waiting = await_terminal(&fixture.registry, &id).await;
    fixture.registry.process_actor(&id).expect("it is live").kill();
    fixture.faults.panic_at(FaultPoint::Load, &id, 5);
    let refused = fixture.registry.append_event(&id, note(1)).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable { .. })), "got {refused:?}");
    assert!(!waiting.is_finished());
    let output = ProcessAwaitOutput::success(json!(7));
    let elsewhere = start(&fixture.log, &fixture.faults, &fixture.clock, |_| {}).await;
    elsewhere.complete_process(&id, output.clone()).await.expect("it is quarantined here only");
    assert_eq!(fixture.registry.quarantined().await.len(), 1);
    assert_eq!(bounded(waiting).await.expect("no panic"), Ok(output));
}

/// What was committed while there was no publisher, and cannot be read by the next, is told to nobody: everybody has to
/// read.
#[tokio::test(start_paused = true)]
async fn a_publisher_that_cannot_read_the_feed_has_every_waiter_read() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let waiting = await_terminal(&fixture.registry, &id).await;
    for supervisor in fixture.registry.supervisors_of(&id) {
        supervisor.kill();
    }
    // This thread waits, so that no actor runs before the commit is there and the feed is not.
    let output = ProcessAwaitOutput::success(json!(7));
    let direct = DirectRegistry::new(Arc::new(fixture.log.clone()), Arc::clone(&fixture.clock), 77);
    let completing = std::thread::spawn({
        let (id, output) = (id.clone(), output.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(direct.complete_process(&id, output)).expect("completed");
        }
    });
    completing.join().expect("no panic");
    fixture.log.fail_reads(1);
    assert_eq!(bounded(waiting).await.expect("no panic"), Ok(output));
}

/// An engine that hosts attach to: the registry itself.
#[tokio::test(start_paused = true)]
async fn the_registry_can_be_attached_to() {
    let fixture = Fixture::new().await;
    let (id, pruned) = (fixture.registered("a").await, fixture.registered("b").await);
    let attach: Arc<dyn ProcessAttach> = Arc::new(fixture.registry.clone());
    let attached = |id: &ProcessId| {
        let (attach, id) = (Arc::clone(&attach), id.clone());
        tokio::spawn(async move { attach.await_terminal(&id).await })
    };
    let output = ProcessAwaitOutput::success(json!(7));
    let waiting = attached(&id);
    tokio::task::yield_now().await;
    fixture.registry.complete_process(&id, output.clone()).await.expect("completed");
    assert_eq!(bounded(waiting).await.expect("no panic"), Ok(output.clone()));
    assert_eq!(bounded(attached(&id)).await.expect("no panic"), Ok(output.clone()), "and after the end");
    let unknown = RegistryError::from(Refusal::Unknown { process_id: process_id("c") });
    assert_eq!(bounded(attached(&process_id("c"))).await.expect("no panic"), Err(unknown.into()));

    fixture.registry.complete_process(&pruned, output).await.expect("completed");
    let everything = PruneFilter::ended_before(u64::MAX);
    fixture.registry.prune_terminal_processes(everything, ProjectionWatermark::NoProjector).await.expect("a prune");
    let gone = bounded(attached(&pruned)).await.expect("no panic");
    assert!(matches!(gone, Err(EngineError::NoLongerRetained { .. })), "got {gone:?}");

    let id = fixture.registered("d").await;
    let waiting = attached(&id);
    tokio::task::yield_now().await;
    fixture.registry.shut_down(Duration::from_secs(10)).await;
    assert_eq!(bounded(waiting).await.expect("no panic"), Err(RegistryError::Closed.into()));
}

#[tokio::test(start_paused = true)]
async fn a_full_registry_answers_busy_and_takes_commands_again_when_callers_are_answered() {
    let fixture = Fixture::with(|options| options.commands_under_way = 2).await;
    let id = fixture.registered("a").await;
    fixture.log.pause();
    let under_way = [fixture.spawn_append(&id, 1), fixture.spawn_append(&id, 2)];
    fixture.log.queued_at_least(1).await;
    assert_eq!(fixture.registry.append_event(&id, note(3)).await, Err(RegistryError::Busy { limit: 2 }));
    fixture.log.resume();
    for append in under_way {
        append.await.expect("no panic").expect("answered");
    }
    fixture.registry.append_event(&id, note(4)).await.expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_answers_what_is_under_way_and_refuses_what_comes_later() {
    let fixture = Fixture::new().await;
    let id = fixture.registered("a").await;
    let awaiter = ProcessAwaiter::attached(Arc::new(fixture.registry.clone()));
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { awaiter.await_terminal(&id).await }
    });
    fixture.log.pause();
    let append = fixture.spawn_append(&id, 1);
    fixture.log.queued_at_least(1).await;
    let registry = fixture.registry.clone();
    let shutdown = tokio::spawn(async move { registry.shut_down(Duration::from_secs(30)).await });
    tokio::task::yield_now().await;
    assert_eq!(fixture.registry.append_event(&id, note(2)).await, Err(RegistryError::Closed));
    fixture.log.resume();
    append.await.expect("no panic").expect("what was under way is stored and answered");
    assert_eq!(shutdown.await.expect("no panic").shards_killed, 0);
    let ended = waiting.await.expect("no panic").expect_err("nobody will complete it any more");
    assert!(ended.to_string().contains("shut down") || ended.to_string().contains("closed"), "{ended}");
    let reopened = fixture.log.reopen();
    assert_eq!(notes(&reopened, &id).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn two_registries_over_one_log_reload_and_decide_again() {
    let fixture = Fixture::new().await;
    let second = start(&fixture.log, &fixture.faults, &fixture.clock, |_| {}).await;
    let id = fixture.registered("a").await;
    let mut appends = Vec::new();
    for number in 1..=100 {
        for registry in [fixture.registry.clone(), second.clone()] {
            let id = id.clone();
            appends.push(tokio::spawn(async move { registry.append_event(&id, note(number)).await }));
        }
    }
    let mut sequences = Vec::new();
    for append in appends {
        sequences.push(inserted_sequence(&append.await.expect("no panic").expect("answered")));
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=200).collect::<Vec<u64>>());
    assert_eq!(fixture.notes(&id).await.len(), 200);

    // What one of them decided binds the other.
    let holder = fixture.registry.claim_process_lease(&id, opaque_owner("first"), 60_000).await.expect("claimed");
    let lease = holder.acquired().expect("free");
    let busy = second.claim_process_lease(&id, opaque_owner("second"), 60_000).await.expect("answered");
    assert!(busy.acquired().is_none(), "the lease of the first binds the second");
    second.append_event(&id, note(0)).await.expect("appended");
    let fenced = fixture.registry.append_events_fenced(&id, vec![note(0)], lease.fence()).await;
    assert_eq!(inserted_sequence(&fenced.expect("the holder writes")), 202);
    fixture.registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect_err("leased");
    let command = Command::Complete {
        output: ProcessAwaitOutput::success(json!(1)),
        authority: WriteAuthority::Holder(lease.fence()),
        lease: registry_actor::domain::LeaseRelease::Release,
    };
    second.execute(&id, command).await.expect("the fence counts, not the handle");
    let late = fixture.registry.complete_process(&id, ProcessAwaitOutput::success(json!(2))).await;
    assert!(
        matches!(late, Err(RegistryError::Refused(Refusal::AlreadyTerminal { .. }))),
        "the first registry sees the outcome of the second, got {late:?}"
    );
}

/// A commit of another registry ticks the waiters of this one: the publisher hears of the log, not of its own actors.
#[tokio::test(start_paused = true)]
async fn a_waiter_hears_of_an_outcome_that_another_registry_wrote() {
    let fixture = Fixture::new().await;
    let second = start(&fixture.log, &fixture.faults, &fixture.clock, |_| {}).await;
    let id = fixture.registered("a").await;
    let waiting = await_terminal(&second, &id).await;
    fixture.registry.complete_process(&id, ProcessAwaitOutput::success(json!(3))).await.expect("completed");
    assert_eq!(waiting.await.expect("no panic"), Ok(ProcessAwaitOutput::success(json!(3))));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_appends_does_not_cost_a_run_its_lease() {
    let log = MemoryLog::with_limits("s", registry_actor::log::QueueLimits { plain: 2, urgent: 2 });
    let registry = start(&log, &FaultScript::new(), &Arc::new(ManualClock::default()), |_| {}).await;
    let ids: Vec<ProcessId> = (0..5).map(|number| process_id(&format!("p{number}"))).collect();
    for id in &ids {
        registry.register_process(registration(id)).await.expect("registered");
    }
    let lease = registry
        .claim_process_lease(&ids[4], opaque_owner("o"), 60_000)
        .await
        .expect("answered")
        .acquired()
        .expect("free");
    log.pause();
    let spawn = |id: &ProcessId| {
        let (registry, id) = (registry.clone(), id.clone());
        tokio::spawn(async move { registry.append_event(&id, note(1)).await })
    };
    let flood: Vec<_> = ids[..2].iter().map(spawn).collect();
    log.queued_at_least(2).await;
    let refused = spawn(&ids[2]).await.expect("no panic");
    assert_eq!(refused, Err(RegistryError::Busy { limit: 2 }), "the plain lane is full");
    let renewal = tokio::spawn({
        let registry = registry.clone();
        async move { registry.renew_process_lease(lease, 60_000).await }
    });
    log.queued_at_least(3).await;
    log.resume();
    renewal.await.expect("no panic").expect("the renewal had a lane of its own");
    for append in flood {
        append.await.expect("no panic").expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_at_random_moments_lose_no_caller_and_apply_nothing_twice() {
    let fixture = Fixture::with(|options| {
        options.restart = RestartPolicy {
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(2),
            failures_allowed: 100_000,
            ..RestartPolicy::default()
        };
    })
    .await;
    let id = fixture.registered("a").await;
    let answered = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8_u64)
        .map(|caller| {
            let (registry, id) = (fixture.registry.clone(), id.clone());
            let (answered, enough) = (Arc::clone(&answered), Arc::clone(&enough));
            tokio::spawn(async move {
                let mut sequences = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    let number = caller * 1_000_000 + sequences.len() as u64;
                    let receipt = registry.append_event(&id, note(number)).await.expect("answered");
                    sequences.push(inserted_sequence(&receipt));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                sequences
            })
        })
        .collect();
    // A kill is followed by the next one only when somebody was answered in between: an actor that is killed before it
    // can ever load makes its callers give up, which is right, and another test's claim.
    let (mut kills, mut answered_at_kill) = (0, 0);
    while kills < 200 && callers.iter().all(|caller| !caller.is_finished()) {
        let answered = answered.load(Ordering::Relaxed);
        if answered > answered_at_kill + kills % 7
            && let Some(actor) = fixture.registry.process_actor(&id)
        {
            actor.kill();
            kills += 1;
            answered_at_kill = answered;
        }
        tokio::task::yield_now().await;
    }
    enough.store(true, Ordering::Relaxed);
    let mut sequences = Vec::new();
    for caller in callers {
        sequences.extend(caller.await.expect("no panic"));
    }
    sequences.sort_unstable();
    let total = sequences.len() as u64;
    assert_eq!(sequences, (1..=total).collect::<Vec<u64>>(), "after {kills} kills each caller has events of its own");
    let mut stored = fixture.notes(&id).await;
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len() as u64, total, "nothing was applied twice");
    assert_eq!(kills, 200);
}

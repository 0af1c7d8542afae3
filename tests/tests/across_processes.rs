//! Commands across processes where something is in their way: damage, live actors, a projector that stands still, a store that
//! fails. Each test tells a fault that a night would have been spent on.

use std::sync::Arc;
use std::time::Duration;

use awaiter::{AwaitError, ProcessAwaiter};
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    ChangeCursor, Command, ProcessAwaitOutput, ProcessEventAppendRequest, ProcessInput, ProcessPruneReport,
    ProcessRegistration, ProcessSignal, ProjectionWatermark, PruneFilter, RecoveryDisposition, Refusal,
    RegistryCommand, RegistryReceipt, Sequence, SessionScope,
};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions, WriterPoint};
use registry_actor::port::{
    AcrossError, FaultPoint, LogError, ProcessLog, ProcessRegistry as _, ProcessRegistryExt as _, RegistryError,
};
use registry_tests::direct_registry::DirectRegistry;
use registry_tests::log_author::{
    Author, across, alarm, complete, grant, keyed_output, output, process_id, prune, register, replay_key,
    submit_later, waking_registration,
};
use registry_tests::log_backend::{LogBackend as _, SqliteBackend, raw_connection};
use registry_tests::log_conformance::bounded;
use registry_tests::{FaultScript, ManualClock, WatchedLog};
use serde_json::json;

async fn pruned(log: &dyn ProcessLog, command: RegistryCommand) -> ProcessPruneReport {
    match across(log, command).await.expect("a prune") {
        RegistryReceipt::Pruned(report) => report,
        other => panic!("expected a report, got {other:?}"),
    }
}

/// The writer read the same page for ever: deletions of sessions move nothing that followers hear of, and the walk over what was
/// stored without an answer went on only where they did.
#[tokio::test]
async fn a_store_that_fails_after_many_session_deletions_opens_again() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        Author::registered(&*log, "p").await;
        // More than one page of the walk.
        for number in 0..1_100 {
            let session = format!("s{number}");
            across(&*log, grant(&session, "p")).await.expect("a grant");
            across(&*log, RegistryCommand::DeleteSession { session_id: session }).await.expect("a deletion");
        }
        backend.gate.fail_next(WriterPoint::AfterCommit);
        let mut other = Author::new("other");
        let lost = other.write(&*log, register("other")).await;
        assert!(lost.is_err(), "{lost:?}");
        loop {
            if Author::new("third").write(&*log, register("third")).await.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        log.close().await;
    })
    .await;
}

/// The oldest ended process is met first, and one that cannot be read made every prune fail from then on.
#[tokio::test]
async fn a_damaged_process_stays_and_keeps_nothing_else_from_being_pruned_or_deleted() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        let target = SessionScope::session("s");
        for id in ["a", "b"] {
            let mut author = Author::new(id);
            author.write(&*log, waking_registration(id, target.clone())).await.expect("a registration");
            author.write(&*log, complete()).await.expect("an outcome");
        }
        log.close().await;
        let connection = raw_connection(&backend.path());
        connection
            .execute("UPDATE processes SET checksum = zeroblob(32) WHERE process_id = 'a'", [])
            .expect("the damage");
        drop(connection);
        let log = backend.open();
        let deleted = across(&*log, RegistryCommand::DeleteSession { session_id: "s".to_owned() }).await;
        let RegistryReceipt::SessionDeleted(report) = deleted.expect("a deletion") else { panic!("another receipt") };
        assert_eq!(report.damaged_process_ids, [process_id("a")]);
        let report = pruned(&*log, prune()).await;
        assert_eq!((report.pruned_processes, report.kept_damaged, report.more), (1, 1, false));
        assert!(log.load(&process_id("b"), 0).await.expect("a read").is_none());
        log.close().await;
    })
    .await;
}

/// SQLite itself finds the page broken on which the oldest ended process stands. That was taken for a failure of the store: each
/// prune had it reopened, and removed nothing.
#[tokio::test]
async fn a_broken_page_of_one_process_keeps_no_other_from_being_pruned() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        for id in ["a", "b"] {
            let mut author = Author::new(id);
            let bulk = if id == "a" { "needle".repeat(10_000) } else { String::new() };
            let input = ProcessInput::external(json!({ "label": id, "bulk": bulk }));
            let registration = ProcessRegistration::new(process_id(id), input, RecoveryDisposition::ExternallyOwned);
            let register = Command::Register { registration: Box::new(registration) };
            author.write(&*log, register).await.expect("a registration");
            author.write(&*log, complete()).await.expect("an outcome");
        }
        log.close().await;
        drop(log);
        assert!(break_overflow_pages(&backend.path(), b"needle") > 0);
        let log = backend.open();
        let report = pruned(&*log, prune()).await;
        assert_eq!((report.pruned_processes, report.kept_damaged, report.more), (1, 1, false));
        assert!(log.load(&process_id("b"), 0).await.expect("a read").is_none());
        let faults = log.verify(&process_id("a")).await.expect("a check").faults;
        assert!(faults.iter().any(|fault| fault.what.contains("cannot be read")), "{faults:?}");
        // The store was not taken for failed.
        Author::registered(&*log, "c").await;
        log.close().await;
    })
    .await;
}

/// Has every overflow page of a closed store that holds nothing but this text point to a page that there cannot be; answers how many.
fn break_overflow_pages(store: &std::path::Path, text: &[u8]) -> usize {
    let mut bytes = std::fs::read(store).expect("the store");
    let page_size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let mut broken = 0;
    for page in bytes.chunks_mut(page_size) {
        let (next, content) = page.split_at_mut(4);
        if content.chunks(text.len()).take(10).all(|chunk| text.contains(&chunk[0]))
            && content.windows(text.len()).take(2 * text.len()).any(|window| window == text)
            && content.windows(text.len()).rev().skip(100).take(2 * text.len()).any(|window| window == text)
        {
            next.fill(0xff);
            broken += 1;
        }
    }
    std::fs::write(store, bytes).expect("written");
    broken
}

/// What a prune keeps is stepped over in stretches. It finds what stands behind the first of them, and what it does not mean is no
/// reason to end.
#[tokio::test]
async fn a_prune_finds_what_stands_behind_thousands_that_stay() {
    bounded(async {
        let directory = tempfile::tempdir().expect("a directory");
        let sqlite = SqliteLog::open(directory.path().join("store.db"), SqliteOptions::default()).expect("a store");
        for log in [Arc::new(MemoryLog::new("store")) as Arc<dyn ProcessLog>, Arc::new(sqlite)] {
            let mut answers = Vec::new();
            for number in 0..3_000 {
                let id = format!("p{number:04}");
                let is_meant = [0, 1_500, 2_998, 2_999].contains(&number);
                let first = if is_meant { waking_registration(&id, SessionScope::session("s")) } else { register(&id) };
                let batch = Author::new(&id).batch(&[first, complete()]);
                answers.push(submit_later(&*log, batch));
            }
            for answer in answers {
                answer.await.expect("an answer").expect("stored");
            }
            let of_the_tag = |limit| RegistryCommand::Prune {
                filter: PruneFilter { tags: ["one".to_owned()].into(), ..PruneFilter::ended_before(u64::MAX) },
                watermark: ProjectionWatermark::NoProjector,
                limit,
            };
            let report = pruned(&*log, of_the_tag(3)).await;
            assert_eq!((report.pruned_processes, report.more), (3, true));
            let report = pruned(&*log, of_the_tag(3)).await;
            assert_eq!((report.pruned_processes, report.more), (1, false));
            assert_eq!(pruned(&*log, of_the_tag(3)).await, ProcessPruneReport::default());
            let cursor = ChangeCursor::new("elsewhere".into(), 1, 1, [0; 8]);
            let of_a_stranger = RegistryCommand::Prune {
                filter: PruneFilter::ended_before(u64::MAX),
                watermark: ProjectionWatermark::UpTo(cursor),
                limit: 1,
            };
            assert!(matches!(across(&*log, of_a_stranger).await, Err(AcrossError::Refused(Refusal::Cursor(_)))));
            log.close().await;
        }
    })
    .await;
}

/// One prune was one transaction, however much it removed, and every append waited for it.
#[tokio::test]
async fn a_prune_that_has_removed_enough_events_leaves_the_rest_to_the_next() {
    let log = MemoryLog::new("store");
    for id in ["a", "b"] {
        let mut author = Author::registered(&log, id).await;
        for round in 0..20 {
            let events = (0..1_024).map(|_| ProcessEventAppendRequest::new("output", json!(round))).collect();
            let command = Command::Append { events, authority: registry_actor::domain::WriteAuthority::Unfenced };
            author.write(&log, command).await.expect("an append");
        }
        author.write(&log, complete()).await.expect("an outcome");
    }
    let first = pruned(&log, prune()).await;
    assert_eq!((first.pruned_processes, first.more), (1, true));
    let second = pruned(&log, prune()).await;
    assert_eq!((second.pruned_processes, second.more), (1, false));
}

/// The actor of a process that another writer had pruned failed when it asked the log, was started again with a delay, and came
/// nearer to quarantine each time.
#[tokio::test]
async fn an_actor_whose_process_is_pruned_lives_on() {
    let registry = ActorRegistry::start(Arc::new(MemoryLog::new("store")), RegistryOptions::default())
        .await
        .expect("the registry starts");
    let id = process_id("p");
    let registration = match register("p") {
        Command::Register { registration } => *registration,
        other => panic!("expected a registration, got {other:?}"),
    };
    registry.register_process(registration.clone()).await.expect("a registration");
    let keyed = ProcessEventAppendRequest::new("output", json!(1)).with_replay_key(replay_key("k"));
    registry.append_event(&id, keyed.clone()).await.expect("an append");
    registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("an outcome");
    let actor = registry.process_actor(&id).expect("a live actor").get_id();
    for life in 2..10 {
        let report = registry
            .prune_terminal_processes(PruneFilter::ended_before(u64::MAX), ProjectionWatermark::NoProjector)
            .await
            .expect("a prune");
        assert_eq!(report.pruned_processes, 1);
        let unknown = RegistryError::Refused(Refusal::Unknown { process_id: id.clone() });
        assert_eq!(registry.ack_wake(&id, Sequence(1)).await, Err(unknown.clone()));
        assert_eq!(registry.append_event(&id, keyed.clone()).await, Err(unknown));
        let record = registry.register_process(registration.clone()).await.expect("the next life");
        assert_eq!(record.generation, life);
        registry.append_event(&id, keyed.clone()).await.expect("an append");
        registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("an outcome");
    }
    assert_eq!(registry.process_actor(&id).map(|actor| actor.get_id()), Some(actor), "it is the same actor");
    registry.shut_down(Duration::from_secs(5)).await;
}

/// A call came back whose actor had died after the commit. Between the load of its life and the read of its events another writer
/// pruned that life and began the next: the call was answered with what stood at its sequences there, as if it had stored that.
#[tokio::test(start_paused = true)]
async fn a_call_that_comes_back_while_its_life_is_pruned_is_not_answered_from_the_next_life() {
    let store: Arc<dyn ProcessLog> = Arc::new(MemoryLog::new("store"));
    let watched = Arc::new(WatchedLog::new(Arc::clone(&store)));
    let faults = FaultScript::new();
    let mut options = RegistryOptions::default();
    options.faults = Arc::clone(&faults) as _;
    let registry = ActorRegistry::start(Arc::clone(&watched) as _, options).await.expect("the registry starts");
    let id = process_id("p");
    registry.execute(&id, register("p")).await.expect("a registration");
    registry.execute(&id, complete()).await.expect("an outcome");
    faults.panic_at(FaultPoint::AfterCommitBeforeReply, &id, 1);
    watched.hold_queries();
    let asked = watched.seen().queries;
    let late = tokio::spawn({
        let (registry, id) = (registry.clone(), id.clone());
        async move { registry.execute(&id, output(1)).await }
    });
    watched.asked_at_least(asked + 1).await;
    assert_eq!(faults.left(), 0, "the call is stored, and its actor has died");
    let other = DirectRegistry::new(Arc::clone(&store), Arc::new(ManualClock::default()), 99);
    assert_eq!(pruned(&*store, prune()).await.pruned_processes, 1);
    other.execute(&id, register("p")).await.expect("the next life");
    for number in 2..6 {
        other.execute(&id, output(number)).await.expect("an append");
    }
    watched.let_query(1_000);
    let answer = late.await.expect("nobody panics");
    assert!(matches!(answer, Err(RegistryError::OutcomeUnknown { .. })), "{answer:?}");
    registry.shut_down(Duration::from_secs(5)).await;
}

/// Whoever named a damaged event killed the actor with each try, and the sixth quarantined the process: its lease could not be
/// renewed because somebody else repeated an append.
#[tokio::test]
async fn a_command_that_names_a_damaged_event_is_told_so_and_holds_up_nobody() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        let mut author = Author::new("p");
        author.write(&*log, waking_registration("p", SessionScope::session("s"))).await.expect("a registration");
        author.write(&*log, keyed_output("key")).await.expect("an append");
        author.write(&*log, alarm(1)).await.expect("a wake");
        author.write(&*log, output(1)).await.expect("an append");
        log.close().await;
        let connection = raw_connection(&backend.path());
        connection.execute("UPDATE events SET at_ms = at_ms + 1 WHERE sequence IN (1, 2)", []).expect("the damage");
        drop(connection);
        let registry =
            ActorRegistry::start(backend.open(), RegistryOptions::default()).await.expect("the registry starts");
        let id = process_id("p");
        let damaged =
            |answer: Result<(), RegistryError>| matches!(answer, Err(RegistryError::Store(LogError::Damaged { .. })));
        for _ in 0..8 {
            assert!(damaged(registry.ack_wake(&id, Sequence(2)).await));
            let replayed = registry.execute(&id, keyed_output("key")).await.map(drop);
            assert!(damaged(replayed));
            registry.execute(&id, output(2)).await.expect("an append");
        }
        assert!(registry.quarantined().await.is_empty());
        registry.shut_down(Duration::from_secs(5)).await;
    })
    .await;
}

/// A waiter that slept through the end, the prune and the next registration waited for the next life.
#[tokio::test(start_paused = true)]
async fn a_waiter_is_not_carried_over_into_the_next_life() {
    let log: Arc<dyn ProcessLog> = Arc::new(MemoryLog::new("store"));
    let registry = Arc::new(DirectRegistry::new(log, Arc::new(ManualClock::default()), 1));
    let id = process_id("p");
    registry.execute(&id, register("p")).await.expect("a registration");
    let waiting = tokio::spawn({
        let (awaiter, id) = (ProcessAwaiter::polling(registry.clone()), id.clone());
        async move { awaiter.await_terminal(&id).await }
    });
    // It has read once, and sleeps.
    tokio::task::yield_now().await;
    registry.execute(&id, complete()).await.expect("an outcome");
    registry.execute_across(prune()).await.expect("a prune");
    registry.execute(&id, register("p")).await.expect("the next life");
    let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the wait ends");
    match ended.expect("the waiter ends") {
        Err(AwaitError::NoLongerRetained { tombstone }) => assert_eq!(tombstone.generation, 1),
        other => panic!("expected the end of the life that was awaited, got {other:?}"),
    }
}

/// A signal id that no key could hold made an append without a key, and each repetition another signal.
#[test]
fn every_signal_has_a_key_of_its_own() {
    let id = process_id(&"p".repeat(512));
    let signal = ProcessSignal::new("n".repeat(500)).expect("a name");
    let key = |signal_id: &str| signal.request(&id, signal_id, json!(null)).replay_key.expect("a key");
    let ids = ["1", "2", "a\nb", "a\tb", &"x".repeat(600), &"y".repeat(600)];
    let keys: std::collections::BTreeSet<_> = ids.iter().map(|signal_id| key(signal_id)).collect();
    assert_eq!(keys.len(), ids.len());
    assert_eq!(key("a\nb"), key("a\nb"));
}

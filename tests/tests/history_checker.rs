//! The history checker finds what is planted, and finds nothing where nothing is.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    Command, Fence, LeaseRelease, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest, ProcessId, ProcessLease,
    ProcessLeaseClaimOutcome, Receipt, ReceiptEvent, Refusal, ReplayKey, Sequence, WriteAuthority,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Answer, EventPage, ProcessChange, ProcessRegistry as _, ProcessRegistryExt, Query, RegistryError, Timestamp,
};
use registry_tests::example_process::{note, opaque_owner, process_id, registration};
use registry_tests::history_checker::{
    Answered, Asked, History, RecordedCall, Recorder, RecordingRegistry, Span, Violation, check,
};
use serde_json::json;

/// A history of a real registry: a registration, two notes, one of them under a key, a claim, and an outcome. Every test
/// spoils it in one place.
async fn sound() -> History {
    let log = Arc::new(MemoryLog::new("checked store"));
    let registry = Arc::new(ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry starts"));
    let recorder = Recorder::new();
    let recorded = RecordingRegistry::new(Arc::clone(&registry) as Arc<_>, Arc::clone(&recorder), 1);
    let id = id();
    recorded.register_process(registration(&id)).await.expect("registered");
    recorded.append_event(&id, keyed()).await.expect("stored");
    recorded.append_event(&id, note(2)).await.expect("stored");
    recorded.append_event(&id, keyed()).await.expect("found");
    recorded.events_page(&id, Sequence(0), 10).await.expect("readable");
    let lease = recorded.claim_process_lease(&id, opaque_owner("a"), 1_000).await.expect("free");
    recorded.complete_process_lease(&lease.acquired().expect("free")).await.expect("released");
    let lease = recorded.claim_process_lease(&id, opaque_owner("b"), 1_000).await.expect("free");
    let (fence, release) = (lease.acquired().expect("free").fence(), LeaseRelease::Release);
    recorded.complete_process_fenced(&id, outcome(), fence, release).await.expect("ended");
    recorded.get_process(&id).await.expect("readable");
    History::read(recorder.calls(), &*registry).await.expect("readable")
}

const REGISTERED: usize = 0;
const KEYED: usize = 1;
const NOTED: usize = 2;
const REPEATED: usize = 3;
const PAGE: usize = 4;
const CLAIMED: usize = 5;
const CLAIMED_AGAIN: usize = 7;
const COMPLETED: usize = 8;
const READ: usize = 9;

fn id() -> ProcessId {
    process_id("checked")
}

fn keyed() -> ProcessEventAppendRequest {
    note(1).with_replay_key(ReplayKey::new("once").expect("a key"))
}

fn outcome() -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!(1))
}

fn receipt(history: &mut History, call: usize) -> &mut Receipt {
    match &mut history.calls[call].answered {
        Some(Answered::Execute(Ok(receipt))) => receipt,
        other => panic!("call {call} was answered {other:?}"),
    }
}

fn lease(history: &mut History, call: usize) -> &mut ProcessLease {
    match &mut receipt(history, call).lease {
        Some(ProcessLeaseClaimOutcome::Acquired { lease, .. }) => lease,
        other => panic!("call {call} acquired {other:?}"),
    }
}

fn events(history: &mut History) -> &mut Vec<Arc<ProcessEvent>> {
    &mut history.lives.get_mut(&(id(), 1)).expect("its life").events
}

fn is_linearizable(history: &History) -> bool {
    let violations = check(history).err().unwrap_or_default();
    !violations.iter().any(|found| matches!(found, Violation::NotLinearizable { .. }))
}

fn is_found(history: &History, is_wanted: impl Fn(&Violation) -> bool) -> bool {
    check(history).err().unwrap_or_default().iter().any(is_wanted)
}

#[tokio::test]
async fn a_sound_history_is_found_sound() {
    assert_eq!(check(&sound().await), Ok(()));
}

#[tokio::test]
async fn a_call_whose_outcome_is_unknown_may_have_been_carried_out_or_not() {
    for call in [REGISTERED, KEYED, NOTED, COMPLETED] {
        let mut history = sound().await;
        history.calls[call].answered = None;
        history.calls[call].span.end = None;
        assert_eq!(check(&history), Ok(()), "call {call} was carried out");
    }
    let mut history = sound().await;
    let (command, start) = (Command::RequestCancel { reason: None }, 1_000);
    let span = Span { start, ..Span::default() };
    history.calls.push(RecordedCall { client: 2, span, asked: Asked::Execute(id(), command), answered: None });
    assert_eq!(check(&history), Ok(()), "the last one was not");
}

#[tokio::test]
async fn an_append_that_was_lost_is_found() {
    let mut history = sound().await;
    events(&mut history).remove(2);
    history.feed.retain(|change| !matches!(change, ProcessChange::Event(event) if event.sequence.0 == 2));
    assert!(!is_linearizable(&history));
}

#[tokio::test]
async fn an_append_that_is_stored_although_nothing_changed_is_found() {
    let mut history = sound().await;
    let reason = "the store refused it".to_owned();
    history.calls[NOTED].answered = Some(Answered::Execute(Err(RegistryError::NotStored { reason })));
    assert!(!is_linearizable(&history));
}

#[tokio::test]
async fn a_stale_read_is_found() {
    let mut history = sound().await;
    let Some(Answered::Query(Ok(Answer::Events(EventPage { events, .. })))) = &mut history.calls[PAGE].answered else {
        panic!("a page was asked for");
    };
    events.pop();
    assert!(!is_linearizable(&history), "a page without the last note");

    let mut history = sound().await;
    let registered = receipt(&mut history, REGISTERED).record.clone();
    history.calls[READ].answered = Some(Answered::Query(Ok(Answer::Process(registered))));
    assert!(!is_linearizable(&history), "a record from before the outcome");

    let mut history = sound().await;
    let unknown = RegistryError::Refused(Refusal::Unknown { process_id: id() });
    history.calls[PAGE].answered = Some(Answered::Query(Err(unknown)));
    assert!(!is_linearizable(&history), "a process that is not there any more");
}

/// Overlapping calls may be ordered either way, successive ones may not.
#[tokio::test]
async fn a_read_may_miss_what_is_under_way_and_nothing_else() {
    let mut history = sound().await;
    let Some(Answered::Query(Ok(Answer::Events(EventPage { events, .. })))) = &mut history.calls[PAGE].answered else {
        panic!("a page was asked for");
    };
    events.pop();
    let begins = history.calls[NOTED].span.start;
    history.calls[PAGE].span.start = begins;
    assert_eq!(check(&history), Ok(()), "it began before the note was answered");
}

#[tokio::test]
async fn two_receipts_of_one_key_that_differ_are_found() {
    let mut history = sound().await;
    let noted = receipt(&mut history, NOTED).events[0].event().clone();
    receipt(&mut history, REPEATED).events[0] = ReceiptEvent::Replayed(noted);
    assert!(!is_linearizable(&history), "the key was answered with another event");

    let mut history = sound().await;
    let again = receipt(&mut history, REPEATED).events[0].event().clone();
    receipt(&mut history, REPEATED).events[0] = ReceiptEvent::Inserted(again);
    assert!(!is_linearizable(&history), "the key was told to be stored twice");
}

#[tokio::test]
async fn two_terminals_are_found() {
    let mut history = sound().await;
    let mut second = ProcessEvent::clone(events(&mut history).last().expect("it has ended"));
    second.sequence = second.sequence.next();
    let second = Arc::new(second);
    events(&mut history).push(Arc::clone(&second));
    history.feed.push(ProcessChange::Event(second));
    assert!(is_found(&history, |found| matches!(found, Violation::TwoTerminals { .. })));
    assert!(!is_linearizable(&history), "nobody asked for it");
}

#[tokio::test]
async fn a_second_outcome_that_was_accepted_is_found() {
    let mut history = sound().await;
    let mut second = history.calls[COMPLETED].clone();
    let output = ProcessAwaitOutput::success(json!(2));
    let authority = WriteAuthority::Unfenced;
    second.asked = Asked::Execute(id(), Command::Complete { output, authority, lease: LeaseRelease::Keep });
    second.span = Span { start: 1_000, end: Some(1_001), ..Span::default() };
    if let Some(Answered::Execute(Ok(receipt))) = &mut second.answered {
        receipt.events.clear();
    }
    history.calls.push(second);
    assert!(!is_linearizable(&history));
}

#[tokio::test]
async fn a_fence_that_repeats_or_goes_back_is_found() {
    let mut history = sound().await;
    let fence = lease(&mut history, CLAIMED).fencing_token;
    lease(&mut history, CLAIMED_AGAIN).fencing_token = fence;
    assert!(is_found(&history, |found| matches!(found, Violation::Fence { .. })), "it repeats");
    assert!(!is_linearizable(&history));

    let mut history = sound().await;
    lease(&mut history, CLAIMED).fencing_token = Fence(9);
    assert!(is_found(&history, |found| matches!(found, Violation::Fence { .. })), "it goes back");
}

#[tokio::test]
async fn a_lease_that_was_taken_while_it_was_in_force_is_found() {
    let mut history = sound().await;
    // The release between the two claims never was, and the second claim says whom it displaced.
    history.calls.remove(CLAIMED + 1);
    let again = CLAIMED_AGAIN - 1;
    let held = lease(&mut history, CLAIMED).clone();
    let until_ms = held.expires_at_monotonic_ms;
    if let Some(ProcessLeaseClaimOutcome::Acquired { displaced, .. }) = &mut receipt(&mut history, again).lease {
        *displaced = Some(Box::new(held));
    }
    let at = |monotonic_ms| Timestamp { epoch_ms: 0, monotonic_ms };
    history.calls[again].span.to = at(until_ms);
    assert_eq!(check(&history), Ok(()), "it had expired by the end of the call");
    history.calls[again].span.to = at(until_ms - 1);
    assert!(!is_linearizable(&history));
}

#[tokio::test]
async fn a_write_under_a_fence_that_was_displaced_is_found() {
    let mut history = sound().await;
    let first = lease(&mut history, CLAIMED).fence();
    if let Asked::Execute(_, Command::Complete { authority, .. }) = &mut history.calls[COMPLETED].asked {
        *authority = WriteAuthority::Holder(first);
    }
    assert!(!is_linearizable(&history));
}

/// Nobody was told the token of a claim without an answer: a caller whose fence has its number may hold that of another
/// life.
#[tokio::test]
async fn a_fence_of_which_the_number_alone_fits_may_be_refused() {
    let log = Arc::new(MemoryLog::new("checked store"));
    let registry = Arc::new(ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry starts"));
    let recorder = Recorder::new();
    let recorded = RecordingRegistry::new(Arc::clone(&registry) as Arc<_>, Arc::clone(&recorder), 1);
    for name in ["checked", "other"] {
        recorded.register_process(registration(&process_id(name))).await.expect("registered");
    }
    let lease = recorded.claim_process_lease(&process_id("other"), opaque_owner("a"), 1_000).await.expect("free");
    let authority = WriteAuthority::Holder(lease.acquired().expect("free").fence());
    let claimed = recorder.calls().len();
    recorded.claim_process_lease(&id(), opaque_owner("b"), 1_000).await.expect("free");
    let command = Command::Append { events: vec![note(1)], authority };
    let refused = recorded.execute(&id(), command).await;
    assert!(matches!(refused, Err(RegistryError::Refused(Refusal::LeaseLost { .. }))), "{refused:?}");
    recorded.query(Query::Lease { process_id: id() }).await.expect("readable");
    let mut history = History::read(recorder.calls(), &*registry).await.expect("readable");
    assert_eq!(check(&history), Ok(()));
    history.calls[claimed].answered = None;
    history.calls[claimed].span.end = None;
    assert_eq!(check(&history), Ok(()), "nobody was told of the claim");
}

/// Whether the log has to be asked for a key is the registry's own affair.
#[tokio::test]
async fn a_key_that_was_not_looked_up_is_found() {
    let mut history = sound().await;
    let replay_key = ReplayKey::new("once").expect("a key");
    let refused = RegistryError::Refused(Refusal::ReplayUnresolved { replay_key });
    history.calls[REPEATED].answered = Some(Answered::Execute(Err(refused)));
    assert!(!is_linearizable(&history));
}

#[tokio::test]
async fn a_feed_that_leaves_out_repeats_or_turns_round_is_found() {
    type Spoil = fn(&mut Vec<ProcessChange>);
    let spoil: [(&str, Spoil); 4] = [
        ("an event is missing", |feed| drop(feed.remove(1))),
        ("the last event is missing", |feed| drop(feed.pop())),
        ("an event is told twice", |feed| feed.insert(2, feed[1].clone())),
        ("two events are out of order", |feed| feed.swap(1, 2)),
    ];
    for (what, spoil) in spoil {
        let mut history = sound().await;
        spoil(&mut history.feed);
        assert!(is_found(&history, |found| matches!(found, Violation::Feed { .. })), "{what}");
    }
}

/// Of two processes each is in order; the feed has them against the order of the calls.
#[tokio::test]
async fn a_feed_against_the_order_of_successive_calls_is_found() {
    let log = Arc::new(MemoryLog::new("checked store"));
    let registry = Arc::new(ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry starts"));
    let recorder = Recorder::new();
    let recorded = RecordingRegistry::new(Arc::clone(&registry) as Arc<_>, Arc::clone(&recorder), 1);
    for name in ["first", "second"] {
        recorded.register_process(registration(&process_id(name))).await.expect("registered");
    }
    let mut history = History::read(recorder.calls(), &*registry).await.expect("readable");
    assert_eq!(check(&history), Ok(()));
    history.feed.swap(0, 1);
    assert!(is_found(&history, |found| matches!(found, Violation::Feed { .. })));
}

#[tokio::test]
async fn a_call_that_was_given_up_is_recorded_without_an_answer() {
    let log = Arc::new(MemoryLog::new("checked store"));
    log.pause();
    let registry = ActorRegistry::start(Arc::clone(&log) as Arc<_>, RegistryOptions::default()).await.expect("started");
    let recorder = Recorder::new();
    let recorded = RecordingRegistry::new(Arc::new(registry.clone()), Arc::clone(&recorder), 1);
    let id = id();
    tokio::select! {
        biased;
        answer = recorded.register_process(registration(&id)) => panic!("commits are held back, got {answer:?}"),
        () = log.queued_at_least(1) => {}
    }
    log.resume();
    let history = History::read(recorder.calls(), &registry).await.expect("readable");
    assert_eq!(history.calls.iter().map(|call| call.answered.is_some()).collect::<Vec<_>>(), [false]);
    assert_eq!(history.lives.keys().cloned().collect::<Vec<_>>(), [(id, 1)], "and yet it was carried out");
    assert_eq!(check(&history), Ok(()));
    let nothing = History { lives: BTreeMap::new(), feed: Vec::new(), ..history };
    assert_eq!(check(&nothing), Ok(()), "and would not have had to be");
}

//! What every log must do: one test for each law of [`ProcessLog`]'s contract, and what follows from them.
//!
//! The tests are functions of a backend; [`log_conformance!`](crate::log_conformance!) makes them tests of one.

mod reads;

use std::sync::Arc;
use std::time::Duration;

use registry_actor::domain::{ReplayWindow, Sequence, SessionScope};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Answer, AppendError, CommittedGroup, Head, LogError, Position, ProcessBatch, ProcessLog, Query,
};

pub use self::reads::*;
use crate::log_author::{
    Author, across, alarm, cancel, claim, complete, keyed_output, output, process_id, prune, register, replay_key,
    submit, submit_later, waking_registration,
};
use crate::log_backend::{LogBackend, SHORT_QUEUES, UnknownOutcome};
use crate::log_reading::{
    Listener, all_events, assert_whole, collect, events_page, load, query, record, settled, whole_feed,
};

/// Declares the suite for a backend: `log_conformance!(memory, MemoryBackend::default());`.
#[macro_export]
macro_rules! log_conformance {
    ($name:ident, $backend:expr) => {
        $crate::log_conformance! { @tests $name, $backend,
            law_1_an_answered_batch_survives_the_session,
            law_2_a_refused_batch_leaves_nothing_and_costs_its_group_nothing,
            law_3_a_stale_head_conflicts,
            law_3_a_stale_lease_revision_conflicts,
            law_3_of_two_writers_with_one_head_exactly_one_wins,
            law_3_a_second_batch_in_one_group_sees_the_first,
            law_4_a_gap_is_refused,
            law_5_a_replay_key_is_stored_once,
            law_6_a_read_after_the_answer_sees_the_batch,
            law_7_a_reader_of_the_feed_misses_nothing,
            law_8_a_healthy_store_verifies,
            law_9_an_unknown_batch_that_was_stored_is_found_again,
            law_9_an_unknown_batch_that_was_not_stored_is_gone,
            law_10_an_urgent_batch_overtakes_and_is_admitted_to_a_full_queue,
            law_11_followers_hear_each_group_once_and_in_order,
            law_11_a_follower_hears_what_was_stored_without_an_answer,
            law_12_a_pruned_id_is_stored_anew_as_the_next_generation_only,
            law_13_wakes_are_stored_with_their_events_and_settled_by_their_acknowledgement,
            law_14_closing_answers_every_batch,
            a_batch_that_only_moves_the_lease_leaves_no_event,
            load_tells_the_operations_of_the_tail,
            the_feed_resumes_at_any_position,
            pages_are_bounded_and_say_whether_more_follows,
            the_first_event_of_a_type_is_found_beyond_a_cursor,
            the_first_event_of_a_rare_type_is_found_in_a_long_log,
            lists_show_what_the_filter_names_in_order,
            reads_of_unknown_processes_say_so,
            a_payload_that_could_not_be_read_back_is_refused,
            an_event_reads_back_exactly,
        }
    };
    (@tests $name:ident, $backend:expr, $($test:ident,)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    let mut backend = $backend;
                    $crate::log_conformance::bounded($crate::log_conformance::$test(&mut backend)).await;
                }
            )*
        }
    };
}

/// A test that does not end is a failed one. The bound is a safety net, no test's measure; it is kept by a thread of its
/// own, because a lock that is never given back stops the runtime's clock too.
pub async fn bounded(test: impl Future<Output = ()>) {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(120)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} did not end");
            std::process::abort();
        }
    });
    test.await;
    drop(end);
}

/// Closing and opening keeps everything, and begins the next session of the same store.
pub async fn law_1_an_answered_batch_survives_the_session(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let first = log.session().clone();
    let mut author = Author::registered(&*log, "p").await;
    author.write_outputs(&*log, 20).await;
    author.write(&*log, claim()).await.expect("a lease");
    author.write(&*log, complete()).await.expect("an outcome");
    let before = load(&*log, "p").await;
    let events = all_events(&*log, "p").await;
    log.close().await;
    drop(log);

    let log = backend.open();
    assert!(first.is_earlier_session_of_same_store(log.session()), "{first} then {}", log.session());
    let after = load(&*log, "p").await;
    assert_eq!(after.record, before.record);
    assert_eq!(after.record, author.state.record.clone().expect("a record"));
    assert_eq!((after.head, after.lease), (before.head, before.lease));
    assert_eq!(all_events(&*log, "p").await, events);
    assert_eq!(events.len(), 21);
    author.write_outputs(&*log, 1).await;
}

/// The third event of a batch uses a key again: nothing of it is stored, but its neighbours are.
pub async fn law_2_a_refused_batch_leaves_nothing_and_costs_its_group_nothing(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut bad = Author::registered(&*log, "bad").await;
    let mut before = Author::registered(&*log, "before").await;
    let mut after = Author::registered(&*log, "after").await;
    bad.write(&*log, keyed_output("k")).await.expect("an append");
    let mut forgetful = bad.clone();
    forgetful.state.replays = ReplayWindow::complete();
    let batch = forgetful.batch(&[output(1), output(2), keyed_output("k")]);

    backend.hold();
    let first = before.batch(&[output(1), output(2)]);
    let last = after.batch(&[output(1)]);
    let answers = [submit_later(&*log, first.clone()), submit_later(&*log, batch), submit_later(&*log, last.clone())];
    backend.release();
    let [first_answer, bad_answer, last_answer] = answers;
    let refused = bad_answer.await.expect("an answer").expect_err("the key is used");
    assert!(matches!(&refused, AppendError::NotAccepted { reason } if reason.contains("replay key")), "{refused}");
    before.install(&first, first_answer.await.expect("an answer").expect("stored"));
    after.install(&last, last_answer.await.expect("an answer").expect("stored"));

    assert_eq!(all_events(&*log, "bad").await.len(), 1);
    assert_eq!(load(&*log, "bad").await.head, bad.head.expect("a head"));
    assert_eq!(all_events(&*log, "before").await.len(), 2);
    bad.write_outputs(&*log, 1).await;
    before.write_outputs(&*log, 1).await;
    after.write_outputs(&*log, 1).await;
    for id in ["bad", "before", "after"] {
        assert_whole(&*log, id).await;
    }
}

/// Sequence and link both count; so does whether the process exists.
pub async fn law_3_a_stale_head_conflicts(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut stale = author.clone();
    author.write_outputs(&*log, 1).await;
    assert_eq!(stale.write(&*log, output(1)).await, Err(AppendError::Conflict));
    assert_eq!(Author::new("p").write(&*log, register("p")).await, Err(AppendError::Conflict), "it exists");

    let mut impostor = author.clone();
    impostor.head = impostor.head.map(|head| Head { chain: Default::default(), ..head });
    assert_eq!(impostor.write(&*log, output(2)).await, Err(AppendError::Conflict), "another history");

    let mut unborn = author.clone();
    unborn.state.process_id = process_id("unborn");
    let batch = unborn.batch(&[claim()]);
    assert_eq!(submit(&*log, batch).await, Err(AppendError::Conflict), "it does not exist");
    assert_eq!(all_events(&*log, "p").await.len(), 1);
}

/// A writer that does not know of a claim is told.
pub async fn law_3_a_stale_lease_revision_conflicts(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut stale = author.clone();
    author.write(&*log, claim()).await.expect("a lease");
    assert_eq!(stale.write(&*log, output(1)).await, Err(AppendError::Conflict));
    author.write(&*log, output(1)).await.expect("the holder knows");
}

/// Both hand in at once: one is stored, one conflicts, and the loser wins after it has read again.
pub async fn law_3_of_two_writers_with_one_head_exactly_one_wins(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let author = Author::registered(&*log, "p").await;
    for round in 0..20 {
        let stored = load(&*log, "p").await;
        let mut writers: Vec<_> = (0..2)
            .map(|_| {
                let mut writer = author.clone();
                writer.state.record = Some(Arc::clone(&stored.record));
                writer.state.sequence = stored.head.sequence;
                writer.head = Some(stored.head);
                writer
            })
            .collect();
        let batches: Vec<_> = writers.iter_mut().map(|writer| writer.batch(&[output(round)])).collect();
        let racing: Vec<_> = batches
            .into_iter()
            .map(|batch| {
                let log = Arc::clone(&log);
                std::thread::spawn(move || submit_later(&*log, batch))
            })
            .collect();
        let mut won = 0;
        for thread in racing {
            match thread.join().expect("a submitter").await.expect("an answer") {
                Ok(_) => won += 1,
                Err(error) => assert_eq!(error, AppendError::Conflict),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(all_events(&*log, "p").await.len(), 20);
    assert_whole(&*log, "p").await;
}

/// Batches of one process may be pipelined, as long as each continues the one before.
pub async fn law_3_a_second_batch_in_one_group_sees_the_first(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::new("p");
    let mut scout = author.clone();
    let scratch = MemoryScout::default();
    backend.hold();
    let mut answers = Vec::new();
    for command in [register("p"), output(1), output(2)] {
        let batch = scout.batch(&[command]);
        let head = scratch.head_after(&batch).await;
        scout.install(&batch, head);
        answers.push((batch.clone(), submit_later(&*log, batch)));
    }
    backend.release();
    for (batch, answer) in answers {
        author.install(&batch, answer.await.expect("an answer").expect("stored"));
    }
    assert_eq!(author.head, scout.head);
    assert_whole(&*log, "p").await;
}

/// Sequences have no holes, whoever asks for one.
pub async fn law_4_a_gap_is_refused(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut batch = author.batch(&[output(1), output(2)]);
    batch.events.remove(0);
    let refused = submit(&*log, batch).await.expect_err("a gap");
    assert!(matches!(refused, AppendError::NotAccepted { .. }), "{refused}");
    author.write_outputs(&*log, 10).await;
    let events = all_events(&*log, "p").await;
    let sequences: Vec<_> = events.iter().map(|event| event.sequence.0).collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
}

/// The log guards what the writer should have looked up; other processes may use the key.
pub async fn law_5_a_replay_key_is_stored_once(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut other = Author::registered(&*log, "q").await;
    author.write(&*log, keyed_output("k")).await.expect("an append");
    other.write(&*log, keyed_output("k")).await.expect("another process");

    let mut forgetful = author.clone();
    forgetful.state.replays = ReplayWindow::complete();
    let refused = forgetful.write(&*log, keyed_output("k")).await.expect_err("the key is used");
    assert!(matches!(refused, AppendError::NotAccepted { .. }), "{refused}");

    let found = log.find_replays(author.id(), vec![replay_key("none"), replay_key("k")]).await.expect("a lookup");
    assert_eq!(found[0], (replay_key("none"), None));
    assert_eq!(found[1].1.as_ref().map(|event| event.sequence), Some(Sequence(1)));
    author.write_outputs(&*log, 1).await;
}

/// Whatever is read after the answer shows it.
pub async fn law_6_a_read_after_the_answer_sees_the_batch(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    for number in 1..=50 {
        author.write(&*log, output(number)).await.expect("an append");
        let page = events_page(&*log, "p", number - 1, 10).await;
        assert_eq!(page.events.len(), 1);
        assert_eq!(load(&*log, "p").await.head, author.head.expect("a head"));
        let record = record(&*log, "p").await;
        assert_eq!(Some(record), author.state.record);
    }
}

/// A reader that follows the feed while others write has in the end seen every event once, in the order of the feed.
pub async fn law_7_a_reader_of_the_feed_misses_nothing(backend: &mut dyn LogBackend) {
    const WRITERS: u64 = 4;
    const EVENTS: u64 = 25;
    let log = backend.open();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut author = Author::registered(&*log, &format!("p{writer}")).await;
                author.write_outputs(&*log, EVENTS).await;
            })
        })
        .collect();
    let mut seen = Vec::new();
    let mut cursor = Position::default();
    while seen.len() < (WRITERS * (EVENTS + 1)) as usize {
        let page = log.feed(cursor, 7).await.expect("a page");
        assert!(page.next > cursor || page.changes.batches.is_empty());
        cursor = page.next;
        collect(&page.changes.batches, &mut seen);
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(seen, whole_feed(&*log).await);
    for writer in 0..WRITERS {
        let id = format!("p{writer}");
        let own: Vec<_> = seen.iter().filter(|(process, _)| *process == id).map(|(_, sequence)| *sequence).collect();
        assert_eq!(own, (0..=EVENTS).collect::<Vec<_>>());
    }
}

/// Nothing is wrong with a store that was only ever written by its log.
pub async fn law_8_a_healthy_store_verifies(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    author.write(&*log, keyed_output("k")).await.expect("an append");
    author.write(&*log, claim()).await.expect("a lease");
    author.write(&*log, cancel()).await.expect("a cancel request");
    assert_whole(&*log, "p").await;
    author.write(&*log, complete()).await.expect("an outcome");
    author.write_outputs(&*log, 1).await;
    assert_whole(&*log, "p").await;
    let verification = log.verify(author.id()).await.expect("a check");
    assert_eq!(verification.events, 5);
    Author::registered(&*log, "o").await;
    Author::registered(&*log, "q").await;
    let ids = log.process_ids(Some(process_id("o")), 1).await.expect("ids");
    assert_eq!(ids, [process_id("p")]);
    assert_eq!(log.process_ids(None, 10).await.expect("ids").len(), 3);
}

/// The reload finds the batch, with its operation, and the next batch continues it.
pub async fn law_9_an_unknown_batch_that_was_stored_is_found_again(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let operation = author.next_operation();
    let batch = author.batch(&[output(1)]);
    backend.fail_next(UnknownOutcome::Stored);
    let answer = submit(&*log, batch.clone()).await;
    assert!(matches!(answer, Err(AppendError::Unknown { .. })), "{answer:?}");
    let stored = settled(&*log, "p", 8).await;
    assert_eq!(stored.head.sequence, Sequence(1));
    assert_eq!(stored.operations.last(), Some(&(Sequence(1), operation)));
    author.install(&batch, Some(stored.head));
    author.write_outputs(&*log, 3).await;
    assert_whole(&*log, "p").await;
}

/// The reload does not find the batch, and never will.
pub async fn law_9_an_unknown_batch_that_was_not_stored_is_gone(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    backend.fail_next(UnknownOutcome::NotStored);
    let answer = author.write(&*log, output(1)).await;
    assert!(matches!(answer, Err(AppendError::Unknown { .. })), "{answer:?}");
    let stored = settled(&*log, "p", 8).await;
    assert_eq!(Some(stored.head), author.head);
    author.write_outputs(&*log, 3).await;
    assert_eq!(all_events(&*log, "p").await.len(), 3);
    assert_whole(&*log, "p").await;
}

/// Plain batches fill their lane; an urgent one still gets in, and is stored before them.
pub async fn law_10_an_urgent_batch_overtakes_and_is_admitted_to_a_full_queue(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut authors = Vec::new();
    for number in 0..=SHORT_QUEUES.plain {
        authors.push(Author::registered(&*log, &format!("plain{number}")).await);
    }
    let mut urgent = Author::registered(&*log, "urgent").await;
    let mut holder = Author::registered(&*log, "holder").await;
    let start = whole_feed(&*log).await.len();

    backend.hold();
    let mut answers: Vec<_> =
        authors.iter_mut().map(|author| submit_later(&*log, author.batch(&[output(1)]))).collect();
    let refused = answers.pop().expect("the last one").await.expect("an answer");
    assert_eq!(refused, Err(AppendError::Busy { limit: SHORT_QUEUES.plain }));
    answers.push(submit_later(&*log, urgent.batch(&[cancel()])));
    answers.push(submit_later(&*log, holder.batch(&[claim()])));
    backend.release();
    for answer in answers {
        answer.await.expect("an answer").expect("stored");
    }
    let feed = whole_feed(&*log).await;
    assert_eq!(feed[start], ("urgent".to_owned(), 1));
    assert_eq!(feed.len(), start + SHORT_QUEUES.plain + 1);
    assert!(load(&*log, "holder").await.lease.holder.is_some());
}

/// From the position that it was given on, a follower hears exactly what the feed holds.
pub async fn law_11_followers_hear_each_group_once_and_in_order(backend: &mut dyn LogBackend) {
    let log = backend.open();
    Author::registered(&*log, "early").await;
    let (follower, mut groups) = Listener::attach(&*log);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut author = Author::registered(&*log, &format!("p{writer}")).await;
                author.write(&*log, claim()).await.expect("a lease");
                author.write_outputs(&*log, 10).await;
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let page = log.feed(follower.after(), 1_000).await.expect("the feed");
    let mut stored = Vec::new();
    collect(&page.changes.batches, &mut stored);
    assert!(stored.len() >= 4 * 11);
    let (mut heard, mut last) = (Vec::new(), follower.after());
    while heard.len() < stored.len() {
        let group: CommittedGroup = groups.recv().await.expect("a group");
        assert_eq!(group.previous, last, "no group is missing");
        assert!(group.position > last);
        assert!(!group.changes.batches.is_empty());
        last = group.position;
        collect(&group.changes.batches, &mut heard);
    }
    assert_eq!(heard, stored);
    assert_eq!(page.next, last);
}

/// The batch that nobody knows to be stored is made known to those who listen.
pub async fn law_11_a_follower_hears_what_was_stored_without_an_answer(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let (follower, mut groups) = Listener::attach(&*log);
    let batch = author.batch(&[output(1)]);
    backend.fail_next(UnknownOutcome::Stored);
    submit(&*log, batch.clone()).await.expect_err("unknown");
    author.install(&batch, Some(settled(&*log, "p", 0).await.head));
    author.write_outputs(&*log, 1).await;
    let (mut heard, mut last) = (Vec::new(), follower.after());
    while heard.last() != Some(&("p".to_owned(), 2)) {
        let group = groups.recv().await.expect("a group");
        assert_eq!(group.previous, last);
        last = group.position;
        collect(&group.changes.batches, &mut heard);
    }
    heard.retain(|(_, sequence)| *sequence > 0);
    assert_eq!(heard, [("p".to_owned(), 1), ("p".to_owned(), 2)]);
}

/// Whoever does not know of the tombstone, or believes in one that is not there, conflicts.
pub async fn law_12_a_pruned_id_is_stored_anew_as_the_next_generation_only(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut early = Author::new("p");
    early.state.pruned_generations = 1;
    assert_eq!(early.write(&*log, register("p")).await, Err(AppendError::Conflict));
    let mut author = Author::registered(&*log, "p").await;
    author.write(&*log, complete()).await.expect("stored");
    across(&*log, prune()).await.expect("a prune");
    assert_eq!(author.write(&*log, output(1)).await, Err(AppendError::Conflict), "its last life is over");
    let mut again = Author::new("p");
    assert_eq!(again.write(&*log, register("p")).await, Err(AppendError::Conflict));
    again.state.pruned_generations = 1;
    again.write(&*log, register("p")).await.expect("the second life");
    assert_whole(&*log, "p").await;
}

/// Pending from the commit of the event on, and once for each target and wake id.
pub async fn law_13_wakes_are_stored_with_their_events_and_settled_by_their_acknowledgement(
    backend: &mut dyn LogBackend,
) {
    let log = backend.open();
    let target = SessionScope::session("s");
    let mut author = Author::new("p");
    author.write(&*log, waking_registration("p", target.clone())).await.expect("a registration");
    author.write(&*log, alarm(1)).await.expect("a wake");
    author.write(&*log, alarm(2)).await.expect("a wake");
    assert_eq!(pending(&*log, &target).await, [1, 2]);
    author.acknowledge(&*log, Sequence(1)).await;
    assert_eq!(pending(&*log, &target).await, [2]);
    assert_whole(&*log, "p").await;
    log.close().await;
    drop(log);
    let log = backend.open();
    assert_eq!(pending(&*log, &target).await, [2]);
}

/// Sequences of the events whose wakes are pending for a target.
async fn pending(log: &dyn ProcessLog, target: &SessionScope) -> Vec<u64> {
    match query(log, Query::PendingWakes { target: target.clone(), after: None, limit: 100 }).await {
        Answer::PendingWakes(page) => page.wakes.iter().map(|wake| wake.delivery.sequence.0).collect(),
        other => panic!("expected wakes, got {other:?}"),
    }
}

/// What is queued is stored; what comes later is refused; closing twice is no error.
pub async fn law_14_closing_answers_every_batch(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut other = Author::registered(&*log, "q").await;
    backend.hold();
    let queued = [submit_later(&*log, author.batch(&[output(1)])), submit_later(&*log, other.batch(&[cancel()]))];
    let closing = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.close().await }
    });
    backend.release();
    closing.await.expect("closed");
    for answer in queued {
        answer.await.expect("an answer").expect("stored");
    }
    log.close().await;
    assert_eq!(author.write(&*log, output(2)).await, Err(AppendError::Closed));
    assert_eq!(log.load(author.id(), 0).await.expect_err("closed"), LogError::Closed);
    drop(log);
    let log = backend.open();
    assert_eq!(all_events(&*log, "p").await.len(), 1);
}

/// A claim moves the lease row and nothing else.
pub async fn a_batch_that_only_moves_the_lease_leaves_no_event(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let (follower, mut groups) = Listener::attach(&*log);
    let head = author.write(&*log, claim()).await.expect("a lease");
    assert_eq!(head, author.head);
    let stored = load(&*log, "p").await;
    assert_eq!(stored.lease, *author.state.lease);
    assert_eq!(Some(stored.head), head);
    let Answer::Lease(Some(lease)) = query(&*log, Query::Lease { process_id: process_id("p") }).await else {
        panic!("no lease")
    };
    assert_eq!(Some(*lease), author.state.lease.holder.clone());
    assert!(all_events(&*log, "p").await.is_empty());
    let empty = ProcessBatch { lease: None, ..author.batch(&[claim()]) };
    assert!(matches!(submit(&*log, empty).await, Err(AppendError::NotAccepted { .. })));

    author.write_outputs(&*log, 1).await;
    let mut heard = Vec::new();
    let mut last = follower.after();
    while heard.last() != Some(&("p".to_owned(), 1)) {
        let group = groups.recv().await.expect("a group");
        assert_eq!((group.previous, group.changes.batches.is_empty()), (last, false), "a lease is nothing to hear");
        last = group.position;
        collect(&group.changes.batches, &mut heard);
    }
}

/// Computes heads beside the log under test, so that batches can be pipelined.
#[derive(Debug)]
struct MemoryScout(MemoryLog);

impl Default for MemoryScout {
    fn default() -> Self {
        Self(MemoryLog::new("scout"))
    }
}

impl MemoryScout {
    async fn head_after(&self, batch: &ProcessBatch) -> Option<Head> {
        submit(&self.0, batch.clone()).await.expect("a head")
    }
}

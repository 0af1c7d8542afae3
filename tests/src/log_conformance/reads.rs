//! What reads answer, whatever log is asked.

use std::sync::Arc;

use registry_actor::domain::{ProcessEventAppendRequest, ProcessStatusFilter, Refusal, Sequence};
use registry_actor::port::{Answer, AppendError, EventPage, LogError, Position, Query, StoredProcess};
use serde_json::json;

use crate::log_author::{Author, OUTPUT, append, cancel, complete, output, process_id, result, submit};
use crate::log_backend::LogBackend;
use crate::log_reading::{all_events, assert_whole, collect, events_page, ids, list, query, record, whole_feed};

/// The tail is as long as was asked for, ascending, and no longer than the log.
pub async fn load_tells_the_operations_of_the_tail(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    author.write_outputs(&*log, 3).await;
    let operations = |stored: &StoredProcess| -> Vec<(u64, u64)> {
        stored.operations.iter().map(|(sequence, operation)| (sequence.0, operation.number)).collect()
    };
    let stored = log.load(author.id(), 2).await.expect("a load").expect("a process");
    assert_eq!(operations(&stored), [(2, 3), (3, 4)]);
    let stored = log.load(author.id(), 100).await.expect("a load").expect("a process");
    assert_eq!(operations(&stored), [(0, 1), (1, 2), (2, 3), (3, 4)]);
    let stored = log.load(author.id(), 0).await.expect("a load").expect("a process");
    assert_eq!(operations(&stored), []);
}

/// Whatever the page size, the feed is the same.
pub async fn the_feed_resumes_at_any_position(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut left = Author::registered(&*log, "l").await;
    let mut right = Author::registered(&*log, "r").await;
    for _ in 0..5 {
        left.write_outputs(&*log, 2).await;
        right.write_outputs(&*log, 1).await;
    }
    let whole = whole_feed(&*log).await;
    assert_eq!(whole.len(), 17);
    for limit in 1..=18 {
        let (mut seen, mut cursor) = (Vec::new(), Position::default());
        loop {
            let page = log.feed(cursor, limit).await.expect("a page");
            cursor = page.next;
            collect(&page.changes.batches, &mut seen);
            if !page.has_more {
                break;
            }
        }
        assert_eq!(seen, whole, "in pages of {limit}");
        let rest = log.feed(cursor, limit).await.expect("a page");
        assert!(rest.changes.batches.is_empty() && rest.next == cursor && !rest.has_more);
    }
}

/// Limits are cut to what is allowed, cursors beyond the end find nothing.
pub async fn pages_are_bounded_and_say_whether_more_follows(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    author.write_outputs(&*log, 5).await;
    let sequences = |page: &EventPage| page.events.iter().map(|event| event.sequence.0).collect::<Vec<_>>();
    let page = events_page(&*log, "p", 0, 3).await;
    assert_eq!((sequences(&page), page.has_more), (vec![1, 2, 3], true));
    let page = events_page(&*log, "p", 3, 2).await;
    assert_eq!((sequences(&page), page.has_more), (vec![4, 5], false));
    let nothing = Query::Events { process_id: process_id("p"), after: Sequence(0), limit: 0 };
    assert_eq!(log.query(nothing).await, Err(LogError::from(Refusal::EmptyPage)));
    let page = events_page(&*log, "p", 0, u32::MAX).await;
    assert_eq!((page.events.len(), page.has_more), (5, false));
    for after in [5, 6, u64::MAX] {
        let page = events_page(&*log, "p", after, 3).await;
        assert_eq!((sequences(&page), page.has_more), (vec![], false), "after {after}");
    }
}

/// By type, strictly beyond the cursor; the registration is never found.
pub async fn the_first_event_of_a_type_is_found_beyond_a_cursor(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    author.write_outputs(&*log, 2).await;
    author.write(&*log, result()).await.expect("a result");
    author.write_outputs(&*log, 1).await;
    author.write(&*log, result()).await.expect("another");
    for (event_type, after, expected) in [
        ("result", 0, Some(3)),
        ("result", 3, Some(5)),
        ("result", 5, None),
        (OUTPUT, 0, Some(1)),
        (OUTPUT, 2, Some(4)),
        ("nothing", 0, None),
        ("process.registered", 0, None),
        ("result", u64::MAX, None),
    ] {
        let asked = Query::FirstEventOfType {
            process_id: process_id("p"),
            event_type: event_type.to_owned(),
            after: Sequence(after),
        };
        let Answer::Event(found) = query(&*log, asked).await else { panic!("no event answer") };
        assert_eq!(found.map(|event| event.sequence.0), expected, "{event_type} after {after}");
    }
}

/// A rare type among many events of another: before, at and after each of its events, and across sessions.
pub async fn the_first_event_of_a_rare_type_is_found_in_a_long_log(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut rare = Vec::new();
    for ahead in [254, 0, 255, 700, 3] {
        let flood: Vec<_> = (0..ahead).map(output).chain([result()]).collect();
        let batch = author.batch(&flood);
        let head = submit(&*log, batch.clone()).await.expect("stored");
        author.install(&batch, head);
        rare.push(author.state.sequence.0);
    }
    let last = author.state.sequence.0;
    log.close().await;
    drop(log);
    let log = backend.open();
    author.write_outputs(&*log, 1).await;
    author.write(&*log, result()).await.expect("one more");
    rare.push(last + 2);
    for after in 0..=last + 2 {
        let asked = Query::FirstEventOfType {
            process_id: process_id("p"),
            event_type: "result".to_owned(),
            after: Sequence(after),
        };
        let Answer::Event(found) = query(&*log, asked).await else { panic!("no event answer") };
        let expected = rare.iter().copied().find(|sequence| *sequence > after);
        assert_eq!(found.map(|event| event.sequence.0), expected, "after {after}");
    }
    assert_whole(&*log, "p").await;
}

/// Ascending by id, by status, in pages.
pub async fn lists_show_what_the_filter_names_in_order(backend: &mut dyn LogBackend) {
    let log = backend.open();
    for id in ["d", "b", "ä", "a", "c"] {
        Author::registered(&*log, id).await;
    }
    let mut ended = Author::registered(&*log, "bb").await;
    ended.write(&*log, complete()).await.expect("an outcome");
    ended.write_outputs(&*log, 1).await;

    let any = list(&*log, ProcessStatusFilter::Any, None, 100).await;
    assert_eq!(ids(&any), ["a", "b", "bb", "c", "d", "ä"]);
    let running = list(&*log, ProcessStatusFilter::Running, None, 2).await;
    assert_eq!((ids(&running), running.has_more), (vec!["a".to_owned(), "b".to_owned()], true));
    let rest = list(&*log, ProcessStatusFilter::Running, Some("b"), 3).await;
    assert_eq!((ids(&rest), rest.has_more), (vec!["c".to_owned(), "d".to_owned(), "ä".to_owned()], false));
    let completed = list(&*log, ProcessStatusFilter::Completed, None, 100).await;
    assert_eq!(completed.records, [ended.state.record.clone().expect("a record")]);
    assert!(list(&*log, ProcessStatusFilter::Failed, None, 100).await.records.is_empty());
}

/// Unknown is an error only where the read demands the process.
pub async fn reads_of_unknown_processes_say_so(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let id = process_id("nobody");
    let unknown = LogError::Unknown { process_id: id.clone() };
    assert!(log.load(&id, 5).await.expect("a load").is_none());
    assert_eq!(query(&*log, Query::Process { process_id: id.clone() }).await, Answer::Process(None));
    assert_eq!(query(&*log, Query::Lease { process_id: id.clone() }).await, Answer::Lease(None));
    let events = Query::Events { process_id: id.clone(), after: Sequence(0), limit: 1 };
    assert_eq!(log.query(events).await, Err(unknown.clone()));
    let first = Query::FirstEventOfType { process_id: id.clone(), event_type: OUTPUT.to_owned(), after: Sequence(0) };
    assert_eq!(log.query(first).await, Err(unknown.clone()));
    assert_eq!(log.verify(&id).await, Err(unknown.clone()));
    assert_eq!(log.find_replays(&id, Vec::new()).await, Err(unknown));
    assert!(log.process_ids(None, 10).await.expect("ids").is_empty());
}

/// A payload nests deeper than JSON is read back: it is refused, and the process lives on.
pub async fn a_payload_that_could_not_be_read_back_is_refused(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    // No decision would let it pass; the log does not rely on that.
    let with_payload = |author: &mut Author, payload: serde_json::Value| {
        let mut batch = author.batch(&[output(1)]);
        Arc::make_mut(&mut batch.events[0].event).payload = payload;
        batch
    };
    let refused = submit(&*log, with_payload(&mut author, nested(101))).await;
    assert!(matches!(refused, Err(AppendError::NotAccepted { .. })), "{refused:?}");
    let batch = with_payload(&mut author, nested(100));
    let head = submit(&*log, batch.clone()).await.expect("stored");
    author.install(&batch, head);
    assert_eq!(all_events(&*log, "p").await[0].payload, nested(100));
}

/// Every field, whatever stands in it.
pub async fn an_event_reads_back_exactly(backend: &mut dyn LogBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p\u{2009}with ünusual 'signs'; --").await;
    let mut written = Vec::new();
    let payload = json!({
        "text": "\u{0}\u{7f}\u{2028}\u{1f680}\"\\", "small": 5e-324, "large": 1.797_693_134_862_315_7e308,
        "third": 1.0 / 3.0, "most": u64::MAX, "least": i64::MIN, "empty": { "": [] }, "null": null,
    });
    for command in [append(ProcessEventAppendRequest::new(OUTPUT, payload)), cancel(), complete(), output(1)] {
        let batch = author.batch(&[command]);
        written.extend(batch.events.iter().map(|stored| Arc::clone(&stored.event)));
        let head = submit(&*log, batch.clone()).await.expect("stored");
        author.install(&batch, head);
    }
    assert!(written.last().expect("an event").late);
    let id = author.id().to_string();
    assert_eq!(all_events(&*log, &id).await, written);
    assert_eq!(Some(record(&*log, &id).await), author.state.record);
    assert_whole(&*log, &id).await;
}

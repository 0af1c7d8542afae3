//! A stored byte that changed is reported by the check, and refused by each read that would return it.

use std::sync::Arc;

use registry_actor::domain::{ProcessListFilter, RegistryCommand, Sequence, SessionScope};
use registry_actor::port::{Answer, LogError, Position, Query};
use registry_tests::log_author::{
    Author, OUTPUT, across, alarm, claim, complete, grant, keyed_output, output, process_id, prune, replay_key, submit,
    waking_registration,
};
use registry_tests::log_backend::{LogBackend as _, SqliteBackend, raw_connection};
use registry_tests::log_conformance::bounded;
use registry_tests::log_reading::assert_whole;
use rusqlite::types::Value;

/// Sequence of the event that the damage tests damage. It is the last one, so that loads meet it as well.
const DAMAGED: u64 = 3;

/// A closed store with one process: registration, two plain events, and one under a key.
async fn store_to_damage(backend: &mut SqliteBackend) {
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    author.write(&*log, claim()).await.expect("a lease");
    author.write_outputs(&*log, 2).await;
    author.write(&*log, keyed_output("key")).await.expect("an append");
    Author::registered(&*log, "whole").await.write_outputs(&*log, 1).await;
    assert_whole(&*log, "p").await;
    log.close().await;
}

fn flipped(value: Value) -> Value {
    match value {
        Value::Integer(number) => Value::Integer(number ^ 4),
        Value::Text(text) if text.is_empty() => Value::Text("x".to_owned()),
        Value::Text(text) => {
            let mut bytes = text.into_bytes();
            bytes[0] ^= 1;
            Value::Text(String::from_utf8(bytes).expect("still text"))
        }
        Value::Blob(mut bytes) => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Value::Blob(bytes)
        }
        Value::Null => Value::Text("x".to_owned()),
        Value::Real(number) => Value::Real(-number),
    }
}

/// Flips a bit of one column of one row of a closed store.
fn flip(backend: &SqliteBackend, table: &str, column: &str, row: &str) {
    let connection = raw_connection(&backend.path());
    let select = format!("SELECT {column} FROM {table} WHERE {row}");
    let value: Value = connection.query_row(&select, [], |row| row.get(0)).expect("a row");
    let update = format!("UPDATE {table} SET {column} = ?1 WHERE {row}");
    assert_eq!(connection.execute(&update, [flipped(value)]).expect("an update"), 1);
}

fn is_damage<T: std::fmt::Debug>(answer: &Result<T, LogError>) -> bool {
    matches!(answer, Err(LogError::Damaged { process_id, .. }) if process_id.as_str() == "p")
}

async fn damaged_event_is_refused(column: &'static str) {
    let mut backend = SqliteBackend::default();
    store_to_damage(&mut backend).await;
    let row = format!("process_no = 1 AND sequence = {DAMAGED}");
    flip(&backend, "events", column, &row);
    let log = backend.open();
    let id = process_id("p");
    let verification = log.verify(&id).await.expect("a check");
    assert!(!verification.faults.is_empty(), "a flipped {column} goes unreported");

    // These reads would return the event, whichever column is damaged.
    for after in [0, DAMAGED - 1] {
        let page = log.query(Query::Events { process_id: id.clone(), after: Sequence(after), limit: 10 }).await;
        assert!(is_damage(&page), "{column}: {page:?}");
    }
    let loaded = log.load(&id, 1).await;
    assert!(is_damage(&loaded), "{column}: {loaded:?}");
    let feed = log.feed(Position::default(), 100).await;
    assert!(feed.is_err(), "{column}: {feed:?}");
    // These find it by the damaged value, or do not find it any more; they never return it.
    let first = Query::FirstEventOfType { process_id: id.clone(), event_type: OUTPUT.to_owned(), after: Sequence(2) };
    match log.query(first).await {
        Ok(Answer::Event(None)) => assert!(["type", "sequence", "process_no"].contains(&column), "{column}"),
        answer => assert!(is_damage(&answer), "{column}: {answer:?}"),
    }
    match log.find_replays(&id, vec![replay_key("key")]).await {
        Ok(found) => {
            assert!(found.iter().all(|(_, event)| event.is_none()));
            assert!(["replay_key", "process_no"].contains(&column), "{column}");
        }
        answer => assert!(is_damage(&answer), "{column}: {answer:?}"),
    }
    // What is whole is still read.
    let page = log.query(Query::Events { process_id: id.clone(), after: Sequence(0), limit: 1 }).await;
    assert!(page.is_ok(), "{column}: {page:?}");
    assert_whole(&*log, "whole").await;
    assert_eq!(log.process_ids(None, 10).await.expect("ids").len(), 2);
}

macro_rules! damaged_columns {
    ($($test:ident: $column:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                bounded(damaged_event_is_refused($column)).await;
            }
        )*
    };
}

damaged_columns! {
    a_flipped_process_number_is_found: "process_no",
    a_flipped_sequence_is_found: "sequence",
    a_flipped_type_is_found: "type",
    a_flipped_time_is_found: "at_ms",
    a_flipped_replay_key_is_found: "replay_key",
    a_flipped_operation_is_found: "operation",
    a_flipped_codec_is_found: "codec",
    a_flipped_payload_is_found: "data",
    a_flipped_link_is_found: "chain",
}

/// The event itself is whole, so that only a check can tell.
#[tokio::test]
async fn a_flipped_position_is_reported() {
    let mut backend = SqliteBackend::default();
    store_to_damage(&mut backend).await;
    flip(&backend, "events", "position", &format!("process_no = 1 AND sequence = {DAMAGED}"));
    let log = backend.open();
    assert!(!log.verify(&process_id("p")).await.expect("a check").faults.is_empty());
}

/// A key that was absent and is there now is a changed event too.
#[tokio::test]
async fn an_invented_replay_key_is_found() {
    let mut backend = SqliteBackend::default();
    store_to_damage(&mut backend).await;
    flip(&backend, "events", "replay_key", "process_no = 1 AND sequence = 1");
    let log = backend.open();
    assert!(is_damage(&log.find_replays(&process_id("p"), vec![replay_key("x")]).await));
}

#[tokio::test]
async fn a_missing_event_is_found() {
    for missing in 0..=DAMAGED {
        let mut backend = SqliteBackend::default();
        store_to_damage(&mut backend).await;
        raw_connection(&backend.path())
            .execute("DELETE FROM events WHERE process_no = 1 AND sequence = ?1", [missing.cast_signed()])
            .expect("a deletion");
        let log = backend.open();
        let id = process_id("p");
        assert!(!log.verify(&id).await.expect("a check").faults.is_empty(), "sequence {missing}");
        let page = log.query(Query::Events { process_id: id.clone(), after: Sequence(0), limit: 10 }).await;
        assert!(is_damage(&page), "sequence {missing}: {page:?}");
    }
}

/// Record, head and lease are not events, and are checked all the same.
#[tokio::test]
async fn damage_beside_the_events_is_reported() {
    for (table, column) in [
        ("processes", "status"),
        ("processes", "codec"),
        ("processes", "body"),
        ("processes", "checksum"),
        ("heads", "sequence"),
        ("heads", "position"),
        ("heads", "chain"),
        ("heads", "updated_at_ms"),
        ("leases", "revision"),
        ("leases", "fence"),
        ("leases", "codec"),
        ("leases", "body"),
        ("leases", "checksum"),
        ("type_blocks", "type"),
    ] {
        let mut backend = SqliteBackend::default();
        store_to_damage(&mut backend).await;
        let row = if table == "type_blocks" { "process_no = 1 AND type = 'output'" } else { "process_no = 1" };
        flip(&backend, table, column, row);
        let log = backend.open();
        let id = process_id("p");
        let faults = log.verify(&id).await.expect("a check").faults;
        assert!(!faults.is_empty(), "a flipped {table}.{column} goes unreported");
        // These are hints of the lists and of searches: an activation does not depend on them.
        if !["position", "updated_at_ms", "type"].contains(&column) {
            let loaded = log.load(&id, 0).await;
            assert!(is_damage(&loaded), "{table}.{column}: {loaded:?}");
        }
        if table == "processes" {
            // One byte of a running process kept the rest of the store from being listed, and from recovery.
            let list = Query::Processes { filter: ProcessListFilter::any(), after: None, limit: 1 };
            let Ok(Answer::Processes(page)) = log.query(list).await else { panic!("{column}: no list") };
            let listed: Vec<_> = page.records.iter().map(|record| record.id().as_str()).collect();
            assert_eq!(
                (listed, &page.damaged[..], page.has_more),
                (vec!["whole"], &[id.clone()][..], false),
                "{column}"
            );
            let recent = Query::RecentProcesses { filter: ProcessListFilter::any(), before: None, limit: 10 };
            let Ok(Answer::RecentProcesses(page)) = log.query(recent).await else { panic!("{column}: no list") };
            let listed: Vec<_> = page.records.iter().map(|record| record.id().as_str()).collect();
            assert_eq!((listed, &page.damaged[..], page.next), (vec!["whole"], &[id][..], None), "{column}");
        }
    }
}

/// Every column that version 2 added, of a process that has something in each of its tables.
#[tokio::test]
async fn damage_of_what_lists_and_sessions_ask_for_is_reported() {
    for (table, columns) in [
        (
            "processes",
            "kind label definition originator_session originator_frame waiting created_at_ms terminal_at_ms
             wake_session generation",
        ),
        ("process_tags", "tag process_id process_no"),
        ("grants", "session frame codec body checksum"),
        ("wakes", "position process_no sequence acked pending session frame wake_id codec body checksum"),
    ] {
        for column in columns.split_whitespace() {
            let mut backend = SqliteBackend::default();
            let log = backend.open();
            let mut author = Author::new("p");
            let target = SessionScope::frame("s", "f");
            author.write(&*log, waking_registration("p", target)).await.expect("stored");
            author.write(&*log, alarm(1)).await.expect("stored");
            author.write(&*log, complete()).await.expect("stored");
            across(&*log, grant("s", "p")).await.expect("a grant");
            assert_whole(&*log, "p").await;
            log.close().await;
            drop(log);
            let row = match table {
                "process_tags" => "tag = 'one'",
                "grants" => "process_id = 'p'",
                _ => "process_no = 1",
            };
            flip(&backend, table, column, row);
            let log = backend.open();
            let faults = log.verify(&process_id("p")).await.expect("a check").faults;
            assert!(!faults.is_empty(), "a flipped {table}.{column} goes unreported");
        }
    }
}

/// What is left of a process, and of a session, belongs to no process: the reads that return it refuse it.
#[tokio::test]
async fn damage_of_a_mark_in_the_feed_is_refused() {
    for (table, columns) in [
        ("tombstones", "position process_id generation codec body checksum"),
        ("session_deletions", "position codec body checksum"),
    ] {
        for column in columns.split_whitespace() {
            let mut backend = SqliteBackend::default();
            let log = backend.open();
            let mut author = Author::registered(&*log, "p").await;
            author.write(&*log, complete()).await.expect("stored");
            across(&*log, grant("s", "p")).await.expect("a grant");
            let deletion = RegistryCommand::DeleteSession { session_id: "s".to_owned() };
            across(&*log, deletion).await.expect("a deletion");
            across(&*log, prune()).await.expect("a prune");
            let changes = Query::Changes { after: None, limit: 10 };
            let Ok(Answer::Changes(page)) = log.query(changes.clone()).await else { panic!("no changes") };
            assert_eq!(page.entries.len(), 2, "{page:?}");
            log.close().await;
            drop(log);
            flip(&backend, table, column, "true");
            let log = backend.open();
            // A position before the first one hides a mark from the feed, not from who asks for it.
            let left = log.query(Query::Tombstone { process_id: process_id("p") }).await;
            let answer = log.query(changes).await;
            assert!(answer.is_err() || left.is_err(), "{table}.{column}: {answer:?}, {left:?}");
        }
    }
}

/// A record that agrees with its checksum but not with its events was not made by the registry.
#[tokio::test]
async fn a_record_that_its_events_do_not_make_is_reported() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let mut batch = author.batch(&[output(1)]);
    let mut forged = (*batch.record).clone();
    forged.created_at_ms += 1;
    batch.record = Arc::new(forged);
    batch.body_changed = true;
    submit(&*log, batch).await.expect("stored");
    let faults = log.verify(&process_id("p")).await.expect("a check").faults;
    assert_eq!(faults.len(), 1);
    assert!(faults[0].what.contains("folding"), "{faults:?}");
}

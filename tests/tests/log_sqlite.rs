//! What only the log in a SQLite file can show: failures of the disk, owners, readers beside them, and files of other
//! versions.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use registry_actor::domain::{
    Command, OriginatorFilter, ProcessListFilter, Refusal, RegistryReceipt, Sequence, SessionScope, StoreSession,
};
use registry_actor::log::{OpenError, SqliteLog, SqliteOptions, SqliteReader, WriterPoint};
use registry_actor::port::{AcrossError, Answer, AppendError, LogError, Position, ProcessLog, Query};
use registry_tests::log_author::{
    Author, across, alarm, cancel, claim, complete, grant, keyed_output, output, process_id, prune, register,
    replay_key, submit, submit_later, waking_registration,
};
use registry_tests::log_backend::{LogBackend as _, SqliteBackend, raw_connection};
use registry_tests::log_conformance::bounded;
use registry_tests::log_reading::{all_events, assert_whole, load, query, settled, whole_feed};
use serde_json::json;

/// The disk is full at a statement: nothing is stored, nothing is poisoned, and reads go on.
#[tokio::test]
async fn a_group_whose_statements_fail_is_not_accepted() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    backend.gate.fail_next(WriterPoint::Statements);
    let refused = author.write(&*log, output(1)).await.expect_err("full");
    assert!(matches!(refused, AppendError::NotAccepted { .. }), "{refused}");
    assert!(all_events(&*log, "p").await.is_empty());
    assert_eq!(Some(load(&*log, "p").await.head), author.head);
    author.write_outputs(&*log, 1).await;
    assert_whole(&*log, "p").await;
}

/// While the store is not whole nothing is admitted and no activation answered, but what is known is read; then it heals.
#[tokio::test]
async fn a_poisoned_writer_admits_nothing_until_it_is_whole() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        let mut author = Author::registered(&*log, "p").await;
        let mut other = Author::registered(&*log, "q").await;
        author.write_outputs(&*log, 2).await;
        for _ in 0..5 {
            backend.gate.fail_next(WriterPoint::Reopen);
        }
        backend.gate.fail_next(WriterPoint::AfterCommit);
        backend.hold();
        let lost = author.batch(&[output(3)]);
        let answer = submit_later(&*log, lost.clone());
        backend.release();
        assert!(matches!(answer.await.expect("an answer"), Err(AppendError::Unknown { .. })));

        let (mut refused, mut read) = (0, 0);
        loop {
            let batch = other.clone().batch(&[output(1)]);
            // The answer that is awaited here is given at once, or after the store is whole.
            match submit(&*log, batch).await {
                Err(AppendError::NotAccepted { reason }) => {
                    assert!(reason.contains("reopened"), "{reason}");
                    refused += 1;
                }
                Ok(_) => break,
                Err(error) => panic!("{error}"),
            }
            let loaded = log.load(author.id(), 0).await;
            let events = all_events(&*log, "p").await;
            // Only if the store is still not whole now is it certain that it was not then.
            if backend.gate.failures_left() > 0 {
                assert!(matches!(loaded, Err(LogError::Unreadable { .. })), "{loaded:?}");
                assert!(events.len() >= 2);
                read += 1;
            }
        }
        assert!(refused > 0 && read > 0);
        assert_eq!(backend.gate.failures_left(), 0);
        let stored = settled(&*log, "p", 0).await;
        assert_eq!(stored.head.sequence, Sequence(3), "the commit had come through");
        author.install(&lost, Some(stored.head));
        author.write_outputs(&*log, 1).await;
        other.head = Some(load(&*log, "q").await.head);
        assert_whole(&*log, "p").await;
        assert_whole(&*log, "q").await;
        log.close().await;
    })
    .await;
}

/// A log that is closed while its store is not whole answers everything and gives the store back.
#[tokio::test]
async fn a_poisoned_writer_can_be_closed() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        let mut author = Author::registered(&*log, "p").await;
        for _ in 0..1_000 {
            backend.gate.fail_next(WriterPoint::Reopen);
        }
        backend.gate.fail_next(WriterPoint::BeforeCommit);
        author.write(&*log, output(1)).await.expect_err("unknown");
        log.close().await;
        drop(log);
        let log = backend.open();
        assert!(all_events(&*log, "p").await.is_empty());
    })
    .await;
}

/// Law 14, of a writer that dies: everything is answered, and the store is given back.
#[tokio::test]
async fn law_14_a_dead_writer_answers_every_batch() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        let mut author = Author::registered(&*log, "p").await;
        let mut other = Author::registered(&*log, "q").await;
        backend.hold();
        backend.gate.panic_next();
        let answers = [submit_later(&*log, author.batch(&[output(1)])), submit_later(&*log, other.batch(&[cancel()]))];
        backend.release();
        for answer in answers {
            answer.await.expect("an answer").expect_err("the writer is dead");
        }
        assert_eq!(author.write(&*log, output(1)).await, Err(AppendError::Closed));
        log.close().await;
        drop(log);
        let log = backend.open();
        assert!(all_events(&*log, "p").await.is_empty());
    })
    .await;
}

/// A log that is dropped without being closed has stored what was queued, and its store can be opened again.
#[tokio::test]
async fn a_dropped_log_gives_its_store_back() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    backend.hold();
    let answer = submit_later(&*log, author.batch(&[output(1)]));
    backend.release();
    drop(log);
    answer.await.expect("an answer").expect("stored");
    let log = backend.open();
    assert_eq!(all_events(&*log, "p").await.len(), 1);
}

/// The second host is told who holds the store; the first does not notice.
#[tokio::test]
async fn a_second_owner_is_told_who_the_first_is() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    let error = backend.try_open().expect_err("owned");
    let OpenError::Owned { holder, .. } = &error else { panic!("{error}") };
    assert_eq!(holder.pid, std::process::id());
    assert!(holder.started_at_ticks > 0 && !holder.boot_id.is_empty());
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // The same file by another name is the same store.
    let link = backend.path().with_file_name("link.db");
    std::os::unix::fs::symlink(backend.path(), &link).expect("a link");
    let error = SqliteLog::open(&link, SqliteOptions::default()).expect_err("owned");
    assert!(matches!(error, OpenError::Owned { .. }), "{error}");
    Author::registered(&*log, "p").await;
    log.close().await;
    backend.open();
}

/// Under each of its names a store had a lock and a log file of its own: two hosts wrote one file, and each took the other for dead.
#[tokio::test]
async fn a_store_of_two_names_is_opened_under_neither() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    Author::registered(&*log, "p").await;
    log.close().await;
    drop(log);
    let other = backend.path().with_file_name("other.db");
    std::fs::hard_link(backend.path(), &other).expect("a link");
    for path in [&backend.path(), &other] {
        let error = SqliteLog::open(path, SqliteOptions::default()).expect_err("two names");
        assert!(matches!(error, OpenError::Linked { links: 2, .. }), "{error}");
    }
    std::fs::remove_file(other).expect("removed");
    let log = backend.open();
    assert_eq!(all_events(&*log, "p").await.len(), 0);
    log.close().await;
}

#[tokio::test]
async fn the_session_number_grows_with_each_opening() {
    let mut backend = SqliteBackend::default();
    let mut sessions: Vec<StoreSession> = Vec::new();
    for _ in 0..3 {
        let log = backend.open();
        sessions.push(log.session().clone());
        log.close().await;
    }
    let numbers: Vec<_> = sessions.iter().map(|session| session.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(sessions.iter().all(|session| session.store_id == sessions[0].store_id));
    let other = SqliteBackend::default().open().session().clone();
    assert_ne!(other.store_id, sessions[0].store_id);
}

/// A position is not given twice, even if the event that had it is gone.
#[tokio::test]
async fn positions_are_not_given_twice() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    Author::registered(&*log, "p").await.write_outputs(&*log, 5).await;
    let before = log.feed(Position::default(), 100).await.expect("the feed").next;
    log.close().await;
    drop(log);
    raw_connection(&backend.path())
        .execute_batch("DELETE FROM events; DELETE FROM heads; DELETE FROM processes")
        .expect("a deletion");
    let log = backend.open();
    Author::registered(&*log, "p").await;
    let page = log.feed(before, 100).await.expect("the feed");
    assert_eq!(page.changes.batches.len(), 1, "a cursor of before misses nothing");
}

/// A reader of another host sees what is committed, and costs the owner nothing.
#[tokio::test]
async fn a_reader_reads_beside_a_live_owner() {
    let mut backend = SqliteBackend::default();
    let missing = SqliteReader::open(backend.path()).expect_err("nothing is there");
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    let log = backend.open();
    let mut author = Author::registered(&*log, "p").await;
    let reader = SqliteReader::open(backend.path()).expect("a reader");
    assert_eq!(**reader.store_id(), *log.session().store_id);
    for number in 1..=5 {
        author.write(&*log, output(number)).await.expect("an append");
        let stored = reader.load(author.id(), 1).await.expect("a load").expect("a process");
        assert_eq!(Some(stored.head), author.head);
    }
    assert!(reader.verify(author.id()).await.expect("a check").faults.is_empty());
    assert_eq!(reader.feed(Position::default(), 100).await.expect("the feed").changes.batches[0].events.len(), 6);
    log.close().await;
    drop(log);
    let page = reader.query(Query::Events { process_id: process_id("p"), after: Sequence(0), limit: 10 }).await;
    assert!(matches!(page, Ok(Answer::Events(page)) if page.events.len() == 5), "the owner has gone");
    drop(reader);
    let reader = SqliteReader::open(backend.path()).expect("a reader without an owner");
    assert_eq!(reader.process_ids(None, 10).await.expect("ids"), [process_id("p")]);
}

/// Reads beside constant writing keep neither the other from the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_keep_the_log_file_short_while_readers_read() {
    let backend = SqliteBackend::default();
    let log = SqliteLog::open(backend.path(), backend.options().with_checkpoint_pages(50)).expect("a store");
    let log: Arc<dyn ProcessLog> = Arc::new(log);
    let mut author = Author::registered(&*log, "p").await;
    for _ in 0..300 {
        author.write_outputs(&*log, 1).await;
        assert_eq!(load(&*log, "p").await.head, author.head.expect("a head"));
    }
    let wal = backend.path().with_file_name("store.db-wal");
    let pages = std::fs::metadata(wal).expect("a log file").len() / 4_096;
    assert!(pages < 200, "{pages} pages wait");
    assert_whole(&*log, "p").await;
}

/// Neither writing nor reading depends on the runtime's clock, which a test may have stopped.
#[tokio::test(start_paused = true)]
async fn a_runtime_whose_clock_stands_still_is_served() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        let mut author = Author::registered(&*log, "p").await;
        author.write_outputs(&*log, 5).await;
        assert_eq!(all_events(&*log, "p").await.len(), 5);
        assert_whole(&*log, "p").await;
        log.close().await;
    })
    .await;
}

/// Needs a file system that is nearly full: `SMALL_DIRECTORY=… cargo test … -- --ignored a_full_disk`.
#[tokio::test]
#[ignore = "needs a small file system, which only an administrator can make"]
async fn a_full_disk_is_a_state_that_passes() {
    bounded(async {
        let directory = std::env::var("SMALL_DIRECTORY").expect("SMALL_DIRECTORY names a small file system");
        let directory = tempfile::tempdir_in(directory).expect("a directory");
        let ballast = directory.path().join("ballast");
        std::fs::write(&ballast, vec![0; 400_000]).expect("room for the ballast");
        let log = SqliteLog::open(directory.path().join("store.db"), SqliteOptions::default()).expect("a store");
        let mut author = Author::registered(&log, "p").await;
        let refused = loop {
            if let Err(error) = author.write(&log, output(1)).await {
                break error;
            }
        };
        assert!(matches!(refused, AppendError::Unknown { .. } | AppendError::NotAccepted { .. }), "{refused}");
        let known = author.state.sequence.0 as usize;
        assert!(all_events(&log, "p").await.len() >= known, "reads go on");
        for _ in 0..20 {
            let batch = author.batch(&[output(2)]);
            submit(&log, batch).await.expect_err("still full");
        }
        std::fs::remove_file(ballast).expect("room");
        let head = loop {
            let stored = settled(&log, "p", 0).await;
            author.head = Some(stored.head);
            author.state.sequence = stored.head.sequence;
            author.state.record = Some(stored.record);
            match author.write(&log, output(3)).await {
                Ok(head) => break head.expect("a head"),
                Err(AppendError::NotAccepted { .. } | AppendError::Unknown { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(head.sequence.0 as usize > known);
        assert_whole(&log, "p").await;
        log.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_files_are_private() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    Author::registered(&*log, "p").await;
    for name in ["store.db", "store.db-wal", "store.db-shm", "store.db.lock"] {
        let mode = std::fs::metadata(backend.path().with_file_name(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_store_is_left_alone() {
    let backend = SqliteBackend::default();
    let text = "a file of somebody else, which is certainly longer than the header of a database file is";
    std::fs::write(backend.path(), text.repeat(20)).expect("a file");
    let error = backend.try_open().expect_err("no store");
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(backend.path()).expect("the file"), text.repeat(20));
    assert!(matches!(SqliteReader::open(backend.path()), Err(OpenError::NotAStore { .. })));

    std::fs::remove_file(backend.path()).expect("removed");
    raw_connection(&backend.path()).execute_batch("CREATE TABLE theirs (a)").expect("their database");
    let error = backend.try_open().expect_err("no store");
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    let tables: String = raw_connection(&backend.path())
        .query_row("SELECT group_concat(name) FROM sqlite_schema", [], |row| row.get(0))
        .expect("their tables");
    assert_eq!(tables, "theirs");
}

/// Its owner may be writing its log file at this moment.
#[tokio::test]
async fn the_log_file_of_a_database_of_somebody_else_is_not_written() {
    let backend = SqliteBackend::default();
    let theirs = raw_connection(&backend.path());
    theirs.pragma_update(None, "journal_mode", "WAL").expect("a log file");
    theirs.execute_batch("CREATE TABLE theirs (a)").expect("their database");
    let mut log_file = backend.path().into_os_string();
    log_file.push("-wal");
    let log_file = std::fs::File::open(log_file).expect("their log file");
    assert!(log_file.metadata().expect("its size").len() > 0);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    log_file.set_modified(long_ago).expect("a time");
    let error = backend.try_open().expect_err("no store");
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(log_file.metadata().expect("its times").modified().expect("a time"), long_ago);
    theirs.execute_batch("INSERT INTO theirs VALUES (1)").expect("it goes on");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone() {
    let mut backend = SqliteBackend::default();
    backend.open().close().await;
    raw_connection(&backend.path()).pragma_update(None, "user_version", 99).expect("a version");
    for error in [
        backend.try_open().map(drop).expect_err("newer"),
        SqliteReader::open(backend.path()).map(drop).expect_err("newer"),
    ] {
        assert!(matches!(error, OpenError::NewerSchema { found: 99, known: 4, .. }), "{error}");
        assert!(error.to_string().contains("99"), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_made_says_why() {
    let backend = SqliteBackend::default();
    let nowhere = backend.path().join("deeper").join("store.db");
    let error = SqliteLog::open(&nowhere, SqliteOptions::default()).expect_err("nowhere");
    assert!(matches!(error, OpenError::NoDirectory { .. }), "{error}");
}

/// A store that version 1 wrote opens for ever, and is whole.
#[tokio::test]
async fn a_store_of_schema_version_1_opens() {
    let mut backend = SqliteBackend::default();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/schema_v1.sql");
    let sql = std::fs::read_to_string(golden).expect("the golden file");
    raw_connection(&backend.path()).execute_batch(&sql).expect("a store of version 1");
    let log = backend.open();
    assert_eq!((&*log.session().store_id, log.session().number), ("0123456789abcdef0123456789abcdef", 2));
    assert_eq!(log.process_ids(None, 10).await.expect("ids"), [process_id("ended"), process_id("running")]);
    for id in ["running", "ended"] {
        assert_whole(&*log, id).await;
    }
    assert_eq!(
        whole_feed(&*log).await,
        [("running", 0), ("running", 1), ("ended", 0), ("ended", 1), ("ended", 2), ("running", 2), ("ended", 3)]
            .map(|(id, sequence)| (id.to_owned(), sequence))
    );
    let running = load(&*log, "running").await;
    assert_eq!(running.lease.holder.expect("a holder").owner.owner_id, "worker");
    let ended = load(&*log, "ended").await;
    assert_eq!(ended.record.status.label(), "completed");
    let last = all_events(&*log, "ended").await.pop().expect("an event");
    assert!(last.late);
    let found = log.find_replays(&process_id("running"), vec![replay_key("key")]).await.expect("a lookup");
    assert_eq!(found[0].1.as_ref().map(|event| event.sequence), Some(Sequence(2)));
}

/// A store of version 2 was never restored: its sessions go on under the name that they had.
#[tokio::test]
async fn a_store_of_schema_version_2_goes_on_with_its_sessions() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    let before = log.session().clone();
    let mut author = Author::registered(&*log, "p").await;
    author.write_outputs(&*log, 2).await;
    log.close().await;
    drop(log);
    raw_connection(&backend.path()).execute_batch(BACK_TO_VERSION_2).expect("a store of version 2");
    let error = SqliteReader::open(backend.path()).expect_err("a reader does not migrate");
    assert!(matches!(error, OpenError::OlderSchema { found: 2, known: 4, .. }), "{error}");
    let log = backend.open();
    assert!(before.is_earlier_session_of_same_store(log.session()), "{before} and {}", log.session());
    assert_whole(&*log, "p").await;
}

/// A store of version 3 lists its newest processes once it was opened.
#[tokio::test]
async fn a_store_of_schema_version_3_lists_the_newest_first() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    for name in ["b", "c", "a"] {
        Author::registered(&*log, name).await;
    }
    log.close().await;
    drop(log);
    raw_connection(&backend.path()).execute_batch(BACK_TO_VERSION_3).expect("a store of version 3");
    let log = backend.open();
    for filter in [ProcessListFilter::any(), ProcessListFilter::default()] {
        let asked = Query::RecentProcesses { filter, before: None, limit: 10 };
        let Answer::RecentProcesses(page) = query(&*log, asked).await else { panic!("expected records") };
        let names: Vec<_> = page.records.iter().map(|record| record.id().as_str()).collect();
        assert_eq!((names, page.next), (vec!["a", "c", "b"], None));
    }
}

/// The first version had neither columns to search by nor rows for wakes: both follow from what it stored.
#[tokio::test]
async fn a_migrated_store_is_searched_by_what_it_held_before() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    let mut author = Author::new("p");
    author.write(&*log, waking("p")).await.expect("stored");
    for number in 1..=2 {
        author.write(&*log, alarm(number)).await.expect("stored");
    }
    author.acknowledge(&*log, Sequence(1)).await;
    Author::registered(&*log, "plain").await.write_outputs(&*log, 1).await;
    log.close().await;
    drop(log);
    raw_connection(&backend.path()).execute_batch(BACK_TO_VERSION_1).expect("a store of version 1");

    let log = backend.open();
    for id in ["p", "plain"] {
        assert_whole(&*log, id).await;
    }
    let any = ProcessListFilter::any;
    for filter in [
        ProcessListFilter { kind: Some("watch".to_owned()), ..any() },
        ProcessListFilter { label: Some("label".to_owned()), ..any() },
        ProcessListFilter { definition: Some(json!({ "b": [1], "a": 2 })), ..any() },
        ProcessListFilter { originator: Some(OriginatorFilter::Session(SessionScope::session("asker"))), ..any() },
        ProcessListFilter { tags: ["one".to_owned(), "two".to_owned()].into(), ..any() },
    ] {
        assert_eq!(listed(&*log, filter.clone()).await, ["p"], "{filter:?}");
    }
    let by_host = ProcessListFilter { originator: Some(OriginatorFilter::Host), ..any() };
    assert_eq!(listed(&*log, by_host).await, ["plain"]);
    let open = Query::WakeEvents { process_id: process_id("p"), after: Sequence(0), limit: 10 };
    let Answer::Events(open) = query(&*log, open).await else { panic!("no events") };
    assert_eq!(open.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [Sequence(2)]);
}

/// What is left of a pruned process is its tombstone; its positions are not given again, even after a crash.
#[tokio::test]
async fn a_prune_leaves_no_row_of_a_process_but_its_tombstone() {
    let mut backend = SqliteBackend::default();
    let log = backend.open();
    Author::registered(&*log, "stays").await;
    let before = rows_of_all_tables(&backend);
    let mut author = Author::new("p");
    author.write(&*log, waking("p")).await.expect("stored");
    author.write(&*log, alarm(1)).await.expect("stored");
    author.write(&*log, complete()).await.expect("stored");
    across(&*log, grant("s", "p")).await.expect("a grant");
    let pruned = across(&*log, prune()).await.expect("a prune");
    let RegistryReceipt::Pruned(report) = pruned else { panic!("{pruned:?}") };
    assert_eq!((report.pruned_processes, report.pruned_events), (1, 2));
    let mut after = rows_of_all_tables(&backend);
    assert_eq!(after.remove("tombstones"), Some(1));
    assert_eq!(after, before.into_iter().filter(|(table, _)| table != "tombstones").collect());
    let end = log.feed(Position::default(), 100).await.expect("the feed");
    assert_eq!(end.changes.pruned.len(), 1);

    // As after a crash, and without the one row that still shows how far positions had come.
    drop(log);
    raw_connection(&backend.path()).execute_batch("DELETE FROM tombstones").expect("a deletion");
    let log = backend.open();
    Author::registered(&*log, "q").await;
    let page = log.feed(end.next, 100).await.expect("the feed");
    assert_eq!(page.changes.batches.len(), 1, "a cursor of before misses nothing");
}

/// A command is refused whole, fails like a group, and what may be stored is settled before anything is written.
#[tokio::test]
async fn a_command_across_processes_fails_as_a_group_does() {
    bounded(async {
        for (point, stored) in
            [(WriterPoint::Statements, false), (WriterPoint::BeforeCommit, false), (WriterPoint::AfterCommit, true)]
        {
            let mut backend = SqliteBackend::default();
            let log = backend.open();
            Author::registered(&*log, "p").await;
            backend.gate.fail_next(point);
            let failed = across(&*log, grant("s", "p")).await.expect_err("a failure");
            match point {
                WriterPoint::Statements => {
                    assert!(matches!(failed, AcrossError::Append(AppendError::NotAccepted { .. })), "{failed}");
                }
                _ => assert!(matches!(failed, AcrossError::Append(AppendError::Unknown { .. })), "{failed}"),
            }
            settled(&*log, "p", 0).await;
            assert_eq!(is_granted(&*log, "s", "p").await, stored, "{point:?}");
            let unknown = across(&*log, grant("s", "nobody")).await.expect_err("an unknown process");
            assert!(matches!(unknown, AcrossError::Refused(Refusal::Unknown { .. })), "{unknown}");
            across(&*log, grant("t", "p")).await.expect("the writer goes on");
            assert_whole(&*log, "p").await;
        }
    })
    .await;
}

/// Nobody waits for ever: not for a writer that died, and not for a log that is closed.
#[tokio::test]
async fn a_command_across_processes_is_answered_by_a_dead_writer() {
    bounded(async {
        let mut backend = SqliteBackend::default();
        let log = backend.open();
        Author::registered(&*log, "p").await;
        backend.gate.panic_next();
        across(&*log, grant("s", "p")).await.expect_err("the writer is dead");
        log.close().await;
        let closed = across(&*log, grant("s", "p")).await.expect_err("closed");
        assert_eq!(closed, AcrossError::Append(AppendError::Closed));
        drop(log);
        let log = backend.open();
        assert!(!is_granted(&*log, "s", "p").await);
    })
    .await;
}

/// What version 4 added, taken away again.
const BACK_TO_VERSION_3: &str = "
    DROP INDEX processes_recent_by_status; DROP INDEX processes_recent_by_label; DROP INDEX process_tags_recent;
    PRAGMA user_version = 3;";

/// What versions 3 and 4 added, taken away again.
const BACK_TO_VERSION_2: &str = "
    DROP INDEX processes_recent_by_status; DROP INDEX processes_recent_by_label; DROP INDEX process_tags_recent;
    ALTER TABLE meta DROP COLUMN lineage; PRAGMA user_version = 2;";

/// What later versions added, taken away again.
const BACK_TO_VERSION_1: &str = "
    ALTER TABLE processes RENAME TO later;
    CREATE TABLE processes (
        process_no INTEGER PRIMARY KEY, process_id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, codec INTEGER NOT NULL,
        body BLOB NOT NULL, checksum BLOB NOT NULL
    ) STRICT;
    INSERT INTO processes SELECT process_no, process_id, status, codec, body, checksum FROM later;
    DROP TABLE later;
    CREATE INDEX processes_by_status ON processes (status, process_id);
    ALTER TABLE meta DROP COLUMN lineage;
    DROP TABLE process_tags; DROP TABLE grants; DROP TABLE wakes; DROP TABLE tombstones; DROP TABLE session_deletions;
    PRAGMA user_version = 1;";

fn waking(id: &str) -> Command {
    waking_registration(id, SessionScope::frame("s", "f"))
}

async fn listed(log: &dyn ProcessLog, filter: ProcessListFilter) -> Vec<String> {
    match query(log, Query::Processes { filter, after: None, limit: 10 }).await {
        Answer::Processes(page) => page.records.iter().map(|record| record.id().to_string()).collect(),
        other => panic!("expected records, got {other:?}"),
    }
}

async fn is_granted(log: &dyn ProcessLog, session: &str, id: &str) -> bool {
    let asked = Query::HandleGrant { scope: SessionScope::session(session), process_id: process_id(id) };
    matches!(query(log, asked).await, Answer::HandleGrant(Some(_)))
}

fn rows_of_all_tables(backend: &SqliteBackend) -> BTreeMap<String, i64> {
    let connection = raw_connection(&backend.path());
    let mut select = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").expect("a schema");
    let tables: Vec<String> =
        select.query_map([], |row| row.get(0)).expect("tables").collect::<Result<_, _>>().expect("names");
    let count = |table: &String| {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    };
    tables.iter().map(|table| (table.clone(), count(table))).collect()
}

/// Writes what the golden file of the present version was made from: `FILE=… cargo test … -- --ignored`, then
/// `sqlite3 FILE .dump` with the two pragmas in front.
#[tokio::test]
#[ignore = "makes the material of a golden file, which is made once for each version"]
async fn make_golden_material() {
    let path = std::env::var("FILE").expect("FILE names the store to make");
    let log: Arc<dyn ProcessLog> = Arc::new(SqliteLog::open(&path, SqliteOptions::default()).expect("a store"));
    let (mut running, mut ended) = (Author::new("running"), Author::new("ended"));
    running.write(&*log, register("running")).await.expect("stored");
    running.write(&*log, output(1)).await.expect("stored");
    ended.write(&*log, register("ended")).await.expect("stored");
    ended.write(&*log, cancel()).await.expect("stored");
    ended.write(&*log, complete()).await.expect("stored");
    running.write(&*log, claim()).await.expect("stored");
    running.write(&*log, keyed_output("key")).await.expect("stored");
    ended.write(&*log, output(3)).await.expect("stored");
    log.close().await;
}

//! Backups of stores that are written meanwhile, and what becomes of a store that is restored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use registry_actor::domain::{
    ChangeCursor, Command, CursorFault, LeaseOwnerIdentity, LeaseOwnerLiveness, ObservedProcess,
    ProcessEventAppendRequest, Refusal, RegistryCommand, Sequence, SessionScope, StoreSession,
};
use registry_actor::log::{
    BackupCheck, BackupError, BackupProgress, EarlierSessions, ExistingStore, OpenError, SqliteLog, SqliteOptions,
    SqliteReader, WriterPoint, restore_backup,
};
use registry_actor::port::{Answer, EventPage, LogError, Position, ProcessLog, Query};
use registry_tests::crash_writer::{CrashFindings, CrashWriter, Syncing, check};
use registry_tests::log_author::{
    Author, OUTPUT, across, append, complete, grant, output, process_id, prune, submit_later,
};
use registry_tests::log_backend::{SqliteBackend, raw_connection};
use registry_tests::log_conformance::bounded;
use registry_tests::log_reading::{assert_whole, load};
use registry_tests::scoreboard::{self, RunRecord};
use serde_json::json;
use tempfile::TempDir;

/// Where a test keeps its stores and backups.
struct Shelf(TempDir);

impl Shelf {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, name: &str) -> SqliteLog {
        SqliteLog::open(self.path(name), SqliteOptions::default()).expect("a store")
    }

    /// What is there, without the side files of stores.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !["-wal", "-shm", ".lock"].iter().any(|suffix| name.ends_with(suffix)))
            .collect();
        names.sort();
        names
    }

    async fn restore(&self, from: &str, to: &str, existing: ExistingStore) -> Result<EarlierSessions, BackupError> {
        let restored = restore_backup(self.path(from), self.path(to), existing, going_on).await?;
        Ok(restored.earlier_sessions)
    }
}

fn going_on(_: BackupProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// An event of some size, so that a store of a few hundred has many pages.
fn bulk(number: u64) -> Command {
    append(ProcessEventAppendRequest::new(OUTPUT, json!({ "number": number, "bulk": "x".repeat(4_000) })))
}

/// Process and sequence of all events, in commit order.
async fn feed_of(reader: &SqliteReader) -> Vec<(String, u64)> {
    let (mut feed, mut after) = (Vec::new(), Position::default());
    loop {
        let page = reader.feed(after, EventPage::MAX_LIMIT).await.expect("the feed");
        for batch in &page.changes.batches {
            feed.extend(batch.events.iter().map(|event| (batch.process_id.to_string(), event.sequence.0)));
        }
        after = page.next;
        if !page.has_more {
            return feed;
        }
    }
}

async fn cursor_of(log: &dyn ProcessLog) -> ChangeCursor {
    match log.query(Query::Changes { after: None, limit: 10_000 }).await.expect("the changes") {
        Answer::Changes(page) => page.next,
        other => panic!("expected changes, got {other:?}"),
    }
}

async fn fault_of(log: &dyn ProcessLog, cursor: &ChangeCursor) -> Option<CursorFault> {
    match log.query(Query::Changes { after: Some(cursor.clone()), limit: 1 }).await {
        Ok(_) => None,
        Err(LogError::Refused(refusal)) => match *refusal {
            Refusal::Cursor(fault) => Some(fault),
            other => panic!("{other}"),
        },
        Err(error) => panic!("{error}"),
    }
}

/// 64 callers append while the store is copied. What was acknowledged before is in the copy, and the copy is the store as of
/// one commit: what it holds is a beginning of what the store holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_busy_store_is_a_beginning_of_it_and_holds_what_was_acknowledged() {
    let shelf = Shelf::new();
    let log = Arc::new(shelf.open("store.db"));
    let enough = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..64 {
        let (log, enough, acknowledged) = (Arc::clone(&log), Arc::clone(&enough), Arc::new(AtomicU64::new(0)));
        let told = Arc::clone(&acknowledged);
        let task = tokio::spawn(async move {
            let mut author = Author::registered(&*log, &format!("p{number}")).await;
            while !enough.load(Ordering::Relaxed) {
                let next = author.state.sequence.0 + 1;
                author.write(&*log, bulk(next)).await.expect("an append");
                told.store(next, Ordering::Release);
            }
            author.state.sequence
        });
        callers.push((acknowledged, task));
    }
    while callers.iter().any(|(acknowledged, _)| acknowledged.load(Ordering::Acquire) < 20) {
        tokio::task::yield_now().await;
    }
    let before: Vec<u64> = callers.iter().map(|(acknowledged, _)| acknowledged.load(Ordering::Acquire)).collect();

    let (to, steps) = (shelf.path("copy.db"), Arc::new(AtomicU64::new(0)));
    let (unseen, counted) = (to.clone(), Arc::clone(&steps));
    let report = log
        .backup(&to, BackupCheck::Everything, move |progress| {
            assert!(!unseen.exists(), "it has its name at {progress:?}");
            counted.fetch_add(1, Ordering::Relaxed);
            ControlFlow::Continue(())
        })
        .await
        .expect("a backup");
    let at_the_end: Vec<u64> = callers.iter().map(|(acknowledged, _)| acknowledged.load(Ordering::Acquire)).collect();
    enough.store(true, Ordering::Relaxed);
    for (_, task) in callers {
        task.await.expect("a caller");
    }
    assert!(at_the_end.iter().zip(&before).any(|(end, before)| end > before), "nobody appended meanwhile");
    assert!(steps.load(Ordering::Relaxed) > 64 + 4, "{steps:?} steps");
    assert_eq!(report.checked.expect("a check").processes, 64);
    assert_eq!(to.metadata().expect("the copy").permissions().mode() & 0o777, 0o600);
    assert_eq!(shelf.names(), ["copy.db", "store.db"]);

    let copy = SqliteReader::open(&to).expect("the copy can be read");
    let (held, all) = (feed_of(&copy).await, feed_of(&SqliteReader::open(shelf.path("store.db")).expect("it")).await);
    assert!(held.len() < all.len() && all.starts_with(&held), "{} of {} events", held.len(), all.len());
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, sequence) in &held {
        last.insert(id, *sequence);
    }
    for (number, acknowledged) in before.iter().enumerate() {
        assert!(last[format!("p{number}").as_str()] >= *acknowledged, "p{number} lost an acknowledged append");
    }
    assert_eq!(report.checked.expect("a check").events, held.len() as u64);
}

/// A copy that was stopped, or that nobody waits for any more, leaves nothing.
#[tokio::test]
async fn a_backup_that_is_stopped_leaves_nothing() {
    bounded(async {
        let shelf = Shelf::new();
        let log = shelf.open("store.db");
        let mut author = Author::registered(&log, "p").await;
        for number in 1..=400 {
            author.write(&log, bulk(number)).await.expect("an append");
        }
        for stop_at in 0..3 {
            let mut steps = 0;
            let stopped = log.backup(shelf.path("copy.db"), BackupCheck::Everything, move |_| {
                steps += 1;
                if steps > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(stopped.await.expect_err("stopped"), BackupError::Stopped);
            assert_eq!(shelf.names(), ["store.db"], "after {stop_at} steps");
        }
        // The first step is seen by the one who then goes away; the copying thread waits until it has gone.
        let (seen, is_seen) = tokio::sync::oneshot::channel();
        let (gone, is_gone) = std::sync::mpsc::channel::<()>();
        let mut seen = Some(seen);
        let backup = log.backup(shelf.path("copy.db"), BackupCheck::Everything, move |_| {
            if let Some(seen) = seen.take() {
                seen.send(()).expect("somebody waits");
                let _ = is_gone.recv();
            }
            ControlFlow::Continue(())
        });
        tokio::select! {
            _ = backup => panic!("it cannot end yet"),
            seen = is_seen => seen.expect("a step"),
        }
        drop(gone);
        while shelf.names() != ["store.db"] {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    Author::registered(&log, "p").await;
    std::fs::write(shelf.path("note"), "mine").expect("a note");
    std::os::unix::fs::symlink("nowhere", shelf.path("link")).expect("a link");
    for name in ["note", "store.db", "link"] {
        let refused = log.backup(shelf.path(name), BackupCheck::Nothing, going_on).await.expect_err("it is there");
        assert!(matches!(refused, BackupError::Exists { .. }), "{name}: {refused}");
    }
    assert_eq!(std::fs::read_to_string(shelf.path("note")).expect("the note"), "mine");
    // Nor what took the name while it was copied.
    let taken = shelf.path("late");
    let refused = log.backup(shelf.path("late"), BackupCheck::Nothing, move |_| {
        std::fs::write(&taken, "mine").expect("a note");
        ControlFlow::Continue(())
    });
    assert!(matches!(refused.await.expect_err("it is there"), BackupError::Exists { .. }));
    assert_eq!(std::fs::read_to_string(shelf.path("late")).expect("the note"), "mine");
    let nowhere = shelf.path("deeper").join("copy.db");
    let refused = log.backup(nowhere, BackupCheck::Nothing, going_on).await.expect_err("nowhere");
    assert!(matches!(refused, BackupError::Open(OpenError::NoDirectory { .. })), "{refused}");
    assert_eq!(shelf.names(), ["late", "link", "note", "store.db"]);
}

/// The log file of a store that was there before would be read as that of the backup.
#[tokio::test]
async fn a_backup_is_not_made_beside_what_is_left_of_a_store() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    Author::registered(&log, "p").await;
    std::fs::copy(shelf.path("store.db-wal"), shelf.path("copy.db-wal")).expect("a log file");
    let refused = log.backup(shelf.path("copy.db"), BackupCheck::Nothing, going_on).await.expect_err("it is there");
    assert!(matches!(&refused, BackupError::Exists { path } if path.ends_with("copy.db-wal")), "{refused}");
    assert_eq!(shelf.names(), ["store.db"]);
}

/// A store that has failed is whole again only when nobody reads it: a backup must not keep it from that.
#[tokio::test]
async fn a_backup_gives_way_to_a_store_that_failed() {
    bounded(async {
        let backend = SqliteBackend::default();
        let log = Arc::new(backend.try_open().expect("a store"));
        let mut author = Author::registered(&*log, "p").await;
        let (writing, gate) = (Arc::clone(&log), Arc::clone(&backend.gate));
        for number in 1..=100 {
            author.write(&*log, bulk(number)).await.expect("an append");
        }
        let batch = author.batch(&[output(101)]);
        let mut is_first = true;
        let copied = log.backup(backend.path().with_file_name("copy.db"), BackupCheck::Everything, move |_| {
            if std::mem::take(&mut is_first) {
                gate.fail_next(WriterPoint::BeforeCommit);
                gate.fail_next(WriterPoint::Reopen);
                submit_later(&*writing, batch.clone()).blocking_recv().expect("an answer").expect_err("it failed");
            }
            ControlFlow::Continue(())
        });
        let failed = copied.await.expect_err("the store failed");
        assert!(matches!(failed, BackupError::StoreFailed { .. }), "{failed}");
        assert!(!backend.path().with_file_name("copy.db").exists());
        while log.load(author.id(), 0).await.is_err() {
            tokio::task::yield_now().await;
        }
        author.write_outputs(&*log, 1).await;
        log.close().await;
    })
    .await;
}

/// Two owners of one store would each prove the other's death: so nobody can own a copy.
#[tokio::test]
async fn no_host_opens_a_backup() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    Author::registered(&log, "p").await;
    log.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    let error = SqliteLog::open(shelf.path("copy.db"), SqliteOptions::default()).expect_err("a backup");
    assert!(matches!(error, OpenError::Backup { .. }), "{error}");
    // Nor does anybody restore what is no backup.
    let refused = shelf.restore("store.db", "other.db", ExistingStore::Refuse).await.expect_err("a store");
    assert!(matches!(refused, BackupError::Open(OpenError::NotAStore { .. })), "{refused}");
    let refused = shelf.restore("nothing", "other.db", ExistingStore::Refuse).await.expect_err("nothing");
    assert!(matches!(refused, BackupError::Open(OpenError::Missing { .. })), "{refused}");
}

/// What a store was when it was copied, and what it is told apart by after it came back.
#[tokio::test]
async fn a_restored_store_goes_on_and_refuses_the_cursors_of_before() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    let mut author = Author::registered(&log, "p").await;
    author.write_outputs(&log, 3).await;
    let early = cursor_of(&log).await;
    log.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    let kept = author.clone();
    author.write_outputs(&log, 2).await;
    let late = cursor_of(&log).await;

    assert_eq!(
        shelf.restore("copy.db", "again.db", ExistingStore::Refuse).await.expect("restored"),
        EarlierSessions::Unknown
    );
    let again = shelf.open("again.db");
    let mut author = kept;
    assert_eq!(Some(load(&again, "p").await.head), author.head);
    author.write_outputs(&again, 4).await;
    assert_whole(&again, "p").await;
    for cursor in [&early, &late] {
        let fault = fault_of(&again, cursor).await.expect("a cursor of the original");
        assert!(matches!(fault, CursorFault::OtherEpoch { found: 1, .. }), "{fault}");
    }
    let anew = cursor_of(&again).await;
    assert_eq!(fault_of(&again, &anew).await, None);
    assert!(anew.to_string().starts_with(&early.to_string()[..36]), "{anew} names another store than {early}");
    assert!(matches!(fault_of(&log, &anew).await, Some(CursorFault::OtherEpoch { expected: 1, .. })));
    assert_eq!(load(&log, "p").await.head.sequence, Sequence(5), "the original is as it was");
}

/// However often, and from whichever backup: no two restorations have an epoch in common, and in one place they grow.
#[tokio::test]
async fn epochs_grow_over_repeated_restorations() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    Author::registered(&log, "p").await;
    log.backup(shelf.path("copy-0"), BackupCheck::Everything, going_on).await.expect("a backup");
    log.close().await;
    drop(log);
    let (mut epochs, mut sessions) = (vec![1], Vec::new());
    for round in 0..4 {
        // By turns the newest backup and the oldest.
        let from = shelf.path(&if round % 2 == 0 { "copy-0".to_owned() } else { format!("copy-{round}") });
        let restored = restore_backup(from, shelf.path("store.db"), ExistingStore::Replace, going_on).await;
        let restored = restored.expect("restored");
        assert!(epochs.iter().all(|epoch| restored.epoch > *epoch), "{} after {epochs:?}", restored.epoch);
        assert_eq!(restored.earlier_sessions, EarlierSessions::Over);
        epochs.push(restored.epoch);
        let log = shelf.open("store.db");
        sessions.push(log.session().clone());
        log.backup(shelf.path(&format!("copy-{}", round + 1)), BackupCheck::Nothing, going_on).await.expect("a backup");
        log.close().await;
    }
    assert!(sessions.is_sorted_by(|one, next| one.is_earlier_session_of_same_store(next)), "{sessions:?}");
    let mut apart = Vec::new();
    for number in 0..4 {
        let to = shelf.path(&format!("apart-{number}"));
        let restored = restore_backup(shelf.path("copy-0"), &to, ExistingStore::Refuse, going_on).await;
        apart.push(restored.expect("restored").epoch);
    }
    apart.sort_unstable();
    apart.dedup();
    assert_eq!(apart.len(), 4, "two restorations of one backup have one epoch");
}

fn is_proved_dead(of: &StoreSession, by: &StoreSession) -> bool {
    let owner = LeaseOwnerIdentity {
        owner_id: "host".to_owned(),
        incarnation_id: "1".to_owned(),
        liveness: LeaseOwnerLiveness::StoreSession { session: of.clone() },
    };
    owner.liveness.is_definitely_dead_for(&LeaseOwnerLiveness::Opaque, by, &ObservedProcess::Unknown)
}

/// The original's host lives. However often either store is opened, neither proves the death of a host of the other.
#[tokio::test]
async fn a_copy_and_its_original_prove_nothing_of_each_other() {
    let shelf = Shelf::new();
    let original = shelf.open("store.db");
    original.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    let mut originals = vec![original.session().clone()];
    for name in ["one.db", "two.db"] {
        shelf.restore("copy.db", name, ExistingStore::Refuse).await.expect("restored");
    }
    original.close().await;
    drop(original);
    let mut copies = Vec::new();
    for _ in 0..5 {
        originals.push(shelf.open("store.db").session().clone());
        for name in ["one.db", "two.db"] {
            copies.push(shelf.open(name).session().clone());
        }
    }
    for copy in &copies {
        for original in &originals {
            assert!(!is_proved_dead(original, copy), "{copy} proves the death of {original}");
            assert!(!is_proved_dead(copy, original), "{original} proves the death of {copy}");
        }
    }
    assert!(!is_proved_dead(&copies[0], &copies[9]), "two copies prove nothing of each other");
    assert!(is_proved_dead(&copies[0], &copies[8]), "one copy is opened by one host at a time");
    // Who only reads judges as the next host would. It judged by the name of the original, and took its living hosts for dead.
    let judging =
        SqliteReader::open(shelf.path("one.db")).expect("a reader").judging_session().await.expect("a session");
    assert!(is_proved_dead(&copies[8], &judging), "{judging} proves the death of {}", copies[8]);
    for original in &originals {
        assert!(!is_proved_dead(original, &judging), "{judging} proves the death of {original}");
    }
}

/// Where the original was replaced under its own lock, its hosts are over, those since the backup included.
#[tokio::test]
async fn a_store_that_replaced_its_original_proves_the_end_of_its_hosts() {
    let shelf = Shelf::new();
    let original = shelf.open("store.db");
    original.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    original.close().await;
    drop(original);
    let mut since = Vec::new();
    for _ in 0..3 {
        since.push(shelf.open("store.db").session().clone());
    }
    assert_eq!(
        shelf.restore("copy.db", "store.db", ExistingStore::Replace).await.expect("restored"),
        EarlierSessions::Over
    );
    let restored = shelf.open("store.db");
    for session in &since {
        assert!(is_proved_dead(session, restored.session()), "{session} by {}", restored.session());
    }
    // Another store in its place, or a copy of it that lives elsewhere, is not the original.
    restored.close().await;
    drop(restored);
    shelf.restore("copy.db", "elsewhere.db", ExistingStore::Refuse).await.expect("restored");
    assert_eq!(
        shelf.restore("copy.db", "elsewhere.db", ExistingStore::Replace).await.expect("restored"),
        EarlierSessions::Unknown
    );
    drop(shelf.open("foreign.db"));
    assert_eq!(
        shelf.restore("copy.db", "foreign.db", ExistingStore::Replace).await.expect("restored"),
        EarlierSessions::Unknown
    );
}

#[tokio::test]
async fn a_store_that_stands_there_is_replaced_only_when_told_and_never_under_its_host() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    let mut author = Author::registered(&log, "p").await;
    log.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    author.write_outputs(&log, 2).await;
    let refused = shelf.restore("copy.db", "store.db", ExistingStore::Refuse).await.expect_err("it is there");
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");
    let refused = shelf.restore("copy.db", "store.db", ExistingStore::Replace).await.expect_err("it is owned");
    assert!(matches!(refused, BackupError::Open(OpenError::Owned { .. })), "{refused}");
    log.close().await;
    drop(log);
    std::fs::write(shelf.path("letter"), "dear reader, this is no database at all").expect("a letter");
    let refused = shelf.restore("copy.db", "letter", ExistingStore::Replace).await.expect_err("no store");
    assert!(matches!(refused, BackupError::NoStore { .. }), "{refused}");
    // A store that is broken beyond opening was refused without a word of what to do.
    let mut broken = std::fs::read(shelf.path("store.db")).expect("the store");
    broken[100..200].fill(0xff);
    std::fs::write(shelf.path("broken.db"), &broken).expect("a copy");
    let refused = shelf.restore("copy.db", "broken.db", ExistingStore::Replace).await.expect_err("it cannot be opened");
    assert!(matches!(&refused, BackupError::NoStore { .. }), "{refused}");
    assert!(refused.to_string().contains("move it away"), "{refused}");
    assert_eq!(std::fs::read(shelf.path("broken.db")).expect("still there"), broken);
    // A log file without its store is somebody's: it would be read as that of the new store.
    std::fs::write(shelf.path("new.db-wal"), "x").expect("a file");
    let refused = shelf.restore("copy.db", "new.db", ExistingStore::Refuse).await.expect_err("a log file");
    assert!(matches!(&refused, BackupError::Exists { path } if path.ends_with("new.db-wal")), "{refused}");
    let log = shelf.open("store.db");
    assert_eq!(Some(load(&log, "p").await.head), author.head, "nothing of it was touched");
}

/// The host of the store was killed and left a log file. What it holds belongs to the store that goes, not to the one that comes.
#[tokio::test]
async fn the_log_file_of_a_killed_host_does_not_come_back_in_the_restored_store() {
    let shelf = Shelf::new();
    let store = shelf.path("store.db");
    let writer = Path::new(env!("CARGO_BIN_EXE_crash-writer"));
    let first = CrashWriter::start(writer, &store, Syncing::Full, 1);
    first.wait_for(200);
    let early = first.kill();
    let reader = SqliteReader::open(&store).expect("a reader");
    let copied = reader.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    drop(reader);
    let second = CrashWriter::start(writer, &store, Syncing::Full, 2);
    second.wait_for(200);
    drop(second.kill());
    assert!(shelf.path("store.db-wal").metadata().expect("a log file").len() > 0);
    shelf.restore("copy.db", "store.db", ExistingStore::Replace).await.expect("restored");
    let held = feed_of(&SqliteReader::open(shelf.path("copy.db")).expect("the copy")).await;
    assert_eq!(held.len() as u64, copied.checked.expect("a check").events);
    assert_eq!(feed_of(&SqliteReader::open(&store).expect("the store")).await, held);
    assert_eq!(check(&store, &early, &[], 1).await.findings, CrashFindings::default());
}

/// What no check of a process meets, and what every check does.
#[tokio::test]
async fn a_damaged_backup_is_refused_and_a_damaged_store_is_not_backed_up() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    let mut author = Author::registered(&log, "p").await;
    author.write_outputs(&log, 3).await;
    let mut gone = Author::registered(&log, "gone").await;
    gone.write(&log, complete()).await.expect("an end");
    across(&log, grant("s", "p")).await.expect("a grant");
    across(&log, RegistryCommand::DeleteSession { session_id: "s".to_owned() }).await.expect("a deletion");
    across(&log, prune()).await.expect("a prune");
    log.backup(shelf.path("good"), BackupCheck::Everything, going_on).await.expect("a backup");
    for (what, damage) in [
        ("event", "UPDATE events SET data = CAST('{\"payload\":null}' AS BLOB) WHERE sequence = 2"),
        ("head", "UPDATE heads SET sequence = sequence + 1"),
        ("record", "UPDATE processes SET body = CAST('{}' AS BLOB)"),
        ("tombstone", "UPDATE tombstones SET generation = 7"),
        ("deletion", "UPDATE session_deletions SET position = position + 1"),
        ("process", "DELETE FROM heads"),
    ] {
        std::fs::copy(shelf.path("good"), shelf.path("bad")).expect("a copy");
        assert_ne!(raw_connection(&shelf.path("bad")).execute(damage, []).expect(what), 0);
        let refused = shelf.restore("bad", "restored.db", ExistingStore::Refuse).await.expect_err(what);
        assert!(matches!(refused, BackupError::Damaged { .. }), "{what}: {refused}");
        assert!(!shelf.path("restored.db").exists());
    }
    log.close().await;
    drop(log);
    raw_connection(&shelf.path("store.db")).execute("UPDATE events SET at_ms = 5 WHERE sequence = 2", []).expect("it");
    let log = shelf.open("store.db");
    let refused = log.backup(shelf.path("late"), BackupCheck::Everything, going_on).await.expect_err("damaged");
    assert!(matches!(refused, BackupError::Damaged { .. }), "{refused}");
    assert!(!shelf.path("late").exists());
    log.backup(shelf.path("late"), BackupCheck::Nothing, going_on).await.expect("as good as the store");
    let names = shelf.names();
    assert!(names.iter().all(|name| !name.ends_with(".incomplete")), "{names:?}");
}

/// Any byte of the file: either the damage is found, or the byte means nothing and what is restored is what was there.
#[tokio::test]
async fn a_flipped_byte_is_found_or_means_nothing() {
    let seed = std::env::var("PROCTOR_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 =
        seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.subsec_nanos().into()));
    println!("PROCTOR_SEED={seed}");
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    let scope = SessionScope::session("s");
    for id in ["p", "q"] {
        let mut author = Author::new(id);
        author.write(&log, registry_tests::log_author::waking_registration(id, scope.clone())).await.expect("it");
        author.write_outputs(&log, 4).await;
        author.write(&log, registry_tests::log_author::alarm(1)).await.expect("an alarm");
    }
    log.backup(shelf.path("good"), BackupCheck::Everything, going_on).await.expect("a backup");
    let good = std::fs::read(shelf.path("good")).expect("the backup");
    let held = feed_of(&SqliteReader::open(shelf.path("good")).expect("it")).await;
    let (mut state, mut found) = (seed, 0);
    let rounds: u64 = std::env::var("PROCTOR_FLIPPED_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    for round in 0..rounds {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = usize::try_from((state >> 16) % good.len() as u64).expect("a place");
        // Half of them where something is written: most of a small file is empty.
        let place = if round % 2 == 0 { place } else { (place..good.len()).find(|at| good[*at] != 0).unwrap_or(place) };
        let mut bad = good.clone();
        bad[place] ^= 1 << (state % 8);
        std::fs::write(shelf.path("bad"), bad).expect("a file");
        let to = shelf.path(&format!("restored-{round}.db"));
        match restore_backup(shelf.path("bad"), &to, ExistingStore::Refuse, going_on).await {
            Err(_) => {
                assert!(!to.exists(), "byte {place}");
                found += 1;
            }
            Ok(_) => assert_eq!(feed_of(&SqliteReader::open(&to).expect("it")).await, held, "byte {place}"),
        }
    }
    assert!(found > 20, "{found} of {rounds} were found");
    println!("{found} of {rounds} flipped bytes were found, the others meant nothing");
    scoreboard::record(&RunRecord {
        name: "flipped-bytes-of-backups".to_owned(),
        what: "A bit of a backup is flipped: it is refused, or what is restored is what was backed up".to_owned(),
        ran: rounds,
        unit: "flipped bits".to_owned(),
        seed: Some(seed),
        violations: 0,
        measured: [("refused".to_owned(), found.to_string())].into(),
        not_run: None,
    });
}

#[tokio::test]
async fn a_backup_of_a_reader_without_a_host_is_a_backup() {
    let shelf = Shelf::new();
    let log = shelf.open("store.db");
    Author::registered(&log, "p").await;
    log.close().await;
    drop(log);
    let reader = SqliteReader::open(shelf.path("store.db")).expect("a reader");
    reader.backup(shelf.path("copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    // A backup of a backup is one too.
    let copy = SqliteReader::open(shelf.path("copy.db")).expect("a reader");
    copy.backup(shelf.path("copy-of-copy.db"), BackupCheck::Everything, going_on).await.expect("a backup");
    shelf.restore("copy-of-copy.db", "again.db", ExistingStore::Refuse).await.expect("restored");
    assert!(load(&shelf.open("again.db"), "p").await.record.id() == &process_id("p"));
}

//! Short ways to ask a log what it holds, and to hear what it tells.

use std::sync::{Arc, Mutex};

use registry_actor::domain::{ProcessEvent, ProcessRecord, Sequence};
use registry_actor::domain::{ProcessListFilter, ProcessStatusFilter};
use registry_actor::port::{
    Answer, CommitFollower, CommittedBatch, CommittedGroup, EventPage, LogError, Position, ProcessLog, ProcessPage,
    Query, StoredProcess,
};
use tokio::sync::mpsc;

use crate::log_author::process_id;

/// A follower that passes on what it hears.
pub struct Listener {
    groups: Mutex<mpsc::UnboundedSender<CommittedGroup>>,
    after: Mutex<Position>,
}

impl Listener {
    /// Attaches one to the log.
    pub fn attach(log: &dyn ProcessLog) -> (Arc<Self>, mpsc::UnboundedReceiver<CommittedGroup>) {
        let (groups, heard) = mpsc::unbounded_channel();
        let listener = Arc::new(Self { groups: Mutex::new(groups), after: Mutex::new(Position::default()) });
        let follower: Arc<dyn CommitFollower> = Arc::clone(&listener) as _;
        *listener.after.lock().expect("a lock") = log.follow(Arc::downgrade(&follower));
        (listener, heard)
    }

    /// The position after which it hears everything.
    pub fn after(&self) -> Position {
        *self.after.lock().expect("a lock")
    }
}

impl CommitFollower for Listener {
    fn follow(&self, group: &CommittedGroup) {
        let _ = self.groups.lock().expect("a lock").send(group.clone());
    }
}

/// The stored process, once the log answers for it again after a failure.
pub async fn settled(log: &dyn ProcessLog, id: &str, operation_tail: u32) -> StoredProcess {
    loop {
        match log.load(&process_id(id), operation_tail).await {
            Ok(stored) => return stored.expect("a process"),
            Err(LogError::Unreadable { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The stored process.
pub async fn load(log: &dyn ProcessLog, id: &str) -> StoredProcess {
    log.load(&process_id(id), 0).await.expect("a load").expect("a process")
}

/// The stored record.
pub async fn record(log: &dyn ProcessLog, id: &str) -> Arc<ProcessRecord> {
    match query(log, Query::Process { process_id: process_id(id) }).await {
        Answer::Process(Some(record)) => record,
        other => panic!("expected a record, got {other:?}"),
    }
}

/// A page of events.
pub async fn events_page(log: &dyn ProcessLog, id: &str, after: u64, limit: u32) -> EventPage {
    match query(log, Query::Events { process_id: process_id(id), after: Sequence(after), limit }).await {
        Answer::Events(page) => page,
        other => panic!("expected events, got {other:?}"),
    }
}

/// All events but the registration.
pub async fn all_events(log: &dyn ProcessLog, id: &str) -> Vec<Arc<ProcessEvent>> {
    let page = events_page(log, id, 0, EventPage::MAX_LIMIT).await;
    assert!(!page.has_more);
    page.events
}

/// Fails unless nothing is wrong with the process.
pub async fn assert_whole(log: &dyn ProcessLog, id: &str) {
    let verification = log.verify(&process_id(id)).await.expect("a check");
    assert_eq!(verification.faults, [], "faults of {id}");
}

/// Process and sequence of everything in the feed.
pub async fn whole_feed(log: &dyn ProcessLog) -> Vec<(String, u64)> {
    let page = log.feed(Position::default(), EventPage::MAX_LIMIT).await.expect("the feed");
    assert!(!page.has_more);
    let mut seen = Vec::new();
    collect(&page.changes.batches, &mut seen);
    seen
}

/// Adds process and sequence of each event.
pub fn collect(batches: &[CommittedBatch], seen: &mut Vec<(String, u64)>) {
    for batch in batches {
        assert!(!batch.events.is_empty());
        seen.extend(batch.events.iter().map(|event| (batch.process_id.to_string(), event.sequence.0)));
    }
}

/// The answer to a read that must succeed.
pub async fn query(log: &dyn ProcessLog, asked: Query) -> Answer {
    log.query(asked).await.expect("an answer")
}

/// A page of records.
pub async fn list(log: &dyn ProcessLog, status: ProcessStatusFilter, after: Option<&str>, limit: u32) -> ProcessPage {
    let asked = Query::Processes { filter: ProcessListFilter::of_status(status), after: after.map(process_id), limit };
    match query(log, asked).await {
        Answer::Processes(page) => page,
        other => panic!("expected records, got {other:?}"),
    }
}

/// The ids of a page.
#[must_use]
pub fn ids(page: &ProcessPage) -> Vec<String> {
    page.records.iter().map(|record| record.id().to_string()).collect()
}

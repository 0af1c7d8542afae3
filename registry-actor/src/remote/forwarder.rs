//! Tells connections of commits: it listens to the registry that is served, writes each notice once, and puts it into the
//! backlog of every connection that follows. It waits for none of them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::bytes::Bytes;

use super::backlog::{Backlog, Taken};
use super::frame;
use super::message::ServerMessage;
use crate::domain::{SessionDeletion, Tombstone};
use crate::port::{CommitListener, CommittedBatch};

/// How many events may wait to be written down. The publisher does not wait for that: what exceeds it is missed.
const EVENTS_WAITING: usize = 65_536;

/// News for one connection, as they are sent.
pub(super) type Notices = Backlog<Bytes>;

/// The forwarder.
pub(super) struct Forwarder {
    told: Backlog<Told>,
    /// Each is kept by its connection.
    following: Mutex<Vec<Weak<Notices>>>,
}

enum Told {
    Committed(Vec<CommittedBatch>),
    Pruned(Vec<Tombstone>),
    SessionsDeleted(Vec<SessionDeletion>),
    Resync,
    Closed,
}

impl Forwarder {
    pub(super) const fn new() -> Self {
        Self { told: Backlog::new(EVENTS_WAITING), following: Mutex::new(Vec::new()) }
    }

    /// The news of a connection, of every commit from now on.
    pub(super) fn follow(&self, backlog_bytes: usize) -> Arc<Notices> {
        let notices = Arc::new(Notices::new(backlog_bytes));
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.retain(|known| known.strong_count() > 0);
        following.push(Arc::downgrade(&notices));
        notices
    }

    /// Writes down and hands on, without end.
    pub(super) async fn run(&self) {
        loop {
            let notice = match self.told.take().await {
                Taken::Missed | Taken::News(Told::Resync) => None,
                Taken::News(Told::Committed(batches)) => {
                    Some(ServerMessage::Committed { batches: batches.iter().map(Into::into).collect() })
                }
                Taken::News(Told::Pruned(tombstones)) => Some(ServerMessage::Pruned { tombstones }),
                Taken::News(Told::SessionsDeleted(deletions)) => Some(ServerMessage::SessionsDeleted { deletions }),
                Taken::News(Told::Closed) => Some(ServerMessage::SourceClosed),
            };
            self.hand_on(notice.and_then(|notice| frame::encode(&notice).ok()));
            // A registry that commits without a pause does not keep the connections from sending.
            tokio::task::yield_now().await;
        }
    }

    /// `None`: something was missed.
    fn hand_on(&self, notice: Option<Bytes>) {
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for notices in following.iter().filter_map(Weak::upgrade) {
            match &notice {
                Some(notice) => notices.push(notice.clone(), notice.len()),
                None => notices.miss(),
            }
        }
    }

    fn hear(&self, told: impl FnOnce() -> Told, events: usize) {
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        if following.iter().any(|notices| notices.strong_count() > 0) {
            drop(following);
            self.told.push(told(), events);
        }
    }
}

impl CommitListener for Forwarder {
    fn committed(&self, batches: &[CommittedBatch]) {
        let events = batches.iter().map(|batch| batch.events.len()).sum();
        self.hear(|| Told::Committed(batches.to_vec()), events);
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        self.hear(|| Told::Pruned(tombstones.to_vec()), tombstones.len());
    }

    fn sessions_deleted(&self, deletions: &[SessionDeletion]) {
        self.hear(|| Told::SessionsDeleted(deletions.to_vec()), deletions.len());
    }

    fn resync(&self) {
        self.hear(|| Told::Resync, 1);
    }

    fn closed(&self) {
        self.hear(|| Told::Closed, 1);
    }
}

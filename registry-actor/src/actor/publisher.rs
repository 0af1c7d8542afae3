//! The publisher: tells listeners of committed groups, one at a time and in position order.
//!
//! It does not belong to the actors of processes: one that is killed between commit and reply must cost nobody a
//! wake-up. It goes on from the last published position out of the feed, or, where the feed cannot be read, asks the
//! listeners to read everything anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::port::{ChangeSource, CommitFollower, CommittedBatch, CommittedGroup, Position, ProcessLog};

/// How many groups may wait for the publisher. What exceeds it is read from the feed later.
const GROUPS_WAITING: usize = 1_024;
/// How many events one page of the feed holds.
const FEED_PAGE: u32 = 1_000;

/// The publisher.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublisherActor;

/// What the publisher hears.
#[derive(Debug)]
pub(super) enum PublisherMessage {
    /// A group is durable.
    Group(CommittedGroup),
    /// End, after what is queued: the log is closed.
    ShutDown,
}

/// What the publisher is started with. It outlives every incarnation.
#[derive(Debug, Clone)]
pub(super) struct PublisherArguments {
    pub(super) log: Arc<dyn ProcessLog>,
    pub(super) source: ChangeSource,
    pub(super) line: Arc<PublisherLine>,
}

/// The line from the log's writer to whichever publisher lives now.
#[derive(Debug, Default)]
pub(super) struct PublisherLine {
    publisher: Mutex<Option<ActorRef<PublisherMessage>>>,
    waiting: AtomicUsize,
    published: Mutex<Position>,
}

impl PublisherLine {
    pub(super) fn start_after(&self, position: Position) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    fn published(&self) -> Position {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitFollower for PublisherLine {
    fn follow(&self, group: &CommittedGroup) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= GROUPS_WAITING {
            // The next group that fits shows the gap, and the feed fills it.
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent = publisher.is_some_and(|publisher| publisher.cast(PublisherMessage::Group(group.clone())).is_ok());
        if !sent {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Actor for PublisherActor {
    type Msg = PublisherMessage;
    type State = PublisherArguments;
    type Arguments = PublisherArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        arguments.line.waiting.store(0, Ordering::Relaxed);
        *arguments.line.publisher.lock().unwrap_or_else(PoisonError::into_inner) = Some(myself);
        Ok(arguments)
    }

    /// A predecessor may have died with groups in its mailbox.
    async fn post_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        publisher: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        publisher.catch_up().await;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        publisher: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PublisherMessage::Group(group) => {
                // A counter that a restart set to zero must not wrap under messages of the time before.
                let _ = publisher
                    .line
                    .waiting
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| waiting.checked_sub(1));
                if group.previous > publisher.line.published() {
                    publisher.catch_up().await;
                }
                if group.position > publisher.line.published() {
                    publisher.tell(&group.batches);
                    publisher.line.start_after(group.position);
                }
            }
            PublisherMessage::ShutDown => {
                // The log is closed and its last groups came before this message. Whoever still waits is told that the
                // source has ended.
                publisher.source.close();
                myself.stop(Some("shut down".to_owned()));
            }
        }
        Ok(())
    }
}

impl PublisherArguments {
    async fn catch_up(&self) {
        loop {
            match self.log.feed(self.line.published(), FEED_PAGE).await {
                Ok(page) => {
                    self.tell(&page.batches);
                    self.line.start_after(page.next.max(self.line.published()));
                    if !page.has_more {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the feed cannot be read: listeners are asked to read everything anew");
                    for listener in self.source.listeners() {
                        guarded(|| listener.resync());
                    }
                    return;
                }
            }
        }
    }

    fn tell(&self, batches: &[CommittedBatch]) {
        if batches.is_empty() {
            return;
        }
        for listener in self.source.listeners() {
            guarded(|| listener.committed(batches));
        }
    }
}

/// One listener's panic is not the others' loss.
fn guarded(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a commit listener panicked");
    }
}

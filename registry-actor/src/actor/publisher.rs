//! The publisher: tells listeners of committed groups, one at a time and in position order.
//!
//! It does not belong to the actors of processes: one that is killed between commit and reply must cost nobody a
//! wake-up. It goes on from the last published position out of the feed, or, where the feed cannot be read, asks the
//! listeners to read everything anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::environment::Environment;
use super::tree::{Life, Member};
use crate::port::{ChangeSource, CommitFollower, CommittedBatch, CommittedGroup, FaultPoint, GroupChanges, Position};

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
    /// Groups were left out because too many wait: read them from the feed.
    Behind,
    /// End, after what is queued: nothing writes any more.
    ShutDown,
}

/// What the publisher is started with. It outlives every incarnation.
#[derive(Debug, Clone)]
pub(super) struct PublisherArguments {
    pub(super) environment: Arc<Environment>,
    pub(super) source: ChangeSource,
    pub(super) line: Arc<PublisherLine>,
}

/// What the publisher knows.
pub(super) struct Publisher {
    arguments: PublisherArguments,
    receiver: Arc<Receiver>,
    _life: Life,
}

/// The line from the log's writer to whichever publisher lives now.
#[derive(Debug, Default)]
pub(super) struct PublisherLine {
    publisher: Mutex<Option<Arc<Receiver>>>,
    published: Mutex<Position>,
}

/// One life of the publisher. What waits is counted for each life anew: the messages of one that was killed are never
/// taken off its count.
#[derive(Debug)]
pub(super) struct Receiver {
    actor: ActorRef<PublisherMessage>,
    waiting: AtomicUsize,
    /// Whether a message is on its way that says that groups were left out. One is enough, and without it the last
    /// group before a silence would be told to nobody.
    told_behind: AtomicBool,
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
        let Some(publisher) = self.publisher.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return;
        };
        // A refused message is no loss: the publisher has ended, and its successor begins with the feed.
        if publisher.waiting.fetch_add(1, Ordering::Relaxed) < GROUPS_WAITING {
            drop(publisher.actor.cast(PublisherMessage::Group(group.clone())));
            return;
        }
        publisher.waiting.fetch_sub(1, Ordering::Relaxed);
        if !publisher.told_behind.swap(true, Ordering::AcqRel) {
            drop(publisher.actor.cast(PublisherMessage::Behind));
        }
    }
}

impl Actor for PublisherActor {
    type Msg = PublisherMessage;
    type State = Publisher;
    type Arguments = PublisherArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let receiver =
            Arc::new(Receiver { actor: myself, waiting: AtomicUsize::new(0), told_behind: AtomicBool::new(false) });
        *arguments.line.publisher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&receiver));
        let life = Life::begin(&arguments.environment, Member::Publisher);
        Ok(Publisher { arguments, receiver, _life: life })
    }

    /// A predecessor may have died with groups in its mailbox.
    async fn post_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        publisher: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        publisher.arguments.catch_up().await;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        Publisher { arguments: publisher, receiver, .. }: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PublisherMessage::Behind => {
                // First the flag, then the feed: what is left out after the feed was read is announced anew.
                let _ = receiver.told_behind.swap(false, Ordering::AcqRel);
                publisher.catch_up().await;
            }
            PublisherMessage::Group(group) => {
                receiver.waiting.fetch_sub(1, Ordering::Relaxed);
                if group.previous > publisher.line.published() {
                    publisher.catch_up().await;
                }
                if group.position > publisher.line.published() {
                    publisher.tell(&group.changes);
                    publisher.line.start_after(group.position);
                }
            }
            PublisherMessage::ShutDown => {
                // The writer answers its callers before it tells of their group: the last one may still be on its way, and
                // whoever observes has nothing that wakes it afterwards. The feed has it.
                publisher.catch_up().await;
                publisher.source.close();
                myself.stop(Some("shut down".to_owned()));
            }
        }
        Ok(())
    }
}

impl PublisherArguments {
    /// Tells what the feed has after what was told last. Told twice, it has nothing the second time.
    pub(super) async fn catch_up(&self) {
        loop {
            match self.environment.log.feed(self.line.published(), FEED_PAGE).await {
                Ok(page) => {
                    self.tell(&page.changes);
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

    fn tell(&self, GroupChanges { batches, pruned, sessions_deleted }: &GroupChanges) {
        self.reached(FaultPoint::BeforeTell, batches);
        for listener in self.source.listeners() {
            if !batches.is_empty() {
                guarded(|| listener.committed(batches));
            }
            if !pruned.is_empty() {
                guarded(|| listener.pruned(pruned));
            }
            if !sessions_deleted.is_empty() {
                guarded(|| listener.sessions_deleted(sessions_deleted));
            }
        }
        self.reached(FaultPoint::AfterTell, batches);
    }

    fn reached(&self, point: FaultPoint, batches: &[CommittedBatch]) {
        for batch in batches {
            self.environment.reached(point, &batch.process_id);
        }
    }
}

/// One listener's panic is not the others' loss.
fn guarded(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a commit listener panicked");
    }
}

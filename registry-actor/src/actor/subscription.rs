//! An actor's subscription to a process.
//!
//! Mailboxes have no bound, so a subscription has at most one message in its subscriber's mailbox. What is committed
//! meanwhile is gathered in the [`Inbox`], which is bounded, and is sent as one message when the first is dropped. Nothing
//! is silent by construction: whatever is not sent is in the inbox, as itself or as what was missed, and an inbox that
//! holds something has a message under way whose end empties it.

mod inbox;
mod table;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use inbox::Inbox;
use ractor::{ActorRef, Message};

use super::news::{ProcessNews, Told, Turn};
use crate::domain::ProcessId;

pub(super) use table::SubscriptionTable;

/// A subscription of an actor to a process, made by [`ActorRegistry::subscribe`](super::ActorRegistry::subscribe). Its drop
/// ends it; a message that is on its way may still arrive.
#[must_use = "its drop ends the subscription"]
pub struct ProcessSubscription {
    subscriber: Arc<Subscriber>,
    /// The source knows it weakly: whoever is subscribed hears on when nobody holds the registry any more.
    _table: Arc<SubscriptionTable>,
}

/// The line to one subscriber.
pub(super) struct Subscriber {
    process_id: ProcessId,
    number: u64,
    table: Weak<SubscriptionTable>,
    /// Makes a message of news and sends it; answers whether the subscriber takes messages.
    send: Box<dyn Fn(ProcessNews) -> bool + Send + Sync>,
    line: Mutex<Line>,
}

struct Line {
    stage: Stage,
    inbox: Inbox,
}

/// Where the one turn is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Here: the inbox is empty.
    Idle,
    /// With a thread that makes a message and sends it. Others only gather, so messages cannot overtake each other.
    Sending,
    /// It came back before its sender was done: the sender goes on.
    Returned,
    /// In a mailbox, or with the subscriber.
    UnderWay,
    /// Nothing is sent any more.
    Ended,
}

impl ProcessSubscription {
    /// The process.
    #[must_use]
    pub fn process_id(&self) -> &ProcessId {
        &self.subscriber.process_id
    }
}

impl Drop for ProcessSubscription {
    fn drop(&mut self) {
        self.subscriber.end();
    }
}

impl fmt::Debug for ProcessSubscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProcessSubscription").field("process_id", self.process_id()).finish_non_exhaustive()
    }
}

impl Subscriber {
    fn new<M: Message>(
        process_id: ProcessId,
        number: u64,
        table: Weak<SubscriptionTable>,
        inbox: Inbox,
        subscriber: ActorRef<M>,
        wrap: impl Fn(ProcessNews) -> M + Send + Sync + 'static,
    ) -> Self {
        let send = Box::new(move |news| subscriber.cast(wrap(news)).is_ok());
        Self { process_id, number, table, send, line: Mutex::new(Line { stage: Stage::Idle, inbox }) }
    }

    /// Gathers something, and sends it if nothing is under way.
    fn tell(self: &Arc<Self>, gather: impl FnOnce(&mut Inbox)) {
        let next = {
            let mut line = self.line();
            match line.stage {
                Stage::Ended => return,
                Stage::Idle => {
                    gather(&mut line.inbox);
                    line.next()
                }
                Stage::Sending | Stage::Returned | Stage::UnderWay => {
                    gather(&mut line.inbox);
                    None
                }
            }
        };
        self.send(next);
    }

    /// The subscriber has done with a message.
    pub(super) fn take_turn_back(self: &Arc<Self>) {
        let next = {
            let mut line = self.line();
            match line.stage {
                Stage::Sending => {
                    line.stage = Stage::Returned;
                    None
                }
                Stage::UnderWay => line.next(),
                Stage::Idle | Stage::Returned | Stage::Ended => None,
            }
        };
        self.send(next);
    }

    /// Sends, outside of the lock: making the message is the host's code, and a refused message gives its turn back here.
    fn send(self: &Arc<Self>, mut next: Option<Told>) {
        while let Some(told) = next {
            let news = ProcessNews { process_id: self.process_id.clone(), told, _turn: Turn(Arc::downgrade(self)) };
            let sent = catch_unwind(AssertUnwindSafe(|| (self.send)(news))).unwrap_or_else(|_| {
                tracing::error!(process_id = %self.process_id, "making a subscriber's message panicked: it is subscribed no more");
                false
            });
            if !sent {
                self.end();
                return;
            }
            let mut line = self.line();
            next = match line.stage {
                Stage::Returned => line.next(),
                Stage::Sending => {
                    line.stage = Stage::UnderWay;
                    None
                }
                Stage::Idle | Stage::UnderWay | Stage::Ended => None,
            };
        }
    }

    fn end(&self) {
        {
            let mut line = self.line();
            line.stage = Stage::Ended;
            line.inbox.clear();
        }
        if let Some(table) = self.table.upgrade() {
            table.remove(&self.process_id, self.number);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn next(&mut self) -> Option<Told> {
        let next = self.inbox.next();
        self.stage = if next.is_some() { Stage::Sending } else { Stage::Idle };
        next
    }
}

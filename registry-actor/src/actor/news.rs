//! What a subscribed actor hears of its process.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use super::subscription::Subscriber;
use crate::domain::{ProcessEvent, ProcessId, ProcessRecord, Sequence, Tombstone};

/// One message of a [`ProcessSubscription`](super::ProcessSubscription).
///
/// It holds the subscription's only turn: the next one is sent when this one is dropped, and says everything that came
/// meanwhile. So keep what it tells, not the message itself.
#[derive(Debug)]
pub struct ProcessNews {
    /// The process.
    pub process_id: ProcessId,
    /// What became of it.
    pub told: Told,
    pub(super) _turn: Turn,
}

/// What became of a process.
#[derive(Debug, Clone)]
pub enum Told {
    /// It gained events. If it has ended, the record says how.
    Committed {
        /// The record, no older than the last event.
        record: Arc<ProcessRecord>,
        /// Events that are not told, first and last: they come before `events` and after everything told before. The log
        /// has them ([`events_page`](crate::port::ProcessRegistryExt::events_page)). They are left out if too many came
        /// while the subscriber had not handled the message before this one.
        missed: Option<RangeInclusive<Sequence>>,
        /// The events, ascending and without a hole; empty only if all were missed.
        events: Vec<Arc<ProcessEvent>>,
    },
    /// It is gone. The tombstone's generation says which life of the id it was; if the registry could not hear of commits
    /// for a while, the next life may have been told before.
    Pruned {
        /// What remains of it.
        tombstone: Tombstone,
    },
    /// Something may have happened that was not told: read anew.
    Resync,
    /// The registry is shut down: nothing follows.
    Closed,
}

/// The right to the next message. It comes back by itself, also from the mailbox of an actor that was killed. It knows the
/// subscription weakly: what lies in a mailbox keeps nothing alive.
pub(super) struct Turn(pub(super) Weak<Subscriber>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(subscriber) = self.0.upgrade() {
            subscriber.take_turn_back();
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Turn")
    }
}

//! A seat: where the current actor of an office can be found, and whoever waits for the next one is woken in the order in
//! which it came. A watch channel would wake them in a random order, which no seed brings back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ractor::{ActorId, ActorRef};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The place of one actor at a time.
#[derive(Debug)]
pub(super) struct Seat<M> {
    actor: Mutex<Option<ActorRef<M>>>,
    taken: Notify,
}

impl<M> Default for Seat<M> {
    fn default() -> Self {
        Self { actor: Mutex::new(None), taken: Notify::new() }
    }
}

impl<M> Seat<M> {
    /// Who sits there now.
    pub(super) fn actor(&self) -> Option<ActorRef<M>> {
        self.lock().clone()
    }

    /// Seats the next one and wakes whoever waits for it.
    pub(super) fn take(&self, actor: ActorRef<M>) {
        *self.lock() = Some(actor);
        self.taken.notify_waiters();
    }

    /// Empties it if this actor sits there; answers whether it did.
    pub(super) fn vacate(&self, ended: ActorId) -> bool {
        self.lock().take_if(|actor| actor.get_id() == ended).is_some()
    }

    /// Waits until it is taken anew, from this call on: call first, then look who sits there.
    pub(super) fn taken(&self) -> Notified<'_> {
        self.taken.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ActorRef<M>>> {
        self.actor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The wait table: whoever waits for a commit of one process, parked until it is told.
//!
//! It belongs to no actor: waiters outlive every incarnation of a process, of its shard and of the publisher, and keep
//! none of them alive. A parked waiter is told exactly once, and is no longer parked then. Whoever parks first and reads
//! then misses nothing.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::change::{CommitListener, CommittedBatch};
use super::sync::{Mutex, MutexGuard, PoisonError};
use super::wait::{Awaited, ProcessWait};
use crate::domain::{ProcessEvent, ProcessId, ProcessRecord, Tombstone};

/// How many locks share the processes.
const SHARDS: usize = 16;

/// The parked waiters of one source of changes.
pub(super) struct WaitTable {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    closed: bool,
    /// An entry lives exactly as long as somebody is parked in it.
    by_process: HashMap<ProcessId, Slab<Arc<Slot>>>,
}

/// Where one waiter is told.
struct Slot {
    awaited: Awaited,
    state: Mutex<SlotState>,
}

enum SlotState {
    Parked(Option<Waker>),
    Told(WaitNotice),
    Taken,
}

/// What a parked waiter is told.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitNotice {
    /// The process has ended.
    Ended(Arc<ProcessRecord>),
    /// The event was committed.
    Happened {
        /// The event.
        event: Arc<ProcessEvent>,
        /// The life of the id that it belongs to.
        generation: u32,
    },
    /// The process was pruned.
    Pruned(Box<Tombstone>),
    /// Commits were missed: park again, and read.
    Resync,
    /// The source has ended: nothing will be told.
    Closed,
}

/// A waiter that is parked. Its drop gives the wait up.
pub struct ParkedWait {
    table: Arc<WaitTable>,
    process_id: ProcessId,
    key: usize,
    slot: Arc<Slot>,
}

impl WaitTable {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard::default())) }
    }

    /// Parks a waiter. It is told of the first commit from now on that answers it.
    pub(super) fn park(self: &Arc<Self>, wait: &ProcessWait) -> ParkedWait {
        let slot = Arc::new(Slot { awaited: wait.awaited.clone(), state: Mutex::new(SlotState::Parked(None)) });
        let mut shard = self.shard(&wait.process_id);
        let key = if shard.closed {
            drop(shard);
            slot.tell(WaitNotice::Closed);
            0
        } else {
            let entry = shard.by_process.entry(wait.process_id.clone()).or_insert_with(|| Slab::with_capacity(1));
            entry.insert(Arc::clone(&slot))
        };
        ParkedWait { table: Arc::clone(self), process_id: wait.process_id.clone(), key, slot }
    }

    /// How many waiters are parked.
    pub(super) fn len(&self) -> usize {
        let parked = |shard: &Mutex<Shard>| lock(shard).by_process.values().map(Slab::len).sum::<usize>();
        self.shards.iter().map(parked).sum()
    }

    fn shard(&self, process_id: &ProcessId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[process_id.shard_of(SHARDS)])
    }

    /// Tells the waiters of one process for whom there is an answer. Outside of the lock: a waker may do anything.
    fn tell(&self, process_id: &ProcessId, answer: impl Fn(&Awaited) -> Option<WaitNotice>) {
        let mut answered = Vec::new();
        let mut shard = self.shard(process_id);
        let Some(entry) = shard.by_process.get_mut(process_id) else { return };
        entry.retain(|_, slot| match answer(&slot.awaited) {
            Some(told) => {
                answered.push((Arc::clone(slot), told));
                false
            }
            None => true,
        });
        if entry.is_empty() {
            shard.remove(process_id);
        }
        drop(shard);
        for (slot, told) in answered {
            guarded(|| slot.tell(told));
        }
    }

    /// Tells everybody, in the order of the ids, so that two runs of one history wake in one order.
    fn tell_all(&self, told: &WaitNotice) {
        let mut entries = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.closed |= *told == WaitNotice::Closed;
            entries.extend(mem::take(&mut shard.by_process));
        }
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        for (_, slot) in entries.into_iter().flat_map(|(_, entry)| entry.into_iter()) {
            guarded(|| slot.tell(told.clone()));
        }
    }
}

impl Shard {
    /// An entry that is empty goes, and with the last one the memory of the map.
    fn remove(&mut self, process_id: &ProcessId) {
        self.by_process.remove(process_id);
        if self.by_process.is_empty() {
            self.by_process = HashMap::new();
        }
    }
}

impl Slot {
    fn tell(&self, told: WaitNotice) {
        let before = mem::replace(&mut *lock(&self.state), SlotState::Told(told));
        if let SlotState::Parked(Some(waker)) = before {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<WaitNotice> {
        let mut state = lock(&self.state);
        match mem::replace(&mut *state, SlotState::Taken) {
            SlotState::Told(told) => Poll::Ready(told),
            SlotState::Parked(known) => {
                let waker = known.filter(|known| known.will_wake(context.waker()));
                *state = SlotState::Parked(Some(waker.unwrap_or_else(|| context.waker().clone())));
                Poll::Pending
            }
            // Only a future that is polled after its end gets here.
            SlotState::Taken => Poll::Ready(WaitNotice::Resync),
        }
    }

    fn is_parked(&self) -> bool {
        matches!(*lock(&self.state), SlotState::Parked(_))
    }
}

impl ParkedWait {
    /// Waits until it is told. May be dropped at any time.
    pub async fn told(self) -> WaitNotice {
        poll_fn(|context| self.slot.poll(context)).await
    }
}

impl Drop for ParkedWait {
    /// Whoever was told is no longer in the table, and its key may stand for another by now.
    fn drop(&mut self) {
        if !self.slot.is_parked() {
            return;
        }
        let mut shard = self.table.shard(&self.process_id);
        let Some(entry) = shard.by_process.get_mut(&self.process_id) else { return };
        if entry.get(self.key).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot)) {
            entry.remove(self.key);
            if entry.is_empty() {
                shard.remove(&self.process_id);
            }
        }
    }
}

impl CommitListener for WaitTable {
    fn committed(&self, batches: &[CommittedBatch]) {
        for batch in batches {
            self.tell(&batch.process_id, |awaited| awaited.answered_by(&batch.record, &batch.events));
        }
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        for tombstone in tombstones {
            self.tell(&tombstone.process_id, |_| Some(WaitNotice::Pruned(Box::new(tombstone.clone()))));
        }
    }

    fn resync(&self) {
        self.tell_all(&WaitNotice::Resync);
    }

    fn closed(&self) {
        self.tell_all(&WaitNotice::Closed);
    }
}

/// A waker that panics is not the others' loss: they are out of the table already, and would never be told.
fn guarded(tell: impl FnOnce()) {
    // The waker's own panic hook has said what happened.
    drop(catch_unwind(AssertUnwindSafe(tell)));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for WaitTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WaitTable").field("parked", &self.len()).finish()
    }
}

impl fmt::Debug for ParkedWait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ParkedWait")
            .field("process_id", &self.process_id)
            .field("awaited", &self.slot.awaited)
            .finish_non_exhaustive()
    }
}

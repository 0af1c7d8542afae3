//! Who hears of commits. A notification is a hint, the log is the truth: nobody may rely on hearing of each one.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use super::sync::{PoisonError, RwLock};
use super::wait::ProcessWait;
use super::wait_table::{ParkedWait, WaitTable};
use crate::domain::{ProcessEvent, ProcessId, ProcessRecord, SessionDeletion, SessionScope, Tombstone};

/// What one process gained in one commit.
#[derive(Debug, Clone)]
pub struct CommittedBatch {
    /// The process.
    pub process_id: ProcessId,
    /// Its record after the batch.
    pub record: Arc<ProcessRecord>,
    /// The inserted events, ascending; never empty.
    pub events: Vec<Arc<ProcessEvent>>,
    /// Whom these events woke. Whether the wake is new to the target, [`Query::PendingWakes`](super::Query::PendingWakes)
    /// knows.
    pub woken: Vec<SessionScope>,
}

/// Hears of commits, in commit order.
///
/// # Contract
/// 1. Calls come one at a time and must return soon: the next commit's waiters stand behind them.
/// 2. `committed` is called after the commit, never before.
/// 3. After a loss of continuity `resync` is called instead of the missed commits: whatever the listener knows may be
///    stale.
/// 4. After `closed` no call follows, unless a call is under way when the registry is killed.
pub trait CommitListener: Send + Sync {
    /// It was attached to a source: from now on it is called, until [`closed`](Self::closed). Called under the source's
    /// lock: it may note it, and nothing else.
    fn attached(&self) {}
    /// These batches are durable.
    fn committed(&self, batches: &[CommittedBatch]);
    /// These processes are gone. After a loss of continuity it may be called after commits of a next life of one of them:
    /// what tells them apart is the generation.
    fn pruned(&self, tombstones: &[Tombstone]);
    /// These sessions are gone. What that changed of processes was told before, as commits. Most listeners need not know.
    fn sessions_deleted(&self, deletions: &[SessionDeletion]) {
        let _ = deletions;
    }
    /// Commits were missed: everything has to be read anew.
    fn resync(&self);
    /// The source has ended.
    fn closed(&self);
}

/// Where a registry's commits can be heard. It is both ends of the line: the registry's publisher speaks into it,
/// listeners attach to it, and waiters park in it. Clones are one source.
#[derive(Clone)]
pub struct ChangeSource {
    line: Arc<RwLock<Line>>,
    waits: Arc<WaitTable>,
}

#[derive(Default)]
struct Line {
    closed: bool,
    listeners: Vec<Weak<dyn CommitListener>>,
}

impl Default for ChangeSource {
    fn default() -> Self {
        Self { line: Arc::default(), waits: Arc::new(WaitTable::new()) }
    }
}

impl ChangeSource {
    /// Parks a waiter, which is told of the first commit from now on that answers it. Park first, then read; or let
    /// [`wait`](Self::wait) do both.
    #[must_use]
    pub fn park(&self, wait: &ProcessWait) -> ParkedWait {
        self.waits.park(wait)
    }

    /// How many waiters are parked.
    #[must_use]
    pub fn parked_waits(&self) -> usize {
        self.waits.len()
    }

    /// Adds a listener, for as long as somebody else keeps it alive; one that is attached already is not added again. To a
    /// source that has ended it is told so at once.
    pub fn attach(&self, listener: &Arc<dyn CommitListener>) {
        let mut line = self.line.write().unwrap_or_else(PoisonError::into_inner);
        if line.closed {
            drop(line);
            listener.attached();
            listener.closed();
            return;
        }
        line.listeners.retain(|known| known.strong_count() > 0);
        let listening = Arc::downgrade(listener);
        if !line.listeners.iter().any(|known| known.ptr_eq(&listening)) {
            listener.attached();
            line.listeners.push(listening);
        }
    }

    /// Whether both are one source.
    #[must_use]
    pub fn is_same_source(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }

    /// The listeners alive now, the parked waiters before all others. A slow listener is called outside the lock, so
    /// that attaching never waits for it.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<dyn CommitListener>> {
        let waits = Arc::clone(&self.waits) as Arc<dyn CommitListener>;
        let line = self.line.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(waits).chain(line.listeners.iter().filter_map(Weak::upgrade)).collect()
    }

    /// Ends the source and tells its listeners. May be called twice.
    pub fn close(&self) {
        let listeners = {
            let mut line = self.line.write().unwrap_or_else(PoisonError::into_inner);
            line.closed = true;
            std::mem::take(&mut line.listeners)
        };
        self.waits.closed();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            // One that panics is told of by the panic hook, and is not the others' loss: nobody tells them again.
            drop(catch_unwind(AssertUnwindSafe(|| listener.closed())));
        }
    }
}

impl fmt::Debug for ChangeSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.read().unwrap_or_else(PoisonError::into_inner);
        formatter
            .debug_struct("ChangeSource")
            .field("closed", &line.closed)
            .field("listeners", &line.listeners.len())
            .field("waits", &self.waits)
            .finish()
    }
}

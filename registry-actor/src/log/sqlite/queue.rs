//! The two bounded lanes before the writer. It knows batches, commands across processes and their replies, and nothing of how
//! they are stored.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::domain::{DecisionContext, RegistryCommand, RegistryReceipt};
use crate::log::QueueLimits;
use crate::log::across::PruneSearch;
use crate::log::codec::EncodedBatch;
use crate::port::{AcrossError, AppendError, AppendReply};

/// A batch with its reply.
pub(super) struct Queued {
    pub(super) batch: EncodedBatch,
    pub(super) reply: AppendReply,
}

/// A command across processes with its reply. It stands in the plain lane.
pub(super) struct QueuedAcross {
    pub(super) command: RegistryCommand,
    /// What a prune has found.
    pub(super) searched: Option<PruneSearch>,
    pub(super) context: DecisionContext,
    pub(super) reply: oneshot::Sender<Result<RegistryReceipt, AcrossError>>,
}

/// What waits in a lane.
#[expect(clippy::large_enum_variant, reason = "nearly all are batches, and a box would cost each of them")]
enum Entry {
    Batch(Queued),
    Across(Box<QueuedAcross>),
}

/// What the writer does next.
pub(super) enum Taken {
    /// Batches, in one transaction.
    Group(Vec<Queued>),
    /// A command that has a transaction of its own.
    Across(Box<QueuedAcross>),
}

impl QueuedAcross {
    /// Answers; whoever no longer waits is not told.
    pub(super) fn answer(self, answer: Result<RegistryReceipt, AcrossError>) {
        let _ = self.reply.send(answer);
    }
}

impl Entry {
    fn refuse(self, refusal: AppendError) {
        match self {
            Self::Batch(queued) => queued.reply.answer(Err(refusal)),
            Self::Across(queued) => queued.answer(Err(refusal.into())),
        }
    }
}

/// How much the writer takes at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupLimits {
    /// In events; a batch that only moves a lease counts as one.
    pub(super) events: usize,
    /// In bytes, roughly.
    pub(super) bytes: usize,
}

/// The lanes and whether they take anything.
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    changed: Condvar,
    limits: QueueLimits,
}

struct Lanes {
    plain: VecDeque<Entry>,
    urgent: VecDeque<Entry>,
    door: Door,
    /// Why nothing is admitted now.
    broken: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// What is queued is still stored.
    Closing,
    /// The writer is gone.
    Ended,
}

impl Queue {
    pub(super) const fn new(limits: QueueLimits) -> Self {
        Self {
            lanes: Mutex::new(Lanes {
                plain: VecDeque::new(),
                urgent: VecDeque::new(),
                door: Door::Open,
                broken: None,
            }),
            changed: Condvar::new(),
            limits,
        }
    }

    /// Whether a batch would be turned away, before the work of encoding it is done.
    pub(super) fn turn_away(&self, urgent: Lane) -> Option<AppendError> {
        self.lanes().refusal(urgent, self.limits)
    }

    /// Takes a batch in, or answers it at once.
    pub(super) fn push(&self, queued: Queued) {
        self.put(Lane::of(&queued.batch), Entry::Batch(queued));
    }

    /// Takes a command in, or answers it at once.
    pub(super) fn push_across(&self, queued: QueuedAcross) {
        self.put(Lane::Plain, Entry::Across(Box::new(queued)));
    }

    fn put(&self, lane: Lane, entry: Entry) {
        let mut lanes = self.lanes();
        if let Some(refusal) = lanes.refusal(lane, self.limits) {
            drop(lanes);
            entry.refuse(refusal);
            return;
        }
        // The writer sleeps only while both lanes are empty.
        let wake = lanes.plain.is_empty() && lanes.urgent.is_empty();
        lanes.lane_mut(lane).push_back(entry);
        drop(lanes);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Waits until there is something to store; `false` when the lanes are empty and closed.
    pub(super) fn wait(&self) -> bool {
        let lanes = self.lanes();
        let lanes = self
            .changed
            .wait_while(lanes, |lanes| lanes.is_empty() && lanes.door == Door::Open)
            .unwrap_or_else(PoisonError::into_inner);
        !lanes.is_empty()
    }

    /// Whether something waits to be stored, or the lanes are closed: who has other work to do does it only if not.
    pub(super) fn is_wanted(&self) -> bool {
        let lanes = self.lanes();
        !lanes.is_empty() || lanes.door != Door::Open
    }

    /// How much waits.
    pub(super) fn depth(&self) -> usize {
        let lanes = self.lanes();
        lanes.plain.len() + lanes.urgent.len()
    }

    /// Takes a group, urgent batches first: at least one batch, however large. A command across processes is taken alone
    /// when its turn comes.
    pub(super) fn take(&self, limits: GroupLimits) -> Taken {
        let mut lanes = self.lanes();
        let (mut group, mut events, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let lane = if lanes.urgent.is_empty() { &mut lanes.plain } else { &mut lanes.urgent };
            match lane.pop_front() {
                None => break,
                Some(Entry::Across(command)) if group.is_empty() => return Taken::Across(command),
                Some(Entry::Batch(next)) => {
                    events += next.batch.events.len().max(1);
                    bytes += next.batch.size_bytes();
                    if !group.is_empty() && (events > limits.events || bytes > limits.bytes) {
                        lane.push_front(Entry::Batch(next));
                        break;
                    }
                    group.push(next);
                }
                Some(command @ Entry::Across(_)) => {
                    lane.push_front(command);
                    break;
                }
            }
        }
        Taken::Group(group)
    }

    /// Refuses everything from now on until [`mend`](Self::mend), and answers what is queued: none of it was begun.
    pub(super) fn break_off(&self, reason: &str) {
        let mut lanes = self.lanes();
        lanes.broken = Some(reason.to_owned());
        let left = lanes.empty();
        drop(lanes);
        for entry in left {
            entry.refuse(AppendError::NotAccepted { reason: reason.to_owned() });
        }
    }

    /// Admits batches again.
    pub(super) fn mend(&self) {
        self.lanes().broken = None;
    }

    /// Why nothing is admitted now.
    pub(super) fn broken(&self) -> Option<String> {
        self.lanes().broken.clone()
    }

    /// Refuses what comes from now on; what is queued is still stored.
    pub(super) fn close(&self) {
        let mut lanes = self.lanes();
        if lanes.door == Door::Open {
            lanes.door = Door::Closing;
        }
        drop(lanes);
        self.changed.notify_all();
    }

    /// Whether the lanes are still to be served.
    pub(super) fn is_open(&self) -> bool {
        self.lanes().door == Door::Open
    }

    /// Waits for a while, or until the lanes are closed.
    pub(super) fn pause(&self, at_most: Duration) {
        let lanes = self.lanes();
        drop(self.changed.wait_timeout_while(lanes, at_most, |lanes| lanes.door == Door::Open));
    }

    /// The writer is gone: answers what is left. May be called twice.
    pub(super) fn end(&self) {
        let mut lanes = self.lanes();
        lanes.door = Door::Ended;
        let left = lanes.empty();
        drop(lanes);
        for entry in left {
            entry.refuse(AppendError::Closed);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which lane a batch takes.
#[derive(Clone, Copy)]
pub(super) enum Lane {
    Plain,
    Urgent,
}

impl Lane {
    pub(super) fn of(batch: &EncodedBatch) -> Self {
        if batch.urgent { Self::Urgent } else { Self::Plain }
    }
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.urgent.is_empty()
    }

    const fn lane_mut(&mut self, lane: Lane) -> &mut VecDeque<Entry> {
        match lane {
            Lane::Plain => &mut self.plain,
            Lane::Urgent => &mut self.urgent,
        }
    }

    fn refusal(&self, lane: Lane, limits: QueueLimits) -> Option<AppendError> {
        if self.door != Door::Open {
            return Some(AppendError::Closed);
        }
        if let Some(reason) = &self.broken {
            return Some(AppendError::NotAccepted { reason: reason.clone() });
        }
        let (queued, limit) = match lane {
            Lane::Plain => (self.plain.len(), limits.plain),
            Lane::Urgent => (self.urgent.len(), limits.urgent),
        };
        (queued >= limit).then_some(AppendError::Busy { limit })
    }

    fn empty(&mut self) -> Vec<Entry> {
        self.urgent.drain(..).chain(self.plain.drain(..)).collect()
    }
}

//! A shutdown: how far it is, and what became of it.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::domain::ProcessId;

/// How many ids of killed processes a report names.
pub(super) const NAMED: usize = 16;

/// The stages of a shutdown, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShutdownStage {
    /// The door is closed: commands are refused from now on.
    Door,
    /// Each process comes to rest as soon as nothing of it is pending; each shard ends with its last process.
    Processes,
    /// The publisher tells what was committed last.
    Publisher,
    /// Listeners are told that their source has ended: waiters, subscribers, sinks. Sinks deliver what they hold on threads
    /// of their own; whoever installed one closes it with a deadline of its own.
    Listeners,
    /// The log closes.
    Log,
    /// The root ends.
    Root,
}

/// How far a shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownProgress {
    /// What is going on.
    pub stage: ShutdownStage,
    /// How many processes had a live actor when it began.
    pub processes: usize,
    /// How many of them have not come to rest yet.
    pub processes_left: usize,
}

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How many processes came to rest by themselves.
    pub processes_rested: usize,
    /// How many did not in time and were killed. What they had under way is in the log or not, as after a crash.
    pub processes_killed: usize,
    /// The first of those, by id; at most 16.
    pub first_killed: Vec<ProcessId>,
    /// How many shards were killed, with their processes.
    pub shards_killed: usize,
    /// Whether the publisher did not come to its end in time. Listeners may then have missed the last commits before they
    /// were told that their source has ended.
    pub publisher_killed: bool,
    /// Whether the log did not close in time, and goes on closing by itself.
    pub log_left_open: bool,
}

/// What a shard is asked to do at the end, and how it tells of it.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) tally: Arc<watch::Sender<Tally>>,
    pub(super) rested: oneshot::Sender<()>,
}

/// How many processes come to rest, over all shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) begun: usize,
    pub(super) rested: usize,
}

impl Tally {
    pub(super) const fn left(self) -> usize {
        self.begun.saturating_sub(self.rested)
    }
}

impl Rest {
    pub(super) fn begin(&self, processes: usize) {
        self.tally.send_modify(|tally| tally.begun += processes);
    }

    pub(super) fn one_rested(&self) {
        self.tally.send_modify(|tally| tally.rested += 1);
    }

    pub(super) fn finish(self) {
        // A host that no longer waits does not mind.
        let _ = self.rested.send(());
    }
}

//! When each process of the bench last committed, as the log's own writer saw it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use registry_actor::domain::ProcessId;
use registry_actor::port::{CommitFollower, CommittedGroup};

/// Stamps every commit. It is to follow the log before the registry does, so that no listener is told before the stamp. The
/// log answers callers before it tells followers: unless they [stamp](Self::durable) themselves, what callers tell others is
/// measured from a moment a little too late.
#[derive(Debug, Default)]
pub(super) struct CommitStamps {
    stamps: Mutex<Stamps>,
}

#[derive(Debug, Default)]
struct Stamps {
    /// By the number of the process.
    committed: Vec<Option<Instant>>,
    /// How many batches each group held since they were last taken.
    groups: Vec<usize>,
    /// When the first batch of the group at hand was known to be durable.
    first_durable: Option<Instant>,
}

impl CommitStamps {
    /// A batch is durable. Called on the writer's thread, before the group is told to anybody.
    pub(super) fn durable(&self) {
        self.lock().first_durable.get_or_insert_with(Instant::now);
    }

    /// When the process last committed.
    pub(super) fn committed(&self, number: usize) -> Option<Instant> {
        self.lock().committed.get(number).copied().flatten()
    }

    /// The sizes of the groups since the last call.
    pub(super) fn take_groups(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().groups)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitFollower for CommitStamps {
    /// Callers are answered first. Where they stamp, the commit is as old as the first answer.
    fn follow(&self, group: &CommittedGroup) {
        let mut stamps = self.lock();
        let now = stamps.first_durable.take().unwrap_or_else(Instant::now);
        stamps.groups.push(group.changes.batches.len());
        for batch in group.changes.batches.iter() {
            let Some(number) = number_of(&batch.process_id) else { continue };
            if stamps.committed.len() <= number {
                stamps.committed.resize(number + 1, None);
            }
            stamps.committed[number] = Some(now);
        }
    }
}

/// The number that the bench put into the id.
pub(super) fn number_of(process_id: &ProcessId) -> Option<usize> {
    process_id.as_str().rsplit('-').next()?.parse().ok()
}

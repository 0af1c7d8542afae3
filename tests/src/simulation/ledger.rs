//! What the store really took, heard from the log in memory itself: the truth that everything else is held to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry_actor::domain::{LeaseRow, ProcessEvent, ProcessId, Sequence};
use registry_actor::port::{CommitFollower, CommittedGroup};

use crate::history_checker::Life;

/// Everything that was stored, in the order in which it was.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Entries>,
}

/// A copy of the ledger.
#[derive(Debug, Clone, Default)]
pub struct Entries {
    /// All events in commit order, each with the life that it belongs to.
    pub events: Vec<(u32, Arc<ProcessEvent>)>,
    /// The same by life.
    pub lives: BTreeMap<(ProcessId, u32), Life>,
    /// Place of each event in `events`.
    pub places: BTreeMap<(ProcessId, u32, Sequence), usize>,
    /// Lease rows as they were stored.
    pub leases: Vec<StoredLease>,
    /// What must never be heard of a log.
    pub faults: Vec<String>,
}

/// A lease row that was stored.
#[derive(Debug, Clone)]
pub struct StoredLease {
    /// The process.
    pub process_id: ProcessId,
    /// Its life.
    pub generation: u32,
    /// The monotonic clock at that moment.
    pub monotonic_ms: u64,
    /// The row.
    pub row: LeaseRow,
}

impl Ledger {
    /// What was stored so far.
    #[must_use]
    pub fn entries(&self) -> Entries {
        self.lock().clone()
    }

    /// Notes a lease row that the store took.
    pub fn lease(&self, lease: StoredLease) {
        self.lock().leases.push(lease);
    }

    /// Notes what must never be heard of a log.
    pub fn fault(&self, what: String) {
        self.lock().faults.push(what);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitFollower for Ledger {
    fn follow(&self, group: &CommittedGroup) {
        let mut entries = self.lock();
        let entries = &mut *entries;
        for batch in &group.changes.batches {
            let generation = batch.record.generation;
            let life = entries
                .lives
                .entry((batch.process_id.clone(), generation))
                .or_insert_with(|| Life { events: Vec::new(), pruned: false });
            for event in &batch.events {
                let place = (batch.process_id.clone(), generation, event.sequence);
                if event.sequence.0 != life.events.len() as u64 || life.pruned {
                    let (of, sequence, held) = (&batch.process_id, event.sequence.0, life.events.len());
                    entries.faults.push(format!("`{of}` of {held} events was given sequence {sequence}"));
                }
                life.events.push(Arc::clone(event));
                entries.places.insert(place, entries.events.len());
                entries.events.push((generation, Arc::clone(event)));
            }
        }
        for tombstone in &group.changes.pruned {
            match entries.lives.get_mut(&(tombstone.process_id.clone(), tombstone.generation)) {
                Some(life) => life.pruned = true,
                None => entries.faults.push(format!("`{}` was pruned and never stored", tombstone.process_id)),
            }
        }
    }
}

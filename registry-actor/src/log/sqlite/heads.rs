//! What the writer remembers of the processes that it stored lately, so that a stale batch is refused before any
//! statement runs. A forgotten process is read again; nothing depends on what is remembered.

use std::collections::HashMap;
use std::sync::Arc;

use super::type_blocks::SeenTypes;
use crate::domain::ProcessId;
use crate::port::Head;

/// How many processes a generation holds. Two generations are kept.
const GENERATION: usize = 65_536;

/// What the store holds of a process, as far as preconditions go.
#[derive(Debug, Clone)]
pub(super) struct KnownHead {
    pub(super) process_no: i64,
    pub(super) head: Head,
    pub(super) lease_revision: u64,
    pub(super) seen: Arc<SeenTypes>,
}

/// Least recently used, by generations: when the young one is full it becomes the old one, and the old one goes.
#[derive(Default)]
pub(super) struct HeadCache {
    young: HashMap<ProcessId, KnownHead>,
    old: HashMap<ProcessId, KnownHead>,
}

impl HeadCache {
    pub(super) fn get(&mut self, process_id: &ProcessId) -> Option<KnownHead> {
        if let Some(known) = self.young.get(process_id) {
            return Some(known.clone());
        }
        let (process_id, known) = self.old.remove_entry(process_id)?;
        self.put(process_id, known.clone());
        Some(known)
    }

    pub(super) fn put(&mut self, process_id: ProcessId, known: KnownHead) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(process_id, known);
    }

    pub(super) fn remove(&mut self, process_id: &ProcessId) {
        self.young.remove(process_id);
        self.old.remove(process_id);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Digest, Sequence};

    #[test]
    fn a_process_in_use_outlives_a_generation() {
        let id = |number: usize| ProcessId::new(format!("p{number}")).expect("an id");
        let head = Head { sequence: Sequence::REGISTRATION, chain: Digest::default() };
        let known = || KnownHead { process_no: 1, head, lease_revision: 0, seen: Arc::default() };
        let mut cache = HeadCache::default();
        cache.put(id(0), known());
        cache.put(id(1), known());
        for number in 2..=GENERATION {
            cache.put(id(number), known());
        }
        assert!(cache.get(&id(0)).is_some(), "old, and young again by being asked for");
        for number in GENERATION + 1..2 * GENERATION {
            cache.put(id(number), known());
        }
        assert!(cache.get(&id(0)).is_some());
        assert!(cache.get(&id(1)).is_none(), "nobody asked for it");
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION);
    }
}

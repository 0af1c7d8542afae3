//! What a subscriber has not been sent yet: bounded, in order, and free of what it has heard before.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::actor::news::Told;
use crate::domain::{ProcessEvent, Sequence, Tombstone};
use crate::port::CommittedBatch;

/// How many things may wait that cannot be made one: the ends of several lives of one id. More become "read anew".
const WAITING: usize = 16;

/// What a subscriber has not been sent yet.
#[derive(Debug)]
pub(super) struct Inbox {
    /// How many events may be gathered beyond the first commit.
    limit: usize,
    waiting: VecDeque<Told>,
    /// Life and sequence of the last event that was gathered. After a failed read of the feed the publisher may tell a
    /// commit twice, or leave some out.
    heard: Option<(u32, Sequence)>,
    /// The last life whose end was gathered.
    pruned: u32,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, waiting: VecDeque::new(), heard: None, pruned: 0 }
    }

    pub(super) fn committed(&mut self, batch: &CommittedBatch) {
        let generation = batch.record.generation;
        let is_new = |event: &&Arc<ProcessEvent>| self.heard < Some((generation, event.sequence));
        let new: Vec<_> = batch.events.iter().filter(is_new).cloned().collect();
        let (Some(first), Some(last)) =
            (new.first().map(|event| event.sequence), new.last().map(|event| event.sequence))
        else {
            return;
        };
        // Sequences are dense: what lies between two commits of one life was not told.
        let left_out = self.heard.filter(|(life, heard)| *life == generation && heard.next() < first);
        self.heard = Some((generation, last));
        match self.waiting.back_mut() {
            Some(Told::Committed { record, missed, events })
                if record.generation == generation && left_out.is_none() =>
            {
                *record = Arc::clone(&batch.record);
                if events.len() + new.len() > self.limit {
                    let from = missed.as_ref().map(|missed| *missed.start());
                    let from = from.or(events.first().map(|event| event.sequence)).unwrap_or(first);
                    *missed = Some(from..=last);
                    events.clear();
                } else {
                    events.extend(new);
                }
            }
            _ => {
                let missed = left_out.map(|(_, heard)| heard.next()..=Sequence(first.0 - 1));
                self.push(Told::Committed { record: Arc::clone(&batch.record), missed, events: new });
            }
        }
    }

    pub(super) fn pruned(&mut self, tombstone: &Tombstone) {
        if tombstone.generation > self.pruned {
            self.pruned = tombstone.generation;
            self.push(Told::Pruned { tombstone: tombstone.clone() });
        }
    }

    pub(super) fn resync(&mut self) {
        if !matches!(self.waiting.back(), Some(Told::Resync)) {
            self.push(Told::Resync);
        }
    }

    pub(super) fn closed(&mut self) {
        self.push(Told::Closed);
    }

    pub(super) fn next(&mut self) -> Option<Told> {
        self.waiting.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.waiting = VecDeque::new();
    }

    fn push(&mut self, told: Told) {
        if self.waiting.len() >= WAITING {
            self.waiting.clear();
            self.waiting.push_back(Told::Resync);
        }
        self.waiting.push_back(told);
    }
}

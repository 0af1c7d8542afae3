//! Where a consumer is: pure bookkeeping of cursors, of what was put off, and of a walk.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use registry_actor::domain::{ProcessEvent, ProcessId, Sequence};
use tokio::time::Instant;

/// The generation of the first life of an id.
pub(super) const FIRST_LIFE: u32 = 1;

/// Where a consumer is.
#[derive(Debug, Default)]
pub(super) struct Place {
    cursors: HashMap<ProcessId, Cursor>,
    /// Processes that have to be read: a gap of theirs is being filled, or its filling failed.
    behind: Behind,
    /// What failed is not tried again before this.
    not_before: Option<Instant>,
    /// A walk that is not over.
    pub(super) walk: Option<Walk>,
    walks: u64,
}

/// Processes that have to be read, in the order of their turns.
#[derive(Debug, Default)]
struct Behind {
    turns: BTreeMap<u64, ProcessId>,
    turn_of: HashMap<ProcessId, u64>,
    last_turn: u64,
}

/// A walk over all processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    number: u64,
    /// Everything up to here was read.
    pub(super) after: Option<ProcessId>,
}

/// What the consumer has of a process: at least one event.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    generation: u32,
    through: Sequence,
    /// The last walk that met the process, or that it was first seen in.
    walk: u64,
}

impl Place {
    /// The cursor in this life; of another life's nothing is known.
    pub(super) fn through(&self, process_id: &ProcessId, generation: u32) -> Option<Sequence> {
        self.cursors.get(process_id).filter(|cursor| cursor.generation == generation).map(|cursor| cursor.through)
    }

    /// How many of these events, from the first on, are the next ones of the first life of a process: what comes after them may
    /// be another life's.
    ///
    /// This holds where all events are heard of. Live events do not say of which life they are. Before the first there is none whose events could still come. After it
    /// the next one begins at the number 1, and a cursor is never before that; if that event was left out, this was told
    /// first and the process was read, unless it is still to be read. Of a later life nothing of this is certain: the log
    /// has to be asked.
    pub(super) fn count_next(&self, process_id: &ProcessId, events: &[Arc<ProcessEvent>]) -> usize {
        let Some(cursor) = self.cursors.get(process_id) else { return 0 };
        if cursor.generation != FIRST_LIFE || self.walk.is_some() || self.is_behind(process_id) {
            return 0;
        }
        let mut through = cursor.through;
        let is_next = |event: &&Arc<ProcessEvent>| {
            let before = std::mem::replace(&mut through, event.sequence);
            event.sequence == before.next()
        };
        events.iter().take_while(is_next).count()
    }

    /// A consumer that has nothing of a process has no cursor.
    pub(super) fn advance(&mut self, process_id: &ProcessId, generation: u32, through: Sequence) {
        if through > Sequence(0) {
            self.cursors.insert(process_id.clone(), Cursor { generation, through, walk: self.walks });
        }
    }

    pub(super) fn forget(&mut self, process_id: &ProcessId) {
        self.cursors.remove(process_id);
    }

    /// Forgets a life that was pruned, not a later one.
    pub(super) fn forget_life(&mut self, process_id: &ProcessId, generation: u32) {
        if self.cursors.get(process_id).is_some_and(|cursor| cursor.generation <= generation) {
            self.forget(process_id);
        }
    }

    pub(super) fn is_behind(&self, process_id: &ProcessId) -> bool {
        self.behind.turn_of.contains_key(process_id)
    }

    pub(super) fn count_behind(&self) -> usize {
        self.behind.turns.len()
    }

    /// The process whose turn it is to be read. It goes to the back before it is: if the consumer panics over it, the next
    /// turn is another one's.
    pub(super) fn take_turn(&mut self) -> Option<ProcessId> {
        let (_, process_id) = self.behind.turns.pop_first()?;
        self.behind.push_back(process_id.clone());
        Some(process_id)
    }

    /// A process has to be read. It is remembered first: a consumer that panics over it is not told of it again.
    pub(super) fn falls_behind(&mut self, process_id: &ProcessId) {
        if !self.is_behind(process_id) {
            self.behind.push_back(process_id.clone());
        }
    }

    pub(super) fn put_off(&mut self, not_before: Instant) {
        self.not_before = Some(not_before);
    }

    /// Whether something is to be tried again now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_left() && self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// If all that was put off is done, what fails next may be tried again at once.
    pub(super) fn put_off_no_longer(&mut self) {
        if !self.is_left() {
            self.not_before = None;
        }
    }

    fn is_left(&self) -> bool {
        self.walk.is_some() || !self.behind.turns.is_empty()
    }

    pub(super) fn is_read(&mut self, process_id: &ProcessId) {
        if let Some(turn) = self.behind.turn_of.remove(process_id) {
            self.behind.turns.remove(&turn);
        }
    }

    /// Begins a walk; one that is under way begins anew.
    pub(super) fn begin_walk(&mut self) {
        self.walks += 1;
        self.walk = Some(Walk { number: self.walks, after: None });
    }

    /// A walk has met a process.
    pub(super) fn mark(&mut self, process_id: &ProcessId, walk: &Walk) {
        if let Some(cursor) = self.cursors.get_mut(process_id) {
            cursor.walk = walk.number;
        }
    }

    /// A process that the walk has not met is gone.
    pub(super) fn end_walk(&mut self, walk: &Walk) {
        self.cursors.retain(|_, cursor| cursor.walk >= walk.number);
        self.walk = None;
    }
}

impl Behind {
    /// Of a process that has no turn, or has just taken it.
    fn push_back(&mut self, process_id: ProcessId) {
        self.last_turn += 1;
        self.turns.insert(self.last_turn, process_id.clone());
        self.turn_of.insert(process_id, self.last_turn);
    }
}

impl Walk {
    pub(super) fn on_after(self, after: ProcessId) -> Self {
        Self { after: Some(after), ..self }
    }
}

/// The events by their processes, in order within each.
pub(super) fn by_process(events: &[Arc<ProcessEvent>]) -> Vec<(ProcessId, Vec<Arc<ProcessEvent>>)> {
    let mut groups: Vec<(ProcessId, Vec<Arc<ProcessEvent>>)> = Vec::new();
    let mut of_process: HashMap<ProcessId, usize> = HashMap::new();
    for event in events {
        match of_process.get(&event.process_id) {
            Some(group) => groups[*group].1.push(Arc::clone(event)),
            None => {
                of_process.insert(event.process_id.clone(), groups.len());
                groups.push((event.process_id.clone(), vec![Arc::clone(event)]));
            }
        }
    }
    groups
}

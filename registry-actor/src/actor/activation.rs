//! Which processes are loaded next. Pure: the shard starts them.
//!
//! After a restart of the host every process is cold, and a hundred thousand may be asked for at once. Each load is a read
//! of the store, which the live processes need too, and each start costs an actor. So a shard has a bounded number under
//! way; whoever waits costs a place in a queue, and its commands, whose number the registry's permits bound.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use crate::domain::ProcessId;

/// So many starts in a row may come from the lane that goes first, while the other waits: nobody waits for ever.
const FIRST_IN_A_ROW: u32 = 3;

/// Where a process waits to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// A lease, an outcome or a cancellation waits for it, or it was live and comes back.
    First,
    /// Anything else, in the order of asking.
    InOrder,
}

/// The processes of a shard that wait to be loaded, and those whose load is under way. `under way <= limit`.
#[derive(Debug)]
pub(super) struct ActivationQueue<Load> {
    limit: usize,
    under_way: HashSet<Load>,
    first: VecDeque<ProcessId>,
    in_order: VecDeque<ProcessId>,
    first_in_a_row: u32,
}

impl<Load: Eq + Hash> ActivationQueue<Load> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            under_way: HashSet::new(),
            first: VecDeque::new(),
            in_order: VecDeque::new(),
            first_in_a_row: 0,
        }
    }

    /// A process may stand in both lanes, when something urgent came for it later; the place that comes up second is
    /// passed over by whoever starts it.
    pub(super) fn push(&mut self, process_id: ProcessId, lane: Lane) {
        match lane {
            Lane::First => self.first.push_back(process_id),
            Lane::InOrder => self.in_order.push_back(process_id),
        }
    }

    /// The process to start now, if there is room. It takes no room before [`began`](Self::began).
    pub(super) fn next(&mut self) -> Option<ProcessId> {
        if self.under_way.len() >= self.limit {
            return None;
        }
        let is_others_turn = self.first_in_a_row >= FIRST_IN_A_ROW && !self.in_order.is_empty();
        if !is_others_turn && let Some(process_id) = self.first.pop_front() {
            self.first_in_a_row += 1;
            return Some(process_id);
        }
        self.first_in_a_row = 0;
        self.in_order.pop_front()
    }

    pub(super) fn began(&mut self, load: Load) {
        self.under_way.insert(load);
    }

    /// It has loaded, or ended before. Told twice, it is nothing the second time.
    pub(super) fn ended(&mut self, load: &Load) {
        self.under_way.remove(load);
    }

    /// Forgets who waits: the shard comes to rest.
    pub(super) fn forget_waiting(&mut self) {
        self.first = VecDeque::new();
        self.in_order = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ProcessId {
        ProcessId::new(name).expect("a valid id")
    }

    /// Starts whatever may start, and answers the names.
    fn start(queue: &mut ActivationQueue<String>) -> Vec<String> {
        let mut started = Vec::new();
        while let Some(process_id) = queue.next() {
            queue.began(process_id.as_str().to_owned());
            started.push(process_id.as_str().to_owned());
        }
        started
    }

    #[test]
    fn no_more_are_under_way_than_allowed_and_the_rest_follow_in_order() {
        let mut queue = ActivationQueue::new(2);
        for name in ["a", "b", "c", "d"] {
            queue.push(id(name), Lane::InOrder);
        }
        assert_eq!(start(&mut queue), ["a", "b"]);
        queue.ended(&"b".to_owned());
        queue.ended(&"b".to_owned());
        assert_eq!(start(&mut queue), ["c"], "an end that is told twice makes room once");
        queue.ended(&"a".to_owned());
        assert_eq!(start(&mut queue), ["d"]);
    }

    #[test]
    fn what_is_urgent_goes_first_and_starves_nobody() {
        let mut queue = ActivationQueue::new(100);
        for name in ["a", "b"] {
            queue.push(id(name), Lane::InOrder);
        }
        for name in ["u1", "u2", "u3", "u4", "u5"] {
            queue.push(id(name), Lane::First);
        }
        assert_eq!(start(&mut queue), ["u1", "u2", "u3", "a", "u4", "u5", "b"]);
    }
}

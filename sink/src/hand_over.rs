//! The hand-over between those who append and the one who observes: what waits, what was left out, and in which order it
//! is told. A value without lock, clock or waiting; [`Line`](crate::line::Line) puts it between two threads.
//!
//! Everything has a place in one order. What is queued is numbered from 1 as it comes. What is left out is owed, as a gap that stands
//! behind the last number given out when the gap opened. A gap is told when everything before its place was taken, so it
//! comes after all earlier events of its process and before all later ones, without room in the queue and whether or not
//! another event of that process ever comes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use registry_actor::domain::{ProcessEvent, ProcessId, Sequence, Tombstone};
use registry_actor::port::MissedEvents;

use crate::report::SinkReport;

/// The hand-over.
///
/// Invariants: at most `capacity` items are queued and at most `gap_limit` gaps owed, besides those of a failed
/// delivery; gaps stand in the order of their places; what covers every process is the last of them, and while it is
/// owed, whatever is left out is covered by it.
#[derive(Debug)]
pub(crate) struct HandOver {
    capacity: usize,
    gap_limit: usize,
    door: Door,
    queue: VecDeque<Queued>,
    /// Number of the last item that was queued.
    pushed: u64,
    /// Number of the last item that was taken.
    taken: u64,
    owed: VecDeque<Owed>,
    /// Number of the first of `owed`, counted over the life of the hand-over.
    first_owed: u64,
    /// The gaps that still grow: the numbers of those of `owed` after which nothing of their process was queued.
    open: HashMap<ProcessId, u64>,
    /// Whether the last of `owed` covers every process.
    all_owed: bool,
    /// What was in hand when its delivery failed. It is told before anything else.
    failed: VecDeque<Owed>,
    in_hand: Option<InHand>,
    report: SinkReport,
}

/// Whether events are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// No more events come in, and none of them is owed as a gap, or a busy source would keep it from ever being drained;
    /// what waits goes out.
    Closed,
    /// It was closed, and everything went out.
    Drained,
    /// Nothing comes in, nothing goes out.
    GivenUp,
}

#[derive(Debug)]
enum Queued {
    Event(Arc<ProcessEvent>),
    Pruned(Tombstone),
}

/// Something that has to be told once everything up to and with item `after` was taken.
#[derive(Debug)]
struct Owed {
    after: u64,
    missed: MissedEvents,
}

/// What was taken and is not settled.
#[derive(Debug, Clone, Copy)]
struct InHand {
    /// Its place: of items the number of the first one, of a gap the number that it stands behind.
    place: u64,
    events: u64,
}

/// What is delivered at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Delivery {
    /// Events, at least one.
    Events(Vec<Arc<ProcessEvent>>),
    /// Events that were left out.
    Missed(MissedEvents),
    /// A process that was pruned.
    Pruned(Tombstone),
}

/// Answer to the one who takes.
#[derive(Debug, PartialEq)]
pub(crate) enum Take {
    /// This is to be delivered, and then to be settled.
    Deliver(Delivery),
    /// There is nothing now.
    Nothing,
    /// There is nothing and there will be nothing.
    Ended,
}

/// What is no longer needed. It is dropped outside of the lock, because it can be large.
#[derive(Debug)]
#[must_use]
pub(crate) struct Discarded {
    _queue: VecDeque<Queued>,
    _owed: VecDeque<Owed>,
}

impl HandOver {
    /// At most `capacity` items wait, and at most `gap_limit` gaps; at least 1 each.
    pub(crate) fn new(capacity: usize, gap_limit: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            gap_limit: gap_limit.max(1),
            door: Door::Open,
            queue: VecDeque::new(),
            pushed: 0,
            taken: 0,
            owed: VecDeque::new(),
            first_owed: 0,
            open: HashMap::new(),
            all_owed: false,
            failed: VecDeque::new(),
            in_hand: None,
            report: SinkReport::default(),
        }
    }

    /// Takes an event in, or leaves it out and remembers that.
    pub(crate) fn offer(&mut self, event: Arc<ProcessEvent>) {
        self.report.offered += 1;
        if self.door == Door::Open && self.queue.len() < self.capacity {
            if !self.open.is_empty() {
                // The gap before it does not grow any more: it is told before this event.
                self.open.remove(&event.process_id);
            }
            self.report.accepted += 1;
            self.report.waiting += 1;
            self.push(Queued::Event(event));
        } else {
            self.report.dropped += 1;
            if self.door == Door::Open {
                self.leave_out(&event);
            }
        }
    }

    /// Takes in that a process was pruned. Where there is no room for that, the consumer may hold anything for alive, and
    /// all it can be told is that everything has to be read anew.
    pub(crate) fn prune(&mut self, tombstone: Tombstone) {
        match self.door {
            Door::Open if self.queue.len() < self.capacity => {
                self.open.remove(&tombstone.process_id);
                self.push(Queued::Pruned(tombstone));
            }
            Door::Open => self.resync(),
            Door::Closed | Door::Drained | Door::GivenUp => {}
        }
    }

    /// Remembers a gap that was told to whoever hands over.
    pub(crate) fn miss(&mut self, missed: &MissedEvents) {
        let MissedEvents::Of { process_id, .. } = missed else { return self.resync() };
        if self.all_owed || self.door != Door::Open {
            return;
        }
        if self.owed.len() >= self.gap_limit {
            return self.collapse(self.first_place());
        }
        self.open.remove(process_id);
        self.owed.push_back(Owed { after: self.pushed, missed: missed.clone() });
    }

    /// Remembers that nobody knows what was left out.
    pub(crate) fn resync(&mut self) {
        if self.all_owed || self.door != Door::Open {
            return;
        }
        if self.owed.len() >= self.gap_limit {
            self.collapse(self.first_place());
        } else {
            self.open.clear();
            self.owe_all(self.pushed);
        }
    }

    /// Takes no more events in, and tells of none that come. What waits still goes out.
    pub(crate) fn close(&mut self) {
        if self.door == Door::Open {
            self.door = Door::Closed;
        }
    }

    /// Lets nothing in or out any more. What waited counts as failed; what is in hand is settled by whoever holds it.
    pub(crate) fn give_up(&mut self) -> Discarded {
        self.door = Door::GivenUp;
        self.report.failed += std::mem::take(&mut self.report.waiting);
        self.taken = self.pushed;
        self.open.clear();
        self.failed.clear();
        self.all_owed = false;
        self.first_owed += self.owed.len() as u64;
        Discarded { _queue: std::mem::take(&mut self.queue), _owed: std::mem::take(&mut self.owed) }
    }

    /// What comes next: up to `limit` events, or one of anything else. It has to be settled before the next is taken.
    pub(crate) fn take(&mut self, limit: usize) -> Take {
        if self.is_ended() {
            return Take::Ended;
        }
        if let Some(failed) = self.failed.pop_front() {
            return self.hand_missed(failed);
        }
        if let Some(owed) = self.owed.pop_front_if(|owed| owed.after <= self.taken) {
            if let MissedEvents::Of { process_id, .. } = &owed.missed {
                if self.open.get(process_id) == Some(&self.first_owed) {
                    self.open.remove(process_id);
                }
            } else {
                self.all_owed = false;
            }
            self.first_owed += 1;
            return self.hand_missed(owed);
        }
        let place = self.taken + 1;
        let until = self.owed.front().map_or(u64::MAX, |owed| owed.after);
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX).min(until - self.taken);
        let mut events = Vec::new();
        while (events.len() as u64) < limit {
            match self.queue.pop_front_if(|next| events.is_empty() || matches!(next, Queued::Event(_))) {
                Some(Queued::Event(event)) => events.push(event),
                Some(Queued::Pruned(tombstone)) => {
                    self.taken += 1;
                    self.in_hand = Some(InHand { place, events: 0 });
                    return Take::Deliver(Delivery::Pruned(tombstone));
                }
                None => break,
            }
        }
        if events.is_empty() {
            return match self.door {
                Door::Open => Take::Nothing,
                Door::Closed | Door::Drained | Door::GivenUp => {
                    self.door = Door::Drained;
                    Take::Ended
                }
            };
        }
        let taken = events.len() as u64;
        self.taken += taken;
        self.report.waiting -= taken;
        self.report.in_hand = taken;
        self.in_hand = Some(InHand { place, events: taken });
        Take::Deliver(Delivery::Events(events))
    }

    /// What was taken was delivered.
    pub(crate) fn delivered(&mut self) {
        if let Some(in_hand) = self.in_hand.take() {
            self.report.in_hand = 0;
            self.report.delivered += in_hand.events;
        }
    }

    /// The delivery of what was taken failed, perhaps half-way: it is not tried again, and what it held is told as missed.
    /// A gap that could not be told is not told again, or a consumer that cannot hear of it would never hear of anything.
    pub(crate) fn delivery_failed(&mut self, delivery: &Delivery) {
        let Some(in_hand) = self.in_hand.take() else { return };
        self.report.in_hand = 0;
        self.report.failed += in_hand.events;
        if self.is_ended() {
            return;
        }
        let after = self.taken;
        match delivery {
            Delivery::Events(events) => {
                self.failed.extend(ranges(events).into_iter().map(|missed| Owed { after, missed }));
            }
            Delivery::Missed(_) => {}
            // Nobody else tells of the end of that life.
            Delivery::Pruned(_) => self.collapse(after),
        }
    }

    /// Counts that the consumer was started again.
    pub(crate) fn restarted(&mut self) {
        self.report.restarts += 1;
    }

    /// How many items were queued: the mark up to which a flush waits.
    pub(crate) fn mark(&self) -> u64 {
        self.pushed
    }

    /// Whether everything up to a mark is settled, gaps included.
    pub(crate) fn is_settled(&self, mark: u64) -> bool {
        let at_or_before = |place: Option<u64>| place.is_some_and(|place| place <= mark);
        self.taken >= mark
            && !at_or_before(self.in_hand.map(|in_hand| in_hand.place))
            && !at_or_before(self.failed.front().map(|failed| failed.after))
            && !at_or_before(self.owed.front().map(|owed| owed.after))
    }

    /// Whether nothing goes out any more.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.door, Door::Drained | Door::GivenUp)
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.door == Door::GivenUp
    }

    pub(crate) fn report(&self) -> SinkReport {
        self.report
    }

    fn push(&mut self, item: Queued) {
        self.queue.push_back(item);
        self.pushed += 1;
    }

    fn hand_missed(&mut self, owed: Owed) -> Take {
        self.in_hand = Some(InHand { place: owed.after, events: 0 });
        self.report.gaps += 1;
        Take::Deliver(Delivery::Missed(owed.missed))
    }

    fn leave_out(&mut self, event: &ProcessEvent) {
        if self.all_owed {
            return;
        }
        if let Some(number) = self.open.get(&event.process_id)
            && let Ok(index) = usize::try_from(number - self.first_owed)
            && let Some(Owed { missed: MissedEvents::Of { to, .. }, .. }) = self.owed.get_mut(index)
            // A number that does not follow is one of the id's next life, and has a gap of its own.
            && *to < event.sequence
        {
            *to = event.sequence;
            return;
        }
        if self.owed.len() >= self.gap_limit {
            self.collapse(self.first_place());
            return;
        }
        self.open.insert(event.process_id.clone(), self.first_owed + self.owed.len() as u64);
        self.owed.push_back(Owed { after: self.pushed, missed: gap(event, event.sequence) });
    }

    /// Where the first gap stands.
    fn first_place(&self) -> u64 {
        self.owed.front().map_or(self.pushed, |owed| owed.after)
    }

    /// Owes one gap for all instead of the many, in a place not behind the first of them.
    fn collapse(&mut self, after: u64) {
        self.first_owed += self.owed.len() as u64;
        self.owed.clear();
        self.open.clear();
        self.owe_all(after);
    }

    fn owe_all(&mut self, after: u64) {
        self.owed.push_back(Owed { after, missed: MissedEvents::Unknown });
        self.all_owed = true;
    }
}

fn gap(first: &ProcessEvent, to: Sequence) -> MissedEvents {
    MissedEvents::Of { process_id: first.process_id.clone(), from: first.sequence, to }
}

/// The events as gaps: one for each process, or for each life of one.
fn ranges(events: &[Arc<ProcessEvent>]) -> Vec<MissedEvents> {
    let mut ranges: Vec<MissedEvents> = Vec::new();
    let mut of_process: HashMap<&ProcessId, usize> = HashMap::new();
    for event in events {
        if let Some(index) = of_process.get(&event.process_id)
            && let MissedEvents::Of { to, .. } = &mut ranges[*index]
            && *to < event.sequence
        {
            *to = event.sequence;
        } else {
            of_process.insert(&event.process_id, ranges.len());
            ranges.push(gap(event, event.sequence));
        }
    }
    ranges
}

#[cfg(test)]
mod tests;

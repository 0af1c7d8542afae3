use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::testing::{event, missed, process, tombstone};

fn take(hand_over: &mut HandOver, limit: usize) -> Option<Delivery> {
    match hand_over.take(limit) {
        Take::Deliver(delivery) => Some(delivery),
        Take::Nothing | Take::Ended => None,
    }
}

/// Takes and delivers one after the other until there is nothing.
fn drain(hand_over: &mut HandOver) -> Vec<Delivery> {
    let mut told = Vec::new();
    while let Some(delivery) = take(hand_over, 1) {
        hand_over.delivered();
        told.push(delivery);
    }
    told
}

fn one(name: &str, sequence: u64) -> Delivery {
    Delivery::Events(vec![event(name, sequence)])
}

fn gap_of(name: &str, from: u64, to: u64) -> Delivery {
    Delivery::Missed(missed(name, from, to))
}

#[test]
fn a_gap_names_the_first_and_the_last_event_that_found_no_room_and_is_told_in_their_place() {
    let mut hand_over = HandOver::new(2, 10);
    for sequence in 1..=5 {
        hand_over.offer(event("a", sequence));
    }
    assert_eq!(take(&mut hand_over, 1), Some(one("a", 1)));
    hand_over.delivered();
    hand_over.offer(event("a", 6));
    assert_eq!(drain(&mut hand_over), [one("a", 2), gap_of("a", 3, 5), one("a", 6)]);
}

#[test]
fn a_gap_is_told_even_if_no_later_event_of_its_process_ever_comes_and_before_what_was_queued_after_it() {
    let mut hand_over = HandOver::new(1, 10);
    hand_over.offer(event("a", 1));
    hand_over.offer(event("b", 1));
    assert_eq!(take(&mut hand_over, 1), Some(one("a", 1)));
    hand_over.delivered();
    hand_over.offer(event("a", 2));
    assert_eq!(drain(&mut hand_over), [gap_of("b", 1, 1), one("a", 2)]);
    assert_eq!(hand_over.take(1), Take::Nothing);
}

#[test]
fn a_gap_that_was_told_does_not_grow() {
    let mut hand_over = HandOver::new(1, 10);
    hand_over.offer(event("a", 1));
    hand_over.offer(event("a", 2));
    assert_eq!(drain(&mut hand_over), [one("a", 1), gap_of("a", 2, 2)]);
    hand_over.offer(event("b", 1));
    hand_over.offer(event("a", 3));
    assert_eq!(drain(&mut hand_over), [one("b", 1), gap_of("a", 3, 3)]);
}

#[test]
fn the_next_life_of_a_pruned_id_has_gaps_of_its_own() {
    let mut hand_over = HandOver::new(1, 10);
    hand_over.offer(event("b", 1));
    hand_over.offer(event("a", 7));
    hand_over.offer(event("a", 1));
    hand_over.offer(event("a", 2));
    assert_eq!(drain(&mut hand_over), [one("b", 1), gap_of("a", 7, 7), gap_of("a", 1, 2)]);
}

#[test]
fn a_tombstone_comes_behind_the_gap_of_its_process_and_without_room_becomes_a_gap_of_all() {
    let mut hand_over = HandOver::new(2, 10);
    hand_over.offer(event("a", 1));
    hand_over.offer(event("b", 1));
    hand_over.offer(event("a", 2));
    assert_eq!(take(&mut hand_over, 1), Some(one("a", 1)));
    hand_over.delivered();
    hand_over.prune(tombstone("a"));
    hand_over.prune(tombstone("b"));
    assert_eq!(
        drain(&mut hand_over),
        [one("b", 1), gap_of("a", 2, 2), Delivery::Pruned(tombstone("a")), Delivery::Missed(MissedEvents::Unknown)]
    );
}

#[test]
fn more_gaps_than_the_limit_become_one_of_all_that_covers_what_is_left_out_until_it_is_told() {
    let mut hand_over = HandOver::new(1, 2);
    for name in ["q", "a", "b", "c", "d"] {
        hand_over.offer(event(name, 1));
    }
    assert_eq!(drain(&mut hand_over), [one("q", 1), Delivery::Missed(MissedEvents::Unknown)]);
    hand_over.offer(event("q", 2));
    hand_over.offer(event("a", 2));
    assert_eq!(drain(&mut hand_over), [one("q", 2), gap_of("a", 2, 2)]);
}

#[test]
fn what_failed_is_told_as_missed_for_each_process_and_a_gap_that_failed_is_not_told_again() {
    let mut hand_over = HandOver::new(10, 10);
    for (name, sequence) in [("a", 1), ("b", 1), ("a", 2), ("c", 9)] {
        hand_over.offer(event(name, sequence));
    }
    let batch = take(&mut hand_over, 3).expect("events wait");
    hand_over.delivery_failed(&batch);
    let first_gap = take(&mut hand_over, 3).expect("a gap is owed");
    assert_eq!(first_gap, gap_of("a", 1, 2));
    hand_over.delivery_failed(&first_gap);
    assert_eq!(drain(&mut hand_over), [gap_of("b", 1, 1), one("c", 9)]);
    let report = hand_over.report();
    assert_eq!((report.failed, report.delivered), (3, 1));
}

#[test]
fn a_mark_is_settled_when_what_was_queued_and_owed_by_then_was_delivered_or_told() {
    let mut hand_over = HandOver::new(1, 10);
    assert!(hand_over.is_settled(hand_over.mark()), "nothing was handed over");
    hand_over.offer(event("a", 1));
    hand_over.offer(event("a", 2));
    let mark = hand_over.mark();
    assert!(!hand_over.is_settled(mark), "an event waits");
    take(&mut hand_over, 1).expect("an event");
    assert!(!hand_over.is_settled(mark), "it is in hand");
    hand_over.delivered();
    assert!(!hand_over.is_settled(mark), "a gap is owed");
    take(&mut hand_over, 1).expect("a gap");
    assert!(!hand_over.is_settled(mark), "the gap is in hand");
    hand_over.delivered();
    hand_over.offer(event("a", 3));
    assert!(hand_over.is_settled(mark), "what came later does not count");
}

#[test]
fn after_closing_what_waits_goes_out_and_what_comes_is_only_counted() {
    let mut hand_over = HandOver::new(1, 10);
    hand_over.offer(event("a", 1));
    hand_over.offer(event("a", 2));
    hand_over.close();
    // A source that goes on kept a closed mailbox from its end: each event that was left out opened a gap to be told.
    let mut told = Vec::new();
    for sequence in 3..10 {
        hand_over.offer(event("a", sequence));
        hand_over.offer(event("b", sequence));
        hand_over.prune(tombstone("c"));
        hand_over.miss(&missed("d", 1, 2));
        hand_over.resync();
        told.extend(take(&mut hand_over, 1));
        hand_over.delivered();
    }
    assert_eq!(told, [one("a", 1), gap_of("a", 2, 2)]);
    assert_eq!(hand_over.take(1), Take::Ended);
    assert_eq!((hand_over.report().dropped, hand_over.report().delivered), (15, 1));
}

#[test]
fn giving_up_counts_what_waits_as_failed_and_leaves_what_is_in_hand_to_its_holder() {
    let mut hand_over = HandOver::new(10, 10);
    for sequence in 1..=3 {
        hand_over.offer(event("a", sequence));
    }
    take(&mut hand_over, 1).expect("an event");
    drop(hand_over.give_up());
    assert_eq!((hand_over.report().failed, hand_over.report().in_hand), (2, 1));
    hand_over.delivered();
    assert_eq!((hand_over.report().failed, hand_over.report().delivered), (2, 1));
    assert_eq!(hand_over.take(1), Take::Ended);
}

/// What happens to a hand-over.
#[derive(Debug, Clone, Copy)]
enum Step {
    Offer(usize),
    Prune(usize),
    Resync,
    Deliver(usize),
    Fail(usize),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..NAMES.len()).prop_map(Step::Offer),
        1 => (0..NAMES.len()).prop_map(Step::Prune),
        1 => Just(Step::Resync),
        6 => (1_usize..5).prop_map(Step::Deliver),
        2 => (1_usize..5).prop_map(Step::Fail),
    ];
    prop::collection::vec(step, 0..200)
}

/// The simple model: there is room as long as fewer items than the capacity wait. What had room comes out in order, what had
/// none is told.
#[derive(Debug, Default)]
struct Model {
    capacity: usize,
    gap_limit: usize,
    /// The next number of each process. Numbers are skipped now and then, as those of events that are not emitted.
    numbers: [u64; NAMES.len()],
    waiting: VecDeque<Waiting>,
    /// Of each process, what was left out or failed and has not been told.
    untold: BTreeMap<&'static str, Vec<u64>>,
    last_delivered: BTreeMap<&'static str, u64>,
    /// Whether a gap of all may come.
    all_expected: bool,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Waiting {
    Event(&'static str, u64),
    Pruned(&'static str),
}

fn name_of(process_id: &ProcessId) -> &'static str {
    NAMES.into_iter().find(|name| process(name) == *process_id).expect("a known process")
}

impl Model {
    fn untold_events(&self) -> usize {
        self.untold.values().map(Vec::len).sum()
    }

    fn take_event(&mut self, event: &ProcessEvent) -> (&'static str, u64) {
        let taken = (name_of(&event.process_id), event.sequence.0);
        assert_eq!(self.waiting.pop_front(), Some(Waiting::Event(taken.0, taken.1)), "what had room comes in order");
        let earlier = self.untold.get(taken.0).is_some_and(|untold| untold.iter().any(|number| *number < taken.1));
        assert!(!earlier, "a gap is told before the next event of its process");
        taken
    }

    fn hear(&mut self, delivery: &Delivery, fails: bool) {
        match delivery {
            Delivery::Events(events) => {
                let taken: Vec<_> = events.iter().map(|event| self.take_event(event)).collect();
                for (name, number) in taken {
                    if fails {
                        self.untold.entry(name).or_default().push(number);
                    } else {
                        let last = self.last_delivered.insert(name, number);
                        assert!(last.is_none_or(|last| last < number), "events of a process ascend");
                    }
                }
            }
            Delivery::Missed(MissedEvents::Of { process_id, from, to }) => {
                let name = name_of(process_id);
                let untold = self.untold.remove(name).unwrap_or_default();
                let (told, still): (Vec<_>, Vec<_>) =
                    untold.into_iter().partition(|number| (from.0..=to.0).contains(number));
                assert!(told.contains(&from.0) && told.contains(&to.0), "{delivery:?} names what is missing: {told:?}");
                self.untold.insert(name, still);
                let delivered = self.last_delivered.get(name).copied().unwrap_or(0);
                assert!(delivered < from.0, "a gap comes behind what came before it");
                let overtaken =
                    |waiting: &Waiting| matches!(waiting, Waiting::Event(of, number) if *of == name && *number <= to.0);
                assert!(!self.waiting.iter().any(overtaken), "a gap holds nothing that is still delivered");
            }
            Delivery::Missed(MissedEvents::Unknown) => {
                assert!(self.all_expected || self.untold_events() > self.gap_limit, "a gap of all has a reason");
                self.untold.clear();
                self.all_expected = false;
            }
            Delivery::Pruned(tombstone) => {
                let pruned = Waiting::Pruned(name_of(&tombstone.process_id));
                assert_eq!(self.waiting.pop_front(), Some(pruned));
                self.all_expected |= fails;
            }
        }
    }

    fn check(&self, report: &SinkReport) {
        assert_eq!(report.offered, report.accepted + report.dropped);
        assert_eq!(report.accepted, report.delivered + report.failed + report.waiting + report.in_hand);
        let waiting = self.waiting.iter().filter(|waiting| matches!(waiting, Waiting::Event(..))).count();
        assert_eq!(report.waiting, waiting as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_event_is_delivered_or_inside_exactly_one_gap_in_the_order_of_its_process(
        capacity in 1_usize..6,
        gap_limit in 1_usize..6,
        steps in steps(),
    ) {
        let mut hand_over = HandOver::new(capacity, gap_limit);
        let mut model = Model { capacity, gap_limit, ..Model::default() };
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Offer(process) => {
                    let name = NAMES[process];
                    model.numbers[process] += 1 + u64::from(at % 3 == 0);
                    let number = model.numbers[process];
                    if model.waiting.len() < model.capacity {
                        model.waiting.push_back(Waiting::Event(name, number));
                    } else {
                        model.untold.entry(name).or_default().push(number);
                    }
                    hand_over.offer(event(name, number));
                }
                Step::Prune(process) => {
                    let name = NAMES[process];
                    if model.waiting.len() < model.capacity {
                        model.waiting.push_back(Waiting::Pruned(name));
                    } else {
                        model.all_expected = true;
                    }
                    hand_over.prune(tombstone(name));
                }
                Step::Resync => {
                    model.all_expected = true;
                    hand_over.resync();
                }
                Step::Deliver(limit) => {
                    if let Some(delivery) = take(&mut hand_over, limit) {
                        model.hear(&delivery, false);
                        hand_over.delivered();
                    }
                }
                Step::Fail(limit) => {
                    if let Some(delivery) = take(&mut hand_over, limit) {
                        model.hear(&delivery, true);
                        hand_over.delivery_failed(&delivery);
                    }
                }
            }
            model.check(&hand_over.report());
        }
        hand_over.close();
        while let Take::Deliver(delivery) = hand_over.take(3) {
            model.hear(&delivery, false);
            hand_over.delivered();
        }
        prop_assert!(model.waiting.is_empty() && model.untold_events() == 0 && !model.all_expected, "{model:?}");
        model.check(&hand_over.report());
    }
}

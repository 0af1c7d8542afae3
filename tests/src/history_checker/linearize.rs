//! The search for one order of the calls of a process that explains all their answers, after Wing and Gong, with the
//! states that were seen remembered.
//!
//! A call that changes nothing takes its place as soon as its answer fits: it cannot stand in the way of another one. So
//! the search branches only where calls change something.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use registry_actor::domain::{Command, ProcessId, ProcessPruneReport, Refusal, RegistryCommand, RegistryReceipt};
use registry_actor::port::RegistryError;

use super::Violation;
use super::history::{Answered, Asked, History, RecordedCall};
use super::process_model::{Deed, Said, Step, Stored, World};

/// How many steps are tried before the search is given up.
const STEPS: usize = 200_000;

/// How often a lease move may have been carried out before the time of which its caller was told.
const LEASE_MOVES_REPEATED: usize = 2;

/// What has to take its place in the order.
struct Operation<'history> {
    start: u64,
    /// From when on it can no longer take its place.
    end: u64,
    /// Whether it may be left out: nobody was told that it took effect.
    is_optional: bool,
    /// It comes after this one.
    after: Option<usize>,
    /// It comes before this one, or never.
    before: Option<usize>,
    deed: Deed<'history>,
    call: &'history RecordedCall,
}

struct Search<'history> {
    world: World<'history>,
    operations: Vec<Operation<'history>>,
    /// Places from which no order was found: by the state and the definite operations that are done, which of the optional
    /// ones were done.
    seen: HashMap<u64, Vec<Vec<u64>>>,
    steps: usize,
    /// The furthest that an order came: how many definite operations it holds, and what stands in its way.
    furthest: (usize, String),
}

/// Where a search stands.
#[derive(Clone)]
struct Place {
    state: Stored,
    done: Vec<bool>,
    /// How many definite operations are done.
    definite: usize,
}

/// Finds an order.
pub(super) fn check(history: &History, process_id: &ProcessId) -> Result<(), Violation> {
    // Repeated lease moves are rare, and each that may be makes the search wider.
    let tried = (0..LEASE_MOVES_REPEATED).any(|repeated| check_with(history, process_id, repeated).is_ok());
    if tried { Ok(()) } else { check_with(history, process_id, LEASE_MOVES_REPEATED) }
}

fn check_with(history: &History, process_id: &ProcessId, repeated: usize) -> Result<(), Violation> {
    let operations = operations_of(history, process_id, repeated);
    let mut search = Search {
        world: World::new(history, process_id),
        seen: HashMap::new(),
        steps: 0,
        furthest: (0, String::new()),
        operations,
    };
    let begin = Place { state: Stored::default(), done: vec![false; search.operations.len()], definite: 0 };
    if search.finds_an_order(begin) {
        return Ok(());
    }
    let process_id = process_id.clone();
    if search.steps >= STEPS {
        return Err(Violation::Undecided { process_id, steps: search.steps });
    }
    Err(Violation::NotLinearizable { process_id, story: search.furthest.1 })
}

impl Search<'_> {
    fn finds_an_order(&mut self, mut place: Place) -> bool {
        let mut changing = self.settle(&mut place);
        loop {
            if self.is_an_end(&place) {
                return true;
            }
            self.remember(&place);
            if self.steps >= STEPS || self.was_seen(&place) {
                return false;
            }
            // The one that must come soonest is tried first; what may be left out comes last.
            changing.sort_by_key(|(operation, _)| {
                (self.operations[*operation].is_optional, self.operations[*operation].end)
            });
            // Without a choice there is nothing to come back to.
            if changing.len() != 1 {
                break;
            }
            let Some((operation, state)) = changing.pop() else { break };
            if self.operations[operation].is_optional {
                changing.push((operation, state));
                break;
            }
            place.state = state;
            self.mark(&mut place, operation);
            changing = self.settle(&mut place);
        }
        for (operation, state) in changing {
            let mut next = Place { state, ..place.clone() };
            self.mark(&mut next, operation);
            if self.finds_an_order(next) {
                return true;
            }
        }
        false
    }

    /// Whether no order was found from this state with no more of the optional operations done. What is left to do then
    /// can be done from there, too.
    fn was_seen(&mut self, place: &Place) -> bool {
        let mut hasher = DefaultHasher::new();
        let mut spent = vec![0_u64; place.done.len().div_ceil(64)];
        for (number, operation) in self.operations.iter().enumerate() {
            if !operation.is_optional {
                place.done[number].hash(&mut hasher);
            } else if place.done[number] {
                spent[number / 64] |= 1 << (number % 64);
            }
        }
        place.state.hash(&mut hasher);
        let before = self.seen.entry(hasher.finish()).or_default();
        let holds = |less: &[u64], more: &[u64]| less.iter().zip(more).all(|(less, more)| less & !more == 0);
        if before.iter().any(|before| holds(before, &spent)) {
            return true;
        }
        before.retain(|before| !holds(&spent, before));
        before.push(spent);
        false
    }

    /// Gives a place to everything that fits and changes nothing; answers what may come next and changes something.
    fn settle(&mut self, place: &mut Place) -> Vec<(usize, Stored)> {
        loop {
            let mut changing = Vec::new();
            let mut settled = false;
            for operation in self.possible(place) {
                self.steps += 1;
                for step in place.state.step(&self.world, &self.operations[operation].deed) {
                    match step {
                        Step::Same => {
                            self.mark(place, operation);
                            settled = true;
                        }
                        Step::Changed(state) => changing.push((operation, state)),
                    }
                }
            }
            if !settled {
                return changing;
            }
        }
    }

    /// What may come next: nothing that is not done has ended before it began.
    fn possible(&self, place: &Place) -> Vec<usize> {
        let not_done = || self.operations.iter().enumerate().filter(|(number, _)| !place.done[*number]);
        let soonest_end =
            not_done().filter(|(_, other)| !other.is_optional).map(|(_, other)| other.end).min().unwrap_or(u64::MAX);
        not_done()
            .filter(|(_, other)| other.start <= soonest_end)
            .filter(|(_, other)| other.after.is_none_or(|before| place.done[before]))
            .filter(|(_, other)| other.before.is_none_or(|after| !place.done[after]))
            .map(|(number, _)| number)
            .collect()
    }

    fn mark(&self, place: &mut Place, operation: usize) {
        if !std::mem::replace(&mut place.done[operation], true) {
            place.definite += usize::from(!self.operations[operation].is_optional);
        }
    }

    fn is_an_end(&self, place: &Place) -> bool {
        let is_done = |(number, operation): (usize, &Operation<'_>)| operation.is_optional || place.done[number];
        self.operations.iter().enumerate().all(is_done) && place.state.is_the_end(&self.world)
    }

    fn remember(&mut self, place: &Place) {
        if place.definite < self.furthest.0 && !self.furthest.1.is_empty() {
            return;
        }
        let open = |(number, operation): &(usize, &Operation<'_>)| !place.done[*number] && !operation.is_optional;
        let next = self.operations.iter().enumerate().filter(open).min_by_key(|(_, operation)| operation.end);
        let what = match next {
            Some((_, operation)) => {
                format!("client {} asked {} and was answered {}", operation.call.client, text(&operation.call.asked), {
                    operation.call.answered.as_ref().map_or_else(|| "nothing".to_owned(), text)
                })
            }
            None => format!("the end, of which is known: {}", self.world),
        };
        self.furthest = (place.definite, format!("after {} calls, at {}: {what}", place.definite, place.state));
    }
}

/// Shortened: a story has to be read.
fn text(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if text.len() > 1_200 {
        let cut = (0..=1_200).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn operations_of<'history>(
    history: &'history History,
    process_id: &ProcessId,
    repeated: usize,
) -> Vec<Operation<'history>> {
    let mut operations = Vec::new();
    for call in &history.calls {
        let said = match &call.answered {
            None => Heard::Unknown,
            Some(answered) => heard(answered),
        };
        let end = match said {
            Heard::Unknown => u64::MAX,
            Heard::Nothing => continue,
            Heard::Said(_) => call.span.end.unwrap_or(u64::MAX),
        };
        let operation = |deed, is_optional| Operation {
            start: call.span.start,
            end,
            is_optional,
            after: None,
            before: None,
            deed,
            call,
        };
        match (&call.asked, said) {
            (Asked::Execute(of, command), said) if of == process_id => {
                let (said, is_optional) = match said {
                    Heard::Said(said) => (said, false),
                    Heard::Unknown | Heard::Nothing => (Said::Nothing, true),
                };
                let record = match said {
                    Said::Receipt(receipt) => Some(receipt.record.as_deref()),
                    _ => None,
                };
                operations.push(operation(Deed::Command { command, said, span: call.span }, is_optional));
                let moved = operations.len() - 1;
                if is_lease_move(command) {
                    // It leaves no event by which it is found. One that is sent again after its actor had died is decided
                    // anew, and may have been carried out before: that is what tokens and fences are for.
                    for _ in 0..repeated {
                        let deed = Deed::Command { command, said: Said::Nothing, span: call.span };
                        operations.push(Operation { before: (!is_optional).then_some(moved), ..operation(deed, true) });
                    }
                }
                if let Some(record) = record {
                    // A call that was sent again after its actor had died is answered with a record of that time.
                    let after = Some(moved);
                    operations.push(Operation { after, ..operation(Deed::Record(record), false) });
                }
            }
            (Asked::Across(RegistryCommand::Prune { .. }), _) if pruned_nothing(call) => {}
            (Asked::Across(RegistryCommand::Prune { .. }), said) => {
                let is_optional = !matches!(said, Heard::Said(Said::Across));
                operations.push(operation(Deed::Prune, is_optional));
            }
            (Asked::Across(RegistryCommand::DeleteSession { session_id }), said) => {
                let is_optional = !matches!(said, Heard::Said(Said::Across));
                operations.push(operation(Deed::DeleteSession(session_id), is_optional));
            }
            (Asked::Query(query), Heard::Said(said)) if call.asked.process_id() == Some(process_id) => {
                operations.push(operation(Deed::Read { query, said }, false));
            }
            (Asked::Execute(..) | Asked::Across(_) | Asked::Query(_), _) => {}
        }
    }
    operations
}

const fn pruned_nothing(call: &RecordedCall) -> bool {
    matches!(
        &call.answered,
        Some(Answered::Across(Ok(RegistryReceipt::Pruned(ProcessPruneReport { pruned_processes: 0, .. }))))
    )
}

const fn is_lease_move(command: &Command) -> bool {
    matches!(command, Command::ClaimLease { .. } | Command::ReclaimLease { .. } | Command::RenewLease { .. })
}

/// What an answer says of the call's effect.
enum Heard<'history> {
    /// It took effect and was answered so.
    Said(Said<'history>),
    /// It may have taken effect or may do so yet.
    Unknown,
    /// It took no effect, and says nothing of the process.
    Nothing,
}

fn heard(answered: &Answered) -> Heard<'_> {
    let error = match answered {
        Answered::Execute(Ok(receipt)) => return Heard::Said(Said::Receipt(receipt)),
        Answered::Query(Ok(answer)) => return Heard::Said(Said::Answer(answer)),
        Answered::Across(Ok(_)) => return Heard::Said(Said::Across),
        Answered::Execute(Err(error)) | Answered::Across(Err(error)) | Answered::Query(Err(error)) => error,
    };
    match error {
        RegistryError::Refused(Refusal::DecisionPanicked { .. }) => Heard::Nothing,
        RegistryError::Refused(refusal) if !matches!(answered, Answered::Across(_)) => {
            Heard::Said(Said::Refused(refusal))
        }
        RegistryError::Refused(_)
        | RegistryError::Busy { .. }
        | RegistryError::Unavailable { .. }
        | RegistryError::NotStored { .. }
        | RegistryError::Closed => Heard::Nothing,
        _ if matches!(answered, Answered::Query(_)) => Heard::Nothing,
        _ => Heard::Unknown,
    }
}

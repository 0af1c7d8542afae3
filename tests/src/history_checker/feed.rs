//! The feed against what is stored and what callers were told.

use std::collections::BTreeMap;

use registry_actor::domain::{ProcessId, Sequence};
use registry_actor::port::ProcessChange;

use super::Violation;
use super::history::{Answered, History};

/// A life has at most one outcome.
pub(super) fn one_terminal(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for ((process_id, generation), life) in &history.lives {
        let ends = life.events.iter().filter(|event| event.semantics.terminal.is_some());
        let sequences: Vec<u64> = ends.map(|event| event.sequence.0).collect();
        if sequences.len() > 1 {
            let process_id = process_id.clone();
            violations.push(Violation::TwoTerminals { process_id, generation: *generation, sequences });
        }
    }
    violations
}

/// Every event of a retained life once, those of a process in order, and those of successive calls in order.
pub(super) fn complete_and_in_order(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut next: BTreeMap<&ProcessId, usize> = BTreeMap::new();
    let retained: BTreeMap<&ProcessId, _> = history
        .lives
        .iter()
        .filter(|(_, life)| !life.pruned)
        .map(|((process_id, _), life)| (process_id, &life.events))
        .collect();
    for change in &history.feed {
        let ProcessChange::Event(event) = change else { continue };
        let place = next.entry(&event.process_id).or_default();
        let expected = retained.get(&event.process_id).and_then(|events| events.get(*place));
        if expected != Some(event) {
            let what = format!(
                "`{}` has sequence {} where {} was to come",
                event.process_id,
                event.sequence.0,
                expected.map_or_else(|| "nothing".to_owned(), |event| format!("sequence {}", event.sequence.0)),
            );
            return vec![Violation::Feed { what }];
        }
        *place += 1;
    }
    for (process_id, events) in &retained {
        let told = next.get(process_id).copied().unwrap_or(0);
        if told < events.len() {
            let what = format!("`{process_id}` has {} events, the feed tells {told} of them", events.len());
            violations.push(Violation::Feed { what });
        }
    }
    violations.extend(real_time_order(history));
    violations
}

/// An event of a call that had ended before another call began comes before that one's.
fn real_time_order(history: &History) -> Option<Violation> {
    let mut inserted: BTreeMap<(&ProcessId, Sequence), Vec<(u64, u64)>> = BTreeMap::new();
    for call in &history.calls {
        let (Some(Answered::Execute(Ok(receipt))), Some(end)) = (&call.answered, call.span.end) else { continue };
        let Some(record) = &receipt.record else { continue };
        let is_retained = history.lives.get(&(record.id().clone(), record.generation)).is_some_and(|life| !life.pruned);
        if is_retained {
            for event in receipt.events.iter().filter(|event| event.is_inserted()) {
                let event = event.event();
                inserted.entry((&event.process_id, event.sequence)).or_default().push((call.span.start, end));
            }
        }
    }
    let mut latest_start = 0;
    for change in &history.feed {
        let ProcessChange::Event(event) = change else { continue };
        for (start, end) in inserted.get(&(&event.process_id, event.sequence)).into_iter().flatten() {
            if *end < latest_start {
                let what = format!(
                    "`{}` sequence {} comes after events of a call that began when its own had ended",
                    event.process_id, event.sequence.0
                );
                return Some(Violation::Feed { what });
            }
            latest_start = latest_start.max(*start);
        }
    }
    None
}

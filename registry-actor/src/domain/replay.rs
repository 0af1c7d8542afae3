//! What a process knows about its replay keys without reading the log.
//!
//! Keys of a process are unbounded, memory is not: the window answers what it can, and names what the edge has to look
//! up before [`decide`](fn@super::decide) is asked.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{ProcessEvent, ReplayKey};

/// How many keys are remembered.
const KEYS_KEPT: usize = 4_096;

/// What is known about the replay keys of one process.
///
/// A clone is cheap and is what a batch is decided on: the settled part is shared, what the batch adds is its own.
#[derive(Debug, Clone, Default)]
pub struct ReplayWindow {
    settled: Arc<Settled>,
    /// Keys that events of the undecided batch brought, and answers that the edge looked up for it.
    recent: BTreeMap<ReplayKey, Option<Arc<ProcessEvent>>>,
}

#[derive(Debug, Clone, Default)]
struct Settled {
    /// Whether `known` holds every key of the process, so that any other is absent. Once there are too many, the log
    /// answers for all of them and none is kept.
    complete: bool,
    known: HashSet<ReplayKey>,
}

/// What the window says of a key.
#[derive(Debug)]
pub(crate) enum ReplayLookup<'window> {
    /// No event has the key.
    Absent,
    /// This event has it.
    Stored(&'window Arc<ProcessEvent>),
    /// The log has to be asked.
    Unresolved,
}

impl ReplayWindow {
    /// The window of a process without any keyed event.
    #[must_use]
    pub fn complete() -> Self {
        Self { settled: Arc::new(Settled { complete: true, ..Settled::default() }), recent: BTreeMap::new() }
    }

    /// Whether the log has to be asked for this key before a command that carries it is decided.
    #[must_use]
    pub fn must_look_up(&self, key: &ReplayKey) -> bool {
        matches!(self.look_up(key), ReplayLookup::Unresolved)
    }

    /// Takes the answer of the log: the event under the key, or its absence.
    pub fn resolve(&mut self, key: ReplayKey, stored: Option<Arc<ProcessEvent>>) {
        self.recent.insert(key, stored);
    }

    pub(crate) fn look_up(&self, key: &ReplayKey) -> ReplayLookup<'_> {
        match self.recent.get(key) {
            Some(Some(event)) => ReplayLookup::Stored(event),
            Some(None) => ReplayLookup::Absent,
            None if self.settled.complete && !self.settled.known.contains(key) => ReplayLookup::Absent,
            None => ReplayLookup::Unresolved,
        }
    }

    pub(crate) fn record(&mut self, event: &Arc<ProcessEvent>) {
        if let Some(key) = &event.replay_key {
            self.recent.insert(key.clone(), Some(Arc::clone(event)));
        }
    }

    /// Makes the batch's keys part of what is known, once it is durable, and forgets the events themselves.
    pub fn settle(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        if recent.is_empty() || !self.settled.complete {
            return;
        }
        let settled = Arc::make_mut(&mut self.settled);
        settled.known.extend(recent.into_iter().filter_map(|(key, stored)| stored.map(|_| key)));
        if settled.known.len() > KEYS_KEPT {
            *settled = Settled::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> ReplayKey {
        ReplayKey::new(format!("k{number}")).expect("a key")
    }

    fn event(number: usize) -> Arc<ProcessEvent> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "process_id": "p", "sequence": number, "event_type": "t", "payload": null,
                "replay_key": format!("k{number}"), "occurred_at_ms": 0,
            }))
            .expect("an event"),
        )
    }

    #[test]
    fn a_window_that_forgot_a_key_asks_the_log_again() {
        let mut window = ReplayWindow::complete();
        assert!(!window.must_look_up(&key(0)), "nothing was ever appended");
        for number in 0..=KEYS_KEPT {
            window.record(&event(number));
            window.settle();
        }
        assert!(window.must_look_up(&key(0)), "forgotten");
        assert!(window.must_look_up(&key(KEYS_KEPT + 7)), "never seen, but it might have been forgotten");
        assert!(window.must_look_up(&key(KEYS_KEPT)), "known to be there, but the event itself is at the log");
        window.resolve(key(0), None);
        assert!(!window.must_look_up(&key(0)));
    }

    #[test]
    fn an_undecided_batch_leaves_the_settled_window_alone() {
        let window = ReplayWindow::complete();
        let mut scratch = window.clone();
        scratch.record(&event(1));
        assert!(matches!(scratch.look_up(&key(1)), ReplayLookup::Stored(_)));
        assert!(matches!(window.look_up(&key(1)), ReplayLookup::Absent));
    }
}

//! Where the actor of a process is: a map that the handle, the shards and the actors share, so that a command for a
//! live process needs no hop through a router.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ractor::{ActorId, ActorRef, ActorStatus};

use super::gate::SubmissionGate;
use super::process::ProcessMessage;
use crate::domain::ProcessId;

/// The live processes.
#[derive(Debug, Default)]
pub(super) struct Directory {
    residents: DashMap<ProcessId, Resident>,
}

#[derive(Debug)]
struct Resident {
    gate: Arc<SubmissionGate>,
    actor: Option<ActorRef<ProcessMessage>>,
    activity: Arc<Activity>,
}

/// When a process last did something, for the sweep.
#[derive(Debug, Default)]
pub(super) struct Activity(AtomicU64);

impl Activity {
    pub(super) fn touch(&self, monotonic_ms: u64) {
        self.0.store(monotonic_ms, Ordering::Relaxed);
    }

    pub(super) fn last_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a process had an actor of this registry before, whose callers may still be without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predecessor {
    /// There was none since the process last came to rest.
    None,
    /// There was one, and how it ended does not matter.
    Some,
}

impl Directory {
    /// Makes room for an actor: the gate is that of the predecessor, if there was one.
    pub(super) fn prepare(&self, process_id: &ProcessId) -> (Arc<SubmissionGate>, Arc<Activity>, Predecessor) {
        match self.residents.entry(process_id.clone()) {
            Entry::Occupied(mut resident) => {
                let resident = resident.get_mut();
                resident.actor = None;
                (Arc::clone(&resident.gate), Arc::clone(&resident.activity), Predecessor::Some)
            }
            Entry::Vacant(room) => {
                let resident = room.insert(Resident { gate: Arc::default(), actor: None, activity: Arc::default() });
                (Arc::clone(&resident.gate), Arc::clone(&resident.activity), Predecessor::None)
            }
        }
    }

    /// Lets commands reach the actor directly.
    pub(super) fn publish(&self, process_id: &ProcessId, actor: ActorRef<ProcessMessage>) {
        if let Some(mut resident) = self.residents.get_mut(process_id) {
            resident.actor = Some(actor);
        }
    }

    /// The actor, if it can be reached directly.
    pub(super) fn actor(&self, process_id: &ProcessId) -> Option<ActorRef<ProcessMessage>> {
        self.residents.get(process_id)?.actor.clone()
    }

    /// Keeps commands away from a dead actor, while its gate stays for the successor.
    pub(super) fn withdraw(&self, process_id: &ProcessId, actor: ActorId) {
        if let Some(mut resident) = self.residents.get_mut(process_id)
            && resident.actor.as_ref().is_some_and(|known| known.get_id() == actor)
        {
            resident.actor = None;
        }
    }

    /// When the process last did something, on the environment's scale.
    pub(super) fn last_active_ms(&self, process_id: &ProcessId) -> Option<u64> {
        self.residents.get(process_id).map(|resident| resident.activity.last_ms())
    }

    /// How many processes have an actor: for people, never for decisions.
    pub(super) fn live_actors(&self) -> usize {
        // The actors of a shard that died are dead too, and nobody withdraws them until somebody asks for them.
        let is_alive = |actor: &ActorRef<ProcessMessage>| actor.get_status() != ActorStatus::Stopped;
        self.residents.iter().filter(|resident| resident.actor.as_ref().is_some_and(is_alive)).count()
    }

    /// Forgets a process that came to rest with nothing pending.
    pub(super) fn forget(&self, process_id: &ProcessId) {
        self.residents.remove(process_id);
    }

    /// Forgets a process whose actor failed and for which nobody asked again, unless something of its past could still
    /// write: an actor, or a batch at the log, each of which holds the gate. Answers whether it is gone. Whoever comes
    /// later finds what was submitted in the log ([`Call::submitted_from`](super::envelope::Call::submitted_from)).
    pub(super) fn forget_when_quiet(&self, process_id: &ProcessId) -> bool {
        // Nobody takes the gate out of the directory meanwhile: this holds the lock of the entry.
        self.residents.remove_if(process_id, |_, resident| Arc::strong_count(&resident.gate) == 1);
        !self.residents.contains_key(process_id)
    }

    /// How many entries there are: for tests.
    pub(super) fn len(&self) -> usize {
        self.residents.len()
    }

    /// The processes with a live actor for which `belongs` holds.
    pub(super) fn alive(&self, belongs: impl Fn(&ProcessId) -> bool) -> Vec<ProcessId> {
        let is_alive = |actor: &ActorRef<ProcessMessage>| actor.get_status() != ActorStatus::Stopped;
        self.residents
            .iter()
            .filter(|resident| belongs(resident.key()) && resident.actor.as_ref().is_some_and(is_alive))
            .map(|resident| resident.key().clone())
            .collect()
    }

    /// Forgets everything: no actor of the registry lives any more.
    pub(super) fn clear(&self) {
        self.residents.clear();
    }

    /// The processes for which `belongs` holds: what a restarted shard inherits.
    pub(super) fn inherited(&self, belongs: impl Fn(&ProcessId) -> bool) -> Vec<ProcessId> {
        self.residents
            .iter()
            .filter(|resident| belongs(resident.key()))
            .map(|resident| resident.key().clone())
            .collect()
    }
}

//! Reads: every answer is worked out from the whole state, nothing is indexed.

use std::sync::Arc;

use registry_actor::domain::{
    OriginatorFilter, ProcessEvent, ProcessHandleGrant, ProcessId, ProcessLease, ProcessListFilter, ProcessOriginator,
    ProcessRecord, ProcessStatusFilter, ProcessWakeDelivery, Sequence, SessionScope, TimeRange, Tombstone,
};
use registry_actor::port::ProcessChange;

use super::{Change, Life, Model, No};

impl Model {
    /// Ids of the processes that live, ascending.
    pub fn ids(&self) -> impl Iterator<Item = &ProcessId> {
        self.lives.keys()
    }

    /// How many changes the store has seen.
    #[must_use]
    pub const fn changes_made(&self) -> usize {
        self.feed.len()
    }

    /// The record.
    #[must_use]
    pub fn record(&self, id: &ProcessId) -> Option<&ProcessRecord> {
        self.lives.get(id).map(|life| &life.record)
    }

    /// The lease, expired or not.
    #[must_use]
    pub fn lease(&self, id: &ProcessId) -> Option<&ProcessLease> {
        self.lives.get(id)?.holder.as_ref()
    }

    /// What is left of the latest life that was pruned.
    #[must_use]
    pub fn tombstone(&self, id: &ProcessId) -> Option<&Tombstone> {
        self.tombstones.get(id)
    }

    /// All events but the registration.
    ///
    /// # Errors
    /// Where the process is unknown.
    pub fn events(&self, id: &ProcessId) -> Result<&[Arc<ProcessEvent>], No> {
        Ok(&self.life(id)?.events[1..])
    }

    /// Events that woke somebody and are not acknowledged.
    ///
    /// # Errors
    /// Where the process is unknown.
    pub fn wake_events(&self, id: &ProcessId) -> Result<Vec<Arc<ProcessEvent>>, No> {
        let Life { events, acked, .. } = self.life(id)?;
        let woke = |event: &&Arc<ProcessEvent>| event.semantics.wake.is_some() && !acked.contains(&event.sequence);
        Ok(events.iter().filter(woke).cloned().collect())
    }

    /// Every wake of a process, acknowledged or not.
    #[must_use]
    pub fn wakes_of(&self, id: &ProcessId) -> Vec<Sequence> {
        let events = self.lives.get(id).map_or(&[][..], |life| &life.events);
        events.iter().filter(|event| event.semantics.wake.is_some()).map(|event| event.sequence).collect()
    }

    /// The wakes of exactly this target that are not settled, each with its place among all that ever were.
    pub fn pending(&self, target: &SessionScope) -> impl Iterator<Item = (u64, &ProcessWakeDelivery)> {
        let pending = self.wakes.iter().filter(move |wake| !wake.settled && wake.delivery.target == *target);
        pending.map(|wake| (wake.number, &wake.delivery))
    }

    /// The grants of exactly this scope, ascending by process.
    #[must_use]
    pub fn grants_of(&self, scope: &SessionScope, live_only: bool) -> Vec<(ProcessHandleGrant, ProcessRecord)> {
        let mut entries = Vec::new();
        for ((granted_to, id), descriptor) in &self.grants {
            let record = &self.lives[id].record;
            if granted_to == scope && !(live_only && record.terminal_at_ms.is_some()) {
                let (scope, process_id, descriptor) = (scope.clone(), id.clone(), descriptor.clone());
                entries.push((ProcessHandleGrant { scope, process_id, descriptor }, record.clone()));
            }
        }
        entries
    }

    /// Who may address a process, ascending by scope.
    ///
    /// # Errors
    /// Where the process is unknown.
    pub fn grants_on(&self, id: &ProcessId) -> Result<Vec<ProcessHandleGrant>, No> {
        self.life(id)?;
        let on_it = self.grants.iter().filter(|((_, granted), _)| granted == id);
        let grant = |((scope, id), descriptor): ((&SessionScope, &ProcessId), _)| ProcessHandleGrant {
            scope: scope.clone(),
            process_id: id.clone(),
            descriptor,
        };
        Ok(on_it.map(|((scope, id), descriptor)| grant(((scope, id), descriptor.clone()))).collect())
    }

    /// Records that a filter shows, ascending by id.
    #[must_use]
    pub fn list(&self, filter: &ProcessListFilter) -> Vec<ProcessRecord> {
        self.lives.values().map(|life| &life.record).filter(|record| shows(filter, record)).cloned().collect()
    }

    /// The same, the last registered first.
    #[must_use]
    pub fn list_recent(&self, filter: &ProcessListFilter) -> Vec<ProcessRecord> {
        let registered = self.feed.iter().rev().filter_map(|change| match change {
            Change::Event { process_id, generation, sequence: Sequence::REGISTRATION } => {
                self.lives.get(process_id).filter(|life| life.record.generation == *generation)
            }
            _ => None,
        });
        registered.map(|life| &life.record).filter(|record| shows(filter, record)).cloned().collect()
    }

    /// The changes after so many, as far as they are retained, each with its place.
    #[must_use]
    pub fn changes_after(&self, seen: usize) -> Vec<(usize, ProcessChange)> {
        let mut changes = Vec::new();
        for (place, change) in self.feed.iter().enumerate().skip(seen) {
            let change = match change {
                // Of an id that was pruned again the last tombstone speaks for all of its lives.
                Change::Pruned(tombstone) if self.tombstone(&tombstone.process_id) != Some(tombstone) => continue,
                Change::Pruned(tombstone) => ProcessChange::Pruned(tombstone.clone()),
                Change::SessionDeleted(deletion) => ProcessChange::SessionDeleted(deletion.clone()),
                Change::Event { process_id, generation, sequence } => {
                    let life = self.lives.get(process_id).filter(|life| life.record.generation == *generation);
                    let Some(life) = life else { continue };
                    let event = life.events.iter().find(|event| event.sequence == *sequence).expect("never lost");
                    ProcessChange::Event(Arc::clone(event))
                }
            };
            changes.push((place + 1, change));
        }
        changes
    }
}

fn shows(filter: &ProcessListFilter, record: &ProcessRecord) -> bool {
    let state = record.status.await_output().map(|outcome| outcome.terminal_state().label());
    let by_status = match filter.status {
        ProcessStatusFilter::Any => true,
        ProcessStatusFilter::Running => state.is_none(),
        ProcessStatusFilter::Completed => state == Some("completed"),
        ProcessStatusFilter::Failed => state == Some("failed"),
        ProcessStatusFilter::Cancelled => state == Some("cancelled"),
        ProcessStatusFilter::Abandoned => state == Some("abandoned"),
    };
    let by_originator = match (&filter.originator, &record.registration.provenance.originator) {
        (None, _) | (Some(OriginatorFilter::Host), ProcessOriginator::Host) => true,
        (Some(OriginatorFilter::Session(asked)), ProcessOriginator::Session { scope }) => {
            let by_frame = asked.agent_frame_id().is_none() || asked.agent_frame_id() == scope.agent_frame_id();
            asked.session_id() == scope.session_id() && by_frame
        }
        _ => false,
    };
    let identity = &record.registration.identity;
    let within = |range: &TimeRange, at_ms: u64| {
        range.from_ms.unwrap_or(0) <= at_ms && range.until_ms.is_none_or(|until| at_ms < until)
    };
    by_status
        && by_originator
        && filter.kind.as_ref().is_none_or(|kind| *kind == identity.kind)
        && (filter.label.is_none() || filter.label == identity.label)
        && (filter.definition.is_none() || filter.definition == identity.definition)
        && (filter.waiting.is_none() || filter.waiting == Some(record.wait.is_some()))
        && within(&filter.created, record.created_at_ms)
        && within(&filter.updated, record.updated_at_ms)
        && filter.tags.iter().all(|tag| record.registration.tags.contains(tag))
}

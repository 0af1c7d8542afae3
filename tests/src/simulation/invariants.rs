//! What must hold of every run, in one place and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use registry_actor::domain::{Command, LeaseOwnerLiveness, ProcessEvent, ProcessId, Sequence};
use registry_actor::port::{
    Awaited, ProcessChange, ProcessLog, ProcessRegistry, ProcessRegistryExt, ProcessWait, RegistryError, WaitAnswer,
    is_emitted,
};
use serde::{Deserialize, Serialize};

use super::host::News;
use super::ledger::Entries;
use super::world::{World, lock};
use crate::history_checker::{self, Answered, Asked, History, Violation, whole_feed};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// Every call is answered once, or given up by its caller; none hangs.
    EveryCallAnswered,
    /// Nobody who calls or strikes panics.
    NobodyPanics,
    /// What a receipt says is stored, where it says.
    AcknowledgedFactsPresent,
    /// Logs are dense, linked, and fold to the records that are stored.
    ChainsDenseAndVerified,
    /// Nothing is stored twice.
    NothingStoredTwice,
    /// A life has at most one terminal.
    OneTerminal,
    /// Fences grow with each acquisition of a life.
    FencesGrow,
    /// No lease is taken from a holder while it is in force, but by proof of its death.
    OneLeaseInForce,
    /// Of what was refused, or was said to have changed nothing, nothing is stored.
    RefusedLeavesNoTrace,
    /// Whoever waits is answered rightly, and whoever waits on has a reason.
    WaitersAnswered,
    /// The feed holds what is stored and nothing else, once and in order.
    FeedCompleteInOrder,
    /// What was read of the feed along the way is a part of what was stored, once and in order.
    ProjectionInOrder,
    /// Listeners hear what is stored, once and in order, and all of it unless they are told that they missed some.
    ToldAsStored,
    /// A sink that is told inline is told of stored events only.
    SinkToldAsStored,
    /// A subscribed actor hears every event or where it missed some.
    NewsWithoutHoles,
    /// When nobody asks, no actor lives and no waiter is parked.
    EverythingRests,
    /// The calls of each process have one order that explains their answers.
    Linearizable,
    /// Two runs of a seed write the same transcript, byte for byte.
    Deterministic,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub what: String,
}

/// What an answer to a wait says that is not stored.
#[must_use]
pub(super) fn contradicts(world: &World, wait: &ProcessWait, answer: &WaitAnswer) -> Option<String> {
    let entries = world.ledger.entries();
    let of = &wait.process_id;
    let life = |generation: u32| entries.lives.get(&(of.clone(), generation));
    let output = |generation: u32| {
        let events = life(generation).map(|life| life.events.as_slice()).unwrap_or_default();
        events.iter().find_map(|event| event.semantics.terminal.as_ref()).map(|terminal| &terminal.await_output)
    };
    let fits = match answer {
        WaitAnswer::Completed { record } | WaitAnswer::Ended { record } => {
            record.status.await_output().is_some() && record.status.await_output() == output(record.generation)
        }
        WaitAnswer::Happened { event } => {
            let is_awaited = match &wait.awaited {
                Awaited::Event { event_type, after } => {
                    event.sequence > *after && event_type.as_ref().is_none_or(|name| *name == event.event_type)
                }
                Awaited::Outcome => false,
            };
            is_awaited && entries.events.iter().any(|(_, stored)| stored == event)
        }
        WaitAnswer::NoLongerRetained { tombstone } => life(tombstone.generation).is_some_and(|life| life.pruned),
        _ => true,
    };
    (!fits).then(|| format!("a wait for {wait:?} was answered {answer:?}"))
}

/// Whoever still waits has a reason: it has not happened.
pub(super) async fn waiters_are_answered(world: &World) {
    let waiters = lock(&world.waiters).clone();
    for waiter in waiters.iter().filter(|waiter| waiter.is_waiting) {
        let host = world.host(0);
        let id = &waiter.wait.process_id;
        let Ok(Some(record)) = host.registry.get_process(id).await else {
            world.broken(Invariant::WaitersAnswered, format!("{:?} is awaited and not there", waiter.wait));
            continue;
        };
        let has_happened = match &waiter.wait.awaited {
            Awaited::Outcome => false,
            Awaited::Event { event_type, after } => {
                let name = event_type.as_deref().unwrap_or_default();
                host.registry.first_event_of_type(id, name, *after).await.is_ok_and(|event| event.is_some())
            }
        };
        if record.status.is_terminal() || has_happened {
            world.broken(Invariant::WaitersAnswered, format!("{:?} has happened and nobody was told", waiter.wait));
        }
    }
}

/// What must hold when everything has come to rest, and the registry still answers.
pub(super) async fn hold_at_rest(world: &World, projected: &[Vec<ProcessChange>]) {
    for host in world.hosts() {
        let (actors, source) = (host.registry.live_actors(), host.registry.change_source());
        let parked = source.map_or(0, |source| source.parked_waits());
        if actors + parked > 0 {
            let what = format!("{actors} actors live and {parked} waiters are parked");
            world.broken(Invariant::EverythingRests, what);
        }
    }
    let entries = world.ledger.entries();
    stored(world, &entries).await;
    leases(world, &entries);
    receipts(world, &entries);
    for read in projected {
        projection(world, &entries, read);
    }
    match whole_feed(&world.host(0).registry).await {
        Ok(feed) => history(world, &entries, feed),
        Err(error) => world.broken(Invariant::FeedCompleteInOrder, format!("it cannot be read: {error}")),
    }
}

/// What must hold when the hosts are gone.
pub(super) fn hold_after_the_end(world: &World) {
    let entries = world.ledger.entries();
    let last = world.hosts().len();
    let hosts = world.all_hosts();
    for (number, host) in hosts.iter().enumerate() {
        let heard = host.listener.heard();
        told(world, &entries, &heard.events);
        if heard.told_after_the_end || !heard.closed {
            let what = format!("told after its end: {}, has ended: {}", heard.told_after_the_end, heard.closed);
            world.broken(Invariant::ToldAsStored, what);
        }
        if number + last >= hosts.len() && !heard.resynced {
            told_all(world, &entries, &heard.events);
        }
        for event in host.sink.told() {
            if !is_emitted(&event) || !entries.events.iter().any(|(_, stored)| *stored == event) {
                world.broken(Invariant::SinkToldAsStored, format!("a sink was told of {event:?}"));
            }
        }
        news(world, &entries, &lock(&host.news));
    }
}

async fn stored(world: &World, entries: &Entries) {
    for fault in &entries.faults {
        world.broken(Invariant::ChainsDenseAndVerified, fault.clone());
    }
    let store = world.store();
    let ids = store.process_ids(None, 1_000).await.unwrap_or_default();
    for id in &ids {
        match store.verify(id).await {
            Ok(verification) if verification.faults.is_empty() => {}
            other => world.broken(Invariant::ChainsDenseAndVerified, format!("{id}: {other:?}")),
        }
    }
    for ((id, generation), life) in &entries.lives {
        if life.pruned == ids.contains(id) && !entries.lives.contains_key(&(id.clone(), generation + 1)) {
            world.broken(Invariant::ChainsDenseAndVerified, format!("{id}: pruned and stored, or neither"));
        }
        let mut keys = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for event in &life.events {
            let is_new_key = event.replay_key.as_ref().is_none_or(|key| keys.insert(key.clone()));
            let is_new_note = event.payload["number"].as_u64().is_none_or(|number| numbers.insert(number));
            if !is_new_key || !is_new_note {
                world.broken(Invariant::NothingStoredTwice, format!("{id}.{generation}: {event:?}"));
            }
        }
    }
}

/// The lease rows of each life in the order in which they were stored.
fn leases(world: &World, entries: &Entries) {
    let mut held = BTreeMap::new();
    for lease in &entries.leases {
        let before = held.insert((&lease.process_id, lease.generation), lease);
        let Some(before) = before else { continue };
        let of = format!("{}.{}", lease.process_id, lease.generation);
        let is_acquired = lease.row.holder.as_ref().map(|holder| holder.fencing_token)
            != before.row.holder.as_ref().map(|holder| holder.fencing_token);
        if lease.row.revision <= before.row.revision || lease.row.fence < before.row.fence {
            world.broken(Invariant::FencesGrow, format!("{of}: {:?} after {:?}", lease.row, before.row));
        }
        let (Some(next), Some(displaced)) = (&lease.row.holder, &before.row.holder) else { continue };
        if is_acquired && next.fencing_token <= displaced.fencing_token
            || !is_acquired && next.lease_token != displaced.lease_token
        {
            world.broken(Invariant::FencesGrow, format!("{of}: {next:?} after {displaced:?}"));
        }
        // A release and a claim may be one batch: then nobody was displaced, and the checker of histories knows of the release.
        let is_in_force = lease.row.displaced.as_deref() == Some(displaced)
            && displaced.granted_in == next.granted_in
            && displaced.expires_at_monotonic_ms > lease.monotonic_ms
            && !is_dead(&displaced.owner.liveness, next);
        if is_acquired && is_in_force {
            let at = lease.monotonic_ms;
            world.broken(Invariant::OneLeaseInForce, format!("{of} at {at}: {next:?} displaced {displaced:?}"));
        }
    }
}

fn is_dead(liveness: &LeaseOwnerLiveness, next: &registry_actor::domain::ProcessLease) -> bool {
    matches!(liveness, LeaseOwnerLiveness::StoreSession { session }
        if session.store_id == next.granted_in.store_id && session.number < next.granted_in.number)
}

/// What callers were told of what they asked to be stored.
fn receipts(world: &World, entries: &Entries) {
    let numbers: BTreeSet<u64> =
        entries.events.iter().filter_map(|(_, event)| event.payload["number"].as_u64()).collect();
    for call in world.recorder.calls() {
        let (Asked::Execute(id, command), Some(Answered::Execute(answer))) = (&call.asked, &call.answered) else {
            continue;
        };
        match answer {
            Ok(receipt) => {
                let Some(record) = &receipt.record else { continue };
                let life = entries.lives.get(&(id.clone(), record.generation));
                for event in &receipt.events {
                    let place = usize::try_from(event.event().sequence.0).unwrap_or(usize::MAX);
                    if life.and_then(|life| life.events.get(place)) != Some(event.event()) {
                        let what = format!("{id}.{}: {:?} is not stored", record.generation, event.event());
                        world.broken(Invariant::AcknowledgedFactsPresent, what);
                    }
                }
            }
            Err(RegistryError::OutcomeUnknown { .. }) => {}
            Err(error) => {
                let Command::Append { events, .. } = command else { continue };
                let asked = events.iter().filter_map(|event| event.payload["number"].as_u64());
                for number in asked.filter(|number| numbers.contains(number)) {
                    let what = format!("{id}: note {number} is stored, its caller was told: {error}");
                    world.broken(Invariant::RefusedLeavesNoTrace, what);
                }
            }
        }
    }
}

/// Places of events in the ledger, which must grow.
fn projection(world: &World, entries: &Entries, read: &[ProcessChange]) {
    let mut last = None;
    for change in read {
        let ProcessChange::Event(event) = change else { continue };
        let after = last.map_or(0, |last: usize| last + 1);
        let found = entries.events.get(after..).unwrap_or_default().iter().position(|(_, stored)| stored == event);
        let Some(found) = found else {
            world.broken(Invariant::ProjectionInOrder, format!("{event:?} was read after place {last:?}"));
            return;
        };
        last = Some(after + found);
    }
}

fn told(world: &World, entries: &Entries, heard: &[(u32, Arc<ProcessEvent>)]) {
    let mut last = None;
    for (generation, event) in heard {
        let place = entries.places.get(&(event.process_id.clone(), *generation, event.sequence)).copied();
        let is_stored = place.is_some_and(|place| entries.events[place].1 == *event);
        if !is_stored || place <= last {
            let what = format!("{event:?} was told, stored at {place:?}, after the one at {last:?}");
            world.broken(Invariant::ToldAsStored, what);
            return;
        }
        last = place;
    }
}

/// From the first that it heard, a listener hears all, but what was pruned before it could be told.
fn told_all(world: &World, entries: &Entries, heard: &[(u32, Arc<ProcessEvent>)]) {
    let place = |generation: u32, event: &ProcessEvent| {
        entries.places.get(&(event.process_id.clone(), generation, event.sequence)).copied()
    };
    let heard: BTreeSet<usize> = heard.iter().filter_map(|(generation, event)| place(*generation, event)).collect();
    let Some(first) = heard.first().copied() else { return };
    for (number, (generation, event)) in entries.events.iter().enumerate().skip(first) {
        let is_pruned = entries.lives.get(&(event.process_id.clone(), *generation)).is_some_and(|life| life.pruned);
        if !is_pruned && !heard.contains(&number) {
            world.broken(Invariant::ToldAsStored, format!("{event:?} was told to nobody"));
            return;
        }
    }
}

fn news(world: &World, entries: &Entries, heard: &[News]) {
    let mut last: Option<(u32, Sequence)> = None;
    for news in heard {
        let News::Events { generation, missed, events } = news else {
            last = None;
            continue;
        };
        for event in events {
            let is_stored = entries.events.iter().any(|(_, stored)| stored == event);
            if !is_stored {
                world.broken(Invariant::NewsWithoutHoles, format!("news of {event:?}"));
            }
        }
        let first = missed.map(|(first, _)| first).or_else(|| events.first().map(|event| event.sequence));
        if let (Some((of, last)), Some(first)) = (last, first)
            && of == *generation
            && first.0 != last.0 + 1
        {
            world.broken(Invariant::NewsWithoutHoles, format!("news go on at {} after {}", first.0, last.0));
        }
        let end = events.last().map(|event| event.sequence).or_else(|| missed.map(|(_, end)| end));
        last = end.map(|end| (*generation, end));
    }
}

fn history(world: &World, entries: &Entries, feed: Vec<ProcessChange>) {
    let in_ledger: Vec<&Arc<ProcessEvent>> = entries
        .events
        .iter()
        .filter(|(generation, event)| {
            entries.lives.get(&(event.process_id.clone(), *generation)).is_some_and(|life| !life.pruned)
        })
        .map(|(_, event)| event)
        .collect();
    let in_feed: Vec<&Arc<ProcessEvent>> = feed
        .iter()
        .filter_map(|change| match change {
            ProcessChange::Event(event) => Some(event),
            _ => None,
        })
        .collect();
    if in_ledger != in_feed {
        let what =
            format!("{} events are retained and {} are told, or in another order", in_ledger.len(), in_feed.len());
        world.broken(Invariant::FeedCompleteInOrder, what);
    }
    let calls = world.recorder.calls();
    let mut history = History { calls, lives: entries.lives.clone(), feed };
    // It was written to bring the hosts to rest, and nobody recorded it.
    let is_marker = |id: &ProcessId| !world.ids.contains(id);
    history.lives.retain(|(id, _), _| !is_marker(id));
    history.feed.retain(|change| !matches!(change, ProcessChange::Event(event) if is_marker(&event.process_id)));
    for violation in history_checker::check(&history).err().unwrap_or_default() {
        let invariant = match &violation {
            Violation::Undecided { .. } => {
                world.undecided(violation.to_string());
                continue;
            }
            Violation::NotLinearizable { .. } => Invariant::Linearizable,
            Violation::TwoTerminals { .. } => Invariant::OneTerminal,
            Violation::Fence { .. } => Invariant::FencesGrow,
            Violation::Feed { .. } => Invariant::FeedCompleteInOrder,
        };
        world.broken(invariant, violation.to_string());
    }
}

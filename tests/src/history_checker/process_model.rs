//! One process as a sequential thing: what a call may be answered in a state, and what it makes of it.
//!
//! It follows answers rather than foretelling them. Whatever an answer leaves open (sequences apart: what the log holds
//! is known) is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use registry_actor::domain::{
    AbandonRequest, Command, Fence, LeaseFence, LeaseOwnerIdentity, LeaseRelease, LeaseToken, ProcessAwaitOutput,
    ProcessEvent, ProcessEventAppendRequest, ProcessEventSemantics, ProcessExternalRef, ProcessId, ProcessLease,
    ProcessLeaseClaimOutcome, ProcessRecord, ProcessRegistration, ProcessStarted, Receipt, ReceiptEvent, Refusal,
    ReplayKey, Sequence, SessionScope, WaitState, WriteAuthority,
};
use registry_actor::port::{Answer, Query};
use serde_json::Value;

use super::history::{History, Life, Span};

/// What is known of the process from its end.
pub(super) struct World<'history> {
    process_id: ProcessId,
    lives: BTreeMap<u32, &'history Life>,
}

/// Something that takes its place in the order.
pub(super) enum Deed<'history> {
    Command {
        command: &'history Command,
        said: Said<'history>,
        span: Span,
    },
    /// The record of a receipt.
    Record(Option<&'history ProcessRecord>),
    Read {
        query: &'history Query,
        said: Said<'history>,
    },
    Prune,
    DeleteSession(&'history str),
}

/// What was answered.
#[derive(Clone, Copy)]
pub(super) enum Said<'history> {
    Receipt(&'history Receipt),
    Refused(&'history Refusal),
    Answer(&'history Answer),
    Across,
    /// Nothing: the outcome is unknown.
    Nothing,
}

/// What became of the state.
pub(super) enum Step {
    Same,
    Changed(Stored),
}

/// The process.
#[derive(Clone, Default)]
pub(super) struct Stored {
    life: Option<Arc<Current>>,
    /// How many lives were pruned.
    pruned: u32,
}

#[derive(Clone)]
struct Current {
    generation: u32,
    registration: Arc<ProcessRegistration>,
    /// Tells it from another one in the fingerprint of a state.
    registered_as: u64,
    events: Vec<Arc<ProcessEvent>>,
    output: Option<ProcessAwaitOutput>,
    first_started: Option<ProcessStarted>,
    external_ref: Option<ProcessExternalRef>,
    abandon: Option<AbandonRequest>,
    wait: Wait,
    wake_target: Option<SessionScope>,
    fence: Fence,
    holder: Option<Holder>,
}

#[derive(Clone, PartialEq)]
enum Wait {
    Is(Option<WaitState>),
    /// Set or cleared by an event of a type whose payload is not read here.
    Unknown,
}

#[derive(Clone, Debug)]
struct Holder {
    owner: LeaseOwnerIdentity,
    fence: Fence,
    /// `None` if nobody was told.
    token: Option<LeaseToken>,
    /// The same with its times; `None` if nobody was told.
    lease: Option<ProcessLease>,
}

/// An event as it is asked for.
struct Wanted<'call> {
    event_type: &'call str,
    /// `None` if it is the registry's affair.
    payload: Option<&'call Value>,
    replay_key: Option<Option<&'call ReplayKey>>,
    /// The event, if somebody was told.
    told: Option<&'call Arc<ProcessEvent>>,
}

impl<'history> World<'history> {
    pub(super) fn new(history: &'history History, process_id: &ProcessId) -> Self {
        let lives = history
            .lives
            .iter()
            .filter(|((of, _), _)| of == process_id)
            .map(|((_, generation), life)| (*generation, life))
            .collect();
        Self { process_id: process_id.clone(), lives }
    }
}

impl Stored {
    /// What a deed may make of the state; nothing if it cannot be answered so here.
    pub(super) fn step(&self, world: &World<'_>, deed: &Deed<'_>) -> Vec<Step> {
        match deed {
            Deed::Command { command, said: Said::Receipt(receipt), span } => {
                self.carry_out(world, command, Some(receipt), *span).into_iter().collect()
            }
            Deed::Command { command, said: Said::Refused(refusal), .. } => same_if(self.may_refuse(command, refusal)),
            Deed::Command { command, span, .. } => self.may_have_done(world, command, *span),
            Deed::Record(record) => same_if(self.shows(*record)),
            Deed::Read { query, said: Said::Answer(answer) } => same_if(self.may_answer(query, answer)),
            Deed::Read { said: Said::Refused(Refusal::Unknown { .. }), .. } => same_if(self.life.is_none()),
            // Refused whatever is stored.
            Deed::Read { .. } => vec![Step::Same],
            // What an answer does not say of a process must not be taken for granted: staying as it is is a branch.
            Deed::Prune => std::iter::once(self.unchanged()).chain(self.prune(world)).collect(),
            Deed::DeleteSession(session_id) => self.delete_session(world, session_id).into_iter().collect(),
        }
    }

    /// Whether it is what is stored in the end.
    pub(super) fn is_the_end(&self, world: &World<'_>) -> bool {
        let retained = world.lives.iter().find(|(_, life)| !life.pruned);
        match (&self.life, retained) {
            (None, None) => world.lives.keys().all(|generation| *generation <= self.pruned),
            (Some(life), Some((generation, end))) => {
                life.generation == *generation && life.events.len() == end.events.len()
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn carry_out(&self, world: &World<'_>, command: &Command, receipt: Option<&Receipt>, span: Span) -> Option<Step> {
        if let Command::Register { registration } = command {
            return self.register(world, registration, receipt);
        }
        let told = receipt.map(|receipt| receipt.events.as_slice());
        if let (Command::ReleaseLease { .. }, None) = (command, &self.life) {
            return Some(Step::Same);
        }
        let mut life = Current::clone(self.life.as_deref()?);
        let changed = match command {
            Command::Append { events, authority } => {
                life.holds_right(authority).then_some(())?;
                life.append_all(world, events, told)?
            }
            Command::RequestCancel { reason } => {
                let request = ProcessEventAppendRequest::cancel_requested(&world.process_id, reason.as_deref());
                life.append_all(world, std::slice::from_ref(&request), told)?
            }
            Command::Complete { output, authority, lease } => life.complete(world, output, authority, *lease, told)?,
            Command::RecordFirstStarted { started, authority } => {
                let is_set = life.first_started.is_some();
                let inserts = life.fact(world, "process.first_started", is_set, told)?;
                (life.output.is_none() && life.holds_right(authority)).then_some(())?;
                life.first_started.get_or_insert_with(|| started.clone());
                inserts
            }
            Command::SetExternalRef { external_ref } => {
                let is_set = match &life.external_ref {
                    Some(stored) => (stored == external_ref).then_some(true)?,
                    None => false,
                };
                life.external_ref = Some(external_ref.clone());
                life.fact(world, "process.external_ref_set", is_set, told)?
            }
            Command::RequestAbandon { request } => {
                life.output.is_none().then_some(())?;
                let is_set = life.abandon.is_some();
                life.abandon.get_or_insert_with(|| request.clone());
                life.fact(world, "process.abandon_requested", is_set, told)?
            }
            Command::SetWait { wait, authority } => {
                (life.output.is_none() && life.holds_right(authority)).then_some(())?;
                let is_set = life.waits(told, |now| now.as_ref() == Some(wait));
                life.wait = Wait::Is(Some(wait.clone()));
                life.fact(world, "process.wait_set", is_set, told)?
            }
            Command::ClearWait { authority } => {
                life.holds_right(authority).then_some(())?;
                let is_clear = life.waits(told, Option::is_none);
                life.wait = Wait::Is(None);
                life.fact(world, "process.wait_cleared", is_clear, told)?
            }
            Command::AckWake { sequence } => {
                let is_acked = life.events.iter().any(|event| event.acknowledged_wake() == Some(*sequence));
                match told {
                    Some([ReceiptEvent::Replayed(event)]) => {
                        (is_acked && life.has(event)).then_some(())?;
                        false
                    }
                    told => life.fact(world, "process.wake_acknowledged", is_acked, told)?,
                }
            }
            Command::ClaimLease { owner, .. } => life.claim(owner, receipt?.lease.as_ref()?, Some(span))?,
            Command::ReclaimLease { owner, .. } => life.claim(owner, receipt?.lease.as_ref()?, None)?,
            Command::RenewLease { lease, .. } => {
                let held = life.holder.clone().filter(|holder| holder.is_of(&lease.fence()))?;
                match receipt.map(|receipt| receipt.lease.as_ref()) {
                    Some(Some(ProcessLeaseClaimOutcome::Acquired { lease: renewed, displaced: None })) => {
                        held.is_of(&renewed.fence()).then_some(())?;
                        life.holder = Some(Holder::of(renewed));
                    }
                    Some(_) => return None,
                    None => life.holder = Some(Holder { lease: None, ..held }),
                }
                true
            }
            Command::ReleaseLease { lease_token } => {
                life.holder.take_if(|holder| holder.token.as_ref() == Some(lease_token)).is_some()
            }
            other => panic!("the checker does not know {other:?}"),
        };
        Some(if changed { Step::Changed(Self { life: Some(Arc::new(life)), pruned: self.pruned }) } else { Step::Same })
    }

    /// What a command did if it took effect here. If it changes nothing it need not have a place.
    fn may_have_done(&self, world: &World<'_>, command: &Command, span: Span) -> Vec<Step> {
        let steps = match (command, &self.life) {
            (Command::ClaimLease { owner, .. } | Command::ReclaimLease { owner, .. }, Some(life)) => {
                life.may_have_claimed(owner).into_iter().map(|life| self.with(life)).collect()
            }
            _ => self.carry_out(world, command, None, span).into_iter().collect::<Vec<_>>(),
        };
        steps.into_iter().filter(|step| matches!(step, Step::Changed(_))).collect()
    }

    fn with(&self, life: Current) -> Step {
        Step::Changed(Self { life: Some(Arc::new(life)), pruned: self.pruned })
    }

    fn register(
        &self,
        world: &World<'_>,
        registration: &ProcessRegistration,
        receipt: Option<&Receipt>,
    ) -> Option<Step> {
        let told = receipt.map(|receipt| receipt.events.as_slice());
        let inserted = match told {
            Some([ReceiptEvent::Inserted(event)]) => Some(event),
            Some([]) | None => None,
            Some(_) => return None,
        };
        if let Some(life) = &self.life {
            (inserted.is_none() && *life.registration == *registration).then_some(())?;
            // One that was sent again after its actor had died is answered without its event: that this is the life which
            // it means is a branch, too.
            return Some(self.unchanged());
        }
        let mut life = Current {
            generation: self.pruned + 1,
            registration: Arc::new(registration.clone()),
            registered_as: mark(registration),
            events: Vec::new(),
            output: None,
            first_started: None,
            external_ref: None,
            abandon: None,
            wait: Wait::Is(None),
            wake_target: registration.wake_target.clone(),
            fence: Fence::default(),
            holder: None,
        };
        let event_type = "process.registered";
        life.insert(world, &Wanted { event_type, payload: None, replay_key: None, told: inserted })?;
        Some(self.with(life))
    }

    fn prune(&self, world: &World<'_>) -> Option<Step> {
        let life = self.life.as_ref().filter(|life| life.output.is_some())?;
        // Of a life that is known it is known how it ended.
        let ends_here = |end: &&Life| end.pruned && end.events.len() == life.events.len();
        world.lives.get(&life.generation).is_none_or(ends_here).then_some(())?;
        Some(Step::Changed(Self { life: None, pruned: life.generation }))
    }

    fn delete_session(&self, world: &World<'_>, session_id: &str) -> Option<Step> {
        let targeted = self
            .life
            .as_ref()
            .filter(|life| life.wake_target.as_ref().is_some_and(|target| target.session_id() == session_id));
        let Some(life) = targeted else { return Some(self.unchanged()) };
        let mut life = Current::clone(life);
        life.wake_target = None;
        let event_type = "process.wake_target_cleared";
        life.insert(world, &Wanted { event_type, payload: None, replay_key: None, told: None })?;
        Some(self.with(life))
    }

    fn unchanged(&self) -> Step {
        Step::Changed(self.clone())
    }

    /// Whether the state is a reason to refuse.
    fn may_refuse(&self, command: &Command, refusal: &Refusal) -> bool {
        let Some(life) = &self.life else {
            return matches!(refusal, Refusal::Unknown { .. })
                || matches!((command, refusal), (Command::RenewLease { .. }, Refusal::LeaseLost { .. }))
                || !depends_on_state(refusal);
        };
        match refusal {
            Refusal::Unknown { .. } => false,
            Refusal::RegistrationConflict { .. } => {
                matches!(command, Command::Register { registration } if **registration != *life.registration)
            }
            Refusal::ReplayConflict { replay_key } => {
                let is_twice_in = |events: &[ProcessEventAppendRequest]| {
                    events.iter().filter(|event| event.replay_key.as_ref() == Some(replay_key)).count() > 1
                };
                match command {
                    Command::Append { events, .. } => {
                        let differs = |event: &ProcessEventAppendRequest| {
                            event.replay_key.as_ref() == Some(replay_key)
                                && life.under(replay_key).is_some_and(|stored| !is_asked_for(stored, event))
                        };
                        events.iter().any(differs) || is_twice_in(events)
                    }
                    _ => life.under(replay_key).is_some(),
                }
            }
            // What stands under its key is answered with what stands, after the end, too.
            Refusal::AlreadyTerminal { existing, .. } => {
                let is_new = |event: &ProcessEventAppendRequest| {
                    event.replay_key.as_ref().is_none_or(|key| life.under(key).is_none())
                };
                life.output.as_ref() == Some(existing)
                    && !matches!(command, Command::Append { events, .. } if !events.iter().any(is_new))
            }
            // It is for the registry itself to ask the log.
            Refusal::ReplayUnresolved { .. } => false,
            Refusal::AbandonOfTerminal { existing, .. } | Refusal::WaitOfTerminal { existing, .. } => {
                life.output.as_ref() == Some(existing)
            }
            Refusal::LeaseHeld { holder, .. } => life.holder.as_ref().is_some_and(|held| held.is(holder)),
            Refusal::LeaseLost { .. } => match command {
                // It may have expired.
                Command::RenewLease { .. } => true,
                Command::Append { authority, .. }
                | Command::Complete { authority, .. }
                | Command::RecordFirstStarted { authority, .. }
                | Command::SetWait { authority, .. }
                | Command::ClearWait { authority } => !life.holds_right(authority) || life.may_be_of_another(authority),
                _ => false,
            },
            Refusal::ExternalRefConflict { stored, .. } => life.external_ref.as_ref() == Some(stored),
            Refusal::NoSuchWake { sequence, .. } => {
                !life.events.iter().any(|event| event.sequence == *sequence && event.semantics.wake.is_some())
            }
            _ => true,
        }
    }

    fn may_answer(&self, query: &Query, answer: &Answer) -> bool {
        let life = self.life.as_deref();
        match (query, answer) {
            (Query::Process { .. }, Answer::Process(record)) => self.shows(record.as_deref()),
            (Query::Tombstone { .. }, Answer::Tombstone(tombstone)) => {
                tombstone.as_ref().map_or(0, |tombstone| tombstone.generation) == self.pruned
            }
            (Query::Lease { .. }, Answer::Lease(lease)) => match (life.and_then(|life| life.holder.as_ref()), lease) {
                (Some(held), Some(lease)) => held.is(lease),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            },
            (Query::Events { after, limit, .. }, Answer::Events(page)) => life.is_some_and(|life| {
                let later = life.after(*after);
                let taken = later.len().min(usize::try_from(*limit).unwrap_or(usize::MAX));
                are_same(&later[..taken], &page.events) && page.has_more == (taken < later.len())
            }),
            (Query::RecentEvents { limit, .. }, Answer::Events(page)) => life.is_some_and(|life| {
                let all = life.after(Sequence::REGISTRATION);
                let left_out = all.len().saturating_sub(usize::try_from(*limit).unwrap_or(usize::MAX));
                are_same(&all[left_out..], &page.events) && page.has_more == (left_out > 0)
            }),
            (Query::CountEventsThrough { event_type, through, .. }, Answer::Count(count)) => life.is_some_and(|life| {
                let is_counted =
                    |event: &&Arc<ProcessEvent>| event.sequence <= *through && *event.event_type == **event_type;
                life.after(Sequence::REGISTRATION).iter().filter(is_counted).count() as u64 == *count
            }),
            (Query::FirstEventOfType { event_type, after, .. }, Answer::Event(found)) => life.is_some_and(|life| {
                let first = life.after(*after).iter().find(|event| *event.event_type == **event_type);
                match (first, found) {
                    (Some(first), Some(found)) => is_same(first, found),
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                }
            }),
            // Wakes are not followed here.
            _ => true,
        }
    }

    fn shows(&self, record: Option<&ProcessRecord>) -> bool {
        let (Some(life), Some(record)) = (&self.life, record) else {
            return self.life.is_none() && record.is_none();
        };
        record.generation == life.generation
            && record.status.await_output() == life.output.as_ref()
            && record.first_started.as_deref() == life.first_started.as_ref()
            && record.external_ref.as_deref() == life.external_ref.as_ref()
            && record.abandon_request.as_deref() == life.abandon.as_ref()
            && record.wake_target.as_deref() == life.wake_target.as_ref()
            && (life.wait == Wait::Unknown || life.wait == Wait::Is(record.wait.as_deref().cloned()))
    }
}

impl Current {
    fn after(&self, after: Sequence) -> &[Arc<ProcessEvent>] {
        let first = usize::try_from(after.0.saturating_add(1)).unwrap_or(usize::MAX);
        self.events.get(first..).unwrap_or_default()
    }

    fn has(&self, event: &ProcessEvent) -> bool {
        let place = usize::try_from(event.sequence.0).unwrap_or(usize::MAX);
        self.events.get(place).is_some_and(|stored| is_same(stored, event))
    }

    fn under(&self, key: &ReplayKey) -> Option<&Arc<ProcessEvent>> {
        self.events.iter().find(|event| event.replay_key.as_ref() == Some(key))
    }

    fn holds_right(&self, authority: &WriteAuthority) -> bool {
        match authority {
            WriteAuthority::Unfenced => true,
            WriteAuthority::Holder(fence) => self.holder.as_ref().is_some_and(|holder| holder.is_of(fence)),
        }
    }

    /// Whether the fence may be that of another life: of the token of a holder that nobody was told of nothing is known.
    fn may_be_of_another(&self, authority: &WriteAuthority) -> bool {
        matches!(authority, WriteAuthority::Holder(_)) && self.holder.as_ref().is_some_and(|held| held.token.is_none())
    }

    /// Whether the wait is so; where it is not known, what was told decides.
    fn waits(&self, told: Option<&[ReceiptEvent]>, is_so: impl Fn(&Option<WaitState>) -> bool) -> bool {
        match &self.wait {
            Wait::Is(wait) => is_so(wait),
            Wait::Unknown => told.is_some_and(<[_]>::is_empty),
        }
    }

    /// A fact that is stored unless it stands already. Answers whether an event was stored.
    fn fact(
        &mut self,
        world: &World<'_>,
        event_type: &str,
        stands: bool,
        told: Option<&[ReceiptEvent]>,
    ) -> Option<bool> {
        let told = match (stands, told) {
            (true, None | Some([])) => return Some(false),
            (false, None) => None,
            (false, Some([ReceiptEvent::Inserted(event)])) => Some(event),
            (true | false, Some(_)) => return None,
        };
        self.insert(world, &Wanted { event_type, payload: None, replay_key: None, told })?;
        Some(true)
    }

    fn append_all(
        &mut self,
        world: &World<'_>,
        requests: &[ProcessEventAppendRequest],
        told: Option<&[ReceiptEvent]>,
    ) -> Option<bool> {
        if told.is_some_and(|told| told.len() != requests.len()) {
            return None;
        }
        let mut inserts = false;
        for (number, request) in requests.iter().enumerate() {
            let key = request.replay_key.as_ref();
            if let Some(before) = key.and_then(|key| self.under(key)) {
                let is_asked_for = is_asked_for(before, request);
                let is_told = told.is_none_or(
                    |told| matches!(&told[number], ReceiptEvent::Replayed(event) if is_same(before, event)),
                );
                (is_asked_for && is_told).then_some(())?;
                continue;
            }
            let told = match told.map(|told| &told[number]) {
                Some(ReceiptEvent::Replayed(_)) => return None,
                Some(ReceiptEvent::Inserted(event)) => Some(event),
                None => None,
            };
            let wanted = Wanted {
                event_type: &request.event_type,
                payload: Some(&request.payload),
                replay_key: Some(key),
                told,
            };
            self.insert(world, &wanted)?;
            inserts = true;
        }
        Some(inserts)
    }

    fn complete(
        &mut self,
        world: &World<'_>,
        output: &ProcessAwaitOutput,
        authority: &WriteAuthority,
        release: LeaseRelease,
        told: Option<&[ReceiptEvent]>,
    ) -> Option<bool> {
        let mut changes = false;
        if self.output.is_some() {
            (self.output.as_ref() == Some(output)).then_some(())?;
            match told {
                None | Some([]) => {}
                Some([ReceiptEvent::Replayed(event)]) => self.has(event).then_some(())?,
                Some(_) => return None,
            }
        } else {
            self.holds_right(authority).then_some(())?;
            let event_type = format!("process.{}", output.terminal_state().label());
            let told = match told {
                None => None,
                Some([ReceiptEvent::Inserted(event)]) => Some(event),
                Some(_) => return None,
            };
            let wanted = Wanted { event_type: &event_type, payload: None, replay_key: None, told };
            self.insert(world, &wanted)?;
            // An event that nobody was told of and that is gone with its life does not say it.
            self.output.get_or_insert_with(|| output.clone());
            (self.output.as_ref() == Some(output)).then_some(())?;
            changes = true;
        }
        if release == LeaseRelease::Release
            && let WriteAuthority::Holder(fence) = authority
        {
            changes |= self.holder.take_if(|holder| holder.is_of(fence)).is_some();
        }
        Some(changes)
    }

    /// Answers whether the lease moved.
    fn claim(
        &mut self,
        owner: &LeaseOwnerIdentity,
        outcome: &ProcessLeaseClaimOutcome,
        unproved: Option<Span>,
    ) -> Option<bool> {
        self.output.is_none().then_some(())?;
        let (lease, displaced) = match outcome {
            ProcessLeaseClaimOutcome::Busy { holder } => {
                return self.holder.as_ref().is_some_and(|held| held.is(holder)).then_some(false);
            }
            ProcessLeaseClaimOutcome::Acquired { lease, displaced } => (lease, displaced),
        };
        is_one_owner(&lease.owner, owner).then_some(())?;
        let is_prolonged = self.holder.as_ref().is_some_and(|held| {
            displaced.is_none() && held.fence == lease.fencing_token && is_one_owner(&held.owner, owner)
        });
        if !is_prolonged {
            (lease.fencing_token == self.fence.next()).then_some(())?;
            match (displaced, &self.holder) {
                (None, None) => {}
                (Some(displaced), Some(held)) => {
                    held.is(displaced).then_some(())?;
                    unproved.is_none_or(|span| may_have_expired(displaced, lease, span)).then_some(())?;
                }
                (Some(_), None) | (None, Some(_)) => return None,
            }
        }
        self.fence = lease.fencing_token;
        self.holder = Some(Holder::of(lease));
        Some(true)
    }

    /// A claim of which nobody was told how it went: an acquisition, or the prolongation of what its owner held.
    fn may_have_claimed(&self, owner: &LeaseOwnerIdentity) -> Vec<Self> {
        if self.output.is_some() {
            return Vec::new();
        }
        let acquired = Self {
            fence: self.fence.next(),
            holder: Some(Holder { owner: owner.clone(), fence: self.fence.next(), token: None, lease: None }),
            ..self.clone()
        };
        let own = self.holder.as_ref().filter(|holder| is_one_owner(&holder.owner, owner));
        let prolonged =
            own.map(|holder| Self { holder: Some(Holder { lease: None, ..holder.clone() }), ..self.clone() });
        std::iter::once(acquired).chain(prolonged).collect()
    }

    fn insert(&mut self, world: &World<'_>, wanted: &Wanted<'_>) -> Option<()> {
        let place = self.events.len();
        let event = match (wanted.told, world.lives.get(&self.generation)) {
            (Some(told), Some(life)) => Some(life.events.get(place)?).filter(|stored| *stored == told)?.clone(),
            (Some(told), None) => Arc::clone(told),
            (None, Some(life)) => Arc::clone(life.events.get(place)?),
            (None, None) => Arc::new(guess(&world.process_id, place, wanted)),
        };
        let is_wanted = event.sequence.0 == place as u64
            && *event.event_type == *wanted.event_type
            && wanted.payload.is_none_or(|payload| event.payload == *payload)
            && wanted.replay_key.is_none_or(|key| event.replay_key.as_ref() == key);
        is_wanted.then_some(())?;
        if let Some(terminal) = &event.semantics.terminal {
            self.output.is_none().then_some(())?;
            self.output = Some(terminal.await_output.clone());
            // Whoever has ended waits for nothing.
            self.wait = Wait::Unknown;
        }
        if matches!(wanted.event_type, "process.waiting" | "process.resumed") {
            self.wait = Wait::Unknown;
        }
        self.events.push(event);
        Some(())
    }
}

impl Holder {
    fn of(lease: &ProcessLease) -> Self {
        Self {
            owner: lease.owner.clone(),
            fence: lease.fencing_token,
            token: Some(lease.lease_token.clone()),
            lease: Some(lease.clone()),
        }
    }

    fn is(&self, lease: &ProcessLease) -> bool {
        self.fence == lease.fencing_token
            && is_one_owner(&self.owner, &lease.owner)
            && self.token.as_ref().is_none_or(|token| *token == lease.lease_token)
            && self.lease.as_ref().is_none_or(|known| known == lease)
    }

    fn is_of(&self, fence: &LeaseFence) -> bool {
        self.fence == fence.fencing_token && self.token.as_ref().is_none_or(|token| *token == fence.lease_token)
    }
}

/// Within one session of the store the monotonic clock decides. Without clocks, or across sessions, anything may be.
fn may_have_expired(displaced: &ProcessLease, by: &ProcessLease, span: Span) -> bool {
    let is_known = displaced.granted_in == by.granted_in && span.to.monotonic_ms > 0;
    !is_known || displaced.expires_at_monotonic_ms <= span.to.monotonic_ms
}

fn is_one_owner(left: &LeaseOwnerIdentity, right: &LeaseOwnerIdentity) -> bool {
    left.owner_id == right.owner_id && left.incarnation_id == right.incarnation_id
}

/// Refusals that say something of what is stored.
const fn depends_on_state(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Unknown { .. }
            | Refusal::RegistrationConflict { .. }
            | Refusal::ReplayConflict { .. }
            | Refusal::AlreadyTerminal { .. }
            | Refusal::AbandonOfTerminal { .. }
            | Refusal::WaitOfTerminal { .. }
            | Refusal::LeaseHeld { .. }
            | Refusal::LeaseLost { .. }
            | Refusal::ExternalRefConflict { .. }
            | Refusal::NoSuchWake { .. }
    )
}

/// An event that nobody was told of, in a life of which the events are gone.
fn guess(process_id: &ProcessId, place: usize, wanted: &Wanted<'_>) -> ProcessEvent {
    ProcessEvent {
        process_id: process_id.clone(),
        sequence: Sequence(place as u64),
        event_type: Arc::from(wanted.event_type),
        payload: wanted.payload.cloned().unwrap_or_default(),
        replay_key: wanted.replay_key.flatten().cloned(),
        semantics: ProcessEventSemantics::default(),
        occurred_at_ms: 0,
        late: false,
    }
}

fn is_guessed(event: &ProcessEvent) -> bool {
    event.occurred_at_ms == 0
}

fn is_same(stored: &ProcessEvent, told: &ProcessEvent) -> bool {
    if is_guessed(stored) {
        stored.sequence == told.sequence && stored.event_type == told.event_type
    } else {
        stored == told
    }
}

fn is_asked_for(stored: &ProcessEvent, request: &ProcessEventAppendRequest) -> bool {
    *stored.event_type == *request.event_type && stored.payload == request.payload
}

fn are_same(stored: &[Arc<ProcessEvent>], told: &[Arc<ProcessEvent>]) -> bool {
    stored.len() == told.len() && stored.iter().zip(told).all(|(stored, told)| is_same(stored, told))
}

fn mark(registration: &ProcessRegistration) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{registration:?}").hash(&mut hasher);
    hasher.finish()
}

fn same_if(fits: bool) -> Vec<Step> {
    if fits { vec![Step::Same] } else { Vec::new() }
}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.pruned.hash(hasher);
        let Some(life) = &self.life else { return };
        (life.generation, life.registered_as, life.events.len(), life.fence.0).hash(hasher);
        for event in &life.events {
            (&*event.event_type, event.replay_key.as_ref().map(ReplayKey::as_str), event.occurred_at_ms).hash(hasher);
        }
        // Whole, for what a call said may be in the state without being in an event that was told.
        format!("{:?} {:?} {:?}", life.output, life.first_started, life.wake_target).hash(hasher);
        format!("{:?} {:?} {:?}", life.external_ref, life.abandon, life.holder).hash(hasher);
        if let Wait::Is(wait) = &life.wait {
            format!("{wait:?}").hash(hasher);
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(life) = &self.life else {
            return write!(formatter, "no process ({} lives pruned)", self.pruned);
        };
        write!(formatter, "life {} of {} events, fence {}", life.generation, life.events.len(), life.fence.0)?;
        if let Some(last) = life.events.last() {
            write!(formatter, ", last {}", last.event_type)?;
        }
        match &life.holder {
            Some(holder) => write!(formatter, ", held by {} ({:?})", holder.owner.owner_id, holder.lease),
            None => write!(formatter, ", not held"),
        }
    }
}

impl fmt::Display for World<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (generation, life) in &self.lives {
            let pruned = if life.pruned { ", pruned" } else { "" };
            write!(formatter, "life {generation} of {} events{pruned}; ", life.events.len())?;
        }
        Ok(())
    }
}

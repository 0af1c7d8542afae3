//! The model: what a registry is, in the plainest terms that the documents allow. It is written from them and shares no
//! rule with the registry; it is slow, keeps everything in memory, and copies itself before each command so that a
//! refusal changes nothing by construction.
//!
//! What the documents leave to the registry (lease tokens, registration hashes, the payloads of its internal events) the
//! model takes from the registry's answer as a [`Hint`], and holds it to what it said.

mod across;
mod append;
mod attempt;
mod lease;
mod look;
mod selection;

pub use across::Projected;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use registry_actor::domain::{
    AttemptFailure, Command, LeaseFence, LeaseRelease, LeaseToken, ProcessAttempts, ProcessAwaitOutput, ProcessEvent,
    ProcessEventSemantics, ProcessHandleDescriptor, ProcessId, ProcessLease, ProcessRecord, ProcessRegistration,
    ProcessStatus, ProcessWakeDelivery, Receipt, ReceiptEvent, RegistrationHash, ReplayKey, Sequence, SessionDeletion,
    SessionScope, StoreSession, Tombstone, WriteAuthority,
};
use registry_actor::port::Timestamp;
use serde_json::{Value, json};

/// Why the model refuses, as a class: two texts for one reason are one class.
#[derive(Clone, PartialEq, Eq)]
pub struct No(pub String);

impl No {
    fn new(class: impl Into<String>) -> Self {
        Self(class.into())
    }

    fn with_outcome(class: &str, outcome: &ProcessAwaitOutput) -> Self {
        Self(format!("{class}: {}", json!(outcome)))
    }
}

impl fmt::Debug for No {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "refused, {}", self.0)
    }
}

/// What the documents leave to the registry, from the answer that it gave.
#[derive(Debug, Clone)]
pub struct Hint {
    /// Token of a new acquisition.
    pub token: Option<LeaseToken>,
    /// Hash of a new registration.
    pub hash: RegistrationHash,
}

/// A registry.
#[derive(Debug, Clone)]
pub struct Model {
    /// Both clocks.
    pub now: Timestamp,
    /// The session of the store.
    pub session: StoreSession,
    lives: BTreeMap<ProcessId, Life>,
    tombstones: BTreeMap<ProcessId, Tombstone>,
    grants: BTreeMap<(SessionScope, ProcessId), ProcessHandleDescriptor>,
    /// How many deliveries there ever were.
    wakes_made: u64,
    /// Every delivery whose process is retained, in the order in which they came about.
    wakes: Vec<Wake>,
    feed: Vec<Change>,
    tokens: BTreeSet<LeaseToken>,
}

/// One life of a process id.
#[derive(Debug, Clone)]
struct Life {
    record: ProcessRecord,
    /// From sequence 0, the registration.
    events: Vec<Arc<ProcessEvent>>,
    acked: BTreeSet<Sequence>,
    fence: u64,
    holder: Option<ProcessLease>,
    /// Every attempt, from the first one on.
    tries: Vec<Try>,
    /// Places of its first and last change in the feed, from 1.
    first_change: usize,
    last_change: usize,
}

/// An attempt.
#[derive(Debug, Clone)]
struct Try {
    /// The fence of the lease under which it was begun.
    fence: u64,
    /// Why it failed, if it did and another may follow, and the fence under which that was told.
    failed: Option<(AttemptFailure, u64)>,
}

#[derive(Debug, Clone)]
struct Wake {
    number: u64,
    delivery: ProcessWakeDelivery,
    settled: bool,
}

/// An entry of the feed. Events are named, so that those of a pruned life are found to be gone.
#[derive(Debug, Clone)]
enum Change {
    Event { process_id: ProcessId, generation: u32, sequence: Sequence },
    Pruned(Tombstone),
    SessionDeleted(SessionDeletion),
}

/// Types that only the registry appends.
const INTERNAL: [&str; 10] = [
    "process.registered",
    "process.first_started",
    "process.attempt_started",
    "process.attempt_failed",
    "process.external_ref_set",
    "process.wait_set",
    "process.wait_cleared",
    "process.abandon_requested",
    "process.wake_target_cleared",
    "process.wake_acknowledged",
];

/// Whether only the registry appends events of this type.
#[must_use]
pub(super) fn is_internal(event_type: &str) -> bool {
    INTERNAL.contains(&event_type)
}

impl Model {
    /// A store that was never written to.
    #[must_use]
    pub const fn new(session: StoreSession, now: Timestamp) -> Self {
        Self {
            now,
            session,
            lives: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            grants: BTreeMap::new(),
            wakes_made: 0,
            wakes: Vec::new(),
            feed: Vec::new(),
            tokens: BTreeSet::new(),
        }
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// The class of the refusal; nothing has changed.
    pub fn execute(&mut self, id: &ProcessId, command: &Command, hint: &Hint) -> Result<Receipt, No> {
        let before = self.clone();
        let answer = self.carry_out(id, command, hint);
        if answer.is_err() {
            *self = before;
        }
        answer
    }

    fn carry_out(&mut self, id: &ProcessId, command: &Command, hint: &Hint) -> Result<Receipt, No> {
        let mut receipt = Receipt::default();
        match command {
            Command::Register { registration } => receipt.events.extend(self.register(id, registration, hint)?),
            Command::Append { events, authority } => self.append(id, events, authority, &mut receipt)?,
            Command::RequestCancel { reason } => {
                let request = selection::cancel_request(id, reason.as_deref());
                self.append(id, &[request], &WriteAuthority::Unfenced, &mut receipt)?;
            }
            Command::Complete { output, authority, lease } => {
                self.complete(id, output, authority, *lease, &mut receipt)?;
            }
            Command::RecordFirstStarted { started, authority } => {
                self.refuse_ended(id)?;
                self.check_sole_right(id, authority)?;
                if self.life(id)?.record.first_started.is_none() {
                    self.life_mut(id)?.record.first_started = Some(Arc::new(started.clone()));
                    receipt.events.push(self.fact(id, "process.first_started")?);
                }
            }
            Command::BeginAttempt { started, fence } => self.begin(id, started, fence, &mut receipt)?,
            Command::FailAttempt { failure, fence } => self.fail(id, failure, fence, &mut receipt)?,
            Command::SetExternalRef { external_ref } => match &self.life(id)?.record.external_ref {
                Some(stored) if **stored == *external_ref => {}
                Some(stored) => return Err(No::new(format!("external ref conflict with {}", json!(stored)))),
                None => {
                    self.life_mut(id)?.record.external_ref = Some(Arc::new(external_ref.clone()));
                    receipt.events.push(self.fact(id, "process.external_ref_set")?);
                }
            },
            Command::RequestAbandon { request } => {
                if let Some(outcome) = self.life(id)?.record.status.await_output() {
                    return Err(No::with_outcome("abandon of terminal", outcome));
                }
                if self.life(id)?.record.abandon_request.is_none() {
                    self.life_mut(id)?.record.abandon_request = Some(Arc::new(request.clone()));
                    receipt.events.push(self.fact(id, "process.abandon_requested")?);
                }
            }
            Command::SetWait { wait, authority } => {
                self.check_right(id, authority)?;
                if let Some(outcome) = self.life(id)?.record.status.await_output() {
                    return Err(No::with_outcome("wait of terminal", outcome));
                }
                if self.life(id)?.record.wait.as_deref() != Some(wait) {
                    self.life_mut(id)?.record.wait = Some(Arc::new(wait.clone()));
                    receipt.events.push(self.fact(id, "process.wait_set")?);
                }
            }
            Command::ClearWait { authority } => {
                self.check_right(id, authority)?;
                if self.life_mut(id)?.record.wait.take().is_some() {
                    receipt.events.push(self.fact(id, "process.wait_cleared")?);
                }
            }
            Command::AckWake { sequence } => {
                let life = self.life_mut(id)?;
                let woke =
                    life.events.iter().any(|event| event.sequence == *sequence && event.semantics.wake.is_some());
                if !woke {
                    return Err(No::new("no such wake"));
                }
                if life.acked.insert(*sequence) {
                    receipt.events.push(self.fact(id, "process.wake_acknowledged")?);
                    for wake in &mut self.wakes {
                        wake.settled |= wake.delivery.process_id == *id && wake.delivery.sequence == *sequence;
                    }
                }
            }
            Command::ClaimLease { owner, ttl_ms } => receipt.lease = Some(self.claim(id, owner, *ttl_ms, hint)?),
            Command::ReclaimLease { owner, observed, ttl_ms } => {
                receipt.lease = Some(self.reclaim(id, owner, observed, *ttl_ms, hint)?);
            }
            Command::RenewLease { lease, ttl_ms } => receipt.lease = Some(self.renew(id, lease, *ttl_ms)?),
            Command::ReleaseLease { lease_token } => self.release(id, lease_token),
            other => panic!("the model does not know {other:?}"),
        }
        receipt.record = self.lives.get(id).map(|life| Arc::new(life.record.clone()));
        Ok(receipt)
    }

    fn register(
        &mut self,
        id: &ProcessId,
        registration: &ProcessRegistration,
        hint: &Hint,
    ) -> Result<Option<ReceiptEvent>, No> {
        let prepared = selection::prepared(registration)?;
        if let Some(life) = self.lives.get(id) {
            let same = selection::canonical(&prepared) == selection::canonical(&life.record.registration);
            return if same { Ok(None) } else { Err(No::new("registration conflict")) };
        }
        let generation = self.tombstones.get(id).map_or(1, |tombstone| tombstone.generation + 1);
        let record = ProcessRecord {
            wake_target: prepared.wake_target.clone().map(Arc::new),
            registration: Arc::new(prepared),
            registration_hash: hint.hash.clone(),
            generation,
            created_at_ms: self.now.epoch_ms,
            updated_at_ms: self.now.epoch_ms,
            terminal_at_ms: None,
            first_started: None,
            attempts: ProcessAttempts::default(),
            external_ref: None,
            abandon_request: None,
            wait: None,
            status: Arc::new(ProcessStatus::Running),
        };
        let life = Life {
            record,
            events: Vec::new(),
            acked: BTreeSet::new(),
            fence: 0,
            holder: None,
            tries: Vec::new(),
            first_change: self.feed.len() + 1,
            last_change: 0,
        };
        self.lives.insert(id.clone(), life);
        self.fact(id, "process.registered").map(Some)
    }

    fn complete(
        &mut self,
        id: &ProcessId,
        output: &ProcessAwaitOutput,
        authority: &WriteAuthority,
        release: LeaseRelease,
        receipt: &mut Receipt,
    ) -> Result<(), No> {
        let request = selection::completion(id, output);
        let stored = self.stored_under(id, request.replay_key.as_ref())?;
        let is_repeated =
            stored.is_some_and(|stored| *stored.event_type == *request.event_type && stored.payload == request.payload);
        if is_repeated {
            // Whoever says the same again is told what stands, even if the lease is lost.
            self.append(id, &[request], &WriteAuthority::Unfenced, receipt)?;
        } else {
            self.refuse_ended(id)?;
            self.append(id, &[request], authority, receipt)?;
        }
        if release == LeaseRelease::Release
            && let WriteAuthority::Holder(fence) = authority
            && self.holds(id, fence)
        {
            self.release(id, &fence.lease_token);
        }
        Ok(())
    }

    fn life(&self, id: &ProcessId) -> Result<&Life, No> {
        self.lives.get(id).ok_or_else(|| No::new("unknown"))
    }

    fn life_mut(&mut self, id: &ProcessId) -> Result<&mut Life, No> {
        self.lives.get_mut(id).ok_or_else(|| No::new("unknown"))
    }

    fn refuse_ended(&self, id: &ProcessId) -> Result<(), No> {
        match self.life(id)?.record.status.await_output() {
            Some(outcome) => Err(No::with_outcome("already terminal", outcome)),
            None => Ok(()),
        }
    }

    fn holds(&self, id: &ProcessId, fence: &LeaseFence) -> bool {
        let holder = self.lives.get(id).and_then(|life| life.holder.as_ref());
        holder.is_some_and(|held| held.lease_token == fence.lease_token && held.fencing_token == fence.fencing_token)
    }

    /// Displacement and release end the right to write, expiry does not.
    fn check_right(&self, id: &ProcessId, authority: &WriteAuthority) -> Result<(), No> {
        self.life(id)?;
        match authority {
            WriteAuthority::Holder(fence) if !self.holds(id, fence) => Err(No::new("lease lost")),
            WriteAuthority::Unfenced | WriteAuthority::Holder(_) => Ok(()),
        }
    }

    /// For facts that one writer alone may establish.
    fn check_sole_right(&self, id: &ProcessId, authority: &WriteAuthority) -> Result<(), No> {
        self.check_right(id, authority)?;
        match (authority, &self.life(id)?.holder) {
            (WriteAuthority::Unfenced, Some(holder)) if self.is_live(holder) => {
                Err(No::new(format!("lease held by {}/{}", holder.owner.owner_id, holder.owner.incarnation_id)))
            }
            _ => Ok(()),
        }
    }

    fn stored_under(&self, id: &ProcessId, key: Option<&ReplayKey>) -> Result<Option<Arc<ProcessEvent>>, No> {
        let Some(key) = key else { return Ok(None) };
        Ok(self.life(id)?.events.iter().find(|event| event.replay_key.as_ref() == Some(key)).cloned())
    }

    /// Stores one of the registry's own facts. Its payload is the registry's affair.
    fn fact(&mut self, id: &ProcessId, event_type: &str) -> Result<ReceiptEvent, No> {
        self.store(id, event_type, Value::Null, None, ProcessEventSemantics::default()).map(ReceiptEvent::Inserted)
    }

    /// Stores an event and what it makes of the record, the facts apart, which the commands have set already.
    fn store(
        &mut self,
        id: &ProcessId,
        event_type: &str,
        payload: Value,
        replay_key: Option<ReplayKey>,
        semantics: ProcessEventSemantics,
    ) -> Result<Arc<ProcessEvent>, No> {
        let (now, place) = (self.now.epoch_ms, self.feed.len() + 1);
        let life = self.life_mut(id)?;
        let late = life.record.status.is_terminal();
        let sequence = Sequence(life.events.len() as u64);
        if !late {
            selection::move_wait(&mut life.record, event_type, &payload);
            if let Some(terminal) = &semantics.terminal {
                let status = ProcessStatus::terminal(terminal.state, terminal.await_output.clone());
                life.record.status = Arc::new(status);
                life.record.terminal_at_ms = Some(now.max(life.record.updated_at_ms));
                life.record.wait = None;
            }
        }
        if event_type != "process.wake_acknowledged" {
            life.record.updated_at_ms = life.record.updated_at_ms.max(now);
        }
        let event = Arc::new(ProcessEvent {
            process_id: id.clone(),
            sequence,
            event_type: event_type.into(),
            payload,
            replay_key,
            semantics,
            occurred_at_ms: now,
            late,
        });
        life.events.push(Arc::clone(&event));
        life.last_change = place;
        let generation = life.record.generation;
        self.feed.push(Change::Event { process_id: id.clone(), generation, sequence });
        Ok(event)
    }
}

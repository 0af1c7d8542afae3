//! What the log in memory holds, and how a batch changes it. Everything here happens under its lock, and calls nobody.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::AppendFault;
use super::rows::AcrossRows;
use super::wakes::Wakes;
use crate::domain::{
    DecisionContext, Digest, LeaseRow, OperationId, ProcessEvent, ProcessHandleDescriptor, ProcessId, ProcessRecord,
    RegistryCommand, RegistryReceipt, ReplayKey, Sequence, SessionDeletion, SessionScope, Tombstone,
};
use crate::log::across::carry_out;
use crate::log::codec::{self, EncodedBatch, EventColumns};
use crate::log::verification::Verification;
use crate::log::{QueueLimits, Replays};
use crate::port::{
    AcrossError, AppendError, AppendReply, AppendResult, CommittedBatch, CommittedGroup, EventPage, FeedPage,
    GroupChanges, Head, LogError, Position, ProcessVerification, StoredProcess,
};

/// A batch with its reply.
pub(super) struct Queued {
    pub(super) batch: EncodedBatch,
    pub(super) reply: AppendReply,
}

/// What became of a batch at the door.
pub(super) enum Admission {
    /// These callers are to be answered.
    Answered(Vec<(AppendReply, AppendResult)>),
    /// It waits, because commits are held back.
    Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Running,
    Paused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
}

pub(super) struct Store {
    session_number: u64,
    door: Door,
    pace: Pace,
    limits: QueueLimits,
    plain: VecDeque<Queued>,
    urgent: VecDeque<Queued>,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// What stands at position n is at index n - 1.
    pub(super) order: Vec<Entry>,
    pub(super) wakes: Wakes,
    pub(super) grants: BTreeMap<SessionScope, BTreeMap<ProcessId, ProcessHandleDescriptor>>,
    pub(super) tombstones: HashMap<ProcessId, Tombstone>,
    store_id: Arc<str>,
    /// Groups that followers have not heard of yet.
    untold: VecDeque<CommittedGroup>,
    telling: bool,
    appends: u64,
    append_faults: Vec<(u64, AppendFault)>,
    read_faults: u64,
}

pub(super) struct Process {
    pub(super) record: Arc<ProcessRecord>,
    pub(super) lease: LeaseRow,
    pub(super) events: Vec<StoredEvent>,
    keys: HashMap<ReplayKey, Sequence>,
    /// The events that woke somebody.
    pub(super) wakes: BTreeMap<Sequence, WakeMark>,
}

pub(super) struct StoredEvent {
    pub(super) event: Arc<ProcessEvent>,
    operation: OperationId,
    pub(super) chain: Digest,
    pub(super) position: u64,
}

/// What became of a wake.
#[derive(Default)]
pub(super) struct WakeMark {
    pub(super) acknowledged: bool,
    /// Where its delivery stands, if it has one.
    pub(super) delivery: Option<u64>,
}

/// What stands at a position.
pub(super) enum Entry {
    Event(ProcessId, Sequence),
    /// An event of a process that was pruned, or a tombstone that a later one took the place of.
    Gone,
    Pruned {
        tombstone: Tombstone,
        link: [u8; 8],
    },
    SessionDeleted {
        deletion: SessionDeletion,
        link: [u8; 8],
    },
}

impl Store {
    pub(super) fn new(store_id: Arc<str>, limits: QueueLimits) -> Self {
        Self {
            session_number: 1,
            door: Door::Open,
            pace: Pace::Running,
            limits,
            plain: VecDeque::new(),
            urgent: VecDeque::new(),
            processes: BTreeMap::new(),
            order: Vec::new(),
            wakes: Wakes::default(),
            grants: BTreeMap::new(),
            tombstones: HashMap::new(),
            store_id,
            untold: VecDeque::new(),
            telling: false,
            appends: 0,
            append_faults: Vec::new(),
            read_faults: 0,
        }
    }

    pub(super) const fn store_id(&self) -> &Arc<str> {
        &self.store_id
    }

    pub(super) const fn session_number(&self) -> u64 {
        self.session_number
    }

    pub(super) fn is_closed(&self) -> bool {
        self.door == Door::Closed
    }

    pub(super) const fn close(&mut self) {
        self.door = Door::Closed;
    }

    pub(super) const fn open_next_session(&mut self) {
        self.session_number += 1;
        self.door = Door::Open;
    }

    pub(super) const fn pause(&mut self) {
        self.pace = Pace::Paused;
    }

    pub(super) fn queued(&self) -> usize {
        self.plain.len() + self.urgent.len()
    }

    pub(super) const fn appends(&self) -> u64 {
        self.appends
    }

    pub(super) fn fail_append(&mut self, nth: u64, fault: AppendFault) {
        self.append_faults.push((self.appends.saturating_add(nth), fault));
    }

    pub(super) const fn fail_reads(&mut self, reads: u64) {
        self.read_faults = reads;
    }

    pub(super) fn take_read_fault(&mut self) -> Result<(), LogError> {
        if self.read_faults == 0 {
            return Ok(());
        }
        self.read_faults -= 1;
        Err(LogError::Unreadable { reason: "a test let this read fail".to_owned() })
    }

    /// Stores the batch, or queues it while commits are held back.
    pub(super) fn admit(&mut self, queued: Queued) -> Admission {
        if self.is_closed() {
            return Admission::Answered(vec![(queued.reply, Err(AppendError::Closed))]);
        }
        if self.pace == Pace::Running {
            return Admission::Answered(self.commit(std::iter::once(queued)));
        }
        let (lane, limit) = if queued.batch.urgent {
            (&mut self.urgent, self.limits.urgent)
        } else {
            (&mut self.plain, self.limits.plain)
        };
        if lane.len() >= limit {
            return Admission::Answered(vec![(queued.reply, Err(AppendError::Busy { limit }))]);
        }
        lane.push_back(queued);
        Admission::Held
    }

    /// Stores what has queued and goes on without a queue.
    pub(super) fn resume(&mut self) -> Vec<(AppendReply, AppendResult)> {
        self.pace = Pace::Running;
        let mut group = std::mem::take(&mut self.urgent);
        group.append(&mut self.plain);
        self.commit(group)
    }

    /// The next group for the followers, unless another thread is telling.
    pub(super) fn begin_telling(&mut self) -> Option<CommittedGroup> {
        if self.telling {
            return None;
        }
        let group = self.untold.pop_front()?;
        self.telling = true;
        Some(group)
    }

    pub(super) const fn end_telling(&mut self) {
        self.telling = false;
    }

    fn commit(&mut self, group: impl IntoIterator<Item = Queued>) -> Vec<(AppendReply, AppendResult)> {
        let previous = self.last_position();
        let mut batches = Vec::new();
        let mut answers = Vec::new();
        for Queued { batch, reply } in group {
            self.appends += 1;
            let result = match self.take_append_fault() {
                Some(AppendFault::NotAccepted) => {
                    Err(AppendError::NotAccepted { reason: "a test let this append fail".to_owned() })
                }
                Some(AppendFault::UnknownNotStored) => Err(unknown()),
                Some(AppendFault::UnknownStored) => self.store(batch, &mut batches).and(Err(unknown())),
                None => self.store(batch, &mut batches),
            };
            answers.push((reply, result));
        }
        if !batches.is_empty() {
            let changes = Arc::new(GroupChanges { batches, ..GroupChanges::default() });
            self.untold.push_back(CommittedGroup { previous, position: self.last_position(), changes });
        }
        answers
    }

    fn take_append_fault(&mut self) -> Option<AppendFault> {
        let index = self.append_faults.iter().position(|(append, _)| *append == self.appends)?;
        Some(self.append_faults.swap_remove(index).1)
    }

    pub(super) fn store(&mut self, batch: EncodedBatch, committed: &mut Vec<CommittedBatch>) -> AppendResult {
        let process_id = &batch.committed.process_id;
        let stored = self.processes.get(process_id);
        if stored.map(Process::head) != batch.expected.head
            || stored.map_or(0, |process| process.lease.revision) != batch.expected.lease_revision
        {
            return Err(AppendError::Conflict);
        }
        let pruned = self.tombstones.get(process_id).map_or(0, |tombstone| tombstone.generation);
        if stored.is_none() && batch.committed.record.generation != pruned.saturating_add(1) {
            return Err(AppendError::Conflict);
        }
        refuse_second_use_of_a_key(stored, &batch)?;
        let process = self.processes.entry(process_id.clone()).or_insert_with(|| Process {
            record: Arc::clone(&batch.committed.record),
            lease: LeaseRow::default(),
            events: Vec::new(),
            keys: HashMap::new(),
            wakes: BTreeMap::new(),
        });
        if let Some(lease) = batch.lease {
            process.lease = lease.row;
        }
        if batch.events.is_empty() {
            return Ok(Some(process.head()));
        }
        process.record = Arc::clone(&batch.committed.record);
        for encoded in batch.events {
            let event = encoded.event;
            if let Some(key) = &event.replay_key {
                process.keys.insert(key.clone(), event.sequence);
            }
            if event.semantics.wake.is_some() {
                process.wakes.insert(event.sequence, WakeMark::default());
            }
            if let Some(acknowledged) = event.acknowledged_wake()
                && let Some(wake) = process.wakes.get_mut(&acknowledged)
            {
                wake.acknowledged = true;
                if let Some(position) = wake.delivery {
                    self.wakes.settle(position);
                }
            }
            self.order.push(Entry::Event(process_id.clone(), event.sequence));
            let position = self.order.len() as u64;
            process.events.push(StoredEvent { event, operation: encoded.operation, chain: encoded.chain, position });
        }
        for encoded in batch.deliveries {
            let sequence = encoded.delivery.sequence;
            let Some(position) = process.at(sequence).map(|stored| stored.position) else { continue };
            if let Some(wake) = process.wakes.get_mut(&sequence)
                && self.wakes.store(position, encoded.delivery)
            {
                wake.delivery = Some(position);
            }
        }
        committed.push(batch.committed);
        Ok(batch.head)
    }

    /// Carries out a command that concerns several processes; followers are told of what it changed.
    pub(super) fn execute_across(
        &mut self,
        command: &RegistryCommand,
        context: &DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError> {
        if self.is_closed() {
            return Err(AppendError::Closed.into());
        }
        self.appends += 1;
        match self.take_append_fault() {
            Some(AppendFault::NotAccepted) => {
                return Err(AppendError::NotAccepted { reason: "a test let this append fail".to_owned() }.into());
            }
            Some(AppendFault::UnknownNotStored) => return Err(unknown().into()),
            Some(AppendFault::UnknownStored) => {
                self.carry_out(command, context)?;
                return Err(unknown().into());
            }
            None => {}
        }
        self.carry_out(command, context)
    }

    fn carry_out(
        &mut self,
        command: &RegistryCommand,
        context: &DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError> {
        let previous = self.last_position();
        let mut rows = AcrossRows { store: self, changes: GroupChanges::default() };
        let receipt = carry_out(&mut rows, command, None, context)?;
        let changes = rows.changes;
        if !changes.is_empty() {
            self.untold.push_back(CommittedGroup { previous, position: self.last_position(), changes: changes.into() });
        }
        Ok(receipt)
    }

    fn last_position(&self) -> Position {
        Position(self.order.len() as u64)
    }

    pub(super) fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Option<StoredProcess> {
        let process = self.processes.get(process_id)?;
        let tail = process.events.len().saturating_sub(operation_tail as usize);
        Some(StoredProcess {
            record: Arc::clone(&process.record),
            head: process.head(),
            lease: process.lease.clone(),
            operations: process.events[tail..].iter().map(|stored| (stored.event.sequence, stored.operation)).collect(),
        })
    }

    pub(super) fn find_replays(&self, process_id: &ProcessId, keys: Vec<ReplayKey>) -> Result<Replays, LogError> {
        let process = self.process(process_id)?;
        Ok(keys
            .into_iter()
            .map(|key| {
                let event = process.keys.get(&key).and_then(|sequence| process.event(*sequence));
                (key, event)
            })
            .collect())
    }

    pub(super) fn feed(&self, after: Position, limit: u32) -> FeedPage {
        let from = usize::try_from(after.0).unwrap_or(usize::MAX).min(self.order.len());
        let until = from.saturating_add(limit.clamp(1, EventPage::MAX_LIMIT) as usize).min(self.order.len());
        let GroupChanges { mut batches, mut pruned, mut sessions_deleted } = GroupChanges::default();
        for entry in &self.order[from..until] {
            let (process_id, sequence) = match entry {
                Entry::Event(process_id, sequence) => (process_id, *sequence),
                Entry::Pruned { tombstone, .. } => {
                    pruned.push(tombstone.clone());
                    continue;
                }
                Entry::SessionDeleted { deletion, .. } => {
                    sessions_deleted.push(deletion.clone());
                    continue;
                }
                Entry::Gone => continue,
            };
            let Some(process) = self.processes.get(process_id) else { continue };
            let Some(stored) = process.at(sequence) else { continue };
            let woken = self.wakes.target(stored.position).cloned();
            match batches.last_mut().filter(|batch| batch.process_id == *process_id) {
                Some(batch) => {
                    batch.events.push(Arc::clone(&stored.event));
                    batch.woken.extend(woken);
                }
                None => batches.push(CommittedBatch {
                    process_id: process_id.clone(),
                    record: Arc::clone(&process.record),
                    events: vec![Arc::clone(&stored.event)],
                    woken: woken.into_iter().collect(),
                }),
            }
        }
        let next = Position((until as u64).max(after.0));
        let changes = GroupChanges { batches, pruned, sessions_deleted };
        FeedPage { changes, next, has_more: until < self.order.len() }
    }

    pub(super) fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        let process = self.process(process_id)?;
        let mut verification = Verification::of(process_id.clone());
        let mut previous = codec::base_link(process_id);
        for stored in &process.events {
            let event = &stored.event;
            match codec::encode_event(event, stored.operation, &previous) {
                Err(malformed) => verification.fault(event.sequence, malformed.to_string()),
                Ok(encoded) => verification.event(
                    &EventColumns {
                        sequence: event.sequence.0.cast_signed(),
                        event_type: event.event_type.as_bytes(),
                        at_ms: event.occurred_at_ms.cast_signed(),
                        replay_key: event.replay_key.as_ref().map(|key| key.as_str().as_bytes()),
                        operation: &stored.operation.to_bytes(),
                        codec: codec::CODEC_JSON,
                        data: &encoded.data,
                    },
                    stored.chain.as_bytes(),
                ),
            }
            previous = stored.chain;
        }
        let head = process.head();
        verification.head(head.sequence, head.chain.as_bytes());
        verification.wakes(&process.wakes.iter().map(|(sequence, wake)| (*sequence, wake.acknowledged)).collect());
        verification.record(Ok(&process.record));
        Ok(verification.finish())
    }

    pub(super) fn process_ids(&self, after: Option<&ProcessId>, limit: u32) -> Vec<ProcessId> {
        self.after_id(after).take(limit as usize).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn after_id(&self, after: Option<&ProcessId>) -> impl Iterator<Item = (&ProcessId, &Process)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.processes.range::<ProcessId, _>((from, Bound::Unbounded))
    }

    pub(super) fn process(&self, process_id: &ProcessId) -> Result<&Process, LogError> {
        self.processes.get(process_id).ok_or_else(|| LogError::Unknown { process_id: process_id.clone() })
    }
}

impl Process {
    pub(super) fn head(&self) -> Head {
        let (sequence, chain) =
            self.events.last().map_or_else(Default::default, |stored| (stored.event.sequence, stored.chain));
        Head { sequence, chain }
    }

    /// Sequences are dense and begin at 0, so that an event's sequence is its index.
    pub(super) fn at(&self, sequence: Sequence) -> Option<&StoredEvent> {
        self.events.get(usize::try_from(sequence.0).ok()?)
    }

    pub(super) fn event(&self, sequence: Sequence) -> Option<Arc<ProcessEvent>> {
        self.at(sequence).map(|stored| Arc::clone(&stored.event))
    }

    pub(super) fn after(&self, after: Sequence) -> &[StoredEvent] {
        let from = usize::try_from(after.next().0).unwrap_or(usize::MAX);
        self.events.get(from..).unwrap_or_default()
    }
}

/// The last guard of law 5: whoever decides a batch has looked its keys up before.
fn refuse_second_use_of_a_key(stored: Option<&Process>, batch: &EncodedBatch) -> Result<(), AppendError> {
    let mut fresh = std::collections::HashSet::new();
    for key in batch.events.iter().filter_map(|encoded| encoded.event.replay_key.as_ref()) {
        if stored.is_some_and(|process| process.keys.contains_key(key)) || !fresh.insert(key) {
            return Err(AppendError::NotAccepted { reason: format!("replay key `{key}` is already used") });
        }
    }
    Ok(())
}

fn unknown() -> AppendError {
    AppendError::Unknown { reason: "a test let this append fail".to_owned() }
}

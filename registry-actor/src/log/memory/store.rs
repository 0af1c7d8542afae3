//! What the log in memory holds, and how a batch changes it. Everything here happens under its lock, and calls nobody.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::AppendFault;
use crate::domain::{Digest, LeaseRow, OperationId, ProcessEvent, ProcessId, ProcessRecord, ReplayKey, Sequence};
use crate::log::codec::{self, EncodedBatch, EventColumns};
use crate::log::verification::Verification;
use crate::log::{QueueLimits, Replays};
use crate::port::{
    Answer, AppendError, AppendReply, AppendResult, CommittedBatch, CommittedGroup, EventPage, FeedPage, Head,
    LogError, Position, ProcessPage, ProcessVerification, Query, StoredProcess,
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
    processes: BTreeMap<ProcessId, Process>,
    /// The event at position n stands at index n - 1.
    order: Vec<(ProcessId, Sequence)>,
    /// Groups that followers have not heard of yet.
    untold: VecDeque<CommittedGroup>,
    telling: bool,
    appends: u64,
    append_faults: Vec<(u64, AppendFault)>,
    read_faults: u64,
}

struct Process {
    record: Arc<ProcessRecord>,
    lease: LeaseRow,
    events: Vec<StoredEvent>,
    keys: HashMap<ReplayKey, Sequence>,
}

struct StoredEvent {
    event: Arc<ProcessEvent>,
    operation: OperationId,
    chain: Digest,
}

impl Store {
    pub(super) const fn new(limits: QueueLimits) -> Self {
        Self {
            session_number: 1,
            door: Door::Open,
            pace: Pace::Running,
            limits,
            plain: VecDeque::new(),
            urgent: VecDeque::new(),
            processes: BTreeMap::new(),
            order: Vec::new(),
            untold: VecDeque::new(),
            telling: false,
            appends: 0,
            append_faults: Vec::new(),
            read_faults: 0,
        }
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
            self.untold.push_back(CommittedGroup { previous, position: self.last_position(), batches: batches.into() });
        }
        answers
    }

    fn take_append_fault(&mut self) -> Option<AppendFault> {
        let index = self.append_faults.iter().position(|(append, _)| *append == self.appends)?;
        Some(self.append_faults.swap_remove(index).1)
    }

    fn store(&mut self, batch: EncodedBatch, committed: &mut Vec<CommittedBatch>) -> AppendResult {
        let process_id = &batch.committed.process_id;
        let stored = self.processes.get(process_id);
        if stored.map(Process::head) != batch.expected.head
            || stored.map_or(0, |process| process.lease.revision) != batch.expected.lease_revision
        {
            return Err(AppendError::Conflict);
        }
        refuse_second_use_of_a_key(stored, &batch)?;
        let process = self.processes.entry(process_id.clone()).or_insert_with(|| Process {
            record: Arc::clone(&batch.committed.record),
            lease: LeaseRow::default(),
            events: Vec::new(),
            keys: HashMap::new(),
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
            self.order.push((process_id.clone(), event.sequence));
            process.events.push(StoredEvent { event, operation: encoded.operation, chain: encoded.chain });
        }
        committed.push(batch.committed);
        Ok(batch.head)
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

    pub(super) fn query(&self, query: &Query) -> Result<Answer, LogError> {
        match query {
            Query::Process { process_id } => {
                Ok(Answer::Process(self.processes.get(process_id).map(|process| Arc::clone(&process.record))))
            }
            Query::Events { process_id, after, limit } => {
                let limit = (*limit).clamp(1, EventPage::MAX_LIMIT) as usize;
                let later = self.process(process_id)?.after(*after);
                Ok(Answer::Events(EventPage {
                    events: later.iter().take(limit).map(|stored| Arc::clone(&stored.event)).collect(),
                    has_more: later.len() > limit,
                }))
            }
            Query::FirstEventOfType { process_id, event_type, after } => {
                let mut later = self.process(process_id)?.after(*after).iter();
                let first = later.find(|stored| *stored.event.event_type == **event_type);
                Ok(Answer::Event(first.map(|stored| Arc::clone(&stored.event))))
            }
            Query::Lease { process_id } => Ok(Answer::Lease(
                self.processes.get(process_id).and_then(|process| process.lease.holder.clone()).map(Box::new),
            )),
            Query::Processes { filter, after, limit } => {
                let limit = (*limit).clamp(1, ProcessPage::MAX_LIMIT) as usize;
                let mut shown = self
                    .after_id(after.as_ref())
                    .map(|(_, process)| &process.record)
                    .filter(|record| filter.matches(&record.status));
                let records = shown.by_ref().take(limit).map(Arc::clone).collect();
                Ok(Answer::Processes(ProcessPage { records, has_more: shown.next().is_some() }))
            }
        }
    }

    pub(super) fn feed(&self, after: Position, limit: u32) -> FeedPage {
        let from = usize::try_from(after.0).unwrap_or(usize::MAX).min(self.order.len());
        let until = from.saturating_add(limit.clamp(1, EventPage::MAX_LIMIT) as usize).min(self.order.len());
        let mut batches: Vec<CommittedBatch> = Vec::new();
        for (process_id, sequence) in &self.order[from..until] {
            let Some(process) = self.processes.get(process_id) else { continue };
            let Some(event) = process.event(*sequence) else { continue };
            match batches.last_mut().filter(|batch| batch.process_id == *process_id) {
                Some(batch) => batch.events.push(event),
                None => batches.push(CommittedBatch {
                    process_id: process_id.clone(),
                    record: Arc::clone(&process.record),
                    events: vec![event],
                }),
            }
        }
        let next = Position((until as u64).max(after.0));
        FeedPage { batches, next, has_more: until < self.order.len() }
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
        verification.record(Ok(&process.record));
        Ok(verification.finish())
    }

    pub(super) fn process_ids(&self, after: Option<&ProcessId>, limit: u32) -> Vec<ProcessId> {
        self.after_id(after).take(limit as usize).map(|(id, _)| id.clone()).collect()
    }

    fn after_id(&self, after: Option<&ProcessId>) -> impl Iterator<Item = (&ProcessId, &Process)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.processes.range::<ProcessId, _>((from, Bound::Unbounded))
    }

    fn process(&self, process_id: &ProcessId) -> Result<&Process, LogError> {
        self.processes.get(process_id).ok_or_else(|| LogError::Unknown { process_id: process_id.clone() })
    }
}

impl Process {
    fn head(&self) -> Head {
        let (sequence, chain) =
            self.events.last().map_or_else(Default::default, |stored| (stored.event.sequence, stored.chain));
        Head { sequence, chain }
    }

    fn event(&self, sequence: Sequence) -> Option<Arc<ProcessEvent>> {
        self.events.get(usize::try_from(sequence.0).ok()?).map(|stored| Arc::clone(&stored.event))
    }

    /// Sequences are dense and begin at 0, so that an event's sequence is its index.
    fn after(&self, after: Sequence) -> &[StoredEvent] {
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

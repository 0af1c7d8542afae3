//! A log of one process, its owner and its publisher, small enough for every schedule of them to be tried.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use loom::sync::{Condvar, Mutex, MutexGuard};
use registry_actor::domain::{
    Command, ProcessAwaitOutput, ProcessEvent, ProcessId, ProcessRecord, ProcessStatus, ProcessTerminalState, Receipt,
    Refusal, RegistryCommand, RegistryReceipt, Sequence, Tombstone,
};
use registry_actor::port::{Answer, DurabilityTier, LogError, ProcessRegistry, Query, RegistryError};
use registry_tests::example_process::{process_id, registration};
use serde_json::json;

use crate::port::{ChangeSource, CommittedBatch};

/// The process.
pub(crate) static ID: LazyLock<ProcessId> = LazyLock::new(|| process_id("p"));

/// Its records: of two lives, running and ended. Built once, since a schedule is tried in microseconds.
static RECORDS: LazyLock<[[Arc<ProcessRecord>; 2]; 2]> = LazyLock::new(|| {
    [1, 2].map(|generation| {
        let registration = registration(&ID);
        let running: ProcessRecord = serde_json::from_value(json!({
            "registration": registration, "registration_hash": "v1:", "generation": generation,
            "created_at_ms": 0, "updated_at_ms": 0,
        }))
        .expect("a record");
        let status = ProcessStatus::terminal(ProcessTerminalState::Completed, outcome(generation));
        let ended = ProcessRecord { status: Arc::new(status), ..running.clone() };
        [Arc::new(running), Arc::new(ended)]
    })
});

/// Its events: a note, and the end of either life.
static NOTE: LazyLock<Arc<ProcessEvent>> = LazyLock::new(|| event(1, "note", json!({})));
static ENDS: LazyLock<[Arc<ProcessEvent>; 2]> = LazyLock::new(|| {
    [1, 2].map(|generation| {
        let output = outcome(generation);
        let terminal = json!({ "state": "completed", "await_output": output, "authority": { "kind": "unfenced" } });
        event(2, "process.completed", json!({ "terminal": terminal }))
    })
});

fn event(sequence: u64, event_type: &str, semantics: serde_json::Value) -> Arc<ProcessEvent> {
    let event = json!({
        "process_id": *ID, "sequence": sequence, "event_type": event_type, "payload": null, "semantics": semantics,
        "occurred_at_ms": 0,
    });
    Arc::new(serde_json::from_value(event).expect("an event"))
}

/// The outcome of a life.
pub(crate) fn outcome(generation: u32) -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!(generation))
}

/// Makes the facts, which no schedule may have to wait for.
pub(crate) fn prepare() {
    LazyLock::force(&RECORDS);
    LazyLock::force(&NOTE);
    LazyLock::force(&ENDS);
}

/// What happens to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Note,
    End,
    Prune,
    LiveAgain,
}

/// What a step changed, as it is told.
#[derive(Clone)]
pub(crate) enum Change {
    Committed(CommittedBatch),
    Pruned(Tombstone),
}

/// The log, and the registry that answers out of it. It is born with its process running.
pub(crate) struct Log {
    rows: Mutex<Rows>,
}

struct Rows {
    record: Option<Arc<ProcessRecord>>,
    events: Vec<Arc<ProcessEvent>>,
    tombstone: Option<Tombstone>,
    changes: Vec<Change>,
    reads_to_fail: usize,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::failing_reads(0)
    }

    /// Whose first reads fail.
    pub(crate) fn failing_reads(reads_to_fail: usize) -> Self {
        let record = Some(Arc::clone(&RECORDS[0][0]));
        let rows = Rows { record, events: Vec::new(), tombstone: None, changes: Vec::new(), reads_to_fail };
        Self { rows: Mutex::new(rows) }
    }

    pub(crate) fn commit(&self, step: Step) -> Change {
        self.rows().commit(step)
    }

    /// All changes after the first so many.
    fn feed(&self, after: usize) -> Vec<Change> {
        self.rows().changes[after..].to_vec()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().expect("no panic under it")
    }
}

impl Rows {
    fn commit(&mut self, step: Step) -> Change {
        let life = usize::try_from(self.record.as_ref().map_or(1, |record| record.generation - 1)).expect("small");
        let change = match step {
            Step::Note => self.committed(&RECORDS[life][0], Some(&NOTE)),
            Step::End => self.committed(&RECORDS[life][1], Some(&ENDS[life])),
            Step::LiveAgain => self.committed(&RECORDS[1][0], None),
            Step::Prune => {
                let record = self.record.take().expect("it lives");
                self.events.clear();
                let tombstone = Tombstone {
                    process_id: ID.clone(),
                    generation: record.generation,
                    terminal_state: record.status.terminal_state().expect("it has ended"),
                    created_at_ms: 0,
                    terminal_at_ms: 0,
                    pruned_at_ms: 0,
                };
                self.tombstone = Some(tombstone.clone());
                Change::Pruned(tombstone)
            }
        };
        self.changes.push(change.clone());
        change
    }

    fn committed(&mut self, record: &Arc<ProcessRecord>, event: Option<&Arc<ProcessEvent>>) -> Change {
        self.record = Some(Arc::clone(record));
        self.events.extend(event.cloned());
        Change::Committed(CommittedBatch {
            process_id: ID.clone(),
            record: Arc::clone(record),
            events: event.into_iter().cloned().collect(),
            woken: Vec::new(),
        })
    }
}

#[async_trait]
impl ProcessRegistry for Log {
    async fn execute(&self, _process_id: &ProcessId, _command: Command) -> Result<Receipt, RegistryError> {
        Err(RegistryError::Closed)
    }

    async fn execute_across(&self, _command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        Err(RegistryError::Closed)
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        let mut rows = self.rows();
        if rows.reads_to_fail > 0 {
            rows.reads_to_fail -= 1;
            return Err(LogError::Unreadable { reason: "for a while".to_owned() }.into());
        }
        Ok(match query {
            Query::Process { .. } => Answer::Process(rows.record.clone()),
            Query::Tombstone { .. } => Answer::Tombstone(rows.tombstone.clone()),
            Query::FirstEventOfType { .. } if rows.record.is_none() => {
                return Err(Refusal::Unknown { process_id: ID.clone() }.into());
            }
            Query::FirstEventOfType { event_type, after, .. } => {
                let is_asked = |event: &&Arc<ProcessEvent>| event.sequence > after && *event.event_type == *event_type;
                Answer::Event(rows.events.iter().find(is_asked).cloned())
            }
            other => return Err(RegistryError::WrongAnswer { query: format!("{other:?}") }),
        })
    }

    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Inline
    }
}

/// Who decides and commits: what an actor does, whose state goes when it comes to rest or dies, and is read again.
pub(crate) struct Owner {
    state: Mutex<Option<Sequence>>,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(None) }
    }

    /// Commits at the sequence that it knows, which has to be that of the log.
    pub(crate) fn execute(&self, log: &Log, step: Step) -> Change {
        let mut state = self.state.lock().expect("no panic under it");
        let last = |rows: &Rows| rows.events.last().map_or(Sequence(0), |event| event.sequence);
        let known = state.take().unwrap_or_else(|| last(&log.rows()));
        let mut rows = log.rows();
        assert_eq!(known, last(&rows), "whoever decides knows the log");
        let change = rows.commit(step);
        *state = Some(last(&rows));
        change
    }

    /// Comes to rest, or dies.
    pub(crate) fn go_away(&self) {
        *self.state.lock().expect("no panic under it") = None;
    }
}

/// Tells the listeners of one change.
pub(crate) fn tell(source: &ChangeSource, change: &Change) {
    for listener in source.listeners() {
        match change {
            Change::Committed(batch) => listener.committed(std::slice::from_ref(batch)),
            Change::Pruned(tombstone) => listener.pruned(std::slice::from_ref(tombstone)),
        }
    }
}

/// The line from the log to whichever publisher lives, as the registry has it: positions of what was committed. At first none
/// lives: it was killed.
pub(crate) struct Line {
    queue: Mutex<Option<VecDeque<usize>>>,
    queued: Condvar,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::new(None), queued: Condvar::new() }
    }

    /// Commits, and hands it to the publisher that lives, if one does.
    pub(crate) fn commit(&self, log: &Log, step: Step) {
        let mut rows = log.rows();
        rows.commit(step);
        let position = rows.changes.len();
        drop(rows);
        if let Some(queue) = &mut *self.queue.lock().expect("no panic under it") {
            queue.push_back(position);
            self.queued.notify_one();
        }
    }

    /// Takes the place of a publisher that was killed.
    pub(crate) fn take_over(&self) {
        *self.queue.lock().expect("no panic under it") = Some(VecDeque::new());
    }

    /// Tells what is queued until so much was told. A gap is filled out of the feed.
    pub(crate) fn publish(&self, log: &Log, source: &ChangeSource, mut published: usize, until: usize) {
        while published < until {
            let position = self.next();
            published += tell_missed(log, source, published);
            assert!(published >= position, "the feed holds what was committed");
        }
    }

    /// Waits for the next that is queued.
    pub(crate) fn next(&self) -> usize {
        let mut queue = self.queue.lock().expect("no panic under it");
        loop {
            if let Some(next) = queue.as_mut().and_then(VecDeque::pop_front) {
                return next;
            }
            queue = self.queued.wait(queue).expect("no panic under it");
        }
    }
}

/// Tells what the feed holds after the first so many changes, and says how much it was.
pub(crate) fn tell_missed(log: &Log, source: &ChangeSource, published: usize) -> usize {
    let missed = log.feed(published);
    missed.iter().for_each(|change| tell(source, change));
    missed.len()
}

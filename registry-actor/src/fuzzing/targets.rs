//! What each fuzz target does with its bytes. Whatever they are, nothing panics; what reads is written and read again as
//! the same value.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stored::{self, CODEC_JSON, StoredBody, StoredEvent};
use crate::domain::{
    ChangeCursor, Command, DecisionContext, Digest, LeaseRow, ObservedProcess, OperationId, ProcessEvent,
    ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput, ProcessListFilter, ProcessRecord,
    ProcessRegistration, ProcessState, ProcessWakeDelivery, RecoveryDisposition, Refusal, RegistryCommand, ReplayKey,
    Sequence, SessionDeletion, SessionScope, StoreSession, Tombstone, UnfencedWrites, WriteAuthority, apply,
    check_across, decide,
};
use crate::port::Query;

/// A fuzz target: its name, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of its corpus and of its file in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

/// All targets.
#[must_use]
pub fn all() -> Vec<Target> {
    let target = |name, run| Target { name, run };
    vec![
        target("command", command),
        target("registry_command", registry_command),
        target("query", query),
        target("filter", filter),
        target("cursor", cursor),
        target("event_type", event_type),
        target("stored_event", stored_event),
        target("stored_record", stored_record),
        target("stored_lease", stored_lease),
        target("stored_delivery", stored_delivery),
        target("stored_mark", stored_mark),
    ]
}

/// A process with a lease, an attempt, a wait, a wake, an external reference and keys, and the events that made it.
struct Story {
    state: ProcessState,
    log: Vec<Arc<ProcessEvent>>,
}

static STORY: LazyLock<Story> = LazyLock::new(Story::new);

impl Story {
    fn new() -> Self {
        let mut story = Self { state: ProcessState::unregistered(id()), log: Vec::new() };
        for command in include_str!("story.jsonl").lines() {
            let command = serde_json::from_str(command).expect("a command of the story reads");
            story.carry_out(&command).expect("the story is legal");
        }
        story
    }

    /// Decides as the edge does, checks what came of it, and installs it.
    fn carry_out(&mut self, command: &Command) -> Result<(), Refusal> {
        let mut state = self.state.clone();
        for key in command.replay_keys(&state.process_id) {
            let stored = self.log.iter().find(|event| event.replay_key.as_ref() == Some(&key)).cloned();
            state.replays.resolve(key, stored);
        }
        let wake = command.acknowledged_wake().and_then(|wake| self.log.iter().find(|event| event.sequence == wake));
        let decision = decide(&state, command, &context(self.log.len() as u64, wake))?;
        for event in &decision.events {
            round_trip(event.as_ref());
            self.state = apply(std::mem::replace(&mut self.state, ProcessState::unregistered(id())), event);
            self.log.push(Arc::clone(event));
        }
        if let Some(row) = decision.lease {
            round_trip(&row);
            self.state.lease = Arc::new(row);
        }
        for delivery in &decision.reply.deliveries {
            round_trip(delivery);
        }
        Ok(())
    }

    /// The record is the fold of what a log would hold, and reads back.
    fn check(&self) {
        let mut link = stored::base_link(&self.state.process_id);
        let mut folded = ProcessState::unregistered(self.state.process_id.clone());
        for event in &self.log {
            let stored = StoredEvent::encode(event, OperationId { issuer: 1, number: 1 }, &link);
            let stored = stored.expect("what was decided can be stored");
            let (read, _, next) = stored.decode(&self.state.process_id, &link).expect("what was stored reads");
            assert_eq!(read, **event, "it reads as what it was");
            folded = apply(folded, &Arc::new(read));
            link = next;
        }
        assert_eq!(folded.record, self.state.record, "the record is the fold of its stored events");
        if let Some(record) = &self.state.record {
            round_trip(record.as_ref());
        }
    }
}

fn id() -> ProcessId {
    ProcessId::new("p").expect("an id")
}

fn context(number: u64, wake: Option<&Arc<ProcessEvent>>) -> DecisionContext {
    DecisionContext {
        epoch_ms: 1_000 + number,
        monotonic_ms: 500 + number,
        session: StoreSession { store_id: "store".into(), number: 2 },
        operation: OperationId { issuer: 7, number },
        observed: ObservedProcess::Absent,
        wake: wake.cloned(),
        unfenced_writes: UnfencedWrites::Allowed,
    }
}

fn record() -> &'static ProcessRecord {
    STORY.state.record.as_ref().expect("the process of the story is registered")
}

/// What is written is what is read.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("it has a JSON form");
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(&read, value, "{text}");
}

/// Any bytes as a command, over a process that has lived and over one that is not registered.
fn command(bytes: &[u8]) {
    let Ok(command) = serde_json::from_slice::<Command>(bytes) else { return };
    round_trip(&command);
    let fresh = Story { state: ProcessState::unregistered(id()), log: Vec::new() };
    let lived = Story { state: STORY.state.clone(), log: STORY.log.clone() };
    for mut story in [fresh, lived] {
        // Twice: the second meets what the first left.
        for _ in 0..2 {
            if let Err(refusal) = story.carry_out(&command) {
                round_trip(&refusal);
                assert!(!refusal.to_string().is_empty());
            }
        }
        story.check();
    }
}

fn registry_command(bytes: &[u8]) {
    let Ok(command) = serde_json::from_slice::<RegistryCommand>(bytes) else { return };
    round_trip(&command);
    if let Err(refusal) = check_across(&command) {
        round_trip(&refusal);
    }
}

fn query(bytes: &[u8]) {
    let Ok(query) = serde_json::from_slice::<Query>(bytes) else { return };
    if let Err(refusal) = query.check() {
        round_trip(&refusal);
    } else {
        round_trip(&query);
    }
}

/// Any JSON as the filter that a person wrote.
fn filter(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
    match ProcessListFilter::decode(&json) {
        Ok(filter) => {
            // What is too deep is refused before it is compared or written.
            if filter.check().is_ok() {
                let _shown = filter.matches(record());
                let again = serde_json::to_value(&filter).expect("a filter has a JSON form");
                assert_eq!(ProcessListFilter::decode(&again), Ok(filter), "it reads what it writes");
            }
        }
        Err(invalid) => {
            assert!(invalid.to_string().len() < 2_000, "an error fits a log line: {invalid}");
            round_trip(&invalid);
        }
    }
}

fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<ChangeCursor>() {
        Ok(cursor) => {
            assert_eq!(cursor.to_string(), text, "one text for one cursor");
            let _belongs = cursor.check("store", 1);
        }
        Err(invalid) => assert!(text.starts_with(&invalid.found)),
    }
}

/// A declaration and a payload: what is registered, validated and materialised.
#[derive(Deserialize)]
struct DeclaredPayload {
    declared: Vec<ProcessEventType>,
    payload: Value,
}

fn event_type(bytes: &[u8]) {
    let Ok(DeclaredPayload { declared, payload }) = serde_json::from_slice(bytes) else { return };
    let input = ProcessInput::new("job", Value::Null);
    let mut registration = ProcessRegistration::new(id(), input, RecoveryDisposition::Rerunnable);
    let names: Vec<_> = declared.iter().map(|declared| declared.name.clone()).collect();
    registration.event_types.extend(declared);
    registration.wake_target = Some(SessionScope::session("s"));
    let mut story = Story { state: ProcessState::unregistered(id()), log: Vec::new() };
    if story.carry_out(&Command::Register { registration: Box::new(registration) }).is_err() {
        return;
    }
    for (number, name) in names.into_iter().enumerate() {
        let key = ReplayKey::new(format!("k{number}")).expect("a key");
        let event = ProcessEventAppendRequest::new(name, payload.clone()).with_replay_key(key);
        let command = Command::Append { events: vec![event], authority: WriteAuthority::Unfenced };
        if let Err(refusal) = story.carry_out(&command) {
            round_trip(&refusal);
        }
    }
    story.check();
}

/// Columns out of bytes: a head of fixed length, and the rest as the data.
fn stored_event(bytes: &[u8]) {
    let Some((head, data)) = bytes.split_at_checked(24) else { return };
    let number = |at: usize| i64::from_le_bytes(std::array::from_fn(|index| head[at + index]));
    let flags = head[16];
    let stored = StoredEvent {
        sequence: number(0),
        event_type: head[17..23].to_vec(),
        at_ms: number(8),
        replay_key: (flags & 1 == 1).then(|| head[18..22].to_vec()),
        operation: head[..if flags & 2 == 2 { 15 } else { 16 }].to_vec(),
        codec: if flags & 4 == 4 { i64::from(head[23]) } else { CODEC_JSON },
        data: data.to_vec(),
        link: data.iter().copied().take(32).collect(),
    };
    let previous = stored::base_link(&id());
    assert!(stored.decode(&id(), &previous).is_err(), "a link that does not hold is found before anything is read");
    let Ok((event, operation, link)) = stored.clone().linked(&previous).decode(&id(), &previous) else { return };
    let event = Arc::new(event);
    let _state = apply(STORY.state.clone(), &event);
    let _state = apply(ProcessState::unregistered(id()), &event);
    let again = StoredEvent::encode(&event, operation, &previous).expect("what was read can be stored");
    let (read, ..) = again.decode(&id(), &previous).expect("what was stored reads");
    assert_eq!((read, operation), (event.as_ref().clone(), operation));
    assert_eq!(link, Digest::from_bytes(&stored.linked(&previous).link).expect("a link has 32 bytes"));
}

fn unchecked(body: &[u8]) -> StoredBody {
    StoredBody { codec: CODEC_JSON, body: body.to_vec(), checksum: body.iter().copied().take(32).collect() }
}

/// What a checksum keeps out never reaches the decoder; so the bytes are given the checksum that belongs to them, by way
/// of the value that they read as.
fn stored_record(bytes: &[u8]) {
    assert!(stored::decode_record(&id(), b"running", &unchecked(bytes), 7).is_err());
    let Ok(record) = serde_json::from_slice::<ProcessRecord>(bytes) else { return };
    let (status, stored) = stored::encode_record(&record).expect("a record can be stored");
    let updated_at_ms = record.updated_at_ms.cast_signed();
    let read = stored::decode_record(record.id(), status.as_bytes(), &stored, updated_at_ms);
    assert_eq!(read.as_ref(), Ok(&record));
    let any = ProcessListFilter::any();
    assert!(any.matches(&record));
    let state = ProcessState {
        record: Some(Arc::new(record)),
        sequence: Sequence(u64::MAX),
        ..ProcessState::unregistered(id())
    };
    for event in &STORY.log {
        let _state = apply(state.clone(), event);
    }
}

fn stored_lease(bytes: &[u8]) {
    assert!(stored::decode_lease(&id(), 1, 1, &unchecked(bytes)).is_err());
    let Ok(row) = serde_json::from_slice::<LeaseRow>(bytes) else { return };
    let stored = stored::encode_lease(&id(), &row).expect("a lease row can be stored");
    let read = stored::decode_lease(&id(), row.revision.cast_signed(), row.fence.0.cast_signed(), &stored);
    assert_eq!(read.as_ref(), Ok(&row));
    let mut story = Story { state: STORY.state.clone(), log: STORY.log.clone() };
    story.state.lease = Arc::new(row);
    for command in include_str!("story.jsonl").lines().skip(1) {
        let command = serde_json::from_str(command).expect("a command of the story reads");
        let _decided = story.carry_out(&command);
    }
}

fn stored_delivery(bytes: &[u8]) {
    assert!(stored::decode_delivery(&unchecked(bytes)).is_err());
    let Ok(delivery) = serde_json::from_slice::<ProcessWakeDelivery>(bytes) else { return };
    let stored = stored::encode_delivery(&delivery).expect("a delivery can be stored");
    assert_eq!(stored::decode_delivery(&stored), Ok(delivery));
}

fn stored_mark(bytes: &[u8]) {
    fn mark<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
        assert!(stored::decode_mark::<T>(&unchecked(bytes)).is_err());
        let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
        let stored = stored::encode_mark(&value).expect("a change can be stored");
        assert_eq!(stored::decode_mark(&stored), Ok(value));
    }
    mark::<Tombstone>(bytes);
    mark::<SessionDeletion>(bytes);
}

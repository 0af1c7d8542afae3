//! Who is told of what, over a registry that answers as a test scripts it.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use awaiter::{ProcessChangeHub, watch_process_registry, watch_process_registry_with_sink};
use registry_actor::domain::{
    Command, OperationId, ProcessEvent, ProcessId, Receipt, ReceiptEvent, Refusal, RegistryCommand, RegistryReceipt,
    SessionScope,
};
use registry_actor::port::{
    Answer, ChangeSource, CommitListener, CommittedBatch, DurabilityTier, LogError, MissedEvents, ProcessEventSink,
    ProcessRegistry, ProcessRegistryExt, Query, RegistryError,
};
use serde_json::json;

/// Every command there is, by its name: whether it ticks, whether it emits.
const TOLD: [(&str, bool, bool); 16] = [
    ("register", true, false),
    ("append", true, true),
    ("request_cancel", true, true),
    ("complete", true, false),
    ("record_first_started", true, false),
    ("begin_attempt", true, false),
    ("fail_attempt", true, false),
    ("set_external_ref", true, false),
    ("request_abandon", true, false),
    ("set_wait", true, false),
    ("clear_wait", true, false),
    ("ack_wake", true, false),
    ("claim_lease", false, false),
    ("reclaim_lease", false, false),
    ("renew_lease", false, false),
    ("release_lease", false, false),
];

#[tokio::test]
async fn every_command_ticks_and_emits_as_the_table_says() {
    let mut table: BTreeMap<&str, (bool, bool)> =
        TOLD.into_iter().map(|(name, ticks, emits)| (name, (ticks, emits))).collect();
    let mut seen = Vec::new();
    for command in commands() {
        let name = command.name();
        let (ticks, emits) = table[name];
        let scene = Scene::wrapped();
        let ticked = scene.hub.subscribe(&id());
        scene.beneath.answers(Ok(inserted(1)));
        scene.watched.execute(&id(), command).await.expect("a receipt");
        assert_eq!(ticked.has_ticked(), ticks, "{name}");
        assert_eq!(scene.sink.heard(), if emits { vec![Heard::Event(1)] } else { Vec::new() }, "{name}");
        seen.push(name);
    }
    table.retain(|name, _| !seen.contains(name));
    assert!(table.is_empty(), "commands without a sample: {table:?}");
}

/// What the table says holds for a call that nobody hears the answer of, too.
#[tokio::test]
async fn a_dropped_caller_still_ticks_and_the_sink_is_told_of_a_gap() {
    for command in commands() {
        let name = command.name();
        let (_, ticks, emits) = TOLD.into_iter().find(|(told, ..)| *told == name).expect("a row");
        let scene = Scene::wrapped();
        let (ticked, woken) = (scene.hub.subscribe(&id()), scene.hub.subscribe_wakes(&SessionScope::session("s")));
        scene.beneath.never_answers();
        let p = id();
        let call = scene.watched.execute(&p, command);
        assert!(poll_once(pin!(call)).is_pending());
        assert_eq!(ticked.has_ticked(), ticks, "{name}");
        assert_eq!(woken.has_ticked(), emits, "{name}: whoever may have been woken is");
        scene.beneath.answers(Ok(inserted(2)));
        scene.watched.execute(&id(), append()).await.expect("a receipt");
        let expected = if emits { vec![Heard::Missed, Heard::Event(2)] } else { vec![Heard::Event(2)] };
        assert_eq!(scene.sink.heard(), expected, "{name}");
    }
}

#[tokio::test]
async fn an_error_ticks_unless_it_says_that_nothing_changed() {
    let operation = OperationId { issuer: 1, number: 1 };
    let reason = || "a test".to_owned();
    let unchanged = [
        RegistryError::Refused(Refusal::Unknown { process_id: id() }),
        RegistryError::Busy { limit: 1 },
        RegistryError::Unavailable { process_id: id(), retry_at_ms: 1, reason: reason() },
        RegistryError::NotStored { reason: reason() },
        RegistryError::Closed,
    ];
    let unknown = [
        RegistryError::OutcomeUnknown { process_id: id(), operation, reason: reason() },
        RegistryError::Store(LogError::Unreadable { reason: reason() }),
        RegistryError::WrongAnswer { query: reason() },
    ];
    let errors = unchanged.into_iter().map(|error| (error, false)).chain(unknown.map(|error| (error, true)));
    for (error, ticks) in errors {
        let scene = Scene::wrapped();
        let ticked = scene.hub.subscribe(&id());
        scene.beneath.answers(Err(error.clone()));
        assert_eq!(scene.watched.execute(&id(), append()).await, Err(error.clone()));
        assert_eq!(ticked.has_ticked(), ticks, "{error}");
        scene.beneath.answers(Ok(inserted(2)));
        scene.watched.execute(&id(), append()).await.expect("a receipt");
        let expected = if ticks { vec![Heard::Missed, Heard::Event(2)] } else { vec![Heard::Event(2)] };
        assert_eq!(scene.sink.heard(), expected, "{error}");
    }
}

#[tokio::test]
async fn replays_neither_tick_nor_wake_nor_emit() {
    let scene = Scene::wrapped();
    let target = SessionScope::session("s");
    let (ticked, woken) = (scene.hub.subscribe(&id()), scene.hub.subscribe_wakes(&target));
    let mut replayed = waking(1, &target);
    replayed.events = replayed.events.iter().map(|event| ReceiptEvent::Replayed(Arc::clone(event.event()))).collect();
    scene.beneath.answers(Ok(replayed));
    scene.watched.execute(&id(), append()).await.expect("a receipt");
    assert!(!ticked.has_ticked() && !woken.has_ticked());
    assert_eq!(scene.sink.heard(), []);
}

#[tokio::test]
async fn new_wakes_tick_their_targets() {
    let scene = Scene::wrapped();
    let (target, other) = (SessionScope::session("s"), SessionScope::session("t"));
    let (woken, untouched) = (scene.hub.subscribe_wakes(&target), scene.hub.subscribe_wakes(&other));
    scene.beneath.answers(Ok(waking(1, &target)));
    scene.watched.execute(&id(), append()).await.expect("a receipt");
    assert!(woken.has_ticked() && !untouched.has_ticked());
}

/// A sink that stops in the middle of its caller was not told, and hears of it.
#[tokio::test]
async fn a_caller_that_goes_away_in_the_middle_of_an_emission_leaves_a_known_gap() {
    let scene = Scene::wrapped();
    scene.beneath.answers(Ok(inserted(1)));
    scene.sink.hangs(true);
    {
        let (p, ticked) = (id(), scene.hub.subscribe(&id()));
        let call = pin!(scene.watched.execute(&p, append()));
        assert!(poll_once(call).is_pending());
        assert!(ticked.has_ticked(), "ticked before the sink is told");
    }
    scene.sink.hangs(false);
    scene.beneath.answers(Ok(inserted(2)));
    scene.watched.execute(&id(), append()).await.expect("a receipt");
    scene.beneath.answers(Ok(inserted(3)));
    scene.watched.execute(&id(), append()).await.expect("a receipt");
    assert_eq!(scene.sink.heard(), [Heard::Event(1), Heard::Missed, Heard::Event(2), Heard::Event(3)]);
}

/// Where the registry tells of its commits, what watches it tells of nothing itself: not even beside it.
#[tokio::test]
async fn a_source_is_the_only_one_that_ticks_and_emits() {
    let source = ChangeSource::default();
    let beneath = Beneath::with_source(Some(source.clone()));
    let sink = Recorder::hearing_commits();
    let told: Arc<dyn ProcessEventSink> = Arc::clone(&sink) as _;
    let (watched, hub) = watch_process_registry_with_sink(Arc::clone(&beneath) as _, Some(told));
    assert!(hub.is_attached_to(&source));
    assert!(watched.change_source().is_some_and(|own| own.is_same_source(&source)));
    let ticked = hub.subscribe(&id());
    beneath.answers(Ok(inserted(1)));
    watched.execute(&id(), append()).await.expect("a receipt");
    assert!(!ticked.has_ticked(), "the source has not ticked");
    assert_eq!(sink.heard(), [], "the source has not told");
    publish(&source, 1);
    assert!(ticked.has_ticked());
    assert_eq!(sink.heard(), [Heard::Event(1)]);
    let listening = source.listeners().len();
    drop(sink);
    assert_eq!(source.listeners().len(), listening, "the registry keeps the sink");
    drop(watched);
    assert_eq!(source.listeners().len(), listening - 1, "and nobody else does");
}

/// It costs its callers time, which the log is warned of, but it is told, and once.
#[tokio::test]
async fn a_sink_that_hears_no_commits_is_emitted_to_by_its_callers_and_the_source_alone_ticks() {
    let source = ChangeSource::default();
    let beneath = Beneath::with_source(Some(source.clone()));
    let sink = Arc::new(Recorder::default());
    let told: Arc<dyn ProcessEventSink> = Arc::clone(&sink) as _;
    let (watched, hub) = watch_process_registry_with_sink(Arc::clone(&beneath) as _, Some(told));
    let ticked = hub.subscribe(&id());
    beneath.answers(Ok(inserted(1)));
    watched.execute(&id(), append()).await.expect("a receipt");
    assert_eq!(sink.heard(), [Heard::Event(1)]);
    assert!(!ticked.has_ticked());
    publish(&source, 1);
    assert!(ticked.has_ticked());
    assert_eq!(sink.heard(), [Heard::Event(1)]);
}

#[tokio::test]
async fn a_registry_that_tells_of_its_commits_is_returned_as_it_is() {
    let beneath: Arc<dyn ProcessRegistry> = Beneath::with_source(Some(ChangeSource::default()));
    let (watched, _hub) = watch_process_registry(Arc::clone(&beneath));
    assert!(Arc::ptr_eq(&beneath, &watched));
}

/// Twice watched is no error, and this is what comes of it.
#[tokio::test]
async fn the_inner_hub_of_two_hears_both_and_the_outer_one_its_own() {
    let beneath = Beneath::with_source(None);
    let (inner, inner_hub) = watch_process_registry(Arc::clone(&beneath) as _);
    let (outer, outer_hub) = watch_process_registry(Arc::clone(&inner));
    let (mut by_inner, mut by_outer) = (inner_hub.subscribe(&id()), outer_hub.subscribe(&id()));
    beneath.answers(Ok(inserted(1)));
    outer.execute(&id(), append()).await.expect("a receipt");
    by_inner.ticked().await.expect("a tick");
    by_outer.ticked().await.expect("a tick");
    beneath.answers(Ok(inserted(2)));
    inner.execute(&id(), append()).await.expect("a receipt");
    assert!(by_inner.has_ticked() && !by_outer.has_ticked());
}

/// Reads and what is across processes go through untouched.
#[tokio::test]
async fn commands_across_processes_tick_nothing() {
    let scene = Scene::wrapped();
    let ticked = scene.hub.subscribe(&id());
    scene.watched.delete_session_process_state("s").await.expect_err("the script does not answer it");
    assert!(!ticked.has_ticked());
}

struct Scene {
    beneath: Arc<Beneath>,
    sink: Arc<Recorder>,
    watched: Arc<dyn ProcessRegistry>,
    hub: ProcessChangeHub,
}

impl Scene {
    fn wrapped() -> Self {
        let (beneath, sink) = (Beneath::with_source(None), Arc::new(Recorder::default()));
        let told: Arc<dyn ProcessEventSink> = Arc::clone(&sink) as _;
        let (watched, hub) = watch_process_registry_with_sink(Arc::clone(&beneath) as _, Some(told));
        Self { beneath, sink, watched, hub }
    }
}

/// Answers every command with what was scripted last; without a script, never.
struct Beneath {
    source: Option<ChangeSource>,
    answer: Mutex<Option<Result<Receipt, RegistryError>>>,
}

impl Beneath {
    fn with_source(source: Option<ChangeSource>) -> Arc<Self> {
        Arc::new(Self { source, answer: Mutex::default() })
    }

    fn answers(&self, answer: Result<Receipt, RegistryError>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    fn never_answers(&self) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait]
impl ProcessRegistry for Beneath {
    async fn execute(&self, _process_id: &ProcessId, _command: Command) -> Result<Receipt, RegistryError> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let operation = OperationId { issuer: 1, number: 1 };
        Err(RegistryError::AcrossOutcomeUnknown { command: command.name().into(), operation, reason: String::new() })
    }

    async fn query(&self, _query: Query) -> Result<Answer, RegistryError> {
        Err(RegistryError::Closed)
    }

    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Inline
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.source.clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Event(u64),
    Missed,
}

#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<Heard>>,
    hangs: Mutex<bool>,
    ear: Option<Arc<Ear>>,
}

/// The end of a recorder that hears commits.
#[derive(Default)]
struct Ear(Mutex<Vec<Heard>>);

impl Recorder {
    fn hearing_commits() -> Arc<Self> {
        Arc::new(Self { ear: Some(Arc::default()), ..Self::default() })
    }

    fn heard(&self) -> Vec<Heard> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(ear) = &self.ear {
            heard.extend(ear.0.lock().unwrap_or_else(PoisonError::into_inner).iter());
        }
        heard
    }

    fn hangs(&self, hangs: bool) {
        *self.hangs.lock().unwrap_or_else(PoisonError::into_inner) = hangs;
    }
}

#[async_trait]
impl ProcessEventSink for Recorder {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(Heard::Event(event.sequence.0));
        let hangs = *self.hangs.lock().unwrap_or_else(PoisonError::into_inner);
        if hangs {
            std::future::pending::<()>().await;
        }
    }

    async fn missed(&self, missed: &MissedEvents) {
        assert_eq!(*missed, MissedEvents::Unknown);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(Heard::Missed);
    }

    fn commit_listener(&self) -> Option<Arc<dyn CommitListener>> {
        self.ear.clone().map(|ear| ear as Arc<dyn CommitListener>)
    }
}

impl CommitListener for Ear {
    fn committed(&self, batches: &[CommittedBatch]) {
        let events = batches.iter().flat_map(|batch| &batch.events).map(|event| Heard::Event(event.sequence.0));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
    }

    fn pruned(&self, _tombstones: &[registry_actor::domain::Tombstone]) {}

    fn resync(&self) {}

    fn closed(&self) {}
}

fn poll_once<T>(call: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    call.poll(&mut Context::from_waker(Waker::noop()))
}

fn publish(source: &ChangeSource, sequence: u64) {
    let record = serde_json::from_value(json!({
        "registration": {
            "id": "p", "input": { "kind": "k" }, "disposition": "rerunnable", "identity": { "kind": "k" }
        },
        "registration_hash": "v1:", "created_at_ms": 0, "updated_at_ms": 0,
    }));
    let batch = CommittedBatch {
        process_id: id(),
        record: record.expect("a record"),
        events: vec![note(sequence)],
        woken: Vec::new(),
    };
    source.listeners().iter().for_each(|listener| listener.committed(std::slice::from_ref(&batch)));
}

fn id() -> ProcessId {
    ProcessId::new("p").expect("an id")
}

fn note(sequence: u64) -> Arc<ProcessEvent> {
    let event = serde_json::from_value(json!({
        "process_id": "p", "sequence": sequence, "event_type": "note", "payload": null, "occurred_at_ms": 1,
    }));
    Arc::new(event.expect("an event"))
}

fn inserted(sequence: u64) -> Receipt {
    Receipt { events: vec![ReceiptEvent::Inserted(note(sequence))], ..Receipt::default() }
}

fn waking(sequence: u64, target: &SessionScope) -> Receipt {
    let delivery = serde_json::from_value(json!({
        "wake_id": "wake:1", "target": target, "target_session_id": target.session_id(), "target_scope_id": target.id(),
        "process_id": "p", "sequence": sequence, "event_type": "note", "dedupe_key": "d", "input": "hi",
        "created_at_ms": 1,
    }));
    Receipt { deliveries: vec![delivery.expect("a delivery")], ..inserted(sequence) }
}

fn append() -> Command {
    commands().into_iter().find(|command| command.name() == "append").expect("a sample")
}

/// A sample of every command.
fn commands() -> Vec<Command> {
    let samples = include_str!("../../registry-actor/tests/golden/command.json");
    let samples: BTreeMap<String, Command> = serde_json::from_str(samples).expect("the golden file");
    samples.into_values().collect()
}

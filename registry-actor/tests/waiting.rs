//! Parked waiters and the reads beside them, without any registry behind: who is told what, once, and what is left.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use registry_actor::domain::{
    Command, MaterializedTerminal, ProcessAwaitOutput, ProcessEvent, ProcessEventSemantics, ProcessId, ProcessRecord,
    ProcessStatus, ProcessTerminalState, Receipt, Refusal, RegistryCommand, RegistryReceipt, Sequence,
    TerminalAuthority, Tombstone,
};
use registry_actor::port::{
    Answer, ChangeSource, CommitListener, CommittedBatch, DurabilityTier, EventPage, LogError, ParkedWait,
    ProcessRegistry, ProcessWait, Query, RegistryError, WaitAnswer, WaitError, WaitNotice, WaitReader,
};
use serde_json::{Value, json};

#[test]
fn a_waiter_is_told_of_the_first_commit_that_answers_it_and_of_no_other() {
    let source = ChangeSource::default();
    let mut outcome = Waiting::on(&source, &ProcessWait::outcome(id("p")));
    let mut note = Waiting::on(&source, &ProcessWait::event(id("p"), "note", Sequence(1)));
    let mut any = Waiting::on(&source, &ProcessWait::any_event(id("p"), Sequence(2)));
    commit(&source, batch("p", running(1), [event("p", 1, "note"), event("p", 2, "other")]));
    commit(&source, batch("q", ended(1), [end("q", 1)]));
    assert!(outcome.told().is_none() && note.told().is_none() && any.told().is_none());
    commit(&source, batch("p", running(1), [event("p", 3, "other"), event("p", 4, "note"), event("p", 5, "note")]));
    assert_eq!(note.told(), Some(happened(event("p", 4, "note"))));
    assert_eq!(any.told(), Some(happened(event("p", 3, "other"))));
    assert_eq!(source.parked_waits(), 1, "whoever was told is no longer parked");
    commit(&source, batch("p", ended(1), [end("p", 6)]));
    assert_eq!(outcome.told(), Some(WaitNotice::Ended(record(ended(1)))));
    assert_eq!((source.parked_waits(), outcome.wakes()), (0, 1));
}

#[test]
fn in_one_commit_an_event_comes_before_the_end_and_an_end_without_it_is_told() {
    let source = ChangeSource::default();
    let mut note = Waiting::on(&source, &ProcessWait::event(id("p"), "note", Sequence(0)));
    let mut other = Waiting::on(&source, &ProcessWait::event(id("p"), "other", Sequence(0)));
    commit(&source, batch("p", ended(1), [event("p", 1, "note"), end("p", 2)]));
    assert_eq!(note.told(), Some(happened(event("p", 1, "note"))));
    assert_eq!(other.told(), Some(WaitNotice::Ended(record(ended(1)))));
}

/// A publisher that catches up tells of old events with the record of today: whoever was told "ended" by the record alone
/// missed an event that was still to be told.
#[test]
fn a_record_that_is_ahead_of_its_events_does_not_end_a_wait_for_an_event() {
    let source = ChangeSource::default();
    let mut note = Waiting::on(&source, &ProcessWait::event(id("p"), "note", Sequence(0)));
    commit(&source, batch("p", ended(1), [event("p", 1, "other")]));
    assert!(note.told().is_none());
    commit(&source, batch("p", ended(1), [event("p", 2, "note"), end("p", 3)]));
    assert_eq!(note.told(), Some(happened(event("p", 2, "note"))));
}

#[test]
fn a_wait_that_is_given_up_leaves_nothing_and_takes_nobody_with_it() {
    let source = ChangeSource::default();
    let wait = ProcessWait::outcome(id("p"));
    let told = source.park(&wait);
    commit(&source, batch("p", ended(1), [end("p", 1)]));
    // It stands where the first stood, who still thinks that it is there.
    let mut second = Waiting::on(&source, &wait);
    drop(told);
    assert_eq!(source.parked_waits(), 1);
    let third = source.park(&wait);
    assert_eq!(source.parked_waits(), 2);
    drop(third);
    assert_eq!(source.parked_waits(), 1);
    commit(&source, batch("p", ended(1), [end("p", 1)]));
    assert!(second.told().is_some());
    drop(Waiting::on(&source, &wait));
    assert_eq!(source.parked_waits(), 0);
}

#[test]
fn after_missed_commits_and_at_the_end_of_the_source_everybody_is_told() {
    let source = ChangeSource::default();
    let waits = ["c", "a", "b"].map(|name| ProcessWait::outcome(id(name)));
    let mut parked: Vec<_> = waits.iter().map(|wait| Waiting::on(&source, wait)).collect();
    for listener in source.listeners() {
        listener.resync();
    }
    assert!(parked.iter_mut().all(|waiting| waiting.told() == Some(WaitNotice::Resync)));
    let mut again = Waiting::on(&source, &waits[0]);
    source.close();
    assert_eq!(again.told(), Some(WaitNotice::Closed));
    assert_eq!(Waiting::on(&source, &waits[0]).told(), Some(WaitNotice::Closed), "whoever comes later is told at once");
    assert_eq!(source.parked_waits(), 0);
}

#[test]
fn whoever_waits_for_a_pruned_process_is_told() {
    let source = ChangeSource::default();
    let mut gone = Waiting::on(&source, &ProcessWait::any_event(id("p"), Sequence(0)));
    let mut other = Waiting::on(&source, &ProcessWait::outcome(id("q")));
    for listener in source.listeners() {
        listener.pruned(&[tombstone(1)]);
    }
    assert_eq!(gone.told(), Some(WaitNotice::Pruned(Box::new(tombstone(1)))));
    assert!(other.told().is_none());
}

/// A waker may do anything, also park again: it is called outside of every lock.
#[test]
fn a_waker_may_park_again() {
    struct Parking {
        source: ChangeSource,
        parked: Mutex<Vec<ParkedWait>>,
    }
    impl Wake for Parking {
        fn wake(self: Arc<Self>) {
            let parked = self.source.park(&ProcessWait::outcome(id("p")));
            self.parked.lock().expect("not poisoned").push(parked);
        }
    }
    let source = ChangeSource::default();
    let parking = Arc::new(Parking { source: source.clone(), parked: Mutex::default() });
    let mut told = Box::pin(source.park(&ProcessWait::outcome(id("p"))).told());
    let waker = Waker::from(Arc::clone(&parking));
    assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    commit(&source, batch("p", ended(1), [end("p", 1)]));
    assert_eq!(source.parked_waits(), 1);
    parking.parked.lock().expect("not poisoned").clear();
    assert_eq!(source.parked_waits(), 0);
}

/// Whoever is told after it would be neither told nor parked.
#[test]
fn a_waker_that_panics_costs_nobody_else_anything() {
    struct Panicking;
    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("as the test wants");
        }
    }
    let source = ChangeSource::default();
    let wait = ProcessWait::outcome(id("p"));
    let mut panicking = Box::pin(source.park(&wait).told());
    assert!(panicking.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panicking)))).is_pending());
    let mut other = Waiting::on(&source, &wait);
    commit(&source, batch("p", ended(1), [end("p", 1)]));
    assert!(other.told().is_some());
    assert!(poll(panicking.as_mut()).is_ready(), "it was told all the same");
}

#[test]
fn a_wait_reads_after_it_has_parked_and_never_again_while_nothing_is_told() {
    let registry = Scripted::answering([process(running(1))]);
    let source = registry.source.clone();
    let wait = ProcessWait::outcome(id("p"));
    let mut reader = WaitReader::new(&wait);
    let mut answer = pin!(source.wait(&registry, &mut reader, no_sleep));
    assert!(poll(answer.as_mut()).is_pending());
    assert_eq!((registry.parked_at_read(), registry.left()), (vec![1], 0));
    commit(&source, batch("p", ended(1), [end("p", 1)]));
    assert_eq!(poll(answer.as_mut()), Poll::Ready(Ok(WaitAnswer::Completed { record: record(ended(1)) })));
    assert_eq!(registry.parked_at_read().len(), 1, "the outcome itself was told");
}

#[test]
fn what_was_read_comes_before_what_was_told_meanwhile() {
    let note = |sequence| Some(event("p", sequence, "note"));
    let registry = Scripted::answering([process(running(1)), Answer::Event(note(3)), process(running(1))]);
    registry.while_reading(|source| commit(source, batch("p", running(1), [event("p", 4, "note")])));
    let wait = ProcessWait::event(id("p"), "note", Sequence(2));
    let mut reader = WaitReader::new(&wait);
    let answer = poll(pin!(registry.source.wait(&registry, &mut reader, no_sleep)));
    assert_eq!(answer, Poll::Ready(Ok(WaitAnswer::Happened { event: event("p", 3, "note") })));
}

#[test]
fn what_is_told_of_another_life_is_read_again() {
    let gone = Answer::Tombstone(Some(tombstone(1)));
    let registry = Scripted::answering([process(running(1)), Answer::Event(None), process(running(2)), gone]);
    let wait = ProcessWait::event(id("p"), "note", Sequence(0));
    let mut reader = WaitReader::new(&wait);
    let mut answer = pin!(registry.source.wait(&registry, &mut reader, no_sleep));
    assert!(poll(answer.as_mut()).is_pending());
    commit(&registry.source, batch("p", running(2), [event("p", 1, "note")]));
    let expected = WaitAnswer::NoLongerRetained { tombstone: Box::new(tombstone(1)) };
    assert_eq!(poll(answer.as_mut()), Poll::Ready(Ok(expected)));
}

/// A prune that is told late, of a life before the one that is awaited.
#[test]
fn a_tombstone_of_an_earlier_life_ends_nothing() {
    let registry = Scripted::answering([process(running(2)), process(running(2))]);
    let wait = ProcessWait::outcome(id("p"));
    let mut reader = WaitReader::new(&wait);
    let mut answer = pin!(registry.source.wait(&registry, &mut reader, no_sleep));
    assert!(poll(answer.as_mut()).is_pending());
    for listener in registry.source.listeners() {
        listener.pruned(&[tombstone(1)]);
    }
    assert!(poll(answer.as_mut()).is_pending());
    assert_eq!(registry.source.parked_waits(), 1);
    for listener in registry.source.listeners() {
        listener.pruned(&[tombstone(2)]);
    }
    let expected = WaitAnswer::NoLongerRetained { tombstone: Box::new(tombstone(2)) };
    assert_eq!(poll(answer.as_mut()), Poll::Ready(Ok(expected)));
}

#[test]
fn an_event_of_the_next_life_that_a_read_finds_is_no_answer() {
    let of_the_next = Answer::Event(Some(event("p", 1, "note")));
    let gone = Answer::Tombstone(Some(tombstone(1)));
    let registry = Scripted::answering([process(running(1)), of_the_next, process(running(2)), gone]);
    let wait = ProcessWait::event(id("p"), "note", Sequence(0));
    let mut reader = WaitReader::new(&wait);
    let answer = poll(pin!(registry.source.wait(&registry, &mut reader, no_sleep)));
    let expected = WaitAnswer::NoLongerRetained { tombstone: Box::new(tombstone(1)) };
    assert_eq!(answer, Poll::Ready(Ok(expected)));
}

#[test]
fn a_store_that_cannot_be_read_is_read_again_and_an_unknown_process_is_an_error() {
    let unknown = RegistryError::Refused(Refusal::Unknown { process_id: id("p") });
    let registry = Scripted::answering([process(ended(1))]);
    let unreadable = RegistryError::Store(LogError::Unreadable { reason: "for a while".to_owned() });
    registry.failing_first([unreadable.clone(), unreadable]);
    let wait = ProcessWait::outcome(id("p"));
    let slept = Mutex::new(Vec::new());
    let sleep = |delay: Duration| {
        slept.lock().expect("not poisoned").push(delay.as_millis());
        ready(())
    };
    let answer = poll(pin!(registry.source.wait(&registry, &mut WaitReader::new(&wait), sleep)));
    assert_eq!(answer, Poll::Ready(Ok(WaitAnswer::Completed { record: record(ended(1)) })));
    assert_eq!(*slept.lock().expect("not poisoned"), [25, 50]);

    let registry = Scripted::answering([Answer::Process(None), Answer::Tombstone(None)]);
    let answer = poll(pin!(registry.source.wait(&registry, &mut WaitReader::new(&wait), no_sleep)));
    assert_eq!(answer, Poll::Ready(Err(WaitError::Registry(unknown))));
    assert_eq!(registry.source.parked_waits(), 0);
}

/// A registry over a socket had too many reads under way, as after a restart of its server: the wait ended with that.
#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let registry = Scripted::answering([process(ended(1))]);
    registry.failing_first([RegistryError::Busy { limit: 1 }]);
    let answer = poll(pin!(registry.source.wait(
        &registry,
        &mut WaitReader::new(&ProcessWait::outcome(id("p"))),
        |_| ready(())
    )));
    assert_eq!(answer, Poll::Ready(Ok(WaitAnswer::Completed { record: record(ended(1)) })));
}

/// The list of listeners was taken out by then: those behind the one that panicked never heard of the end.
#[test]
fn a_listener_that_panics_at_the_end_of_its_source_is_not_the_others_loss() {
    struct Told {
        panics: bool,
        is_told: AtomicUsize,
    }
    impl CommitListener for Told {
        fn committed(&self, _: &[CommittedBatch]) {}
        fn pruned(&self, _: &[Tombstone]) {}
        fn resync(&self) {}
        fn closed(&self) {
            self.is_told.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "a test lets it panic");
        }
    }
    let source = ChangeSource::default();
    let told = [true, false].map(|panics| Arc::new(Told { panics, is_told: AtomicUsize::new(0) }));
    for listener in &told {
        source.attach(&(Arc::clone(listener) as Arc<dyn CommitListener>));
    }
    source.close();
    assert!(told.iter().all(|listener| listener.is_told.load(Ordering::SeqCst) == 1));
}

#[test]
fn a_source_that_ends_is_read_once_more() {
    let registry = Scripted::answering([process(running(1)), process(ended(1))]);
    let wait = ProcessWait::outcome(id("p"));
    let mut reader = WaitReader::new(&wait);
    let mut answer = pin!(registry.source.wait(&registry, &mut reader, no_sleep));
    assert!(poll(answer.as_mut()).is_pending());
    registry.source.close();
    assert!(matches!(poll(answer.as_mut()), Poll::Ready(Ok(WaitAnswer::Completed { .. }))));

    let registry = Scripted::answering([process(running(1)), process(running(1))]);
    registry.source.close();
    let answer = poll(pin!(registry.source.wait(&registry, &mut WaitReader::new(&wait), no_sleep)));
    assert_eq!(answer, Poll::Ready(Err(WaitError::SourceClosed { process_id: id("p") })));
}

#[derive(Debug, Clone)]
enum Step {
    Park(u8, u8),
    GiveUp(usize),
    Commit(u8, u8),
    Prune(u8),
    Resync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u8, 0..4_u8).prop_map(|(process, awaited)| Step::Park(process, awaited)),
        2 => any::<usize>().prop_map(Step::GiveUp),
        4 => (0..3_u8, 0..3_u8).prop_map(|(process, kind)| Step::Commit(process, kind)),
        1 => (0..3_u8).prop_map(Step::Prune),
        1 => Just(Step::Resync),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Against a list of who waits for what: everybody whom a commit answers is told at that commit, nobody else is, and
    /// as many are parked as wait.
    #[test]
    fn everybody_is_told_of_what_answers_them_and_of_nothing_else(steps in steps()) {
        let source = ChangeSource::default();
        let mut waiting: Vec<(u8, u8, Waiting)> = Vec::new();
        let name = |process: u8| ["a", "b", "c"][usize::from(process)];
        for step in steps {
            let answered: Box<dyn Fn(u8, u8) -> bool> = match step {
                Step::Park(process, awaited) => {
                    let process_id = id(name(process));
                    let wait = match awaited {
                        0 => ProcessWait::outcome(process_id),
                        1 => ProcessWait::any_event(process_id, Sequence(0)),
                        2 => ProcessWait::event(process_id, "note", Sequence(0)),
                        _ => ProcessWait::event(process_id, "never", Sequence(0)),
                    };
                    waiting.push((process, awaited, Waiting::on(&source, &wait)));
                    Box::new(|_, _| false)
                }
                Step::GiveUp(index) => {
                    if !waiting.is_empty() {
                        let index = index % waiting.len();
                        waiting.swap_remove(index);
                    }
                    Box::new(|_, _| false)
                }
                Step::Commit(process, 0) => {
                    commit(&source, batch(name(process), running(1), [event(name(process), 1, "note")]));
                    Box::new(move |of, awaited| of == process && matches!(awaited, 1 | 2))
                }
                Step::Commit(process, 1) => {
                    commit(&source, batch(name(process), running(1), [event(name(process), 1, "other")]));
                    Box::new(move |of, awaited| of == process && awaited == 1)
                }
                Step::Commit(process, _) => {
                    commit(&source, batch(name(process), ended(1), [end(name(process), 1)]));
                    Box::new(move |of, _| of == process)
                }
                Step::Prune(process) => {
                    let tombstone = Tombstone { process_id: id(name(process)), ..tombstone(1) };
                    for listener in source.listeners() {
                        listener.pruned(std::slice::from_ref(&tombstone));
                    }
                    Box::new(move |of, _| of == process)
                }
                Step::Resync => {
                    for listener in source.listeners() {
                        listener.resync();
                    }
                    Box::new(|_, _| true)
                }
            };
            for (process, awaited, waiting) in &mut waiting {
                prop_assert_eq!(waiting.told().is_some(), answered(*process, *awaited));
            }
            waiting.retain(|(process, awaited, _)| !answered(*process, *awaited));
            prop_assert_eq!(source.parked_waits(), waiting.len());
        }
        drop(waiting);
        prop_assert_eq!(source.parked_waits(), 0);
    }
}

/// A parked waiter that was polled once, so that it is woken and not only found.
struct Waiting {
    told: std::pin::Pin<Box<dyn Future<Output = WaitNotice>>>,
    wakes: Arc<Wakes>,
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Waiting {
    fn on(source: &ChangeSource, wait: &ProcessWait) -> Self {
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let mut waiting = Self { told: Box::pin(source.park(wait).told()), wakes };
        let waker = Waker::from(Arc::clone(&waiting.wakes));
        let first = waiting.told.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(told) = first {
            waiting.told = Box::pin(ready(told));
            waiting.wakes.0.store(1, Ordering::SeqCst);
        }
        waiting
    }

    /// What it was told. `None` while it was not woken.
    fn told(&mut self) -> Option<WaitNotice> {
        if self.wakes() == 0 {
            return None;
        }
        match self.told.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => panic!("woken for nothing"),
        }
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

/// What happens while a read is under way.
type During = Box<dyn FnOnce(&ChangeSource) + Send>;

/// A registry that answers reads from a script, at once.
struct Scripted {
    source: ChangeSource,
    answers: Mutex<VecDeque<Answer>>,
    failures: Mutex<VecDeque<RegistryError>>,
    parked_at_read: Mutex<Vec<usize>>,
    during: Mutex<Option<During>>,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            source: ChangeSource::default(),
            answers: Mutex::new(answers.into_iter().collect()),
            failures: Mutex::default(),
            parked_at_read: Mutex::default(),
            during: Mutex::new(None),
        }
    }

    fn failing_first(&self, failures: impl IntoIterator<Item = RegistryError>) {
        self.failures.lock().expect("not poisoned").extend(failures);
    }

    fn while_reading(&self, during: impl FnOnce(&ChangeSource) + Send + 'static) {
        *self.during.lock().expect("not poisoned") = Some(Box::new(during));
    }

    fn parked_at_read(&self) -> Vec<usize> {
        self.parked_at_read.lock().expect("not poisoned").clone()
    }

    fn left(&self) -> usize {
        self.answers.lock().expect("not poisoned").len()
    }
}

#[async_trait]
impl ProcessRegistry for Scripted {
    async fn execute(&self, _: &ProcessId, _: Command) -> Result<Receipt, RegistryError> {
        Err(RegistryError::Closed)
    }

    async fn execute_across(&self, _: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        Err(RegistryError::Closed)
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.parked_at_read.lock().expect("not poisoned").push(self.source.parked_waits());
        if let Some(during) = self.during.lock().expect("not poisoned").take() {
            during(&self.source);
        }
        if let Some(error) = self.failures.lock().expect("not poisoned").pop_front() {
            return Err(error);
        }
        let answer = self.answers.lock().expect("not poisoned").pop_front();
        let answer = answer.unwrap_or_else(|| panic!("nobody expected {query:?}"));
        let fits = matches!(
            (&query, &answer),
            (Query::Process { .. }, Answer::Process(_))
                | (Query::Tombstone { .. }, Answer::Tombstone(_))
                | (Query::FirstEventOfType { .. }, Answer::Event(_))
                | (Query::Events { .. }, Answer::Events(EventPage { .. }))
        );
        assert!(fits, "{query:?} was to be answered with {answer:?}");
        Ok(answer)
    }

    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Inline
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn no_sleep(_: Duration) -> Ready<()> {
    panic!("a store that can be read needs no sleep")
}

fn commit(source: &ChangeSource, batch: CommittedBatch) {
    for listener in source.listeners() {
        listener.committed(std::slice::from_ref(&batch));
    }
}

fn batch<const N: usize>(
    process: &str,
    record: (u32, ProcessStatus),
    events: [Arc<ProcessEvent>; N],
) -> CommittedBatch {
    CommittedBatch { process_id: id(process), record: self::record(record), events: events.into(), woken: Vec::new() }
}

fn process(record: (u32, ProcessStatus)) -> Answer {
    Answer::Process(Some(self::record(record)))
}

fn running(generation: u32) -> (u32, ProcessStatus) {
    (generation, ProcessStatus::Running)
}

fn ended(generation: u32) -> (u32, ProcessStatus) {
    (generation, ProcessStatus::terminal(ProcessTerminalState::Completed, ProcessAwaitOutput::success(json!(1))))
}

fn record((generation, status): (u32, ProcessStatus)) -> Arc<ProcessRecord> {
    let record: ProcessRecord = serde_json::from_value(json!({
        "registration": {
            "id": "p", "input": { "kind": "k" }, "disposition": "rerunnable", "identity": { "kind": "k" }
        },
        "registration_hash": "v1:", "created_at_ms": 0, "updated_at_ms": 0,
    }))
    .expect("a record");
    Arc::new(ProcessRecord { generation, status: Arc::new(status), ..record })
}

fn happened(event: Arc<ProcessEvent>) -> WaitNotice {
    WaitNotice::Happened { event, generation: 1 }
}

fn event(process: &str, sequence: u64, event_type: &str) -> Arc<ProcessEvent> {
    Arc::new(ProcessEvent {
        process_id: id(process),
        sequence: Sequence(sequence),
        event_type: Arc::from(event_type),
        payload: Value::Null,
        replay_key: None,
        semantics: ProcessEventSemantics::default(),
        occurred_at_ms: 0,
        late: false,
    })
}

fn end(process: &str, sequence: u64) -> Arc<ProcessEvent> {
    let terminal = MaterializedTerminal {
        state: ProcessTerminalState::Completed,
        await_output: ProcessAwaitOutput::success(json!(1)),
        authority: TerminalAuthority::Unfenced,
    };
    let semantics = ProcessEventSemantics { terminal: Some(Box::new(terminal)), wake: None };
    let event = ProcessEvent::clone(&event(process, sequence, "process.completed"));
    Arc::new(ProcessEvent { semantics, ..event })
}

fn tombstone(generation: u32) -> Tombstone {
    Tombstone {
        process_id: id("p"),
        generation,
        terminal_state: ProcessTerminalState::Completed,
        created_at_ms: 0,
        terminal_at_ms: 1,
        pruned_at_ms: 2,
    }
}

fn id(text: &str) -> ProcessId {
    ProcessId::new(text).expect("an id")
}

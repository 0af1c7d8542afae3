//! The sink's thread runs in real time, and is steered by signals. The clock of the tests stands still: a deadline comes as
//! soon as nothing else can happen on the test's own runtime.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::testing::{event, missed};

/// A safety net, no test's measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a sink was told.
#[derive(Debug, PartialEq)]
enum Told {
    Event(String, u64),
    Batch(usize),
    Missed(MissedEvents),
}

/// What a sink does when it is told of an event.
enum Manner {
    Returns,
    /// Takes so many at once.
    Batches(usize),
    /// Blocks its thread until a token comes.
    BlocksUntil(Mutex<mpsc::Receiver<()>>),
    NeverReturns,
    /// Panics on every event whose number is divisible.
    PanicsOn(u64),
    PanicsOnGapsToo,
}

struct TestSink {
    manner: Manner,
    told: mpsc::Sender<Told>,
}

#[async_trait]
impl ProcessEventSink for TestSink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        let told = Told::Event(event.process_id.to_string(), event.sequence.0);
        self.told.send(told).expect("the test listens");
        match &self.manner {
            Manner::Returns | Manner::Batches(_) => {}
            Manner::BlocksUntil(token) => {
                // A test that has ended lets it go.
                let _ = token.lock().expect("one thread").recv();
            }
            Manner::NeverReturns => std::future::pending().await,
            Manner::PanicsOn(number) if event.sequence.0.is_multiple_of(*number) => panic!("as the test wants"),
            Manner::PanicsOn(_) => {}
            Manner::PanicsOnGapsToo => panic!("as the test wants"),
        }
    }

    async fn emit_batch(&self, events: &[Arc<ProcessEvent>]) {
        self.told.send(Told::Batch(events.len())).expect("the test listens");
    }

    fn batch_limit(&self) -> usize {
        if let Manner::Batches(limit) = self.manner { limit } else { 1 }
    }

    async fn missed(&self, missed: &MissedEvents) {
        self.told.send(Told::Missed(missed.clone())).expect("the test listens");
        assert!(!matches!(self.manner, Manner::PanicsOnGapsToo), "as the test wants");
    }
}

fn start(
    adjust: impl FnOnce(&mut MailboxOptions),
    manner: impl Fn() -> Manner + Send + Sync + 'static,
) -> (SinkMailbox, mpsc::Receiver<Told>) {
    let (told, listening) = mpsc::channel();
    let at_once = SinkRestart { first_delay: Duration::ZERO, longest_delay: Duration::ZERO };
    let mut options = MailboxOptions { restart: at_once, ..MailboxOptions::default() };
    adjust(&mut options);
    let factory = move || -> Arc<dyn ProcessEventSink> { Arc::new(TestSink { manner: manner(), told: told.clone() }) };
    (SinkMailbox::start(options, factory).expect("the thread starts"), listening)
}

fn blocking(capacity: usize) -> (SinkMailbox, mpsc::Receiver<Told>, mpsc::Sender<()>) {
    let (token, tokens) = mpsc::channel();
    let tokens = Mutex::new(Some(tokens));
    let manner = move || Manner::BlocksUntil(Mutex::new(tokens.lock().expect("one thread").take().expect("one life")));
    let (mailbox, told) = start(|options| options.capacity = capacity, manner);
    (mailbox, told, token)
}

fn told(listening: &mpsc::Receiver<Told>) -> Told {
    listening.recv_timeout(PATIENCE).expect("the sink is told something")
}

fn told_event(sequence: u64) -> Told {
    Told::Event("a".to_owned(), sequence)
}

fn check(report: &SinkReport) {
    assert_eq!(report.offered, report.accepted + report.dropped, "{report:?}");
    let known = report.delivered + report.failed + report.waiting + report.in_hand;
    assert_eq!(report.accepted, known, "{report:?}");
}

#[tokio::test]
async fn a_flush_waits_for_what_was_handed_over_before_it_and_closing_delivers_what_waits() {
    let (mailbox, listening) = start(|_| {}, || Manner::Returns);
    for sequence in 1..=3 {
        mailbox.emit(&event("a", sequence)).await;
    }
    let report = mailbox.flush(PATIENCE).await.expect("delivered");
    assert_eq!((report.accepted, report.delivered), (3, 3));
    mailbox.emit(&event("a", 4)).await;
    let report = mailbox.close(PATIENCE).await.expect("delivered");
    assert_eq!((report.accepted, report.delivered), (4, 4));
    assert_eq!(listening.iter().collect::<Vec<_>>(), (1..=4).map(told_event).collect::<Vec<_>>());
    mailbox.emit(&event("a", 5)).await;
    let report = mailbox.close(PATIENCE).await.expect("it may be closed twice");
    assert_eq!((report.dropped, report.delivered), (1, 4));
    check(&report);
}

#[tokio::test]
async fn a_sink_that_takes_batches_is_given_no_more_at_once_than_it_says() {
    let (mailbox, listening) = start(|_| {}, || Manner::Batches(4));
    let events: Vec<_> = (1..=10).map(|sequence| event("a", sequence)).collect();
    mailbox.emit_batch(&events).await;
    mailbox.close(PATIENCE).await.expect("delivered");
    let sizes: Vec<_> = listening.iter().collect();
    assert_eq!(sizes, [Told::Batch(4), Told::Batch(4), Told::Batch(2)]);
}

#[tokio::test(start_paused = true)]
async fn while_a_sink_blocks_its_thread_handing_over_goes_on_and_a_flush_answers_at_its_deadline() {
    let (mailbox, listening, token) = blocking(2);
    mailbox.emit(&event("a", 1)).await;
    assert_eq!(told(&listening), told_event(1));
    for sequence in 2..=5 {
        mailbox.emit(&event("a", sequence)).await;
    }
    let undelivered = mailbox.flush(PATIENCE).await.expect_err("the sink has not returned");
    assert_eq!(undelivered.left, 3);
    assert_eq!((undelivered.report.in_hand, undelivered.report.waiting, undelivered.report.dropped), (1, 2, 2));
    check(&undelivered.report);
    for _ in 0..3 {
        token.send(()).expect("the sink waits");
    }
    let heard: Vec<_> = (0..3).map(|_| told(&listening)).collect();
    assert_eq!(heard, [told_event(2), told_event(3), Told::Missed(missed("a", 4, 5))]);
}

#[tokio::test(start_paused = true)]
async fn closing_over_a_sink_that_only_awaits_gives_up_at_the_deadline_and_ends_the_thread() {
    let (mailbox, listening) = start(|_| {}, || Manner::NeverReturns);
    for sequence in 1..=3 {
        mailbox.emit(&event("a", sequence)).await;
    }
    assert_eq!(told(&listening), told_event(1));
    let undelivered = mailbox.close(PATIENCE).await.expect_err("the sink never returns");
    assert_eq!(undelivered.left, 3);
    // The sender goes with the sink, and the sink with its thread.
    assert_eq!(listening.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    tokio::time::resume();
    let report = mailbox.close(PATIENCE).await.expect("the thread has ended");
    assert_eq!((report.failed, report.undelivered()), (3, 0));
    check(&report);
}

#[tokio::test(start_paused = true)]
async fn closing_over_a_sink_that_blocks_leaves_its_thread_which_ends_when_the_sink_returns() {
    let (mailbox, listening, token) = blocking(10);
    for sequence in 1..=3 {
        mailbox.emit(&event("a", sequence)).await;
    }
    assert_eq!(told(&listening), told_event(1));
    let undelivered = mailbox.close(PATIENCE).await.expect_err("the sink blocks");
    assert_eq!((undelivered.left, undelivered.report.failed, undelivered.report.in_hand), (3, 2, 1));
    drop(token);
    assert_eq!(listening.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    tokio::time::resume();
    let report = mailbox.close(PATIENCE).await.expect("the thread has ended");
    check(&report);
}

#[tokio::test]
async fn a_panicking_sink_is_made_anew_and_told_what_it_was_given() {
    let lives = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lives);
    let (mailbox, listening) = start(
        |_| {},
        move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Manner::PanicsOn(2)
        },
    );
    for sequence in 1..=5 {
        mailbox.emit(&event("a", sequence)).await;
    }
    let report = mailbox.close(PATIENCE).await.expect("all is delivered or has failed");
    assert_eq!((report.delivered, report.failed, report.restarts, report.gaps), (3, 2, 2, 2));
    check(&report);
    assert_eq!(lives.load(Ordering::SeqCst), 3);
    let expected = [
        told_event(1),
        told_event(2),
        Told::Missed(missed("a", 2, 2)),
        told_event(3),
        told_event(4),
        Told::Missed(missed("a", 4, 4)),
        told_event(5),
    ];
    assert_eq!(listening.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_sink_that_panics_on_gaps_too_does_not_hear_of_the_same_one_for_ever() {
    let (mailbox, listening) = start(|_| {}, || Manner::PanicsOnGapsToo);
    for sequence in 1..=2 {
        mailbox.emit(&event("a", sequence)).await;
    }
    let report = mailbox.close(PATIENCE).await.expect("all has failed");
    assert_eq!((report.failed, report.restarts), (2, 4));
    let expected = [told_event(1), Told::Missed(missed("a", 1, 1)), told_event(2), Told::Missed(missed("a", 2, 2))];
    assert_eq!(listening.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_factory_that_panics_is_called_again() {
    let calls = AtomicUsize::new(0);
    let (mailbox, listening) = start(
        |_| {},
        move || {
            assert!(calls.fetch_add(1, Ordering::SeqCst) >= 2, "as the test wants");
            Manner::Returns
        },
    );
    mailbox.emit(&event("a", 1)).await;
    let report = mailbox.close(PATIENCE).await.expect("delivered");
    assert_eq!((report.delivered, report.failed, report.restarts), (1, 0, 2));
    assert_eq!(listening.iter().collect::<Vec<_>>(), [told_event(1)]);
}

#[tokio::test]
async fn when_all_handles_are_gone_what_waits_is_delivered_and_the_thread_ends() {
    let (mailbox, listening, token) = blocking(10);
    for sequence in 1..=3 {
        mailbox.emit(&event("a", sequence)).await;
    }
    drop(mailbox);
    drop(token);
    let heard: Vec<_> = (0..3).map(|_| told(&listening)).collect();
    assert_eq!(heard, (1..=3).map(told_event).collect::<Vec<_>>());
    assert_eq!(listening.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[tokio::test]
async fn a_sink_that_panics_when_all_handles_are_gone_is_not_made_anew() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (mailbox, listening) = start(
        |_| {},
        move || {
            // The first life begins when the handles are gone.
            let _ = wait.lock().expect("one thread").recv();
            Manner::PanicsOn(1)
        },
    );
    for sequence in 1..=3 {
        mailbox.emit(&event("a", sequence)).await;
    }
    drop(mailbox);
    drop(go);
    assert_eq!(told(&listening), told_event(1));
    assert_eq!(listening.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[tokio::test]
async fn a_source_is_heard_as_long_as_the_mailbox_lives() {
    let (mailbox, _listening) = start(|_| {}, || Manner::Returns);
    let source = ChangeSource::default();
    let before = source.listeners().len();
    mailbox.attach(&source);
    assert_eq!(source.listeners().len(), before + 1);
    let clone = mailbox.clone();
    drop(mailbox);
    assert_eq!(source.listeners().len(), before + 1);
    source.close();
    assert!(clone.source_has_ended());
    let next = ChangeSource::default();
    clone.attach(&next);
    assert!(!clone.source_has_ended());
    drop(clone);
    assert_eq!(next.listeners().len(), before);
}

/// Told twice if it was attached through two doors, and ended for ever once a first source had ended.
#[tokio::test]
async fn a_source_is_heard_once_and_the_end_of_one_source_is_not_that_of_another() {
    let (mailbox, _listening) = start(|_| {}, || Manner::Returns);
    let (first, second) = (ChangeSource::default(), ChangeSource::default());
    let before = first.listeners().len();
    mailbox.attach(&first);
    mailbox.attach(&first);
    first.attach(&mailbox.commit_listener().expect("it hears sources"));
    assert_eq!(first.listeners().len(), before + 1);
    mailbox.attach(&second);
    first.close();
    assert!(!mailbox.source_has_ended());
    second.close();
    assert!(mailbox.source_has_ended());
    let third = ChangeSource::default();
    third.attach(&mailbox.commit_listener().expect("it hears sources"));
    assert!(!mailbox.source_has_ended());
}

/// A sink that only queues, beside a task that writes: the task never ran while events came.
#[tokio::test]
async fn tasks_of_a_sink_have_their_turn_in_a_flood() {
    struct Spawning {
        turns: Arc<AtomicUsize>,
        seen: AtomicUsize,
        say: mpsc::Sender<usize>,
    }
    #[async_trait]
    impl ProcessEventSink for Spawning {
        async fn emit(&self, _: &Arc<ProcessEvent>) {
            let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
            if seen == 1 {
                let turns = Arc::clone(&self.turns);
                tokio::spawn(async move {
                    loop {
                        turns.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                    }
                });
            }
            if seen == FLOOD {
                // A test that has failed no longer listens.
                let _ = self.say.send(self.turns.load(Ordering::SeqCst));
            }
        }
    }
    const FLOOD: usize = 10_000;
    let (say, said) = mpsc::channel();
    let sink = Spawning { turns: Arc::default(), seen: AtomicUsize::new(0), say };
    let mailbox = mailbox(Arc::new(sink)).expect("a thread");
    let events: Vec<_> = (1..=FLOOD as u64).map(|sequence| event("a", sequence)).collect();
    mailbox.emit_batch(&events).await;
    assert!(said.recv_timeout(PATIENCE).expect("all are delivered") > 0);
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error() {
    let options = MailboxOptions { thread_name: "a\0b".to_owned(), ..MailboxOptions::default() };
    let started = SinkMailbox::start(options, || panic!("nothing is started"));
    assert!(matches!(started, Err(MailboxError::Thread(_))));
}

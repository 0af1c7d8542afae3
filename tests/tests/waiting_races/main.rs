//! No lost wake-up, in any schedule: the source of changes with its wait table, and the hub, under a model checker that
//! tries the orders in which three threads can take the locks.
//!
//! What is checked are the very source files, compiled a second time against the checker's locks, and the wait of the
//! registry itself. A waiter that is not woken is a deadlock, which the checker reports.
//!
//! `PROCTOR_RACE_PREEMPTIONS` bounds how often a schedule may take a thread off the processor that could go on; with
//! `all` there is no bound, and every schedule is tried.

mod gate;
#[expect(dead_code, unreachable_pub, reason = "the library offers more than is checked here")]
mod hub;
mod model;
#[expect(dead_code, unreachable_pub, reason = "the library offers more than is checked here")]
mod port;

use std::future::{pending, ready};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::thread;
use registry_actor::domain::{self, Sequence};

use crate::gate::Gate;
use crate::hub::{HubClosed, TickMap};
use crate::model::{ID, Line, Log, Owner, Step, outcome, prepare, tell, tell_missed};
use crate::port::{ChangeSource, Look, ProcessWait, WaitAnswer, WaitError, WaitReader};

/// The bound of the schedules that are tried unless another is asked for.
const PREEMPTIONS: usize = 3;

/// Tries every schedule within the bound.
fn every_schedule(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    prepare();
    let preemptions = match std::env::var("PROCTOR_RACE_PREEMPTIONS") {
        Ok(unbounded) if unbounded == "all" => None,
        Ok(bound) => Some(bound.parse().expect("PROCTOR_RACE_PREEMPTIONS is a number or `all`")),
        Err(_) => Some(PREEMPTIONS),
    };
    let tried = Arc::new(AtomicU64::new(0));
    let mut checker = loom::model::Builder::new();
    checker.max_branches = 100_000;
    checker.preemption_bound = preemptions;
    checker.check({
        let tried = Arc::clone(&tried);
        move || {
            tried.fetch_add(1, Ordering::Relaxed);
            scenario();
        }
    });
    let bound = preemptions.map_or("every".to_owned(), |bound| format!("every one with at most {bound} preemptions"));
    println!("{name}: {} schedules, {bound}", tried.load(Ordering::Relaxed));
}

/// Tries schedules until one hangs, which has to be found. In a process of its own: the checker cannot go on after a
/// deadlock, nor unwind out of each one.
fn some_schedule_hangs(test: &str, scenario: impl Fn() + Send + Sync + 'static) {
    const CONTROL: &str = "PROCTOR_RACE_CONTROL";
    if std::env::var_os(CONTROL).is_some() {
        return every_schedule(test, scenario);
    }
    let this = std::env::current_exe().expect("the path of this test");
    let mut control = Command::new(this);
    let control = control.args([test, "--exact", "--nocapture"]).env(CONTROL, "").env("RUST_BACKTRACE", "0");
    let ended = control.output().expect("it can be started");
    let (out, said) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(out.contains("running 1 test"), "{test}: is the name of a test, got {out}");
    assert!(!ended.status.success() && said.contains("deadlock; threads"), "{test}: expected a deadlock, got {said}");
    println!("{test}: a schedule was found that hangs");
}

/// A source, a log, and who is born with it.
struct World {
    source: ChangeSource,
    log: Log,
}

impl World {
    fn new() -> Arc<Self> {
        Self::over(Log::new())
    }

    fn over(log: Log) -> Arc<Self> {
        Arc::new(Self { source: ChangeSource::default(), log })
    }

    fn wait(&self, wait: &ProcessWait) -> Result<WaitAnswer, WaitError> {
        block_on(self.source.wait(&self.log, &mut WaitReader::new(wait), |_| pending()))
    }

    fn commit_and_tell(&self, step: Step) {
        tell(&self.source, &self.log.commit(step));
    }

    /// Waits, and gives up after the first poll.
    fn give_up(&self, wait: &ProcessWait) {
        let mut reader = WaitReader::new(wait);
        let waiting = pin!(self.source.wait(&self.log, &mut reader, |_| pending()));
        let _ = waiting.poll(&mut Context::from_waker(Waker::noop()));
    }

    fn assert_nobody_is_parked(&self) {
        assert_eq!(self.source.parked_waits(), 0, "nothing is left in the table");
    }
}

fn the_outcome() -> ProcessWait {
    ProcessWait::outcome(ID.clone())
}

fn the_note() -> ProcessWait {
    ProcessWait::event(ID.clone(), "note", Sequence(0))
}

fn assert_completed(answer: Result<WaitAnswer, WaitError>, generation: u32) {
    match answer {
        Ok(answer @ WaitAnswer::Completed { .. }) => assert_eq!(answer.output(), Some(&outcome(generation))),
        other => panic!("expected the outcome, got {other:?}"),
    }
}

fn assert_happened(answer: Result<WaitAnswer, WaitError>) {
    match answer {
        Ok(WaitAnswer::Happened { event }) => assert_eq!(event.sequence, Sequence(1)),
        other => panic!("expected the event, got {other:?}"),
    }
}

fn spawn(world: &Arc<World>, run: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn a_waiter_hears_of_a_commit_while_others_park_and_give_up_on_the_same_process() {
    every_schedule("an outcome, and another who gives up twice", || {
        let world = World::new();
        let committer = spawn(&world, |world| world.commit_and_tell(Step::End));
        let other = spawn(&world, |world| {
            world.give_up(&the_outcome());
            world.give_up(&the_outcome());
        });
        assert_completed(world.wait(&the_outcome()), 1);
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_waiter_for_an_event_hears_of_it_although_the_process_ends_at_once() {
    every_schedule("an event, its end, and one who waits for that", || {
        let world = World::new();
        let committer = spawn(&world, |world| {
            world.commit_and_tell(Step::Note);
            world.commit_and_tell(Step::End);
        });
        let other = spawn(&world, |world| assert_completed(world.wait(&the_outcome()), 1));
        assert_happened(world.wait(&the_note()));
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_waiter_for_an_event_that_never_comes_hears_of_the_end() {
    every_schedule("an end without the event", || {
        let world = World::new();
        let committer = spawn(&world, |world| world.commit_and_tell(Step::End));
        let other = spawn(&world, |world| world.give_up(&the_note()));
        match world.wait(&the_note()) {
            Ok(answer @ WaitAnswer::Ended { .. }) => assert_eq!(answer.output(), Some(&outcome(1))),
            other => panic!("expected the end, got {other:?}"),
        }
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_waiter_outlives_every_owner_that_comes_to_rest_or_dies() {
    every_schedule("an owner that goes away", || {
        let world = World::new();
        let owner = Arc::new(Owner::new());
        let committer = spawn(&world, {
            let owner = Arc::clone(&owner);
            move |world| {
                for step in [Step::Note, Step::End] {
                    tell(&world.source, &owner.execute(&world.log, step));
                }
            }
        });
        let passivation = thread::spawn(move || {
            owner.go_away();
            owner.go_away();
        });
        assert_completed(world.wait(&the_outcome()), 1);
        join([committer, passivation]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_publisher_that_died_between_commit_and_tell_costs_nobody_a_wake_up() {
    every_schedule("a publisher that goes on out of the feed", || {
        let (world, line) = (World::new(), Arc::new(Line::new()));
        let committer = spawn(&world, {
            let line = Arc::clone(&line);
            move |world| {
                line.commit(&world.log, Step::Note);
                line.commit(&world.log, Step::End);
            }
        });
        let successor = spawn(&world, move |world| {
            line.take_over();
            let published = tell_missed(&world.log, &world.source, 0);
            line.publish(&world.log, &world.source, published, 2);
        });
        assert_completed(world.wait(&the_outcome()), 1);
        join([committer, successor]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_publisher_that_cannot_read_the_feed_makes_waiters_read() {
    every_schedule("a publisher that asks for reads", || {
        let (world, line) = (World::new(), Arc::new(Line::new()));
        let committer = spawn(&world, {
            let line = Arc::clone(&line);
            move |world| {
                // Lost: whoever was to tell it has died.
                world.log.commit(Step::Note);
                line.take_over();
                line.commit(&world.log, Step::End);
            }
        });
        let successor = spawn(&world, move |world| {
            world.source.listeners().iter().for_each(|listener| listener.resync());
            line.next();
            world.source.listeners().iter().for_each(|listener| listener.resync());
        });
        assert_completed(world.wait(&the_outcome()), 1);
        join([committer, successor]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_commit_before_the_end_of_the_source_is_found_although_nobody_is_told_of_it() {
    every_schedule("a source that ends after a commit", || {
        let world = World::new();
        let committer = spawn(&world, |world| {
            world.log.commit(Step::End);
            world.source.close();
        });
        let other = spawn(&world, |world| world.give_up(&the_outcome()));
        assert_completed(world.wait(&the_outcome()), 1);
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_source_that_ends_leaves_nobody_waiting() {
    every_schedule("a source that ends beside a commit", || {
        let world = World::new();
        let committer = spawn(&world, |world| world.commit_and_tell(Step::End));
        let end = spawn(&world, |world| world.source.close());
        match world.wait(&the_outcome()) {
            Err(WaitError::SourceClosed { process_id }) => assert_eq!(process_id, *ID),
            answer => assert_completed(answer, 1),
        }
        join([committer, end]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_source_that_ends_without_a_commit_is_an_answer_to_whoever_waits_or_comes_later() {
    every_schedule("a source that ends", || {
        let world = World::new();
        let end = spawn(&world, |world| world.source.close());
        let other = spawn(&world, |world| world.give_up(&the_outcome()));
        assert!(matches!(world.wait(&the_outcome()), Err(WaitError::SourceClosed { .. })));
        join([end, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_waiter_hears_of_the_life_that_it_found_and_of_no_other() {
    every_schedule("a prune and a next life", || {
        let world = World::new();
        let committer = spawn(&world, |world| {
            for step in [Step::End, Step::Prune, Step::LiveAgain, Step::End] {
                world.commit_and_tell(step);
            }
        });
        let other = spawn(&world, |world| world.give_up(&the_outcome()));
        match world.wait(&the_outcome()) {
            Ok(WaitAnswer::NoLongerRetained { tombstone }) => assert_eq!(tombstone.generation, 1),
            Ok(WaitAnswer::Completed { record }) => {
                assert_eq!(record.status.await_output(), Some(&outcome(record.generation)));
            }
            other => panic!("expected an end, got {other:?}"),
        }
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_waiter_for_an_event_is_not_told_of_that_of_another_life() {
    every_schedule("an event of the next life only, told before the prune", || {
        let world = World::new();
        let first_read = Arc::new(Gate::new());
        let committer = spawn(&world, {
            let first_read = Arc::clone(&first_read);
            move |world| {
                first_read.wait();
                let commit = |step| world.log.commit(step);
                // As a page of the feed tells it: what was pruned has no events there, and the prunes come last.
                let [_, pruned, _, note] = [Step::End, Step::Prune, Step::LiveAgain, Step::Note].map(commit);
                tell(&world.source, &note);
                tell(&world.source, &pruned);
            }
        });
        let other = spawn(&world, |world| world.give_up(&the_note()));
        let wait = the_note();
        let mut reader = WaitReader::new(&wait);
        assert_eq!(block_on(reader.look(&world.log)), Ok(Look::NotYet));
        first_read.open();
        match block_on(world.source.wait(&world.log, &mut reader, |_| pending())) {
            Ok(WaitAnswer::NoLongerRetained { tombstone }) => assert_eq!(tombstone.generation, 1),
            Ok(WaitAnswer::Ended { record }) => assert_eq!(record.generation, 1),
            other => panic!("expected the end of the first life, got {other:?}"),
        }
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

#[test]
fn a_waiter_that_could_not_read_hears_of_a_commit_or_reads_again() {
    every_schedule("a store that cannot be read at first", || {
        let world = World::over(Log::failing_reads(1));
        let committer = spawn(&world, |world| world.commit_and_tell(Step::End));
        let other = spawn(&world, |world| world.give_up(&the_outcome()));
        let wait = the_outcome();
        let mut reader = WaitReader::new(&wait);
        let answer = block_on(world.source.wait(&world.log, &mut reader, |_| ready(())));
        assert_completed(answer, 1);
        join([committer, other]);
        world.assert_nobody_is_parked();
    });
}

/// The order that the wait must not have.
async fn read_then_park(world: &World, wait: &ProcessWait) -> WaitAnswer {
    let mut reader = WaitReader::new(wait);
    loop {
        if let Look::Answer(answer) = reader.look(&world.log).await.expect("a read") {
            return answer;
        }
        if let Some(answer) = reader.accept(world.source.park(wait).told().await) {
            return answer;
        }
    }
}

#[test]
fn control_whoever_reads_before_it_parks_is_found_hanging() {
    some_schedule_hangs("control_whoever_reads_before_it_parks_is_found_hanging", || {
        let world = World::new();
        let committer = spawn(&world, |world| world.commit_and_tell(Step::End));
        assert_completed(Ok(block_on(read_then_park(&world, &the_outcome()))), 1);
        join([committer]);
    });
}

#[test]
fn control_whoever_tells_before_the_commit_is_found_hanging_others() {
    some_schedule_hangs("control_whoever_tells_before_the_commit_is_found_hanging_others", || {
        let world = World::new();
        let committer = spawn(&world, |world| {
            // It is told as what has to be read, as a hub does it: what is told whole is its own answer.
            world.source.listeners().iter().for_each(|listener| listener.resync());
            world.log.commit(Step::End);
        });
        assert_completed(world.wait(&the_outcome()), 1);
        join([committer]);
    });
}

#[test]
fn control_a_publisher_that_reads_the_feed_before_it_takes_over_is_found_losing_a_wake_up() {
    some_schedule_hangs(
        "control_a_publisher_that_reads_the_feed_before_it_takes_over_is_found_losing_a_wake_up",
        || {
            let (world, line) = (World::new(), Arc::new(Line::new()));
            let committer = spawn(&world, {
                let line = Arc::clone(&line);
                move |world| line.commit(&world.log, Step::End)
            });
            let successor = spawn(&world, move |world| {
                let published = tell_missed(&world.log, &world.source, 0);
                line.take_over();
                line.publish(&world.log, &world.source, published, 1);
            });
            assert_completed(world.wait(&the_outcome()), 1);
            join([committer, successor]);
        },
    );
}

/// A hub of one kind of key, and what its ticks announce.
struct Ticked {
    hub: Arc<TickMap<u8>>,
    log: Log,
}

/// The process's key.
const KEY: u8 = 1;

impl Ticked {
    fn new() -> Arc<Self> {
        Arc::new(Self { hub: Arc::default(), log: Log::new() })
    }

    fn has_ended(&self) -> bool {
        let wait = the_outcome();
        matches!(block_on(WaitReader::new(&wait).look(&self.log)), Ok(Look::Answer(_)))
    }

    /// Waits until it has ended. `false`: the hub ended first.
    fn wait(&self) -> bool {
        let mut subscription = self.hub.subscribe(&KEY);
        while !self.has_ended() {
            if block_on(subscription.ticked()) == Err(HubClosed) {
                return self.has_ended();
            }
        }
        true
    }

    fn spawn(self: &Arc<Self>, run: impl FnOnce(&Self) + 'static) -> thread::JoinHandle<()> {
        let ticked = Arc::clone(self);
        thread::spawn(move || run(&ticked))
    }
}

#[test]
fn a_subscriber_sees_every_commit_while_others_come_and_go_on_its_key() {
    every_schedule("a hub, ticked", || {
        let ticked = Ticked::new();
        let committer = ticked.spawn(|ticked| {
            ticked.log.commit(Step::End);
            ticked.hub.tick(&KEY);
        });
        let other = ticked.spawn(|ticked| {
            drop(ticked.hub.subscribe(&KEY));
            drop(ticked.hub.subscribe(&KEY));
        });
        assert!(ticked.wait());
        join([committer, other]);
        assert_eq!(ticked.hub.len(), 0);
    });
}

#[test]
fn a_subscriber_sees_a_commit_whose_tick_was_lost_at_the_next_resync() {
    every_schedule("a hub, ticked as a whole", || {
        let ticked = Ticked::new();
        let committer = ticked.spawn(|ticked| {
            ticked.log.commit(Step::End);
            ticked.hub.tick_all();
        });
        let other = ticked.spawn(|ticked| drop(ticked.hub.subscribe(&KEY)));
        assert!(ticked.wait());
        join([committer, other]);
        assert_eq!(ticked.hub.len(), 0);
    });
}

#[test]
fn a_hub_that_ends_leaves_no_subscriber_waiting_and_no_entry() {
    every_schedule("a hub that ends", || {
        let ticked = Ticked::new();
        let end = ticked.spawn(|ticked| {
            ticked.log.commit(Step::End);
            ticked.hub.close();
        });
        let other = ticked.spawn(|ticked| drop(ticked.hub.subscribe(&KEY)));
        assert!(ticked.wait(), "what was committed before the end is read after it");
        join([end, other]);
        assert_eq!(ticked.hub.len(), 0);
    });
}

#[test]
fn a_hub_that_ends_without_a_commit_tells_whoever_watches_or_comes_later() {
    every_schedule("a hub that ends without a commit", || {
        let ticked = Ticked::new();
        let end = ticked.spawn(|ticked| ticked.hub.close());
        let other = ticked.spawn(|ticked| drop(ticked.hub.subscribe(&KEY)));
        assert!(!ticked.wait());
        join([end, other]);
        assert_eq!(ticked.hub.len(), 0);
    });
}

#[test]
fn control_whoever_reads_before_it_subscribes_is_found_hanging() {
    some_schedule_hangs("control_whoever_reads_before_it_subscribes_is_found_hanging", || {
        let ticked = Ticked::new();
        let committer = ticked.spawn(|ticked| {
            ticked.log.commit(Step::End);
            ticked.hub.tick(&KEY);
        });
        while !ticked.has_ended() {
            block_on(ticked.hub.subscribe(&KEY).ticked()).expect("the hub does not end");
        }
        join([committer]);
    });
}

#[test]
fn control_whoever_ticks_before_the_commit_is_found_hanging_others() {
    some_schedule_hangs("control_whoever_ticks_before_the_commit_is_found_hanging_others", || {
        let ticked = Ticked::new();
        let committer = ticked.spawn(|ticked| {
            ticked.hub.tick(&KEY);
            ticked.log.commit(Step::End);
        });
        assert!(ticked.wait());
        join([committer]);
    });
}

//! Attempts: who may begin one, what it counts as, and what a failed one makes of the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_actor::domain::{
    AttemptFailed, AttemptFailure, AttemptStarted, Command, Decision, Fence, LeaseFence, LeaseOwnerIdentity,
    LeaseRelease, LeaseRow, Limits, MaterializedTerminal, ParentEndRule, ProcessAttempts, ProcessAwaitOutput,
    ProcessEvent, ProcessEventSemantics, ProcessFailureClass, ProcessId, ProcessLease, ProcessParent,
    ProcessRegistration, ProcessStarted, ProcessState, ProcessStatus, RecoveryDisposition, Refusal, RetryPolicy,
    Sequence, TerminalAuthority, UnfencedWrites, WriteAuthority, apply,
};
use serde_json::{Value, json};

use crate::world::*;

const POLICY: RetryPolicy = RetryPolicy { max_attempts: 3, initial_backoff_ms: 100, max_backoff_ms: 150 };

fn disposed(disposition: RecoveryDisposition) -> World {
    World::of(ProcessRegistration { disposition, ..registration() })
}

fn retrying(policy: RetryPolicy) -> World {
    World::of(registration().with_retry(policy))
}

fn failure() -> AttemptFailure {
    AttemptFailure { class: ProcessFailureClass::External, code: "c".to_owned(), message: "m".to_owned() }
}

fn outcome() -> ProcessAwaitOutput {
    ProcessAwaitOutput::failure(ProcessFailureClass::External, "c", "m")
}

fn first_start(sequence: u64, name: &str) -> ProcessEvent {
    ProcessEvent {
        replay_key: Some(key("process:p:first_started")),
        ..event(sequence, "process.first_started", json!({"owner": owner(name), "started_at_ms": 77}))
    }
}

fn start(sequence: u64, attempt: u32, name: &str, fence: u64) -> ProcessEvent {
    let payload = json!({
        "attempt": attempt, "owner": owner(name), "fencing_token": fence, "started_at_ms": 77
    });
    event(sequence, "process.attempt_started", payload)
}

fn failed(sequence: u64, attempt: u32, retry_at_ms: u64) -> ProcessEvent {
    let failure = json!({"class": "external", "code": "c", "message": "m"});
    let payload = json!({"attempt": attempt, "failure": failure, "retry_at_ms": retry_at_ms});
    event(sequence, "process.attempt_failed", payload)
}

/// The failure as the outcome of the process.
fn ended(sequence: u64, name: &str, fence: u64) -> ProcessEvent {
    let authority = TerminalAuthority::Holder { owner: owner(name), fencing_token: Fence(fence) };
    let terminal = MaterializedTerminal { state: outcome().terminal_state(), await_output: outcome(), authority };
    ProcessEvent {
        replay_key: Some(key("process:p:terminal:process.failed")),
        semantics: ProcessEventSemantics { terminal: Some(Box::new(terminal)), wake: None },
        ..event(
            sequence,
            "process.failed",
            json!({"await_output": {"type": "failure", "class": "external", "code": "c", "message": "m"}}),
        )
    }
}

/// The lease is given up with what these events say.
fn releasing(decision: Decision, revision: u64, fence: u64) -> Decision {
    Decision { lease: Some(LeaseRow { revision, fence: Fence(fence), holder: None, displaced: None }), ..decision }
}

/// Claims for as long as nobody turns the clock, and begins.
fn begun(world: &mut World, name: &str) -> ProcessLease {
    let lease = world.claim(&owner(name), 100);
    world.run(begin_attempt(&owner(name), &lease.fence()));
    lease
}

fn begin(name: &str, lease: &ProcessLease) -> Command {
    begin_attempt(&owner(name), &lease.fence())
}

fn fail(lease: &ProcessLease) -> Command {
    fail_attempt(&failure(), &lease.fence())
}

fn attempt(number: u32, name: &str, fence: u64) -> AttemptStarted {
    AttemptStarted { attempt: number, owner: owner(name), fencing_token: Fence(fence), started_at_ms: 77 }
}

fn already_started(owner: LeaseOwnerIdentity) -> Refusal {
    Refusal::AlreadyStarted { process_id: id(), owner: Box::new(owner) }
}

// Beginning.

#[test]
fn the_first_attempt_begins_the_execution_in_the_same_decision() {
    for disposition in [RecoveryDisposition::Rerunnable, RecoveryDisposition::OwnerBound] {
        let mut world = disposed(disposition);
        assert!(world.record().attempts.is_empty());
        let lease = world.claim(&owner("a"), 100);
        assert_eq!(world.run(begin("a", &lease)), inserts([first_start(1, "a"), start(2, 1, "a", 1)]), "{disposition}");
        let record = world.record();
        assert_eq!(record.first_started.as_deref(), Some(&ProcessStarted { owner: owner("a"), started_at_ms: 77 }));
        let expected = ProcessAttempts { begun: 1, latest: Some(attempt(1, "a", 1).into()), failure: None };
        assert_eq!(record.attempts, expected);
        assert_eq!(world.state.body_sequence, Sequence(2));
        assert_eq!(world.row().holder, Some(lease), "it keeps its lease");
    }
}

/// A worker that got no answer sends again, and a worker that renewed or claimed its own lease again is in the attempt
/// that it is in.
#[test]
fn one_acquisition_of_the_lease_begins_one_attempt() {
    for disposition in [RecoveryDisposition::Rerunnable, RecoveryDisposition::OwnerBound] {
        let mut world = disposed(disposition);
        let lease = begun(&mut world, "a");
        assert_eq!(world.decide_again(&begin("a", &lease)), Ok(Decision::default()));
        world.advance(3);
        assert_eq!(world.run(begin("a", &lease)), Decision::default(), "{disposition}");
        world.run(renew(&lease, 100));
        assert_eq!(world.run(begin("a", &lease)), Decision::default(), "renewed");
        let same = world.claim(&owner("a"), 1_000);
        assert_eq!(world.run(begin("a", &same)), Decision::default(), "claimed by who holds it");
        world.reopen();
        assert_eq!(world.run(begin("a", &lease)), Decision::default(), "after a restart");
        assert_eq!(world.record().attempts.begun, 1);
    }
}

#[test]
fn another_acquisition_begins_another_attempt_and_not_another_execution() {
    let mut world = World::registered();
    let first = begun(&mut world, "a");
    world.advance(100);
    world.context.epoch_ms = EPOCH;
    let second = world.claim(&owner("a"), 100);
    assert_ne!(first.fencing_token, second.fencing_token);
    assert_eq!(world.run(begin("a", &second)), inserts([start(3, 2, "a", 2)]), "by the same owner, even");
    world.run(release(&second));
    let third = world.claim(&owner("b"), 100);
    assert_eq!(world.run(begin("b", &third)), inserts([start(4, 3, "b", 3)]));
    let record = world.record();
    assert_eq!(record.first_started.as_ref().map(|first| &first.owner), Some(&owner("a")));
    let expected = ProcessAttempts { begun: 3, latest: Some(attempt(3, "b", 3).into()), failure: None };
    assert_eq!(record.attempts, expected);
}

#[test]
fn an_attempt_after_a_recorded_start_does_not_record_it_again() {
    let mut world = World::registered();
    world.run(first_started(&owner("host"), WriteAuthority::Unfenced));
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(world.run(begin("a", &lease)), inserts([start(2, 1, "a", 1)]));
    assert_eq!(world.record().first_started.as_ref().map(|first| &first.owner), Some(&owner("host")));
}

/// Who started it is what the caller says, once; whose attempt it is, is what the store knows.
#[test]
fn an_attempt_is_that_of_the_holder_whoever_is_said_to_have_started() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(world.run(begin("host", &lease)), inserts([first_start(1, "host"), start(2, 1, "a", 1)]));
}

#[test]
fn delay_does_not_end_the_right_to_begin() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 0);
    assert_eq!(world.run(begin("a", &lease)), inserts([first_start(1, "a"), start(2, 1, "a", 1)]));
}

#[test]
fn only_the_holder_begins() {
    let mut world = World::registered();
    assert_eq!(world.refusal(begin("a", &lease(&owner("a"), 1, 1, 1))), lease_lost(), "nobody holds it");
    let old = world.claim(&owner("a"), 100);
    let forged = LeaseFence { fencing_token: Fence(2), ..old.fence() };
    assert_eq!(world.refusal(begin_attempt(&owner("a"), &forged)), lease_lost());
    let stolen = LeaseFence { lease_token: token(99), ..old.fence() };
    assert_eq!(world.refusal(begin_attempt(&owner("a"), &stolen)), lease_lost());
    world.advance(100);
    let new = world.claim(&owner("b"), 100);
    world.context.unfenced_writes = UnfencedWrites::Allowed;
    assert_eq!(world.refusal(begin("a", &old)), lease_lost(), "displaced");
    world.run(release(&new));
    assert_eq!(world.refusal(begin("b", &new)), lease_lost(), "released");
    assert!(world.record().attempts.is_empty() && world.record().first_started.is_none());
}

/// The old holder asks again after it began, and must not read a no-op as leave to go on.
#[test]
fn a_holder_that_began_and_lost_its_lease_is_not_told_that_it_goes_on() {
    let mut world = World::registered();
    let old = begun(&mut world, "a");
    world.advance(100);
    world.claim(&owner("b"), 100);
    assert_eq!(world.refusal(begin("a", &old)), lease_lost());
}

#[test]
fn an_unknown_and_an_ended_process_are_not_attempted() {
    let nobodys = lease(&owner("a"), 1, 1, 1);
    assert_eq!(World::empty().refusal(begin("a", &nobodys)), unknown());
    assert_eq!(World::empty().refusal(fail(&nobodys)), unknown());

    let output = ProcessAwaitOutput::success(json!(1));
    for disposition in
        [RecoveryDisposition::Rerunnable, RecoveryDisposition::OwnerBound, RecoveryDisposition::ExternallyOwned]
    {
        let mut world = disposed(disposition);
        let lease = world.claim(&owner("a"), 100);
        world.run(complete_as(&lease.fence(), &output, LeaseRelease::Keep));
        assert_eq!(world.refusal(begin("a", &lease)), already_terminal(&output), "{disposition}");
        assert_eq!(world.refusal(fail(&lease)), already_terminal(&output), "{disposition}");
    }
    let mut world = retrying(POLICY);
    let lease = begun(&mut world, "a");
    world.run(complete_as(&lease.fence(), &output, LeaseRelease::Release));
    assert_eq!(world.refusal(begin("a", &lease)), already_terminal(&output), "the end comes before the lease");
    assert_eq!(world.refusal(fail(&lease)), already_terminal(&output));
}

#[test]
fn what_was_started_and_is_owner_bound_is_not_executed_again() {
    let mut world = disposed(RecoveryDisposition::OwnerBound);
    begun(&mut world, "a");
    world.advance(100);
    let next = world.claim(&owner("b"), 100);
    let refused = world.refusal(begin("b", &next));
    assert_eq!(refused, already_started(owner("a")));
    assert_eq!(
        refused.to_string(),
        "process `p` is owner-bound and was started by `a`: it is not executed again",
        "it names who did"
    );
    world.run(release(&next));
    let own = world.claim(&owner("a"), 100);
    assert_eq!(world.refusal(begin("a", &own)), already_started(owner("a")), "not by the same owner either");
    world.reopen();
    assert_eq!(world.refusal(begin("a", &own)), already_started(owner("a")));
}

/// A start that was recorded without an attempt is a start: whoever recorded it may be at work.
#[test]
fn a_recorded_start_binds_an_owner_bound_process_too() {
    let mut unfenced = disposed(RecoveryDisposition::OwnerBound);
    unfenced.run(first_started(&owner("host"), WriteAuthority::Unfenced));
    let lease = unfenced.claim(&owner("host"), 100);
    assert_eq!(unfenced.refusal(begin("host", &lease)), already_started(owner("host")));

    let mut fenced = disposed(RecoveryDisposition::OwnerBound);
    let lease = fenced.claim(&owner("a"), 100);
    fenced.run(first_started(&owner("a"), WriteAuthority::Holder(lease.fence())));
    assert_eq!(fenced.refusal(begin("a", &lease)), already_started(owner("a")), "under the same lease, even");
}

#[test]
fn what_is_owned_elsewhere_is_not_executed_here() {
    let mut world = disposed(RecoveryDisposition::ExternallyOwned);
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(world.refusal(begin("a", &lease)), Refusal::NotExecutedHere { process_id: id() });
    world.run(first_started(&owner("a"), WriteAuthority::Holder(lease.fence())));
    assert_eq!(world.refusal(begin("a", &lease)), Refusal::NotExecutedHere { process_id: id() });
    let stale = LeaseFence { fencing_token: Fence(9), ..lease.fence() };
    assert_eq!(world.refusal(begin_attempt(&owner("a"), &stale)), lease_lost(), "the lease comes first");
}

#[test]
fn attempts_whose_owner_died_count_until_they_are_used_up() {
    let mut world = retrying(POLICY);
    for number in 1..=POLICY.max_attempts {
        begun(&mut world, "a");
        assert_eq!(world.record().attempts.begun, number);
        world.advance(100);
    }
    let last = world.claim(&owner("a"), 100);
    let exhausted = Refusal::AttemptsExhausted { process_id: id(), max_attempts: 3 };
    assert_eq!(world.refusal(begin("a", &last)), exhausted);
    assert_eq!(exhausted.to_string(), "process `p` was attempted 3 times and declares no more attempts");
    assert_eq!(world.record().attempts.begun, 3);
    // Its holder may still say how it ended.
    world.context.epoch_ms = EPOCH;
    let sequence = world.state.sequence.0 + 1;
    assert_eq!(world.run(fail(&last)), releasing(inserts([ended(sequence, "a", 4)]), 5, 4));
}

/// The last attempt that there may be is in it, and asks again.
#[test]
fn who_is_in_the_last_attempt_is_not_told_that_none_is_left() {
    let mut world = retrying(RetryPolicy { max_attempts: 1, ..POLICY });
    let lease = begun(&mut world, "a");
    assert_eq!(world.run(begin("a", &lease)), Decision::default());
}

#[test]
fn without_a_policy_a_rerunnable_process_is_attempted_without_end() {
    let mut world = World::registered();
    for number in 1..=40 {
        begun(&mut world, "a");
        assert_eq!(world.record().attempts.begun, number);
        world.advance(100);
    }
}

#[test]
fn names_of_the_owner_of_a_first_attempt_are_checked() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    let blank = LeaseOwnerIdentity { owner_id: " ".to_owned(), ..owner("a") };
    let refusal = world.refusal(begin_attempt(&blank, &lease.fence()));
    assert_eq!(refusal, Refusal::EmptyName { what: "owner id".into() });
    assert!(world.record().attempts.is_empty(), "nothing of a refused decision is there");
}

// Failing.

#[test]
fn a_failed_attempt_is_recorded_and_gives_the_lease_up_in_the_same_decision() {
    let mut world = retrying(POLICY);
    let lease = begun(&mut world, "a");
    let decision = world.run(fail(&lease));
    assert_eq!(decision, releasing(inserts([failed(3, 1, EPOCH + 100)]), 2, 1));
    let record = world.record();
    assert!(!record.status.is_terminal());
    let pending = AttemptFailed { attempt: 1, failure: failure(), retry_at_ms: EPOCH + 100, fencing_token: None };
    assert_eq!(record.attempts.pending_retry(), Some(&pending));
    assert_eq!(record.attempts.begun, 1);
    assert_eq!(world.state.body_sequence, Sequence(3));
    assert_eq!(world.row().holder, None);
    world.reopen();
    assert_eq!(world.record().attempts.pending_retry(), Some(&pending), "after a restart too");
}

#[test]
fn the_wait_for_the_next_attempt_doubles_up_to_its_limit_and_the_next_attempt_ends_it() {
    let mut world = retrying(RetryPolicy { max_attempts: 4, ..POLICY });
    let mut waits = Vec::new();
    for number in 1..=3 {
        let lease = begun(&mut world, "a");
        assert_eq!(world.record().attempts.pending_retry(), None, "the failure before is not this attempt's");
        world.advance(7);
        let now = world.context.epoch_ms;
        world.run(fail(&lease));
        let pending = world.record().attempts.pending_retry().expect("it waits").clone();
        assert_eq!(pending.attempt, number);
        waits.push(pending.retry_at_ms - now);
    }
    assert_eq!(waits, [100, 150, 150]);
    let lease = begun(&mut world, "a");
    let failure = world.record().attempts.failure.clone().expect("the latest failure is kept");
    assert_eq!(failure.attempt, 3);
    world.context.epoch_ms = EPOCH;
    let sequence = world.state.sequence.0 + 1;
    let decision = world.run(fail(&lease));
    assert_eq!(decision, releasing(inserts([ended(sequence, "a", 4)]), 8, 4), "the last one ends the process");
    assert_eq!(*world.record().status, ProcessStatus::terminal(outcome().terminal_state(), outcome()));
    assert_eq!(world.record().attempts.pending_retry(), None);
}

#[test]
fn times_of_the_next_attempt_do_not_overflow() {
    let mut world = retrying(RetryPolicy { max_attempts: 2, initial_backoff_ms: u64::MAX, max_backoff_ms: u64::MAX });
    let lease = begun(&mut world, "a");
    world.run(fail(&lease));
    assert_eq!(world.record().attempts.pending_retry().map(|pending| pending.retry_at_ms), Some(u64::MAX));
}

#[test]
fn without_another_attempt_the_failure_is_the_outcome() {
    for mut world in [
        disposed(RecoveryDisposition::Rerunnable),
        disposed(RecoveryDisposition::OwnerBound),
        retrying(RetryPolicy { max_attempts: 1, ..POLICY }),
    ] {
        let lease = begun(&mut world, "a");
        let decision = world.run(fail(&lease));
        assert_eq!(decision, releasing(inserts([ended(3, "a", 1)]), 2, 1));
        assert_eq!(*world.record().status, ProcessStatus::terminal(outcome().terminal_state(), outcome()));
        assert_eq!(world.record().attempts.failure, None, "it is in the outcome");
        // Sent again because the answer was lost.
        let stored = world.log[3].clone();
        assert_eq!(world.run(fail(&lease)), replays(&stored));
        world.reopen();
        assert_eq!(world.run(fail(&lease)), replays(&stored));
        let other = AttemptFailure::execution("c", "other");
        assert_eq!(world.refusal(fail_attempt(&other, &lease.fence())), already_terminal(&outcome()));
    }
}

/// The answer to a failure was lost with the lease: the worker that asked again was told that somebody had taken its
/// lease away, although all that it asked for had been done.
#[test]
fn the_same_failure_again_is_told_that_it_stands() {
    let mut world = retrying(POLICY);
    let lease = begun(&mut world, "a");
    world.run(fail(&lease));
    assert_eq!(world.decide_again(&fail(&lease)), Ok(Decision::default()));
    world.advance(5);
    assert_eq!(world.run(fail(&lease)), Decision::default(), "the next attempt is not put off");
    let other = AttemptFailure { message: "other".to_owned(), ..failure() };
    assert_eq!(world.refusal(fail_attempt(&other, &lease.fence())), lease_lost(), "another failure is another matter");
    world.reopen();
    assert_eq!(world.run(fail(&lease)), Decision::default(), "after a restart too");

    let next = world.claim(&owner("b"), 100);
    let row = world.row();
    assert_eq!(world.run(fail(&lease)), Decision::default(), "and while another holds the lease, who keeps it");
    assert_eq!(world.row(), row);
    let none = Refusal::NoAttemptBegun { process_id: id() };
    assert_eq!(
        world.refusal(fail(&next)),
        none,
        "who failed at nothing is not told so, although the failure is the same"
    );
    world.run(begin("b", &next));
    assert_eq!(world.refusal(fail(&lease)), lease_lost(), "but not once the next attempt has begun");
}

#[test]
fn only_the_holder_fails() {
    for mut world in [World::registered(), retrying(POLICY)] {
        let old = begun(&mut world, "a");
        let forged = LeaseFence { lease_token: token(99), ..old.fence() };
        assert_eq!(world.refusal(fail_attempt(&failure(), &forged)), lease_lost());
        let forged = LeaseFence { fencing_token: Fence(2), ..old.fence() };
        assert_eq!(world.refusal(fail_attempt(&failure(), &forged)), lease_lost());
        world.advance(100);
        assert!(world.decide(&fail(&old)).is_ok(), "delay does not end the right");
        let new = world.claim(&owner("b"), 100);
        world.context.unfenced_writes = UnfencedWrites::Allowed;
        assert_eq!(world.refusal(fail(&old)), lease_lost(), "displaced");
        world.run(release(&new));
        assert_eq!(world.refusal(fail(&new)), lease_lost(), "released");
        assert!(!world.record().status.is_terminal() && world.record().attempts.failure.is_none());
    }
}

/// A holder that failed before it began would fail for ever: no attempt would be used up by it, and the one that another
/// holder had begun would be told to have failed twice.
#[test]
fn a_holder_that_began_nothing_has_no_attempt_to_fail() {
    let none = Refusal::NoAttemptBegun { process_id: id() };
    let mut world = retrying(POLICY);
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(world.refusal(fail(&lease)), none, "nobody began");
    world.run(begin("a", &lease));
    world.advance(100);
    let next = world.claim(&owner("b"), 100);
    assert_eq!(world.refusal(fail(&next)), none, "another began");
    assert!(world.record().attempts.failure.is_none());
    assert_eq!(none.to_string(), "process `p` has no attempt that was begun under this lease and could fail");

    // Where no attempt follows it is an outcome, and every holder may write one.
    let mut world = disposed(RecoveryDisposition::ExternallyOwned);
    let lease = world.claim(&owner("a"), 100);
    assert_eq!(world.run(fail(&lease)), releasing(inserts([ended(1, "a", 1)]), 2, 1));
}

/// A machine slept longer than the lease lasts. The run took its lease up again and failed, and was told that it had begun no
/// attempt: its failure was lost, and the next attempt did not wait for the backoff.
#[test]
fn an_attempt_outlasts_the_lease_that_it_was_begun_under() {
    let mut world = retrying(POLICY);
    begun(&mut world, "a");
    world.advance(100);
    let again = world.claim(&owner("a"), 100);
    assert_eq!(again.fencing_token, Fence(2), "under a new fence");
    let other_life = LeaseOwnerIdentity { incarnation_id: "next".to_owned(), ..owner("a") };
    let mut displaced = world.clone();
    displaced.advance(100);
    let of_other_life = displaced.claim(&other_life, 100);
    assert_eq!(displaced.refusal(fail(&of_other_life)), Refusal::NoAttemptBegun { process_id: id() });

    world.run(fail(&again));
    let failed = world.record().attempts.failure.clone().expect("a failure");
    assert_eq!((failed.attempt, &failed.failure), (1, &failure()));
    assert!(world.record().attempts.pending_retry().is_some(), "the next attempt waits");
    assert_eq!(world.run(fail(&again)), Decision::default(), "the same again is told that it stands");
    let third = world.claim(&owner("a"), 100);
    assert_eq!(world.refusal(fail(&third)), Refusal::NoAttemptBegun { process_id: id() }, "it has failed already");
}

/// A failure that was taken of one attempt and refused of the last one would leave the process without an end.
#[test]
fn a_failure_is_as_large_as_an_outcome_may_be_whichever_attempt_it_is_of() {
    let around = AttemptFailure::execution("c", "").to_await_output().to_event_payload().to_string().len();
    let of_size = |bytes: usize| AttemptFailure::execution("c", "x".repeat(bytes - around));
    for mut world in [World::registered(), retrying(POLICY)] {
        let lease = begun(&mut world, "a");
        assert_eq!(
            world.refusal(fail_attempt(&of_size(Limits::PAYLOAD_BYTES + 1), &lease.fence())),
            too_large("payload", Limits::PAYLOAD_BYTES, Limits::PAYLOAD_BYTES + 1)
        );
        assert_eq!(world.row().holder.as_ref(), Some(&lease), "a refused failure gives nothing up");
        world.run(fail_attempt(&of_size(Limits::PAYLOAD_BYTES), &lease.fence()));
    }
}

/// Code and message are text for others, as in an outcome: neither is a name of the registry.
#[test]
fn code_and_message_of_a_failure_are_any_text() {
    for mut world in [World::registered(), retrying(POLICY)] {
        let lease = begun(&mut world, "a");
        world.run(fail_attempt(&AttemptFailure::execution("", "two\nlines \u{1b}[1m"), &lease.fence()));
    }
}

#[test]
fn a_failure_is_the_outcome_that_it_says() {
    let failure = AttemptFailure::execution("c", "m");
    let output = ProcessAwaitOutput::failure(ProcessFailureClass::Execution, "c", "m");
    assert_eq!(failure.to_await_output(), output);
}

/// Only a damaged log holds such events; what was known before stays known.
#[test]
fn what_cannot_be_read_of_an_attempt_changes_nothing() {
    let mut world = retrying(POLICY);
    let lease = begun(&mut world, "a");
    world.run(fail(&lease));
    for event_type in ["process.attempt_started", "process.attempt_failed"] {
        let damaged = apply(world.state.clone(), &Arc::new(event(4, event_type, json!({"attempt": "two"}))));
        assert_eq!(damaged.record.expect("registered").attempts, world.record().attempts, "{event_type}");
        assert_eq!((damaged.sequence, damaged.body_sequence), (Sequence(4), Sequence(3)));
    }
}

/// A record that had a failure and no attempt was stored without the failure, and read back as another.
#[test]
fn whatever_is_known_of_attempts_is_stored() {
    let failure = AttemptFailed { attempt: 0, failure: failure(), retry_at_ms: 1, fencing_token: None };
    assert!(!ProcessAttempts { failure: Some(Arc::new(failure)), ..ProcessAttempts::default() }.is_empty());
    let latest = Some(Arc::new(attempt(0, "a", 1)));
    assert!(!ProcessAttempts { latest, ..ProcessAttempts::default() }.is_empty());
    assert!(!ProcessAttempts { begun: 1, ..ProcessAttempts::default() }.is_empty());
    assert!(ProcessAttempts::default().is_empty());
}

// Registrations.

fn invalid(reason: &str) -> Refusal {
    Refusal::InvalidExecutionTerms { process_id: id(), reason: reason.to_owned() }
}

#[test]
fn terms_that_nobody_could_keep_are_refused() {
    let parent = |name: &str| ProcessParent {
        process_id: ProcessId::new(name).expect("an id"),
        on_end: ParentEndRule::RequestCancel,
    };
    let disposed = |disposition| ProcessRegistration { disposition, ..registration() };
    let cases = [
        (
            disposed(RecoveryDisposition::OwnerBound).with_retry(POLICY),
            "only a rerunnable process has a retry policy, this one is owner_bound",
        ),
        (
            disposed(RecoveryDisposition::ExternallyOwned).with_retry(POLICY),
            "only a rerunnable process has a retry policy, this one is externally_owned",
        ),
        (
            registration().with_retry(RetryPolicy { max_attempts: 0, ..POLICY }),
            "max_attempts must be at least 1, got 0",
        ),
        (
            registration().with_retry(RetryPolicy { max_backoff_ms: 99, ..POLICY }),
            "max_backoff_ms must be at least initial_backoff_ms, which is 100, got 99",
        ),
        (registration().with_deadline_ms(0), "deadline_ms must be at least 1, got 0"),
        (registration().with_parent(parent("p")), "a process cannot be its own parent"),
    ];
    for (registration, reason) in cases {
        let refusal = World::empty().refusal(register(registration));
        assert_eq!(refusal, invalid(reason));
        assert!(refusal.to_string().ends_with(reason), "{refusal}");
    }
    // What is just within.
    for registration in [
        registration().with_retry(RetryPolicy { max_attempts: 1, initial_backoff_ms: 0, max_backoff_ms: 0 }),
        registration().with_retry(RetryPolicy { max_backoff_ms: 100, ..POLICY }),
        registration().with_deadline_ms(1),
        registration().with_parent(parent("q")),
        disposed(RecoveryDisposition::OwnerBound).with_deadline_ms(u64::MAX).with_parent(parent("q")),
        disposed(RecoveryDisposition::ExternallyOwned).with_deadline_ms(7),
    ] {
        let mut world = World::of(registration.clone());
        assert_eq!(world.run(register(registration)), Decision::default(), "the same again");
    }
}

#[test]
fn a_deadline_counts_from_the_registration() {
    let mut world = World::of(registration().with_deadline_ms(40));
    world.advance(7);
    world.run(append(note(json!(1))));
    assert_eq!(world.record().deadline_at_ms(), Some(EPOCH + 40));
    let far = World::of(registration().with_deadline_ms(u64::MAX));
    assert_eq!(far.record().deadline_at_ms(), Some(u64::MAX));
    assert_eq!(World::registered().record().deadline_at_ms(), None);
}

#[test]
fn other_terms_are_another_registration() {
    let parent = |on_end| ProcessParent { process_id: ProcessId::new("q").expect("an id"), on_end };
    let offers = [
        registration(),
        registration().with_retry(POLICY),
        registration().with_retry(RetryPolicy { max_attempts: 4, ..POLICY }),
        registration().with_deadline_ms(1),
        registration().with_deadline_ms(2),
        registration().with_parent(parent(ParentEndRule::RequestCancel)),
        registration().with_parent(parent(ParentEndRule::LeaveAlone)),
    ];
    for (number, stored) in offers.iter().enumerate() {
        for (other, offered) in offers.iter().enumerate() {
            let decided = World::of(stored.clone()).decide(&register(offered.clone()));
            if number == other {
                assert_eq!(decided, Ok(Decision::default()));
            } else {
                assert!(matches!(decided, Err(Refusal::RegistrationConflict { .. })), "{number} and {other}");
            }
        }
    }
}

/// Terms are read strictly: one that is misspelled would silently not be kept.
#[test]
fn terms_are_read_strictly_and_a_parent_asks_its_children_to_stop_unless_it_says_otherwise() {
    let parent: ProcessParent = serde_json::from_value(json!({"process_id": "q"})).expect("a parent");
    assert_eq!(parent.on_end, ParentEndRule::RequestCancel);
    for wrong in [json!({"process_id": "q", "on_ends": "leave_alone"}), json!({"process_id": "q", "on_end": "stop"})] {
        assert!(serde_json::from_value::<ProcessParent>(wrong).is_err());
    }
    let policy = json!({"max_attempts": 1, "initial_backoff_ms": 1, "max_backoff_ms": 1});
    assert!(serde_json::from_value::<RetryPolicy>(policy.clone()).is_ok());
    for key in ["max_attempts", "initial_backoff_ms", "max_backoff_ms"] {
        let mut without = policy.clone();
        without.as_object_mut().expect("an object").remove(key);
        assert!(serde_json::from_value::<RetryPolicy>(without).is_err(), "{key} has no default");
    }
}

/// Stores of the first version hold registrations and their hashes: who offers one of them again is answered, and not
/// told that it conflicts with itself.
#[test]
fn a_registration_without_terms_has_the_hash_that_it_always_had() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/persisted/v1/record.json");
    let text = std::fs::read_to_string(path).expect("the stored records of the first version");
    let rows: BTreeMap<String, Value> = serde_json::from_str(&text).expect("rows");
    assert!(!rows.is_empty());
    for (name, row) in rows {
        let registration = &row["value"]["registration"];
        for key in ["retry", "deadline_ms", "parent"] {
            assert!(registration.get(key).is_none(), "{name}");
        }
        let registration: ProcessRegistration = serde_json::from_value(registration.clone()).expect("it reads");
        let mut world = World::empty();
        world.state = ProcessState::unregistered(registration.id.clone());
        let decision = world.decide(&register(registration)).expect("it is proper");
        let payload = &decision.events[0].payload;
        assert_eq!(payload["registration_hash"], row["value"]["registration_hash"], "{name}");
    }
}

//! What becomes of a process next: the laws over everything that can be known, and the cases one by one.

use std::sync::Arc;

use registry_actor::domain::{
    AbandonEvidence, AbandonRequest, AbandonWriter, AttemptFailed, AttemptFailure, AttemptStarted, Death, Fence,
    LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseSituation, NextStep, ParentEndRule, ParentSituation, ProcessAttempts,
    ProcessAwaitOutput, ProcessId, ProcessInput, ProcessLease, ProcessParent, ProcessRecord, ProcessRegistration,
    ProcessSituation, ProcessStarted, ProcessStatus, RecoveryDisposition, RetryPolicy, StoreSession, Verdict,
};
use serde_json::json;

const CREATED_MS: u64 = 1_000;
const NOW_MS: u64 = 10_000;
const RETRY: RetryPolicy = RetryPolicy { max_attempts: 3, initial_backoff_ms: 100, max_backoff_ms: 1_000 };

fn owner(name: &str) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        owner_id: name.to_owned(),
        incarnation_id: "1".to_owned(),
        liveness: LeaseOwnerLiveness::Opaque,
    }
}

fn id(name: &str) -> ProcessId {
    ProcessId::new(name).expect("an id")
}

fn held(death: Death) -> LeaseSituation {
    let lease = ProcessLease {
        schema_version: ProcessLease::SCHEMA_VERSION,
        process_id: id("p"),
        owner: owner("holder"),
        lease_token: registry_actor::domain::LeaseToken::new("lease:1").expect("a token"),
        fencing_token: Fence(1),
        claimed_at_epoch_ms: 1,
        expires_at_epoch_ms: NOW_MS + 700,
        granted_in: StoreSession { store_id: "s".into(), number: 1 },
        expires_at_monotonic_ms: 700,
    };
    LeaseSituation::Held { lease: Box::new(lease), remaining_ms: 700, death }
}

fn lapsed(death: Death) -> LeaseSituation {
    LeaseSituation::Lapsed { owner: owner("holder"), death }
}

fn record(disposition: RecoveryDisposition) -> ProcessRecord {
    let registration = ProcessRegistration::new(id("p"), ProcessInput::new("work", json!({})), disposition);
    ProcessRecord {
        registration_hash: serde_json::from_value(json!("v1:hash")).expect("a hash"),
        registration: Arc::new(registration),
        generation: 1,
        created_at_ms: CREATED_MS,
        updated_at_ms: CREATED_MS,
        terminal_at_ms: None,
        first_started: None,
        attempts: ProcessAttempts::default(),
        external_ref: None,
        abandon_request: None,
        wait: None,
        wake_target: None,
        status: Arc::new(ProcessStatus::Running),
    }
}

fn started(mut record: ProcessRecord, attempts: u32) -> ProcessRecord {
    record.first_started = Some(Arc::new(ProcessStarted { owner: owner("starter"), started_at_ms: 2 }));
    let latest =
        AttemptStarted { attempt: attempts, owner: owner("holder"), fencing_token: Fence(1), started_at_ms: 2 };
    record.attempts = ProcessAttempts { begun: attempts, latest: Some(Arc::new(latest)), failure: None };
    record
}

fn failed(mut record: ProcessRecord, retry_at_ms: u64) -> ProcessRecord {
    let failure = AttemptFailure::execution("exit", "exit 3");
    record.attempts.failure =
        Some(Arc::new(AttemptFailed { attempt: record.attempts.begun, failure, retry_at_ms, fencing_token: None }));
    record
}

fn registered(mut record: ProcessRecord, change: impl FnOnce(&mut ProcessRegistration)) -> ProcessRecord {
    change(Arc::make_mut(&mut record.registration));
    record
}

fn asked_to_abandon(mut record: ProcessRecord) -> ProcessRecord {
    let request = AbandonRequest { requested_by: "ops".to_owned(), requested_at_ms: 3, reason: None };
    record.abandon_request = Some(Arc::new(request));
    record
}

fn situation(record: &ProcessRecord) -> ProcessSituation<'_> {
    ProcessSituation {
        record,
        lease: LeaseSituation::Free,
        starter: Death::Unproved,
        cancel_requested: false,
        parent: ParentSituation::None,
        has_executor: true,
        now_epoch_ms: NOW_MS,
    }
}

fn step(record: &ProcessRecord, change: impl FnOnce(&mut ProcessSituation<'_>)) -> NextStep {
    let mut situation = situation(record);
    change(&mut situation);
    situation.next_step()
}

fn abandoned(writer: AbandonWriter, by: Option<&str>) -> NextStep {
    let evidence = AbandonEvidence { writer, owner: by.map(owner), epoch_ms: NOW_MS, detail: None };
    NextStep::Act(Verdict::Abandon { evidence })
}

const RUN: NextStep = NextStep::Act(Verdict::Run);

fn failure_code(step: &NextStep) -> Option<&str> {
    match step {
        NextStep::Act(Verdict::Fail { failure }) => Some(&failure.code),
        _ => None,
    }
}

use RecoveryDisposition::{ExternallyOwned, OwnerBound, Rerunnable};

#[test]
fn the_laws_hold_for_everything_that_can_be_known() {
    let mut seen = 0_u32;
    for disposition in [Rerunnable, OwnerBound, ExternallyOwned] {
        for lease in [
            LeaseSituation::Free,
            held(Death::Proved),
            held(Death::Unproved),
            lapsed(Death::Proved),
            lapsed(Death::Unproved),
        ] {
            for bits in 0_u32..1 << 9 {
                let bit = |number: u32| bits & (1 << number) != 0;
                let mut record = record(disposition);
                if bit(0) {
                    record = started(record, 1);
                }
                if bit(1) {
                    record = asked_to_abandon(record);
                }
                if bit(2) {
                    let passes_at = if bit(3) { NOW_MS - CREATED_MS } else { NOW_MS - CREATED_MS + 1 };
                    record = registered(record, |registration| registration.deadline_ms = Some(passes_at));
                }
                if bit(8) {
                    let parent = ProcessParent { process_id: id("parent"), on_end: ParentEndRule::RequestCancel };
                    record = registered(record, |registration| registration.parent = Some(parent));
                }
                let step = step(&record, |situation| {
                    situation.lease = lease.clone();
                    situation.starter = if bit(4) { Death::Proved } else { Death::Unproved };
                    situation.cancel_requested = bit(5);
                    situation.has_executor = bit(6);
                    situation.parent = if bit(7) { ParentSituation::Ended } else { ParentSituation::Running };
                });
                check(&record, &lease, bit, &step);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 3 * 5 * 512);
}

/// What has to be true of every step, said without the order in which it is found.
fn check(record: &ProcessRecord, lease: &LeaseSituation, bit: impl Fn(u32) -> bool, step: &NextStep) {
    let context = || format!("{step:?} of {record:?} under {lease:?}");
    let in_force = matches!(lease, LeaseSituation::Held { death: Death::Unproved, .. });
    let holder_dead = matches!(
        lease,
        LeaseSituation::Held { death: Death::Proved, .. } | LeaseSituation::Lapsed { death: Death::Proved, .. }
    );
    let disposition = record.registration.disposition;
    let bound = disposition == OwnerBound && record.first_started.is_some();
    let overdue = record.deadline_at_ms().is_some_and(|deadline| deadline <= NOW_MS);
    let (starter_dead, cancel, executor) = (bit(4), bit(5), bit(6));
    if in_force {
        assert!(matches!(step, NextStep::AwaitHolder { .. } | NextStep::AskToStop { .. }), "{}", context());
    }
    match step {
        NextStep::Act(Verdict::Run) => {
            assert!(executor && disposition != ExternallyOwned && !bound, "{}", context());
            assert!(record.abandon_request.is_none() && !overdue, "{}", context());
        }
        NextStep::Act(Verdict::Abandon { evidence }) => match evidence.writer {
            AbandonWriter::Sweep => assert!(bound && executor && (holder_dead || starter_dead), "{}", context()),
            AbandonWriter::ReconciledRequest => assert!(record.abandon_request.is_some(), "{}", context()),
            AbandonWriter::OwnerDrain => panic!("only an owner drains: {}", context()),
            _ => panic!("a writer that this test does not know: {}", context()),
        },
        NextStep::Act(Verdict::Fail { .. }) => assert!(overdue, "{}", context()),
        NextStep::Act(Verdict::Cancel) => assert!(cancel && record.first_started.is_none(), "{}", context()),
        NextStep::Stuck => {
            assert!(bound && !overdue && record.abandon_request.is_none() && !holder_dead, "{}", context());
        }
        NextStep::AwaitExternalOwner => assert_eq!(disposition, ExternallyOwned, "{}", context()),
        NextStep::AwaitExecutor => assert!(!executor, "{}", context()),
        NextStep::AskToStop { .. } => assert!(bit(8) && bit(7) && !cancel, "{}", context()),
        NextStep::AwaitHolder { .. } => assert!(in_force, "{}", context()),
        NextStep::AwaitRetry { .. } | NextStep::Ended => panic!("not in this test: {}", context()),
    }
}

#[test]
fn a_process_that_nobody_has_begun_is_run_by_whoever_can() {
    for disposition in [Rerunnable, OwnerBound] {
        let record = record(disposition);
        assert_eq!(step(&record, |_| {}), RUN);
        assert_eq!(step(&record, |situation| situation.lease = lapsed(Death::Unproved)), RUN);
        assert_eq!(step(&record, |situation| situation.lease = held(Death::Proved)), RUN);
        assert_eq!(step(&record, |situation| situation.has_executor = false), NextStep::AwaitExecutor);
        assert_eq!(step(&record, |situation| situation.cancel_requested = true), NextStep::Act(Verdict::Cancel));
    }
}

#[test]
fn a_lease_in_force_is_waited_for() {
    let waits = NextStep::AwaitHolder { owner: owner("holder"), remaining_ms: 700 };
    for disposition in [Rerunnable, OwnerBound, ExternallyOwned] {
        let record = asked_to_abandon(started(record(disposition), 1));
        assert_eq!(step(&record, |situation| situation.lease = held(Death::Unproved)), waits);
    }
}

#[test]
fn started_owner_bound_work_of_a_dead_holder_is_abandoned_in_its_name_request_or_not() {
    for record in [started(record(OwnerBound), 1), asked_to_abandon(started(record(OwnerBound), 1))] {
        for lease in [held(Death::Proved), lapsed(Death::Proved)] {
            let step = step(&record, |situation| situation.lease = lease);
            assert_eq!(step, abandoned(AbandonWriter::Sweep, Some("holder")));
        }
    }
}

#[test]
fn started_owner_bound_work_with_a_free_lease_is_abandoned_when_its_starter_is_dead() {
    let record = started(record(OwnerBound), 1);
    let dead = |situation: &mut ProcessSituation<'_>| situation.starter = Death::Proved;
    assert_eq!(step(&record, dead), abandoned(AbandonWriter::Sweep, Some("starter")));
    let unheard = step(&record, |situation| {
        dead(situation);
        situation.lease = lapsed(Death::Unproved);
    });
    assert_eq!(unheard, NextStep::Stuck, "a holder that may live is heard first");
    let another = step(&record, |situation| {
        dead(situation);
        situation.lease = LeaseSituation::Lapsed { owner: owner("another"), death: Death::Unproved };
    });
    let by_sweep = abandoned(AbandonWriter::Sweep, Some("starter"));
    assert_eq!(another, by_sweep, "one that took the lease and began nothing has nothing to say");
    let without_executor = step(&record, |situation| {
        dead(situation);
        situation.has_executor = false;
    });
    assert_eq!(without_executor, NextStep::AwaitExecutor, "nobody else can end what it left running");
}

#[test]
fn time_alone_ends_nothing_that_was_started_and_is_bound() {
    let record = started(record(OwnerBound), 1);
    assert_eq!(step(&record, |_| {}), NextStep::Stuck);
    assert_eq!(step(&record, |situation| situation.lease = lapsed(Death::Unproved)), NextStep::Stuck);
    assert_eq!(step(&record, |situation| situation.cancel_requested = true), NextStep::Stuck);
}

#[test]
fn an_abandon_request_counts_for_every_disposition_once_nobody_holds_it() {
    for (disposition, by) in [(Rerunnable, Some("starter")), (OwnerBound, Some("starter")), (ExternallyOwned, None)] {
        let record = asked_to_abandon(started(record(disposition), 1));
        for lease in [LeaseSituation::Free, lapsed(Death::Unproved)] {
            let step = step(&record, |situation| {
                situation.lease = lease;
                situation.has_executor = false;
            });
            assert_eq!(step, abandoned(AbandonWriter::ReconciledRequest, by));
        }
    }
    assert_eq!(step(&asked_to_abandon(record(Rerunnable)), |_| {}), abandoned(AbandonWriter::ReconciledRequest, None));
}

#[test]
fn a_deadline_that_has_passed_fails_whatever_nobody_holds() {
    for disposition in [Rerunnable, OwnerBound, ExternallyOwned] {
        for record in [record(disposition), started(record(disposition), 1)] {
            let record = registered(record, |registration| registration.deadline_ms = Some(NOW_MS - CREATED_MS));
            let at = step(&record, |situation| situation.has_executor = false);
            assert_eq!(failure_code(&at), Some("deadline_passed"), "{at:?}");
            let before = step(&record, |situation| situation.now_epoch_ms = NOW_MS - 1);
            assert_eq!(failure_code(&before), None, "{before:?}");
        }
    }
}

#[test]
fn the_next_attempt_waits_for_its_backoff_and_the_last_one_was_the_last() {
    let base = registered(record(Rerunnable), |registration| registration.retry = Some(RETRY));
    let waiting = failed(started(base.clone(), 1), NOW_MS + 40);
    assert_eq!(step(&waiting, |_| {}), NextStep::AwaitRetry { wait_ms: 40 });
    assert_eq!(step(&waiting, |situation| situation.now_epoch_ms = NOW_MS + 40), RUN);
    assert_eq!(
        step(&waiting, |situation| situation.cancel_requested = true),
        NextStep::Act(Verdict::Cancel),
        "nothing of it runs between two attempts"
    );
    // The owner of the second attempt died: its failure was never told, and the next one is due at once.
    let crashed =
        ProcessRecord { attempts: ProcessAttempts { begun: 2, ..waiting.attempts.clone() }, ..waiting.clone() };
    assert_eq!(step(&crashed, |_| {}), RUN);
    assert_eq!(
        step(&crashed, |situation| situation.cancel_requested = true),
        RUN,
        "its executor ends what the dead owner may have left"
    );
    let used_up = ProcessRecord { attempts: ProcessAttempts { begun: 3, ..waiting.attempts.clone() }, ..waiting };
    let last = step(&used_up, |_| {});
    assert_eq!(failure_code(&last), Some("attempts_exhausted"));
    assert!(format!("{last:?}").contains("exit 3"), "it tells the last failure: {last:?}");
    // Without a policy there is no limit.
    assert_eq!(step(&started(record(Rerunnable), 1_000), |_| {}), RUN);
}

#[test]
fn the_end_of_a_parent_asks_its_child_to_stop_whoever_holds_it() {
    let child = |on_end| {
        let parent = ProcessParent { process_id: id("parent"), on_end };
        registered(started(record(OwnerBound), 1), |registration| registration.parent = Some(parent))
    };
    for parent in [ParentSituation::Ended, ParentSituation::CancelRequested] {
        let asked = step(&child(ParentEndRule::RequestCancel), |situation| {
            situation.parent = parent;
            situation.lease = held(Death::Unproved);
        });
        assert_eq!(asked, NextStep::AskToStop { parent: id("parent") });
        let left = step(&child(ParentEndRule::LeaveAlone), |situation| situation.parent = parent);
        assert_eq!(left, NextStep::Stuck);
    }
    let running = step(&child(ParentEndRule::RequestCancel), |situation| situation.parent = ParentSituation::Running);
    assert_eq!(running, NextStep::Stuck);
}

#[test]
fn an_ended_process_has_no_next_step() {
    let mut ended = asked_to_abandon(record(Rerunnable));
    ended.status = Arc::new(ProcessStatus::Completed { await_output: ProcessAwaitOutput::success(json!(1)) });
    assert_eq!(step(&ended, |_| {}), NextStep::Ended);
}

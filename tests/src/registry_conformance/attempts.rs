//! Cases about attempts: what a process declares about its execution is kept by the store, whoever asks.

use std::sync::Arc;

use registry_actor::domain::{
    AttemptFailed, AttemptFailure, Fence, LeaseFence, LeaseOwnerIdentity, LeaseRelease, LeaseToken, ParentEndRule,
    ProcessAttempts, ProcessId, ProcessLease, ProcessParent, ProcessRecord, ProcessRegistration, ProcessStarted,
    RecoveryDisposition, Refusal, RetryPolicy,
};
use registry_actor::port::{Clock, ProcessRegistryExt};

use super::example::*;
use super::stage::{FoldChecked, Stage, assert_unknown, refusal};

const POLICY: RetryPolicy = RetryPolicy { max_attempts: 3, initial_backoff_ms: 1_000, max_backoff_ms: 1_500 };

fn lost(id: &ProcessId) -> Refusal {
    Refusal::LeaseLost { process_id: id.clone() }
}

fn started(owner: &LeaseOwnerIdentity) -> ProcessStarted {
    ProcessStarted { owner: owner.clone(), started_at_ms: 1 }
}

fn failure() -> AttemptFailure {
    AttemptFailure::execution("broke", "it broke")
}

async fn retrying(registry: &FoldChecked, id: &str) -> ProcessId {
    let id = process_id(id);
    registry.register_process(registration(&id).with_retry(POLICY)).await.expect("a registration");
    id
}

async fn record(registry: &FoldChecked, id: &ProcessId) -> Arc<ProcessRecord> {
    registry.get_process(id).await.expect("a read").expect("a record")
}

/// Takes the lease and begins.
async fn begun(registry: &FoldChecked, id: &ProcessId, name: &str) -> ProcessLease {
    let lease = claimed(registry, id, opaque_owner(name), MINUTE_MS).await;
    registry.begin_process_attempt(id, started(&lease.owner), lease.fence()).await.expect("an attempt");
    lease
}

/// The types of its events, the registration apart.
async fn types(registry: &FoldChecked, id: &ProcessId) -> Vec<String> {
    let events = registry.recent_events(id, 20).await.expect("events");
    events.iter().map(|event| event.event_type.to_string()).collect()
}

/// Nobody executes twice what is bound to its owner: neither the next holder, nor the owner itself, nor a later host.
pub async fn started_owner_bound_work_is_not_attempted_again_whoever_asks(stage: &mut Stage) {
    let bound = process_id("bound");
    let by_hand = process_id("started by hand");
    let refused = |owner: &str, id: &ProcessId| Refusal::AlreadyStarted {
        process_id: id.clone(),
        owner: Box::new(opaque_owner(owner)),
    };
    {
        let registry = &stage.registry;
        for id in [&bound, &by_hand] {
            registry.register_process(disposed(id, RecoveryDisposition::OwnerBound)).await.expect("a registration");
        }
        let first = begun(registry, &bound, "a").await;
        let again = registry.begin_process_attempt(&bound, started(&first.owner), first.fence()).await;
        assert_eq!(again.expect("it is in its attempt").attempts.begun, 1);
        registry.record_first_started(&by_hand, started(&opaque_owner("host"))).await.expect("a start");
        stage.clock.advance_ms(MINUTE_MS);
        for name in ["b", "a"] {
            let next = claimed(registry, &bound, opaque_owner(name), MINUTE_MS).await;
            let asked = registry.begin_process_attempt(&bound, started(&next.owner), next.fence()).await;
            assert_eq!(refusal(asked), refused("a", &bound), "{name}");
            registry.complete_process_lease(&next).await.expect("a release");
        }
        let next = claimed(registry, &by_hand, opaque_owner("host"), MINUTE_MS).await;
        let asked = registry.begin_process_attempt(&by_hand, started(&next.owner), next.fence()).await;
        assert_eq!(refusal(asked), refused("host", &by_hand), "a start that was recorded binds as well");
    }
    stage.reopen().await;
    let registry = &stage.registry;
    let next = claimed(registry, &bound, opaque_owner("c"), MINUTE_MS).await;
    let asked = registry.begin_process_attempt(&bound, started(&next.owner), next.fence()).await;
    assert_eq!(refusal(asked), refused("a", &bound), "after a restart");
    assert_eq!(types(registry, &bound).await, ["process.first_started", "process.attempt_started"]);
}

/// What is owned elsewhere, unknown or ended is not attempted at all.
pub async fn what_is_not_to_be_executed_here_is_not_attempted(stage: &mut Stage) {
    let registry = &stage.registry;
    let external = process_id("external");
    registry.register_process(disposed(&external, RecoveryDisposition::ExternallyOwned)).await.expect("a registration");
    let lease = claimed(registry, &external, opaque_owner("a"), MINUTE_MS).await;
    let asked = registry.begin_process_attempt(&external, started(&lease.owner), lease.fence()).await;
    assert_eq!(refusal(asked), Refusal::NotExecutedHere { process_id: external.clone() });
    assert_eq!(record(registry, &external).await.first_started, None);

    let unknown = process_id("unknown");
    assert_unknown(registry.begin_process_attempt(&unknown, started(&lease.owner), lease.fence()).await, &unknown);
    assert_unknown(registry.fail_process_attempt(&unknown, failure(), lease.fence()).await, &unknown);

    let ended = retrying(registry, "ended").await;
    let lease = begun(registry, &ended, "a").await;
    registry.complete_process_fenced(&ended, success(1), lease.fence(), LeaseRelease::Keep).await.expect("an outcome");
    let begin = registry.begin_process_attempt(&ended, started(&lease.owner), lease.fence()).await;
    assert!(matches!(refusal(begin), Refusal::AlreadyTerminal { .. }));
    let fail = registry.fail_process_attempt(&ended, failure(), lease.fence()).await;
    assert!(matches!(refusal(fail), Refusal::AlreadyTerminal { .. }));
}

/// One acquisition of the lease makes one attempt; the count is in the log and not with whoever counts.
pub async fn attempts_are_counted_once_for_each_acquisition_and_across_restarts(stage: &mut Stage) {
    let id = registered(&stage.registry, "p").await;
    for number in 1..=3 {
        {
            let registry = &stage.registry;
            let lease = begun(registry, &id, "a").await;
            for _ in 0..2 {
                let again = registry.begin_process_attempt(&id, started(&lease.owner), lease.fence()).await;
                assert_eq!(again.expect("the same attempt").attempts.begun, number);
            }
            let renewed = registry.renew_process_lease(lease.clone(), MINUTE_MS).await.expect("a renewal");
            let same = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
            for fence in [renewed.fence(), same.fence()] {
                let again = registry.begin_process_attempt(&id, started(&lease.owner), fence).await;
                assert_eq!(again.expect("the same acquisition").attempts.begun, number);
            }
        }
        stage.reopen().await;
        let stored = record(&stage.registry, &id).await;
        assert_eq!(stored.attempts.begun, number, "it survives the host");
        let latest = stored.attempts.latest.as_ref().expect("an attempt");
        assert_eq!((latest.attempt, latest.fencing_token), (number, Fence(u64::from(number))));
        assert_eq!((&latest.owner, latest.started_at_ms), (&opaque_owner("a"), 1));
        stage.clock.advance_ms(MINUTE_MS);
    }
    let started = "process.attempt_started";
    assert_eq!(types(&stage.registry, &id).await, ["process.first_started", started, started, started]);
}

/// The failure, the end of the lease and the time of the next attempt are one; the last failure is the outcome.
pub async fn a_failed_attempt_gives_its_lease_up_and_the_last_one_ends_the_process(stage: &mut Stage) {
    let id = retrying(&stage.registry, "p").await;
    for (number, backoff_ms) in [(1, 1_000), (2, 1_500)] {
        let expected = {
            let registry = &stage.registry;
            let lease = begun(registry, &id, "a").await;
            assert_eq!(record(registry, &id).await.attempts.pending_retry(), None, "it runs");
            stage.clock.advance_ms(7);
            let retry_at_ms = stage.clock.now().epoch_ms + backoff_ms;
            let expected = AttemptFailed { attempt: number, failure: failure(), retry_at_ms, fencing_token: None };
            let answered = registry.fail_process_attempt(&id, failure(), lease.fence()).await.expect("a failure");
            assert_eq!(answered.attempts.pending_retry(), Some(&expected));
            assert!(!answered.status.is_terminal());
            assert_eq!(registry.get_process_lease(&id).await.expect("a read"), None, "in the same step");
            stage.clock.advance_ms(7);
            let again = registry.fail_process_attempt(&id, failure(), lease.fence()).await.expect("it stands");
            assert_eq!(again.attempts.pending_retry(), Some(&expected), "sent again it puts nothing off");
            expected
        };
        stage.reopen().await;
        assert_eq!(record(&stage.registry, &id).await.attempts.pending_retry(), Some(&expected));
    }
    let registry = &stage.registry;
    let lease = begun(registry, &id, "b").await;
    let ended = registry.fail_process_attempt(&id, failure(), lease.fence()).await.expect("the last failure");
    assert_eq!(ended.status.await_output(), Some(&failure().to_await_output()));
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), None);
    let again = registry.fail_process_attempt(&id, failure(), lease.fence()).await.expect("the same outcome");
    assert_eq!(again, ended);
    let (started, failed) = ("process.attempt_started", "process.attempt_failed");
    let expected = ["process.first_started", started, failed, started, failed, started, "process.failed"];
    assert_eq!(types(registry, &id).await, expected);

    // Who declares no further attempt has one.
    let once = registered(registry, "once").await;
    let lease = begun(registry, &once, "a").await;
    let ended = registry.fail_process_attempt(&once, failure(), lease.fence()).await.expect("a failure");
    assert_eq!(ended.status.await_output(), Some(&failure().to_await_output()));
    assert_eq!(ended.attempts.failure, None);
}

/// Attempts whose owner died are used up as well, and then nobody begins another.
pub async fn attempts_are_used_up_by_owners_that_died(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = retrying(registry, "p").await;
    for _ in 0..POLICY.max_attempts {
        begun(registry, &id, "a").await;
        stage.clock.advance_ms(MINUTE_MS);
    }
    let last = claimed(registry, &id, opaque_owner("b"), MINUTE_MS).await;
    let asked = registry.begin_process_attempt(&id, started(&last.owner), last.fence()).await;
    assert_eq!(refusal(asked), Refusal::AttemptsExhausted { process_id: id.clone(), max_attempts: 3 });
    let ended = registry.fail_process_attempt(&id, failure(), last.fence()).await.expect("its holder ends it");
    assert_eq!(ended.status.await_output(), Some(&failure().to_await_output()));
    assert_eq!(ended.attempts.begun, 3);
}

/// Whoever lost the lease neither begins nor fails, and whoever began nothing has nothing that could fail.
pub async fn a_stale_fence_neither_begins_nor_fails_an_attempt(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = retrying(registry, "p").await;
    let old = begun(registry, &id, "a").await;
    stage.clock.advance_ms(MINUTE_MS);
    let new = claimed(registry, &id, opaque_owner("b"), MINUTE_MS).await;
    let forged = |fence: LeaseFence| {
        let lease_token = LeaseToken::new("forged").expect("a token");
        [LeaseFence { lease_token, ..fence.clone() }, LeaseFence { fencing_token: Fence(9), ..fence }]
    };
    let none = Refusal::NoAttemptBegun { process_id: id.clone() };
    assert_eq!(refusal(registry.fail_process_attempt(&id, failure(), new.fence()).await), none);
    for fence in [vec![old.fence()], forged(old.fence()).into(), forged(new.fence()).into()].concat() {
        let begin = registry.begin_process_attempt(&id, started(&old.owner), fence.clone()).await;
        assert_eq!(refusal(begin), lost(&id), "{fence:?}");
        assert_eq!(refusal(registry.fail_process_attempt(&id, failure(), fence).await), lost(&id));
    }
    let stored = record(registry, &id).await;
    assert_eq!((stored.attempts.begun, &stored.attempts.failure), (1, &None));
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), Some(new.clone()), "it keeps its lease");
    registry.complete_process_lease(&new).await.expect("a release");
    let begin = registry.begin_process_attempt(&id, started(&new.owner), new.fence()).await;
    assert_eq!(refusal(begin), lost(&id), "released");
}

/// Terms are part of what was registered, and terms that nobody could keep are refused.
pub async fn terms_of_execution_are_validated_and_kept(stage: &mut Stage) {
    let parent = |name: &str| ProcessParent { process_id: process_id(name), on_end: ParentEndRule::LeaveAlone };
    let id = process_id("p");
    let full = registration(&id).with_retry(POLICY).with_deadline_ms(70).with_parent(parent("never registered"));
    let created_at_ms = {
        let registry = &stage.registry;
        let bound = disposed(&id, RecoveryDisposition::OwnerBound);
        for wrong in [
            bound.with_retry(POLICY),
            registration(&id).with_retry(RetryPolicy { max_attempts: 0, ..POLICY }),
            registration(&id).with_retry(RetryPolicy { max_backoff_ms: 999, ..POLICY }),
            registration(&id).with_deadline_ms(0),
            registration(&id).with_parent(parent("p")),
        ] {
            let refused = refusal(registry.register_process(wrong).await);
            assert!(matches!(refused, Refusal::InvalidExecutionTerms { .. }), "{refused:?}");
        }
        assert_eq!(registry.get_process(&id).await.expect("a read"), None);
        registry.register_process(full.clone()).await.expect("a registration").created_at_ms
    };
    stage.reopen().await;
    let registry = &stage.registry;
    let stored = record(registry, &id).await;
    let ProcessRegistration { retry, deadline_ms, parent, .. } = stored.registration.as_ref().clone();
    assert_eq!((retry, deadline_ms, &parent), (Some(POLICY), Some(70), &full.parent));
    assert_eq!(stored.deadline_at_ms(), Some(created_at_ms + 70));
    assert_eq!(stored.attempts, ProcessAttempts::default());
    registry.register_process(full.clone()).await.expect("the same again");
    let other = registry.register_process(full.with_deadline_ms(71)).await;
    assert!(matches!(refusal(other), Refusal::RegistrationConflict { .. }));
}

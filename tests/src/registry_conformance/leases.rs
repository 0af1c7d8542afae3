//! Cases about leases: 23–28, and W3–W5, W27, W28, W30, W31, W34.

use registry_actor::domain::{
    AbandonRequest, Fence, LeaseFence, LeaseOwnerIdentity, LeaseRelease, LeaseToken, ProcessId, ProcessLease,
    ProcessLeaseClaimOutcome, ProcessSignal, ProcessStarted, RecoveryDisposition, Refusal, Sequence, TerminalAuthority,
    WaitState,
};
use registry_actor::port::ProcessRegistryExt;

use super::example::*;
use super::stage::{FoldChecked, Stage, assert_unknown, refusal};

async fn busy(registry: &FoldChecked, id: &ProcessId, owner: LeaseOwnerIdentity) -> ProcessLease {
    match registry.claim_process_lease(id, owner, MINUTE_MS).await.expect("an answer") {
        ProcessLeaseClaimOutcome::Busy { holder } => holder,
        other @ ProcessLeaseClaimOutcome::Acquired { .. } => panic!("expected a busy lease, got {other:?}"),
    }
}

fn lost(id: &ProcessId) -> Refusal {
    Refusal::LeaseLost { process_id: id.clone() }
}

/// 23.
pub async fn c23_active_process_lease_fences_competing_owner(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let lease = claimed(registry, &id, opaque_owner("a"), 1_000).await;
    assert_eq!(lease.fencing_token, Fence(1));
    assert_eq!(busy(registry, &id, opaque_owner("b")).await, lease, "the answer names the holder");
    let mut other_life = opaque_owner("a");
    other_life.incarnation_id = "2".into();
    assert_eq!(busy(registry, &id, other_life).await, lease);
    stage.clock.advance_ms(10);
    let again = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    assert_eq!((&again.lease_token, again.fencing_token), (&lease.lease_token, lease.fencing_token));
    assert_eq!(again.claimed_at_epoch_ms, lease.claimed_at_epoch_ms);
    assert!(again.expires_at_epoch_ms > lease.expires_at_epoch_ms);
}

/// 24.
pub async fn c24_superseded_process_lease_cannot_renew(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let expired = claimed(registry, &id, opaque_owner("a"), 0).await;
    let successor = claimed(registry, &id, opaque_owner("b"), MINUTE_MS).await;
    let refused = refusal(registry.renew_process_lease(expired.clone(), MINUTE_MS).await);
    assert_eq!(refused, lost(&id));
    assert!(refused.to_string().contains("missing or expired"), "{refused}");
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), Some(successor.clone()));

    // Nobody took it, and yet it is over.
    stage.clock.advance_ms(MINUTE_MS);
    assert_eq!(refusal(registry.renew_process_lease(successor.clone(), 1).await), lost(&id));
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), Some(successor), "shown though expired");
    let unknown = process_id("unknown");
    let elsewhere = ProcessLease { process_id: unknown.clone(), ..expired };
    assert_eq!(refusal(registry.renew_process_lease(elsewhere, 1).await), lost(&unknown));
}

/// Case 25. The clock is turned instead of waited for.
pub async fn c25_renewed_process_lease_survives_original_expiry(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let lease = claimed(registry, &id, opaque_owner("a"), 20).await;
    stage.clock.advance_ms(19);
    let renewed = registry.renew_process_lease(lease.clone(), MINUTE_MS).await.expect("a renewal");
    assert_eq!(renewed.fence(), lease.fence());
    assert_eq!(renewed.claimed_at_epoch_ms, lease.claimed_at_epoch_ms);
    stage.clock.advance_ms(11);
    assert_eq!(busy(registry, &id, opaque_owner("b")).await, renewed);
    registry.renew_process_lease(renewed, MINUTE_MS).await.expect("still in force");

    let short = registered(registry, "short").await;
    let lease = claimed(registry, &short, opaque_owner("a"), 20).await;
    stage.clock.advance_ms(20);
    assert_eq!(refusal(registry.renew_process_lease(lease, MINUTE_MS).await), lost(&short), "the end is exclusive");
}

/// 26.
pub async fn c26_completed_lease_releases_and_reclaim_bumps_fencing(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let first = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    registry.complete_process_lease(&first).await.expect("a release");
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), None);
    let second = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    assert!(second.fencing_token > first.fencing_token);
    assert_ne!(second.lease_token, first.lease_token);
    // The same owner, and yet an acquisition that is over does not prolong the one that stands.
    assert_eq!(refusal(registry.renew_process_lease(first, 5 * MINUTE_MS).await), lost(&id));
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), Some(second));
}

/// 27.
pub async fn c27_stale_lease_completion_cannot_release_live_lease(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let stale = claimed(registry, &id, opaque_owner("a"), 20).await;
    stage.clock.advance_ms(20);
    let live = claimed(registry, &id, opaque_owner("b"), MINUTE_MS).await;
    registry.complete_process_lease(&stale).await.expect("no error");
    assert_eq!(busy(registry, &id, opaque_owner("c")).await, live);
    registry.renew_process_lease(live.clone(), MINUTE_MS).await.expect("a renewal");
    registry.complete_process_lease(&live).await.expect("a release");
    registry.complete_process_lease(&live).await.expect("repeated: no error");
    let unknown = ProcessLease { process_id: process_id("unknown"), ..live };
    registry.complete_process_lease(&unknown).await.expect("unknown: no error");
}

/// 28, with W27: without a PID namespace nothing is proved.
pub async fn c28_process_lease_reclaim_contract(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let dead = claimed(registry, &id, dead_owner("dead"), MINUTE_MS).await;
    let claimant = |name: &str| local_owner(name, "1");
    assert_eq!(busy(registry, &id, claimant("b")).await, dead, "a claim never reclaims by itself");

    let reclaim = |owner: LeaseOwnerIdentity, observed: ProcessLease| {
        registry.reclaim_process_lease(&id, owner, observed, MINUTE_MS)
    };
    let elsewhere = on_another_machine(claimant("b"));
    let in_a_container = in_namespace(claimant("b"), |inode| Some(inode ^ 1));
    let unproved = in_namespace(claimant("b"), |_| None);
    for stranger in [elsewhere, in_a_container, unproved, opaque_owner("b")] {
        let answer = reclaim(stranger, dead.clone()).await.expect("an answer");
        assert_eq!(answer, ProcessLeaseClaimOutcome::Busy { holder: dead.clone() });
    }
    let other_token = ProcessLease { lease_token: LeaseToken::new("other").expect("a token"), ..dead.clone() };
    let other_fence = ProcessLease { fencing_token: Fence(9), ..dead.clone() };
    let other_process = ProcessLease { process_id: process_id("q"), ..dead.clone() };
    for not_the_observed in [other_token, other_fence, other_process] {
        let answer = reclaim(claimant("b"), not_the_observed).await.expect("an answer");
        assert_eq!(answer, ProcessLeaseClaimOutcome::Busy { holder: dead.clone() });
    }

    let (left, right) = tokio::join!(reclaim(claimant("b"), dead.clone()), reclaim(claimant("c"), dead.clone()));
    let answers = [left.expect("an answer"), right.expect("an answer")];
    let won: Vec<_> = answers.iter().filter_map(|answer| answer.clone().acquired()).collect();
    let [winner] = &won[..] else { panic!("exactly one wins, got {answers:?}") };
    assert_eq!(winner.fencing_token, dead.fencing_token.next());
    assert_eq!(busy(registry, &id, opaque_owner("d")).await, *winner);
    let again = reclaim(claimant("d"), dead.clone()).await.expect("an answer");
    assert_eq!(again, ProcessLeaseClaimOutcome::Busy { holder: winner.clone() }, "the observed holder is stale");

    // Two in one container, seen by a registry outside of it: to it the pid is somebody else's, or nobody's.
    let contained = registered(registry, "contained").await;
    let inside = |owner| in_namespace(owner, |inode| Some(inode ^ 1));
    let holder = claimed(registry, &contained, inside(dead_owner("a")), MINUTE_MS).await;
    let answer = registry.reclaim_process_lease(&contained, inside(claimant("b")), holder.clone(), 1).await;
    assert_eq!(answer.expect("an answer"), ProcessLeaseClaimOutcome::Busy { holder });

    let silent = registered(registry, "silent").await;
    let opaque = claimed(registry, &silent, opaque_owner("a"), 20).await;
    let answer = registry.reclaim_process_lease(&silent, claimant("b"), opaque.clone(), 1).await.expect("an answer");
    assert_eq!(answer, ProcessLeaseClaimOutcome::Busy { holder: opaque.clone() });
    stage.clock.advance_ms(20);
    let answer = registry.reclaim_process_lease(&silent, claimant("b"), opaque.clone(), 1).await.expect("an answer");
    assert_eq!(answer.acquired().expect("expired: like a claim").fencing_token, opaque.fencing_token.next());
}

/// W3: the right to write the outcome is checked in the transaction that writes it, and whoever writes without one is
/// refused while another's lease is in force.
pub async fn w03_an_outcome_is_fenced_and_an_unfenced_one_is_refused_while_leased(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let stale = claimed(registry, &id, opaque_owner("a"), 20).await;
    stage.clock.advance_ms(20);
    let lease = claimed(registry, &id, opaque_owner("b"), MINUTE_MS).await;
    let refused = registry.complete_process_fenced(&id, success(1), stale.fence(), LeaseRelease::Release).await;
    assert_eq!(refusal(refused), lost(&id), "displaced");
    let forged = LeaseFence { fencing_token: Fence(9), ..lease.fence() };
    let refused = registry.complete_process_fenced(&id, success(1), forged, LeaseRelease::Release).await;
    assert_eq!(refusal(refused), lost(&id));
    let held = refusal(registry.complete_process(&id, success(1)).await);
    assert_eq!(held, Refusal::LeaseHeld { process_id: id.clone(), holder: Box::new(lease.clone()) });
    let append = keyed("process.completed", success(1).to_event_payload(), "own key");
    assert!(matches!(refusal(registry.append_event(&id, append).await), Refusal::LeaseHeld { .. }), "nor by an append");
    assert_eq!(refusal(registry.append_events_fenced(&id, vec![note(1)], stale.fence()).await), lost(&id));
    registry.append_event(&id, note(1)).await.expect("events that end nothing need no lease");
    registry.append_events_fenced(&id, vec![note(2)], lease.fence()).await.expect("the holder");

    // Delay does not end the right, displacement does.
    stage.clock.advance_ms(MINUTE_MS);
    let record = registry.complete_process_fenced(&id, success(1), lease.fence(), LeaseRelease::Keep).await;
    assert!(record.expect("the holder").status.is_terminal());
    let last = registry.recent_events(&id, 1).await.expect("events");
    let terminal = last[0].semantics.terminal.as_ref().expect("a terminal");
    assert_eq!(
        terminal.authority,
        TerminalAuthority::Holder { owner: lease.owner.clone(), fencing_token: lease.fencing_token }
    );

    let free = completed(registry, "free").await;
    let last = registry.recent_events(&free, 1).await.expect("events");
    assert_eq!(last[0].semantics.terminal.as_ref().expect("a terminal").authority, TerminalAuthority::Unfenced);
}

/// W4: so is the first start, which an ended process does not take.
pub async fn w04_a_first_start_is_fenced_and_refused_on_ended_processes(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let lease = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    let started = |name: &str| ProcessStarted { owner: opaque_owner(name), started_at_ms: 1 };
    let refused = refusal(registry.record_first_started(&id, started("b")).await);
    assert!(matches!(refused, Refusal::LeaseHeld { .. }), "{refused:?}");
    let forged = LeaseFence { fencing_token: Fence(9), ..lease.fence() };
    assert_eq!(refusal(registry.record_first_started_fenced(&id, started("b"), forged).await), lost(&id));
    registry.record_first_started_fenced(&id, started("a"), lease.fence()).await.expect("the holder");

    let ended = completed(registry, "ended").await;
    let refused = refusal(registry.record_first_started(&ended, started("a")).await);
    assert!(matches!(refused, Refusal::AlreadyTerminal { .. }), "{refused:?}");
    assert_eq!(registry.get_process(&ended).await.expect("a read").expect("a record").first_started, None);

    let go = ProcessSignal::new("go").expect("a signal");
    let wait = WaitState::signal(&id, &go, 1, 1);
    let forged = LeaseFence { fencing_token: Fence(9), ..lease.fence() };
    assert_eq!(refusal(registry.set_process_wait_fenced(&id, wait.clone(), forged.clone()).await), lost(&id));
    registry.set_process_wait_fenced(&id, wait, lease.fence()).await.expect("the holder");
    assert_eq!(refusal(registry.clear_process_wait_fenced(&id, forged).await), lost(&id));
    let cleared = registry.clear_process_wait_fenced(&id, lease.fence()).await.expect("the holder");
    assert_eq!(cleared.wait, None);
}

/// W5: whoever takes an expired lease learns whose right it ended.
pub async fn w05_a_claim_returns_the_holder_that_it_displaces(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let first = claimed(registry, &id, dead_owner("dead"), 20).await;
    stage.clock.advance_ms(20);
    let answer = registry.claim_process_lease(&id, opaque_owner("b"), MINUTE_MS).await.expect("an answer");
    let ProcessLeaseClaimOutcome::Acquired { lease, displaced } = answer else { panic!("expired, got {answer:?}") };
    assert_eq!(displaced.as_deref(), Some(&first));
    registry.complete_process_lease(&lease).await.expect("a release");
    let answer = registry.claim_process_lease(&id, opaque_owner("c"), MINUTE_MS).await.expect("an answer");
    let ProcessLeaseClaimOutcome::Acquired { displaced, .. } = answer else { panic!("released, got {answer:?}") };
    assert_eq!(displaced, None, "who released was not displaced");
}

/// W28: time is the clock that was handed in, and within a session a jump of the wall clock moves no lease.
pub async fn w28_leases_and_events_take_their_time_from_the_injected_clock(stage: &mut Stage) {
    use registry_actor::port::Clock;

    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let now = stage.clock.now();
    let lease = claimed(registry, &id, opaque_owner("a"), 1_000).await;
    assert_eq!(lease.claimed_at_epoch_ms, now.epoch_ms);
    assert_eq!(lease.expires_at_epoch_ms, now.epoch_ms + 1_000);
    stage.clock.set_epoch_ms(now.epoch_ms + 10 * MINUTE_MS);
    assert_eq!(busy(registry, &id, opaque_owner("b")).await, lease, "forth");
    let event = registry.append_event(&id, note(1)).await.expect("an append").events[0].event().clone();
    assert_eq!(event.occurred_at_ms, now.epoch_ms + 10 * MINUTE_MS);
    stage.clock.set_epoch_ms(now.epoch_ms - MINUTE_MS);
    stage.clock.advance_ms(999);
    assert_eq!(busy(registry, &id, opaque_owner("b")).await, lease, "back");
    stage.clock.advance_ms(1);
    claimed(registry, &id, opaque_owner("b"), 1_000).await;

    let forever = registered(registry, "forever").await;
    let lease = claimed(registry, &forever, opaque_owner("a"), u64::MAX).await;
    assert_eq!(lease.expires_at_epoch_ms, u64::MAX, "saturates");
}

/// W30: outcome and release are one transaction, and a refused outcome releases nothing.
pub async fn w30_an_outcome_and_its_release_are_one(stage: &mut Stage) {
    let registry = &stage.registry;
    let id = registered(registry, "p").await;
    let lease = claimed(registry, &id, opaque_owner("a"), MINUTE_MS).await;
    let forged = LeaseFence { fencing_token: Fence(9), ..lease.fence() };
    let refused = registry.complete_process_fenced(&id, success(1), forged, LeaseRelease::Release).await;
    assert_eq!(refusal(refused), lost(&id));
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), Some(lease.clone()));
    registry.complete_process_fenced(&id, success(1), lease.fence(), LeaseRelease::Release).await.expect("an outcome");
    assert_eq!(registry.get_process_lease(&id).await.expect("a read"), None);
    let again = registry.complete_process_fenced(&id, success(1), lease.fence(), LeaseRelease::Release).await;
    assert!(again.expect("the same outcome again").status.is_terminal());

    let kept = registered(registry, "kept").await;
    let lease = claimed(registry, &kept, opaque_owner("a"), MINUTE_MS).await;
    registry.complete_process_fenced(&kept, success(1), lease.fence(), LeaseRelease::Keep).await.expect("an outcome");
    assert_eq!(registry.get_process_lease(&kept).await.expect("a read"), Some(lease.clone()));
    registry.complete_process_lease(&lease).await.expect("a release");
    assert_eq!(registry.get_process_lease(&kept).await.expect("a read"), None);
}

/// W31, and the claim of W23: an ended or an unknown process has no lease to give.
pub async fn w31_ended_and_unknown_processes_are_not_claimed(stage: &mut Stage) {
    let registry = &stage.registry;
    let ended = completed(registry, "ended").await;
    let unknown = process_id("unknown");
    let lease = claimed(registry, &registered(registry, "other").await, dead_owner("a"), MINUTE_MS).await;
    let observed = ProcessLease { process_id: ended.clone(), ..lease };
    let claim = registry.claim_process_lease(&ended, opaque_owner("a"), MINUTE_MS).await;
    assert!(matches!(refusal(claim), Refusal::AlreadyTerminal { .. }));
    let reclaim = registry.reclaim_process_lease(&ended, opaque_owner("a"), observed.clone(), MINUTE_MS).await;
    assert!(matches!(refusal(reclaim), Refusal::AlreadyTerminal { .. }));
    assert_unknown(registry.claim_process_lease(&unknown, opaque_owner("a"), MINUTE_MS).await, &unknown);
    assert_unknown(registry.reclaim_process_lease(&unknown, opaque_owner("a"), observed, MINUTE_MS).await, &unknown);
    assert_eq!(registry.get_process_lease(&ended).await.expect("a read"), None);
}

/// W34, the registry's part: a request is taken for every disposition, started or not, leased or not, and it is there
/// when a later claimant looks.
pub async fn w34_an_abandon_request_is_kept_for_every_disposition(stage: &mut Stage) {
    use registry_actor::domain::Command;
    use registry_actor::port::ProcessRegistry;

    let registry = &stage.registry;
    let request = AbandonRequest { requested_by: "host".into(), requested_at_ms: 1, reason: None };
    for disposition in
        [RecoveryDisposition::Rerunnable, RecoveryDisposition::OwnerBound, RecoveryDisposition::ExternallyOwned]
    {
        let id = process_id(disposition.label());
        registry.register_process(disposed(&id, disposition)).await.expect("a registration");
        claimed(registry, &id, opaque_owner("a"), 20).await;
        registry.request_process_abandon(&id, request.clone()).await.expect("taken while leased");
        stage.clock.advance_ms(20);
        // A claim answers the record as it was claimed (W10), so that nothing has to be read again.
        let command = Command::ClaimLease { owner: opaque_owner("b"), ttl_ms: MINUTE_MS };
        let receipt = registry.execute(&id, command).await.expect("lapsed");
        let record = receipt.record.expect("the record as it was claimed");
        assert_eq!(record.abandon_request.as_deref(), Some(&request));
        assert!(!record.status.is_terminal());
        let last = registry.recent_events(&id, 1).await.expect("events");
        assert_eq!((&*last[0].event_type, last[0].sequence), ("process.abandon_requested", Sequence(1)));
    }
}

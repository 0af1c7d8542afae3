//! Claims, renewals and releases, on both clocks.

use registry_actor::domain::{Decision, Fence, LeaseFence, LeaseRow, ProcessAwaitOutput, ProcessLease};
use serde_json::json;

use crate::world::*;

fn row(revision: u64, fence: u64, holder: Option<&ProcessLease>, displaced: Option<&ProcessLease>) -> LeaseRow {
    LeaseRow { revision, fence: Fence(fence), holder: holder.cloned(), displaced: displaced.cloned().map(Box::new) }
}

/// The lease as it stands after a renewal of so many ms, so long after the start of the test.
fn renewed(lease: &ProcessLease, after: u64, ttl_ms: u64) -> ProcessLease {
    ProcessLease {
        expires_at_epoch_ms: EPOCH + after + ttl_ms,
        expires_at_monotonic_ms: MONOTONIC + after + ttl_ms,
        ..lease.clone()
    }
}

#[test]
fn a_free_lease_is_acquired_with_the_first_fence() {
    let mut world = World::registered();
    let expected = lease(&owner("a"), 2, 1, 100);
    assert_eq!(world.run(claim(&owner("a"), 100)), grants(row(1, 1, Some(&expected), None), None));
    assert_eq!(world.log.len(), 1, "a lease is no event");
}

#[test]
fn a_lease_in_force_makes_another_claimant_wait() {
    let mut world = World::registered();
    let holder = world.claim(&owner("a"), 100);
    assert_eq!(world.run(claim(&owner("b"), 100)), busy(&holder));
    world.advance(99);
    assert_eq!(world.run(claim(&owner("b"), 100)), busy(&holder), "to the last ms");
}

#[test]
fn the_same_incarnation_enters_again_with_its_token_and_fence() {
    let mut world = World::registered();
    let first = world.claim(&owner("a"), 100);
    world.advance(10);
    let again = renewed(&first, 10, 500);
    assert_eq!(world.run(claim(&owner("a"), 500)), grants(row(2, 1, Some(&again), None), None));
    let shorter = renewed(&first, 10, 5);
    assert_eq!(world.run(claim(&owner("a"), 5)), grants(row(3, 1, Some(&shorter), None), None), "it may shorten");
    let mut next_life = owner("a");
    next_life.incarnation_id = "2".into();
    assert_eq!(world.run(claim(&next_life, 100)), busy(&shorter), "another life of the owner is another owner");
}

#[test]
fn a_lease_that_expired_is_taken_and_its_holder_is_named() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    let new = ProcessLease { claimed_at_epoch_ms: EPOCH + 100, ..renewed(&lease(&owner("b"), 3, 2, 0), 100, 50) };
    assert_eq!(world.run(claim(&owner("b"), 50)), grants(row(2, 2, Some(&new), Some(&old)), Some(&old)));
}

#[test]
fn an_expired_incarnation_that_claims_again_gets_a_new_fence() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    let new = ProcessLease { claimed_at_epoch_ms: EPOCH + 100, ..renewed(&lease(&owner("a"), 3, 2, 0), 100, 50) };
    assert_eq!(world.run(claim(&owner("a"), 50)), grants(row(2, 2, Some(&new), Some(&old)), Some(&old)));
}

#[test]
fn a_lease_of_no_duration_has_expired_when_it_is_granted() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 0);
    let new = lease(&owner("b"), 3, 2, 100);
    assert_eq!(world.run(claim(&owner("b"), 100)), grants(row(2, 2, Some(&new), Some(&old)), Some(&old)));
    assert_eq!(world.refusal(renew(&old, 100)), lease_lost());
}

#[test]
fn a_ttl_beyond_time_saturates() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), u64::MAX);
    assert_eq!((lease.expires_at_epoch_ms, lease.expires_at_monotonic_ms), (u64::MAX, u64::MAX));
    world.context.monotonic_ms = u64::MAX - 1;
    assert_eq!(world.run(claim(&owner("b"), 1)), busy(&lease));
}

/// A handle that got no answer sends its claim again: to the next incarnation of the actor, which knows no more than the
/// row. It must not be told that it is busy with itself, and the evidence of the dead holder must not be lost.
#[test]
fn a_claim_that_is_sent_again_finds_its_lease_and_the_displaced_holder() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    let granted = world.run(claim(&owner("b"), 50));
    let again = world.decide_again(&claim(&owner("b"), 50));
    assert_eq!(again, Ok(Decision { lease: None, ..granted.clone() }), "the same answer, and nothing is done");
    world.advance(1_000);
    assert_eq!(world.decide_again(&claim(&owner("b"), 50)), Ok(Decision { lease: None, ..granted }));
    let new = acquired(&world.run(claim(&owner("c"), 50)));
    assert_eq!(
        world.state.lease.displaced.as_deref().map(|displaced| &displaced.owner),
        Some(&owner("b")),
        "the evidence is that of the latest displacement"
    );
    assert_ne!(new.lease_token, old.lease_token);
}

#[test]
fn evidence_of_a_displaced_holder_outlives_renewals_and_ends_with_the_release() {
    let mut world = World::registered();
    let old = world.claim(&owner("a"), 100);
    world.advance(100);
    let new = world.claim(&owner("b"), 50);
    let prolonged = renewed(&new, 100, 60);
    assert_eq!(
        world.run(renew(&new, 60)),
        grants(row(3, 2, Some(&prolonged), Some(&old)), None),
        "the row keeps it, the renewal displaced nobody"
    );
    world.run(claim(&owner("b"), 60));
    assert_eq!(world.state.lease.displaced.as_deref(), Some(&old));
    world.run(release(&new));
    assert_eq!(world.row(), row(5, 2, None, None));
}

#[test]
fn a_renewal_prolongs_and_keeps_token_fence_and_begin() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.advance(60);
    let prolonged = renewed(&lease, 60, 100);
    assert_eq!(world.run(renew(&lease, 100)), grants(row(2, 1, Some(&prolonged), None), None));
    world.advance(60);
    assert_eq!(world.run(claim(&owner("b"), 1)), busy(&prolonged), "it survives its first expiry");
    let again = renewed(&lease, 120, 100);
    assert_eq!(
        world.run(renew(&lease, 100)),
        grants(row(3, 1, Some(&again), None), None),
        "the holder may renew by the lease as it was granted"
    );
}

#[test]
fn only_the_lease_in_force_can_be_renewed() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    let refused = |world: &mut World, lease: &ProcessLease| {
        let refusal = world.refusal(renew(lease, 100));
        assert_eq!(refusal, lease_lost());
        assert!(refusal.to_string().contains("missing or expired"), "{refusal}");
    };
    refused(&mut world, &ProcessLease { lease_token: token(99), ..lease.clone() });
    refused(&mut world, &ProcessLease { fencing_token: Fence(2), ..lease.clone() });
    refused(&mut world, &ProcessLease { owner: owner("b"), ..lease.clone() });
    world.advance(100);
    refused(&mut world, &lease);
    let new = world.claim(&owner("b"), 100);
    refused(&mut world, &lease);
    world.run(release(&new));
    refused(&mut world, &new);
    refused(&mut World::registered(), &lease);
    refused(&mut World::empty(), &lease);
}

#[test]
fn a_release_ends_the_lease_and_keeps_the_fence() {
    let mut world = World::registered();
    let first = world.claim(&owner("a"), 100);
    let released = Decision { lease: Some(row(2, 1, None, None)), ..Decision::default() };
    assert_eq!(world.run(release(&first)), released);
    assert_eq!(world.run(release(&first)), Decision::default(), "a repeated one does nothing");
    let second = lease(&owner("b"), 5, 2, 100);
    assert_eq!(
        world.run(claim(&owner("b"), 100)),
        grants(row(3, 2, Some(&second), None), None),
        "nobody was displaced, and the fence grows"
    );
    assert_eq!(world.run(release(&first)), Decision::default(), "a stale one does nothing");
    assert_eq!(world.run(claim(&owner("c"), 100)), busy(&second));
    world.run(renew(&second, 100));
}

#[test]
fn an_expired_lease_can_still_be_released() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.advance(1_000);
    assert_eq!(world.run(release(&lease)), Decision { lease: Some(row(2, 1, None, None)), ..Decision::default() });
}

#[test]
fn a_release_of_what_nobody_holds_is_no_error() {
    let stale = lease(&owner("a"), 1, 1, 100);
    assert_eq!(World::registered().decide(&release(&stale)), Ok(Decision::default()));
    assert_eq!(World::empty().decide(&release(&stale)), Ok(Decision::default()));
}

#[test]
fn an_ended_process_is_not_claimed_but_its_lease_is_renewed_and_released() {
    let output = ProcessAwaitOutput::success(json!(1));
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.run(complete_as(&lease.fence(), &output, registry_actor::domain::LeaseRelease::Keep));
    assert_eq!(world.refusal(claim(&owner("a"), 100)), already_terminal(&output));
    assert_eq!(world.refusal(claim(&owner("b"), 100)), already_terminal(&output));
    world.run(renew(&lease, 100));
    world.run(release(&lease));
    assert_eq!(world.row(), row(3, 1, None, None));
}

#[test]
fn an_unregistered_process_is_not_claimed() {
    assert_eq!(World::empty().refusal(claim(&owner("a"), 100)), unknown());
}

#[test]
fn within_a_session_jumps_of_the_wall_clock_neither_end_nor_prolong_a_lease() {
    let mut forward = World::registered();
    let lease = forward.claim(&owner("a"), 100);
    forward.context.epoch_ms += 1_000_000;
    assert_eq!(forward.run(claim(&owner("b"), 1)), busy(&lease));
    assert_eq!(forward.refusal(complete(&ProcessAwaitOutput::success(json!(1)))), lease_held(&lease));
    forward.run(renew(&lease, 100));

    let mut back = World::registered();
    let lease = back.claim(&owner("a"), 100);
    back.context.epoch_ms -= 1_000;
    back.context.monotonic_ms += 100;
    assert_eq!(back.refusal(renew(&lease, 100)), lease_lost());
    let taken = acquired(&back.run(claim(&owner("b"), 1)));
    assert_eq!(taken.fencing_token, Fence(2));
}

/// The monotonic clock of one session says nothing in another: it may begin anew with each boot.
#[test]
fn across_sessions_the_wall_clock_decides() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.reopen();
    world.context.monotonic_ms = MONOTONIC + 1_000_000;
    world.context.epoch_ms = EPOCH + 99;
    assert_eq!(world.run(claim(&owner("b"), 1)), busy(&lease), "in force by the wall clock");
    world.context.monotonic_ms = 0;
    world.context.epoch_ms = EPOCH + 100;
    assert_eq!(acquired(&world.run(claim(&owner("b"), 1))).fencing_token, Fence(2), "expired by the wall clock");
}

#[test]
fn a_lease_that_is_renewed_in_a_later_session_follows_its_clock() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    world.reopen();
    let renewed = acquired(&world.run(renew(&lease, 100)));
    assert_eq!((renewed.granted_in.number, renewed.expires_at_monotonic_ms), (2, 110));
    world.context.epoch_ms += 1_000_000;
    assert_eq!(world.run(claim(&owner("b"), 1)), busy(&renewed));
    world.context.monotonic_ms = 110;
    assert_eq!(acquired(&world.run(claim(&owner("b"), 1))).fencing_token, Fence(2));
}

#[test]
fn a_fence_of_the_lease_fences_the_renewed_lease_too() {
    let mut world = World::registered();
    let lease = world.claim(&owner("a"), 100);
    let renewed = acquired(&world.run(renew(&lease, 500)));
    let fence = LeaseFence { lease_token: token(2), fencing_token: Fence(1) };
    assert_eq!((lease.fence(), renewed.fence()), (fence.clone(), fence));
}

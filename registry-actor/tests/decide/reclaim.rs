//! Reclaims: a lease in force is taken only from a holder that is dead beyond doubt.

use registry_actor::domain::{
    Decision, Fence, LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseRow, ObservedProcess, ProcessAwaitOutput, ProcessId,
    ProcessLease,
};
use serde_json::json;

use crate::world::*;

fn in_session(name: &str, number: u64) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity { liveness: LeaseOwnerLiveness::StoreSession { session: session(number) }, ..owner(name) }
}

fn in_process(name: &str, pid: u32) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        liveness: LeaseOwnerLiveness::LocalProcess {
            host_id: "host".into(),
            boot_id: "boot".into(),
            pid,
            process_start: "100".into(),
            pid_namespace: Some(4_026_531_836),
        },
        ..owner(name)
    }
}

/// What a reclaim by `new` in the world's present grants in the place of `old`.
fn taken(world: &World, old: &ProcessLease, new: &LeaseOwnerIdentity, ttl_ms: u64) -> Decision {
    let lease = ProcessLease {
        schema_version: 2,
        process_id: id(),
        owner: new.clone(),
        lease_token: token(world.context.operation.number),
        fencing_token: old.fencing_token.next(),
        claimed_at_epoch_ms: world.context.epoch_ms,
        expires_at_epoch_ms: world.context.epoch_ms + ttl_ms,
        granted_in: world.context.session.clone(),
        expires_at_monotonic_ms: world.context.monotonic_ms + ttl_ms,
    };
    let row = LeaseRow {
        revision: world.state.lease.revision + 1,
        fence: lease.fencing_token,
        holder: Some(lease),
        displaced: Some(Box::new(old.clone())),
    };
    grants(row, Some(old))
}

#[test]
fn the_host_of_an_earlier_session_is_dead() {
    let mut world = World::registered();
    let dead = world.claim(&in_session("a", 1), 1_000);
    assert_eq!(world.run(reclaim(&in_session("b", 1), &dead, 50)), busy(&dead), "not in its own session");
    world.reopen();
    let new = in_session("b", 2);
    assert_eq!(world.run(claim(&new, 50)), busy(&dead), "a claim alone never looks at proof");
    let decision = world.decide(&reclaim(&new, &dead, 50)).expect("accepted");
    assert_eq!(decision, taken(&world, &dead, &new, 50));
}

#[test]
fn a_later_session_of_another_store_proves_nothing() {
    let mut world = World::registered();
    let holder = world.claim(&in_session("a", 1), 1_000_000);
    world.context.session = registry_actor::domain::StoreSession { store_id: "other".into(), number: 2 };
    assert_eq!(world.run(reclaim(&owner("b"), &holder, 50)), busy(&holder));
}

#[test]
fn a_process_whose_pid_is_gone_or_reused_is_dead() {
    for observed in [ObservedProcess::Absent, ObservedProcess::Started("200".into())] {
        let mut world = World::registered();
        let dead = world.claim(&in_process("a", 7), 1_000);
        world.context.observed = observed;
        let new = in_process("b", 8);
        let decision = world.decide(&reclaim(&new, &dead, 50)).expect("accepted");
        assert_eq!(decision, taken(&world, &dead, &new, 50));
    }
    for observed in [ObservedProcess::Unknown, ObservedProcess::Started("100".into())] {
        let mut world = World::registered();
        let holder = world.claim(&in_process("a", 7), 1_000);
        world.context.observed = observed;
        assert_eq!(world.run(reclaim(&in_process("b", 8), &holder, 50)), busy(&holder));
    }
}

#[test]
fn an_opaque_holder_or_claimant_proves_nothing() {
    let mut world = World::registered();
    let opaque = world.claim(&owner("a"), 1_000);
    world.context.observed = ObservedProcess::Absent;
    assert_eq!(world.run(reclaim(&in_process("b", 8), &opaque, 50)), busy(&opaque));
    let mut world = World::registered();
    let process = world.claim(&in_process("a", 7), 1_000);
    world.context.observed = ObservedProcess::Absent;
    assert_eq!(world.run(reclaim(&owner("b"), &process, 50)), busy(&process));
}

#[test]
fn a_lease_that_is_not_the_observed_one_stays() {
    let mut world = World::registered();
    let dead = world.claim(&in_process("a", 7), 1_000);
    world.context.observed = ObservedProcess::Absent;
    let new = in_process("b", 8);
    let stale = [
        ProcessLease { lease_token: token(99), ..dead.clone() },
        ProcessLease { fencing_token: Fence(9), ..dead.clone() },
        ProcessLease { owner: in_process("c", 7), ..dead.clone() },
        ProcessLease { process_id: ProcessId::new("q").expect("an id"), ..dead.clone() },
    ];
    for observed in stale {
        assert_eq!(world.run(reclaim(&new, &observed, 50)), busy(&dead), "{observed:?}");
    }
}

#[test]
fn of_two_reclaims_with_one_observation_the_second_waits() {
    let mut world = World::registered();
    let dead = world.claim(&in_process("a", 7), 1_000);
    world.context.observed = ObservedProcess::Absent;
    let winner = acquired(&world.run(reclaim(&in_process("b", 8), &dead, 50)));
    assert_eq!(world.run(reclaim(&in_process("c", 9), &dead, 50)), busy(&winner));
}

#[test]
fn a_renewal_of_the_observed_lease_does_not_make_the_observation_stale() {
    let mut world = World::registered();
    let observed = world.claim(&in_process("a", 7), 1_000);
    let renewed = acquired(&world.run(renew(&observed, 2_000)));
    world.context.observed = ObservedProcess::Absent;
    let new = in_process("b", 8);
    let decision = world.decide(&reclaim(&new, &observed, 50)).expect("accepted");
    assert_eq!(decision, taken(&world, &renewed, &new, 50), "the displaced lease is the one in the row");
}

#[test]
fn a_reclaim_of_an_expired_or_free_lease_is_a_claim() {
    let mut expired = World::registered();
    let old = expired.claim(&owner("a"), 100);
    expired.advance(100);
    let decision = expired.decide(&reclaim(&owner("b"), &old, 50)).expect("accepted");
    assert_eq!(decision, taken(&expired, &old, &owner("b"), 50), "no proof is asked for");

    let mut free = World::registered();
    let first = lease(&owner("b"), 2, 1, 50);
    let row = LeaseRow { revision: 1, fence: Fence(1), holder: Some(first), displaced: None };
    assert_eq!(free.run(reclaim(&owner("b"), &old, 50)), grants(row, None));
}

#[test]
fn the_holder_itself_gains_nothing_by_a_reclaim() {
    let mut world = World::registered();
    let lease = world.claim(&in_process("a", 7), 1_000);
    assert_eq!(world.run(reclaim(&in_process("a", 7), &lease, 50)), busy(&lease));
}

#[test]
fn a_reclaim_that_is_sent_again_finds_its_lease_and_the_dead_holder() {
    let mut world = World::registered();
    let dead = world.claim(&in_process("a", 7), 1_000);
    world.context.observed = ObservedProcess::Absent;
    let command = reclaim(&in_process("b", 8), &dead, 50);
    let granted = world.run(command.clone());
    assert_eq!(world.decide_again(&command), Ok(Decision { lease: None, ..granted }));
}

#[test]
fn an_ended_or_unregistered_process_is_not_reclaimed() {
    let lease = lease(&owner("a"), 1, 1, 100);
    let output = ProcessAwaitOutput::success(json!(1));
    assert_eq!(World::completed(json!(1)).refusal(reclaim(&owner("b"), &lease, 50)), already_terminal(&output));
    assert_eq!(World::empty().refusal(reclaim(&owner("b"), &lease, 50)), unknown());
}

//! The same promises as in `supervised_restart`, over the log that hosts use, with its own threads and real time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use awaiter::ProcessAwaiter;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessAwaitOutput, ProcessId, Receipt, Refusal, Sequence,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{FaultPoint, ProcessRegistryExt, RegistryError};
use registry_tests::FaultScript;
use registry_tests::example_process::{note, opaque_owner, process_id, registration};
use serde_json::json;

/// A safety net, no test's measure.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(store: &Path, faults: &Arc<FaultScript>) -> ActorRegistry {
    let log = SqliteLog::open(store, SqliteOptions::default()).expect("the store opens");
    let mut options = RegistryOptions::default();
    options.faults = Arc::clone(faults) as _;
    ActorRegistry::start(Arc::new(log), options).await.expect("the registry starts")
}

async fn check_and_close(registry: &ActorRegistry, id: &ProcessId) -> Vec<u64> {
    let verification = registry.log().verify(id).await.expect("the check can be made");
    assert_eq!(verification.faults, []);
    let page = registry.events_page(id, Sequence(0), 10_000).await.expect("the events can be read");
    let numbers = page.events.iter().filter_map(|event| event.payload["number"].as_u64()).collect();
    assert_eq!(registry.shut_down(PATIENCE).await.shards_killed, 0);
    numbers
}

fn inserted_sequence(receipt: &Receipt) -> u64 {
    assert!(receipt.events.len() == 1 && receipt.events[0].is_inserted(), "{receipt:?}");
    receipt.events[0].event().sequence.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_each_point_costs_no_caller_and_no_waiter_anything() {
    let directory = tempfile::tempdir().expect("a directory");
    let faults = FaultScript::new();
    let registry = open(&directory.path().join("store.db"), &faults).await;
    let id = process_id("a");
    faults.panic_at(FaultPoint::Load, &id, 1);
    registry.register_process(registration(&id)).await.expect("the second load succeeds");
    let awaiter = ProcessAwaiter::attached(Arc::new(registry.clone()));
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { awaiter.await_terminal(&id).await }
    });
    for (number, point) in [(1, FaultPoint::AfterSubmit), (2, FaultPoint::AfterCommitBeforeReply)] {
        faults.panic_at(point, &id, 1);
        let receipt = registry.append_event(&id, note(number)).await.expect("the next incarnation answers");
        assert_eq!(inserted_sequence(&receipt), number, "{point:?}");
    }
    faults.panic_at(FaultPoint::Decide, &id, 1);
    let refused = registry.append_event(&id, note(3)).await;
    assert!(matches!(refused, Err(RegistryError::Refused(Refusal::DecisionPanicked { .. }))), "got {refused:?}");
    let output = ProcessAwaitOutput::success(json!(1));
    registry.complete_process(&id, output.clone()).await.expect("completed");
    assert_eq!(waiting.await.expect("no panic"), Ok(output));
    assert_eq!(faults.left(), 0, "every fault happened");
    assert_eq!(check_and_close(&registry, &id).await, [1, 2]);
}

#[tokio::test(flavor = "current_thread")]
async fn kills_under_load_lose_no_caller_and_a_current_thread_runtime_is_enough() {
    let directory = tempfile::tempdir().expect("a directory");
    let faults = FaultScript::new();
    let registry = open(&directory.path().join("store.db"), &faults).await;
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("registered");
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let (registry, id) = (registry.clone(), id.clone());
        callers.spawn(async move {
            for turn in 0..50 {
                registry.append_event(&id, note(caller * 50 + turn)).await.expect("answered");
                // Four kills in all: a fifth more within the minute would quarantine the process, as it should.
                if caller == 0 && turn % 12 == 11 {
                    registry.process_actor(&id).expect("it is live").kill();
                }
            }
        });
    }
    callers.join_all().await;
    let mut numbers = check_and_close(&registry, &id).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<u64>>(), "each append is stored once");
}

/// What `proctor run` rests on: the owner lock is the proof, and nothing has to time out.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_session_reclaims_the_lease_of_an_earlier_one_and_of_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store.db");
    let faults = FaultScript::new();
    let registry = open(&store, &faults).await;
    let owner = |registry: &ActorRegistry, name: &str| LeaseOwnerIdentity {
        owner_id: name.to_owned(),
        incarnation_id: "1".to_owned(),
        liveness: LeaseOwnerLiveness::StoreSession { session: registry.session().clone() },
    };
    let (embedded, opaque) = (process_id("embedded"), process_id("opaque"));
    for (id, holder) in [(&embedded, owner(&registry, "first host")), (&opaque, opaque_owner("somebody"))] {
        registry.register_process(registration(id)).await.expect("registered");
        registry.claim_process_lease(id, holder, 3_600_000).await.expect("answered").acquired().expect("free");
    }
    let held = registry.get_process_lease(&embedded).await.expect("readable").expect("held");
    let alive = registry.reclaim_process_lease(&embedded, owner(&registry, "rival"), held, 1_000).await;
    assert!(alive.expect("answered").acquired().is_none(), "its host lives");
    registry.shut_down(PATIENCE).await;

    let registry = open(&store, &faults).await;
    let claimant = owner(&registry, "second host");
    for (id, dies) in [(&embedded, true), (&opaque, false)] {
        let held = registry.get_process_lease(id).await.expect("readable").expect("held");
        let claimed = registry.claim_process_lease(id, claimant.clone(), 1_000).await.expect("answered");
        assert!(claimed.acquired().is_none(), "a plain claim never takes a lease in force");
        let reclaimed = registry.reclaim_process_lease(id, claimant.clone(), held, 1_000).await.expect("answered");
        assert_eq!(reclaimed.acquired().map(|lease| lease.fencing_token.0), dies.then_some(2), "{id}");
    }
    registry.shut_down(PATIENCE).await;
}

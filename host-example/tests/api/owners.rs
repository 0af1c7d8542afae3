//! Processes that are owned elsewhere: their events, and how they end.

use std::{path::Path, sync::Arc, time::Duration};

use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    domain::{
        Command, LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessId, ProcessInput, ProcessLease, ProcessRegistration,
        ProcessStarted, RecoveryDisposition,
    },
    log::{SqliteLog, SqliteOptions},
    port::{ProcessRegistry, ProcessRegistryExt},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Server, code};

#[tokio::test]
async fn an_owner_elsewhere_appends_events_and_ends_its_process() {
    let server = Server::start();
    server.outside("p").await;
    let events = json!({ "events": [
        { "event_type": "said", "payload": 1, "replay_key": "one" },
        { "event_type": "said", "payload": 2 },
    ] });
    let appended = |sequence: u64, replayed: bool| json!({ "sequence": sequence, "replayed": replayed });
    let first = server.ok("/processes/p/events", events.clone()).await;
    assert_eq!(first["events"], json!([appended(1, false), appended(2, false)]));
    let second = server.ok("/processes/p/events", events).await;
    assert_eq!(second["events"], json!([appended(1, true), appended(3, false)]));
    for (event, status, kind) in [
        (json!({ "event_type": "unsaid" }), 422, "refused"),
        (json!({ "event_type": "said", "payload": 9, "replay_key": "one" }), 409, "replay_conflict"),
        (json!({ "event_type": "said", "replay_key": " " }), 422, "invalid_request"),
    ] {
        let (found, problem) = server.post("/processes/p/events", json!({ "events": [event] })).await;
        assert_eq!((found.as_u16(), code(&problem)), (status, kind), "{problem}");
    }
    let (status, _) = server.post("/processes/p/events", json!({ "events": [] })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let signal = server.ok("/processes/p/signals/go", json!({ "signal_id": "once" })).await;
    assert_eq!((&signal["ordinal"], &signal["replayed"]), (&json!(1), &json!(false)));

    let failed = json!({ "outcome": { "type": "failure", "class": "external", "code": "c", "message": "m" } });
    let ended = server.ok("/processes/p/complete", failed.clone()).await;
    assert_eq!((&ended["status"], &ended["outcome"]["message"]), (&json!("failed"), &json!("m")));
    server.ok("/processes/p/complete", failed).await;
    let (status, problem) = server.post("/processes/p/complete", json!({ "outcome": { "type": "success" } })).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "already_ended"));
}

#[tokio::test]
async fn what_this_host_runs_is_written_by_nobody_else() {
    let server = Server::start();
    server.ok("/processes", json!({ "process_id": "c", "command": { "argv": ["true"] } })).await;
    let guarded = json!({ "events": [{ "event_type": "command.guarded", "payload": { "pid": 1 } }] });
    let (status, problem) = server.post("/processes/c/events", guarded).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "owned_by_host"));
    let success = json!({ "outcome": { "type": "success" } });
    let (status, problem) = server.post("/processes/c/complete", success.clone()).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "owned_by_host"));
    let work = json!({ "process_id": "w", "work": { "kind": "k" }, "disposition": "rerunnable" });
    server.ok("/processes", work).await;
    let (status, problem) = server.post("/processes/w/complete", success).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "not_externally_owned"));
}

/// What an earlier host has left: one process that somebody holds, one that nobody goes on with, and one that waits for an executor.
async fn left_behind(directory: &Path) {
    let log = SqliteLog::open(directory.join("s.db"), SqliteOptions::default()).expect("a store");
    let registry = ActorRegistry::start(Arc::new(log), RegistryOptions::default()).await.expect("a registry");
    let process = async |id: &str, disposition| {
        let id = ProcessId::new(id).expect("an id");
        let input = ProcessInput::new("elsewhere", Value::Null);
        registry.register_process(ProcessRegistration::new(id.clone(), input, disposition)).await.expect("registered");
        id
    };
    let claim = async |id: &ProcessId| -> ProcessLease {
        let owner = LeaseOwnerIdentity {
            owner_id: "somebody".to_owned(),
            incarnation_id: "1".to_owned(),
            liveness: LeaseOwnerLiveness::Opaque,
        };
        let claimed = registry.claim_process_lease(id, owner, 3_600_000).await.expect("an answer");
        claimed.acquired().expect("a lease")
    };
    let held = process("held", RecoveryDisposition::ExternallyOwned).await;
    claim(&held).await;
    let stuck = process("stuck", RecoveryDisposition::OwnerBound).await;
    let lease = claim(&stuck).await;
    let started = ProcessStarted { owner: lease.owner.clone(), started_at_ms: 1 };
    let begin = Command::BeginAttempt { started, fence: lease.fence() };
    registry.execute(&stuck, begin).await.expect("begun");
    registry.complete_process_lease(&lease).await.expect("given up");
    process("waiting", RecoveryDisposition::Rerunnable).await;
    registry.shut_down(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn what_somebody_holds_is_not_ended_and_what_is_stuck_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    left_behind(directory.path()).await;
    let server = Server::start_over(directory, &["--requests-per-second", "0"]);
    let success = json!({ "outcome": { "type": "success" } });
    let (status, problem) = server.post("/processes/held/complete", success).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "lease_held"));

    let (_, page) = server.get("/stuck").await;
    assert_eq!(page["stuck"].as_array().map(Vec::len), Some(1), "{page}");
    assert_eq!((&page["stuck"][0]["process_id"], &page["next_after"]), (&json!("stuck"), &Value::Null));
    // A page is of what was looked at, not of what was found.
    let (_, first) = server.get("/stuck?limit=1").await;
    assert_eq!((&first["stuck"], &first["next_after"]), (&json!([]), &json!("held")));
    let (_, second) = server.get("/stuck?limit=1&after=held").await;
    assert_eq!((&second["stuck"][0]["process_id"], &second["next_after"]), (&json!("stuck"), &json!("stuck")));
}

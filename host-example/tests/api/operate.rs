//! What operates the host: prune, verify, back up, and what it says of itself.

use std::{fs, os::unix::fs::PermissionsExt};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Server, answer, code};

#[tokio::test]
async fn a_prune_removes_what_it_said_it_would() {
    let server = Server::start();
    for (id, tag) in [("kept", "keep"), ("other", "b"), ("gone", "a"), ("alive", "a")] {
        let work = json!({ "kind": "elsewhere" });
        let request = json!({ "process_id": id, "work": work, "tags": [tag], "disposition": "externally_owned" });
        server.ok("/processes", request).await;
        if id != "alive" {
            server.complete(id).await;
        }
    }
    let mut prune =
        json!({ "older_than_ms": 0, "keep_tags": ["keep"], "tags": ["a"], "states": ["completed"], "dry_run": true });
    let said = server.ok("/prune", prune.clone()).await;
    assert_eq!((&said["dry_run"], &said["pruned_processes"]), (&json!(true), &json!(1)));
    prune["dry_run"] = json!(false);
    let done = server.ok("/prune", prune).await;
    assert_eq!(
        (&done["pruned_processes"], &done["pruned_events"], &done["more"]),
        (&json!(1), &json!(1), &json!(false))
    );
    let (status, problem) = server.get("/processes/gone").await;
    assert_eq!((status, code(&problem)), (StatusCode::GONE, "pruned"));
    for id in ["kept", "other", "alive"] {
        assert_eq!(server.get(&format!("/processes/{id}")).await.0, StatusCode::OK, "{id}");
    }
    let old = server.ok("/prune", json!({ "older_than_ms": 86_400_000 })).await;
    assert_eq!(old["pruned_processes"], 0);
}

#[tokio::test]
async fn all_of_a_store_is_verified_or_one_process() {
    let server = Server::start();
    for id in ["a", "b"] {
        server.outside(id).await;
    }
    server.complete("b").await;
    let all = server.ok("/verify", json!({})).await;
    assert_eq!(all, json!({ "processes": 2, "events": 3, "faults": [], "next_after": null }));
    let one = server.ok("/verify", json!({ "process_id": "b" })).await;
    assert_eq!((&one["processes"], &one["events"]), (&json!(1), &json!(2)));
    let rest = server.ok("/verify", json!({ "after": "a" })).await;
    assert_eq!((&rest["processes"], &rest["events"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn a_backup_is_made_beside_the_living_and_over_nothing() {
    let server = Server::start();
    server.outside("p").await;
    let directory = server.path("s.db.backups");
    let to = directory.join("copy.db");
    let made = server.ok("/backup", json!({ "to": "copy.db" })).await;
    assert_eq!((&made["path"], &made["checked"]["processes"]), (&json!(to), &json!(1)));
    let mode = |path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&to)), (0o700, 0o600));
    let (status, problem) = server.post("/backup", json!({ "to": "copy.db" })).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "cannot_create"));
    let taken = directory.join("taken");
    fs::write(&taken, "mine").expect("a file");
    let (status, _) = server.post("/backup", json!({ "to": "taken" })).await;
    assert_eq!((status, fs::read_to_string(&taken).expect("text").as_str()), (StatusCode::CONFLICT, "mine"));
    let unchecked = server.ok("/backup", json!({ "to": "quick.db", "verify": false })).await;
    assert_eq!(unchecked["checked"], Value::Null);
}

#[tokio::test]
async fn only_a_peer_of_this_machine_says_where_else_a_backup_goes() {
    let server = Server::start();
    server.outside("p").await;
    let to = server.path("elsewhere.db");
    let (status, problem) = server.post("/backup", json!({ "to": to })).await;
    assert_eq!((status, code(&problem)), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request"));
    assert!(!to.exists());
    let local = reqwest::Client::builder().unix_socket(server.path("s.db.sock")).build().expect("a client");
    let back_up = |to| answer(local.post("http://host/api/v1/backup").json(&json!({ "to": to })));
    let (status, made) = back_up(to.clone()).await;
    assert_eq!((status, &made["path"]), (StatusCode::CREATED, &json!(to)));
    let (status, problem) = back_up(server.path("none").join("copy.db")).await;
    assert!(status.is_client_error(), "{problem}");
}

#[tokio::test]
async fn one_copy_is_made_at_a_time() {
    let server = Server::start();
    server.outside("p").await;
    // Two that are asked for together seldom come one after the other, and then they are asked for once more.
    for round in 0..100 {
        let copy = |name| server.post("/backup", json!({ "to": format!("{name}{round}") }));
        let (one, other) = tokio::join!(copy("a"), copy("b"));
        let mut found = [one, other];
        found.sort_by_key(|(status, _)| *status);
        assert_eq!(found[0].0, StatusCode::CREATED, "{}", found[0].1);
        if found[1].0 == StatusCode::CONFLICT {
            assert_eq!(code(&found[1].1), "copy_under_way");
            return;
        }
    }
    panic!("copies are made at the same time");
}

#[tokio::test]
async fn a_host_says_what_it_is_and_who_asks() {
    let server = Server::start();
    let (status, host) = answer(server.request("write", Method::GET, "/host")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(host["caller"], json!({ "name": "write", "scope": "write" }));
    assert_eq!(host["store"], json!(server.path("s.db")));
    assert_eq!(host["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(host["pid"], server.child.id());
    assert_eq!((&host["stopping"], &host["quarantined"], &host["running"]), (&json!(false), &json!([]), &json!([])));

    server.ok("/processes", json!({ "process_id": "c", "command": { "argv": ["sleep", "1000"] } })).await;
    let (_, waited) = server.get("/processes/c/wait?event_type=command.guarded&after=0&within_ms=60000").await;
    assert_eq!(waited["answer"], "happened");
    let (_, host) = server.get("/host").await;
    assert_eq!((&host["running"], &host["running_count"]), (&json!(["c"]), &json!(1)));
    server.ok("/processes/c/cancel", json!({})).await;
    let (_, waited) = server.get("/processes/c/wait?within_ms=60000").await;
    assert_eq!(waited["process"]["status"], "cancelled");
}

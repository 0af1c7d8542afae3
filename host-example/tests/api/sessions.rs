//! Sessions: what they may address.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Server, code};

fn ids(page: &Value) -> Vec<&str> {
    let grants = page["grants"].as_array().expect("grants");
    grants.iter().map(|grant| grant["process_id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn grants_are_listed_handed_over_and_ended() {
    let server = Server::start();
    for id in ["a", "b", "c"] {
        server.outside(id).await;
        server.ok("/sessions/s/grants", json!({ "process_id": id, "label": id })).await;
    }
    server.ok("/sessions/s/grants", json!({ "process_id": "c", "agent_frame_id": "f" })).await;
    let (_, page) = server.get("/sessions/s/grants?limit=2").await;
    assert_eq!((ids(&page), &page["next_after"]), (vec!["a", "b"], &json!("b")));
    assert_eq!(
        (&page["grants"][0]["label"], &page["grants"][0]["process"]["kind"]),
        (&json!("a"), &json!("elsewhere"))
    );
    let (_, page) = server.get("/sessions/s/grants?limit=2&after=b").await;
    assert_eq!((ids(&page), &page["next_after"]), (vec!["c"], &Value::Null));
    server.complete("a").await;
    let (_, live) = server.get("/sessions/s/grants?live_only=true").await;
    assert_eq!(ids(&live), ["b", "c"]);
    let (_, frame) = server.get("/sessions/s/grants?agent_frame_id=f").await;
    assert_eq!(ids(&frame), ["c"]);

    let to = json!({ "session_id": "t", "agent_frame_id": "g" });
    let (status, problem) =
        server.post("/sessions/s/grant-transfers", json!({ "to": to, "process_ids": ["b", "nobody"] })).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "not_granted"));
    let moved = server.ok("/sessions/s/grant-transfers", json!({ "to": to, "process_ids": ["b"] })).await;
    assert_eq!((ids(&moved), &moved["grants"][0]["label"]), (vec!["b"], &json!("b")));
    assert_eq!(moved["grants"][0]["scope"], to);

    let revoke = "/sessions/s/grants/c";
    assert_eq!(server.delete(revoke).await.1, json!({ "revoked": true }));
    assert_eq!(server.delete(revoke).await.1, json!({ "revoked": false }));
    let (_, deleted) = server.delete("/sessions/t").await;
    assert_eq!((&deleted["revoked_handle_count"], &deleted["orphaned_process_ids"]), (&json!(1), &json!(["b"])));
    let (_, left) = server.get("/sessions/s/grants").await;
    assert_eq!(ids(&left), ["a"]);
    let (status, _) = server.post("/sessions/s/grants", json!({ "process_id": "nobody" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_is_woken_by_a_process_is_said_at_its_start_and_forgotten_with_the_session() {
    let server = Server::start();
    let work = json!({ "kind": "elsewhere", "wake_target": { "session_id": "s", "agent_frame_id": "f" } });
    let request = json!({ "process_id": "p", "work": work, "disposition": "externally_owned" });
    server.ok("/processes", request.clone()).await;
    // It is part of what makes two requests the same.
    assert_eq!(server.post("/processes", request.clone()).await.0, StatusCode::OK);
    let mut other = request;
    other["work"]["wake_target"]["agent_frame_id"] = json!("g");
    assert_eq!(server.post("/processes", other).await.0, StatusCode::CONFLICT);

    server.delete("/sessions/s").await;
    let (_, page) = server.get("/processes/p/events").await;
    assert_eq!(page["events"][0]["event_type"], "process.wake_target_cleared");
}

//! The change feed, and the streams: nothing is missing, and nothing comes twice.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Following, Server, answer, code};

#[tokio::test]
async fn a_feed_is_read_in_pages_and_ends_with_what_is_left_of_it() {
    let server = Server::start();
    server.outside("p").await;
    server.complete("p").await;
    let (_, first) = server.get("/changes?limit=1").await;
    assert_eq!((&first["has_more"], &first["changes"][0]["event_type"]), (&json!(true), &json!("process.registered")));
    let after = |page: &Value| format!("/changes?after={}", page["next_after"].as_str().expect("a cursor"));
    let (_, second) = server.get(&after(&first)).await;
    let kinds = |page: &Value| {
        let changes = page["changes"].as_array().expect("changes").clone();
        changes.into_iter().map(|change| change["event_type"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((kinds(&second), &second["has_more"]), (vec![json!("process.completed")], &json!(false)));
    assert_eq!(second["next_after"], second["safe_through"]);

    server.outside("q").await;
    server.ok("/sessions/s/grants", json!({ "process_id": "q" })).await;
    let (_, second) = server.get(&after(&second)).await;
    server.ok("/prune", json!({ "older_than_ms": 0 })).await;
    let (_, deleted) = server.delete("/sessions/s").await;
    assert_eq!(deleted["session_id"], "s");
    let (_, third) = server.get(&after(&second)).await;
    let third: Vec<_> = third["changes"].as_array().expect("changes").iter().map(|change| &change["change"]).collect();
    assert_eq!(third, ["pruned", "session_deleted"]);
}

#[tokio::test]
async fn a_stream_of_changes_goes_on_behind_what_was_told() {
    let server = Server::start();
    for id in ["a", "b", "c"] {
        server.outside(id).await;
    }
    let follow = || server.request("read", Method::GET, "/changes/stream");
    let told = Following::of(follow()).await.next(3).await;
    assert_eq!(told.iter().map(|event| event.data["process_id"].clone()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(told.iter().all(|event| event.kind == "event" && event.data["change"] == "event"));

    // Behind each of them, also in the midst of what was one page.
    let again = follow().header("last-event-id", &told[0].id);
    assert_eq!(Following::of(again).await.next(2).await, told[1..]);
    let again = server.request("read", Method::GET, &format!("/changes/stream?after={}", told[1].id));
    assert_eq!(Following::of(again).await.next(1).await, told[2..]);

    // What comes is told as what has been.
    server.ok("/sessions/s/grants", json!({ "process_id": "a" })).await;
    let mut now = Following::of(server.request("read", Method::GET, "/changes/stream?after=now")).await;
    let mut live = Following::of(follow().header("last-event-id", &told[2].id)).await;
    server.complete("b").await;
    let ended = live.next(1).await;
    assert_eq!((ended[0].kind.as_str(), &ended[0].data["event_type"]), ("event", &json!("process.completed")));
    assert_eq!(now.next(1).await, ended);
    server.ok("/prune", json!({ "older_than_ms": 0 })).await;
    server.delete("/sessions/s").await;
    let rest = live.next(2).await;
    assert_eq!((rest[0].kind.as_str(), &rest[0].data["process_id"]), ("pruned", &json!("b")));
    assert_eq!((rest[1].kind.as_str(), &rest[1].data["session_id"]), ("session_deleted", &json!("s")));
    assert_eq!(now.next(2).await, rest);
}

#[tokio::test]
async fn a_cursor_of_another_store_is_refused_in_words() {
    let (server, other) = (Server::start(), Server::start());
    other.outside("p").await;
    let foreign = other.end_of_changes().await;
    let restored = server.end_of_changes().await.replace(".1.0.", ".2.0.");
    for (cursor, status, kind) in
        [(foreign, StatusCode::CONFLICT, "foreign_cursor"), (restored, StatusCode::GONE, "rewound_cursor")]
    {
        for path in ["/changes", "/changes/stream"] {
            let (found, problem) = server.get(&format!("{path}?after={cursor}")).await;
            assert_eq!((found, code(&problem)), (status, kind), "{path}");
        }
        let by_header = server.request("read", Method::GET, "/changes/stream").header("last-event-id", &cursor);
        assert_eq!(answer(by_header).await.0, status);
    }
}

#[tokio::test]
async fn a_stream_of_events_begins_at_once_goes_on_and_ends() {
    let server = Server::start();
    server.outside("p").await;
    let follow = |last: Option<&str>| {
        let request = server.request("read", Method::GET, "/processes/p/events/stream");
        match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        }
    };
    // Nothing has happened, and the answer is there.
    let mut silent = Following::of(follow(None)).await;
    server.ok("/processes/p/events", json!({ "events": [{ "event_type": "said", "payload": 1 }] })).await;
    server.ok("/processes/p/events", json!({ "events": [{ "event_type": "said", "payload": 2 }] })).await;
    let told = silent.next(2).await;
    assert_eq!(told.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["1.1", "1.2"]);
    server.complete("p").await;
    let rest = Following::of(follow(Some("1.1"))).await.next(3).await;
    assert_eq!(rest[0], told[1]);
    assert_eq!((rest[2].kind.as_str(), &rest[2].data["status"]), ("end", &json!("completed")));
    assert_eq!(answer(follow(Some(&rest[1].id))).await.0, StatusCode::NO_CONTENT);

    // In its next life it is told from the beginning.
    server.ok("/prune", json!({ "older_than_ms": 0 })).await;
    assert_eq!(answer(follow(Some("1.1"))).await.0, StatusCode::GONE);
    server.outside("p").await;
    server.ok("/processes/p/events", json!({ "events": [{ "event_type": "said", "payload": 3 }] })).await;
    let next = Following::of(follow(Some("1.1"))).await.next(1).await;
    assert_eq!((next[0].id.as_str(), &next[0].data["payload"]), ("2.1", &json!(3)));
}

#[tokio::test]
async fn a_stop_is_told_at_once_to_a_reader_that_is_behind() {
    const BEHIND: usize = 24;
    let server = Server::start();
    server.outside("p").await;
    let large = "x".repeat(900_000);
    for _ in 0..BEHIND {
        server.ok("/processes/p/events", json!({ "events": [{ "event_type": "said", "payload": large }] })).await;
    }
    let mut streams = Vec::new();
    for path in ["/processes/p/events/stream", "/changes/stream"] {
        streams.push(Following::of(server.request("read", Method::GET, path)).await);
    }
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    // The host says that it is going down, or it is not reached any more.
    while let Ok(response) = server.request("read", Method::GET, "/host").send().await {
        let host: Value = response.json().await.unwrap_or_default();
        if host["stopping"] == true {
            break;
        }
    }
    for mut stream in streams {
        let mut told = 0;
        while stream.next(1).await[0].kind != "stopping" {
            told += 1;
        }
        assert!(told < BEHIND, "everything was told before the stop");
    }
}

#[tokio::test]
async fn one_caller_leaves_room_for_the_streams_of_others() {
    let server = Server::start_with(&["--requests-per-second", "0", "--max-streams", "200"]);
    server.outside("p").await;
    let follow = |scope: &'static str, path: &'static str| server.request(scope, Method::GET, path).send();
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(follow("read", "/changes/stream").await.expect("a stream"));
    }
    assert!(open.iter().all(|stream| stream.status() == StatusCode::OK));
    let of_changes = follow("write", "/changes/stream").await.expect("an answer");
    assert_eq!(of_changes.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(code(&of_changes.json().await.expect("a problem")), "too_many_streams");
    let events = "/processes/p/events/stream";
    for _ in 64..100 {
        open.push(follow("read", events).await.expect("a stream"));
    }
    let (status, problem) = answer(server.request("read", Method::GET, events)).await;
    assert_eq!((status, code(&problem)), (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams"));
    assert!(open.iter().all(|stream| stream.status() == StatusCode::OK));
    assert_eq!(follow("write", events).await.expect("a stream").status(), StatusCode::OK);
}

#[tokio::test]
async fn there_is_room_for_so_many_streams_and_it_comes_back() {
    let server = Server::start_with(&["--requests-per-second", "0", "--max-streams", "1"]);
    server.outside("p").await;
    let follow = |path: &'static str| server.request("read", Method::GET, path).send();
    let open = follow("/changes/stream").await.expect("a stream");
    for path in ["/changes/stream", "/processes/p/events/stream"] {
        let refused = follow(path).await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["retry-after"], "5");
    }
    let (_, host) = server.get("/host").await;
    assert_eq!((&host["streams_open"], &host["streams_limit"]), (&json!(1), &json!(1)));
    drop(open);
    // That a connection is gone is found out when something is sent.
    let mut said = 0;
    while follow("/changes/stream").await.expect("an answer").status() != StatusCode::OK {
        assert!(said < 10_000, "the room does not come back");
        server.ok("/processes/p/events", json!({ "events": [{ "event_type": "said", "payload": said }] })).await;
        said += 1;
    }
}

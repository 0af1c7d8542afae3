//! What cannot be answered is a problem document with the right status, and says which request it was.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{Server, answer, code, filled, operations};

#[tokio::test]
async fn to_start_the_same_again_finds_it_and_something_else_does_not() {
    let server = Server::start();
    let request = json!({ "process_id": "a/b", "command": { "argv": ["true"] }, "tags": ["t"] });
    let start = |body: &Value| server.request("write", Method::POST, "/processes").json(body).send();
    let created = start(&request).await.expect("an answer");
    assert_eq!(created.status(), StatusCode::CREATED);
    let place = created.headers()[header::LOCATION].to_str().expect("text").to_owned();
    assert_eq!(place, "/api/v1/processes/a%2Fb");
    assert_eq!(start(&request).await.expect("an answer").status(), StatusCode::OK);
    let mut other = request.clone();
    other["tags"] = json!(["u"]);
    let refused = start(&other).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert_eq!(code(&refused.json().await.expect("a problem")), "registration_conflict");
    let (status, waited) = server.get("/processes/a%2Fb/wait?within_ms=60000").await;
    assert_eq!((status, &waited["process"]["status"]), (StatusCode::OK, &json!("completed")));
}

#[tokio::test]
async fn every_refusal_is_a_problem_that_names_its_request() {
    let server = Server::start_with(&["--requests-per-second", "0", "--max-body-bytes", "1000"]);
    server.outside("p").await;
    let post = |path: &str, body: &str| {
        let request = server.request("operate", Method::POST, path);
        request.header(header::CONTENT_TYPE, "application/json").body(body.to_owned())
    };
    let get = |path: &str| server.request("operate", Method::GET, path);
    let long = "x".repeat(600);
    let cases = [
        (post("/processes", "{"), 400, "invalid_body"),
        (post("/processes", ""), 400, "invalid_body"),
        (post("/verify", "[null, null]"), 422, "invalid_body"),
        (post("/processes", r#"{"process":"p"}"#), 422, "invalid_body"),
        (post("/processes", r#"{"process_id":7}"#), 422, "invalid_body"),
        (post("/processes", "{}"), 422, "invalid_request"),
        (post("/processes", &format!("{{{}}}", " ".repeat(2_000))), 413, "body_too_large"),
        (post("/processes", r#"{"process_id":" ","work":{"kind":"k"}}"#), 422, "invalid_process_id"),
        (post("/processes", r#"{"command":{"argv":[]}}"#), 422, "invalid_request"),
        (post("/processes/p/signals/no%20name", "{}"), 422, "invalid_request"),
        (post("/processes/p/signals/other", "{}"), 422, "refused"),
        (post("/processes", r#"{"process_id":"..","work":{"kind":"k"}}"#), 422, "invalid_process_id"),
        (post("/sessions/s/grants", r#"{"process_id":"."}"#), 422, "invalid_process_id"),
        (post("/backup", r#"{"to":"../copy.db"}"#), 422, "invalid_request"),
        (post("/backup", r#"{"to":"/tmp/copy.db"}"#), 422, "invalid_request"),
        (post("/verify", r#"{"process_id":"nobody"}"#), 404, "unknown_process"),
        (get("/processes?limit=0"), 422, "invalid_request"),
        (get("/processes?limit=x"), 400, "invalid_query"),
        (get("/processes?status=dead"), 400, "invalid_query"),
        (get("/processes?colour=red"), 400, "invalid_query"),
        (get("/processes?limit=1&limit=2"), 400, "invalid_query"),
        (get("/processes/%FF"), 400, "invalid_path"),
        (get("/processes/%20"), 422, "invalid_process_id"),
        (get(&format!("/processes/{long}")), 422, "invalid_process_id"),
        (get(&format!("/sessions/{long}/grants")), 422, "invalid_request"),
        (get("/processes/nobody"), 404, "unknown_process"),
        (get("/processes/nobody/events/stream"), 404, "unknown_process"),
        (get("/processes/p/events/stream").header("last-event-id", "x"), 400, "invalid_event_id"),
        (get("/processes/p/events/stream").header("last-event-id", "9.1"), 409, "foreign_event_id"),
        (get("/processes/p/events/stream").header("last-event-id", "1.1"), 409, "foreign_event_id"),
        (get("/processes/p/events/stream").header("last-event-id", "0.1"), 400, "invalid_event_id"),
        (get("/processes/p/wait?within_ms=99999999"), 422, "invalid_request"),
        (get("/changes?after=x"), 400, "invalid_cursor"),
        (get("/nothing"), 404, "no_such_route"),
        (server.request("operate", Method::PUT, "/host"), 405, "method_not_allowed"),
        (server.request("operate", Method::POST, "/host"), 405, "method_not_allowed"),
    ];
    for (number, (request, status, kind)) in cases.into_iter().enumerate() {
        let response = request.header("x-request-id", format!("r{number}")).send().await.expect("an answer");
        let headers = response.headers().clone();
        let found = response.status().as_u16();
        let problem: Value = response.json().await.expect("a problem");
        assert_eq!((found, code(&problem)), (status, kind), "case {number}: {problem}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers["x-request-id"], format!("r{number}"));
        assert_eq!(problem["instance"], format!("urn:proctor:request:r{number}"));
        assert_eq!(problem["status"], status);
        assert_eq!(headers.contains_key(header::ALLOW), status == 405, "case {number}");
    }
    // Who names no request is told which it was all the same.
    let (_, problem) = answer(get("/processes/nobody")).await;
    assert!(problem["instance"].as_str().is_some_and(|id| id.starts_with("urn:proctor:request:")), "{problem}");
}

#[tokio::test]
async fn what_has_ended_is_not_asked_to_end() {
    let server = Server::start();
    server.outside("p").await;
    server.complete("p").await;
    let (_, before) = server.get("/processes/p/events").await;
    let (status, problem) = server.post("/processes/p/cancel", json!({ "reason": "too late" })).await;
    assert_eq!((status, code(&problem)), (StatusCode::CONFLICT, "already_ended"));
    assert_eq!(server.get("/processes/p/events").await.1, before);
}

#[tokio::test]
async fn a_body_that_is_described_is_required() {
    let server = Server::start();
    for (method, path, operation) in operations(&server.description().await) {
        if method == Method::POST {
            assert_eq!(operation["requestBody"]["required"], true, "{path}");
            let (status, problem) = answer(server.request("operate", method, &filled(&path, "p"))).await;
            assert_eq!((status, code(&problem)), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"), "{path}");
        }
    }
}

#[tokio::test]
async fn the_description_holds_together() {
    let description = Server::start().description().await;
    let mut references = BTreeSet::new();
    collect_references(&description, &mut references);
    assert!(references.contains("#/components/schemas/Problem"));
    for reference in references {
        let place = reference.strip_prefix('#').expect("a place in the description");
        assert!(description.pointer(place).is_some(), "nothing is at {reference}");
    }
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let answers = operation["responses"].as_object().expect("answers");
            for status in ["400", "401", "403", "421", "422", "429", "503"] {
                assert!(answers.contains_key(status), "{method} {path} says nothing of {status}");
            }
        }
    }
}

fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, into)),
        _ => {}
    }
}

//! Who may do what: every route with every scope.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{SECRETS, Server, answer, code, filled, operations};

/// The scope that each operation takes. Whoever adds a route says here, once more, who may use it.
const OPERATIONS: [(&str, &str); 26] = [
    ("explain_process", "read"),
    ("follow_changes", "read"),
    ("follow_events", "read"),
    ("get_host", "read"),
    ("get_process", "read"),
    ("get_stats", "read"),
    ("list_changes", "read"),
    ("list_events", "read"),
    ("list_grants", "read"),
    ("list_processes", "read"),
    ("list_stuck", "read"),
    ("wait_for_process", "read"),
    ("abandon_process", "write"),
    ("append_events", "write"),
    ("cancel_process", "write"),
    ("complete_process", "write"),
    ("delete_session", "write"),
    ("grant_process", "write"),
    ("revoke_grant", "write"),
    ("signal_process", "write"),
    ("start_process", "write"),
    ("transfer_grants", "write"),
    ("back_up", "operate"),
    ("create_login_link", "operate"),
    ("prune", "operate"),
    ("verify", "operate"),
];

fn rank(scope: &str) -> usize {
    SECRETS.iter().position(|(name, _)| *name == scope).expect("a scope")
}

#[tokio::test]
async fn every_operation_takes_the_scope_of_its_group_and_nothing_less() {
    let server = Server::start();
    let described = operations(&server.description().await);
    let name = |operation: &Value| operation["operationId"].as_str().expect("a name").to_owned();
    let scopes: BTreeMap<_, _> = described
        .iter()
        .map(|(_, _, operation)| (name(operation), operation["x-scope"].as_str().expect("a scope").to_owned()))
        .collect();
    let expected: BTreeMap<_, _> =
        OPERATIONS.into_iter().map(|(name, scope)| (name.to_owned(), scope.to_owned())).collect();
    assert_eq!(scopes, expected);

    for (method, path, operation) in described {
        let (path, needed) = (filled(&path, "nobody"), &expected[&name(&operation)]);
        let nobody = server.bare(method.clone(), &format!("/api/v1{path}")).json(&json!({})).send().await;
        let nobody = nobody.expect("an answer");
        assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(nobody.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let stranger = server.bare(method.clone(), &format!("/api/v1{path}")).json(&json!({}));
        let (status, _) = answer(stranger.bearer_auth("a secret that nobody knows")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        for (scope, _) in SECRETS {
            // A stream has an answer before it has an end.
            let response = server.request(scope, method.clone(), &path).json(&json!({})).send().await;
            let status = response.as_ref().expect("an answer").status();
            let is_allowed = !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            assert_eq!(is_allowed, rank(scope) >= rank(needed), "{method} {path} as {scope}: {status}");
            if !is_allowed {
                let problem: Value = response.expect("an answer").json().await.expect("a problem");
                assert_eq!(code(&problem), "scope_too_small", "{method} {path} as {scope}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_token_the_host_says_only_that_it_lives() {
    let server = Server::start();
    for (path, expected) in [
        ("/healthz", StatusCode::OK),
        ("/readyz", StatusCode::OK),
        ("/api/v1/openapi.json", StatusCode::UNAUTHORIZED),
        ("/api/v1/host", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(answer(server.bare(Method::GET, path)).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn with_a_token_that_may_look_nothing_changes() {
    let server = Server::start();
    server.outside("p").await;
    server.ok("/sessions/s/grants", json!({ "process_id": "p" })).await;
    let before = server.end_of_changes().await;
    let bodies = json!({
        "back_up": { "to": server.path("copy.db") },
        "append_events": { "events": [{ "event_type": "said" }] },
        "complete_process": { "outcome": { "type": "success" } },
        "grant_process": { "process_id": "p", "label": "another" },
        "prune": { "older_than_ms": 0 },
        "start_process": { "process_id": "q", "work": { "kind": "elsewhere" }, "disposition": "externally_owned" },
        "transfer_grants": { "to": { "session_id": "t" }, "process_ids": ["p"] },
    });
    for (method, path, operation) in operations(&server.description().await) {
        // To wait for what does not come takes its time, and shows nothing.
        if operation["operationId"] == "wait_for_process" {
            continue;
        }
        let body = match &bodies[operation["operationId"].as_str().expect("a name")] {
            Value::Null => &json!({}),
            body => body,
        };
        let response = server.request("read", method, &filled(&path, "p")).json(body).send().await;
        drop(response.expect("an answer"));
    }
    assert_eq!(server.end_of_changes().await, before);
    let (_, grants) = server.get("/sessions/s/grants").await;
    assert_eq!(grants["grants"][0]["label"], Value::Null);
    assert!(!server.path("copy.db").exists());

    // The same bodies do something for those who may.
    server.ok("/processes/p/events", bodies["append_events"].clone()).await;
    assert_ne!(server.end_of_changes().await, before);
}

#[tokio::test]
async fn only_its_own_name_and_its_own_pages_are_answered() {
    let server = Server::start();
    let named = |name: &str| server.request("operate", Method::GET, "/host").header(header::HOST, name);
    let (status, problem) = answer(named("evil.example")).await;
    assert_eq!((status, code(&problem)), (StatusCode::MISDIRECTED_REQUEST, "foreign_host"));
    let asked_by = |origin: &str| server.request("operate", Method::GET, "/host").header(header::ORIGIN, origin);
    let (status, problem) = answer(asked_by("http://evil.example")).await;
    assert_eq!((status, code(&problem)), (StatusCode::FORBIDDEN, "foreign_origin"));
    assert_eq!(answer(asked_by(&server.root)).await.0, StatusCode::OK);

    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = server.request("operate", Method::POST, "/processes").header(header::CONTENT_TYPE, kind);
        let (status, problem) = answer(request.body(r#"{"command":{"argv":["true"]}}"#)).await;
        assert_eq!((status, code(&problem)), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"), "{kind}");
    }
    let untyped = server.request("operate", Method::POST, "/verify");
    assert_eq!(answer(untyped).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (_, processes) = server.get("/processes").await;
    assert_eq!(processes["processes"], json!([]));
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_go_on_and_others_are_not() {
    let server = Server::start_with(&["--requests-per-second", "1"]);
    let ask = || server.request("read", Method::GET, "/host").send();
    let answers = futures_util::future::join_all((0..30).map(|_| ask())).await;
    let refused = answers
        .into_iter()
        .map(|response| response.expect("an answer"))
        .find(|response| response.status() == StatusCode::TOO_MANY_REQUESTS)
        .expect("thirty at once are too many for one a second");
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(code(&refused.json().await.expect("a problem")), "too_many_requests");
    let another = answer(server.request("operate", Method::GET, "/host")).await;
    assert_eq!(another.0, StatusCode::OK);

    // Nor is the user of this machine, through the socket.
    let local = reqwest::Client::builder().unix_socket(server.path("s.db.sock")).build().expect("a client");
    for _ in 0..5 {
        let response = local.get("http://host/api/v1/host").send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// A cookie goes to every port of a machine, whoever listens there. Whoever catches it has nothing without what the page keeps.
#[tokio::test]
async fn a_browser_comes_in_once_by_a_link_and_its_cookie_alone_opens_nothing() {
    let server = Server::start();
    let link = server.ok("/login-links", json!({})).await;
    let path = link["path"].as_str().expect("a path");
    let browser =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().expect("one");
    let visit = |method| browser.request(method, format!("{}{path}", server.root)).send();

    let looked = visit(Method::HEAD).await.expect("an answer");
    assert_eq!(looked.status(), StatusCode::METHOD_NOT_ALLOWED, "to look at a link does not use it up");
    let entered = visit(Method::GET).await.expect("an answer");
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    let place = entered.headers()[header::LOCATION].to_str().expect("a place");
    let secret = place.strip_prefix("/#session=").expect("a secret that no request carries").to_owned();
    let cookie = entered.headers()[header::SET_COOKIE].to_str().expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("its value").to_owned();
    let (status, problem) = answer(browser.get(format!("{}{path}", server.root))).await;
    assert_eq!((status, code(&problem)), (StatusCode::FORBIDDEN, "link_used"));

    let asked = |cookie: &str, secret: &str| {
        let request = server.bare(Method::GET, "/api/v1/processes").header(header::COOKIE, cookie);
        answer(request.header("x-proctor-session", secret))
    };
    assert_eq!(asked(&cookie, &secret).await.0, StatusCode::OK);
    for (cookie, secret) in [(cookie.as_str(), ""), (cookie.as_str(), "another"), ("", secret.as_str())] {
        assert_eq!(asked(cookie, secret).await.0, StatusCode::UNAUTHORIZED, "{cookie:?} {secret:?}");
    }
}

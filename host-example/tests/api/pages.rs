//! Pages end after so many bytes, and the next one goes on there.

use std::slice::from_ref;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, answer};

/// Of a page that ends after 4 MiB, with the fields around what counts.
const PAGE_BYTES: usize = 4_500_000;

/// Several of these are more than a page.
const LARGE: usize = 900_000;

/// How many there are.
const COUNT: usize = 9;

/// Everything that pages list, each of them not too long. The rows are named by a pointer into each.
async fn listed(server: &Server, path: &str, list: &str, name: &str) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), None);
    for _ in 0..COUNT {
        let mut request = server.request("read", Method::GET, path);
        request = request.query(from_ref(&("limit", "500")));
        if let Some(after) = &after {
            request = request.query(from_ref(&("after", after)));
        }
        let (status, page) = answer(request).await;
        assert!(status.is_success(), "{path}: {page}");
        let bytes = page.to_string().len();
        assert!(bytes <= PAGE_BYTES, "{path}: a page of {bytes} bytes");
        rows.extend(page[list].as_array().expect("rows").iter().map(|row| row.pointer(name).expect("a name").clone()));
        match (&page["next_after"], &page["has_more"]) {
            (Value::Null, _) | (_, Value::Bool(false)) => return rows,
            (Value::String(next), _) => after = Some(next.clone()),
            (next, _) => after = Some(next.to_string()),
        }
    }
    panic!("{path} has no end, after {rows:?}");
}

#[tokio::test]
async fn a_page_ends_after_its_bytes_and_the_next_one_goes_on_there() {
    let server = Server::start();
    let large = "x".repeat(LARGE);
    server.outside("a").await;
    for _ in 0..COUNT {
        let events = json!({ "events": [{ "event_type": "said", "payload": large }] });
        server.ok("/processes/a/events", events).await;
    }
    let ids: Vec<_> = (0..COUNT).map(|number| json!(format!("p{number}"))).collect();
    for id in &ids {
        let work = json!({ "kind": "elsewhere", "payload": large });
        server.ok("/processes", json!({ "process_id": id, "work": work, "disposition": "externally_owned" })).await;
        server.ok("/sessions/s/grants", json!({ "process_id": id })).await;
    }
    let sequences: Vec<_> = (1..=COUNT).map(|sequence| json!(sequence)).collect();
    assert_eq!(listed(&server, "/processes/a/events", "events", "/sequence").await, sequences);
    assert_eq!(listed(&server, "/processes", "processes", "/process_id").await[1..], ids);
    let newest = listed(&server, "/processes?order=newest", "processes", "/process_id").await;
    assert_eq!(newest[..COUNT], ids.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(listed(&server, "/sessions/s/grants", "grants", "/process_id").await, ids);
    let changes = listed(&server, "/changes", "changes", "/sequence").await;
    assert_eq!(changes[1..=COUNT], sequences);
    assert_eq!(changes.len(), 1 + COUNT + COUNT);
    // Who looks for what is stuck reads no more than that either: here nothing is, and the end is found.
    listed(&server, "/stuck", "stuck", "/process_id").await;
}

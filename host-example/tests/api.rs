//! The HTTP interface of `proctor serve` as it is shipped: the real binary, a real port, real tokens.
//!
//! What a test waits for is a line, an answer or an event. Times are bounds on hanging.

#[path = "api/access.rs"]
mod access;
#[path = "api/changes.rs"]
mod changes;
#[path = "api/operate.rs"]
mod operate;
#[path = "api/owners.rs"]
mod owners;
#[path = "api/pages.rs"]
mod pages;
#[path = "api/refusals.rs"]
mod refusals;
#[path = "api/sessions.rs"]
mod sessions;

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{StreamExt, stream::BoxStream};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(120);

/// The tokens of every server here, each with the scope that it is named by.
const SECRETS: [(&str, &str); 3] = [
    ("read", "a secret that may look"),
    ("write", "a secret that may change"),
    ("operate", "a secret that may operate"),
];

/// A host that serves.
struct Server {
    child: Child,
    directory: TempDir,
    root: String,
    client: Client,
}

impl Server {
    fn start() -> Self {
        Self::start_with(&["--requests-per-second", "0"])
    }

    fn start_with(options: &[&str]) -> Self {
        Self::start_over(tempfile::tempdir().expect("a directory"), options)
    }

    /// Serves the store that is in a directory, or will be.
    fn start_over(directory: TempDir, options: &[&str]) -> Self {
        let store = directory.path().join("s.db");
        let mut tokens = format!("key = \"{}\"\n", BASE64_URL_SAFE_NO_PAD.encode([7; 64]));
        for (scope, secret) in SECRETS {
            let name = scope;
            tokens.push_str(&format!("[[token]]\nname = \"{name}\"\nscope = \"{scope}\"\nsecret = \"{secret}\"\n"));
        }
        let path = directory.path().join("s.db.tokens");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(tokens.as_bytes())).expect("a file of tokens");
        let mut child = Command::new(env!("CARGO_BIN_EXE_proctor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--store"])
            .arg(&store)
            .args(options)
            .env("XDG_CONFIG_HOME", directory.path())
            .env_remove("PROCTOR_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("proctor starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let page = "page at ";
        let line = lines.by_ref().map(|line| line.expect("a line")).find(|line| line.contains(page));
        let line = line.expect("the host says where it is");
        let (_, url) = line.split_once(page).expect("an address");
        let root = url.trim_end_matches('/').to_owned();
        // Nobody reads the log of the host, and a full pipe would hold it up.
        thread::spawn(move || lines.for_each(drop));
        let client = Client::builder().no_proxy().timeout(BOUND).build().expect("a client");
        Self { child, directory, root, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A request without any token.
    fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.root))
    }

    /// A request to the interface with the token of a scope.
    fn request(&self, scope: &str, method: Method, path: &str) -> RequestBuilder {
        let (_, secret) = SECRETS.into_iter().find(|(name, _)| *name == scope).expect("a scope");
        self.bare(method, &format!("/api/v1{path}")).bearer_auth(secret)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request("read", Method::GET, path)).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request("operate", Method::POST, path).json(&body)).await
    }

    async fn delete(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request("write", Method::DELETE, path)).await
    }

    /// What has to work.
    async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// A process that nobody in the host runs.
    async fn outside(&self, id: &str) {
        let work = json!({ "kind": "elsewhere", "event_types": ["said", "signal.go"] });
        self.ok("/processes", json!({ "process_id": id, "work": work, "disposition": "externally_owned" })).await;
    }

    async fn complete(&self, id: &str) {
        let outcome = json!({ "type": "success", "value": 1 });
        self.ok(&format!("/processes/{id}/complete"), json!({ "outcome": outcome })).await;
    }

    /// The end of the change feed.
    async fn end_of_changes(&self) -> String {
        let (status, page) = self.get("/changes?limit=1").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["safe_through"].as_str().expect("a cursor").to_owned()
    }

    async fn description(&self) -> Value {
        let (status, description) = self.get("/openapi.json").await;
        assert_eq!(status, StatusCode::OK);
        description
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The answer to a request, with its JSON if it has one.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let body = response.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The code at the end of the type of a problem.
fn code(problem: &Value) -> &str {
    let kind = problem["type"].as_str().expect("a problem");
    kind.strip_prefix("urn:proctor:problem:").expect("a kind of ours")
}

/// A server-sent event.
#[derive(Clone, PartialEq, Debug)]
struct Sent {
    kind: String,
    id: String,
    data: Value,
}

/// A stream that is read.
struct Following {
    chunks: BoxStream<'static, Vec<u8>>,
    text: String,
}

impl Following {
    async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let chunks = response.bytes_stream().map(|chunk| chunk.expect("bytes").to_vec()).boxed();
        Self { chunks, text: String::new() }
    }

    /// The next so many events.
    async fn next(&mut self, count: usize) -> Vec<Sent> {
        let mut events = Vec::new();
        while events.len() < count {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                if let Ok(data) = serde_json::from_str(field("data: ")) {
                    events.push(Sent { kind: field("event: ").to_owned(), id: field("id: ").to_owned(), data });
                }
                self.text = rest.to_owned();
            } else {
                let chunk = self.chunks.next().await.expect("a further event");
                self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        }
        events
    }
}

/// Every operation of the description: method, path, and what is said of it.
fn operations(description: &Value) -> Vec<(Method, String, Value)> {
    let paths = description["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.strip_prefix("/api/v1").expect("the place of the interface").to_owned();
        let operations = item.as_object().expect("operations").clone();
        operations
            .into_iter()
            .map(move |(method, operation)| (method.to_uppercase().parse().expect("a method"), path.clone(), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

/// A path with something in the place of its names.
fn filled(path: &str, process_id: &str) -> String {
    path.replace("{process_id}", process_id).replace("{session_id}", "s").replace("{name}", "go")
}

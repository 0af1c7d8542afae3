//! What a host tells of itself: its numbers, its log, and that neither holds a secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use reqwest::{Client, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(60);

/// A host of its own, and what it has logged so far.
struct Serving {
    child: Child,
    stderr: BufReader<ChildStderr>,
    lines: Vec<String>,
    base: String,
    token: String,
    client: Client,
    directory: TempDir,
}

impl Serving {
    fn start(log_filter: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("store.db");
        let mut child = Command::new(env!("CARGO_BIN_EXE_proctor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--store"])
            .arg(&store)
            .env("XDG_STATE_HOME", directory.path())
            .env("XDG_CONFIG_HOME", directory.path())
            .env("PROCTOR_LOG", log_filter)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut lines = Vec::new();
        let base = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).expect("a line"), 0, "it came up: {lines:?}");
            let page = line.split_once("page at ").and_then(|(_, page)| page.split_once("/login/"));
            let base = page.map(|(base, _)| base.to_owned());
            lines.push(line);
            if let Some(base) = base {
                break base;
            }
        };
        let token = secrets(&store).remove("owner").expect("the first token");
        let client = Client::builder().timeout(BOUND).build().expect("a client");
        Self { child, stderr, lines, base, token, client, directory }
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        request.send().await.expect("an answer")
    }

    /// Starts a command and waits for its end.
    async fn run(&self, id: &str, argv: &[&str]) {
        let body = json!({"process_id": id, "command": {"argv": argv, "cwd": "/"}});
        let request = self.client.post(format!("{}/api/v1/processes", self.base)).bearer_auth(&self.token).json(&body);
        let started = request.send().await.expect("an answer");
        let status = started.status();
        assert!(status.is_success(), "{status}: {}", started.text().await.unwrap_or_default());
        let waited = self.get(&format!("/api/v1/processes/{id}/wait?within_ms=60000")).await;
        let answer: Value = waited.json().await.expect("an answer");
        assert_eq!(answer["answer"], "completed", "{answer}");
    }

    /// Stops it, and answers everything that it logged.
    fn stop(mut self) -> (Vec<String>, TempDir) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, Signal::TERM).expect("a signal");
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("the rest of its log");
        assert!(self.child.wait().expect("an end").success(), "{rest}");
        self.lines.extend(rest.lines().map(str::to_owned));
        (self.lines, self.directory)
    }
}

/// The secrets of a store, by name; the key that signs cookies is one.
fn secrets(store: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("{}.tokens", store.display())).expect("the tokens");
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let mut secrets = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        match line.split_once(" = ").map(|(key, _)| key) {
            Some("key") => drop(secrets.insert("key".to_owned(), quoted(line).expect("a key"))),
            Some("name") => name = quoted(line).expect("a name"),
            Some("secret") => drop(secrets.insert(name.clone(), quoted(line).expect("a secret"))),
            _ => {}
        }
    }
    secrets
}

fn documentation() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
    fs::read_to_string(path).expect("the documentation")
}

/// The kinds of the numbers that a text of Prometheus holds, by name.
fn kinds(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[tokio::test]
async fn the_documented_numbers_are_those_that_are_shown() {
    let host = Serving::start("off");
    host.run("one", &["true"]).await;
    let shown = host.get("/metrics").await;
    assert_eq!(shown.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    // The end of the process is told before its run is over.
    let is_over = |text: &str| {
        let shows = |line: &str| text.lines().any(|shown| shown == line);
        shows(r#"proctor_runs_total{result="completed"} 1"#)
            && shows("proctor_runs_under_way 0")
            && !shows(r#"proctor_looks_total{found="begun"} 0"#)
    };
    let collected = tokio::time::timeout(BOUND, async {
        loop {
            let text = host.get("/metrics").await.text().await.expect("numbers");
            if is_over(&text) {
                return text;
            }
        }
    });
    let text = collected.await.expect("the run is over");

    let documentation = documentation();
    let rows = documentation.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `proctor_")?.split('|').map(str::trim);
        Some((format!("proctor_{}", cells.next()?.trim_matches('`')), cells.next()?.to_owned()))
    });
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), kinds(&text), "{text}");
    let described = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let described: BTreeSet<_> = described.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(described, kinds(&text).into_keys().collect(), "each is described");

    let value = |sample: &str| -> f64 {
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{sample} in {text}")).parse().expect("a number")
    };
    assert_eq!(value("proctor_attempts_begun_total"), 1.0);
    assert_eq!(value(r#"proctor_commands_total{command="register",result="ok"}"#), 1.0);
    assert!(value("proctor_events_appended_total") >= 3.0, "registered, started, ended");
    assert!(value("proctor_commit_seconds_count") >= 3.0);
    assert!(value("proctor_store_bytes") > 0.0);
    assert!(!text.contains("\"one\""), "no label names a process");

    let stats: Value = host.get("/api/v1/stats").await.json().await.expect("numbers");
    for (name, sample) in
        [("appends_total", "proctor_events_appended_total"), ("groups_total", "proctor_commit_seconds_count")]
    {
        assert!(stats[name].as_f64().expect("a number") >= value(sample), "{name}: {stats}");
    }
    assert_eq!((&stats["runs_under_way"], &stats["quarantined"]), (&json!(0), &json!(0)));
    host.stop();
}

#[tokio::test]
async fn numbers_are_shown_to_who_may_read_and_to_nobody_else() {
    let host = Serving::start("off");
    for path in ["/metrics", "/api/v1/stats"] {
        let stranger = host.client.get(format!("{}{path}", host.base)).send().await.expect("an answer");
        assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    host.stop();
}

#[tokio::test]
async fn the_log_tells_of_runs_and_requests_and_holds_no_secret() {
    let host = Serving::start("debug");
    let secret_of_a_caller = "very-secret-value";
    host.run("one", &["true"]).await;
    host.run("two", &["false"]).await;
    let missing = host.get(&format!("/api/v1/processes/nobody?token={secret_of_a_caller}")).await;
    let request_id = missing.headers()["x-request-id"].to_str().expect("a text").to_owned();
    let request = host.client.get(format!("{}/healthz", host.base)).header("cookie", secret_of_a_caller);
    request.send().await.expect("an answer");
    let store = host.directory.path().join("store.db");
    let secrets = secrets(&store);
    assert!(secrets.contains_key("owner") && secrets.contains_key("key"));
    let (lines, _directory) = host.stop();

    for line in &lines {
        assert!(!line.contains(secret_of_a_caller), "{line}");
        for (name, secret) in &secrets {
            assert!(!line.contains(secret), "the secret of `{name}`: {line}");
        }
    }
    // What is said to people is no line of the log.
    let logged = lines.iter().filter(|line| !line.starts_with("proctor: "));
    let events: Vec<Value> =
        logged.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let with = |message: &str| events.iter().filter(|event| event["message"] == message).collect::<Vec<_>>();

    assert_eq!((with("the host serves").len(), with("the host has stopped").len()), (1, 1), "{lines:#?}");
    let begun = with("an attempt has begun");
    let of = |id: &str| begun.iter().find(|event| event["span"]["process_id"] == *id).expect("an attempt").to_owned();
    assert_eq!((&of("one")["span"]["name"], &of("one")["span"]["attempt"]), (&json!("attempt"), &json!(1)));
    assert_eq!(of("two")["level"], "INFO");
    let ended: BTreeMap<_, _> = with("a run has ended")
        .into_iter()
        .map(|event| (event["process_id"].as_str().unwrap_or_default(), event["result"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(ended, BTreeMap::from([("one", "completed"), ("two", "failed")]));

    let answered = with("a request was answered");
    let request = answered.iter().find(|event| event["span"]["request_id"] == *request_id).expect("the request");
    assert_eq!((&request["level"], &request["status"]), (&json!("DEBUG"), &json!(404)));
    assert_eq!(request["span"]["route"], "/api/v1/processes/{process_id}");
    assert_eq!(request["span"]["method"], "GET");
}

/// What a night looks like in the log: no line for each request.
#[tokio::test]
async fn a_quiet_host_logs_runs_and_not_requests() {
    let host = Serving::start("info");
    host.run("one", &["true"]).await;
    for _ in 0..20 {
        host.get("/api/v1/processes").await;
    }
    let (lines, _directory) = host.stop();
    let logged: Vec<_> = lines.iter().filter(|line| !line.starts_with("proctor: ")).collect();
    // It serves, an attempt begins, it ends, it stops, it has stopped.
    assert_eq!(logged.len(), 5, "{logged:#?}");
}

/// The newest first, page by page, and a cursor of one order is not taken for one of the other.
#[tokio::test]
async fn processes_are_listed_newest_first() {
    let host = Serving::start("off");
    for id in ["m", "z", "b", "a"] {
        host.run(id, &["true"]).await;
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/v1/processes?order=newest&status=completed&limit=3{after}");
        let page: Value = host.get(&path).await.json().await.expect("a page");
        let processes = page["processes"].as_array().expect("processes");
        seen.extend(processes.iter().map(|process| process["process_id"].as_str().expect("an id").to_owned()));
        match page["next_after"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["a", "b", "z", "m"]);
    for order in ["newest&after=m", "oldest"] {
        let refused = host.get(&format!("/api/v1/processes?order={order}")).await;
        assert!(refused.status().is_client_error(), "{order}: {}", refused.status());
    }
    host.stop();
}

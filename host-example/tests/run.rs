//! `proctor run` and the reading verbs as they are shipped: the real binary, real commands, real deaths.
//!
//! What a test waits for is a line, an event in the store or the death of a process. Times are bounds on hanging.

#[path = "run/attempts.rs"]
mod attempts;
#[path = "run/explain.rs"]
mod explain;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdout, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    domain::{
        Command, LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessEventType, ProcessId, ProcessInput, ProcessLease,
        ProcessRegistration, ProcessStarted, RecoveryDisposition,
    },
    log::{SqliteLog, SqliteOptions},
    port::{ProcessRegistry, ProcessRegistryExt},
};
use rustix::process::{Pid, Signal, getuid, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(60);
const PROCTOR: &str = env!("CARGO_BIN_EXE_proctor");

/// A user with a home of its own.
struct Sandbox(TempDir);

/// A `proctor run` under way.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn store(&self) -> String {
        self.path("store.db").display().to_string()
    }

    fn command(&self, args: &[&str]) -> process::Command {
        let mut command = process::Command::new(PROCTOR);
        command.args(args).env("XDG_STATE_HOME", self.0.path()).env_remove("PROCTOR_LOG").stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        bounded(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("proctor starts"))
    }

    /// Runs a shell script as a process of the sandbox's store.
    fn run(&self, options: &[&str], script: &str) -> Output {
        self.output(&run_args(&self.store(), options, script))
    }

    fn start(&self, options: &[&str], script: &str) -> Running {
        self.start_with(&run_args(&self.store(), options, script))
    }

    fn start_with(&self, args: &[&str]) -> Running {
        Running::of(&mut self.command(args))
    }

    fn read(&self, verb: &str, rest: &[&str]) -> Output {
        let store = self.store();
        self.output(&[&[verb, "--json", "--store", &store], rest].concat())
    }

    fn events(&self, id: &str) -> Vec<Value> {
        let output = self.read("events", &[id]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        json_lines(&output)
    }

    fn show(&self, id: &str) -> Value {
        let output = self.read("show", &[id]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        json_lines(&output).remove(0)
    }

    fn guard_of(&self, id: &str) -> Pid {
        let events = self.events(id);
        let guarded = events.iter().rfind(|event| event["event_type"] == "command.guarded").expect("a guard");
        pid(&guarded["payload"]["guard"]["pid"].to_string())
    }
}

impl Running {
    fn of(command: &mut process::Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("proctor starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child.id().to_string()), signal).expect("proctor is there");
    }

    fn kill(mut self) {
        self.child.kill().expect("proctor is there");
        self.child.wait().expect("proctor is reaped");
    }

    fn end(self) -> Output {
        bounded(self.child)
    }
}

fn run_args<'a>(store: &'a str, options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&["run", "--store", store], options, &["--", "/bin/sh", "-c", script]].concat()
}

/// The output of a child that is killed when it hangs.
fn bounded(child: Child) -> Output {
    let child_pid = pid(&child.id().to_string());
    let (sender, receiver) = mpsc::channel();
    let waiting = thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(BOUND) else {
        let _ = kill_process(child_pid, Signal::KILL);
        panic!("proctor hangs");
    };
    waiting.join().expect("the waiting thread ends").expect("the receiver is there");
    output.expect("the output of proctor")
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().expect("a number")).expect("a pid")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| -output.status.signal().expect("a code or a signal"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn output_lines(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    events
        .iter()
        .filter(|event| event["event_type"] == "command.output")
        .map(|event| (text(&event["payload"]["stream"]), text(&event["payload"]["text"])))
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::yield_now();
    }
}

/// Whether the process runs; one that waits to be reaped by some init does not.
fn is_alive(process: Pid) -> bool {
    test_kill_process(process).is_ok()
        && fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))
            .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// Refused in one line of ours, with this code.
fn assert_refused(output: &Output, expected: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(code(output), expected, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("proctor: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[test]
fn a_command_passes_its_output_and_its_status_through_and_leaves_both_in_the_store() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--id", "p"], "echo one; echo two >&2; exit 3");
    assert_eq!(code(&output), 3);
    assert_eq!(stdout(&output), "one\n");
    let said = stderr(&output);
    assert!(said.starts_with("two\nproctor: p: 7 events, failed"), "{said}");
    let events = sandbox.events("p");
    let mut lines = output_lines(&events);
    lines.sort();
    assert_eq!(lines, [("stderr".into(), "two".into()), ("stdout".into(), "one".into())]);
    let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().expect("a type")).collect();
    let expected = [
        "process.first_started",
        "process.attempt_started",
        "command.attempt_started",
        "command.guarded",
        "command.output",
        "command.output",
        "process.failed",
    ];
    assert_eq!(types, expected);
    for (sequence, event) in (1..).zip(&events) {
        assert_eq!((&event["process_id"], &event["sequence"]), (&"p".into(), &Value::from(sequence)));
        assert!(event["occurred_at_ms"].is_u64());
    }
    let outcome = &events[6]["payload"]["await_output"];
    assert_eq!((&outcome["class"], &outcome["code"]), (&"execution".into(), &"exit_status".into()));
    assert_eq!(outcome["raw"]["exit_code"], 3);
    assert_eq!(sandbox.show("p")["status"], "failed");
}

#[test]
fn lines_of_one_stream_keep_their_order_and_the_last_may_lack_its_newline() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--id", "p"], "seq 1 3000; printf end");
    let expected: String = (1..=3000).map(|number| format!("{number}\n")).chain(["end".to_owned()]).collect();
    assert_eq!(stdout(&output), expected);
    let recorded: Vec<_> = output_lines(&sandbox.events("p")).into_iter().map(|(_, text)| text).collect();
    assert_eq!(recorded, expected.lines().collect::<Vec<_>>());
    assert_eq!(json_lines(&sandbox.read("events", &["p", "--after", "5", "--limit", "2"]))[0]["sequence"], 6);
}

#[test]
fn a_signal_and_a_missing_program_have_the_codes_of_shells() {
    let sandbox = Sandbox::new();
    let killed = sandbox.run(&["--id", "killed"], "kill -9 $$");
    assert_eq!(code(&killed), 137);
    assert_eq!(sandbox.show("killed")["outcome"]["code"], "signal");
    let store = sandbox.store();
    let missing = sandbox.output(&["run", "--store", &store, "--id", "missing", "--", "/no/such/program"]);
    assert_eq!(code(&missing), 127);
    assert!(stderr(&missing).contains("/no/such/program"), "{}", stderr(&missing));
    let outcome = &sandbox.show("missing")["outcome"];
    assert_eq!((&outcome["class"], &outcome["code"]), (&"invalid_request".into(), &"not_found".into()));
}

#[test]
fn sigterm_cancels_and_ctrl_c_twice_does_not_wait() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--id", "term"], "echo ready; sleep 1000");
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    assert_eq!(code(&running.end()), 143);
    let events = sandbox.events("term");
    let types: Vec<_> = events.iter().rev().take(2).map(|event| event["event_type"].clone()).collect();
    assert_eq!(types, ["process.cancelled", "process.cancel_requested"]);

    let mut running = sandbox.start(&["--id", "int"], "trap '' TERM; echo ready; while :; do sleep 1; done");
    assert_eq!(running.line(), "ready");
    running.signal(Signal::INT);
    until("the request is in the store", || {
        sandbox.events("int").iter().any(|event| event["event_type"] == "process.cancel_requested")
    });
    running.signal(Signal::INT);
    assert_eq!(code(&running.end()), 130);
    assert_eq!(sandbox.show("int")["status"], "cancelled");
}

#[test]
fn a_reader_that_goes_away_costs_the_run_nothing() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--id", "p"], "seq 1 20000; exit 5");
    assert_eq!(running.line(), "1");
    let Running { child, stdout } = running;
    drop(stdout);
    assert_eq!(code(&bounded(child)), 5);
    assert_eq!(output_lines(&sandbox.events("p")).len(), 20_000);
}

#[test]
fn output_past_the_limit_is_counted_in_one_event() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--id", "p", "--max-output", "100000"], "yes $(printf %099d 0) | head -c 1000000");
    assert_eq!(code(&output), 0);
    assert_eq!(output.stdout.len(), 100_000);
    let events = sandbox.events("p");
    assert_eq!(output_lines(&events).len(), 1_000);
    let dropped: Vec<_> = events.iter().filter(|event| event["event_type"] == "command.output_dropped").collect();
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0]["payload"]["dropped_bytes"], 900_000);
}

#[test]
fn a_pipe_that_is_held_open_is_given_up_and_its_holder_ended() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["--id", "p"], "sleep 1000 & echo $!");
    assert_eq!(code(&output), 0);
    assert!(!is_alive(pid(&stdout(&output))));
    let events = sandbox.events("p");
    assert!(events.iter().any(|event| event["event_type"] == "command.output_held_open"), "{events:?}");
}

#[test]
fn two_runs_at_once_need_no_word_about_stores() {
    let sandbox = Sandbox::new();
    let mut first = sandbox.start_with(&["run", "--id", "a", "--", "/bin/sh", "-c", "echo ready; sleep 1000"]);
    assert_eq!(first.line(), "ready");
    let second = sandbox.output(&["run", "--id", "b", "--", "true"]);
    assert_eq!(code(&second), 0);
    assert!(stderr(&second).contains("store-2.db"), "{}", stderr(&second));
    let listed = json_lines(&sandbox.output(&["list", "--json"]));
    let ids: Vec<_> = listed.iter().map(|process| process["process_id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["a", "b"]);
    let running = json_lines(&sandbox.output(&["list", "--json", "--status", "running"]));
    assert_eq!(running.len(), 1);
    first.signal(Signal::TERM);
    first.end();
}

#[test]
fn a_list_is_narrowed_by_label_kind_and_tags() {
    let sandbox = Sandbox::new();
    for (id, tags) in
        [("a", vec!["--tag", "nightly", "--tag", "env=prod"]), ("b", vec!["--tag", "nightly"]), ("c", vec![])]
    {
        let arguments = [vec!["run", "--id", id], tags, vec!["--", "echo", id]].concat();
        assert_eq!(code(&sandbox.output(&arguments)), 0);
    }
    let listed = |filter: &[&str]| -> Vec<String> {
        let output = sandbox.output(&[&["list", "--json"], filter].concat());
        json_lines(&output).iter().map(|process| process["process_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(listed(&["--tag", "nightly"]), ["a", "b"]);
    assert_eq!(listed(&["--tag", "nightly", "--tag", "env=prod"]), ["a"]);
    assert_eq!(listed(&["--label", "echo b"]), ["b"]);
    assert_eq!(listed(&["--kind", "nothing"]), [""; 0]);
    assert_eq!(listed(&["--waiting", "false", "--status", "completed"]), ["a", "b", "c"]);
    assert_refused(&sandbox.output(&["list", "--tag", ""]), 64, &["tag must be a non-empty string"]);
    let tagged = json_lines(&sandbox.output(&["show", "--json", "a"]));
    assert_eq!(tagged[0]["tags"], serde_json::json!(["env=prod", "nightly"]));
}

#[test]
fn a_second_owner_is_refused_and_told_the_first() {
    let sandbox = Sandbox::new();
    let mut first = sandbox.start(&["--id", "a"], "echo ready; sleep 1000");
    assert_eq!(first.line(), "ready");
    let holder = first.child.id().to_string();
    assert_refused(&sandbox.run(&["--id", "b"], "true"), 75, &["owned by", &holder]);
    first.signal(Signal::TERM);
    first.end();
}

#[test]
fn a_stored_and_a_passed_variable_reach_the_command_and_a_missing_one_is_said() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let script = r#"[ "$TOKEN" = hunter2-secret ] && [ "$PLAIN" = visible-value ]"#;
    let args = run_args(&store, &["--id", "p", "--env", "TOKEN", "--env", "PLAIN=visible-value"], script);
    let mut command = sandbox.command(&args);
    command.env("TOKEN", "hunter2-secret").stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = bounded(command.spawn().expect("proctor starts"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let input = sandbox.show("p")["input"].clone();
    assert_eq!(input["env_names"], serde_json::json!(["TOKEN"]));
    assert_eq!(input["env"], serde_json::json!({"PLAIN": "visible-value"}));
    assert_refused(&sandbox.run(&["--env", "NO_SUCH_VARIABLE"], "true"), 64, &["NO_SUCH_VARIABLE"]);
}

#[test]
fn a_passed_value_is_in_no_byte_of_the_store() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let args = run_args(&store, &["--id", "p", "--env", "TOKEN"], "echo ${#TOKEN}; exit 0");
    let mut command = sandbox.command(&args);
    command.env("TOKEN", "hunter2-secret").stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(stdout(&bounded(command.spawn().expect("proctor starts"))), "14\n");
    for entry in fs::read_dir(sandbox.0.path()).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let mut bytes = Vec::new();
            fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("readable");
            assert!(!bytes.windows(14).any(|window| window == b"hunter2-secret"), "{}", path.display());
        }
    }
}

#[test]
fn an_id_stands_for_one_command_and_one_outcome() {
    let sandbox = Sandbox::new();
    assert_eq!(code(&sandbox.run(&["--id", "p"], "echo once")), 0);
    let before = sandbox.events("p").len();
    assert_refused(&sandbox.run(&["--id", "p"], "echo other"), 73, &["`p`", "another command"]);
    assert_refused(&sandbox.run(&["--id", "p"], "echo once"), 73, &["`p`", "ended already", "completed"]);
    assert_eq!(sandbox.events("p").len(), before);
}

#[test]
fn bad_input_is_one_line_and_a_number() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    assert_refused(&sandbox.output(&["run", "--store", &store]), 64, &["COMMAND"]);
    assert_refused(&sandbox.output(&["show", "--store", &store, "p"]), 66, &["no store"]);
    assert_refused(&sandbox.output(&["show", "p"]), 66, &["unknown process `p`"]);
    assert_eq!(code(&sandbox.run(&[], "true")), 0);
    for verb in ["show", "events", "verify"] {
        assert_refused(&sandbox.output(&[verb, "--store", &store, "nobody"]), 66, &["nobody"]);
    }
    let note = sandbox.path("note.txt");
    fs::write(&note, "this is a note and no store, whatever anybody says about it\n".repeat(100)).expect("a file");
    let note = note.display().to_string();
    let before = fs::read(&note).expect("the note");
    assert_refused(&sandbox.output(&["run", "--store", &note, "--", "true"]), 65, &["note.txt"]);
    assert_refused(&sandbox.output(&["list", "--store", &note]), 65, &["note.txt"]);
    assert_eq!(fs::read(&note).expect("the note"), before);
    let nowhere = sandbox.path("nowhere/store.db").display().to_string();
    assert_refused(&sandbox.output(&["run", "--store", &nowhere, "--", "true"]), 73, &["no such directory"]);
    assert_refused(&sandbox.output(&["list", "--store", &nowhere]), 66, &["no store"]);
    assert_eq!(code(&sandbox.output(&["--help"])), 0);
}

#[test]
fn a_directory_that_may_not_be_written_is_said() {
    if getuid().is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let sandbox = Sandbox::new();
    let directory = sandbox.path("sealed");
    fs::create_dir(&directory).expect("a directory");
    let mut permissions = fs::metadata(&directory).expect("its permissions").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&directory, permissions).expect("sealed");
    let store = directory.join("store.db").display().to_string();
    assert_refused(&sandbox.output(&["run", "--store", &store, "--", "true"]), 73, &["sealed"]);
}

#[test]
fn a_store_that_is_whole_verifies() {
    let sandbox = Sandbox::new();
    assert_eq!(code(&sandbox.run(&["--id", "p"], "seq 1 100")), 0);
    let store = sandbox.store();
    assert_eq!(code(&sandbox.output(&["verify", "--store", &store])), 0);
    let verified = json_lines(&sandbox.read("verify", &["p"]));
    assert_eq!(verified[0]["events"], 106);
    assert_eq!(verified[0]["faults"], serde_json::json!([]));
}

/// Changes the file of a store behind everybody's back.
fn patch(store: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(store).expect("the store");
    change(&mut bytes);
    fs::write(store, bytes).expect("the store");
}

#[test]
fn damage_is_told_with_process_and_sequence_and_has_a_code() {
    let sandbox = Sandbox::new();
    assert_eq!(code(&sandbox.run(&["--id", "p"], "printf 'need%s\\n' le-in-a-haystack")), 0);
    patch(&sandbox.store(), |bytes| {
        let needle = b"needle-in-a-haystack";
        let place = bytes.windows(needle.len()).position(|window| window == needle).expect("it is in the file");
        bytes[place] = b'N';
    });
    let store = sandbox.store();
    let output = sandbox.output(&["verify", "--store", &store]);
    assert_eq!(code(&output), 65, "{}", stderr(&output));
    assert!(stdout(&output).lines().any(|line| line.contains("`p`") && line.contains("sequence 5")), "{output:?}");
    assert_eq!(code(&sandbox.read("events", &["p"])), 65);
}

/// A page that SQLite itself finds broken ended the check with the code of a disk that failed, and what stood behind it was not looked
/// at. One store of the user's that cannot be opened kept the others from being checked.
#[test]
fn a_broken_page_and_a_broken_store_are_damage_and_the_check_goes_on() {
    let sandbox = Sandbox::new();
    assert_eq!(code(&sandbox.run(&["--id", "p"], "seq 1 2000")), 0);
    assert_eq!(code(&sandbox.run(&["--id", "q"], "true")), 0);
    let store = sandbox.store();
    patch(&store, |bytes| {
        // Somewhere among the lines of output.
        let needle = br#""text":"1000""#;
        let place = bytes.windows(needle.len()).position(|window| window == needle).expect("it is in the file");
        let page = place - place % 4096;
        bytes[page..page + 16].fill(0xff);
    });
    let output = sandbox.output(&["verify", "--json", "--store", &store]);
    assert_eq!(code(&output), 65, "{}", stderr(&output));
    let told = json_lines(&output);
    assert!(told[0]["process_id"].is_null() && told[0]["faults"][0]["what"].is_string(), "{told:?}");
    let of = |id: &str| told.iter().find(|line| line["process_id"] == id).expect("it was checked")["faults"].clone();
    assert!(of("p").as_array().is_some_and(|faults| !faults.is_empty()), "{told:?}");
    assert_eq!(of("q"), serde_json::json!([]));

    assert_eq!(code(&sandbox.output(&["run", "--", "true"])), 0);
    fs::write(sandbox.path("proctor/serve.db"), "no store at all").expect("a file");
    let output = sandbox.output(&["verify"]);
    assert_eq!(code(&output), 65, "{}", stderr(&output));
    assert!(stderr(&output).contains("serve.db") && stderr(&output).contains("1 processes"), "{}", stderr(&output));
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    assert_eq!(code(&sandbox.run(&["--id", "p"], "true")), 0);
    let store = sandbox.store();
    // Where a file of SQLite keeps the version of its user.
    patch(&store, |bytes| bytes[60..64].copy_from_slice(&99_u32.to_be_bytes()));
    let before = fs::read(&store).expect("the store");
    assert_refused(&sandbox.run(&["--id", "q"], "true"), 65, &["99"]);
    assert_refused(&sandbox.output(&["list", "--store", &store]), 65, &["99"]);
    assert_eq!(fs::read(&store).expect("the store"), before);
}

/// A host of this test's own, in the place of one that died: the registry over the sandbox's store.
struct FormerHost(ActorRegistry);

impl FormerHost {
    async fn of(store: &str) -> Self {
        let log = SqliteLog::open(store, SqliteOptions::default()).expect("a store");
        Self(ActorRegistry::start(Arc::new(log), RegistryOptions::default()).await.expect("a registry"))
    }

    /// It is dead, as far as the store can tell: its session is over, and its leases are not given up.
    async fn die(self) {
        self.0.shut_down(BOUND).await;
    }

    /// Registers a command; nothing of it is begun.
    async fn register(&self, registration: ProcessRegistration) -> ProcessId {
        let id = registration.id.clone();
        self.0.register_process(registration).await.expect("registered");
        id
    }

    fn liveness(&self) -> LeaseOwnerLiveness {
        LeaseOwnerLiveness::StoreSession { session: self.0.session().clone() }
    }

    async fn claim(&self, id: &ProcessId, liveness: LeaseOwnerLiveness) -> ProcessLease {
        let owner =
            LeaseOwnerIdentity { owner_id: "a former host".to_owned(), incarnation_id: id.to_string(), liveness };
        let claimed = self.0.claim_process_lease(id, owner, 3_600_000).await.expect("an answer");
        claimed.acquired().expect("the lease is free")
    }

    /// Begins an attempt and keeps its lease.
    async fn begin(&self, id: &ProcessId, liveness: LeaseOwnerLiveness) -> ProcessLease {
        let lease = self.claim(id, liveness).await;
        let started = ProcessStarted { owner: lease.owner.clone(), started_at_ms: 1 };
        let command = Command::BeginAttempt { started, fence: lease.fence() };
        self.0.execute(id, command).await.expect("begun");
        lease
    }
}

/// A command as `proctor run` declares it.
fn declared(id: &str, argv: &[&str], disposition: RecoveryDisposition) -> ProcessRegistration {
    let payload = serde_json::json!({"argv": argv, "cwd": "/", "max_output_bytes": 1000});
    let types = ["attempt_started", "guarded", "output", "output_dropped", "output_held_open"]
        .map(|name| ProcessEventType::plain(format!("command.{name}")));
    let id = ProcessId::new(id).expect("an id");
    ProcessRegistration::new(id, ProcessInput::new("command", payload), disposition).with_extra_event_types(types)
}

#[tokio::test]
async fn an_owner_bound_command_that_was_never_begun_is_run() {
    let sandbox = Sandbox::new();
    let former = FormerHost::of(&sandbox.store()).await;
    former.register(declared("early", &["echo", "hello"], RecoveryDisposition::OwnerBound)).await;
    former.die().await;
    let output = sandbox.run(&["--id", "next"], "exit 2");
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert_eq!(sandbox.show("early")["status"], "completed");
    assert_eq!(output_lines(&sandbox.events("early")), [("stdout".into(), "hello".into())]);
}

#[test]
fn an_interrupted_recovery_leaves_a_rerunnable_command_to_the_next_host() {
    let sandbox = Sandbox::new();
    let script = "echo attempt $PROCTOR_ATTEMPT; [ $PROCTOR_ATTEMPT = 3 ] || sleep 1000";
    let mut first = sandbox.start(&["--id", "again", "--disposition", "rerunnable"], script);
    assert_eq!(first.line(), "attempt 1");
    first.kill();
    let mut second = sandbox.start(&["--id", "next"], "echo mine; exit 6");
    assert_eq!(second.line(), "mine");
    until("the second attempt runs", || output_lines(&sandbox.events("again")).len() == 2);
    second.signal(Signal::TERM);
    second.end();
    assert_eq!(sandbox.show("again")["status"], "running");
    assert_eq!(code(&sandbox.run(&["--id", "last"], "exit 7")), 7);
    assert_eq!(sandbox.show("again")["outcome"]["value"]["attempt"], 3);
}

#[test]
fn a_started_owner_bound_command_of_a_killed_host_is_abandoned_with_evidence() {
    let sandbox = Sandbox::new();
    let mut first = sandbox.start(&["--id", "left"], "echo $$; sleep 1000");
    let command = pid(&first.line());
    let host = first.child.id();
    first.kill();
    let second = sandbox.run(&["--id", "next"], "exit 4");
    assert_eq!(code(&second), 4);
    assert!(!is_alive(command));
    let said = stderr(&second);
    assert!(said.lines().any(|line| line.contains("`left`") && line.contains("abandoned")), "{said}");
    let outcome = &sandbox.show("left")["outcome"];
    assert_eq!(outcome["type"], "abandoned");
    let evidence = &outcome["evidence"];
    assert_eq!(evidence["writer"], "sweep");
    assert!(
        evidence["owner"]["owner_id"].as_str().is_some_and(|owner| owner.contains(&host.to_string())),
        "{evidence}"
    );
    assert_eq!(evidence["detail"]["remains"]["nothing_left_alive"], true, "{evidence}");
}

#[test]
fn what_outlives_host_and_guard_is_ended_before_the_verdict() {
    let sandbox = Sandbox::new();
    // The command leaves the group, so that only its marker leads to it.
    let mut first = sandbox.start(&["--id", "left"], "setsid sh -c 'echo $$; exec sleep 1000'");
    let command = pid(&first.line());
    let guard = sandbox.guard_of("left");
    kill_process(guard, Signal::STOP).expect("the guard is there");
    first.kill();
    kill_process(guard, Signal::KILL).expect("the guard is there");
    assert!(is_alive(command), "nothing is left to be found");
    // A process that is dead and not reaped yet is none that lives.
    let look = format!("! grep -q 'State:.[^ZX]' /proc/{}/status 2>/dev/null", command.as_raw_nonzero());
    let second = sandbox.run(&["--id", "next"], &look);
    assert_eq!(code(&second), 0, "it lived on beside the next command: {}", stderr(&second));
    let evidence = sandbox.show("left")["outcome"]["evidence"].clone();
    let killed = evidence["detail"]["remains"]["attempts"][0]["killed"].as_array().expect("a list").clone();
    assert!(killed.iter().any(|process| process["pid"] == command.as_raw_nonzero().get()), "{evidence}");
}

#[test]
fn a_rerunnable_command_runs_again_to_its_end_and_never_twice_at_once() {
    let sandbox = Sandbox::new();
    let here = sandbox.0.path().display().to_string();
    let script = format!(
        "cd {here}; exec 9>lock; flock -n 9 || touch overlap; echo attempt $PROCTOR_ATTEMPT; \
         [ $PROCTOR_ATTEMPT = 2 ] || sleep 1000; echo over"
    );
    let mut first = sandbox.start(&["--id", "again", "--disposition", "rerunnable"], &script);
    assert_eq!(first.line(), "attempt 1");
    let guard = sandbox.guard_of("again");
    kill_process(guard, Signal::STOP).expect("the guard is there");
    first.kill();
    kill_process(guard, Signal::KILL).expect("the guard is there");
    let second = sandbox.run(&["--id", "next"], "echo mine; exit 6");
    assert_eq!(code(&second), 6);
    assert_eq!(stdout(&second), "mine\n", "the output of what was recovered goes to the store only");
    let shown = sandbox.show("again");
    assert_eq!((&shown["status"], &shown["outcome"]["value"]["attempt"]), (&"completed".into(), &Value::from(2)));
    let lines: Vec<_> = output_lines(&sandbox.events("again")).into_iter().map(|(_, text)| text).collect();
    assert_eq!(lines, ["attempt 1", "attempt 2", "over"]);
    assert!(!Path::new(&sandbox.path("overlap")).exists(), "two attempts ran at once");
}

#[test]
fn without_recovery_nothing_is_touched_and_the_same_id_takes_its_process_up() {
    let sandbox = Sandbox::new();
    let script = "echo attempt $PROCTOR_ATTEMPT; [ $PROCTOR_ATTEMPT = 2 ] || sleep 1000";
    let options = ["--id", "again", "--disposition", "rerunnable"];
    let mut first = sandbox.start(&options, script);
    assert_eq!(first.line(), "attempt 1");
    first.kill();
    assert_eq!(code(&sandbox.run(&["--id", "next", "--no-recover"], "true")), 0);
    assert_eq!(sandbox.show("again")["status"], "running");
    let second = sandbox.run(&options, script);
    assert_eq!((code(&second), stdout(&second)), (0, "attempt 2\n".to_owned()));
}

#[test]
fn what_was_shown_before_a_crash_is_there_after_it() {
    let sandbox = Sandbox::new();
    let mut running = sandbox.start(&["--id", "p"], "i=0; while :; do i=$((i+1)); echo line $i; done");
    for number in 1..=500 {
        assert_eq!(running.line(), format!("line {number}"));
    }
    let before = sandbox.events("p");
    assert!(output_lines(&before).len() >= 500, "a line is durable before it is shown");
    running.kill();
    let after = sandbox.events("p");
    assert_eq!(after[..before.len()], before);
    assert_eq!(code(&sandbox.run(&["--id", "next"], "true")), 0);
    assert_eq!(sandbox.events("p")[..after.len()], after);
    assert_eq!(code(&sandbox.read("verify", &[])), 0);
}

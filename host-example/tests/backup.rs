//! `proctor backup`, `restore` and `prune` as they are shipped: the real binary, beside real hosts, killed for real.
//!
//! What a test waits for is a line, a file or the end of a process. Times are bounds on hanging.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    domain::{
        ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput, ProcessRegistration,
        RecoveryDisposition,
    },
    log::{SqliteLog, SqliteOptions},
    port::ProcessRegistryExt,
};
use serde_json::json;
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(60);
const PROCTOR: &str = env!("CARGO_BIN_EXE_proctor");

/// A user with a home of its own.
struct Sandbox(TempDir);

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROCTOR);
        command.args(args).env("XDG_STATE_HOME", self.0.path()).env_remove("PROCTOR_LOG").stdin(Stdio::null());
        command
    }

    fn proctor(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().expect("proctor runs");
        assert!(output.status.signal().is_none(), "{output:?}");
        output
    }

    fn backup(&self, from: &str, to: &str) -> Output {
        self.proctor(&["backup", "--store", &self.text(from), &self.text(to)])
    }

    fn verify(&self, name: &str) -> Option<i32> {
        self.proctor(&["verify", "--store", &self.text(name)]).status.code()
    }

    /// The names that are there, without side files and locks.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !["-wal", "-shm", "-journal", ".lock"].iter().any(|suffix| name.ends_with(suffix)))
            .collect();
        names.sort();
        names
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A store with some weight, all of whose processes have ended but one.
fn fill(path: &Path, processes: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let log = Arc::new(SqliteLog::open(path, SqliteOptions::default()).expect("a store"));
        let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("a registry");
        for number in 0..processes {
            let id = ProcessId::new(format!("p{number}")).expect("an id");
            let registration = ProcessRegistration::new(
                id.clone(),
                ProcessInput::new("test", json!({})),
                RecoveryDisposition::Rerunnable,
            )
            .with_extra_event_types([ProcessEventType::plain("said")])
            .with_tags([if number == 0 { "first" } else { "other" }]);
            registry.register_process(registration).await.expect("a registration");
            let events = (0..16).map(|_| ProcessEventAppendRequest::new("said", json!("x".repeat(16_000)))).collect();
            registry.append_events(&id, events).await.expect("events");
            if number > 0 {
                registry.complete_process(&id, ProcessAwaitOutput::success(json!(1))).await.expect("an outcome");
            }
        }
        registry.shut_down(BOUND).await;
    });
}

/// Another process copies the store of a host that writes on, and the host does not notice.
#[test]
fn a_live_hosts_store_is_backed_up_and_restored_beside_it() {
    let sandbox = Sandbox::new();
    let mut host = sandbox
        .command(&["run", "--store", &sandbox.text("store.db"), "--id", "talker", "--", "sh", "-c"])
        .arg("while :; do echo line; sleep 0.01; done")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("proctor starts");
    let mut lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
    for _ in 0..5 {
        lines.next().expect("a line").expect("a line");
    }
    let made = sandbox.backup("store.db", "copy");
    assert_eq!(code(&made), 0, "{}", said(&made));
    assert!(said(&made).contains("1 processes") && said(&made).contains("verified"), "{}", said(&made));
    lines.next().expect("the host goes on").expect("a line");
    assert_eq!(sandbox.verify("copy"), Some(0));

    // It is not overwritten, and no host runs in it.
    assert_eq!(code(&sandbox.backup("store.db", "copy")), 73);
    let refused = sandbox.proctor(&["run", "--store", &sandbox.text("copy"), "--", "true"]);
    assert_eq!(code(&refused), 65, "{}", said(&refused));
    assert!(said(&refused).contains("is a backup"), "{}", said(&refused));

    let restore = |to: &str, more: &[&str]| {
        sandbox.proctor(&[&["restore", &sandbox.text("copy"), "--store", &sandbox.text(to)], more].concat())
    };
    let restored = restore("again.db", &[]);
    assert_eq!(code(&restored), 0, "{}", said(&restored));
    assert!(said(&restored).contains("may live"), "{}", said(&restored));
    assert_eq!(code(&restore("again.db", &[])), 73, "it is there");
    assert_eq!(code(&restore("store.db", &["--replace"])), 75, "its host lives");
    // The original's host lives, so the next host of the copy must not take its process for one that a dead host left.
    let beside = sandbox.proctor(&["run", "--store", &sandbox.text("again.db"), "--", "true"]);
    assert_eq!(code(&beside), 0, "{}", said(&beside));
    let shown = sandbox.proctor(&["show", "--store", &sandbox.text("again.db"), "--json", "talker"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("\"status\":\"running\""), "{shown:?}");

    lines.next().expect("the host goes on").expect("a line");
    host.kill().expect("it is killed");
    host.wait().expect("it has ended");
    drop(lines);
    // Now its lock is free: what replaces its store knows that it is dead, and that its command is nobody's.
    let replaced = restore("store.db", &["--replace"]);
    assert_eq!(code(&replaced), 0, "{}", said(&replaced));
    assert!(said(&replaced).contains("dead hosts"), "{}", said(&replaced));
    let after = sandbox.proctor(&["run", "--store", &sandbox.text("store.db"), "--", "true"]);
    assert_eq!(code(&after), 0, "{}", said(&after));
    let shown = sandbox.proctor(&["show", "--store", &sandbox.text("store.db"), "--json", "talker"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("\"status\":\"abandoned\""), "{shown:?}");
}

/// Starts a backup and kills it when it has begun to write; answers whether it was killed before its end.
fn killed_backup(sandbox: &Sandbox, to: &str, after_bytes: u64) -> bool {
    let args = ["backup", "--store", &sandbox.text("store.db"), &sandbox.text(to)];
    let mut child: Child = sandbox.command(&args).stderr(Stdio::null()).spawn().expect("proctor starts");
    let began = Instant::now();
    while began.elapsed() < BOUND {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        let written = fs::read_dir(sandbox.0.path())
            .expect("the directory")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".incomplete"))
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .max();
        if written.is_some_and(|bytes| bytes >= after_bytes) {
            break;
        }
    }
    child.kill().expect("it is killed");
    child.wait().expect("it has ended").signal() == Some(9)
}

/// Killed at any moment, a backup is there and whole, or not there.
#[test]
fn a_killed_backup_leaves_no_file_that_looks_complete() {
    let sandbox = Sandbox::new();
    fill(&sandbox.path("store.db"), 120);
    let bytes = fs::metadata(sandbox.path("store.db")).expect("the store").len();
    assert!(bytes > 20 << 20, "{bytes} bytes");
    let rounds: u64 = std::env::var("PROCTOR_BACKUP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let mut killed = 0;
    for round in 0..rounds {
        let to = format!("copy-{round}");
        // From its first page to the moment at which only its check is left.
        let was_killed = killed_backup(&sandbox, &to, bytes * round / rounds);
        killed += u64::from(was_killed);
        if sandbox.path(&to).exists() {
            assert_eq!(sandbox.verify(&to), Some(0), "{to}");
        }
        for name in sandbox.names().iter().filter(|name| name.ends_with(".incomplete")) {
            let refused = sandbox.proctor(&["restore", &sandbox.text(name), "--store", &sandbox.text("restored.db")]);
            assert!(!refused.status.success() || !sandbox.path(&to).exists(), "{name}");
            fs::remove_file(sandbox.path(name)).expect("rubbish may be removed");
            let _ = fs::remove_file(sandbox.path("restored.db"));
        }
    }
    assert!(killed > rounds / 2, "only {killed} of {rounds} were killed before their end");
    assert_eq!(sandbox.verify("store.db"), Some(0));
}

/// Ctrl-C is no kill: what was begun is gone.
#[test]
fn an_interrupted_backup_leaves_nothing() {
    let sandbox = Sandbox::new();
    fill(&sandbox.path("store.db"), 120);
    let args = ["backup", "--store", &sandbox.text("store.db"), &sandbox.text("copy")];
    let mut child = sandbox.command(&args).stderr(Stdio::null()).spawn().expect("proctor starts");
    while child.try_wait().expect("a child").is_none() && !sandbox.names().iter().any(|name| name.contains(".copy.")) {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is asked to end");
    let status = child.wait().expect("it has ended");
    if status.code() == Some(0) {
        // It was quicker than we are: then it is whole.
        assert_eq!(sandbox.verify("copy"), Some(0));
    } else {
        assert_eq!(status.code(), Some(130));
        assert_eq!(sandbox.names(), ["store.db"]);
    }
}

#[test]
fn a_damaged_backup_is_told_and_not_restored() {
    let sandbox = Sandbox::new();
    fill(&sandbox.path("store.db"), 3);
    assert_eq!(code(&sandbox.backup("store.db", "copy")), 0);
    let mut bytes = fs::read(sandbox.path("copy")).expect("the copy");
    let text = b"xxxxxxxx";
    let place = bytes.windows(text.len()).position(|window| window == text).expect("what was said");
    bytes[place] = b'y';
    fs::write(sandbox.path("copy"), bytes).expect("a damaged copy");
    let refused = sandbox.proctor(&["restore", &sandbox.text("copy"), "--store", &sandbox.text("again.db")]);
    assert_eq!(code(&refused), 65, "{}", said(&refused));
    assert!(said(&refused).contains("damaged"), "{}", said(&refused));
    assert!(!sandbox.path("again.db").exists());
    let nothing = sandbox.proctor(&["restore", &sandbox.text("nothing"), "--store", &sandbox.text("again.db")]);
    assert_eq!(code(&nothing), 66, "{}", said(&nothing));
}

#[test]
fn a_prune_removes_what_ended_and_the_disk_gets_it_back() {
    let sandbox = Sandbox::new();
    fill(&sandbox.path("store.db"), 60);
    let bytes = || fs::metadata(sandbox.path("store.db")).expect("the store").len();
    let full = bytes();
    let store = sandbox.text("store.db");
    let prune = |more: &[&str]| sandbox.proctor(&[&["prune", "--store", &store], more].concat());
    assert_eq!(code(&prune(&[])), 64, "an age is asked for");
    assert_eq!(code(&prune(&["--older-than", "soon"])), 64);
    let young = prune(&["--older-than", "30d"]);
    assert_eq!(code(&young), 0, "{}", said(&young));
    assert!(said(&young).contains("0 processes with 0 events pruned"), "{}", said(&young));
    for (args, count) in [
        (&["--status", "completed"][..], 59),
        (&["--status", "failed"], 0),
        (&["--tag", "first"], 0),
        (&["--keep-tag", "other"], 0),
    ] {
        let dry = prune(&[&["--older-than", "0s", "--dry-run"], args].concat());
        assert_eq!(code(&dry), 0, "{}", said(&dry));
        assert!(said(&dry).contains(&format!("{count} processes would be pruned")), "{args:?}: {}", said(&dry));
    }
    assert_eq!(bytes(), full);
    let pruned = prune(&["--older-than", "0s", "--status", "completed", "--status", "failed"]);
    assert_eq!(code(&pruned), 0, "{}", said(&pruned));
    assert!(said(&pruned).contains("59 processes with 1003 events pruned"), "{}", said(&pruned));
    assert!(bytes() < full / 4, "{} of {full} bytes are left", bytes());
    assert_eq!(sandbox.verify("store.db"), Some(0));
    let left = sandbox.proctor(&["list", "--json", "--store", &store]);
    assert_eq!(String::from_utf8_lossy(&left.stdout).lines().count(), 1);
    assert_eq!(code(&sandbox.proctor(&["prune", "--older-than", "1d", "--store", &sandbox.text("nothing")])), 66);
}

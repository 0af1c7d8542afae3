//! The verbs that speak to a host, as they are shipped: the real binary beside a real host, through its socket, through its address, and
//! on a store at rest.
//!
//! What a test waits for is a line or the end of a process. Times are bounds on hanging.

#[path = "cli/following.rs"]
mod following;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/owners.rs"]
mod owners;
#[path = "cli/places.rs"]
mod places;
#[path = "cli/waiting.rs"]
mod waiting;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(60);
const PROCTOR: &str = env!("CARGO_BIN_EXE_proctor");

/// A user with a home of its own.
struct Sandbox(TempDir);

/// A `proctor serve` under way; it is killed in the end.
struct Served {
    child: Child,
    url: String,
}

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

    fn store(&self) -> String {
        self.text("store.db")
    }

    fn tokens(&self) -> String {
        self.text("store.db.tokens")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROCTOR);
        command.args(args).env("XDG_STATE_HOME", self.path("state")).env("XDG_CONFIG_HOME", self.path("config"));
        for name in ["LOG", "STORE", "URL", "SOCKET", "TOKEN", "TOKEN_FILE", "LISTEN", "CONFIG"] {
            command.env_remove(format!("PROCTOR_{name}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("proctor starts")
    }

    fn proctor(&self, args: &[&str]) -> Output {
        bounded(self.start(args))
    }

    /// The same, which has to go well.
    fn done(&self, args: &[&str]) -> Output {
        let output = self.proctor(args);
        assert_eq!(code(&output), 0, "{args:?}: {output:?}");
        output
    }

    /// Serves the store of the sandbox.
    fn serve(&self) -> Served {
        let store = self.store();
        self.serve_with(&["--store", &store])
    }

    fn serve_with(&self, args: &[&str]) -> Served {
        let listen = if args.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
        self.await_page(self.start(&[&["serve"], listen, args].concat()))
    }

    /// Waits until a host says where it is.
    fn await_page(&self, mut child: Child) -> Served {
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let url = loop {
            let line = lines.next().expect("the host comes up").expect("a line");
            if let Some((_, page)) = line.split_once("page at ") {
                break page.trim_end_matches('/').to_owned();
            }
        };
        // What is logged later must find a reader.
        thread::spawn(move || lines.for_each(drop));
        Served { child, url }
    }
}

impl Served {
    /// Stops it as a supervisor does.
    fn stop(mut self) {
        kill_process(pid(&self.child), Signal::TERM).expect("the host is there");
        self.child.wait().expect("the host is reaped");
    }

    /// Kills it as a power cut does.
    fn kill(mut self) {
        self.child.kill().expect("the host is there");
        self.child.wait().expect("the host is reaped");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid")
}

/// The output of a child that is killed when it hangs.
fn bounded(child: Child) -> Output {
    let child_pid = pid(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(BOUND) {
        Ok(output) => output.expect("an output"),
        Err(_) => {
            let _ = kill_process(child_pid, Signal::KILL);
            panic!("proctor hung: {:?}", receiver.recv());
        }
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// It failed with this code and one line that has these words, and wrote nothing else.
fn assert_refused(output: &Output, expected: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(code(output), expected, "{said}");
    assert!(said.starts_with("proctor: ") && said.lines().count() == 1, "{said}");
    assert_eq!(stdout(output), "");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}
